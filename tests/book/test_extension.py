"""The book's Sphinx extension, without a browser."""

from xml.etree import ElementTree

import dpo_book
import pytest
from docutils import nodes
from docutils.utils import new_document

SOURCE = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
     width="72pt" height="36pt" viewBox="0 0 72 36">
 <metadata>nothing for a reader</metadata>
 <defs><style>*{stroke-linejoin: round} .b{fill: #0072B2}</style></defs>
 <defs><clipPath id="clip"><rect width="1" height="1"/></clipPath>
 <path id="tick" d="M0 0V3"/></defs>
 <g id="unused"><use xlink:href="#tick" style="stroke: #1f2933"/></g>
 <g clip-path="url(#clip)"><text>a &lt; b</text></g>
</svg>"""


@pytest.fixture(scope="module")
def drawing():
    return dpo_book.inline_svg(SOURCE, 'A "drawing" & more', "drawing-3")


def test_a_drawing_is_named_by_its_alternative_text(drawing):
    root = ElementTree.fromstring(drawing)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'A "drawing" & more'
    assert root.find(".//text").text == "a < b"


def test_ids_get_a_prefix_and_unused_ones_go(drawing):
    root = ElementTree.fromstring(drawing)
    clip, tick = root.find(".//clipPath").get("id"), root.find(".//defs/path").get("id")
    assert {clip, tick} == {"drawing-3-0", "drawing-3-1"}
    assert root.find(".//g[@clip-path]").get("clip-path") == f"url(#{clip})"
    assert root.find(".//use").get("href") == f"#{tick}"
    assert "unused" not in drawing


def test_colors_of_the_palette_become_variables(drawing):
    assert "stroke: var(--dpo-ink, #1f2933)" in drawing
    assert "fill: var(--dpo-chosen, #0072B2)" in drawing


def test_styles_stay_inside_the_drawing(drawing):
    assert "<style>#drawing-3 { *{stroke-linejoin" in drawing


def test_size_is_a_limit_and_the_drawing_scales(drawing):
    root = ElementTree.fromstring(drawing)
    assert "width: 96px" in root.attrib["style"]
    assert root.attrib["viewBox"] == "0 0 72 36"
    assert not {"width", "height"} & root.attrib.keys()


def test_a_style_used_often_becomes_a_class_of_the_figure():
    texts = 3 * '<text style="fill: #0072b2"/>' + 2 * '<text style="fill: none"/>'
    source = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g id="a">{texts}</g></svg>'
    )
    sheet, group = ElementTree.fromstring(dpo_book.inline_svg(source, "words", "p"))
    assert sheet.text == "#p { .s0 { fill: var(--dpo-chosen, #0072b2) } }"
    assert [text.attrib for text in group] == 3 * [{"class": "s0"}] + 2 * [{"style": "fill: none"}]


def test_punctuation_stays_with_its_formula():
    paragraph = nodes.paragraph()
    paragraph += [
        nodes.Text("goes ("),
        nodes.math("", "a"),
        nodes.Text("), as "),
        nodes.math("", "b"),
    ]
    document = new_document("a page")
    document += paragraph
    dpo_book.keep_punctuation(None, document)
    assert [child.astext() for child in paragraph] == ["goes ", "(a),", " as ", "b"]


def test_what_no_reader_needs_is_gone(drawing):
    assert "metadata" not in drawing
    assert "<?xml" not in drawing


def test_long_curves_are_drawn_to_a_tenth_of_a_point():
    long = "M 1.25 -2.349 " + "L 10.96 0.04 " * 60
    curves = f'<path d="{long}"/><path d="M 1.25 0"/>'
    source = f'<svg xmlns="{dpo_book.SVG}" viewBox="0 0 9 9">{curves}</svg>'
    curve, mark = ElementTree.fromstring(dpo_book.inline_svg(source, "curves", "p"))
    assert curve.get("d").startswith("M 1.2 -2.3 L 11.0 0.0 L 11.0")
    assert mark.get("d") == "M 1.25 0"
