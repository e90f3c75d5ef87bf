"""Rows of preference files, in every form that users bring, as records.

Every row becomes a `PreferenceRecord` or a `Problem` with its place and reason; none is left out
in silence, no text is cut, and what is done beyond reading is counted in ``notes``. Forms of a row:

- ``prompt``, ``chosen``, ``rejected`` as text (chapter 1's annotator writes this);
- messages, ``[{"role": "user", "content": "..."}, ...]``, in any of the three, also of ShareGPT's
  names (``from``, ``value``) and written as a string of JSON or Python; ``tools`` beside them;
- Alpaca: ``instruction``, ``input``, ``history``; ``question`` and ``query`` are prompts too;
- transcripts, ``Human: ... Assistant: ...`` (Anthropic's HH), with or without a ``prompt``;
- no prompt: then it is what ``chosen`` and ``rejected`` have in common at their beginning;
- lists of responses, or a response a row, with scores: the best against the worst (``score``);
- two responses and a column that says which is better (``label``; SHP's by itself);
- ``input`` with its ``messages``, ``preferred_output``, ``non_preferred_output`` (OpenAI's files);
- a ``system`` text, which becomes the first message;
- ``chosen_ended``, ``rejected_ended`` and, of one response, ``ended``: false where it was cut.

A response with a verdict of its own, not a pair, is an `UnpairedRecord` (`read_unpaired`);
`read_feedback` reads either.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dpo_lib.data.files import Row, read_rows, reason
from dpo_lib.data.records import PreferenceRecord, UnpairedRecord

Kind = Literal[
    "unreadable", "malformed", "empty", "identical", "too long", "unknown words", "template"
]  # fmt: skip
Message = dict[str, str]
_MANY = 8  # rows that would hardly all be decided the same way
_SHOWN = 20  # ranges of lines in a message, and messages

_ROLES = {
    "human": "user",
    "prompter": "user",
    "h": "user",
    "a": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
}
_TITLES = ("Human", "User", "Assistant", "AI", "Bot", "System")
_LOWER, _UPPER = ([change(name) for name in _TITLES] for change in (str.lower, str.upper))
# A mark before a turn: the same signs and letters mark all turns of a transcript.
_FIRST_MARK = re.compile(
    rf"\s*(#{{2,3}} ?|\*\*|<(?=[^:\n]*>))?({'|'.join((*_TITLES, *_LOWER, *_UPPER))}|H|A)"
    r"([ \t]*:\*\*|\*\*[ \t]*:|>?[ \t]*:)[ \t]*"
)
_USERS, _ASSISTANTS = ("human", "user", "h"), ("assistant", "ai", "bot", "a")
_OBJECTS = re.compile(r"\s*(?:array\()?\[?\s*(?:\{|\w*Message\()")  # messages, or any JSON
_LIKE_MESSAGES = re.compile(  # of what cannot be decoded
    r"""\s*(?:array\()?\[?\s*(?:\{[^{}]*?['"](?:role|from)['"]\s*:\s*['"]|\w*Message\()"""
    r"""|\s*\[\s*\{\s*['"](?:content|value)['"]\s*:"""
)
_LENIENT = json.JSONDecoder(strict=False)  # lines may break inside strings
_NOTHING = ("", "nan", "none", "null", "n/a", "<noinput>")  # how an empty cell is written
_SAYS_WHICH = re.compile(
    r"label|prefer|winner|choice|better|vote|verdict|judg|select|pick", re.IGNORECASE
)
_LISTS = ("responses", "completions", "answers", "outputs", "output", "candidates", "generations")
_ONE = ("response", "completion", "answer", "output", "text", "content", "message", "value")
_PROMPTS = ("question", "query", "input")
_OF_PROMPTS = ("system", "system_prompt", "prompt", "instruction", "history", "tools")
_CONVERSATIONS = ("conversations", "conversation", "messages")


class Problem(NamedTuple):
    """A row that cannot be used, and why."""

    line: int  # of the file, counted from 1; in Parquet the row
    kind: Kind
    reason: str
    file: str = ""  # where there are several


class PreferenceFile(NamedTuple):
    """What files hold: their records, where they stand, their bad rows, and what was done."""

    records: list[Any]  # PreferenceRecord, or UnpairedRecord
    lines: list[int]  # of each record
    problems: list[Problem]
    unit: str = "line"  # what is counted: "line" or "row"
    files: tuple[str, ...] = ()  # of each record, where there are several
    notes: tuple[str, ...] = ()  # what the reader did beyond reading, a sentence each

    def describe_problems(self) -> str:
        """The number of bad rows of each kind, then all of them with their reasons."""
        kinds = Counter(problem.kind for problem in self.problems)
        counts = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        alike: dict[tuple[str, str, str], list[int]] = {}
        for line, kind, why, file in sorted(self.problems, key=lambda p: (p.file, p.line)):
            alike.setdefault((file, kind, why), []).append(line)
        rows = [
            f"{file and f'{file}, '}{self.unit}{'s' * (len(lines) > 1)} {_ranges(lines)}: "
            f"{kind}: {why}"
            for (file, kind, why), lines in alike.items()
        ]
        if len(rows) > _SHOWN:
            left = sum(map(len, [*alike.values()][_SHOWN:]))
            rows[_SHOWN:] = [f"and {left} more"]
        bad, total = len(self.problems), len(self.records) + len(self.problems)
        return "\n".join([f"{bad} of {total} rows are bad ({counts})", *rows])

    @property
    def unpaired(self) -> bool:
        """Whether the records are thumbs, not pairs."""
        return bool(self.records) and isinstance(self.records[0], UnpairedRecord)

    def unused_columns(self) -> dict[str, int]:
        """Columns that nothing was read from, with the number of rows that have them."""
        return dict(
            Counter(
                name
                for record in self.records
                for name, value in record.extra.items()
                if value not in (None, "", [], {})
            ).most_common()
        )


def _ranges(numbers: Sequence[int]) -> str:
    """``1-3, 7`` for 1, 2, 3, 7."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    shown = ", ".join("-".join(map(str, ends)) for ends in ranges[:_SHOWN])
    left = sum(ends[-1] - ends[0] + 1 for ends in ranges[_SHOWN:])
    return f"{shown} and {left} more" if left else shown


class Conversation(str):
    """A prompt of several messages, or with tools. As text it is their transcript."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]

    def __new__(  # noqa: D102
        cls, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
    ) -> Conversation:
        parts = [f"{message['role']}: {message['content']}" for message in messages]
        if tools:
            parts.insert(0, f"tools: {json.dumps(list(tools), ensure_ascii=False, default=str)}")
        self = super().__new__(cls, "\n\n".join(parts))
        self.messages = tuple({**message} for message in messages)
        self.tools = tuple(tools)
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.messages, self.tools


class _Scored(dict):
    """A row whose pair was made by scores, of columns under our names."""


class BadRow(ValueError):
    """A row that is no preference pair."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def with_system(prompt: str, system: str) -> str:
    """The prompt with a system text as its first message, unless it has one."""
    messages = getattr(prompt, "messages", ({"role": "user", "content": str(prompt)},))
    if messages[0]["role"] == "system":
        return prompt
    first = {"role": "system", "content": system}
    return Conversation([first, *messages], getattr(prompt, "tools", ()))


# --- files ---------------------------------------------------------------------------------------


def read_preferences(
    paths: str | Path | Sequence[str | Path],
    rename: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
    score: str | None = None,
    label: tuple[str, str] | None = None,
) -> PreferenceFile:
    """Read preference pairs; what a file is, is seen from its contents.

    Parameters
    ----------
    paths : path or sequence of paths
        Files (JSON lines, JSON, Parquet, Arrow, CSV, TSV; gzipped or not), or folders of them.
    rename : mapping, optional
        The file's column names to ours: ``{"instruction": "prompt"}``.
    encoding : str, optional
        Of text files; UTF-8 by default.
    score : str, optional
        Column of scores: the best response is taken against the worst.
    label : (column, value), optional
        ``chosen`` is the better one where the column has this value, ``rejected`` elsewhere.

    Returns
    -------
    PreferenceFile
        Bad rows are in ``problems``; raising is left to the caller.

    Raises
    ------
    ValueError
        If a file does not exist or cannot be read at all, there is no row, or the label's column
        holds no such value, or more than two.
    """
    rows = read_rows(paths, encoding)
    return _collect_pairs(rows, paths, rename or {}, score, label)


def read_feedback(
    paths: str | Path | Sequence[str | Path],
    rename: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
    score: str | None = None,
    label: tuple[str, str] | None = None,
) -> PreferenceFile:
    """Read pairs or, where most rows are a response with a ``label``, thumbs.

    The arguments are those of `read_preferences`; with ``score`` or ``label`` the rows are pairs.
    """
    rows, rename = [*read_rows(paths, encoding)], rename or {}
    thumbs = sum(_looks_unpaired(row.value, rename) for row in rows)
    if score is None and label is None and 2 * thumbs > len(rows):
        return _collect_thumbs(rows, paths, rename)
    return _collect_pairs(rows, paths, rename, score, label)


def _looks_unpaired(value: object, rename: Mapping[str, str]) -> bool:
    if not isinstance(value, dict):
        return False
    names = {rename.get(name, name) for name in value}
    one = {*_ONE[:4], *_CONVERSATIONS} & names or isinstance(value.get("prompt"), list)
    return "label" in names and bool(one) and not {"chosen", "rejected"} & names


def read_unpaired(
    paths: str | Path | Sequence[str | Path],
    rename: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
) -> PreferenceFile:
    """Read responses with a verdict each, as for KTO; see `read_preferences`.

    A row has a prompt in any of its forms, a ``completion`` (or ``response``, ``answer``,
    ``output``) and a ``label``: true or false, 1 or 0, or words such as "good" and "bad".
    Messages that end with the answer may stand in place of both texts.
    """
    return _collect_thumbs(read_rows(paths, encoding), paths, rename or {})


def make_record(row: object, rename: Mapping[str, str] | None = None) -> PreferenceRecord:
    """Record of one decoded row, whichever form it has.

    Raises
    ------
    BadRow
        A ``ValueError`` with the kind of problem.
    """
    return _record(row, rename or {}, None, None, Counter())


def make_unpaired(row: object, rename: Mapping[str, str] | None = None) -> UnpairedRecord:
    """Record of one decoded row with a verdict, see `read_unpaired`."""
    return _unpaired(row, rename or {}, Counter())


def make_prompt(row: object) -> str:
    """Prompt of one decoded row, whichever form it has; its other columns are ignored."""
    notes: Counter[str] = Counter()
    row = _renamed(row if isinstance(row, dict) else {"prompt": row}, {})
    prompt = _take_prompt(row, {}, False, notes)
    if prompt is None and {"chosen", "rejected"} <= row.keys():
        return make_record(row).prompt  # it is inside the responses
    if prompt is None:
        raise BadRow("malformed", f"missing prompt; {_columns(row)}")
    if isinstance(prompt, str) and _is_transcript(prompt):
        prompt = _open_transcript(prompt, notes)
    prompt = _finish_prompt(prompt, row)
    _check_text("prompt", prompt)
    return prompt


def _collect_pairs(
    rows: Iterable[Row],
    paths: object,
    rename: Mapping[str, str],
    score: str | None,
    label: tuple[str, str] | None,
) -> PreferenceFile:
    notes: Counter[str] = Counter()
    if score is not None:
        rows = _pair_up(rows, rename, score, notes)
    seen = _Label(*label) if label is not None else None
    found = _collect(rows, paths, notes, lambda row: _record(row, rename, score, seen, notes))
    if seen is not None and found.records:
        seen.check()
    return found


def _collect_thumbs(
    rows: Iterable[Row], paths: object, rename: Mapping[str, str]
) -> PreferenceFile:
    notes: Counter[str] = Counter()
    return _collect(rows, paths, notes, lambda row: _unpaired(row, rename, notes))


def _collect(
    rows: Iterable[Row],
    paths: object,
    notes: Counter[str],
    make: Any,
) -> PreferenceFile:
    records, lines, files, problems, unit, names = [], [], [], [], "line", {}
    for value, line, file, unit in rows:  # noqa: B007
        names[file] = None
        try:
            if isinstance(value, BadRow):
                raise value
            if isinstance(value, Exception):
                raise BadRow("unreadable", reason(value))
            records.append(make(value))
            lines.append(line)
            files.append(file)
        except BadRow as error:
            problems.append(Problem(line, error.kind, str(error), file))
        except RecursionError:
            problems.append(Problem(line, "malformed", "the row is nested too deep", file))
    if not records and not problems:
        name = paths if isinstance(paths, str | Path) else ", ".join(map(str, paths))
        raise ValueError(f"{name} holds no rows")
    if len(names) == 1:
        problems = [problem._replace(file="") for problem in problems]
        files = []
    told = tuple(f"{what} in {number:,} rows" for what, number in notes.items())
    return PreferenceFile(records, lines, problems, unit, tuple(files), told)


def _pair_up(
    rows: Iterable[Row], rename: Mapping[str, str], score: str, notes: Counter[str]
) -> Iterator[Row]:
    """Rows of one response each, joined by their prompt: the best and the worst of each."""
    groups: dict[str, list[tuple[float, Row, dict[str, Any], str]]] = {}
    for row in rows:
        value = row.value
        columns = value if isinstance(value, dict) else {}
        columns = {rename.get(name, name): v for name, v in columns.items()}
        name = next((n for n in _ONE[:4] if isinstance(columns.get(n), str)), None)
        if name is None or "chosen" in columns or score not in columns:
            yield row
            continue
        try:
            number = _number(columns[score], score)
        except BadRow as error:
            yield row._replace(value=error)
            continue
        prompt = {n: columns.get(n) for n in (*_OF_PROMPTS, *_PROMPTS, *_CONVERSATIONS)}
        key = json.dumps(prompt, default=str, sort_keys=True)
        groups.setdefault(key, []).append((number, row, columns, name))
    for group in groups.values():
        group.sort(key=lambda entry: entry[0] if "rank" in score.lower() else -entry[0])
        first, (best, row, columns, name) = min(e[1].line for e in group), group[0]
        worst, _, others, other = group[-1]
        row = row._replace(line=first)
        if len(group) == 1:
            yield row._replace(value=BadRow("malformed", "only one response to its prompt"))
        elif best == worst:
            yield row._replace(value=BadRow("identical", f"all {score} are equal ({best:g})"))
        else:
            notes[f"best response against worst by {score} (of several rows with one prompt)"] += 1
            kept = {n: v for n, v in columns.items() if n not in (name, score, "ended")}
            pair = {"chosen": columns[name], "rejected": others[other]}
            pair |= {"chosen_ended": columns.get("ended"), "rejected_ended": others.get("ended")}
            yield row._replace(value=_Scored({**kept, **pair}))


# --- rows ----------------------------------------------------------------------------------------


def _record(
    row: object,
    rename: Mapping[str, str],
    score: str | None,
    label: _Label | None,
    notes: Counter[str],
) -> PreferenceRecord:
    if isinstance(row, _Scored):
        row = dict(row)
    else:
        row = _renamed(row, rename)
        _take_shp(row, notes)
        _take_openai(row, notes)
        _take_label(row, rename, label, notes)
        if not _take_list(row, score, notes):
            _take_scores(row, score, notes)
    chosen, rejected = row.pop("chosen", None), row.pop("rejected", None)
    _check_present(chosen, rejected, row)
    chosen = _text_or_messages(chosen, "chosen", notes)
    rejected = _text_or_messages(rejected, "rejected", notes)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadRow("malformed", "one of chosen and rejected is text, the other messages")
    whole = not isinstance(chosen, str) and len(chosen) > 1
    prompt = _take_prompt(row, rename, whole, notes)
    split = _split_texts if isinstance(chosen, str) else _split_messages
    prompt, chosen, rejected = split(prompt, chosen, rejected, row, notes)
    texts = {"prompt": _finish_prompt(prompt, row), "chosen": chosen, "rejected": rejected}
    for name, text in texts.items():
        _check_text(name, text)
    if chosen == rejected:
        raise BadRow("identical", f"chosen and rejected must differ, both are {chosen!r:.60}")
    ended = {name: _ended(row, name) for name in ("chosen_ended", "rejected_ended")}
    return PreferenceRecord(**texts, extra=row, **ended)


def _unpaired(row: object, rename: Mapping[str, str], notes: Counter[str]) -> UnpairedRecord:
    row = _renamed(row, rename)
    if {"chosen", "rejected"} <= row.keys():
        raise BadRow("malformed", "a pair is not a completion with a label")
    if row.get("label") is None:
        raise BadRow("malformed", f"missing label; {_columns(row)}; --map THEIRS=label renames")
    desired = _verdict(row.pop("label"))
    name = next((n for n in _ONE[:4] if row.get(n) is not None), None)
    if name is None:  # the answer is the last of the messages
        name = next((n for n in (*_CONVERSATIONS, "prompt") if row.get(n) is not None), None)
        whole = None if name is None else _text_or_messages(row.pop(name), name, notes)
        if not isinstance(whole, list) or len(whole) < 2:
            raise BadRow("malformed", f"missing completion; {_columns([*row, 'label'])}")
        prompt, answer = whole[:-1], whole[-1:]
    else:
        answer = _text_or_messages(row.pop(name), name, notes)
        prompt = _take_prompt(row, rename, False, notes)
        if prompt is None:
            raise BadRow("malformed", f"missing prompt; {_columns([*row, name, 'label'])}")
        if isinstance(prompt, str) and _is_transcript(prompt):
            prompt = _open_transcript(prompt, notes)
    if isinstance(answer, list):
        if isinstance(prompt, list) and answer[: len(prompt)] == prompt:
            answer = answer[len(prompt) :]
        if [message["role"] for message in answer] != ["assistant"]:
            raise BadRow("malformed", "the completion must be one answer of the assistant")
        answer = answer[0]["content"]
    prompt = _finish_prompt(prompt, row)
    _check_text("prompt", prompt)
    _check_text(name, answer)
    ended = _ended(row, "ended")
    return UnpairedRecord(prompt, answer, desired, row, ended)


def _ended(row: dict[str, Any], name: str) -> bool:
    """Whether an answer was ended by who wrote it, and not cut; without a word of it, it was."""
    value = row.pop(name, None)
    found = {"1": True, "0": False, "none": True, "": True}.get(_plain(value))
    if found is None:
        raise BadRow("malformed", f"{name} must be true or false, got {value!r:.60}")
    return found


def _turn_round(row: dict[str, Any]) -> None:
    """Let chosen and rejected change places, with what is known of each."""
    for first, second in (("chosen", "rejected"), ("chosen_ended", "rejected_ended")):
        if {first, second} & row.keys():
            row[first], row[second] = row.get(second), row.get(first)


def _verdict(value: object) -> bool:
    found = _VERDICTS.get(re.sub(r"[\s_]+", " ", str(value)).strip().lower())
    if found is None:
        raise BadRow("malformed", f"label must be true or false, got {value!r:.60}")
    return found


_VERDICTS = {
    **dict.fromkeys(("true", "1", "1.0", "+1", "yes", "good", "up", "thumbs up", "thumb up"), True),
    **dict.fromkeys(("👍", "like", "liked", "positive", "desirable", "desired"), True),
    **dict.fromkeys(("false", "0", "0.0", "-1", "-1.0", "no", "bad", "down"), False),
    **dict.fromkeys(("thumbs down", "thumb down", "👎", "dislike", "disliked"), False),
    **dict.fromkeys(("negative", "undesirable", "undesired"), False),
}


def _renamed(row: object, rename: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise BadRow("malformed", f"a row must be an object with named values, got {row!r:.80}")
    row = {str(key): None if value != value else value for key, value in row.items()}  # NaN
    for old, new in rename.items():
        if old not in row:
            raise BadRow("malformed", f"there is no {old!r} to use as {new}; {_columns(row)}")
        if row.get(new) is not None and new not in rename:
            raise BadRow("malformed", f"{old!r} is to be used as {new}, but there is a {new} too")
    moved = {new: row[old] for old, new in rename.items()}
    return {**{key: value for key, value in row.items() if key not in rename}, **moved}


def _take_shp(row: dict[str, Any], notes: Counter[str]) -> None:
    """Two answers of a forum and which of them has more votes, as the SHP set has them."""
    names = ("human_ref_A", "human_ref_B", "labels")
    if "chosen" in row or "rejected" in row or not set(names) <= row.keys():
        return
    first, second, which = (row.pop(name) for name in names)
    if _plain(which) not in ("0", "1"):
        raise BadRow("malformed", f"labels must be 1 (A is better) or 0, got {which!r:.60}")
    row["chosen"], row["rejected"] = (first, second) if _plain(which) == "1" else (second, first)
    if "prompt" not in row and "history" in row:
        row["prompt"] = row.pop("history")
    notes["human_ref_A or human_ref_B taken as chosen, as labels says,"] += 1


def _take_openai(row: dict[str, Any], notes: Counter[str]) -> None:
    """A prompt in an object and two outputs, as OpenAI's preference fine-tuning has them."""
    better, worse = "preferred_output", "non_preferred_output"
    if "chosen" in row or "rejected" in row or not {better, worse} <= row.keys():
        return
    given = _read_if_text(row.pop("input", None))
    if not isinstance(given, dict) or not given.get("messages"):
        raise BadRow("malformed", f"input must hold messages beside {better}, got {given!r:.60}")
    given = {name: value for name, value in given.items() if value not in (None, [])}
    if "prompt" in row:
        raise BadRow("malformed", "the prompt is in input, but there is a prompt too")
    if twice := sorted(given.keys() & row.keys()):
        raise BadRow("malformed", f"{twice[0]} is in input and beside it")
    row["prompt"] = given.pop("messages")
    row["chosen"], row["rejected"] = row.pop(better), row.pop(worse)
    row.update(given)  # tools, and what the request said of them
    notes["preferred_output taken as chosen, non_preferred_output as rejected,"] += 1


def _plain(value: object) -> str:
    """A value of a label, in one form: 1, 1.0, "1" and true are the same."""
    text = str(value).strip().lower()
    text = {"true": "1", "false": "0"}.get(text, text)
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


class _Label:
    """A column that says which of two is better, by one of its two values."""

    def __init__(self, column: str, value: str) -> None:
        self.column, self.value = column, value
        self.seen: Counter[str] = Counter()

    def check(self) -> None:
        """Refuse what would turn pairs round that it says nothing of."""
        names = ", ".join(repr(value) for value, _ in self.seen.most_common(5))
        if len(self.seen) > 2:
            raise ValueError(
                f"{self.column} has {len(self.seen):,} values ({names}): which response is better "
                "can be read from two alone (--label)"
            )
        few = len(self.seen) == 1 and self.seen.total() < _MANY  # all may be the other one
        if _plain(self.value) not in self.seen and not few:
            raise ValueError(
                f"{self.column} is never {self.value!r} (--label), it has the values {names}"
            )


def _take_label(
    row: dict[str, Any],
    rename: Mapping[str, str],
    label: _Label | None,
    notes: Counter[str],
) -> None:
    """Turn a pair round if the column that says which is better says so."""
    if label is not None:
        name = label.column
        if name not in row:
            raise BadRow("malformed", f"there is no {name!r} (--label); {_columns(row)}")
        value = row.pop(name)
        plain = _plain(value)
        if not plain or value is None or re.search(r"tie|both|draw|neither", plain, re.IGNORECASE):
            raise BadRow("malformed", f"{name} is {value!r:.60}: neither is better")
        label.seen[plain] += 1
        if plain != _plain(label.value):
            _turn_round(row)
            notes[f"chosen and rejected turned round, as {name} is {plain!r:.20},"] += 1
        return
    if {"chosen", "rejected"} & {*rename.values()}:
        says = [name for name in row if _SAYS_WHICH.search(name) and row[name] is not None]
        if says:
            raise BadRow(
                "malformed",
                f"the column {says[0]!r} may say which response is better, and it is not used: "
                f"--label {says[0]}=VALUE names the value at which chosen, as mapped, is better",
            )


def _take_list(row: dict[str, Any], score: str | None, notes: Counter[str]) -> bool:
    """The best and the worst of a list of responses; whether there is one."""
    if row.get("chosen") is not None or row.get("rejected") is not None:
        return False
    lists = {n: _as_list(row[n]) for n in _LISTS if n in row}
    name = next((n for n, value in lists.items() if value), None)
    if name is None:
        return False
    entries = lists[name]
    if score is None:
        raise BadRow(
            "malformed",
            f"{name} is a list of {len(entries)} responses whose order does not say which is "
            "best: --score COLUMN names their scores",
        )
    numbers = _as_list(row.get(score))
    if not numbers:
        numbers = [entry.get(score) if isinstance(entry, dict) else None for entry in entries]
    if len(numbers) != len(entries) or len(entries) < 2:
        raise BadRow("malformed", f"{len(entries)} responses in {name}, {len(numbers)} in {score}")
    values = [_number(number, score) for number in numbers]
    if "rank" in score.lower():
        values = [-value for value in values]
    best, worst = values.index(max(values)), values.index(min(values))
    if best == worst or values[best] == values[worst]:
        raise BadRow("identical", f"all {score} are equal ({numbers[0]})")
    row.pop(name)
    row.pop(score, None)
    for side, i in (("chosen", best), ("rejected", worst)):
        row[side] = _text_of(entries[i], name)
        if isinstance(entries[i], dict):
            row[f"{side}_ended"] = entries[i].get("ended")
    notes[f"best response against worst by {score} (of a list)"] += 1
    return True


def _take_scores(row: dict[str, Any], score: str | None, notes: Counter[str]) -> None:
    """Check, or turn round, a pair by its two scores."""
    if score is None or row.get("chosen") is None or row.get("rejected") is None:
        return
    if score not in row:
        raise BadRow("malformed", f"there is no {score!r} (--score); {_columns(row)}")
    other = score.replace("chosen", "\0").replace("rejected", "chosen").replace("\0", "rejected")
    if other == score or other not in row:
        raise BadRow("malformed", f"{score} has no counterpart to compare with; {_columns(row)}")
    mine, theirs = _number(row.pop(score), score), _number(row.pop(other), other)
    if "rejected" in score:
        mine, theirs = theirs, mine
    if "rank" in score.lower():
        mine, theirs = -mine, -theirs
    if mine == theirs:
        raise BadRow("identical", f"{score} and {other} are equal ({abs(mine):g})")
    if mine < theirs:
        _turn_round(row)
        notes[f"chosen and rejected turned round by {score} and {other}"] += 1


def _number(value: object, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if number != number:
        raise BadRow("malformed", f"{name} must be a number, got {value!r:.60}")
    return number


def _as_list(value: object) -> list[Any]:
    """A list, also one that is written as a string; otherwise nothing."""
    if isinstance(value, str) and value.strip().startswith("["):
        value = _decoded(value)
    return list(value) if isinstance(value, list | tuple) else []


def _text_of(entry: object, name: str) -> object:
    """The text of one of several responses."""
    if isinstance(entry, dict) and not {"role", "from"} & entry.keys():
        found = [key for key in _ONE if isinstance(entry.get(key), str)]
        if not found:
            raise BadRow("malformed", f"{name}: there is no text in {entry!r:.80}")
        return entry[found[0]]
    return entry


def _check_present(chosen: object, rejected: object, rest: Mapping) -> None:
    missing = [n for n, v in (("chosen", chosen), ("rejected", rejected)) if v is None]
    if not missing:
        return
    given = [n for n, v in (("chosen", chosen), ("rejected", rejected)) if v is not None]
    completion = any(name in rest for name in _ONE[:2])
    if completion and "label" in rest:
        hint = "a completion with a label is not a pair"
    elif completion and not given:
        hint = f"{_columns(rest)}; a completion needs a label (--map THEIRS=label renames)"
    else:
        hint = f"{_columns([*given, *rest])}; --map THEIRS={missing[0]} renames"
    raise BadRow("malformed", f"missing {', '.join(missing)}; {hint}")


def _columns(row: Mapping | Sequence) -> str:
    return f"the row has {', '.join(sorted(map(str, row))) or 'nothing'}"


def _check_text(name: str, text: str) -> None:
    if all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text):
        raise BadRow("empty", f"{name} must not be empty, got {text!r:.60}")
    if "\0" in text:
        raise BadRow("malformed", f"{name} holds a NUL character (\\0): is the file damaged?")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow("malformed", f"{name} holds half a character: {error.reason}") from error


# --- prompts -------------------------------------------------------------------------------------


def _take_prompt(
    row: dict[str, Any], rename: Mapping[str, str], whole: bool, notes: Counter[str]
) -> str | list[Message] | None:
    """The prompt, from whichever columns it is in; None if it is inside the responses."""
    instruction = rename.get("instruction") == "prompt"
    prompt = row.pop("prompt", None)
    if prompt is None and row.get("instruction") is not None:
        prompt, instruction = row.pop("instruction"), True
    if prompt is None and not whole:
        for name in (*_PROMPTS, *_CONVERSATIONS):
            if row.get(name) not in (None, "", []):
                prompt = row.pop(name)
                notes[f"{name} used as the prompt"] += 1
                break
    if prompt is None:
        return None
    prompt = _text_or_messages(prompt, "prompt", notes)
    if instruction and isinstance(prompt, str):
        more = row.pop("input", None)
        if isinstance(more, int | float) and not isinstance(more, bool):
            more = str(more)
        if more is not None and not isinstance(more, str):
            raise BadRow("malformed", f"input must be text, got {more!r:.60}")
        if more and more.strip().lower() not in _NOTHING:
            prompt = f"{prompt}\n\n{more}" if prompt.strip() else more
            notes["input joined to the instruction, after a blank line,"] += 1
        elif more and more.strip():
            notes[f"input {more.strip()!r} taken as empty"] += 1
        before = _history(row.pop("history", None))
        if before:
            prompt = [*before, {"role": "user", "content": prompt}]
            notes["history put before the instruction, as turns,"] += 1
    return prompt


def _read_if_text(value: object) -> object:
    """What a string holds, or the string itself if it cannot be read; nothing of an empty one."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() in _NOTHING:
        return None
    found = _decoded(value)
    return value if found is None else found


def _history(value: object) -> list[Message]:
    """Turns before an instruction: a list of questions with their answers."""
    value = _read_if_text(value)
    if not value:
        return []
    if isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        return [_message(turn, "history", Counter()) for turn in value]
    if not isinstance(value, list) or not all(
        isinstance(turn, list | tuple)
        and len(turn) == 2
        and all(isinstance(text, str) for text in turn)
        for turn in value
    ):
        raise BadRow(
            "malformed", f"history must be a list of [question, answer], got {value!r:.60}"
        )
    roles = ("user", "assistant")
    return [
        {"role": role, "content": text}
        for turn in value
        for role, text in zip(roles, turn, strict=True)
    ]


def _finish_prompt(prompt: str | list[Message], row: dict[str, Any]) -> str:
    """The prompt with its system text and tools, as a record holds it."""
    systems = [row.pop(name, None) for name in ("system", "system_prompt")]
    for system in systems:
        if system is not None and not isinstance(system, str):
            raise BadRow("malformed", f"system must be text, got {system!r:.80}")
    system = next((s for s in systems if s and s.strip()), None)
    tools = _tools(row.pop("tools", None))
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if messages[-1]["role"] != "user":
        raise BadRow("malformed", f"the prompt must end with the user, got {messages[-1]['role']}")
    if not messages[-1]["content"].strip():
        if len(messages) == 1:
            raise BadRow("empty", f"prompt must not be empty, got {messages[-1]['content']!r}")
        raise BadRow("empty", "the prompt's last message must not be empty")
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    elif system and messages[0]["content"] != system:
        raise BadRow("malformed", "system differs from the system message in the prompt")
    if len(messages) == 1 and not tools:
        return messages[0]["content"]
    return Conversation(messages, tools)


def _tools(value: object) -> list[dict[str, Any]]:
    value = _read_if_text(value)
    if not value:
        return []
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        value = [_read_if_text(tool) for tool in value]
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise BadRow("malformed", f"tools must be a list of objects, got {value!r:.80}")
    return value


# --- messages ------------------------------------------------------------------------------------


def _decoded(text: str) -> object:
    """The value that a string of JSON, or of Python, writes down; None if it is neither."""
    text = re.sub(r"\A\s*array\((.*?)(?:,\s*dtype=\w+)?\)\s*\Z", r"\1", text, flags=re.DOTALL)
    joined = re.sub(r"\}\s*\n\s*\{", "}, {", text)  # NumPy writes no commas
    for source in (text, joined if joined.lstrip().startswith("[") else f"[{joined}]"):
        for read in (_LENIENT.decode, ast.literal_eval):
            try:
                return read(source.strip())
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
    return None


def _text_or_messages(value: object, name: str, notes: Counter[str]) -> str | list[Message]:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise BadRow("malformed", f"{name} is not UTF-8") from error
    if isinstance(value, str):
        found = _decoded(value) if value.lstrip()[:1] == '"' else value
        found = found if isinstance(found, str) else value  # it only begins with a quotation
        inside = _decoded(found) if isinstance(found, str) and _OBJECTS.match(found) else found
        if _holds_messages(inside) or (inside is None and _LIKE_MESSAGES.match(found)):
            value = inside
            if not isinstance(value, list | dict):
                raise BadRow(
                    "malformed", f"{name} looks like messages, but cannot be read: {found!r:.60}"
                )
            notes[f"{name}: messages written as a string"] += 1
        else:
            return value
    if isinstance(value, dict):
        inside = [value[key] for key in _CONVERSATIONS if isinstance(value.get(key), list)]
        value = inside[0] if inside else [value]
    if not isinstance(value, list | tuple):
        raise BadRow("malformed", f"{name} must be text or messages, got {value!r:.80}")
    if not value:
        raise BadRow("empty", f"{name} must not be empty, got {value!r}")
    return [_message(entry, name, notes) for entry in value]


def _holds_messages(value: object) -> bool:
    """Whether a decoded value is one message, a list of them, or an object around such a list."""
    if isinstance(value, dict) and (inside := [value[k] for k in _CONVERSATIONS if k in value]):
        value = inside[0]
    entries = value if isinstance(value, list) else [value]
    names = ({"role", "content"}, {"from", "value"})
    return bool(entries) and all(
        isinstance(entry, dict) and any(pair <= entry.keys() for pair in names) for entry in entries
    )


def _message(entry: object, name: str, notes: Counter[str]) -> Message:
    """One message, of the form role/content or from/value."""
    if not isinstance(entry, dict):
        raise BadRow("malformed", f"{name}: a message must be an object, got {entry!r:.80}")
    role = entry.get("role", entry.get("from"))
    if isinstance(role, str):
        role = _ROLES.get(role.strip().lower(), role.strip().lower())
    if role not in ("system", "user", "assistant"):
        raise BadRow("malformed", f"{name}: role must be system, user or assistant, got {role!r}")
    content = entry.get("content", entry.get("value"))
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        content = "".join(str(part.get("text") or "") for part in content)
    if not isinstance(content, str):
        raise BadRow("malformed", f"{name}: content must be text, got {content!r:.80}")
    for key, value in entry.items():
        if key in ("role", "from", "content", "value") or value in (None, "", [], {}):
            continue
        if key in ("tool_calls", "function_call"):
            raise BadRow("malformed", f"{name}: tool calls cannot be used, got {value!r:.80}")
        if key in ("tools", "functions"):
            raise BadRow("malformed", f"{name}: {key} of a message must be a column of the row")
        if "reason" in str(key) or "think" in str(key):
            raise BadRow(
                "malformed",
                f"{name}: {key} cannot be used: write it into content, as the model does",
            )
        notes[f"{name}: {key} of the messages not used"] += 1
    return {"role": role, "content": content}


def _split_messages(
    prompt: str | list[Message] | None,
    chosen: list[Message],
    rejected: list[Message],
    row: Mapping[str, Any],
    notes: Counter[str],
) -> tuple[str | list[Message], str, str]:
    """Prompt as given or as what both conversations begin with; one answer behind it."""
    if isinstance(prompt, str) and _is_transcript(prompt):
        prompt = _open_transcript(prompt, notes)
    if isinstance(prompt, list):
        before = len(prompt) if chosen[: len(prompt)] == prompt == rejected[: len(prompt)] else 0
    else:
        pairs = zip(chosen, rejected, strict=False)
        before = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if before is None:  # one begins with the whole other, or both are the same
            before = min(len(chosen), len(rejected)) - 1
        if (
            before
            and isinstance(prompt, str)
            and chosen[before - 1]["content"].strip() != (prompt.strip())
        ):
            raise BadRow("malformed", "prompt is not the last message before the answers")
        if before:
            prompt = chosen[:before]
        elif prompt is None:
            raise BadRow("malformed", "no prompt, and chosen and rejected share no first message")
    for name, rest in (("chosen", chosen[before:]), ("rejected", rejected[before:])):
        roles = [message["role"] for message in rest]
        if roles != ["assistant"]:
            raise BadRow("malformed", f"{name} must be one answer of the assistant, got {roles}")
    return prompt, chosen[-1]["content"], rejected[-1]["content"]


# --- texts and transcripts -----------------------------------------------------------------------


def _split_texts(
    prompt: str | list[Message] | None,
    chosen: str,
    rejected: str,
    row: Mapping[str, Any],
    notes: Counter[str],
) -> tuple[str | list[Message], str, str]:
    marked = [_begins_with_user(text) for text in (chosen, rejected)]
    if all(marked) and (
        prompt is None or isinstance(prompt, list) or any(map(_has_answer, (chosen, rejected)))
    ):
        return _split_transcripts(prompt, chosen, rejected, notes)
    if prompt is None and any(marked):
        raise BadRow("malformed", "one of chosen and rejected is a transcript, the other is not")
    if isinstance(prompt, str) and _is_transcript(prompt):
        head = _FIRST_MARK.match(prompt)
        prompt = _open_transcript(prompt, notes)
        return prompt, _answer("chosen", chosen, head), _answer("rejected", rejected, head)
    if prompt is not None:
        return prompt, chosen, rejected
    other = [n for n, v in row.items() if isinstance(v, str) and " " in v.strip()]
    other = [name for name in other if name not in ("system", "system_prompt", "tools")]
    if other:
        raise BadRow(
            "malformed",
            f"missing prompt; {_columns(row)} beside the pair; --map {other[0]}=prompt renames",
        )
    same = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
        min(len(chosen), len(rejected)),
    )
    # Back to the last space: half a word that both begin with belongs to the responses.
    cut = max(chosen.rfind(white, 0, same) for white in " \n\t") + 1
    if not chosen[:cut].strip():
        raise BadRow("malformed", "no prompt, and chosen and rejected have no common beginning")
    prompt = chosen[:cut].rstrip(" ")  # a space before a word is part of the word's token
    notes["what chosen and rejected begin with taken as the prompt"] += 1
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _begins_with_user(text: str) -> bool:
    mark = _FIRST_MARK.match(text)
    return mark is not None and mark[2].lower() in (*_USERS, "system")


def _marks(text: str, apart: bool) -> list[re.Match[str]]:
    """The marks of a transcript's turns, written as its first one is; the name is group 1."""
    first = _FIRST_MARK.match(text)
    if first is None:
        return []
    ways = (_TITLES, _LOWER, _UPPER, ("H", "A"))
    names = next(names for names in ways if first[2] in names)
    start = re.escape(first[1]) if first[1] in ("**", "<") else "(?:#{2,3} ?)?"
    end = r"[ \t]*".join(re.escape(sign) for sign in first[3].split())
    between = r"\n[ \t]*\n\s*" if apart else r"\n\s*"
    mark = rf"(?:\A\s*|{between}){start}({'|'.join(names)})[ \t]*{end}[ \t]*"
    return [*re.finditer(mark, text)]


def _has_answer(text: str) -> bool:
    return any(mark[1].lower() in _ASSISTANTS for mark in _marks(_lines(text), False))


def _is_transcript(text: str) -> bool:
    """Whether a prompt is written as turns: the user's, or several that name the assistant."""
    mark = _FIRST_MARK.match(text)
    alone = mark is not None and (
        mark[2].lower() == "human" or (mark[2].lower() == "user" and "\n" in mark[0])
    )
    return alone or (_begins_with_user(text) and _has_answer(text))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _own(text: str) -> str:
    """A turn's text without the blank lines around it; what its first line begins with stays."""
    return re.sub(r"\A(?:[ \t]*\n)+", "", text).rstrip()


def _turns(text: str) -> list[Message]:
    """The turns of a transcript, without white space around them."""
    text = _lines(text)
    found: list[list[Message]] = []
    for apart in (True, False):  # a turn may hold "\nHuman:" where turns stand apart
        marks = _marks(text, apart)
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        turns = [
            {
                "role": _ROLES.get(mark[1].lower(), mark[1].lower()),
                "content": _own(text[mark.end() : end]),
            }
            for mark, end in zip(marks, ends, strict=True)
        ]
        roles = [turn["role"] for turn in turns if turn["role"] != "system"]
        if len(roles) > 1 and all(a != b for a, b in itertools.pairwise(roles)):
            return turns
        found.append(turns)
    return found[0] if len(found[0]) > 1 else found[1]


def _open_transcript(prompt: str, notes: Counter[str]) -> list[Message]:
    """The turns of a prompt; the empty one of the assistant at its end is the answer's place."""
    turns = _turns(prompt)
    if turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns = turns[:-1]
    notes["a transcript read as turns"] += 1
    return turns


def _split_transcripts(
    prompt: str | list[Message] | None, chosen: str, rejected: str, notes: Counter[str]
) -> tuple[list[Message], str, str]:
    turns = {"chosen": _turns(chosen), "rejected": _turns(rejected)}
    common = 0
    for a, b in zip(*turns.values(), strict=False):
        if a != b:
            break
        common += 1
    shorter = min(map(len, turns.values()))
    for name, found in turns.items():
        if found[-1]["role"] != "assistant":
            raise BadRow("malformed", f"{name} must end with the assistant's answer")
        if len(found) > shorter or common < len(found) - 1:
            raise BadRow(
                "malformed",
                f"{name} holds further turns behind turn {common}, where the two differ; "
                "one answer each can be compared",
            )
        if not found[-1]["content"]:
            raise BadRow("empty", f"{name} must not be empty: the transcript's last answer is")
    before = turns["chosen"][:-1]
    given = prompt
    if isinstance(prompt, str):
        given = _open_transcript(prompt, Counter()) if _is_transcript(prompt) else None
        if given is None and before[-1]["content"] != prompt.strip():
            raise BadRow("malformed", "prompt is not the last turn before the answers")
    if isinstance(given, list) and [m["content"].strip() for m in given] != [
        m["content"] for m in before
    ]:
        raise BadRow("malformed", "prompt is not what stands before the answers")
    notes["a transcript read as turns"] += 1
    return before, turns["chosen"][-1]["content"], turns["rejected"][-1]["content"]


def _answer(name: str, text: str, head: re.Match[str]) -> str:
    """The one answer to a transcript, without white space around it and its mark."""
    text = _lines(text)
    mark = _FIRST_MARK.match(text)
    if mark and mark[2].lower() in _ASSISTANTS and (mark[2] != "A" or head[2] == "H"):
        text = text[mark.end() :]
    text = _own(re.sub(r"\A (?! )", "", text))  # the space behind the mark, not an indentation
    if len(_marks(f"{head[0]}x\n{text}", True)) > 1:
        raise BadRow("malformed", f"{name} holds further turns; one answer each can be compared")
    return text
