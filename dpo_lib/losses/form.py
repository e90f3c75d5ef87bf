"""The one form of all losses: four log-probabilities in, unreduced losses and rewards out.

A formula takes the two quantities that it compares, checked and as tensors, and returns one loss
for each pair. The decorators give it the public form, and check what comes in.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from dpo_lib._validation import (
    as_float_tensor,
    check_finite,
    check_label_smoothing,
    check_paired_log_probs,
    check_positive,
    check_same_shape,
    refuse,
)
from dpo_lib.losses.dpo import PreferenceLoss

Lengths: TypeAlias = Tensor | int
"""Scored tokens of each response, at least 1, in the shape of the log-probabilities."""

FOUR = (
    "policy_chosen_logps",
    "policy_rejected_logps",
    "reference_chosen_logps",
    "reference_rejected_logps",
)
LENGTHS = ("chosen_lengths", "rejected_lengths")


Loss: TypeAlias = Callable[..., PreferenceLoss]
AnyLoss = TypeVar("AnyLoss", bound=Callable[..., Any])


# --- what a loss says of itself ------------------------------------------------------------------


def coupled(loss: AnyLoss) -> AnyLoss:
    """Declare that the loss of a pair depends on the other pairs of its call.

    The training loop then hands it whole batches, whatever parts it computes them in. A loss that
    does not say so is taken to look at one pair at a time.
    """
    loss.looks_across_pairs = True
    return loss


def looks_across_pairs(loss: Callable[..., Any]) -> bool:
    """Whether a loss is declared `coupled`; options fixed by `functools.partial` change nothing."""
    return bool(getattr(_bare(loss), "looks_across_pairs", False))


def takes_lengths(loss: Callable[..., Any]) -> bool:
    """Whether ``loss`` needs ``chosen_lengths`` and ``rejected_lengths`` as keywords."""
    return LENGTHS[0] in inspect.signature(loss).parameters


def uses_reference(loss: Callable[..., Any]) -> bool:
    """Whether the reference's log-probabilities change what ``loss`` returns."""
    return bool(getattr(_bare(loss), "uses_reference", True))


def loss_name(loss: Callable[..., Any]) -> str:
    """Name of a loss, with the options that `functools.partial` has fixed."""
    if isinstance(loss, functools.partial):
        options = [*map(repr, loss.args), *(f"{k}={v!r}" for k, v in loss.keywords.items())]
        return f"{loss_name(loss.func)}({', '.join(options)})"
    return getattr(loss, "__name__", type(loss).__name__)


def _bare(loss: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(loss, functools.partial):
        loss = loss.func
    return loss


# --- from a formula to a loss --------------------------------------------------------------------


def on_log_ratios(formula: Callable[..., Tensor]) -> Loss:
    r"""Make a loss of a formula in the log-ratios :math:`\rho_w` and :math:`\rho_l` (nats).

    Its rewards are :math:`\beta\rho`.
    """
    return _loss(formula, lambda pc, pr, rc, rr: (pc - rc, pr - rr))


def on_mean_log_ratios(formula: Callable[..., Tensor]) -> Loss:
    r"""Make a loss of a formula in :math:`\rho/|y|`, log-ratios per token.

    Its rewards are :math:`\beta\rho/|y|`. Its log-probabilities are sums all the same: the loss
    takes the lengths and divides.
    """
    return _loss(
        formula,
        lambda pc, pr, rc, rr, nc, nr: ((pc - rc) / nc, (pr - rr) / nr),
        takes=LENGTHS,
    )


def on_mean_log_probs(formula: Callable[..., Tensor]) -> Loss:
    r"""Make a loss of a formula in :math:`\ell = \log\pi_\theta(y\mid x)/|y|`, without a reference.

    Its rewards are :math:`\beta\ell`. Its log-probabilities are sums all the same: the loss takes
    the lengths and divides.
    """
    loss = _loss(formula, lambda pc, pr, rc, rr, nc, nr: (pc / nc, pr / nr), takes=LENGTHS)
    loss.uses_reference = False
    return loss


def on_both(formula: Callable[..., Tensor]) -> Loss:
    r"""Make a loss of a formula in :math:`\rho_w, \rho_l` and then :math:`\ell_w, \ell_l`.

    These are log-ratios of sums and the policy's log-probabilities per token. Its rewards are
    :math:`\beta\rho`.
    """
    return _loss(
        formula,
        lambda pc, pr, rc, rr, nc, nr: (pc - rc, pr - rr, pc / nc, pr / nr),
        takes=LENGTHS,
    )


def _loss(
    formula: Callable[..., Tensor],
    compare: Callable[..., tuple[Tensor, ...]],
    takes: tuple[str, ...] = (),
) -> Loss:
    signature = _public_signature(inspect.signature(formula).parameters, takes)

    @functools.wraps(formula)
    def loss(*args: Any, **kwargs: Any) -> PreferenceLoss:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        options = given.arguments
        four = check_paired_log_probs(**{name: options.pop(name) for name in FOUR})
        beta = check_positive(options.pop("beta"), "beta")
        options = {name: check_option(value, name, four[0]) for name, value in options.items()}
        compared = compare(*four, *(options.pop(name) for name in takes))
        losses = formula(*compared, beta, **options)
        chosen, rejected = (x.detach() for x in compared[:2])
        return PreferenceLoss(losses, beta * chosen, beta * rejected)

    loss.__signature__ = signature
    return loss


def _public_signature(
    own: Mapping[str, inspect.Parameter], takes: tuple[str, ...]
) -> inspect.Signature:
    """Four log-probabilities, beta, then by keyword the formula's own options and lengths."""
    positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            *(inspect.Parameter(name, positional, annotation="LogProbs") for name in FOUR),
            own["beta"],
            *(parameter for parameter in own.values() if parameter.kind is keyword),
            *(inspect.Parameter(name, keyword, annotation="Lengths") for name in takes),
        ],
        return_annotation="PreferenceLoss",
    )


