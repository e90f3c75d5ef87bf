"""Scores for responses: the naive reward and the DPO reward (chapters 4, 7 and 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from dpo_lib._validation import (
    as_float_tensor,
    check_finite,
    check_log_probs,
    check_paired_log_probs,
    check_positive,
    check_same_shape,
    checked_at_once,
    refuse,
)


def naive_reward(policy_logps: object) -> Tensor:
    r"""Score a response by its log-probability: :math:`r(x, y) = \log\pi_\theta(y\mid x)`.

    Parameters
    ----------
    policy_logps : Tensor or float
        Sequence log-probabilities (nats), any shape.

    Returns
    -------
    Tensor
        The same values: the naive reward *is* the log-probability.

    Raises
    ------
    ValueError
        If a value is not finite or above 0.

    Notes
    -----
    Chapter 4 proposes it; chapter 6 shows where it fails.
    """
    return check_log_probs(policy_logps, "policy_logps")


def dpo_reward(policy_logps: object, reference_logps: object, beta: float) -> Tensor:
    r"""Implicit reward of DPO: :math:`\beta\,(\log\pi_\theta - \log\pi_{\mathrm{ref}})`.

    Parameters
    ----------
    policy_logps, reference_logps : Tensor or float
        Sequence log-probabilities (nats) of one shape.
    beta : float
        Inverse temperature of the KL penalty, above 0.

    Returns
    -------
    Tensor
        Rewards (nats times ``beta``), in the shape of the inputs.

    Raises
    ------
    ValueError
        If the shapes differ, a value is not finite or above 0, or ``beta`` is not above 0.

    References
    ----------
    Rafailov et al. (2023), eq. 5 without its :math:`\beta\log Z(x)`, which cancels in every
    comparison; chapter 7.
    """
    policy, reference = check_paired_log_probs(
        policy_logps=policy_logps, reference_logps=reference_logps
    )
    return check_positive(beta, "beta") * (policy - reference)


def reward_accuracy(
    chosen_rewards: object, rejected_rewards: object, tie: float | Tensor = 0.0
) -> Tensor:
    """Share of pairs whose chosen response has the higher reward; a tie counts one half.

    Parameters
    ----------
    chosen_rewards, rejected_rewards : Tensor or float
        Rewards of one shape, not empty.
    tie : float or Tensor
        Rewards at most this far apart are tied. Above 0 where the two models were not run on
        the same padded batch, so that equal log-probabilities differ in their last bits.

    Returns
    -------
    Tensor
        Scalar in [0, 1]. With policy = reference every pair ties, so training starts at 0.5.

    Raises
    ------
    ValueError
        If the shapes differ, there are no pairs, a reward is not finite, or ``tie`` is below 0.
    """
    chosen = as_float_tensor(chosen_rewards, "chosen_rewards")
    rejected = as_float_tensor(rejected_rewards, "rejected_rewards")
    with checked_at_once():
        check_finite(chosen, "chosen_rewards")
        check_finite(rejected, "rejected_rewards")
        tie = _check_tie(tie)
    check_same_shape(chosen_rewards=chosen, rejected_rewards=rejected)
    _check_one_or_each(tie, chosen)
    if chosen.numel() == 0:
        raise ValueError(f"chosen_rewards must hold at least one pair, got {tuple(chosen.shape)}")
    difference = chosen - rejected
    wins = (difference > tie).double() + 0.5 * (difference.abs() <= tie).double()
    return wins.mean()


def reward_auc(rewards: Tensor, desirable: Tensor, tie: float | Tensor = 0.0) -> Tensor:
    """How often a response with a thumb up has a higher reward than one with a thumb down.

    Over all such couples, whatever their prompts; a tie counts one half. This is the area under
    the ROC curve, and for thumbs what `reward_accuracy` is for pairs.

    Parameters
    ----------
    rewards : Tensor
        Of the responses, shape ``(N,)``.
    desirable : Tensor of bool
        True for a thumb up, in that shape.
    tie : float or Tensor
        Rewards at most this far apart are tied.

    Returns
    -------
    Tensor
        Scalar in [0, 1]; NaN if all thumbs point one way.
    """
    rewards = as_float_tensor(rewards, "rewards").double()
    if not isinstance(desirable, Tensor) or desirable.dtype != torch.bool:
        raise ValueError(f"desirable must be a tensor of bools, got {desirable!r}")
    check_same_shape(rewards=rewards, desirable=desirable)
    tie = _check_tie(tie)
    _check_one_or_each(tie, rewards)
    # Sorted, with those of the other kind behind all: nothing asks the device how many there are.
    down = rewards.masked_fill(desirable, torch.inf).sort().values
    below = torch.searchsorted(down, rewards - tie)  # rewards of thumbs down that are lower
    up_to = torch.searchsorted(down, rewards + tie, right=True)  # ... or tied
    wins = torch.where(desirable, below + up_to, 0).double() / 2
    return wins.sum() / (desirable.sum() * (~desirable).sum())


def _check_tie(tie: object) -> Tensor:
    width = as_float_tensor(tie, "tie")
    # Written so that NaN does not pass.
    refuse(~(width >= 0), lambda: f"tie must be at least 0, got {tie!r}")
    return width


def _check_one_or_each(tie: Tensor, rewards: Tensor) -> None:
    if tie.ndim > 0:
        check_same_shape(rewards=rewards, tie=tie)
