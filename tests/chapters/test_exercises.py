"""Exercises: one form of head and hint, a solution for each, and the solution's code run."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("book/appendices/*.ipynb")])
BLOCK = re.compile(
    r"^(?P<fence>`{3,})\{(?P<kind>exercise|solution)\}[ ]?(?P<title>[^\n]*)\n"
    r"(?P<body>(?:(?!^(?P=fence)[ \t]*$).*\n)*)^(?P=fence)[ \t]*$",
    re.MULTILINE,
)
HEAD = re.compile(
    r"^\*(Easy|Medium|Hard), (essential|useful|extra), (\d+) minutes(, pencil (only|first))?\.\* ",
    re.MULTILINE,
)
HINT = re.compile(r"^```\{hint\}\n:class: dropdown\n\S.*\n```$", re.MULTILINE)
NOTEBOOKS = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def blocks(path, kind):
    """Match, what follows it in its cell, and the source of the next cell if that is code."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for match in BLOCK.finditer(text):
                if match["kind"] == kind:
                    is_last = not text[match.end() :].strip()
                    runs = is_last and after is not None and after["cell_type"] == "code"
                    yield match, "".join(after["source"]) if runs else ""


def label(match):
    return re.search(r"^:label: (\S+)$", match["body"], re.MULTILINE)[1]


@NOTEBOOKS
def test_an_exercise_says_how_hard_how_important_and_how_long_it_is_and_has_one_hint(path):
    found = [match for match, _ in blocks(path, "exercise")]
    assert len(found) >= (3 if path.parent.name == "notebooks" else 2)
    for match in found:
        head = HEAD.search(match["body"])
        assert head, f"{label(match)} must begin like *Medium, essential, 15 minutes.*"
        assert 5 <= int(head[3]) <= 30, label(match)
        assert len(HINT.findall(match["body"])) == 1, label(match)
    assert any("essential" in HEAD.search(match["body"])[0] for match in found)
    hints = [HINT.search(match["body"])[0] for match in found]
    assert len(set(hints)) == len(hints)  # none stands under another exercise
    text = path.read_text(encoding="utf-8")
    assert text.count("{exercise}") == len(found)
    assert "Hint:" not in text
    assert "{dropdown} Hint" not in text


@NOTEBOOKS
def test_each_exercise_has_a_solution_and_its_numbers_come_from_a_cell(path):
    solved = {match["title"]: code for match, code in blocks(path, "solution")}
    found = list(blocks(path, "exercise"))
    assert set(solved) == {label(match) for match, _ in found}
    for match, shown in found:
        ran = solved[label(match)].startswith("# Solution")
        assert ran or shown or ", pencil " in match["body"], label(match)
        assert "```python" not in match["body"]
