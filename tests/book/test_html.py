"""The built files: links lead somewhere, pictures have words, nothing comes from outside."""

import functools
import json
import re
from collections import Counter
from urllib.parse import unquote, urldefrag, urlsplit

import dpo_book
import pytest

from tests.book.pages import APPENDICES, CHAPTERS, EVERY_PAGE, HTML, NOTEBOOKS, PAGES, ROOT, parsed

HARD_COLOR = re.compile(r"(?<!, )#[0-9a-fA-F]{6}\b")  # one that is no variable's fallback
VIEW = "application/vnd.jupyter.widget-view+json"


@functools.cache
def anchors(path):
    return {tag.get("id") or tag.get("name") for tag in parsed(path).select("[id], a[name]")}


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_links_lead_somewhere(book, name):
    page = HTML / name
    broken = []
    for tag in parsed(page).select("a[href], link[href], script[src], img[src]"):
        link = tag.get("href") or tag.get("src")
        if urlsplit(link).scheme in ("http", "https", "mailto", "data"):
            continue
        path, anchor = urldefrag(link)
        target = (page.parent / unquote(path.split("?")[0])).resolve() if path else page
        if not target.is_file():
            broken.append(f"{link}: no such file")
        elif anchor and target.suffix == ".html" and unquote(anchor) not in anchors(target):
            broken.append(f"{link}: no such anchor")
    assert broken == []


def test_every_icon_that_is_shown_has_its_sign_and_no_other_is_sent(book):
    style = (HTML / "_static" / dpo_book.ICON_STYLE).read_text("utf-8")
    signs = [set(dpo_book.ICON_NAME.findall(rule)) for rule in dpo_book.ICON_RULE.findall(style)]
    icons = {
        tuple(name for name in tag["class"] if name.startswith("fa-")) or tuple(tag["class"])
        for name in EVERY_PAGE
        for tag in parsed(HTML / name).select("i[class*='fa-']")
    }
    assert icons
    assert all(any(sign.intersection(names) for sign in signs) for names in icons)
    assert len(signs) < 2 * len(icons)  # the theme has some two thousand


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_storage_is_asked_for_once_a_file_has_run(book, name):
    page = parsed(HTML / name)
    scripts = page.select("script:not([type='application/json'])")
    asks = [i for i, script in enumerate(scripts) if "localStorage" in script.get_text()]
    files = [i for i, s in enumerate(scripts) if s.get("src") and not s.has_attr("defer")]
    assert len(asks) == 1
    assert scripts[asks[0]].parent.name == "head"  # the reader's theme, before anything is drawn
    assert files[0] < asks[0]


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_nothing_is_loaded_from_outside(book, name):
    loads = "script[src], link[href], img[src], iframe, object, embed, source, video, audio"
    outside = [
        str(tag)[:160]
        for tag in parsed(HTML / name).select(loads)
        if urlsplit(tag.get("src") or tag.get("href") or "").scheme not in ("", "data")
        or tag.name in ("iframe", "object", "embed")
    ]
    assert outside == []


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_no_page_tells_where_it_was_built(book, name):
    assert str(ROOT) not in (HTML / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_ids_are_unique(book, name):
    ids = Counter(tag["id"] for tag in parsed(HTML / name).select("[id]"))
    assert [name for name, count in ids.items() if count > 1] == []


@pytest.mark.parametrize("name", PAGES)
def test_pictures_have_words(book, name):
    article = parsed(HTML / name).find("article")
    for image in article.select("img"):
        assert image.get("alt", "").strip(), image
    for drawing in article.select(".dpo-figure > svg"):
        assert drawing["role"] == "img"
        assert len(drawing["aria-label"].split()) >= 3, drawing["aria-label"]


@pytest.mark.parametrize("name", PAGES)
def test_drawings_follow_the_theme(book, name):
    """Every color of a drawing is a variable of the palette, which the dark theme changes."""
    for drawing in parsed(HTML / name).select(".dpo-figure > svg"):
        assert not HARD_COLOR.findall(str(drawing))


def captions(page):
    return [tag.text for tag in page.select("article figcaption .caption-number")]


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_has_the_number_in_its_file_name(book, name):
    number = int(name.removeprefix("notebooks/").split("_")[0])
    page = parsed(HTML / f"{name}.html")
    assert page.select_one("article h1").text.startswith(f"{number}. ")
    assert captions(page) == [f"Figure {number}.{i + 1} " for i in range(len(captions(page)))]


@pytest.mark.parametrize("name", APPENDICES)
def test_an_appendix_has_the_letter_in_its_file_name(book, name):
    letter = name.removeprefix("book/appendices/")[0].upper()
    page = parsed(HTML / f"{name}.html")
    assert page.select_one("article h1").text.startswith(f"Appendix {letter}: ")
    assert captions(page) == [f"Figure {letter}.{i + 1} " for i in range(len(captions(page)))]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_widget_has_a_static_form_and_a_place_on_the_page(book, name):
    notebook = json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))
    outputs = [
        output["data"]
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if VIEW in output.get("data", {})
    ]
    for data in outputs:
        assert "data-dpo-widget" in "".join(data.get("text/html", "")), data
    page = parsed(HTML / f"{name}.html")
    assert len(page.select("[data-dpo-widget]")) == len(outputs)
    scripts = [tag["src"] for tag in page.select("script[src]")]
    kinds = {node["data-dpo-widget"] for node in page.select("[data-dpo-widget]")}
    later = kinds & {*dpo_book.LATER}
    assert sum("dpo-widgets" in src for src in scripts) == bool(kinds - later)
    assert sum("dpo-near" in src for src in scripts) == bool(later)
