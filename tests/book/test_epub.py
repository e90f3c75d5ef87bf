"""The book as an EPUB: from small pages to one file, with formulas and pictures."""

import io
import re
import zipfile
from xml.etree import ElementTree

import pytest

from tools import epub, paper

OPF = "{http://www.idpf.org/2007/opf}"
MATH = '<math xmlns="http://www.w3.org/1998/Math/MathML" alttext="x"><mi>x</mi></math>'


def sheet(name, text, answers="", images=()):
    """A page as tools.paper gives it."""
    return paper.Sheet(
        name, name.upper() + " & more", {}, {"text": text, "answers": answers}, [], [], dict(images)
    )


FRONT, CHAPTER = "book/index", "notebooks/01_alignment_problem"
PAGES = [
    sheet(FRONT, f'<p>See <a href="#{CHAPTER.replace("/", "-")}">the chapter</a>.</p>'),
    sheet(
        CHAPTER,
        f'<p id="one">{MATH} <a href="#two">Solution</a>'
        ' <img src="images/a.svg" alt="A line."/></p>',
        '<div id="two"><a href="#one">Exercise</a></div>',
        [
            ("images/a.svg", '<svg xmlns="http://www.w3.org/2000/svg"/>'),
            ("images/b.png", b"\x89PNG"),
        ],
    ),
]


@pytest.fixture(scope="module")
def packed():
    return zipfile.ZipFile(io.BytesIO(epub.pack(PAGES, "p { color: red }")))


def package(packed):
    return ElementTree.fromstring(packed.read("book/package.opf"))


def test_the_kind_of_the_file_is_said_first_and_uncompressed(packed):
    first = packed.infolist()[0]
    assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
    assert packed.read(first) == b"application/epub+zip"


def test_every_file_is_in_the_manifest_with_what_it_uses(packed):
    items = {item.get("href"): item for item in package(packed).iter(f"{OPF}item")}
    inside = {name.removeprefix("book/") for name in packed.namelist() if name.startswith("book/")}
    assert {*items} == inside - {"package.opf"}
    assert items["images/b.png"].get("media-type") == "image/png"
    used = {name: item.get("properties") for name, item in items.items() if item.get("properties")}
    assert used == {"contents.xhtml": "nav", "notebooks-01_alignment_problem.xhtml": "mathml"}


def test_the_order_of_reading_ends_with_the_solutions(packed):
    names = {item.get("id"): item.get("href") for item in package(packed).iter(f"{OPF}item")}
    order = [names[item.get("idref")] for item in package(packed).iter(f"{OPF}itemref")]
    pages = ["book-index.xhtml", "notebooks-01_alignment_problem.xhtml"]
    assert order == ["title.xhtml", "contents.xhtml", *pages, "answers.xhtml"]
    listed = packed.read("book/contents.xhtml").decode()
    assert re.findall(r'href="(\w[^"]*xhtml)"', listed) == [*pages, "answers.xhtml"]
    assert "The derivation" in listed
    assert "NOTEBOOKS/01_ALIGNMENT_PROBLEM &amp; more" in listed


def test_links_lead_from_file_to_file(packed):
    def links(name):
        return re.findall(r'<a href="([^"]+)"', packed.read(f"book/{name}.xhtml").decode())

    chapter = "notebooks-01_alignment_problem"
    assert links("book-index") == [f"{chapter}.xhtml#{chapter}"]
    assert links(chapter) == ["answers.xhtml#two"]
    assert links("answers") == [f"{chapter}.xhtml#one"]


def test_every_file_is_well_formed_and_in_the_language_of_the_book(packed):
    for name in packed.namelist():
        if name.endswith(".xhtml"):
            assert ElementTree.fromstring(packed.read(name)).get("lang") == "en"


def test_equal_books_make_equal_files_and_others_other_names(packed):
    again = epub.pack(PAGES, "p { color: red }")
    assert zipfile.ZipFile(io.BytesIO(again)).read("book/package.opf") == packed.read(
        "book/package.opf"
    )
    assert again == epub.pack(PAGES, "p { color: red }")
    assert epub.pack(PAGES, "p { color: blue }") != again


def test_code_has_the_light_colors_of_the_book(tmp_path):
    (tmp_path / "_static").mkdir()
    sheet = 'html[data-theme="{}"] .highlight .k {{ color: {} }}'
    both = "\n".join([sheet.format("light", "#111"), sheet.format("dark", "#eee")])
    (tmp_path / "_static" / "pygments.css").write_text(both)
    found = epub.styles(tmp_path)
    assert ".highlight .k { color: #111 }" in found
    assert "#eee" not in found
