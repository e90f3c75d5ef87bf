"""Chapter 9: three probabilities moved by hand, and how far J stays below its ceiling β log Z."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from dpo_lib.closed_form import kl_divergence, log_partition, optimal_policy, rlhf_objective
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Slider, WidgetSpec, fmt

RESPONSES = {  # text: probability under the reference, reward
    "“4”": (0.5, 2.0),
    "“5”": (0.3, -1.0),
    "“I do not know.”": (0.2, 0.5),
}
REFERENCE = tuple(probability for probability, _ in RESPONSES.values())
REWARDS = tuple(reward for _, reward in RESPONSES.values())


class Parts(NamedTuple):
    """What the widget shows: reward − leash = objective = ceiling − gap."""

    policy: list[float]
    best: list[float]  # π*
    reward: float  # E[r]
    leash: float  # β KL(π ‖ π_ref)
    objective: float  # J
    ceiling: float  # β log Z
    gap: float  # β KL(π ‖ π*)


class Objective(BookWidget):
    """Sliders for a policy over three responses; J on its hill, below the line β log Z."""

    load = "near"

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        first, second, third = RESPONSES
        share = f"of the rest, to {second}"
        return WidgetSpec(
            kind="objective",
            title="The best policy by hand",
            controls=(
                Slider("first", f"probability of {first}", 0.01, 0.99, 0.01, 0.5, color="policy"),
                Slider("share", share, 0.01, 0.99, 0.01, 0.6, color="policy"),
                Slider("beta", "β", 0.2, 2.0, 0.1, 1.0, digits=1),
            ),
            data={
                "responses": [first, second, third],
                "reference": list(REFERENCE),
                "rewards": list(REWARDS),
            },
        )

    @staticmethod
    def describe(values: Mapping[str, float]) -> str:
        """Say the policy, J and what it lacks to the ceiling."""
        now = parts(values)
        policy = ", ".join(fmt(p, 3) for p in now.policy)
        return (
            f"With {policy}, J is {fmt(now.objective, 3)}. The ceiling is "
            f"{fmt(now.ceiling, 3)}, and the gap, β KL(π ‖ π*), is {fmt(now.gap, 3)}."
        )


def parts(values: Mapping[str, float]) -> Parts:
    """Both ways to write J for the policy that the sliders give, each term from the library."""
    first, share, beta = values["first"], values["share"], values["beta"]
    rest = 1 - first
    policy = torch.tensor([first, rest * share, rest * (1 - share)], dtype=torch.float64)
    reference = torch.tensor(REFERENCE, dtype=torch.float64).log()
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    best, logps = optimal_policy(reference, rewards, beta), policy.log()
    return Parts(
        policy.tolist(),
        best.exp().tolist(),
        (policy @ rewards).item(),
        beta * kl_divergence(logps, reference).item(),
        rlhf_objective(logps, reference, rewards, beta).item(),
        beta * log_partition(reference, rewards, beta).item(),
        beta * kl_divergence(logps, best).item(),
    )
