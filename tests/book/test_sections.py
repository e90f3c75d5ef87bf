"""Links to sections: the right page, the right place, and an error for what is not there."""

import itertools
import re

import dpo_contents
import dpo_sections
import dpo_times
import pytest
from dpo_sections import page_of

from dpo_lib.exercises.all import EXERCISES
from tests.book.pages import HTML, ROOT, parsed

QUESTIONS = HTML / "book" / "questions.html"


@pytest.mark.parametrize(
    ("place", "page", "name"),
    [
        ("3", "notebooks/03_negative_log_likelihood", "Chapter 3"),
        ("10", "notebooks/10_full_implementation", "Chapter 10"),
        ("C", "book/appendices/c_in_practice", "Appendix C"),
        ("index", "book/index", ""),
    ],
)
def test_a_place_is_a_page(place, page, name):
    assert page_of(place) == (page, name)


@pytest.mark.parametrize("place", ["11", "0", "c", "Z", "", "nowhere"])
def test_what_is_no_place_is_refused(place):
    with pytest.raises(ValueError, match=f"no page '{place}'"):
        page_of(place)


def test_every_question_has_an_answer_of_a_sentence_or_two_and_a_section(book):
    page = parsed(QUESTIONS).article
    questions = page.select("dt")
    assert len(questions) >= 40
    texts = [question.get_text() for question in questions]
    assert len(set(texts)) == len(texts)
    for question in questions:
        answer = question.find_next_sibling("dd")
        (link,) = answer.select("a")
        assert "#" in link["href"], question
        words = answer.get_text().removesuffix(link.get_text())
        assert 3 <= len(words.split()) <= 45, question.get_text()


def test_a_link_leads_to_the_heading_that_it_names(book):
    page = parsed(QUESTIONS).article
    (link,) = page.find("dt", string="DPO loss stuck at 0.693").find_next_sibling("dd").select("a")
    path, _, anchor = link["href"].partition("#")
    target = parsed(QUESTIONS.parent / path)
    heading = target.find(id=anchor).find(["h1", "h2", "h3"])
    assert heading.get_text().removesuffix("#").strip() == "9. Reference not frozen"
    assert link.get_text() == "Appendix E: 9. Reference not frozen"


def test_a_section_that_is_not_there_has_no_time():
    link = dpo_sections.SectionLink("", page="notebooks/09_dpo_loss", name="", heading="Nothing")
    with pytest.raises(ValueError, match="has no section 'Nothing'"):
        dpo_sections.time_of(link)
    link["heading"] = "The gradient"
    assert dpo_sections.time_of(link) == dpo_times.sections(link["page"])["The gradient"]


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (4.4, "4 minutes"),
        (52, "50 minutes"),
        (88, "90 minutes"),
        (120, "2 hours"),
        (250, "4¼ hours"),
    ],
)
def test_minutes_in_words(minutes, words):
    assert dpo_sections.in_words(minutes) == words


def routes(name):
    """The times of each route on a page, section by section, and what it says of them together."""
    page = parsed(HTML / "book" / f"{name}.html")
    for route in page.select(".dpo-route"):
        shown = " ".join(span.get_text() for span in route.select(".dpo-minutes"))
        yield [int(minutes) for minutes in re.findall(r"\((\d+)\s+min", shown)], route.get_text()


@pytest.mark.parametrize("name", ["path", "course"])
def test_each_line_of_a_route_names_a_chapter_once(book, name):
    places = [*map(str, dpo_contents.CHAPTERS), *map(str.upper, dpo_contents.APPENDICES)]
    names = {f"{page.rpartition('/')[2]}.html": said for page, said in map(page_of, places)}
    for line in parsed(HTML / "book" / f"{name}.html").select(".dpo-route li"):
        targets = [link["href"].rpartition("/")[2].partition("#") for link in line.select("a")]
        pages = [page for page, _, label in targets if not label.startswith("ex-")]
        linked = [names[page] for page, _ in itertools.groupby(pages) if page in names]
        assert re.findall(r"(Chapter \d+|Appendix [A-Z]): ", line.get_text()) == linked, line


@pytest.mark.parametrize(("name", "places"), [("path", 4), ("course", 6)])
def test_routes_add_up(book, name, places):
    found = [*routes(name)]
    assert len(found) == places
    for minutes, text in found:
        total = text.rpartition("Together about ")[2].split(",")[0].rstrip(".\n")
        number, part, unit = re.fullmatch(r"(\d+)([¼½¾]?) (minutes|hours)", total).groups()
        said = int(number) + {"¼": 0.25, "½": 0.5, "¾": 0.75, "": 0}[part]
        said *= 60 if unit == "hours" else 1
        # Each of the parts is rounded by itself.
        assert said == pytest.approx(sum(minutes), rel=0.08, abs=5)


def test_routes_are_as_long_as_they_say(book):
    hour, afternoon, *_ = [sum(minutes) for minutes, _ in routes("path")]
    assert 50 <= hour <= 65
    assert 180 <= afternoon <= 270
    two, _, five, _, *_ = [sum(minutes) for minutes, _ in routes("course")]
    assert two <= 0.75 * 120  # the rest of a meeting is for talk
    assert five <= 0.75 * 300


def test_the_known_mistakes_are_those_of_the_exercises(book):
    folds = parsed(HTML / "book" / "course.html").select("article details")
    assert len(folds) == len(EXERCISES)
    for fold, exercise in zip(folds, sorted(EXERCISES.values(), key=by_number), strict=True):
        assert fold.summary.get_text().startswith(f"{exercise.number} Build it: ")
        said = [item.get_text(strip=True) for item in fold.select("li")]
        assert [plain(words) for words in said] == [plain(m.words) for m in exercise.mistakes]
        assert fold.a["href"].startswith("../notebooks/")


def by_number(exercise):
    return [int(part) for part in exercise.number.split(".")]


def plain(words):
    return words.replace("\u2019", "'")


def test_the_check_of_the_page_for_teachers_is_a_check():
    text = (ROOT / "book" / "course.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, names := {})
    assert names["right"] is True
    assert names["words"].startswith("Right in all")
