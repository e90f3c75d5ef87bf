"""From scores to probabilities to a loss: the Bradley–Terry model (chapters 2 and 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dpo_lib._validation import as_float_tensor, check_finite, check_whole, checked_at_once


def bradley_terry_probability(chosen_score: object, rejected_score: object) -> Tensor:
    r"""Probability that the chosen response is preferred: :math:`\sigma(r_w - r_l)`.

    Parameters
    ----------
    chosen_score, rejected_score : Tensor or float
        Scores :math:`r_w`, :math:`r_l` (nats) of any broadcastable shapes.

    Returns
    -------
    Tensor
        Probabilities in the broadcast shape.

    Raises
    ------
    ValueError
        If a score is not finite or the shapes cannot be broadcast.

    References
    ----------
    Bradley and Terry (1952), eq. 1; chapter 2.
    """
    return torch.sigmoid(_score_difference(chosen_score, rejected_score))


def preference_nll(chosen_score: object, rejected_score: object) -> Tensor:
    r"""Negative log-likelihood of a preference: :math:`-\log\sigma(r_w - r_l)`, unreduced.

    Parameters
    ----------
    chosen_score, rejected_score : Tensor or float
        Scores :math:`r_w`, :math:`r_l` (nats) of any broadcastable shapes.

    Returns
    -------
    Tensor
        Losses (nats) in the broadcast shape; the mean over pairs is the training loss.

    Raises
    ------
    ValueError
        If a score is not finite or the shapes cannot be broadcast.

    Notes
    -----
    Computed as softplus of the negated difference, which neither overflows nor rounds to 0
    early. Chapter 3.
    """
    difference = _score_difference(chosen_score, rejected_score)
    # softplus(x) becomes x above the threshold; its default, 20, would cost float64 its digits.
    return F.softplus(-difference, threshold=40.0)


def sample_comparisons(
    scores: object, n_comparisons: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw comparisons between random items, each decided by the Bradley–Terry model.

    Parameters
    ----------
    scores : Tensor or sequence of float
        True scores (nats), shape ``(n_items,)``, at least two of them.
    n_comparisons : int
        Number of comparisons, at least 1.
    generator : torch.Generator, optional
        Source of randomness.

    Returns
    -------
    winners, losers : Tensor
        Item indices, shape ``(n_comparisons,)`` each.

    Raises
    ------
    ValueError
        If there are fewer than two items, a score is not finite, or ``n_comparisons`` < 1.
    """
    true_scores = as_float_tensor(scores, "scores")
    check_finite(true_scores, "scores")
    if true_scores.ndim != 1 or len(true_scores) < 2:
        raise ValueError(f"scores must hold at least two items, got {tuple(true_scores.shape)}")
    n_comparisons = check_whole(n_comparisons, "n_comparisons", 1)
    n_items = len(true_scores)
    first = torch.randint(n_items, (n_comparisons,), generator=generator)
    # A step of 1 to n_items - 1 around the circle: every other item is equally likely.
    step = torch.randint(1, n_items, (n_comparisons,), generator=generator)
    second = (first + step) % n_items
    probability = bradley_terry_probability(true_scores[first], true_scores[second])
    draws = torch.rand(n_comparisons, dtype=probability.dtype, generator=generator)
    first_wins = draws < probability
    return torch.where(first_wins, first, second), torch.where(first_wins, second, first)


