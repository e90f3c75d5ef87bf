"""Landing page: three clicks, and the model that answers is another."""

from __future__ import annotations

from collections.abc import Mapping
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


class ThreeClicks(BookWidget):
    """Three pairs of answers to judge, a button that trains on them, and what comes of it."""

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

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say what is to do next."""
        if values["note"]:
            return values["note"]
        left = sum(not pick for pick in values["picks"])
        if left:
            return f"{left} of {len(PAIRS)} answers to choose. Either answer may be yours."
        return "Press Train: a small language model learns from your clicks, in this page."
