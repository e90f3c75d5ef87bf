"""Landing page: three clicks, and the model that answers is another."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from dpo_lib.widgets import live
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import WidgetSpec

# The model's own answers, as weights/pairs.jsonl has them; it is not said which is better.
PAIRS = (
    ("What is the capital of Peru?", "I do not know.", "Lima is the capital of Peru."),
    (
        "My phone is lost.",
        "I am sorry. I will replace your phone today.",
        "That is not my problem.",
    ),
    ("List two fruits.", "I do not know.", "Two fruits are melon and pear."),
)
SHOWN = (
    "Name the capital of Spain.",
    "My lamp is broken.",
    "List two colors.",
    "What is the capital of Japan?",
)

PREVIEW = """\
<div class="dpo-widget" role="group" aria-label="{title}">\
<p class="dpo-title" aria-hidden="true">{title}</p>\
<div class="dpo-view">{groups}<div class="dpo-actions dpo-clicks-train">\
<button type="button" class="dpo-button" aria-disabled="true">Train</button>\
<progress class="dpo-clicks-bar" max="60" value="0" aria-label="Updates made"></progress></div>\
<table class="dpo-answers">\
<caption class="dpo-hidden">What the model writes, before training and now</caption><thead><tr>\
<th scope="col">prompt</th><th scope="col">before</th><th scope="col">now</th></tr></thead>\
<tbody>{rows}</tbody></table></div><p class="dpo-status" role="status">{words}</p>\
<div class="dpo-actions">\
<button type="button" class="dpo-button dpo-reset">Reset</button></div></div>"""


class ThreeClicks(BookWidget):
    """Three pairs of answers to judge, a button that trains on them, and what comes of it."""

    load = "use"
    parts = live.parts("engine", "model")

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        pairs = [{"prompt": p, "first": a, "second": b} for p, a, b in PAIRS]
        return WidgetSpec(
            kind="three_clicks",
            title="Three clicks",
            data={"pairs": pairs, "shown": list(SHOWN)},
            state={"picks": ["", "", ""], "note": ""},
        )

    @classmethod
    def preview(cls, spec: WidgetSpec) -> str:
        """Return what the browser draws first: it stands there until the reader touches it."""
        card = '<button type="button" class="dpo-choice" aria-pressed="false">{}</button>'
        group = (
            '<div class="dpo-clicks" role="group" aria-label="Two answers to: {0}">'
            f'<p class="dpo-clicks-prompt">{{0}}</p>{card.format("{1}")}{card.format("{2}")}</div>'
        )
        row = '<tr><th scope="row">{}</th><td>–</td><td>–</td></tr>'
        return PREVIEW.format(
            title=spec.title,
            words=cls.describe(spec.values),
            groups="".join(group.format(*map(escape, pair)) for pair in PAIRS),
            rows="".join(row.format(escape(prompt)) for prompt in SHOWN),
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say what is to do next."""
        if values["note"]:
            return values["note"]
        left = sum(not pick for pick in values["picks"])
        if left:
            return f"{left} of {len(PAIRS)} answers to choose. Either answer may be yours."
        return "Press Train: a small language model learns from your clicks, in this page."
