"""The book on paper: one PDF, by Chromium's print.

python -m tools.paper            builds the book if need be and writes dist/dpo_book.pdf

Each page of the built book is opened in Chromium, until its formulas are set and its widgets stand
in their first state; `paper.js` then returns it without what only a screen can do. All pages in one
document are printed twice: the second time the table of contents knows the pages' numbers. Hints
and solutions stand at the end. No request leaves the machine.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Browser, Page
from pypdf import PdfReader, PdfWriter

from tools import book
from tools.browser import chromium, stay_inside

ROOT = Path(__file__).resolve().parents[1]
PDF = ROOT / "dist" / "dpo_book.pdf"
WORK = ROOT / "_build" / "paper"
SCRIPT = ROOT / "tools" / "paper.js"
STYLES = ROOT / "tools" / "paper.css"
ANSWERS = "answers"  # the id of the last chapter
ANSWERS_TITLE = "Hints, solutions, answers"
PREFACE = (
    "The book on paper. Widgets stand in their first state, with what they say in words; hints,"
    " solutions and the answers to quizzes are at the end."
)
PATIENCE = 60_000  # ms for one page, and for the drawing of one widget
PRINTING = 600_000  # ms


@dataclass
class Sheet:
    """A page of the book as it is read on paper."""

    name: str  # notebooks/09_dpo_loss
    title: str
    print: dict[str, str]  # its text, its hints and solutions
    book: dict[str, str]  # the same as XHTML
    rules: list[str]  # of MathJax
    styles: list[str]  # style sheets, from the book's folder
    images: dict[str, str | bytes] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its name as links have it."""
        return self.name.replace("/", "-")


def parts() -> list[tuple[str, list[str]]]:
    """Return the parts of the book, each with its caption and its pages."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    rest = [
        (part["caption"], [chapter["file"] for chapter in part["chapters"]])
        for part in contents["parts"]
    ]
    return [("", [contents["root"]]), *rest]


def settings() -> dict[str, Any]:
    """Return the book's configuration."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


# --- from the built book ----------------------------------------------------------------------


def wait_for_drawings(page: Page) -> None:
    """Wait until formulas are set and every widget stands in its first state."""
    page.evaluate("() => document.fonts.ready.then(() => null)")
    page.evaluate("() => window.MathJax?.startup?.promise.then(() => null)")
    for widget in page.locator(".dpo-static").all():
        widget.evaluate("node => node.scrollIntoView({ block: 'center' })")
        widget.locator(".dpo-status").first.wait_for(state="attached")
    page.wait_for_timeout(200)  # a frame for what is drawn in the next one


def take(page: Page, folder: Path, name: str, names: list[str], pictures: bool = False) -> Sheet:
    """Open a page of the built book and return it as it is read on paper.

    ``pictures`` adds a PNG of each widget that draws.
    """
    page.goto((folder / f"{name}.html").as_uri())
    wait_for_drawings(page)
    sheet = Sheet(name, **page.evaluate(SCRIPT.read_text(encoding="utf-8"), [name, names]))
    if pictures:
        for view in page.locator(".dpo-static .dpo-view:has(svg)").all():
            number = view.evaluate("node => node.closest('.dpo-static').dataset.number")
            sheet.images[f"images/{sheet.id}-widget-{number}.png"] = view.screenshot()
    return sheet


