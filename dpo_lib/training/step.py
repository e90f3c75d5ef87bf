"""One training step: score, loss, backward, step (chapter 10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.losses import dpo_loss
from dpo_lib.rewards import reward_accuracy


def dpo_training_step(
    policy_model: nn.Module,
    ref_model: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    batch: Mapping[str, Tensor],
    beta: float = 0.1,
) -> tuple[float, float]:
    """Take one optimizer step on the DPO loss of a batch.

    Parameters
    ----------
    policy_model : nn.Module
        The model in training.
    ref_model : callable
        Its frozen reference, from `make_reference`; called without gradients.
    optimizer : torch.optim.Optimizer
        Over the policy's parameters.
    batch : mapping
        Token ids ``prompt``, ``chosen``, ``rejected``, each ``(batch, length)``; if rows were
        padded, also ``prompt_mask``, ``chosen_mask``, ``rejected_mask``.
    beta : float
        Inverse temperature of the KL penalty, above 0.

    Returns
    -------
    loss, reward_accuracy : float
        Mean loss (nats) and share of pairs whose chosen response has the higher reward, both
        before the update; ties count one half, so the first step shows 0.5.

    Raises
    ------
    ValueError
        If a key is missing, ``ref_model`` is the policy itself, or the inputs are malformed
        (see `get_sequence_log_probs` and `dpo_loss`). Nothing has been updated then.
    """
    if ref_model is policy_model:
        raise ValueError("ref_model must be a frozen copy of policy_model, not the same object")

    policy_chosen, policy_rejected = get_pair_log_probs(policy_model, batch)
    with torch.no_grad():
        reference_chosen, reference_rejected = get_pair_log_probs(ref_model, batch)
    losses, chosen_rewards, rejected_rewards = dpo_loss(
        policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
    )
    loss = losses.mean()

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item(), reward_accuracy(chosen_rewards, rejected_rewards).item()
