"""Times: one rule, and the heads of the chapters and the page of routes say what it gives."""

import json
import re

import dpo_sections
import dpo_times
import pytest
from dpo_contents import NOTEBOOKS, ROOT

TAKES = re.compile(
    r"^\*\*Takes\*\* about (\d+) minutes(?: to read and run)?, and (\d+) more with all the exer",
    re.MULTILINE,
)
SLACK = dpo_times.STEP  # a few edited words need no new number in the head


def head(page):
    cells = json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"])


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_the_head_of_a_chapter_says_what_the_rule_gives(page):
    said = TAKES.search(head(page))
    assert said, f"**Takes** {dpo_times.words_of(page)}."
    time = dpo_times.whole(page)
    assert int(said[1]) % dpo_times.STEP == 0
    assert abs(int(said[1]) - time.reading) <= SLACK, f"**Takes** {dpo_times.words_of(page)}."
    assert int(said[2]) == time.exercises, f"**Takes** {dpo_times.words_of(page)}."


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_every_exercise_is_counted_once(page):
    cells = json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    labels = re.findall(r"\{exercise\}[^\n]*\n:label: (\S+)", text)
    assert [exercise.label for exercise in dpo_times.exercises(page)] == labels
    total = sum(exercise.minutes for exercise in dpo_times.exercises(page))
    assert dpo_times.whole(page).exercises == total


def test_checks_belong_to_their_exercises():
    from dpo_lib.exercises.all import EXERCISES

    found = {e.number: e for page in NOTEBOOKS for e in dpo_times.exercises(page) if e.number}
    assert {*found} == {*EXERCISES}
    assert found["9.2"].label == "ex-dpo-build"
    assert all(exercise.title.startswith("Build it: ") for exercise in found.values())


PLACE = re.compile(r"\{section\}`(?:[^`<]*<)?(\w+)#([^`>]+)>?`")


@pytest.mark.parametrize("path", sorted((ROOT / "book").glob("*.md")), ids=lambda path: path.stem)
def test_sections_that_pages_lead_to_are_there(path):
    """The build finds this too, but a build takes longer than to rename a heading."""
    for place, heading in PLACE.findall(path.read_text(encoding="utf-8")):
        page, _ = dpo_sections.page_of(place)
        assert heading.replace("$", "") in dpo_times.headings(page), f"{place}#{heading}"


def words(n):
    return " ".join(["word"] * n)


@pytest.mark.parametrize(
    ("text", "minutes", "stated"),
    [
        (words(400), 2, 0),
        (f"$$\na = b + c\n$$\n\n{words(200)}", 1.5, 0),
        ("```{widget} ThreeClicks\n```", 3, 0),
        (f"(sec-a)=\n{words(100)} {{cite}}`key2020long`", 0.5, 0),
        (
            f"````{{exercise}} A\n:label: ex-a\n\n*Hard, 25 minutes.* {words(300)}\n\n"
            f"```{{hint}}\nLook.\n```\n````\n\n{words(100)}\n\n"
            f"```{{solution}} ex-a\n{words(900)}\n```",
            0.5,
            25,
        ),
    ],
)
def test_the_rule_on_prose(text, minutes, stated):
    time = dpo_times.time_of_prose(text)
    assert time.reading == pytest.approx(minutes)
    assert time.exercises == stated


@pytest.mark.parametrize("head", [":label: ex-a\n\n*Easy.*", "\n*Easy, 5 minutes.*"])
def test_an_exercise_without_label_or_minutes_is_told(head):
    with pytest.raises(ValueError, match="the exercise 'A' has no label or says no minutes"):
        dpo_times.time_of_prose(f"```{{exercise}} A\n{head} Do it.\n```")


def code(source, *outputs, tags=()):
    return {"source": source, "outputs": list(outputs), "metadata": {"tags": list(tags)}}


def widget(kind, data=""):
    return {"data": {"text/html": f'<div data-dpo-widget="{kind}">{data}</div>'}}


@pytest.mark.parametrize(
    ("cell", "minutes"),
    [
        (code("a = 1\n\n" * 20), 2),
        (code("a = 1\n" * 20, tags=["hide-input"]), 0),
        (code("a = 1\n" * 20, tags=["remove-input"]), 0),
        (code("a = 1", {"text": "1\n" * 90}, tags=["hide-cell"]), 0),
        (code("", {"text": "1\n" * 90}), 3),
        (code("", {"data": {"image/svg+xml": "<svg/>", "text/plain": "a"}}), 1),
        (code("", widget("bet")), 1),
        (code("", widget("exercise")), 0),
        (code("", widget("quiz", '"question":"a","question":"b"')), 1.5),
        (code("", widget("token_view")), 3),
    ],
)
def test_the_rule_on_code(cell, minutes):
    assert dpo_times.time_of_code(cell).reading == pytest.approx(minutes)


@pytest.mark.parametrize(
    ("minutes", "shown"), [(0.1, 1), (6.6, 7), (9.4, 9), (12, 10), (47.4, 45), (47.6, 50)]
)
def test_rounding(minutes, shown):
    assert dpo_times.rounded(minutes) == shown


def test_the_sections_make_up_the_page():
    page = NOTEBOOKS[8]
    times = dpo_times.sections(page)
    assert times["Exercises"].reading == 0
    assert sum(time.reading for time in times.values()) == pytest.approx(
        dpo_times.whole(page).reading
    )
    assert times["One substitution"].exercises == 15


def test_the_page_of_routes_tells_the_rule_as_it_is():
    text = " ".join((ROOT / "book" / "path.md").read_text(encoding="utf-8").split())
    assert f"{dpo_times.WORDS} words or {dpo_times.LINES} lines of code take a minute" in text
    assert f"{dpo_times.PRINTED} lines of output take a minute" in text
    assert f"sliders or buttons {dpo_times.WIDGET:.0f} minutes" in text
    assert (dpo_times.FORMULA, dpo_times.FIGURE, dpo_times.BET) == (0.5, 1, 1)
    for said in ("own takes half a minute", "a figure one minute", "a bet one minute"):
        assert said in text
    assert dpo_times.QUESTION == 0.75
    assert "of a quiz ¾ of a minute" in text
