"""Chapter 6: the summed log-probability of a long and of a short answer."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dpo_lib.rewards import naive_reward
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Slider, WidgetSpec, fmt

TIE = 1e-9  # scores closer than this are equal: their difference is rounding


class LengthRace(BookWidget):
    """Length and token probability of two answers; their scores, and where the order flips."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="length_race",
            title="Two answers, scored by log π",
            controls=(
                Slider("n_w", "Winner: tokens", 0, 12, 1, 7, digits=0, color="chosen"),
                Slider("p_w", "Winner: p of each token", 0.8, 0.99, 0.01, 0.9, color="chosen"),
                Slider("n_l", "Loser: tokens", 0, 12, 1, 2, digits=0, color="rejected"),
                Slider("p_l", "Loser: p of each token", 0.8, 0.99, 0.01, 0.9, color="rejected"),
            ),
        )

    @staticmethod
    def describe(values: Mapping[str, float]) -> str:
        """Say both scores, the verdict, and the length at which it flips."""
        winner, loser, flip = race(values["n_w"], values["p_w"], values["n_l"], values["p_l"])
        gap = winner - loser
        verdict = "cannot tell them apart"
        if abs(gap) > TIE:
            verdict = f"prefers the {'winner' if gap > 0 else 'loser'}"
        return (
            f"The winner scores {fmt(winner, 3)} and the loser {fmt(loser, 3)}, so log π "
            f"{verdict}. The scores are equal at a winner of {fmt(flip, 2)} tokens."
        )


def race(n_w: float, p_w: float, n_l: float, p_l: float) -> tuple[float, float, float]:
    """Both naive rewards (nats), and the winner's length at which they are equal."""
    winner = naive_reward(n_w * math.log(p_w)).item()
    loser = naive_reward(n_l * math.log(p_l)).item()
    return winner, loser, loser / math.log(p_w)
