"""Chapter 9: four log-probabilities and β become rewards, a margin, a loss and its slopes."""

from __future__ import annotations

from collections.abc import Mapping

from dpo_lib.losses import dpo_loss
from dpo_lib.preference import bradley_terry_probability
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Slider, WidgetSpec, fmt

NAMES = ("p_w", "p_l", "ref_w", "ref_l", "beta")
EXAMPLES = {  # values of NAMES
    "2+2, at the start": (-1.0, -2.0, -1.0, -2.0, 0.1),
    "2+2, after a step": (-0.8, -2.5, -1.0, -2.0, 0.1),
    "Customer support": (-2.1, -4.5, -3.0, -3.2, 0.1),
    "Capital of France": (-10.0, -15.0, -12.0, -14.0, 0.1),
}


class DPOCalculator(BookWidget):
    """The DPO loss of one pair, number by number, and its place on the loss curve."""

    load = "near"  # no other widget of its page needs the drawing code at once

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        low, high, step = -20.0, 0.0, 0.1
        p_w, p_l, ref_w, ref_l, beta = EXAMPLES["2+2, at the start"]
        return WidgetSpec(
            kind="dpo_calculator",
            title="The DPO calculator",
            controls=(
                Slider("p_w", "Chosen: log π_θ", low, high, step, p_w, 1, color="chosen"),
                Slider("ref_w", "Chosen: log π_{ref}", low, high, step, ref_w, 1, color="chosen"),
                Slider("p_l", "Rejected: log π_θ", low, high, step, p_l, 1, color="rejected"),
                Slider(
                    "ref_l", "Rejected: log π_{ref}", low, high, step, ref_l, 1, color="rejected"
                ),
                Slider("beta", "β", 0.01, 1.0, 0.01, beta),
            ),
            data={
                "examples": [
                    {"name": name, "values": dict(zip(NAMES, values, strict=True))}
                    for name, values in EXAMPLES.items()
                ]
            },
        )

    @staticmethod
    def describe(values: Mapping[str, float]) -> str:
        """Say both rewards, the margin, the probability, the loss and the pull."""
        logps = [values[name] for name in NAMES[:4]]
        loss, chosen, rejected = (value.item() for value in dpo_loss(*logps, values["beta"]))
        pull = values["beta"] * bradley_terry_probability(rejected, chosen).item()
        return (
            f"The rewards are {fmt(chosen, 3)} and {fmt(rejected, 3)}, so z is "
            f"{fmt(chosen - rejected, 3)}, P is "
            f"{fmt(bradley_terry_probability(chosen, rejected).item(), 4)} and the loss "
            f"{fmt(loss, 4)}. The pull βσ(−z) is {fmt(pull, 4)}."
        )
