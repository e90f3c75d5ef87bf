"""The cheat sheet: its code is the library's loss, and it prints on one page of paper."""

import re

import pytest
import torch

import dpo_lib
from tests.book.pages import ROOT

PAGE = "book/cheat_sheet"
LEAST_POINTS = 8  # what is smaller is hard to read on paper
PAGES_OF_A_PDF = re.compile(rb"/Type\s*/Page\b(?!s)")
CUT_OFF = """() => [...document.querySelectorAll(".dpo-sheet :is(div.math, pre, table)")]
    .filter((e) => {
        const whole = e.closest("div.math, .highlight, .pst-scrollable-table-container") ?? e;
        return whole.scrollWidth > whole.clientWidth + 1;
    })
    .map((e) => e.textContent.slice(0, 80))"""


def test_its_code_is_the_loss():
    text = (ROOT / f"{PAGE}.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    four = torch.tensor([[-2.1, -4.5, -3.0, -3.2], [-9.0, -4.0, -7.0, -6.5]], dtype=torch.float64).T
    names = dict(zip(("chosen", "rejected", "ref_chosen", "ref_rejected"), four, strict=True))
    exec(code, names := {**names, "beta": 0.3, "torch": torch})
    torch.testing.assert_close(names["loss"], dpo_lib.dpo_loss(*four, beta=0.3).losses.mean())


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_prints_on_one_page(load, theme):
    page = load(f"{PAGE}.html", theme=theme)
    for paper in ("A4", "Letter"):
        assert len(PAGES_OF_A_PDF.findall(page.pdf(format=paper))) == 1, paper
    page.emulate_media(media="print", color_scheme=theme)
    for width in (210, 216):
        page.set_viewport_size({"width": round((width - 18) / 25.4 * 96), "height": 1000})
        assert page.evaluate(CUT_OFF) == []
    style = "e => [getComputedStyle(e).fontSize, getComputedStyle(e).color]"
    size, color = page.locator(".dpo-sheet p").first.evaluate(style)
    assert float(size.removesuffix("px")) * 72 / 96 >= LEAST_POINTS
    assert color == "rgb(0, 0, 0)"
    page.emulate_media(media="null", color_scheme="null")  # the window is shared
    page.close()


def test_two_pages_would_be_noticed(load):
    page = load(f"{PAGE}.html")
    page.add_style_tag(content="@media print { .bd-article .dpo-sheet { font-size: 16pt; } }")
    assert len(PAGES_OF_A_PDF.findall(page.pdf(format="A4"))) > 1
    page.close()


def test_it_leads_to_every_chapter(load):
    page = load(f"{PAGE}.html")
    links = page.locator(".dpo-sheet a").evaluate_all("all => all.map((a) => a.href)")
    chapters = [re.search(r"/notebooks/(\d+)_", link) for link in links]
    assert {int(chapter[1]) for chapter in chapters if chapter} == {*range(1, 11)}
    page.close()
