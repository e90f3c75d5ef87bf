"""Chapter 9: the reader writes the loss, it is checked, and it trains the tiny model."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from dpo_lib.losses import dpo_loss, naive_loss
from dpo_lib.widgets import live
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import WidgetSpec

START = """\
import math

def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    # Log-probabilities of one pair, in nats.
    # log_sigmoid(x) and sigmoid(x) are there for you.
    return rejected - chosen
"""
# Policy chosen, policy rejected, reference chosen, reference rejected, beta.
CASES = {
    "at the start, where the policy is the reference": (-10.0, -4.0, -10.0, -4.0, 0.1),
    "a pair that moved the right way": (-2.1, -4.5, -3.0, -3.2, 0.1),
    "the same pair at another beta": (-2.1, -4.5, -3.0, -3.2, 1.0),
    "a pair that moved the wrong way": (-6.0, -4.0, -5.0, -4.5, 0.5),
    "a long response that the reference finds unlikely": (-80.0, -9.0, -90.0, -7.0, 0.3),
    "a gap so large that exp overflows": (-2000.0, -1.0, -1.0, -2000.0, 1.0),
}


def _mistakes(case: tuple[float, ...]) -> dict[str, float]:
    """What the common mistakes give in this case."""
    chosen, rejected, reference_chosen, reference_rejected, beta = case
    swapped = dpo_loss(rejected, chosen, reference_rejected, reference_chosen, beta)
    crossed = dpo_loss(chosen, rejected, reference_rejected, reference_chosen, beta)
    return {
        "sign": swapped.losses.item(),
        "reference": naive_loss(*case).losses.item(),
        "crossed": crossed.losses.item(),
        "beta": dpo_loss(*case[:4], 1.0).losses.item(),
        "minus": -dpo_loss(*case).losses.item(),
    }


@functools.cache
def cases() -> list[dict[str, Any]]:
    """The checks: numbers, the loss that `dpo_lib.dpo_loss` gives, and what mistakes give."""
    return [
        {
            "name": name,
            "numbers": list(case),
            "loss": dpo_loss(*case).losses.item(),
            "mistakes": _mistakes(case),
        }
        for name, case in CASES.items()
    ]


class WriteTheLoss(BookWidget):
    """An editor for the loss of one pair; what is written is checked, then used to train."""

    load = "near"
    parts = live.parts("engine", "model", "python")

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        shown = ["What is the capital of France?", "My order is late.", "List two colors."]
        return WidgetSpec(
            kind="write_the_loss",
            title="Write the loss",
            data={"cases": cases(), "shown": shown},
            state={"code": START, "note": ""},
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say what came of the last press, or what is to do."""
        return values["note"] or (
            "Complete the function, press Check, then Train: the model in this page follows your "
            "loss, right or wrong."
        )
