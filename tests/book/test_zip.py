"""The zip of the book: small, and whole in any folder."""

import re
import zipfile
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from tests.book.pages import CHAPTERS, EVERY_PAGE, faults_of_load
from tools import book as builder
from tools.browser import Watch


@pytest.fixture(scope="module")
def packed(book, tmp_path_factory):
    return builder.pack(book, tmp_path_factory.mktemp("zip") / builder.ZIP.name)


@pytest.fixture(scope="module")
def stick(packed):
    """The folder into which a reader unpacked it, with a space in its name."""
    folder = packed.parent / "USB stick"
    zipfile.ZipFile(packed).extractall(folder)
    return folder / packed.stem


def test_the_zip_is_small(packed):
    assert packed.stat().st_size <= builder.ZIP_LIMIT


def links_of(text):
    """What a page names; the parser alone takes a third of the time of a tree."""
    found = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(value for name, value in attrs if name in ("href", "src") and value)

    Links().feed(text)
    return found


def test_nothing_that_a_page_or_style_names_was_left_out(stick):
    missing, asked = [], 0
    for path in [*stick.rglob("*.html"), *stick.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            links = links_of(text)
        else:
            links = re.findall(r"url\([\"']?([^\"')]+)", text)
        for link in links:
            if not urlsplit(link).scheme and (name := urldefrag(link)[0].split("?")[0]):
                asked += 1
                if not (path.parent / unquote(name)).is_file():
                    missing.append(f"{path.relative_to(stick)}: {link}")
    assert not missing, "\n".join(missing)
    assert asked > 10 * len(EVERY_PAGE)


@pytest.mark.parametrize("name", ["index", CHAPTERS[0]])
def test_a_page_opens_from_the_folder(stick, contexts, name):
    watch = Watch(f"{stick.as_uri()}/")
    page = contexts().new_page()
    watch(page)
    page.goto((stick / f"{name}.html").as_uri(), wait_until="load")
    assert faults_of_load(page, watch) == []
    page.close()


def test_search_finds_pages_from_the_folder(stick, contexts):
    watch = Watch(f"{stick.as_uri()}/")
    page = contexts().new_page()
    watch(page)
    page.goto(f"{stick.as_uri()}/search.html?q=sigmoid", wait_until="load")
    page.locator("#search-results li a").first.click(timeout=10_000)
    page.wait_for_url(re.compile(r"/dpo_book/(book|notebooks)/"))
    assert watch.problems() == []
    page.close()
