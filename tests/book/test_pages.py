"""Every page in a real browser: nothing from outside, no errors, all formulas set, not heavy."""

import re

import dpo_book
import pytest
from bs4 import BeautifulSoup

from dpo_lib import widgets
from tests.book.pages import EVERY_PAGE, HTML

# Bytes of one first page load, uncompressed, without fonts: of a chapter, of another page.
WEIGHT_LIMITS = {True: 1_500_000, False: 1_750_000}
LIVE_LIMIT = 10_000  # bytes of it that live widgets may bring
WIDGET_FILE = re.compile(r"_static/dpo-(?:widgets|near|preview|module|live)\b")


class Watch:
    """Collects what a page requests and what it complains about."""

    def __init__(self, base):
        self.base = base
        self.outside, self.errors, self.responses = [], [], []

    def __call__(self, page):
        page.on("request", self.on_request)
        page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        page.on("response", lambda response: self.responses.append(response))
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("console", self.on_console)

    def on_request(self, request):
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.outside.append(request.url)

    def on_console(self, message):
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {message.text}")

    def problems(self):
        bad = [f"status {r.status}: {r.url}" for r in self.responses if r.status >= 400]
        return [*(f"outside: {url}" for url in self.outside), *self.errors, *bad]

    def weight(self):
        """Bytes of all responses but fonts."""
        return {
            response.url.removeprefix(self.base): len(response.body())
            for response in self.responses
            if response.request.resource_type != "font"
        }


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize("name", EVERY_PAGE)
def test_loads_without_errors_or_outside_requests(open_page, site, name, scheme, theme):
    watch = Watch(site[scheme])
    page = open_page(name, scheme, watch, theme=theme)
    page.wait_for_load_state("networkidle")

    assert watch.problems() == []
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    unset = page.locator(".math:not(:has(mjx-container))")
    assert unset.all_inner_texts() == [], "formulas that MathJax did not set"
    assert page.locator("mjx-merror").all_inner_texts() == [], "formulas with an error"
    if scheme == "http" and theme == "light":
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
    placeholders = BeautifulSoup((HTML / name).read_text("utf-8"), "html.parser").select(
        "[data-dpo-widget]"
    )
    kinds = {node["data-dpo-widget"] for node in placeholders}
    live = [node for node in placeholders if runs_something(node["data-dpo-widget"])]
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
