"""The built book, served over http and opened as files."""

import pytest

from tests.book.pages import HTML
from tools import book as builder
from tools.browser import Watch, served


@pytest.fixture(scope="session")
def book():
    """The folder of the built book, built now if its sources have changed."""
    builder.build()
    return HTML


@pytest.fixture(scope="session")
def site(book):
    """Where the book is, by the scheme under which a reader may open it."""
    with served(book) as address:
        yield {"http": address, "file": f"{book.as_uri()}/"}


@pytest.fixture(scope="session")
def contexts(browser):
    """One browser window for each theme and size of screen, shared by the tests of a process."""
    opened = {}

    def context(theme="light", width=1280, height=900):
        key = (theme, width, height)
        if key not in opened:
            opened[key] = browser.new_context(
                color_scheme=theme, viewport={"width": width, "height": height}
            )
        return opened[key]

    yield context
    for window in opened.values():
        window.close()


@pytest.fixture(scope="session")
def load(contexts, site):
    """Open a page of the book in a theme and wait until its formulas are set."""

    def load(name, scheme="file", prepare=None, theme="light", **options):
        page = contexts(theme, **options).new_page()
        if prepare is not None:
            prepare(page)
        page.goto(site[scheme] + name, wait_until="load")
        page.evaluate("() => window.MathJax?.startup?.promise.then(() => true)")
        page.evaluate("() => document.fonts.ready.then(() => true)")
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        return page

    return load


@pytest.fixture
def open_page(load):
    """The same, until the end of a test."""
    opened = []

    def open_page(*arguments, **options):
        opened.append(load(*arguments, **options))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()


@pytest.fixture(scope="module")
def visit(request, load, site):
    """One load of a page, for all tests that look at it: the page, and its watch.

    A test says which by ``parametrize``: the name, the scheme, the theme and the width.
    """
    name, scheme, theme, width = request.param
    watch = Watch(site[scheme])
    page = load(name, scheme, watch, theme=theme, width=width)
    yield page, watch
    page.close()
