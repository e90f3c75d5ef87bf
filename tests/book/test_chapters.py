"""The links to chapters, the map of the derivation and the linked formula."""

import re
from types import SimpleNamespace

import dpo_chapters as chapters
import pytest
from dpo_contents import CHAPTERS

INDEX = "book/index.html"


@pytest.fixture
def env():
    builder = SimpleNamespace(get_relative_uri=lambda source, target: f"../{target}.html")
    return SimpleNamespace(docname="book/index", app=SimpleNamespace(builder=builder))


def test_a_chapter_is_found_by_its_number(env):
    assert chapters.chapter_uri(env, 2) == "../notebooks/02_bradley_terry.html"
    assert chapters.chapter_uri(env, 10) == "../notebooks/10_full_implementation.html"
    with pytest.raises(ValueError, match=r"no chapter 11: chapters run from 1 to 10"):
        chapters.chapter_uri(env, 11)


@pytest.mark.parametrize(
    ("tex", "written"),
    [
        (r"\new{\sigma}(r_w)", r"\class{map-new}{\sigma}(\class{map-chosen}{r_w})"),
        (r"\new{a}\newline", r"\class{map-new}{a}\newline"),
        (r"\pi_\theta(y_l)", r"\class{map-policy}{\pi_\theta}(\class{map-rejected}{y_l})"),
        (r"\pi_{\mathrm{ref}}", r"\class{map-reference}{\pi_{\mathrm{ref}}}"),
        (r"\hat r_\theta(y_t)", r"\hat r_\theta(y_t)"),
        (r"\chapter{2: it}{\sigma}", r"\href{../notebooks/02_bradley_terry.html}{\sigma}"),
    ],
)
def test_formulas_are_written_for_mathjax(env, tex, written):
    assert chapters.rewrite(tex, env)[0] == written


def test_links_have_names(env):
    _, names = chapters.rewrite(r"\chapter{8: beta}{\beta}\chapter{2: the sigmoid}{\sigma}", env)
    assert names == ["beta: chapter 8", "the sigmoid: chapter 2"]


def test_the_map_has_a_station_for_every_chapter(open_page):
    page = open_page(INDEX)
    stations = page.locator(".derivation-map li")
    assert stations.count() == len(CHAPTERS)
    for station, chapter in zip(stations.all(), CHAPTERS.values(), strict=True):
        assert station.get_by_role("link").get_attribute("href").endswith(f"{chapter}.html")
        assert station.locator("mjx-container").is_visible()
        assert station.locator("mjx-math .map-new").count() >= 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_symbol_of_the_formula_leads_to_its_chapter_by_keyboard(open_page, theme):
    page = open_page(INDEX, theme=theme)
    group = page.get_by_role("group", name=re.compile("^The DPO loss of theta is"))
    links = group.get_by_role("link").all()
    led = []
    links[0].focus()
    for link in links:
        focused = page.evaluate(
            "[document.activeElement.getAttribute('href'), document.activeElement.ariaLabel]"
        )
        assert focused[0] == link.get_attribute("href")
        number = int(re.search(r"(\d+)_", focused[0])[1])
        assert focused[1].endswith(f": chapter {number}")
        led.append(number)
        page.keyboard.press("Tab")
    assert led == [9, 10, 1, 3, 2, 8, 4, 7, 8, 4, 7]
    assert not page.evaluate("Boolean(document.activeElement.closest('.dpo-formula'))")
    links[4].focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/02_bradley_terry.html")


def test_what_is_not_a_link_in_the_formula_is_silent(open_page):
    page = open_page(INDEX)
    group = page.get_by_role("group", name=re.compile("^The DPO loss of theta is"))
    said = re.findall(r"- '?(\w+)", group.aria_snapshot())
    assert said == ["group", "paragraph", *["link"] * 11]