def sheets(browser: Browser, folder: Path, names: list[str], pictures: bool) -> Iterator[Sheet]:
    """Yield the pages of the built book."""
    context = browser.new_context(
        color_scheme="light",
        reduced_motion="reduce",
        viewport={"width": 800, "height": 1100},
        device_scale_factor=2 if pictures else 1,
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    stay_inside(page)
    for name in names:
        yield take(page, folder, name, names, pictures)
    context.close()


# --- to one document --------------------------------------------------------------------------


def answers(pages: Iterable[tuple[str, str]]) -> str:
    """Return what stands at the end, from the title and the hints and solutions of each page."""
    return "".join(
        f"<section><h2>{html.escape(title)}</h2>{text}</section>"
        for title, text in pages
        if text.strip()
    )


def outline(pages: list[Sheet], answered: bool) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the parts of the book that hold any of the pages: caption, ids and titles, as HTML."""
    made = {sheet.name: sheet for sheet in pages}
    found = [
        (
            html.escape(caption),
            [
                (made[name].id, html.escape(made[name].title, quote=False))
                for name in names
                if name in made
            ],
        )
        for caption, names in parts()
    ]
    if answered:
        found.append(("", [(ANSWERS, ANSWERS_TITLE)]))
    return [(caption, entries) for caption, entries in found if entries]


def contents(pages: list[Sheet], answered: bool) -> str:
    """Return the table of contents, its page numbers still empty."""
    lines = []
    for caption, entries in outline(pages, answered):
        listed = "".join(
            f'<li><a class="with-page" href="#{target}">{title}</a></li>'
            for target, title in entries
        )
        lines.append(f"{caption and f'<h2>{caption}</h2>'}<ol>{listed}</ol>")
    return "\n".join(lines)


def document(pages: list[Sheet], base: str) -> str:
    """Return all pages as one document; ``base`` leads from it to the built book."""
    title, language = html.escape(settings()["title"]), settings()["sphinx"]["config"]["language"]
    styles = dict.fromkeys(style for sheet in pages for style in sheet.styles)
    links = "".join(f'<link rel="stylesheet" href="{base}/{style}"/>' for style in styles)
    rules = "\n".join(dict.fromkeys(rule for sheet in pages for rule in sheet.rules))
    at_the_end = answers((sheet.title, sheet.print["answers"]) for sheet in pages)
    listed = contents(pages, bool(at_the_end))
    body = [
        f'<header class="paper-title"><p class="title">{title}</p><p>{PREFACE}</p></header>',
        f'<nav class="paper-contents"><h1>Contents</h1>{listed}</nav>',
    ]
    for sheet in pages:
        body.append(f'<article class="bd-article" id="{sheet.id}">{sheet.print["text"]}</article>')
    if at_the_end:
        heading = f"<h1>{ANSWERS_TITLE}</h1>"
        body.append(f'<article class="bd-article" id="{ANSWERS}">{heading}{at_the_end}</article>')
    return (
        f'<!DOCTYPE html><html lang="{language}" data-theme="light" data-mode="light"><head>'
        f'<meta charset="utf-8"/><title>{title}</title>{links}<style>{rules}</style>'
        f"<style>{STYLES.read_text(encoding='utf-8')}</style></head><body>{''.join(body)}</body>"
        "</html>"
    )


IDS = re.compile(r'\sid="([^"]+)"')
LINKS = re.compile(r'\shref="#([^"]+)"')


def check_links(text: str) -> None:
    """Stop at a link that leads nowhere, or a name that stands twice."""
    ids = IDS.findall(text)
    if twice := {name for name in ids if ids.count(name) > 1} if len(ids) > len({*ids}) else set():
        raise SystemExit(f"error: these ids stand twice: {sorted(twice)[:5]}")
    if lost := {*LINKS.findall(text)} - {*ids}:
        raise SystemExit(f"error: these links lead nowhere: {sorted(lost)[:5]}")


FIT = """() => {
  const wide = "div.math, .pst-scrollable-table-container, .dpo-view, table";
  for (const box of document.querySelectorAll(wide)) {
    const room = box.clientWidth || box.parentElement.clientWidth;
    const width = Math.max(box.scrollWidth, ...[...box.children].map((child) => child.scrollWidth));
    if (room && width > room + 1) box.style.zoom = Math.max(0.5, room / (width + 2));
  }
}"""
NUMBER = """(pages) => {
  for (const link of document.querySelectorAll("a.with-page")) {
    link.dataset.page = pages[link.getAttribute("href").slice(1)] ?? "000";
  }
}"""


def page_numbers(pdf: Path) -> dict[str, int]:
    """Return the page, from 1, of every name that is linked to in a PDF."""
    reader = PdfReader(pdf)
    index = {page.indirect_reference.idnum: i for i, page in enumerate(reader.pages, start=1)}
    return {
        name.removeprefix("/"): index[place.page.idnum]
        for name, place in reader.named_destinations.items()
    }


def print_pdf(browser: Browser, source: Path, target: Path) -> int:
    """Print a document twice, the second time with its page numbers; return how many it has."""
    page = browser.new_page(color_scheme="light", viewport={"width": 643, "height": 950})
    page.set_default_timeout(PRINTING)
    stay_inside(page)
    page.emulate_media(media="print")
    page.goto(source.as_uri())
    page.evaluate("() => document.fonts.ready.then(() => null)")
    page.evaluate(FIT)
    numbers: dict[str, int] = {}
    for _ in range(3):
        page.evaluate(NUMBER, numbers)
        page.pdf(
            path=target, prefer_css_page_size=True, print_background=True, tagged=True, outline=True
        )
        before, numbers = numbers, page_numbers(target)
        if numbers == before:
            break
    page.close()
    return len(PdfReader(target).pages)


def finish(pdf: Path) -> None:
    """Give the PDF its title and language, and store it compactly."""
    writer = PdfWriter(clone_from=pdf)
    writer.add_metadata({"/Title": settings()["title"], "/Creator": "", "/Producer": ""})
    writer.page_mode = "/UseOutlines"
    writer.compress_identical_objects()
    writer.write(pdf)


def write_work(pages: list[Sheet], folder: Path) -> Path:
    """Write the document and its images to be printed; return its path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for sheet in pages:
        for name, text in sheet.images.items():
            if isinstance(text, str):
                (folder / name).write_text(text, encoding="utf-8")
    text = document(pages, "../html")
    check_links(text)
    source = folder / "book.html"
    source.write_text(text, encoding="utf-8")
    return source


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    started = time.perf_counter()
    folder = book.build().parent
    names = [name for _, listed in parts() for name in listed]
    with chromium() as browser:
        pages = list(sheets(browser, folder, names, pictures=False))
        print(f"{len(pages)} pages of the book read", file=sys.stderr, flush=True)
        PDF.parent.mkdir(exist_ok=True)
        count = print_pdf(browser, write_work(pages, WORK), PDF)
    finish(PDF)
    size, seconds = PDF.stat().st_size / 1e6, time.perf_counter() - started
    print(f"{PDF}  {count} pages, {size:.1f} MB, in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
