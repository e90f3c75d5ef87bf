"""Chapters 7 and 9, appendix A: every policy on three responses is a point, and training moves it.

The point follows the gradient flow of a loss in three logits; in ``Triangle`` also that of two
parameters which the first two responses share. Nothing is sampled and no step is rough.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpo_lib.closed_form import kl_divergence, optimal_policy
from dpo_lib.losses import dpo_loss, naive_loss
from dpo_lib.preference import bradley_terry_probability
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Choice, Slider, Toggle, WidgetSpec, fmt

PAIRS = ((0, 1), (0, 2), (1, 2))
LOSSES = {"dpo": "DPO", "naive": "naive", "sft": "SFT"}
TIME = 0.2  # of one step; the rate is 1/β, so that all β start alike
# Two features of a response, as in chapter 10: the first two look alike, the third like neither.
FEATURES = ((1.0, 0.0), (1.6, 0.5), (0.0, 0.0))


class Triangle(BookWidget):
    """Appendix A: everything, on the two lines about rust; one pair is compared."""

    load = "near"

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return make_spec(
            "The triangle of all policies",
            names=("couplet", "jingle", "chemistry"),
            reference=(0.05, 0.55, 0.40),
            rewards=(2.0, 0.5, -0.5),
            losses=("dpo", "naive", "sft"),
            verdicts=("by reward", "not compared", "not compared"),
            share=True,
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say where each loss has taken the policy."""
        paths = {loss: path(values, loss)[-1].exp().tolist() for loss in values["losses"]}
        where = "; ".join(
            f"{LOSSES[loss]} {', '.join(fmt(p, 2) for p in policy)}"
            for loss, policy in paths.items()
        )
        steps, beta = values["steps"], fmt(values["beta"], 1)
        return f"After {steps} steps at β = {beta}, top, left and right: {where}."


class TriangleOptimum(Triangle):
    """Chapter 9: the level lines of the loss and the best policy."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return make_spec(
            "The loss on the triangle of all policies",
            names=("“4”", "“5”", "“I do not know.”"),
            reference=(0.5, 0.3, 0.2),
            rewards=(2.0, -1.0, 0.5),
            losses=("dpo",),
            verdicts=("by reward",) * 3,
            beta=1.0,
        )


class TriangleReference(Triangle):
    """Chapter 7: one start, two losses, no rewards; all labels are coin flips."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return make_spec(
            "With and without a reference",
            names=("“Paris.”", "“I do not know.”", "“Paris is is.”"),
            reference=(0.55, 0.42, 0.03),
            rewards=None,
            losses=("dpo", "naive"),
            verdicts=("coin flips",) * 3,
        )


def make_spec(
    title: str,
    names: tuple[str, str, str],
    reference: tuple[float, float, float],
    rewards: tuple[float, float, float] | None,
    losses: tuple[str, ...],
    verdicts: tuple[str, str, str],
    share: bool = False,
    beta: float = 0.5,
) -> WidgetSpec:
    """Describe a triangle; without rewards it shows neither π* nor what the losses are worth."""
    kinds = ["not compared", "first wins", "second wins", "coin flips"]
    kinds += [] if rewards is None else ["by reward"]
    choices = []
    for (i, j), verdict in zip(PAIRS, verdicts, strict=True):
        label = f"{names[i]} against {names[j]}"
        choices.append(Choice(f"pair_{i}{j}", label, tuple(kinds), verdict))
    alike = f"{names[0]} and {names[1]} look alike to the model"
    return WidgetSpec(
        kind="triangle",
        title=title,
        controls=(
            Slider("beta", "β", 0.1, 3.0, 0.1, beta, digits=1),
            *choices,
            *([Toggle("share", alike)] if share else []),
        ),
        data={"names": list(names), "kinds": kinds, "features": FEATURES, "pairs": PAIRS},
        state={
            "start": list(reference),
            "steps": 0,
            "reference": list(reference),
            "rewards": None if rewards is None else list(rewards),
            "losses": list(losses),
        },
    )


