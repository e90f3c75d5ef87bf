"""What there is to do in the book, read from its notebooks, and the widget that shows it.

The directive ``{what-i-have-done}`` stands for the widget `dpo_lib.widgets.Done` with every
exercise, quiz and bet of the chapters and the appendices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from docutils import nodes
from dpo_contents import APPENDICES, CHAPTERS, NOTEBOOKS
from dpo_times import cells_of, exercises
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from dpo_lib.widgets import Done

SPEC = re.compile(r'<script type="application/json">(.*?)</script>', re.DOTALL)
TITLE = re.compile(r"^# (?:Appendix \w: )?(.+)$", re.MULTILINE)
OF_A_BET = ("name", "form", "truth", "digits", "unit", "min", "max", "step", "x", "options", "rows")
NAMES = {page: f"Chapter {number}" for number, page in CHAPTERS.items()} | {
    page: f"Appendix {letter.upper()}" for letter, page in APPENDICES.items()
}


def specs(page: str) -> Iterator[dict[str, Any]]:
    """Yield the widgets of a notebook as its stored outputs describe them."""
    for cell in cells_of(page):
        for output in cell.get("outputs", []):
            for found in SPEC.findall("".join(output.get("data", {}).get("text/html", ""))):
                yield json.loads(found)


def title_of(page: str) -> str:
    """Return the title of a notebook without the letter of an appendix."""
    return TITLE.search("".join(cells_of(page)[0]["source"]))[1]


def inventory(href: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return what there is in each notebook, in order; ``href`` gives the link to a page.

    A bet that is placed in one chapter and scored in a later one stands where it is placed, with
    the truth that the later one knows.
    """
    chapters: list[dict[str, Any]] = []
    bets: dict[str, dict[str, Any]] = {}
    for page in NOTEBOOKS:
        chapter: dict[str, Any] = {"name": NAMES[page], "title": title_of(page), "bets": []}
        chapter["exercises"] = [
            {
                "key": exercise.key,
                "title": exercise.title.replace("$", ""),
                "minutes": exercise.minutes,
                "href": f"{href(page)}#{exercise.label}",
            }
            for exercise in exercises(page)
        ]
        for spec in specs(page):
            data = spec["data"]
            if spec["kind"] == "quiz":
                asked = len(data["questions"])
                link = f"{href(page)}#check-yourself"
                chapter["quiz"] = {"chapter": data["chapter"], "questions": asked, "href": link}
            elif spec["kind"] == "annotator":
                chapter["clicks"] = {"href": href(page)}
            elif spec["kind"] == "bet" and data["name"] in bets:
                bets[data["name"]]["truth"] = data["truth"]
            elif spec["kind"] == "bet":
                bet = {key: data[key] for key in OF_A_BET if key in data}
                if "rows" in bet:  # only how many there are is needed here
                    bet["rows"] = [""] * len(bet["rows"])
                bet["href"] = href(page)
                bet["title"] = spec["title"].removeprefix("Your bet: ")
                bets[bet["name"]] = bet
                chapter["bets"].append(bet)
        chapters.append(chapter)
    return chapters


class WhatIHaveDone(SphinxDirective):
    """The widget, with this book's list."""

    def run(self) -> list[nodes.Node]:
        """Return its placeholder."""
        builder = self.env.app.builder
        spec = Done.spec_of(
            inventory(lambda page: builder.get_relative_uri(self.env.docname, page))
        )
        return [nodes.raw("", Done.static_html(spec), format="html")]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("what-i-have-done", WhatIHaveDone)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
