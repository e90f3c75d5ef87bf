"""The pages of the book, as its table of contents has them."""

import functools
import time
from pathlib import Path

import dpo_contents
from bs4 import BeautifulSoup

ROOT = dpo_contents.ROOT
HTML = ROOT / "_build" / "html"

DOCUMENTS = dpo_contents.PAGES
PAGES = [f"{name}.html" for name in DOCUMENTS]
CHAPTERS = list(dpo_contents.CHAPTERS.values())
APPENDICES = list(dpo_contents.APPENDICES.values())
NOTEBOOKS = dpo_contents.NOTEBOOKS
EVERY_PAGE = [*PAGES, "search.html", "genindex.html"]
QUIET = 0.25  # seconds without a request after which a page has come to rest


@functools.cache
def parsed(path: Path) -> BeautifulSoup:
    """A page of the built book, not to be changed."""
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


class Watch:
    """Collects what a page requests and what it complains about."""

    def __init__(self, base):
        self.base = base
        self.outside, self.errors, self.responses = [], [], []
        self.last = time.monotonic()  # when a request was heard of

    def __call__(self, page):
        page.on("request", self.on_request)
        page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        page.on("response", lambda response: self.responses.append(response))
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("console", self.on_console)

    def rest(self, page):
        """Wait until nothing has been asked for during a quarter of a second."""
        page.wait_for_timeout(1)  # what has happened is heard of
        while (left := self.last + QUIET - time.monotonic()) > 0:
            page.wait_for_timeout(1000 * left)

    def on_request(self, request):
        self.last = time.monotonic()
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


def faults_of_load(page, watch):
    """What is wrong with a page that has been opened, however that was done."""
    watch.rest(page)
    unset = page.locator(".math:not(:has(mjx-container))").all_inner_texts()
    wrong = page.locator("mjx-merror").all_inner_texts()
    return [
        *watch.problems(),
        *(f"a formula that MathJax did not set: {text}" for text in unset),
        *(f"a formula with an error: {text}" for text in wrong),
    ]
