"""Chapter 2: two scores become a probability."""

from __future__ import annotations

from collections.abc import Mapping

from dpo_lib.preference import bradley_terry_probability
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Slider, WidgetSpec, fmt


class ScoreSigmoid(BookWidget):
    """Two score sliders, a shift of both, and the sigmoid with a moving point."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="score_sigmoid",
            title="Two scores become a probability",
            controls=(
                Slider("r_w", "Winner's score r_w", -4.0, 4.0, 0.1, 2.5, color="chosen"),
                Slider("r_l", "Loser's score r_l", -4.0, 4.0, 0.1, 0.8, color="rejected"),
                Slider("shift", "Shift both scores by c", -3.0, 3.0, 0.1, 0.0),
            ),
        )

    @staticmethod
    def describe(values: Mapping[str, float]) -> str:
        """Say the scores, the gap and the probability."""
        winner = values["r_w"] + values["shift"]
        loser = values["r_l"] + values["shift"]
        probability = bradley_terry_probability(values["r_w"], values["r_l"]).item()
        return (
            f"The winner scores {fmt(winner, 2)} and the loser {fmt(loser, 2)}. "
            f"The gap is {fmt(values['r_w'] - values['r_l'], 2)}, so the winner is preferred "
            f"with probability {fmt(probability, 4)}."
        )
