"""Appendix D: losses on one margin, their slopes, and where each is least."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from dpo_lib.closed_form import optimal_margin
from dpo_lib.losses import LOSSES, PreferenceLoss, dpo_loss
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Choice, Slider, Toggle, WidgetSpec, fmt


class Family(NamedTuple):
    """A loss as the widget shows it."""

    loss: Callable[..., PreferenceLoss]
    group: int  # in GROUPS
    smoothed: bool = False  # takes ε as label_smoothing
    scaled: bool = False  # drawn times τ², which moves no optimum
    gap_alone: bool = False  # sees h alone and is convex, so it has a best margin
    times: float = 1.0  # what its β is multiplied by
    options: Mapping[str, float] = MappingProxyType({})


GROUPS = ("on the gap", "length", "each response alone", "other divergences", "with likelihood")

FAMILIES = {
    "DPO": Family(dpo_loss, 0, gap_alone=True),
    "cDPO": Family(dpo_loss, 0, smoothed=True, gap_alone=True),
    "robust DPO": Family(LOSSES["robust_dpo"], 0, smoothed=True, gap_alone=True),
    "IPO, times τ²": Family(LOSSES["ipo"], 0, scaled=True, gap_alone=True),
    "hinge": Family(LOSSES["hinge"], 0, gap_alone=True),
    "naive": Family(LOSSES["naive"], 0),
    "ODPO, Δ = 1": Family(LOSSES["odpo"], 0, options={"offset": 1.0}),
    "R-DPO, α = ½": Family(LOSSES["r_dpo"], 1, options={"alpha": 0.5}),
    "DPO per token, 8β": Family(LOSSES["length_normalized_dpo"], 1, times=8.0),
    "IPO per token, times τ²": Family(LOSSES["ipo_per_token"], 1, scaled=True),
    "SimPO, 8β": Family(LOSSES["simpo"], 1, times=8.0),
    "KTO, level 0": Family(LOSSES["kto"], 2, options={"kl": 0.0}),
    "APO-zero": Family(LOSSES["apo_zero"], 2),
    "APO-down": Family(LOSSES["apo_down"], 2),
    "BCO": Family(LOSSES["bco"], 2),
    "NCA": Family(LOSSES["nca"], 2),
    "SPPO, times β²": Family(LOSSES["sppo"], 2, scaled=True),
    "Cal-DPO, times β²": Family(LOSSES["cal_dpo"], 2, scaled=True),
    "forward KL": Family(LOSSES["forward_kl_dpo"], 3),
    "Jensen–Shannon": Family(LOSSES["js_dpo"], 3),
    "α-divergence, ½": Family(LOSSES["alpha_dpo"], 3, options={"order": 0.5}),
    "χPO": Family(LOSSES["chi_po"], 3),
    "SFT": Family(LOSSES["sft"], 4),
    "RPO": Family(LOSSES["rpo"], 4),
    "MPO": Family(LOSSES["mpo"], 4),
    "ORPO": Family(LOSSES["orpo"], 4),
    "WPO": Family(LOSSES["wpo"], 4),
    "DPOP, λ = 5": Family(LOSSES["dpop"], 2, options={"penalty": 5.0}),
}
"""Every loss: log π is −12 under the reference, the chosen is raised and the rejected lowered by
h/2, and the responses have 10 and 6 tokens."""


class LossFamily(BookWidget):
    """Choose a loss, β, ε and how often the label is right; see where the loss pulls h."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="loss_family",
            title="One margin, all losses",
            controls=(
                Choice("loss", "Loss", tuple(FAMILIES), "cDPO"),
                Slider("beta", "β (for IPO: τ)", 0.1, 1.0, 0.05, 0.5, color="policy"),
                Slider("epsilon", "ε (cDPO and robust DPO)", 0.0, 0.45, 0.05, 0.1),
                Slider("p", "Label probability p", 0.0, 1.0, 0.05, 0.9, color="chosen"),
                *(Toggle(f"group_{i}", f"Show: {name}", i == 0) for i, name in enumerate(GROUPS)),
            ),
            data={"groups": [family.group for family in FAMILIES.values()], "names": [*GROUPS]},
        )

    @staticmethod
    def describe(values: Mapping[str, object]) -> str:
        """Say the loss, its pull at the start and its best margin."""
        name, beta, p = str(values["loss"]), float(values["beta"]), float(values["p"])
        if not FAMILIES[name].gap_alone:
            return (
                f"{name} at β = {fmt(beta, 2)}, one label of a pair whose chosen response is "
                f"raised and whose rejected one is lowered alike."
            )
        best = optimum(name, beta, float(values["epsilon"]), p)
        where = fmt(best, 2) if math.isfinite(best) else "−∞" if best < 0 else "∞"
        return (
            f"{name} at β = {fmt(beta, 2)}, labels right with p = {fmt(p, 2)}: "
            f"the best margin h* is {where}, where σ(βh*) is {fmt(_sigmoid(beta * best), 3)}."
        )


def optimum(name: str, beta: float, epsilon: float, p: float) -> float:
    """The margin of least expected loss of a loss on h alone, infinite where there is none."""
    family = FAMILIES[name]
    options = {"label_smoothing": epsilon} if family.smoothed else {}
    return _optimum(family.loss, p, beta, **options)


@functools.cache
def _optimum(loss: Callable[..., PreferenceLoss], p: float, beta: float, **options: float) -> float:
    return optimal_margin(loss, p, beta, **options).item()


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