def weighted_sum(*terms: tuple[Loss, float]) -> Loss:
    """A loss that is a sum of others, such as ``weighted_sum((dpo_loss, 1), (sft_loss, 0.1))``.

    Parameters
    ----------
    *terms : tuple of a loss and its weight
        Options of a term are fixed with `functools.partial`. All get the same ``beta``, the first
        one's unless it is given. Weights are at least 0.

    Returns
    -------
    Loss
        In the form of the others. Its rewards are those of the first term; it takes lengths, and
        looks across pairs, if one of its terms does.
    """
    if not terms:
        raise ValueError("terms must be at least one loss with its weight")
    weights = [_check_weight(weight, "weight") for _, weight in terms]

    def loss(*args: Any, **kwargs: Any) -> PreferenceLoss:
        given = loss.__signature__.bind(*args, **kwargs)
        given.apply_defaults()
        lengths = {name: given.arguments.pop(name) for name in LENGTHS if takes_lengths(loss)}
        parts = [
            term(**given.arguments, **(lengths if takes_lengths(term) else {})) for term, _ in terms
        ]
        total = sum(weight * part.losses for weight, part in zip(weights, parts, strict=True))
        return parts[0]._replace(losses=total)

    takes = LENGTHS if any(takes_lengths(term) for term, _ in terms) else ()
    beta = inspect.signature(terms[0][0]).parameters["beta"]
    loss.__signature__ = _public_signature({"beta": beta}, takes)
    loss.looks_across_pairs = any(looks_across_pairs(term) for term, _ in terms)
    loss.uses_reference = any(uses_reference(term) for term, _ in terms)
    names = [f"{weight:g} * {loss_name(term)}" for term, weight in terms]
    loss.__name__ = loss.__qualname__ = " + ".join(names)
    return loss


# --- checks, by the name of the option -----------------------------------------------------------


def check_option(value: Any, name: str, logps: Tensor) -> Any:
    """Check an option by its name; a tensor is made to fit the log-probabilities."""
    if name in LENGTHS:
        return _check_lengths(value, name, logps)
    value = _CHECKS.get(name, _check_weight)(value, name)
    if not isinstance(value, Tensor):
        return value
    if value.ndim > 0:
        check_same_shape(policy_chosen_logps=logps, **{name: value})
    return value.to(logps)


def _check_weight(value: Any, name: str) -> float:
    """A number, at least 0: what an option is unless it is named in `_CHECKS`."""
    weight = as_float_tensor(value, name)
    check_finite(weight, name)
    if weight.numel() != 1 or weight < 0:
        raise ValueError(f"{name} must be a number, at least 0, got {value!r}")
    return weight.item()


def _check_offset(value: Any, name: str) -> Tensor:
    """One number or one for each pair, without gradient."""
    offset = as_float_tensor(value, name).detach()
    check_finite(offset, name)
    return offset


def _check_level(value: Any, name: str) -> Tensor | None:
    """KTO's level: absent, or as an offset, and at least 0."""
    if value is None:
        return None
    level = _check_offset(value, name)
    refuse(level < 0, lambda: f"{name} must be at least 0, got {level.min().item():g}")
    return level


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "label_smoothing": lambda value, _: check_label_smoothing(value),
    "desirable_weight": check_positive,
    "undesirable_weight": check_positive,
    "order": check_positive,
    "offset": _check_offset,
    "shift": _check_offset,
    "kl": _check_level,
}


def _check_lengths(value: Any, name: str, logps: Tensor) -> Tensor:
    lengths = as_float_tensor(value, name)
    check_same_shape(policy_chosen_logps=logps, **{name: lengths})
    bad = lengths[(lengths < 1) | (lengths != lengths.round()) | ~lengths.isfinite()]
    if len(bad):
        raise ValueError(
            f"{name} must be whole numbers of tokens, at least 1, got {bad[:3].tolist()}"
        )
    return lengths.to(logps)
