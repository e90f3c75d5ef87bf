"""Find the numbers in the text of the book and recompute each of them.

python tools/claims.py                                  all notebooks, pages, quizzes, docstrings
python tools/claims.py notebooks/02_bradley_terry.ipynb   one file, while you write it

The rows stand in ``tests/claims.yaml``, whose head describes the format. Two questions are asked of
each file: do its rows hold, and does every number in its text lie in some row?
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = ROOT / "tests" / "claims.yaml"
QUIZZES = "dpo_lib/widgets/data/quiz/*.json"
BIBLIOGRAPHY = ROOT / "book" / "references.bib"
# Of the modules on the API page (book/_ext/dpo_api.py), those whose docstrings are read here: all
# but those of figures, of widgets, and of the columns that files may have.
_MODULES = (
    "preference logprobs rewards reference losses/__init__ losses/dpo losses/form losses/relatives "
    "losses/unpaired closed_form data/files data/records data/formats/conversations "
    "data/formats/reading data/formats/rows models/checkpoints models/pretrained models/sampling "
    "models/tiny_gpt models/tokenizers world/corpus world/families world/pairs world/reward "
    "fast/cache fast/pair_log_probs scores evaluation training/config training/loop training/step "
    "demo"
)
DOCUMENTED = [f"dpo_lib/{name}.py" for name in _MODULES.split()]

# --- numbers as they are printed -----------------------------------------------------------------

_GROUP = r"(?:,|\{,\}|\\,|\u202f|\u2009|\u00a0)"  # what may separate thousands
_FRACTIONS = {"½": 1 / 2, "⅓": 1 / 3, "⅔": 2 / 3, "¼": 1 / 4, "¾": 3 / 4, "⅕": 1 / 5, "⅛": 1 / 8}
TOKEN = re.compile(
    rf"(?<![A-Za-z0-9.])(?<![A-Za-z0-9]_)"
    rf"(?:\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][+\-−]?\d+)?"
    rf"|[{''.join(_FRACTIONS).replace('½', '')}]"
)
_FROM_THREE = (
    "three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
WORDS = {word: 3 + i for i, word in enumerate(re.findall(r"\w+", _FROM_THREE))}
WORDS |= {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
RATIOS = {"twice": 2, "doubles": 2, "triples": 3, "half": 1 / 2, "a third": 1 / 3, "a fifth": 1 / 5}
RATIOS |= {"a tenth": 1 / 10, "seven tenths": 7 / 10, "nine tenths": 9 / 10, "a hundred": 100}
_WORD = "|".join(sorted(WORDS, key=len, reverse=True))
WORDS |= {"hundred": 100}  # may stand in a row, and needs none: "a few hundred" is no count
# What the code or an experiment counts: "five seeds", "three held-out prompts".
COUNTED = (
    "seeds|runs|chapters|bugs|checks|prompts|pairs|updates|replies|countries|cities|wordings|"
    "raters|statements|losses|exercises|bets|labels"
)
COUNT = re.compile(
    rf"(?<![\w-])(?:{_WORD})(?=\s+(?:of\s+(?:the\s+)?(?:{_WORD})\s+)?(?:[a-z-]+\s+)?(?:{COUNTED})\b"
    # A ratio: "four times as large", "three times the KL", "twice as many".
    r"|\s+times\s+(?:as|the|what|that|larger|smaller|more)\b)|\b(?:twice|half)(?=\s+as\b)",
    re.IGNORECASE,
)
_PRINTED = re.compile(
    r"(?P<sign>[+-]?)"
    r"(?P<mantissa>\d+(?:\.\d*)?|\.\d+)?"
    r"(?:e(?P<e>[+-]?\d+)|(?P<times>\*)?10\^\{?(?P<power>[+-]?\d+)\}?)?"
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")


def read_number(text: str) -> tuple[float, float]:
    r"""Return the value of a printed number and half a unit of its last digit.

    Signs (- and −), thousands (25,600 and 25{,}600 and thin spaces), percent (the percentage),
    powers (1e-9, 10^{-9}, 2\times10^{-7}, 3·10⁻⁴), fractions (3/4, ¾, \frac34) and whole numbers
    and ratios in words (five, a third) are understood.
    """
    words = WORDS | RATIOS
    if text.lower() in words:
        return float(words[text.lower()]), 1e-9
    plain = re.sub(r"10([⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+)", lambda m: "10^" + m[1].translate(_SUPERSCRIPTS), text)
    plain = re.sub(r"\\text\w*\{([^{}]*)\}|\\mathbf\{([^{}]*)\}", r"\1\2", plain.strip().strip("$"))
    plain = re.sub(r"\\(times|cdot)(?![A-Za-z])|[×·]", "*", plain.replace("−", "-"))
    plain = re.sub(r"\{,\}|\\[,;:! ]|[\u202f\u2009\u00a0~]|(?<=\d),(?=\d{3})|\*\*", "", plain)
    plain = re.sub(r"\s+", "", plain).removesuffix("%").removesuffix("\\").removesuffix(".")
    plain = re.sub(r"\\[dt]?frac(?:\{(\d+)\}\{(\d+)\}|(\d)(\d))", r"\1\3/\2\4", plain)
    sign = -1.0 if plain.startswith("-") else 1.0
    if fraction := re.fullmatch(r"[+-]?(\d+)/(\d+)", plain):
        return sign * int(fraction[1]) / int(fraction[2]), 1e-9
    if plain.lstrip("+-") in _FRACTIONS:
        return sign * _FRACTIONS[plain.lstrip("+-")], 1e-9
    match = _PRINTED.fullmatch(plain)
    if not match or not any(match[name] for name in ("mantissa", "power")):
        raise ValueError(f"cannot read {text!r} as one number")
    if match["mantissa"] and match["power"] and not match["times"]:
        raise ValueError(f"cannot read {text!r} as one number")
    mantissa = match["mantissa"] or "1"
    exponent = int(match["e"] or match["power"] or 0)
    decimals = len(mantissa.partition(".")[2])
    return sign * float(f"{mantissa}e{exponent}"), 0.5 * 10.0 ** (exponent - decimals)


def agrees(printed: str, value: float, tolerance: float | None = None) -> bool:
    """Whether ``value``, rounded as ``printed`` is, gives ``printed``; ties may go either way."""
    number, half = read_number(printed)
    limit = half if tolerance is None else tolerance
    return math.isfinite(value) and abs(value - number) <= limit * (1 + 1e-9) + 1e-15 * abs(number)


# --- the text of a file --------------------------------------------------------------------------

VERBATIM = {
    *("code", "code-block", "code-cell", "sourcecode", "literalinclude", "include", "raw"),
    *("toctree", "tableofcontents", "contents", "bibliography", "eval-rst", "image", "glue"),
    *("mermaid", "graphviz", "digraph", "automodule", "autofunction", "autoclass", "autosummary"),
    *("currentmodule", "module", "jupyterquiz", "only", "index", "highlight", "parsed-literal"),
    *("derivation-map", "dpo-formula"),
}  # directives whose body is no prose
UNTITLED = {
    "figure",
    "solution",
    "solution-start",
    "solution-end",
    "exercise-end",
    "math",
    "iframe",
}
_FENCE = re.compile(r"^[ \t>]*(?P<mark>`{3,}|~{3,}|:{3,})[ \t]*(?P<info>[^\n`]*)$")
_MATH = re.compile(
    r"\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}"
    r"|(?<![\\$])\$(?![\s$])(?:\\.|(?!\n\s*\n)[^$\\])+?(?<!\s)\$(?!\d)",
    re.DOTALL,
)
_CODE_SPAN = re.compile(r"(?P<role>\{[\w:.+-]+\}|:math:)?(?<!`)(?P<ticks>`+)(?!`)"
                        r"(?:(?!\n\s*\n).)+?(?<!`)(?P=ticks)(?!`)", re.DOTALL)  # fmt: skip
_LABELED = (
    r"chapters?|ch\.|figures?|figs?\.|tables?|appendix|appendices|exercises?|sections?|"
    r"steps?|equations?|eqs?\.|listings?|parts?"
)
EXEMPT = [
    re.compile(pattern, re.IGNORECASE | re.MULTILINE | re.DOTALL)
    for pattern in (
        r"\A---\n.*?\n---$",  # front matter
        r"<!-- benchmark -->.*?<!-- /benchmark -->",  # a test compares it with stored results
        r"<!--.*?-->",
        r"^%[^\n]*$",  # MyST comments
        r"^\([\w:.-]+\)=[ \t]*$",  # labels
        r"\]\([^)\n]*\)",  # where links lead
        r"^\[[^\]\n]+\]:[^\n]*$",
        r"<https?://[^>\s]+>|https?://[^\s)>\]]+",
        r"\[\^[^\]\n]+\]",  # footnotes
        r"&#?\w+;",
        r"\barxiv:\s*\d{4}\.\d{4,5}",
        r"\bdoi:\s*\S+",
        r"^[ \t>]*\d+[.)](?=\s)",  # ordinals of lists
        r"^#{1,6}[ \t]+(?:\d+(?:\.\d+)*[.:)]|\d+(?:\.\d+)+|\d+(?=\s+[—–-]))(?=\s)",  # and headings
        rf"\b(?:{_LABELED})[\s~\u00a0]+\(?\d+(?:\.\d+)?(?!\d|\.\d)\)?",
        # "chapters 2, 3 and 4": the plural goes on
        r"\b(?:chapters|figures|tables|exercises|sections|steps|equations|parts)\s+\d+"
        r"(?:\s*(?:,|–|-|and|or|to|&)\s*(?:and\s+)?\d{1,2}(?!\d|\.\d))+",
        r"\bv?\d+\.\d+\.\d+[\w.]*|\b(?:python|pytorch|torch|numpy|node(?:\.js)?|matplotlib|"
        r"transformers|jupyter ?book|jupyterlab|version|release)\s+v?\d+(?:\.\d+)*\+?(?=\W|$)"
        r"|\w==\d[\w.]*",  # versions
        r"[\w./-]+\.(?:ipynb|py|md|ya?ml|jsonl?|toml|txt|js|css|html|svg|png|bib)\b",
        r"\b\d+-bit\b|\b[A-Za-z]{2,}-\d+(?!\d|\.\d)",  # names: GPT-2, UTF-8
        r"\\\\\[[^\]]*\]|\\(?:hspace|vspace|label|eqref|ref|tag|begin|color)\*?\{[^}]*\}",
        r"_\{[\w\s,:+=-]*\}",  # subscripts
        r"\\[dt]?frac[012][012](?!\d)",
    )
]
_BET = re.compile(
    r'data-dpo-widget="bet">.*?<script type="application/json">(.*?)</script>', re.DOTALL
)
_MINUTES = re.compile(
    r"\d+(?:\s*(?:–|-|to)\s*\d+)?[\s~\u00a0-]*min(?:ute)?s?\b"
    r"|\d+ more with all the exercises"  # minutes, held to the exercises' own by test_times.py
    r"|difficulty:?\s*\d(?:\s*(?:/|of|out of)\s*\d)?",
    re.IGNORECASE,
)


# What is no prose in a docstring: doctests, the section of references, types of parameters.
_NO_PROSE = re.compile(
    r"^[ \t]*>>> .*?(?=\n\s*\n|\Z)|^References\n-+\n.*?(?=^\w[^\n]*\n-+$|\Z)"
    r"|^(\*?\w[\w, *]* :) [^\n]+$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Place:
    """A piece of text: a Markdown cell, a caption, a docstring, or a whole Markdown file."""

    name: str  # "cell 5", "cell 7, caption", "dpo_loss"; empty for a Markdown file or a module
    text: str
    header: bool = False  # the opening block of a chapter, where reading times need no row

    def where(self, position: int) -> str:
        """Describe a position for a message."""
        return self.name or f"line {self.text.count(chr(10), 0, position) + 1}"

    def context(self, start: int, end: int, width: int = 40) -> str:
        """Return the text around a span on one line, ``width`` characters to either side."""
        left, right = max(0, start - width), min(len(self.text), end + width)
        text = " ".join(self.text[left:right].split())
        return ("…" if left else "") + text + ("…" if right < len(self.text) else "")

    @cached_property
    def numbers(self) -> list[re.Match[str]]:
        """Every number that needs a row."""
        text = self._visible()
        found = [match for match in TOKEN.finditer(text) if not _structural(match)]
        return sorted([*found, *COUNT.finditer(text)], key=lambda match: match.start())

    def _visible(self) -> str:
        """Return the text with everything that needs no row blanked out, position by position."""
        shown = list(self.text)

        def blank(start: int, end: int) -> None:
            shown[start:end] = ["\n" if c == "\n" else "\0" for c in shown[start:end]]

        exercises = list(self._blocks(blank))
        text = "".join(shown)
        for match in _CODE_SPAN.finditer(text):
            if match["role"] not in ("{math}", ":math:"):
                blank(*match.span())
        text = "".join(shown)
        math_spans = [match.span() for match in _MATH.finditer(text)]
        for match in re.finditer(r"</?[A-Za-z][^>\n]*>", text):  # HTML tags, not "a < b" in math
            if not any(start <= match.start() < end for start, end in math_spans):
                blank(*match.span())
        for pattern in EXEMPT:
            for match in pattern.finditer(text):
                blank(*match.span())
        for start, end in [(0, len(text))] if self.header else exercises:
            for match in _MINUTES.finditer(text, start, end):
                blank(*match.span())
        for start, end in math_spans:
            for match in re.finditer(r"_\d+(?![\d.])", text[start:end]):
                blank(start + match.start(), start + match.end())
        for match in re.finditer(r"\\[A-Za-z]+", "".join(shown)):  # \times10 is a number, x10 none
            blank(*match.span())
        return "".join(shown)

    def _blocks(self, blank: Any) -> Iterator[tuple[int, int]]:
        """Blank fences, code and options; yield the spans of the heads of exercises."""
        stack: list[tuple[str, bool]] = []  # mark, is its body verbatim?
        options = yaml_options = False
        head: list[int] = []  # start of an exercise, lines still to read
        position = 0
        for line in self.text.splitlines(keepends=True):
            start, end = position, position + len(line.rstrip("\n"))
            position += len(line)
            fence = _FENCE.match(self.text[start:end])
            mark, info = (fence["mark"], fence["info"].strip()) if fence else ("", "")
            if stack and fence and not info and mark.startswith(stack[-1][0]):
                stack.pop()
                options = False
                blank(start, end)
            elif stack and stack[-1][1]:
                blank(start, end)
            elif fence:
                directive = re.match(r"\{([\w:.-]+)\}[ \t]*", info)
                name = directive[1] if directive else ""
                stack.append((mark, name in VERBATIM if directive else mark[0] != ":"))
                options, yaml_options = bool(directive), False
                titled = directive and name not in VERBATIM | UNTITLED
                title = start + fence.start("info") + directive.end() if titled else end
                blank(start, min(title, end))
                if name.startswith("exercise"):
                    head = [start, 2]
            elif options and line.strip() == "---":
                yaml_options = not yaml_options
                options = yaml_options
                blank(start, end)
            elif options and (yaml_options or re.match(r"[ \t]*:[\w-]+:", line)):
                blank(start, end)
            elif line.strip():
                options = False
                if head:
                    head[1] -= 1
            if head and (head[1] <= 1 or position == len(self.text)):
                yield head[0], end
                head = []


def _structural(match: re.Match[str]) -> bool:
    """Whether the number is a bare 0, 1 or 2."""
    after = match.string[match.end() : match.end() + 4]
    return match[0] in ("0", "1", "2") and not re.match(r"\s*(?:\0?%|\\%)", after)


def read_places(path: Path) -> list[Place]:
    """Return the texts of a notebook, of a Markdown file, of a quiz or of a module."""
    if path.suffix == ".json":
        return read_quiz(path)
    if path.suffix == ".py":
        source = path.read_text(encoding="utf-8")
        return [*read_docstrings(ast.parse(source), source.splitlines())]
    if path.suffix != ".ipynb":
        return [Place("", path.read_text(encoding="utf-8"))]
    places = []
    prose = 0
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"], 1):
        if cell["cell_type"] == "markdown":
            prose += 1
            text = "".join(cell["source"])
            places.append(Place(f"cell {number}", text, header=prose <= 2))
        settings = cell.get("metadata", {}).get("mystnb", {})
        if caption := settings.get("figure", {}).get("caption"):
            places.append(Place(f"cell {number}, caption", caption))
        if alt := settings.get("image", {}).get("alt"):
            places.append(Place(f"cell {number}, alt text", alt))
        places += [Place(f"cell {number}, bet", text) for text in _bets(cell)]
    return places


def _bets(cell: dict) -> Iterator[str]:
    """Yield the title and what is said afterwards of each bet that a cell shows."""
    for output in cell.get("outputs", []):
        for spec in _BET.findall("".join(output.get("data", {}).get("text/html", ""))):
            bet = json.loads(spec)
            yield "\n".join([bet["title"], bet["data"]["said"], *bet["data"].get("why", [])])


def read_quiz(path: Path) -> list[Place]:
    """Return the questions of a quiz, each answer on a line with its verdict and explanation."""
    places = []
    for number, asked in enumerate(json.loads(path.read_text(encoding="utf-8")), 1):
        lines = [asked["question"], "Right: {} -> {}".format(*asked["right"])]
        lines += ["Wrong: {} -> {}".format(*answer) for answer in asked["wrong"]]
        places.append(Place(f"question {number}", "\n".join(lines)))
    return places


def read_docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef, lines: list[str], name: str = ""
) -> Iterator[Place]:
    """Yield the prose of the docstrings of public names, and what is said beside public values."""
    if text := ast.get_docstring(node):
        yield Place(name, _NO_PROSE.sub(r"\1", text))
    if isinstance(node, ast.FunctionDef):
        return
    for inner, below in zip(node.body, [*node.body[1:], None], strict=True):
        named = getattr(inner, "target", getattr(inner, "targets", [inner])[0])
        own = getattr(named, "name", getattr(named, "id", "_"))
        if own.startswith("_"):
            continue
        full = f"{name}.{own}".removeprefix(".")
        if isinstance(inner, ast.ClassDef | ast.FunctionDef):
            yield from read_docstrings(inner, lines, full)
        elif isinstance(inner, ast.Assign | ast.AnnAssign):
            said = lines[inner.end_lineno - 1].partition("  # ")[2]
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                said = str(below.value.value)
            if said:
                yield Place(full, f"{own}: {said}")


def read_outputs(path: Path) -> str:
    """Return the stored text outputs of a notebook: printed text and plain text of results."""
    pieces = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if output.get("name") == "stdout":
                pieces.append("".join(output["text"]))
            pieces.append("".join(output.get("data", {}).get("text/plain", "")))
    return "\n".join(piece for piece in pieces if piece)


# --- rows ----------------------------------------------------------------------------------------

KINDS = {
    "value": ({"words", "value"}, {"tolerance"}),
    "output": ({"words", "output"}, {"tolerance"}),
    "holds": ({"words", "holds"}, set()),
    "given": ({"given"}, set()),
    "cited": ({"cited", "source"}, set()),
    "let": ({"let"}, set()),
    "code": ({"code"}, set()),
}


@dataclass
class File:
    """One file of the book with its rows."""

    name: str
    places: list[Place]
    rows: list[dict]
    root: Path = ROOT
    names: dict[str, Any] = field(default_factory=dict)  # of the file's `let` and `code` rows
    lets: dict[str, str] = field(default_factory=dict)  # what defines them

    def problems(self) -> list[str]:
        """Return what is wrong with the rows."""
        found = []
        for number, row in enumerate(self.rows, 1):
            try:
                self._check(row)
            except ClaimError as error:
                found.append(f"{self.name}, row {number} ({_short(row)}): {error}")
        return found

    def uncovered(self) -> list[str]:
        """Return a message for each number that lies in no row; neighbors share one."""
        found = []
        for place, spans in zip(self.places, self._covered(), strict=True):
            groups: list[list[tuple[int, int]]] = []
            for match in place.numbers:
                start, end = match.span()
                if any(low <= start and end <= high for low, high in spans):
                    continue
                gap = place.text[groups[-1][-1][1] : start] if groups else "\n"
                if "\n" in gap or len(gap) > 40:
                    groups.append([])
                groups[-1].append((start, end))
            found.extend(self._advice(place, group) for group in groups)
        return found

    def _check(self, row: dict) -> None:
        kind = _kind(row)
        if kind == "let":
            for name, expression in row["let"].items():
                self.lets[name] = str(expression)
                self.names[name] = self._evaluate(str(expression))
            return
        if kind == "code":
            self._run(str(row["code"]))
            return
        words = row.get("words") or row.get("given") or row.get("cited")
        _, printed = _split(words)
        if kind in ("given", "cited") and printed:
            raise ClaimError(f"[[ ]] marks computed numbers; a {kind} row has none")
        if kind in ("given", "cited") and not Place("", words).numbers:
            raise ClaimError("no number that needs a row stands in these words")
        if printed and len(re.sub(r"\[\[.*?\]\]|\s", "", words)) < 2:
            raise ClaimError("give some text around the number, so that it is found once")
        if not any(_pattern(words).search(place.text) for place in self.places):
            raise ClaimError("these words stand nowhere in the file")
        if kind == "cited":
            self._check_source(row["source"])
        if kind in ("given", "cited"):
            return
        if kind == "holds":
            self._check_that_it_holds(row, printed)
            return
        if not printed:
            raise ClaimError("put every computed number of the words in [[ ]]")
        expressions = _listed(row[kind])
        if len(expressions) != len(printed):
            raise ClaimError(f"{len(printed)} numbers in [[ ]], but {len(expressions)} {kind}(s)")
        for number, expression in zip(printed, expressions, strict=True):
            if kind == "output":
                value = self._printed(expression)
            else:
                if _is_literal(expression):
                    raise ClaimError(f"value {expression!r} is no computation; is it a `given`?")
                value = _number(self._evaluate(expression), expression)
            try:
                fits = agrees(number, value, row.get("tolerance"))
            except ValueError as error:
                raise ClaimError(str(error)) from None
            if not fits:
                raise ClaimError(f"the text says {number}, but {expression} gives {value!r}")

    def _check_that_it_holds(self, row: dict, printed: list[str]) -> None:
        """For words that say which way: what decides it is computed, and true."""
        if printed:
            raise ClaimError("[[ ]] marks computed numbers; a holds row has none")
        for expression in _listed(row["holds"]):
            if _is_literal(expression):
                raise ClaimError(f"{expression!r} is no computation")
            value = self._evaluate(expression)
            value = value.item() if getattr(value, "shape", None) == () else value
            if not isinstance(value, bool):
                raise ClaimError(f"{expression} gives {value!r}, not True or False")
            if not value:
                raise ClaimError(f"{expression} is false")

    def _check_source(self, key: str) -> None:
        bibliography = self.root / BIBLIOGRAPHY.relative_to(ROOT)
        entries = re.findall(r"^@\w+\{\s*([^,\s]+)", bibliography.read_text("utf-8"), re.MULTILINE)
        if key not in entries:
            raise ClaimError(f"source {key!r} is not in {bibliography.name}")
        if not any(key in place.text for place in self.places):
            raise ClaimError(f"the file does not cite its source {key!r}")

    def _run(self, code: str) -> None:
        """Run the statements of a `code` row and keep the names that they define."""
        names = self._known()
        known = dict(names)
        try:
            exec(code, names)  # our own file
        except ClaimError:
            raise
        except Exception as error:
            raise ClaimError(f"{type(error).__name__}: {error}") from None
        for name, value in names.items():
            if name != "__builtins__" and known.get(name) is not value:
                self.names[name] = value

    def _known(self) -> dict[str, Any]:
        read = {
            "printed": self._printed,
            "stored": self._stored,
            "figure": self._figure,
            "cell": self._cell,
            "hinted": self._hinted,
        }
        return {**_library(), **self.names, **read}

    def _evaluate(self, expression: str) -> Any:
        try:
            return eval(expression, self._known())  # our own file
        except ClaimError:
            raise
        except Exception as error:
            raise ClaimError(f"{expression}: {type(error).__name__}: {error}") from None

    def _printed(self, pattern: str, file: str | None = None) -> float:
        """Return the number that one group of ``pattern`` finds in a notebook's stored outputs."""
        try:
            regex = re.compile(pattern, re.MULTILINE)
        except re.error as error:
            raise ClaimError(f"output {pattern!r}: {error}") from None
        if regex.groups != 1:
            raise ClaimError(f"output {pattern!r} must have one group, not {regex.groups}")
        found = set(regex.findall(read_outputs(self.root / (file or self.name))))
        if len(found) != 1:
            raise ClaimError(
                f"output {pattern!r} finds {len(found)} different texts: {sorted(found)[:5]}"
            )
        try:
            return read_number(found.pop().rstrip(",;:"))[0]
        except ValueError as error:
            raise ClaimError(str(error)) from None

    def _stored(self, file: str) -> Any:
        """Return a JSON file of the project, such as the results of an experiment."""
        return json.loads((self.root / file).read_text(encoding="utf-8"))

    def _figure(self, name: str, file: str | None = None) -> str:
        """Return the code of the cell that draws a figure."""
        for cell in self._stored(file or self.name)["cells"]:
            if cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") == name:
                return "".join(cell["source"])
        raise ClaimError(f"no figure {name!r}")

    def _cell(self, start: str) -> str:
        """Return the one cell of the notebook that begins so."""
        sources = ("".join(cell["source"]) for cell in self._stored(self.name)["cells"])
        found = [source for source in sources if source.startswith(start)]
        if len(found) != 1:
            raise ClaimError(f"{len(found)} cells begin with {start!r}")
        return found[0]

    def _hinted(self, label: str, *names: str) -> bool:
        """Whether the hint of an exercise names what the solution behind it runs."""
        sources = ["".join(cell["source"]) for cell in self._stored(self.name)["cells"]]
        hints, solutions = {}, {}
        for source, after in pairwise(sources):
            found = re.findall(r":label: (\S+).*?```\{hint\}(.*?)\n```\n", source, re.DOTALL)
            hints |= dict(found)
            if found and after.startswith("# Solution"):
                solutions[found[-1][0]] = after
        return all(name in hints[label] and name in solutions[label] for name in names)

    def _covered(self) -> list[list[tuple[int, int]]]:
        """Return, for each place, the spans that the rows cover."""
        spans: list[list[tuple[int, int]]] = [[] for _ in self.places]
        for row in self.rows:
            try:
                kind = _kind(row)
            except ClaimError:
                continue
            if kind == "let":
                self.lets.update({name: str(text) for name, text in row["let"].items()})
            if kind == "code":
                self.lets.update(dict.fromkeys(_defined(row["code"]), row["code"]))
            if kind in ("let", "code"):
                continue
            words = row.get("words") or row.get("given") or row.get("cited")
            inputs = self._inputs(row, kind)
            for place, covered in zip(self.places, spans, strict=True):
                for match in _pattern(words).finditer(place.text):
                    if kind in ("given", "cited"):
                        covered.append(match.span())
                        continue
                    if kind == "holds":
                        continue  # its numbers have rows of their own
                    covered.extend(match.span(group + 1) for group in range(len(match.groups())))
                    for number in place.numbers:
                        inside = match.start() <= number.start() and number.end() <= match.end()
                        if inside and _value(number[0]) in inputs:
                            covered.append(number.span())
        return spans

    def _inputs(self, row: dict, kind: str) -> set[float]:
        """Return the numbers that stand in the expressions of a row: the inputs of its words."""
        if kind not in ("value", "output"):
            return set()
        text = "\n".join(_listed(row[kind])).replace("\\.", ".")
        for name in reversed(self.lets):
            if re.search(rf"\b{re.escape(name)}\b", text):
                text += "\n" + self.lets[name]
        found = {_value(match[0]) for match in TOKEN.finditer(text.replace("_", ""))}
        return found | {value * 100 for value in found} | {round(v * 100, 9) for v in found}

    def _advice(self, place: Place, group: list[tuple[int, int]]) -> str:
        text = place.text
        numbers = ", ".join(text[start:end] for start, end in group)
        # A minus sign belongs to the number, a subtraction does not.
        group = [(s - bool(re.search(r"(?:^|[\s$(|=>])[-−]$", text[:s][-2:])), e) for s, e in group]
        start, end = group[0][0], group[-1][1]
        left = max(text.rfind("\n", 0, start) + 1, start - 30)
        right = text.find("\n", end)
        right = min(len(text) if right < 0 else right, end + 20)
        before, after = text[left:start], text[end:right]
        if left and text[left - 1] not in "\n " and " " in before:
            before = before.partition(" ")[2]
        if right < len(text) and text[right] not in "\n " and " " in after:
            after = after.rpartition(" ")[0]
        inner = "".join(
            f"[[{text[s:e]}]]{text[e:following]}"
            for (s, e), (following, _) in zip(group, [*group[1:], (end, end)], strict=True)
        )
        words = f"{before}{inner}{after}".strip().replace("'", "''")
        return (
            f"{self.name}, {place.where(start)}: {numbers} {'lies' if len(group) == 1 else 'lie'} "
            f"in no row\n"
            f"    {place.context(start, end)}\n"
            f"  to tests/claims.yaml, under {self.name}:, add what yields it (or given:, cited:)\n"
            f"    - words: '{words}'\n"
            f"      value: [{', '.join(['...'] * len(group))}]"
        )


