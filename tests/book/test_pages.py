"""Every page as a server sends it: nothing from outside, no errors, all formulas set, not heavy."""

import re

import dpo_book
import pytest

from dpo_lib import widgets
from tests.book.pages import EVERY_PAGE, HTML, faults_of_load, parsed
from tools.browser import Watch

# Bytes of one first page load, uncompressed, without fonts: of a chapter, of another page.
WEIGHT_LIMITS = {True: 1_500_000, False: 1_750_000}
LIVE_LIMIT = 10_000  # bytes of it that live widgets may bring
WIDGET_FILE = re.compile(r"_static/dpo-(?:widgets|near|preview|module|live)\b")


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_loads_without_errors_or_outside_requests(open_page, site, name):
    # The dark theme, and the page as a file, are in test_reader.py.
    watch = Watch(site["http"])
    assert faults_of_load(open_page(name, "http", watch), watch) == []
    weight = watch.weight()
    assert sum(weight.values()) <= WEIGHT_LIMITS[name.startswith("notebooks/")], weight
    assert live_bytes(name, weight) <= LIVE_LIMIT, weight


def runs_something(kind):
    """Whether a widget loads parts: the engine, its weights, Python."""
    return bool(getattr(widgets, widgets.class_name(kind)).parts)


def live_bytes(name, weight):
    """Bytes of a page's first load that it would not have without the widgets that run a model.

    Bets and quizzes are text that is read, and count as text does.
    """
    placeholders = parsed(HTML / name).select("[data-dpo-widget]")
    kinds = {node["data-dpo-widget"] for node in placeholders}
    live = [node for node in placeholders if runs_something(node["data-dpo-widget"])]
    if not live:
        return 0
    others = {kind for kind in kinds if not runs_something(kind)}
    loaded = sum(size for file, size in weight.items() if WIDGET_FILE.match(file))
    without = sum(len(text.encode()) for text in dpo_book.first_files(others).values())
    return sum(len(str(node).encode()) for node in live) + loaded - without


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_search_finds_pages(open_page, site, scheme):
    watch = Watch(site[scheme])
    page = open_page("search.html?q=sigmoid", scheme, watch)
    page.locator("#search-results li a").first.wait_for(timeout=10_000)
    assert watch.problems() == []
