"""Chapter 7 and appendix A: the optimal policy π* over a handful of responses, against β."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from dpo_lib.closed_form import kl_divergence, optimal_policy, rlhf_objective
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import LogSlider, Slider, WidgetSpec, fmt

PROMPT = "What is the capital of France?"
RESPONSES = {  # text: probability under the reference, true reward in the tiny world
    "Paris.": (0.35, 2.0),
    "The capital of France is Paris.": (0.10, 2.5),
    "I do not know.": (0.30, -0.25),
    "Lyon.": (0.24, -0.5),
    "Paris is is.": (0.01, -1.0),
}
REFERENCE = tuple(probability for probability, _ in RESPONSES.values())
REWARDS = tuple(reward for _, reward in RESPONSES.values())


class Optimum(NamedTuple):
    """What the widget shows."""

    probabilities: list[float]  # of π*, in the order of RESPONSES
    kl: float  # of π* from the reference (nats)
    reward: float  # expected under π*
    objective: float  # reward − β·kl, the best that any policy reaches


class OptimalPolicy(BookWidget):
    """A β slider; π* moves from the reference (large β) to the best response (small β)."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="optimal_policy",
            title="The optimal policy π* against β",
            controls=(LogSlider("beta", "β", -2.0, 2.0, 0.05, 1.0),),
            data={
                "responses": list(RESPONSES),
                "reference": list(REFERENCE),
                "rewards": list(REWARDS),
            },
        )

    @staticmethod
    def describe(values: Mapping[str, float]) -> str:
        """Say the likeliest response, the distance from the reference and the reward."""
        best = optimum(values)
        top = max(range(len(RESPONSES)), key=best.probabilities.__getitem__)
        return (
            f"At β = {fmt(values['beta'], 2)} the likeliest is “{[*RESPONSES][top]}” with "
            f"{fmt(best.probabilities[top], 3)}. KL is {fmt(best.kl, 3)}, the expected reward "
            f"{fmt(best.reward, 3)}."
        )


class OptimalPolicyRewards(OptimalPolicy):
    """The same with a slider for the reward of each response."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        spec = OptimalPolicy.build_spec()
        sliders = [
            Slider(f"r_{i}", f"r of “{text}”", -3.0, 3.0, 0.25, reward, color="accent")
            for i, (text, (_, reward)) in enumerate(RESPONSES.items())
        ]
        return WidgetSpec(
            kind=spec.kind,
            title="The optimal policy π* against rewards and β",
            controls=(*spec.controls, *sliders),
            data=spec.data,
        )


def optimum(values: Mapping[str, float]) -> Optimum:
    """The optimal policy at ``beta``, for the rewards ``r_0``, ``r_1``, … where given."""
    rewards = torch.tensor(
        [values.get(f"r_{i}", reward) for i, reward in enumerate(REWARDS)], dtype=torch.float64
    )
    reference = torch.tensor(REFERENCE, dtype=torch.float64).log()
    policy = optimal_policy(reference, rewards, values["beta"])
    return Optimum(
        policy.exp().tolist(),
        kl_divergence(policy, reference).item(),
        (policy.exp() * rewards).sum().item(),
        rlhf_objective(policy, reference, rewards, values["beta"]).item(),
    )