class ClaimError(Exception):
    """What is wrong with a row."""


def _kind(row: Any) -> str:
    if not isinstance(row, dict):
        raise ClaimError("a row is a mapping")
    for kind, (needed, allowed) in KINDS.items():
        if needed <= row.keys() <= needed | allowed:
            return kind
    raise ClaimError(
        f"the keys {sorted(map(str, row))} are none of: words + value, words + output (either with "
        "tolerance), words + holds, given, cited + source, let, code"
    )


def _short(row: Any) -> str:
    text = " ".join(str(next(iter(row.values()), "") if isinstance(row, dict) else row).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _split(words: Any) -> tuple[list[str], list[str]]:
    """Return the text between the marked numbers, and the marked numbers."""
    if not isinstance(words, str):
        raise ClaimError(f"the words must be a quoted text, got {words!r}")
    pieces = re.split(r"\[\[(.*?)\]\]", words.strip())
    return pieces[::2], pieces[1::2]


def _pattern(words: Any) -> re.Pattern[str]:
    """Return a pattern for the words: any white space fits any other, numbers are groups."""

    def literal(text: str) -> str:
        return r"\s+".join(re.escape(piece) for piece in re.split(r"\s+", text))

    texts, numbers = _split(words)
    pattern = literal(texts[0])
    for number, text in zip(numbers, texts[1:], strict=True):
        pattern += f"({literal(number)})" + literal(text)
    plain = re.sub(r"\[\[|\]\]", "", words.strip())
    # The words must not begin or end inside a longer number: 0.5 is not in 10.55, −0.5 or 0.5 %.
    if re.match(r"[\d.]", plain):
        pattern = r"(?<![\d.,−-])" + pattern
    if re.search(r"\d$", plain):
        pattern += r"(?!\d|[.,]\d|\{,\}\d|e[+-]?\d|\s*\\?%|\s*(?:\\times|\\cdot|×|·)\s*10)"
    return re.compile(pattern)


def _defined(code: str) -> list[str]:
    """Return the names that statements define at the top level."""
    try:
        statements = ast.parse(str(code)).body
    except SyntaxError:
        return []  # running it gives the message
    names = []
    for statement in statements:
        if isinstance(statement, ast.FunctionDef):
            names.append(statement.name)
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.append(node.id)
    return names


def _is_literal(expression: str) -> bool:
    """Whether the expression only repeats a number."""
    try:
        nodes = list(ast.walk(ast.parse(expression.strip(), mode="eval")))
    except SyntaxError:
        return False  # evaluating it gives the message
    return not any(
        isinstance(node, ast.Call | ast.Name | ast.BinOp | ast.Subscript) for node in nodes
    )


def _number(value: Any, expression: str) -> float:
    if isinstance(value, bool | str):
        raise ClaimError(f"{expression} gives {value!r}, which is no number")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ClaimError(f"{expression} gives {value!r}, which is no single number") from None


def _value(token: str) -> float:
    return read_number(token)[0]


@cache
def _library() -> dict[str, Any]:
    """Return the names that expressions may use."""
    import numpy as np
    import torch

    import dpo_lib

    def t(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def near(a: Any, b: Any, atol: float = 1e-8) -> bool:
        a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
        return bool(torch.allclose(a, b, atol=atol))

    def slope(f: Callable[[torch.Tensor], torch.Tensor], at: float) -> float:
        at = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(f(at), at)[0].item()

    def refused(function: Callable[[], Any]) -> str:
        try:
            function()
        except ValueError as error:
            return str(error)
        return ""

    torch.set_num_threads(1)
    tools = {"t": t, "near": near, "slope": slope, "refused": refused}
    public = {name: getattr(dpo_lib, name) for name in dpo_lib.__all__}
    return {"math": math, "np": np, "torch": torch, "dpo_lib": dpo_lib, **tools, **public}


# --- files ---------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses the same key twice, which would hide a section."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise ClaimError(f"{node.start_mark}: {key} stands twice")
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_claims(path: Path = CLAIMS) -> dict[str, list[dict]]:
    """Return the rows by file."""
    return yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}


def book_files(root: Path = ROOT) -> list[str]:
    """Return every file whose numbers need rows."""
    folders = ("book/**/*.md", "book/**/*.ipynb", "notebooks/*.ipynb", QUIZZES, *DOCUMENTED)
    pages = [root / "README.md", *(path for folder in folders for path in root.glob(folder))]
    return sorted(
        path.relative_to(root).as_posix()
        for path in pages
        if path.exists() and not {"_build", "_static", "node_modules"} & set(path.parts)
    )


def open_file(name: str, claims: dict[str, list[dict]], root: Path = ROOT) -> File:
    """Return one file of the book with its rows."""
    return File(name, read_places(root / name), claims.get(name) or [], root)


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    names = [path.resolve().relative_to(ROOT).as_posix() for path in options.paths] or book_files()
    claims = load_claims()
    failed = 0
    for name in names:
        file = open_file(name, claims)
        messages = file.problems() + file.uncovered()
        failed += len(messages)
        rows = len(file.rows)
        numbers = sum(len(place.numbers) for place in file.places)
        print("\n".join(messages) or f"{name}: {numbers} numbers, {rows} rows, all hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
