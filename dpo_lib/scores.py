"""Scores of pairs: all that a loss may look at, and one rule for what counts as a tie.

Training, the command line's held-out pairs and `evaluate_margins` go through here. Nothing is
averaged on the way: a loss may weigh a pair by its length, or compare it with its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dpo_lib.fast.pair_log_probs import Row
from dpo_lib.losses import PreferenceLoss, takes_lengths
from dpo_lib.rewards import reward_accuracy

Loss = Callable[..., PreferenceLoss]


class PairScores(NamedTuple):
    """All that a loss may look at: one value a pair, shape (B,) each."""

    chosen: Tensor  # log-probability under the policy, in nats
    rejected: Tensor
    reference_chosen: Tensor  # under the reference
    reference_rejected: Tensor
    chosen_lengths: Tensor  # tokens of the response, EOS included
    rejected_lengths: Tensor

    def detach(self) -> PairScores:
        """The same values without gradients."""
        return PairScores(*(x.detach() for x in self))

    def to(self, device: torch.device | str) -> PairScores:
        """The same values on another device."""
        return PairScores(*(x.to(device) for x in self))


def pair_scores(
    policy_logps: Sequence[Tensor], reference_logps: Sequence[Tensor] | None, rows: Sequence[Row]
) -> PairScores:
    """Put together what is known of some pairs.

    Parameters
    ----------
    policy_logps : pair of Tensor
        Log-probabilities (nats) of the chosen and of the rejected responses under the policy,
        shape ``(len(rows),)`` each: what a `PairLogProbs` returns, or `log_probs_of_rows`.
    reference_logps : pair of Tensor or None
        The same under the frozen reference. None: there is none, and its place is taken by 0.
    rows : sequence of mapping
        Token ids ``prompt``, ``chosen`` and ``rejected`` of each pair.

    Returns
    -------
    PairScores
        On the device of the policy's values, through which gradients flow.

    Raises
    ------
    ValueError
        If the values are not one for each row.
    """
    device = policy_logps[0].device
    if reference_logps is None:
        reference_logps = [torch.zeros_like(logps) for logps in policy_logps]
    for name, values in (("policy_logps", policy_logps), ("reference_logps", reference_logps)):
        shapes = [tuple(logps.shape) for logps in values]
        if shapes != [(len(rows),)] * 2:
            raise ValueError(f"{name} must be one value for each of {len(rows)} rows, got {shapes}")
    lengths = [torch.tensor([len(row[side]) for row in rows]) for side in ("chosen", "rejected")]
    # What comes from the CPU need not wait until the GPU has the policy's values.
    beside = [x.to(device, non_blocking=device.type != "cpu") for x in (*reference_logps, *lengths)]
    return PairScores(*policy_logps, *beside)


def join_scores(parts: Sequence[PairScores]) -> PairScores:
    """The pairs of all parts, in their order."""
    return PairScores(*map(torch.cat, zip(*parts, strict=True)))


def apply_loss(loss: Loss, scores: PairScores, beta: float) -> PreferenceLoss:
    """The loss of each pair, given what this loss takes."""
    extra = {}
    if takes_lengths(loss):
        extra = {name: getattr(scores, name) for name in ("chosen_lengths", "rejected_lengths")}
    return loss(*scores[:4], beta, **extra)


def tie_width(scores: PairScores, beta: float) -> Tensor:
    """How far apart two rewards of these pairs may be and still be tied (nats), a scalar.

    Policy and reference are run in different batches, so that equal log-probabilities differ in
    their last bits: by some units in the last place of the largest one.
    """
    largest = scores.reference_chosen.abs().max().maximum(scores.reference_rejected.abs().max())
    return 16 * torch.finfo(largest.dtype).eps * beta * largest.double()


@torch.no_grad()
def summarize(loss: Loss, scores: PairScores, beta: float) -> dict[str, Tensor]:
    """Means over the pairs, each a scalar that waits on its device until it is read.

    Parameters
    ----------
    loss : callable
        A loss in the form of `dpo_loss`.
    scores : PairScores
        Of the pairs.
    beta : float
        Of the loss.

    Returns
    -------
    dict
        ``loss`` (nats), ``reward_accuracy`` (ties count one half), ``margin`` (chosen reward
        minus rejected reward), ``chosen_logp`` and ``rejected_logp`` (nats, minus the
        reference's).
    """
    losses, chosen_rewards, rejected_rewards = apply_loss(loss, scores, beta)
    tie = tie_width(scores, beta)
    return {
        "loss": losses.mean(),
        "reward_accuracy": reward_accuracy(chosen_rewards, rejected_rewards, tie),
        "margin": (chosen_rewards - rejected_rewards).mean(),
        "chosen_logp": (scores.chosen - scores.reference_chosen).mean(),
        "rejected_logp": (scores.rejected - scores.reference_rejected).mean(),
    }


def read_numbers(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """What scalars hold, fetched from their device all at once: a GPU is waited for only here."""
    device = next(iter(scalars.values())).device
    numbers = [value.detach().to(device, torch.float64) for value in scalars.values()]
    return dict(zip(scalars, torch.stack(numbers).tolist(), strict=True))
