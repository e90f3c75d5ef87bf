"""The book on paper: from a page to one document, with contents, links and hints at the end."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader

from tools import paper

NAMES = ["book/index", "notebooks/01_first"]
PAGE = """<!DOCTYPE html><html lang="en" data-content_root="../"><head><meta charset="utf-8">
<link rel="stylesheet" href="../_static/book.css"></head><body><nav>menu</nav>
<article class="bd-article"><h1 id="top">{title}<a class="headerlink" href="#top">#</a></h1>{body}
</article></body></html>"""
FIRST = """
<h2 id="one">A section</h2><p>See <a href="../book/index.html#top">the front page</a>, the
<a href="../genindex.html">index</a> and <a href="https://arxiv.org/abs/2305.18290">a paper</a>.</p>
<span class="dpo-figure"><svg viewBox="0 0 40 20" style="width: 40px" aria-label="A line.">
<style>.s0 { stroke: rgb(1, 2, 3) }</style><path class="s0" d="M0 0L9 9"></path></svg></span>
<div class="exercise admonition" id="ex-a"><p class="admonition-title">Exercise 1.1 (Try)</p></div>
<div class="admonition hint dropdown toggle"><p class="admonition-title">Hint</p><p>Think.</p></div>
<div class="solution dropdown admonition" id="notebooks/01_first-solution-1">
<p class="admonition-title">Solution to <a href="#ex-a">Exercise 1.1</a></p><p>Forty-two.</p></div>
<div class="cell"><details class="hide"><summary><p class="collapsed">Show</p></summary>
<div class="cell_input"><pre># Solution: try
print(42)</pre></div></details></div>
<div class="cell"><button class="copybtn">Copy</button><pre>print("after")</pre></div>
<div class="dpo-static"><div class="dpo-widget"><div class="dpo-view">
<label><input type="radio"><span>yes</span></label><p style="visibility: hidden">room</p></div>
<p class="dpo-status">All is said.</p>
<div class="dpo-controls"><div class="dpo-control"><label for="b">β</label>
<input id="b" type="range"><output>0.10</output></div></div>
<div class="dpo-actions"><button class="dpo-button">Reset</button></div></div>
<script type="application/json">{"kind": "quiz", "title": "Check yourself", "data": {"questions":
[{"answers": [["No.", "Look at r_l."], ["Yes: r_w.", "It is larger."]], "right": 1}]}}
</script></div>
"""


@pytest.fixture(scope="module")
def taken(browser, tmp_path_factory):
    """Two small pages as they are on paper."""
    folder = tmp_path_factory.mktemp("html")
    for name, title, body in [(NAMES[0], "Front", ""), (NAMES[1], "1. First", FIRST)]:
        (folder / name).parent.mkdir()
        text = PAGE.format(title=title, body=body)
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return list(paper.sheets(browser, folder, NAMES, pictures=False))


@pytest.fixture(scope="module")
def first(taken):
    return BeautifulSoup(taken[1].print["text"], "html.parser")


@pytest.fixture(scope="module")
def answers(taken):
    return BeautifulSoup(taken[1].print["answers"], "html.parser")


def test_links_lead_through_the_book_and_out_of_it(first):
    links = {link.text: link["href"] for link in first.select("p:not(.to-answers) a")}
    assert links == {
        "the front page": "#book-index--top",
        "a paper": "https://arxiv.org/abs/2305.18290",
    }


def test_hints_and_solutions_with_their_code_are_at_the_end(first, answers):
    assert "Forty-two" not in first.text
    assert "Think" not in first.text
    assert 'print("after")' in first.text
    assert re.findall(r"Think\.|Forty-two|print\(\d+\)", answers.text) == [
        "Think.",
        "Forty-two",
        "print(42)",
    ]
    assert answers.select_one("ol").text == "Yes: rw. It is larger."
    assert answers.select_one("ol sub").text == "w"
    there = [link["href"] for link in first.select(".to-answers a")]
    assert there == [f"#{box['id']}" for box in answers.select(".admonition")]
    back = {link["href"] for link in answers.select(".admonition-title a")}
    assert back == {f"#{first.select_one(box)['id']}" for box in (".exercise", ".dpo-static")}


def test_on_paper_all_is_in_the_form_for_paper(taken):
    forms = [{part: f"{part} {form}" for part in ("text", "answers")} for form in ("print", "book")]
    page = replace(taken[1], print=forms[0], book=forms[1])
    whole = paper.document([page], ".")
    assert all(text in whole for text in forms[0].values())
    assert not any(text in whole for text in forms[1].values())


def test_a_widget_says_its_state_without_what_only_a_screen_can_do(first):
    widget = first.select_one(".dpo-widget")
    assert widget.get_text(" ", strip=True) == "☐ yes All is said. β : 0.10"
    assert not first.select("button, input, script, details, nav, .headerlink")


def test_a_figure_is_a_file_with_its_styles_and_its_words(taken, first):
    image = first.select_one(".dpo-figure img")
    assert (image["alt"], image["width"]) == ("A line.", "40")
    drawing = taken[1].images[image["src"]]
    assert re.search(r'style="[^"]*stroke: rgb\(1, 2, 3\)', drawing)
    assert "class=" not in drawing


def test_the_form_for_an_epub_is_xhtml(taken):
    for sheet in taken:
        for text in sheet.book.values():
            words = "".join(ElementTree.fromstring(f"<div>{text}</div>").itertext())
            assert words.split() == BeautifulSoup(text, "html.parser").get_text().split()


def test_a_link_that_leads_nowhere_and_a_name_twice_are_seen():
    paper.check_links('<a href="#b"></a><p id="a"></p><p id="b"></p>')
    with pytest.raises(SystemExit, match=r"lead nowhere: \['c'\]"):
        paper.check_links('<a href="#c"></a><p id="a"></p>')
    with pytest.raises(SystemExit, match=r"twice: \['a'\]"):
        paper.check_links('<p id="a"></p><p id="a"></p>')


@pytest.fixture(scope="module")
def pdf(browser, taken, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    target = folder / "book.pdf"
    paper.print_pdf(browser, paper.write_work(taken, folder), target)
    paper.finish(target)
    return PdfReader(target)


def test_the_pdf_has_its_title_language_and_outline(pdf):
    assert pdf.metadata.title == paper.settings()["title"]
    assert pdf.root_object["/Lang"] == "en"
    assert pdf.page_mode == "/UseOutlines"
    assert pdf.root_object["/MarkInfo"]["/Marked"]

    def titles(outline):
        return [titles(entry) if isinstance(entry, list) else entry.title for entry in outline]

    expected = ["Contents", "Front", "1. First", ["A section"], paper.ANSWERS_TITLE, ["1. First"]]
    assert titles(pdf.outline) == expected


def test_the_table_of_contents_and_exercises_name_the_right_pages(pdf):
    texts = [page.extract_text() for page in pdf.pages]
    pages = {
        title: next(
            i for i, text in enumerate(texts, 1) if i > 2 and re.search(rf"^{title}$", text, re.M)
        )
        for title in ("Front", "1. First", paper.ANSWERS_TITLE)
    }
    listed = re.findall(rf"^({paper.ANSWERS_TITLE})\s+(\d+)$", texts[1], re.M)
    assert listed == [(paper.ANSWERS_TITLE, str(pages[paper.ANSWERS_TITLE]))]
    at_the_end = pages[paper.ANSWERS_TITLE]
    exercise = texts[pages["1. First"] - 1]
    assert f"Hint (page {at_the_end}) · Solution (page {at_the_end})" in exercise


def test_links_in_the_pdf_work(pdf):
    targets = {
        annotation.get_object()["/Dest"]
        for page in pdf.pages
        for annotation in page.get("/Annots", [])
        if "/Dest" in annotation.get_object()
    }
    assert targets
    assert targets <= {*pdf.named_destinations}
