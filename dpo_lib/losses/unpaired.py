"""Thumbs up and thumbs down, each on a response of its own: a loss without pairs (Appendix D)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpo_lib._validation import check_paired_log_probs, check_positive, check_same_shape
from dpo_lib.losses.dpo import LogProbs
from dpo_lib.losses.form import check_option, coupled, loss_name


class UnpairedLoss(NamedTuple):
    """What a loss of unpaired responses returns: losses and detached rewards, one shape."""

    losses: Tensor
    rewards: Tensor


@coupled
def unpaired_kto_loss(
    policy_logps: LogProbs,
    reference_logps: LogProbs,
    desirable: Tensor | bool,
    beta: float = 0.1,
    *,
    kl: Tensor | float | None = None,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> UnpairedLoss:
    r"""KTO on thumbs: each response alone, against one level :math:`z_0` of the whole batch.

    .. math::
        \lambda_D\,\sigma(\beta(z_0 - \rho)) \text{ for a thumb up}, \qquad
        \lambda_U\,\sigma(\beta(\rho - z_0)) \text{ for a thumb down},

    with the log-ratio :math:`\rho = \log\pi_\theta(y\mid x) - \log\pi_{\mathrm{ref}}(y\mid x)` of
    sums. The two kinds may be of any number, in any order.

    Parameters
    ----------
    policy_logps, reference_logps : Tensor or float
        Summed log-probabilities (nats), one shape, such as ``(batch,)``.
    desirable : Tensor of bool
        True for a thumb up, in that shape.
    beta : float
        As in `dpo_loss`.
    kl : Tensor or float, optional
        The level :math:`z_0` (nats), at least 0: one number, or one for each response. Training
        passes `mismatched_level`, as in the paper. Absent, it is the mean log-ratio of this call,
        without gradient, or 0 if that is negative.
    desirable_weight, undesirable_weight : float
        :math:`\lambda_D` and :math:`\lambda_U`, above 0. The paper keeps
        :math:`\lambda_D n_D : \lambda_U n_U`, with the numbers of thumbs, between 1 and 4/3 (3/2
        in its fifth version, eq. 9): with three thumbs down for each one up, a desirable weight
        of 3 to 4.

    Returns
    -------
    UnpairedLoss
        ``losses`` (between 0 and the weight) and ``rewards`` :math:`\beta\rho`, detached.

    Raises
    ------
    ValueError
        If shapes differ, a log-probability is NaN, infinite or above 0, ``desirable`` is not of
        bools, or an option is out of its range.

    Notes
    -----
    On a batch of pairs, each cut in two, the mean of these losses is that of `kto_loss`.

    References
    ----------
    Ethayarajh et al. (2024), sect. 4.1, eq. 8 of its fifth version, 7 of the first ones
    (arXiv:2402.01306).
    """
    policy, reference = check_paired_log_probs(
        policy_logps=policy_logps, reference_logps=reference_logps
    )
    try:
        thumbs = torch.as_tensor(desirable, device=policy.device)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        thumbs = None
    if thumbs is None or thumbs.dtype != torch.bool:
        raise ValueError(f"desirable must be of bools, got {desirable!r}")
    check_same_shape(policy_logps=policy, desirable=thumbs)
    beta = check_positive(beta, "beta")
    good = check_option(desirable_weight, "desirable_weight", policy)
    bad = check_option(undesirable_weight, "undesirable_weight", policy)
    ratio = policy - reference
    level = ratio.detach().mean().clamp(min=0) if kl is None else check_option(kl, "kl", ratio)
    up, down = torch.sigmoid(beta * (level - ratio)), torch.sigmoid(beta * (ratio - level))
    losses = torch.where(thumbs, good * up, bad * down)
    return UnpairedLoss(losses, beta * ratio.detach())


UNPAIRED = {"kto": unpaired_kto_loss}
"""Every loss of thumbs by name; on pairs the same name is a loss in `LOSSES`."""


def mismatched_level(policy_logps: Tensor, reference_logps: Tensor) -> Tensor:
    r"""KTO's level :math:`z_0` (nats) from responses put to prompts that are not their own.

    The mean of :math:`\log\pi_\theta(y'\mid x) - \log\pi_{\mathrm{ref}}(y'\mid x)` over a
    batch, or 0 if it is negative, without gradient: a scalar. It stands in for the divergence of
    policy from reference, which would need samples of the policy. The responses at hand would not
    do: they were picked for being good or bad, and training moves them on purpose. The paper takes
    for :math:`y'` the next response of the batch, and so does TRL.
    """
    return (policy_logps - reference_logps).detach().mean().clamp(min=0)


def takes_thumbs(loss: Callable[..., Any]) -> bool:
    """Whether a loss is one of thumbs: it asks which responses are ``desirable``."""
    return "desirable" in inspect.signature(loss).parameters


def check_kind(loss: Callable[..., Any], unpaired: bool) -> None:
    """Refuse a loss of pairs for thumbs, and one of thumbs for pairs."""
    if unpaired and not takes_thumbs(loss):
        raise ValueError(
            f"{loss_name(loss)} compares the two responses of a pair, but the data are thumbs, "
            f"responses with a verdict each: the loss must be one of {[*UNPAIRED]}"
        )
    if takes_thumbs(loss) and not unpaired:
        raise ValueError(
            f"{loss_name(loss)} takes thumbs, responses with a verdict each, but the data are pairs"
        )
