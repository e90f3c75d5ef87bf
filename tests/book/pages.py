"""The pages of the book, as its table of contents has them."""

import functools
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


@functools.cache
def parsed(path: Path) -> BeautifulSoup:
    """A page of the built book, not to be changed."""
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


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