def fit_bradley_terry(
    winners: Tensor, losers: Tensor, n_items: int, tolerance: float = 1e-10, max_steps: int = 100
) -> Tensor:
    """Fit scores to comparisons by maximum likelihood (Newton's method).

    Parameters
    ----------
    winners, losers : Tensor
        Item indices, shape ``(n_comparisons,)``; ``winners[i]`` was preferred to ``losers[i]``.
    n_items : int
        Number of items compared.
    tolerance : float
        Stop when no score moves by more than this (nats).
    max_steps : int
        Newton steps allowed.

    Returns
    -------
    Tensor
        Scores (nats), shape ``(n_items,)``, float64, shifted to mean 0: the data fix
        differences only.

    Raises
    ------
    ValueError
        If the indices are malformed, or no finite maximum exists because some group of items
        never lost to the others (Ford 1957).

    References
    ----------
    Bradley and Terry (1952); Ford (1957), "Solution of a ranking problem"; chapter 2.
    """
    wins = _count_wins(winners, losers, n_items)
    _check_strongly_connected(wins)
    games = wins + wins.T
    scores = torch.zeros(n_items, dtype=torch.float64)
    log_likelihood = _log_likelihood(wins, scores)
    for _ in range(max_steps):
        probability = torch.sigmoid(scores[:, None] - scores[None, :])  # (n_items, n_items)
        gradient = (wins - games * probability).sum(dim=1)
        weight = games * probability * (1 - probability)
        # The Hessian is singular along "shift every score"; adding ones pins that direction.
        hessian = torch.diag(weight.sum(dim=1)) - weight + 1.0
        step = torch.linalg.solve(hessian, gradient)
        # Halve the step until the likelihood does not fall: Newton alone may overshoot.
        while _log_likelihood(wins, scores + step) < log_likelihood - 1e-12 * abs(log_likelihood):
            step = step / 2
        scores = scores + step
        log_likelihood = _log_likelihood(wins, scores)
        if step.abs().max() <= tolerance:
            return scores - scores.mean()
    raise ValueError(f"no convergence within max_steps={max_steps}")


def _score_difference(chosen_score: object, rejected_score: object) -> Tensor:
    chosen = as_float_tensor(chosen_score, "chosen_score")
    rejected = as_float_tensor(rejected_score, "rejected_score")
    with checked_at_once():
        check_finite(chosen, "chosen_score")
        check_finite(rejected, "rejected_score")
    try:
        return chosen - rejected
    except RuntimeError as error:
        raise ValueError(
            f"chosen_score {tuple(chosen.shape)} and rejected_score {tuple(rejected.shape)} "
            "cannot be broadcast"
        ) from error


def _log_likelihood(wins: Tensor, scores: Tensor) -> Tensor:
    return (wins * F.logsigmoid(scores[:, None] - scores[None, :])).sum()


def _count_wins(winners: Tensor, losers: Tensor, n_items: int) -> Tensor:
    n_items = check_whole(n_items, "n_items", 2)
    try:
        winners, losers = torch.as_tensor(winners).cpu(), torch.as_tensor(losers).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"winners and losers must be index vectors, got {winners!r:.60} and {losers!r:.60}"
        ) from error
    if winners.shape != losers.shape or winners.ndim != 1 or len(winners) == 0:
        raise ValueError(
            "winners and losers must be index vectors of one length, got "
            f"{tuple(winners.shape)} and {tuple(losers.shape)}"
        )
    items = torch.cat([winners, losers])
    if items.is_floating_point() or items.is_complex() or items.dtype == torch.bool:
        raise ValueError(f"winners and losers must be integers, got dtype {items.dtype}")
    if items.min() < 0 or items.max() >= n_items:
        raise ValueError(
            f"winners and losers must lie in [0, {n_items}), "
            f"got {int(items.min())} to {int(items.max())}"
        )
    same = (winners == losers).nonzero().flatten()
    if len(same):
        row = int(same[0])
        raise ValueError(
            f"winners and losers must differ, got item {int(winners[row])} twice in row {row}"
        )
    wins = torch.zeros(n_items, n_items, dtype=torch.float64)
    one = torch.ones(len(winners), dtype=torch.float64)
    return wins.index_put_((winners.long(), losers.long()), one, accumulate=True)


def _check_strongly_connected(wins: Tensor) -> None:
    n_items = len(wins)
    reach = (wins > 0) | torch.eye(n_items, dtype=torch.bool)
    for via in range(n_items):  # Warshall's transitive closure
        reach |= reach[:, via : via + 1] & reach[via : via + 1, :]
    if not reach.all():
        row, column = (~reach).nonzero()[0].tolist()
        raise ValueError(
            f"no finite scores exist: no chain of wins leads from item {row} to item {column}"
        )
