"""The book's Sphinx extension, without a browser."""

import sys
from xml.etree import ElementTree

import pytest
from docutils import nodes
from docutils.utils import new_document

from tests.book.pages import ROOT

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import dpo_book

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
    assert 'id="drawing-3-clip"' in drawing
    assert 'clip-path="url(#drawing-3-clip)"' in drawing
    assert 'href="#drawing-3-tick"' in drawing
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


POINTS = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><defs>{same}</defs>
<g clip-path="url(#c)"><path d="M0 0" style="fill: #0072b2"/></g>
<g clip-path="url(#c)"><path d="M1 1" style="fill: #0072b2"/></g>
<g clip-path="url(#c)"><path d="M2 2" style="fill: #0072b2"/></g>
<g clip-path="url(#d)"><path d="M3 3" style="fill: #0072b2"/></g>
<g class="1">{same}</g><g class="2">{faint}</g><g class="3">{mixed}</g></svg>"""


def test_points_that_look_alike_say_so_once():
    path = '<path d="M0 0" style="{}"/>'
    same, faint = 3 * path.format("fill: none"), 3 * path.format("fill: none; opacity: 0.5")
    mixed = 2 * path.format("fill: none") + path.format("stroke: none")
    source = POINTS.format(same=same, faint=faint, mixed=mixed)
    root = ElementTree.fromstring(dpo_book.inline_svg(source, "points", "p"))
    definitions, first, second, shared, faint, mixed = root
    assert [child.get("d") for child in first] == ["M0 0", "M1 1", "M2 2"]
    assert first.get("style") == "fill: var(--dpo-chosen, #0072b2)"
    assert not any("style" in child.attrib for child in [*first, *shared])
    assert len(second) == 1
    assert shared.get("style") == "fill: none"
    for group in (definitions, faint, mixed):  # definitions, opacity and different ones stay
        assert "style" not in group.attrib
        assert all("style" in child.attrib for child in group)


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
