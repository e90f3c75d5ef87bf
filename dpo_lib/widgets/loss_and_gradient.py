"""Chapter 3: the loss of a preference and the slope that training follows."""

from __future__ import annotations

from collections.abc import Mapping

from dpo_lib.preference import bradley_terry_probability, preference_nll
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Slider, WidgetSpec, fmt


class LossAndGradient(BookWidget):
    """A slider for the score gap; −log P and 1 − P with their tangents and slopes."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="loss_and_gradient",
            title="Two losses and how hard they pull",
            controls=(Slider("delta", "Score gap Δr = r_w − r_l", -8.0, 8.0, 0.1, 1.7),),
        )

    @staticmethod
    def describe(values: Mapping[str, float]) -> str:
        """Say both losses and both slopes at the gap."""
        gap = values["delta"]
        probability = bradley_terry_probability(gap, 0.0).item()
        complement = bradley_terry_probability(0.0, gap).item()
        loss = preference_nll(gap, 0.0).item()
        return (
            f"At a gap of {fmt(gap, 2)}, P is {fmt(probability, 4)}. "
            f"The loss −log P is {fmt(loss, 4)} with slope {fmt(-complement, 4)}; "
            f"1 − P is {fmt(complement, 4)} with slope {fmt(-probability * complement, 4)}."
        )
