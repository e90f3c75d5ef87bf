"""The map of the derivation, the linked formula and the links to chapters."""

import re
from types import SimpleNamespace
from xml.etree import ElementTree

import dpo_chapters as chapters
import pytest

NUMBERS = range(1, len(chapters.STATIONS) + 1)
LINK = "../notebooks/{:02d}_x.html"


def uris(*written):
    return {n: LINK.format(n) if n in written else None for n in NUMBERS}


def drawings(markup):
    """The SVG elements of a drawing, without the one that holds the outlines."""
    return [svg for svg in ElementTree.fromstring(markup) if "aria-label" in svg.attrib]


def hrefs(svg):
    return [a.get("href") for a in svg.iter("a")]


def test_ten_stations():
    assert len(chapters.STATIONS) == 10


@pytest.mark.parametrize("written", [(), (2, 3), tuple(NUMBERS)])
def test_the_map_links_the_chapters_that_are_written(written):
    wide, narrow = drawings(chapters.draw_map(uris(*written)))
    assert hrefs(wide) == hrefs(narrow) == [LINK.format(n) for n in written]


def test_every_station_says_its_chapter_and_what_it_adds():
    for svg in drawings(chapters.draw_map(uris(2, 3))):
        labels = [
            e.get("aria-label") for e in svg.iter() if e.tag in "ag" and "aria-label" in e.attrib
        ]
        assert len(labels) == 10
        for number, (station, label) in enumerate(zip(chapters.STATIONS, labels, strict=True), 1):
            assert label.startswith(f"Chapter {number}, {station.title}: {station.says}")
            assert label.endswith("(to come)") == (number not in (2, 3))


def test_every_symbol_of_the_formula_leads_to_its_chapter():
    for svg in drawings(chapters.draw_formula(uris(*NUMBERS))):
        led = sorted(int(re.search(r"(\d+)_x", href)[1]) for href in hrefs(svg))
        assert led == [1, 2, 3, 4, 4, 7, 7, 8, 8, 9, 10]
    for svg in drawings(chapters.draw_formula(uris(2))):
        assert hrefs(svg) == [LINK.format(2)]


def test_outlines_are_defined_once_on_the_page():
    page = chapters.draw_map(uris(2)) + chapters.draw_formula(uris(2))
    defined = re.findall(r' id="([^"]+)"', page)
    assert len(defined) == len(set(defined))
    assert set(re.findall(r'href="#([^"]+)"', page)) == set(defined)


def test_drawing_twice_gives_the_same_bytes():
    assert chapters.draw_map(uris(2, 3)) == chapters.draw_map(uris(2, 3))
    assert chapters.draw_formula(uris(2, 3)) == chapters.draw_formula(uris(2, 3))


def test_a_part_that_is_not_in_the_formula_is_an_error(monkeypatch):
    broken = chapters.Station("A chapter", r"a + b", (r"\sigma",), "nothing")
    monkeypatch.setattr(chapters, "STATIONS", (broken,) * 10)
    with pytest.raises(ValueError, match="chapter 1"):
        chapters.draw_map(uris())


def test_a_chapter_is_found_by_its_number():
    builder = SimpleNamespace(get_relative_uri=lambda source, target: f"../{target}.html")
    found = {"book/index", "notebooks/02_bradley_terry", "notebooks/10_full_implementation"}
    env = SimpleNamespace(
        found_docs=found, docname="book/index", app=SimpleNamespace(builder=builder)
    )
    assert chapters.chapter_uri(env, 2) == "../notebooks/02_bradley_terry.html"
    assert chapters.chapter_uri(env, 10) == "../notebooks/10_full_implementation.html"
    assert chapters.chapter_uri(env, 1) is None
