"""Scores of pairs or thumbs: all that a loss may look at, and one rule for what counts as a tie.

Training, the command line's held-out pairs and `evaluate_margins` go through here. Nothing is
averaged on the way: a loss may weigh a pair by its length, or compare it with its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from dpo_lib.fast.pair_log_probs import Row
from dpo_lib.losses import PreferenceLoss, UnpairedLoss, takes_lengths
from dpo_lib.rewards import reward_accuracy, reward_auc

Loss = Callable[..., PreferenceLoss | UnpairedLoss]


class PairScores(NamedTuple):
    """All that a loss may look at: one value a pair, shape (B,) each."""

    chosen: Tensor  # log-probability under the policy, in nats
    rejected: Tensor
    reference_chosen: Tensor  # under the reference
    reference_rejected: Tensor
    chosen_lengths: Tensor  # tokens of the response, EOS included
    rejected_lengths: Tensor

    @property
    def policy(self) -> tuple[Tensor, ...]:
        """The policy's log-probabilities."""
        return self.chosen, self.rejected


class UnpairedScores(NamedTuple):
    """All that a loss of thumbs may look at: one value a response, shape (B,) each."""

    response: Tensor  # log-probability under the policy, in nats
    reference: Tensor  # under the reference
    desirable: Tensor  # whether its thumb is up
    level: Tensor  # KTO's level of the whole batch (nats), the same for all

    @property
    def policy(self) -> tuple[Tensor, ...]:
        """The policy's log-probabilities."""
        return (self.response,)


Scores = TypeVar("Scores", PairScores, UnpairedScores)


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


def unpaired_scores(
    policy_logps: Tensor, reference_logps: Tensor, rows: Sequence[Row], level: Tensor
) -> UnpairedScores:
    """Put together what is known of some thumbs, as `pair_scores` does of pairs.

    Parameters
    ----------
    policy_logps, reference_logps : Tensor
        Log-probabilities (nats) of the responses, shape ``(len(rows),)``.
    rows : sequence of mapping
        Of an `UnpairedDataset`.
    level : Tensor
        KTO's level, a scalar; see `mismatched_level`.
    """
    shapes = [tuple(logps.shape) for logps in (policy_logps, reference_logps)]
    if shapes != [(len(rows),)] * 2:
        raise ValueError(f"policy_logps and reference_logps must be ({len(rows)},), got {shapes}")
    desirable = torch.tensor([row["desirable"] for row in rows])
    device = policy_logps.device
    beside = (x.to(device, non_blocking=device.type != "cpu") for x in (reference_logps, desirable))
    return UnpairedScores(policy_logps, *beside, level.to(policy_logps).expand(len(rows)))


def detach_scores(scores: Scores) -> Scores:
    """The same values without gradients."""
    return type(scores)(*(x.detach() for x in scores))


def move_scores(scores: Scores, device: torch.device | str) -> Scores:
    """The same values on another device."""
    return type(scores)(*(x.to(device) for x in scores))


def join_scores(parts: Sequence[Scores]) -> Scores:
    """The pairs, or thumbs, of all parts, in their order."""
    return type(parts[0])(*map(torch.cat, zip(*parts, strict=True)))


def apply_loss(loss: Loss, scores: Scores, beta: float) -> PreferenceLoss | UnpairedLoss:
    """The loss of each pair, or thumb, given what this loss takes."""
    extra = {}
    if isinstance(scores, UnpairedScores):
        if "kl" not in getattr(loss, "keywords", {}):  # else it is fixed by functools.partial
            extra["kl"] = scores.level
        return loss(*scores[:3], beta, **extra)
    if takes_lengths(loss):
        extra = {name: getattr(scores, name) for name in ("chosen_lengths", "rejected_lengths")}
    return loss(*scores[:4], beta, **extra)


def tie_width(scores: Scores, beta: float) -> Tensor:
    """How far apart two rewards of these responses may be and still be tied (nats), a scalar.

    Policy and reference are run in different batches, so that equal log-probabilities differ in
    their last bits: by some units in the last place of the largest one.
    """
    if isinstance(scores, UnpairedScores):
        largest = scores.reference.abs().max()
    else:
        sides = scores.reference_chosen, scores.reference_rejected
        largest = sides[0].abs().max().maximum(sides[1].abs().max())
    return 16 * torch.finfo(largest.dtype).eps * beta * largest.double()


@torch.no_grad()
def summarize(loss: Loss, scores: Scores, beta: float) -> dict[str, Tensor]:
    """Means over the pairs, or thumbs, each a scalar that waits on its device until it is read.

    Parameters
    ----------
    loss : callable
        A loss in the form of `dpo_loss`.
    scores : PairScores or UnpairedScores
    beta : float
        Of the loss.

    Returns
    -------
    dict
        ``loss`` (nats), ``reward_accuracy`` (ties count one half), ``margin`` (chosen reward
        minus rejected reward), ``chosen_logp`` and ``rejected_logp`` (nats, minus the
        reference's). Of thumbs: ``loss``, ``reward_auc``, ``margin`` (mean reward of thumbs up
        minus that of thumbs down), ``desirable_logp``, ``undesirable_logp`` (nats, minus the
        reference's) and ``level`` (KTO's); NaN where it takes a kind of thumb that is not there.
    """
    tie = tie_width(scores, beta)
    if isinstance(scores, UnpairedScores):
        losses, rewards = apply_loss(loss, scores, beta)
        up = scores.desirable
        ratio = scores.response - scores.reference
        means = [torch.where(up == kind, ratio, 0).sum() / (up == kind).sum() for kind in (1, 0)]
        return {
            "loss": losses.mean(),
            "reward_auc": reward_auc(rewards, up, tie),
            "margin": beta * (means[0] - means[1]),
            "desirable_logp": means[0],
            "undesirable_logp": means[1],
            "level": scores.level[0],
        }
    losses, chosen_rewards, rejected_rewards = apply_loss(loss, scores, beta)
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
