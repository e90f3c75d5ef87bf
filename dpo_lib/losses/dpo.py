"""The DPO loss, and the naive one that it repairs (chapter 9)."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dpo_lib._validation import check_label_smoothing, check_paired_log_probs, check_positive

LogProbs: TypeAlias = Tensor | float
"""Log-probabilities of whole responses (nats), at most 0: one number, or a tensor of them."""


class PreferenceLoss(NamedTuple):
    """What a preference loss returns: unreduced losses and detached rewards, one shape."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def dpo_loss(
    policy_chosen_logps: LogProbs,
    policy_rejected_logps: LogProbs,
    reference_chosen_logps: LogProbs,
    reference_rejected_logps: LogProbs,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> PreferenceLoss:
    r"""DPO loss of each pair: :math:`-\log\sigma(z)` with the reward margin :math:`z`.

    The margin is :math:`z = \hat r(x, y_w) - \hat r(x, y_l)`. With label smoothing
    :math:`\varepsilon` (conservative DPO) the loss is
    :math:`-(1-\varepsilon)\log\sigma(z) - \varepsilon\log\sigma(-z)`.

    Parameters
    ----------
    policy_chosen_logps, policy_rejected_logps : Tensor or float
        Summed log-probabilities (nats) of each response under the policy, one shape.
    reference_chosen_logps, reference_rejected_logps : Tensor or float
        The same responses under the frozen reference, same shape.
    beta : float
        Inverse temperature of the KL penalty, above 0; 0.1 to 0.5 is usual.
    label_smoothing : float
        Assumed share of flipped labels, in [0, 0.5).

    Returns
    -------
    PreferenceLoss
        ``losses`` (nats, with gradient), ``chosen_rewards`` and ``rejected_rewards`` (detached).

    Raises
    ------
    ValueError
        If shapes differ, a log-probability is NaN, infinite or above 0, ``beta`` is not above
        0, or ``label_smoothing`` is outside [0, 0.5).

    References
    ----------
    Rafailov et al. (2023), eq. 7 (arXiv:2305.18290); Mitchell (2023), "A note on DPO with noisy
    preferences", eq. 3 for the smoothing; chapter 9.
    """
    epsilon = check_label_smoothing(label_smoothing)
    beta = check_positive(beta, "beta")
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = check_paired_log_probs(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    # The rewards and the loss of chapters 8 and 3, whose functions would check everything again.
    chosen_rewards = beta * (policy_chosen - reference_chosen)
    rejected_rewards = beta * (policy_rejected - reference_rejected)
    margin = chosen_rewards - rejected_rewards
    losses = (1 - epsilon) * nll(margin)
    if epsilon > 0:
        losses = losses + epsilon * nll(-margin)
    return PreferenceLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


def naive_loss(
    policy_chosen_logps: LogProbs,
    policy_rejected_logps: LogProbs,
    reference_chosen_logps: LogProbs,
    reference_rejected_logps: LogProbs,
    beta: float = 1.0,
) -> PreferenceLoss:
    r"""Preference loss on the naive reward: DPO with a reference that is flat over responses.

    The margin is :math:`\beta\,(\log\pi_\theta(y_w\mid x) - \log\pi_\theta(y_l\mid x))`; the
    reference log-probabilities are taken only to share the form of `dpo_loss`.

    Parameters, results and errors are those of `dpo_loss`; the rewards are ``beta`` times the
    policy's log-probabilities.

    Notes
    -----
    Chapter 6 trains with it to see what it does. The usual name is "reference-free" DPO.
    """
    policy_chosen, policy_rejected, *reference = check_paired_log_probs(
        policy_chosen_logps=policy_chosen_logps,
        policy_rejected_logps=policy_rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    flat = (torch.zeros_like(logps) for logps in reference)
    return dpo_loss(policy_chosen, policy_rejected, *flat, beta)


naive_loss.uses_reference = False


def nll(margin: Tensor) -> Tensor:
    r""":math:`-\log\sigma` of a margin (nats) that is checked already: `preference_nll` of it."""
    # softplus(x) becomes x above the threshold; its default, 20, would cost float64 its digits.
    return F.softplus(-margin, threshold=40.0)
