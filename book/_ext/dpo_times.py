"""How long a section of the book takes: one rule, by what stands in it.

The rule counts words, lines of code and of output, formulas, figures and what is to be tried, at
the pace of the constants below. Exercises take the minutes that their authors state. A chapter's
head and the routes of ``book/path.md`` have their numbers from here, and tests hold them to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from dpo_contents import ROOT

WORDS = 200  # of prose in a minute
LINES = 10  # of code in a minute
PRINTED = 30  # lines of output in a minute
FORMULA = 0.5  # minutes for one that stands on a line of its own
FIGURE = 1.0
WIDGET = 3.0
BET = 1.0
QUESTION = 0.75  # of a quiz
STEP = 5  # minutes to which a time is rounded

EXERCISES = "Exercises"  # the heading over them
HEADING = re.compile(r"^## +(.+?)[ \t]*$", re.MULTILINE)
ANY_HEADING = re.compile(r"^#{1,4} +(.+?)[ \t]*$", re.MULTILINE)
EXERCISE = re.compile(
    r"^(`{3,})\{exercise\}(?P<title>[^\n]*)(?P<body>.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL
)
SOLUTION = re.compile(r"^(`{3,})\{solution\}.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
STATED = re.compile(r"(\d+) minutes")
LABEL = re.compile(r"^:label: (\S+)$", re.MULTILINE)
CHECKED = re.compile(r'\bcheck\("([\d.]+)"')
DISPLAY = re.compile(r"\$\$.*?\$\$", re.DOTALL)
NO_PROSE = re.compile(
    r"^[ \t]*(?:`{3,}|:{3,}).*$|^\([\w-]+\)=$|^:[\w-]+:.*$|^\|?[-:| ]+\|[-:| ]*$"
    r"|\{cite[:\w]*\}`[^`]*`|\{[\w:]+\}(?=`)",
    re.MULTILINE,
)
WORD = re.compile(r"\w[\w’'.,\-−]*")


@dataclass(frozen=True)
class Time:
    """Minutes for reading and trying, and for the exercises."""

    reading: float = 0.0
    exercises: int = 0

    def __add__(self, other: Time) -> Time:
        return Time(self.reading + other.reading, self.exercises + other.exercises)

    @property
    def minutes(self) -> int:
        """Minutes for reading, rounded, and never 0."""
        return rounded(self.reading)


@dataclass(frozen=True)
class Exercise:
    """One exercise as its chapter has it."""

    page: str
    label: str
    title: str
    minutes: int
    number: str = ""  # of its check, as "9.2"; most exercises of a chapter's end have none

    @property
    def key(self) -> str:
        """What it is called where the reader's progress is kept."""
        return self.number or self.label


def rounded(minutes: float) -> int:
    """Round to ``STEP`` minutes; what takes less than two such steps, to whole ones."""
    if minutes < 2 * STEP:
        return max(1, round(minutes))
    return STEP * round(minutes / STEP)


def exercises_in(text: str, page: str = "") -> list[Exercise]:
    """Return the exercises of Markdown; `ValueError` for one without a label or its minutes."""
    found = []
    for match in EXERCISE.finditer(text):
        title = match["title"].strip()
        label, minutes = LABEL.search(match[0]), STATED.search(match[0])
        if label is None or minutes is None:
            raise ValueError(f"the exercise {title!r} has no label or says no minutes")
        found.append(Exercise(page, label[1], title, int(minutes[1])))
    return found


def time_of_prose(text: str) -> Time:
    """Return the time of Markdown, its exercises apart."""
    stated = sum(exercise.minutes for exercise in exercises_in(text))
    text = SOLUTION.sub("", EXERCISE.sub("", text))
    tried = len(re.findall(r"^`{3}\{widget\}", text, re.MULTILINE))
    formulas = len(DISPLAY.findall(text))
    words = len(WORD.findall(NO_PROSE.sub("", DISPLAY.sub("", text))))
    return Time(words / WORDS + FORMULA * formulas + WIDGET * tried, stated)


def time_of_code(cell: dict) -> Time:
    """Return the time of a code cell with its outputs; what is hidden takes none."""
    tags = cell["metadata"].get("tags", [])
    if "hide-cell" in tags:
        return Time()
    minutes = 0.0
    if not {"hide-input", "remove-input"} & {*tags}:
        minutes += sum(bool(line.strip()) for line in "".join(cell["source"]).split("\n")) / LINES
    for output in cell["outputs"]:
        data = output.get("data", {})
        minutes += "".join(output.get("text", "")).count("\n") / PRINTED
        minutes += FIGURE * any(name.startswith("image/") for name in data)
        html = "".join(data.get("text/html", ""))
        for kind in re.findall(r'data-dpo-widget="(\w+)"', html):
            quiz = QUESTION * html.count('"question":')
            # The editor of an exercise is part of the exercise.
            minutes += {"bet": BET, "quiz": quiz, "exercise": 0.0}.get(kind, WIDGET)
    return Time(minutes)


@cache
def cells_of(page: str) -> list[dict]:
    """Return the cells of a page; one of Markdown is one cell."""
    notebook = ROOT / f"{page}.ipynb"
    if notebook.is_file():
        return json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = (ROOT / f"{page}.md").read_text(encoding="utf-8")
    return [{"cell_type": "markdown", "source": text}]


@cache
def exercises(page: str) -> list[Exercise]:
    """Return the exercises of a page; the check below one, before the next, is its own."""
    found: list[Exercise] = []
    for cell in cells_of(page):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            found += exercises_in(source, page)
        elif found and not found[-1].number and (check := CHECKED.search(source)):
            found[-1] = replace(found[-1], number=check[1])
    return found


def _pieces(page: str) -> Iterator[tuple[str | None, Time]]:
    """Yield headings, each with no time of its own, and the time of what stands below them."""
    for cell in cells_of(page):
        if cell["cell_type"] == "code":
            yield None, time_of_code(cell)
            continue
        before, *parts = HEADING.split("".join(cell["source"]))
        yield None, time_of_prose(before)
        for heading, text in zip(parts[::2], parts[1::2], strict=True):
            yield heading, Time()
            yield None, time_of_prose(text)


@cache
def sections(page: str) -> dict[str, Time]:
    """Return the time of each section of a page by its heading; before the first one, ``""``."""
    times = {"": Time()}
    heading = ""
    for found, time in _pieces(page):
        heading = heading if found is None else found
        if heading == EXERCISES:  # their cells are part of the minutes that are stated
            time = Time(0.0, time.exercises)
        times[heading] = times.get(heading, Time()) + time
    return times


def headings(page: str) -> list[str]:
    """Return the headings of a page, of every level, without the dollars of their formulas."""
    cells = (cell for cell in cells_of(page) if cell["cell_type"] == "markdown")
    text = "\n".join("".join(cell["source"]) for cell in cells)
    return [found.replace("$", "") for found in ANY_HEADING.findall(text)]


def whole(page: str) -> Time:
    """Return the time of a page."""
    return sum(sections(page).values(), Time())


def words_of(page: str) -> str:
    """Return what the head of a chapter says: ``about 45 minutes, and 75 more with …``."""
    time = whole(page)
    return f"about {time.minutes} minutes, and {time.exercises} more with all the exercises"
