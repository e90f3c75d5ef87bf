"""Chapter 8: what the naive reward and the DPO reward say of one pair."""

from __future__ import annotations

from collections.abc import Mapping

from dpo_lib.preference import bradley_terry_probability
from dpo_lib.rewards import dpo_reward, naive_reward
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Slider, WidgetSpec, fmt

TIE = 1e-9  # rewards closer than this are equal: their difference is rounding
EXAMPLES = {  # winner's and loser's log π, winner's and loser's log π_ref
    "Length": (-0.735, -0.210, -0.750, -0.200),
    "Same policy": (-0.750, -0.200, -0.750, -0.200),
    "“Paris” and “the”": (-0.105, -0.0408, -0.916, -0.0513),
}


class Verdicts(BookWidget):
    """Four log-probabilities and β; the verdict of either reward."""

    load = "near"

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        policy_w, policy_l, reference_w, reference_l = EXAMPLES["Length"]
        step = 0.0001

        def log_prob(name: str, label: str, value: float, color: str) -> Slider:
            return Slider(name, label, -1.2, 0, step, value, digits=4, color=color)

        return WidgetSpec(
            kind="verdicts",
            title="One pair, two rewards",
            controls=(
                log_prob("policy_w", "Winner: log π", policy_w, "chosen"),
                log_prob("reference_w", "Winner: log π_{ref}", reference_w, "reference"),
                log_prob("policy_l", "Loser: log π", policy_l, "rejected"),
                log_prob("reference_l", "Loser: log π_{ref}", reference_l, "reference"),
                Slider("beta", "β", 0.01, 1.0, 0.01, 0.1, digits=2),
            ),
            data={"examples": [[name, *values] for name, values in EXAMPLES.items()]},
        )

    @staticmethod
    def describe(values: Mapping[str, float]) -> str:
        """Say both verdicts and the probability that follows from the DPO rewards."""
        winner, loser = (naive_reward(values[f"policy_{side}"]).item() for side in "wl")
        rewards = [
            dpo_reward(values[f"policy_{side}"], values[f"reference_{side}"], values["beta"]).item()
            for side in "wl"
        ]
        probability = bradley_terry_probability(*rewards).item()
        return (
            f"log π {verdict(winner - loser)}. The DPO reward {verdict(rewards[0] - rewards[1])}: "
            f"{fmt(rewards[0], 4)} against {fmt(rewards[1], 4)}, P = {fmt(probability, 4)}."
        )


def verdict(gap: float) -> str:
    """Which of the two a difference of rewards prefers."""
    if abs(gap) <= TIE:
        return "ties"
    return f"prefers the {'winner' if gap > 0 else 'loser'}"
