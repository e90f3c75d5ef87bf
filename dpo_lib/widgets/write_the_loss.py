"""Chapter 9: the reader writes the loss, it is checked, and it trains the tiny model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpo_lib.exercises import diagnosis
from dpo_lib.exercises.sheet import read_sheet
from dpo_lib.widgets import live
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import WidgetSpec

START = """\
import math

def dpo_loss(
    chosen, rejected,
    ref_chosen, ref_rejected,
    beta,
):
    # One pair, in nats.
    # log_sigmoid(x) and
    # sigmoid(x) are there.
    return rejected - chosen
"""
NUMBER = "9.2"  # the exercise that it is, whose cases and words serve here


class WriteTheLoss(BookWidget):
    """An editor for the loss of one pair; what is written is checked, then used to train."""

    load = "near"
    parts = live.parts("engine", "model", "python", "exercises")

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        cases = [
            f"{case['what']} ({', '.join(map(diagnosis.show, case['arguments']))})"
            for case in read_sheet(NUMBER)["cases"]
        ]
        shown = ["What is the capital of France?", "My order is late.", "List two colors."]
        return WidgetSpec(
            kind="write_the_loss",
            title="Write the loss",
            data={"number": NUMBER, "cases": cases, "shown": shown},
            state={"code": START, "note": ""},
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say what came of the last press, or what is to do."""
        return values["note"] or (
            "Complete the function, press Check, then Train: the model in this page follows your "
            "loss, right or wrong."
        )
