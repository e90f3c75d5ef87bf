"""Appendix D: losses on one margin, their slopes, and where each is least."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dpo_lib.closed_form import optimal_margin
from dpo_lib.losses import PreferenceLoss, dpo_loss, hinge_loss, ipo_loss, robust_dpo_loss
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Choice, Slider, WidgetSpec, fmt


class Family(NamedTuple):
    """A loss as the widget shows it."""

    loss: Callable[..., PreferenceLoss]
    smoothed: bool = False  # takes ε as label_smoothing
    scaled: bool = False  # drawn times τ², which moves no optimum


FAMILIES = {
    "DPO": Family(dpo_loss),
    "cDPO": Family(dpo_loss, smoothed=True),
    "robust DPO": Family(robust_dpo_loss, smoothed=True),
    "IPO, times τ²": Family(ipo_loss, scaled=True),
    "hinge": Family(hinge_loss),
}


class LossFamily(BookWidget):
    """Choose a loss, β, ε and how often the label is right; see where the loss pulls h."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="loss_family",
            title="One margin, five losses",
            controls=(
                Choice("loss", "Loss", tuple(FAMILIES), "cDPO"),
                Slider("beta", "β (for IPO: τ)", 0.1, 1.0, 0.05, 0.5, color="policy"),
                Slider("epsilon", "ε (cDPO and robust DPO)", 0.0, 0.45, 0.05, 0.1),
                Slider("p", "Label probability p", 0.0, 1.0, 0.05, 0.9, color="chosen"),
            ),
        )

    @staticmethod
    def describe(values: Mapping[str, object]) -> str:
        """Say the loss, its pull at the start and its best margin."""
        name, beta, p = str(values["loss"]), float(values["beta"]), float(values["p"])
        best = optimum(name, beta, float(values["epsilon"]), p)
        where = fmt(best, 2) if math.isfinite(best) else "−∞" if best < 0 else "∞"
        return (
            f"{name} at β = {fmt(beta, 2)}, labels right with p = {fmt(p, 2)}: "
            f"the best margin h* is {where}, where σ(βh*) is {fmt(_sigmoid(beta * best), 3)}."
        )


def optimum(name: str, beta: float, epsilon: float, p: float) -> float:
    """The margin of least expected loss, infinite where there is none."""
    family = FAMILIES[name]
    options = {"label_smoothing": epsilon} if family.smoothed else {}
    return _optimum(family.loss, p, beta, **options)


@functools.cache
def _optimum(loss: Callable[..., PreferenceLoss], p: float, beta: float, **options: float) -> float:
    return optimal_margin(loss, p, beta, **options).item()


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
