"""DPO training as one writes it by hand, without a single check: what appendix E breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from dpo_lib.data import PreferenceDataset, PreferenceRecord, Tokenizer
from dpo_lib.evaluation import evaluate_margins
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.losses import dpo_loss
from dpo_lib.reference import make_reference
from dpo_lib.rewards import reward_accuracy


def train(
    policy: nn.Module,
    tokenizer: Tokenizer,
    records: Sequence[PreferenceRecord],
    held_out: Sequence[PreferenceRecord],
    look: Callable[[], dict[str, Any]],
    *,
    beta: float,
    learning_rate: float,
    steps: int,
    batch_size: int,
    every: int,
    seed: int,
) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """Train a policy in place; return a row for each update and one for each look at it.

    A row of an update holds what this loop itself can see: loss, accuracy, margin, the shift of
    both log-probabilities against the reference, and the gradient norm. A look is taken before
    the first update, every ``every`` updates and at the end; it adds this loop's own held-out
    accuracy to what ``look`` returns.
    """
    train_set = PreferenceDataset(records, tokenizer)
    held_out_set = PreferenceDataset(held_out, tokenizer)
    reference = make_reference(policy)
    policy.eval()
    optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate)
    updates, looks = [], []

    def take_a_look(step: int) -> None:
        own = evaluate_margins(policy, reference, held_out_set, beta)
        looks.append({"step": step, "own_accuracy": own.accuracy, **look()})

    for step, batch in enumerate(train_set.batches(batch_size, steps, seed)):
        if step % every == 0:
            take_a_look(step)
        chosen, rejected = get_pair_log_probs(policy, batch)  # (B,) each
        with torch.no_grad():
            reference_chosen, reference_rejected = get_pair_log_probs(reference, batch)
        losses, chosen_rewards, rejected_rewards = dpo_loss(
            chosen, rejected, reference_chosen, reference_rejected, beta
        )
        loss = losses.mean()
        optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        row = {
            "loss": loss,
            "accuracy": reward_accuracy(chosen_rewards, rejected_rewards),
            "margin": (chosen_rewards - rejected_rewards).mean(),
            "chosen": (chosen - reference_chosen).mean(),
            "rejected": (rejected - reference_rejected).mean(),
            "grad_norm": grad_norm,
        }
        updates.append({name: value.item() for name, value in row.items()})
    take_a_look(steps)
    return updates, looks