def verdict_weights(values: Mapping[str, Any]) -> Tensor:
    """How often i beats j, (3, 3), as a share of all comparisons."""
    verdicts = tuple(values[f"pair_{i}{j}"] for i, j in PAIRS)
    return _weights(verdicts, tuple(values["rewards"] or ()))


@functools.cache  # every step of a path asks
def _weights(verdicts: tuple[str, ...], rewards: tuple[float, ...]) -> Tensor:
    weights = torch.zeros(3, 3, dtype=torch.float64)
    for (i, j), verdict in zip(PAIRS, verdicts, strict=True):
        if verdict == "not compared":
            continue
        if verdict == "by reward":
            scores = torch.tensor(rewards, dtype=torch.float64)
            first = bradley_terry_probability(scores[i], scores[j]).item()
        else:
            first = {"first wins": 1.0, "second wins": 0.0, "coin flips": 0.5}[verdict]
        weights[i, j], weights[j, i] = first, 1 - first
    return weights / weights.sum().clamp(min=1)


def loss_value(values: Mapping[str, Any], loss: str, logps: Tensor) -> Tensor:
    """Mean loss (nats) of the comparisons at a policy ``(3,)``; 0 if nothing is compared."""
    weights = verdict_weights(values)
    reference = torch.tensor(values["reference"], dtype=torch.float64).log()
    won, lost = torch.triu_indices(3, 3, 1).tolist()
    won, lost = won + lost, lost + won
    if loss == "sft":
        losses = -logps[won]
    else:
        function = {"dpo": dpo_loss, "naive": naive_loss}[loss]
        pairs = logps[won], logps[lost], reference[won], reference[lost]
        losses = function(*pairs, beta=values["beta"]).losses
    return (weights[won, lost] * losses).sum()


def path(values: Mapping[str, Any], loss: str) -> Tensor:
    """Log-probabilities (steps + 1, 3) of the gradient flow from the start, by Runge–Kutta."""
    features = torch.tensor(FEATURES, dtype=torch.float64)
    kernel = features @ features.T if values.get("share") else torch.eye(3, dtype=torch.float64)
    rate = 1.0 if loss == "sft" else 1 / values["beta"]

    def velocity(logits: Tensor) -> Tensor:
        logits = logits.clone().requires_grad_()
        value = loss_value(values, loss, logits.log_softmax(dim=0))
        (gradient,) = torch.autograd.grad(value, logits)
        return -rate * kernel @ gradient

    logits = torch.tensor(values["start"], dtype=torch.float64).log()
    points = [logits.log_softmax(dim=0)]
    for _ in range(values["steps"]):
        a = velocity(logits)
        b = velocity(logits + TIME / 2 * a)
        c = velocity(logits + TIME / 2 * b)
        d = velocity(logits + TIME * c)
        logits = logits + TIME / 6 * (a + 2 * b + 2 * c + d)
        points.append(logits.log_softmax(dim=0))
    return torch.stack(points)


def numbers(values: Mapping[str, Any], loss: str) -> dict[str, Any]:
    """What the table shows of one loss: probabilities, rewards, loss and KL at the path's end."""
    return numbers_at(values, loss, path(values, loss)[-1])


def numbers_at(values: Mapping[str, Any], loss: str, logps: Tensor) -> dict[str, Any]:
    """The same at a policy ``(3,)``."""
    reference = torch.tensor(values["reference"], dtype=torch.float64).log()
    return {
        "probabilities": logps.exp().tolist(),
        "rewards": (values["beta"] * (logps - reference)).tolist(),
        "loss": loss_value(values, loss, logps).item(),
        "kl": kl_divergence(logps, reference).item(),
    }


def best(values: Mapping[str, Any]) -> list[float]:
    """Probabilities of π* under the rewards."""
    reference = torch.tensor(values["reference"], dtype=torch.float64).log()
    return optimal_policy(reference, values["rewards"], values["beta"]).exp().tolist()
