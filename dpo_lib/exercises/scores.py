"""Chapters 2 and 3: scores to a probability, clicks to scores, a probability to a loss."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dpo_lib import preference
from dpo_lib.exercises.sheet import Case, Exercise, Mistake, Plain, fresh_lists

# --- 2.1: two scores to a probability -------------------------------------------------------------


def _fresh_scores(rng: random.Random) -> tuple[list[float], ...]:
    return fresh_lists(2, lambda: rng.gauss(0, 3))


PROBABILITY = Exercise(
    number="2.1",
    name="bradley_terry_probability",
    arguments=("chosen_score", "rejected_score"),
    library=preference.bradley_terry_probability,
    solution=preference.bradley_terry_probability,
    cases=(
        Case("the chosen one scores more", (2.5, 0.8)),
        Case("the chosen one scores less", (0.8, 2.5)),
        Case("equal scores", (1.3, 1.3)),
        Case("both scores below 0", (-1.0, -3.0)),
        Case("both scores shifted by 100", (102.5, 100.8), "where only the difference is small"),
        Case("scores so large that exp overflows", (1000.0, -1000.0), "where exp overflows"),
        Case("a hopeless underdog", (-1000.0, 1000.0), "where exp overflows"),
    ),
    mistakes=(
        Mistake(
            lambda w, x: torch.sigmoid(x - w),
            "This is the probability of the other one: the difference is the wrong way round.",
        ),
        Mistake(
            lambda w, x: w / (w + x),
            "Scores are shared out as they are. That fails for scores at or below 0, and a shift "
            "of both changes it; Bradley–Terry shares out the strengths, e to the score.",
        ),
        Mistake(
            lambda w, x: w.exp() / (w.exp() + x.exp()),
            "Right for ordinary scores, but exp of a large one overflows: write it in the "
            "difference of the two.",
        ),
        Mistake(
            lambda w, x: torch.sigmoid(w),
            "Only the chosen score is used: its opponent matters as much.",
        ),
        Mistake(
            lambda w, x: (w > x).double(),
            "This names the winner for certain. The better one wins more often, not always.",
        ),
        Mistake(
            lambda w, x: torch.sigmoid(w) / (torch.sigmoid(w) + torch.sigmoid(x)),
            "Each score goes through σ by itself; σ is taken once, of the difference.",
        ),
        Mistake(
            lambda w, x: torch.special.ndtr(w - x),
            "This is the normal distribution's curve (Thurstone's model), not the logistic one.",
        ),
        Mistake(
            lambda w, x: F.logsigmoid(w - x),
            "This is the logarithm of the probability.",
        ),
        Mistake(
            lambda w, x: (w - x).tanh(),
            "tanh runs from −1 to 1; a probability runs from 0 to 1.",
        ),
        Mistake(
            lambda w, x: torch.sigmoid((w - x).abs()),
            "The sign of the difference is lost: the one that scores less wins less than half the"
            " time.",
        ),
        Mistake(
            lambda w, x: torch.sigmoid(w + x),
            "The scores are added. Equal scores must give 0.5 whatever they are: only a "
            "difference does.",
        ),
        Mistake(
            lambda w, x: torch.sigmoid(w) - torch.sigmoid(x),
            "Each score goes through σ by itself; a difference of two such values can lie below 0.",
        ),
        Mistake(
            lambda w, x: 1 / (1 + 10 ** ((x - w) / 400)),
            "This is Elo's scale, with base 10 and 400 points; Bradley–Terry's scores are in nats.",
        ),
        Mistake(
            lambda w, x: 1 / (1 + 2 ** (x - w)),
            "The base is 2 here; strengths are e to the score.",
        ),
    ),
    fresh=_fresh_scores,
    in_page=True,
)

# --- 2.2: clicks to scores ------------------------------------------------------------------------

Fit = Callable[[Tensor, Tensor, int], Tensor]


def _fit(
    winners: Tensor,
    losers: Tensor,
    n_items: int,
    slope: Callable[[Tensor], Tensor] = lambda p: 1 - p,
    steps: int = 2000,
    both: bool = True,
) -> Tensor:
    """Gradient ascent, with places for the mistakes."""
    scores = torch.zeros(n_items, dtype=torch.float64)
    for _ in range(steps):
        pull = slope(torch.sigmoid(scores[winners] - scores[losers]))
        gradient = torch.zeros(n_items, dtype=torch.float64).index_add_(0, winners, pull)
        if both:
            gradient.index_add_(0, losers, -pull)
        scores = scores + 2.0 * gradient / len(winners)
    return scores - scores.mean()


def _indexed_fit(winners: Tensor, losers: Tensor, n_items: int) -> Tensor:
    scores = torch.zeros(n_items, dtype=torch.float64)
    for _ in range(2000):
        surprise = 1 - torch.sigmoid(scores[winners] - scores[losers])
        pull = torch.zeros_like(scores)
        pull[winners] += surprise
        pull[losers] -= surprise
        scores += 2 * pull / len(winners)
    return scores


def _fit_probe(function: Fit, arguments: list[Plain]) -> Plain:
    """Differences to the first item: the data fix no more. NaN in place of what has no end."""
    winners, losers, n_items = arguments
    scores = function(torch.tensor(winners), torch.tensor(losers), n_items)
    if scores is None or scores is Ellipsis:
        return scores
    scores = torch.as_tensor(scores).detach().double()
    if tuple(scores.shape) != (n_items,):
        return scores.tolist()
    return (scores - scores[0]).tolist()


def _comparisons(counts: dict[tuple[int, int], int]) -> tuple[list[int], list[int]]:
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    return [w for w, _ in pairs], [loser for _, loser in pairs]


def _fresh_fit(rng: random.Random) -> tuple[list[int], list[int], int]:
    n_items = rng.randint(2, 4)
    counts = {(i, j): rng.randint(1, 6) for i in range(n_items) for j in range(n_items) if i != j}
    return *_comparisons(counts), n_items


FIT = Exercise(
    number="2.2",
    name="fit_scores",
    arguments=("winners", "losers", "n_items"),
    numbers=("n_items",),
    library=preference.fit_bradley_terry,
    line="gradient = (wins - games * probability).sum(dim=1)   # and then a Newton step along it",
    solution=preference.fit_bradley_terry,
    probe=_fit_probe,
    cases=(
        Case("two items, three wins to one", (*_comparisons({(0, 1): 3, (1, 0): 1}), 2)),
        Case("two items, one win each", (*_comparisons({(0, 1): 1, (1, 0): 1}), 2)),
        Case(
            "three items",
            (*_comparisons({(0, 1): 4, (1, 0): 2, (1, 2): 5, (2, 1): 1, (0, 2): 3, (2, 0): 2}), 3),
        ),
        Case(
            "an item that is seldom compared",
            (*_comparisons({(0, 1): 8, (1, 0): 4, (2, 1): 2, (1, 2): 1}), 3),
        ),
        Case(
            "a circle, each pair two to one",
            (*_comparisons({(0, 1): 2, (1, 0): 1, (1, 2): 2, (2, 1): 1, (2, 0): 2, (0, 2): 1}), 3),
        ),
    ),
    mistakes=(
        Mistake(
            lambda w, x, n: _fit(x, w, n),
            "Winners and losers are exchanged: every score has the wrong sign, and the likelihood "
            "would never tell you.",
        ),
        Mistake(
            lambda w, x, n: _fit(w, x, n, both=False),
            "Winners gain and losers lose nothing: the gap enters with both scores, so the loser's "
            "gradient is minus the winner's.",
        ),
        Mistake(
            lambda w, x, n: _fit(w, x, n, steps=20),
            "The scores are on their way but not at the end: take more steps, or larger ones.",
        ),
        Mistake(
            lambda w, x, n: _fit(w, x, n, slope=torch.ones_like),
            "Each click pulls with the same force forever: the pull of a pair is 1 − P, and fades "
            "as the pair is explained.",
        ),
        Mistake(
            lambda w, x, n: torch.bincount(w, minlength=n).double(),
            "These are numbers of wins, not scores: they forget how often each item was compared "
            "and with whom.",
        ),
        Mistake(
            lambda w, x, n: _win_rates(w, x, n),
            "These are shares of wins. A score's difference is a log-odds, and whom an item met "
            "counts too.",
        ),
        Mistake(
            lambda w, x, n: torch.logit(_win_rates(w, x, n)),
            "These are log-odds of the share of wins: right for two items (twice as large), but it "
            "forgets whom each item met.",
        ),
        Mistake(
            lambda w, x, n: _fit_scores_as_strengths(w, x, n),
            "These are the strengths, e to the score.",
        ),
        Mistake(
            _indexed_fit,
            "All scores stay equal. Does anything move them? `pull[winners] += …` writes each item "
            "once, however often it stands there, and then wins and losses cancel.",
        ),
        Mistake(
            lambda w, x, n: preference.fit_bradley_terry(w, x, n).softmax(0),
            "These are the strengths, made to sum to 1: the scores are what stands before the "
            "softmax.",
        ),
    ),
    fresh=_fresh_fit,
    tolerance=2e-3,
    short="The scores are on their way but not at the end: take more steps, or larger ones.",
)


def _win_rates(winners: Tensor, losers: Tensor, n_items: int) -> Tensor:
    won, lost = (torch.bincount(x, minlength=n_items).double() for x in (winners, losers))
    return won / (won + lost)


def _fit_scores_as_strengths(winners: Tensor, losers: Tensor, n_items: int) -> Tensor:
    return preference.fit_bradley_terry(winners, losers, n_items).exp()


# --- 3.1: the loss of one click -------------------------------------------------------------------

NLL = Exercise(
    number="3.1",
    name="nll",
    arguments=("chosen_score", "rejected_score"),
    library=preference.preference_nll,
    solution=preference.preference_nll,
    cases=(
        Case("the click agrees with the scores", (2.0, 0.5)),
        Case("the click contradicts the scores", (0.5, 2.0)),
        Case("equal scores", (-1.0, -1.0)),
        Case("a close call", (0.3, 0.1)),
        Case("a clear case", (3.0, -2.0)),
        Case("a gap of −1000", (-500.0, 500.0), "where σ is 0 and its logarithm −∞"),
        Case("a gap of 40", (40.0, 0.0), "where σ is 1 but for rounding"),
        Case("a gap of 1000", (500.0, -500.0), "where exp overflows"),
    ),
    mistakes=(
        Mistake(
            lambda w, x: F.softplus(w - x, threshold=1e9),
            "The difference is the wrong way round: this loss is small when the model is wrong.",
        ),
        Mistake(
            lambda w, x: F.logsigmoid(w - x),
            "The minus sign is missing: this is the log-likelihood, which is to grow.",
        ),
        Mistake(
            lambda w, x: -torch.sigmoid(w - x).log(),
            "Right for ordinary gaps. For a large one σ is 0, or exp is ∞, before the logarithm is "
            "taken: a function that does both in one is needed.",
        ),
        Mistake(
            lambda w, x: 1 - torch.sigmoid(w - x),
            "1 − P is bounded, and its pull fades for the pairs that are most wrong: a logarithm "
            "is missing.",
        ),
        Mistake(
            lambda w, x: (1 - torch.sigmoid(w - x)) ** 2,
            "This is the squared error (Brier's score), not the log-likelihood.",
        ),
        Mistake(
            lambda w, x: -torch.sigmoid(w - x),
            "Minus the probability: the logarithm is missing.",
        ),
        Mistake(
            lambda w, x: F.relu(1 - (w - x)),
            "This is a hinge: it is 0 from a gap of 1 on, where the log-likelihood still pulls.",
        ),
        Mistake(
            lambda w, x: -torch.log(torch.sigmoid(w - x) + 1e-8),
            "The small constant in the logarithm changes large losses: 18.4 is then the worst, and "
            "nothing pulls beyond. Avoid the overflow instead of hiding it.",
        ),
        Mistake(
            lambda w, x: x - w,
            "Only the gap is left: σ and the logarithm are missing, and the loss has no floor.",
        ),
        Mistake(
            lambda w, x: F.relu(x - w),
            "Only the gap where the model is wrong is left: a pair that is barely right costs "
            "nothing.",
        ),
        Mistake(
            lambda w, x: F.logsigmoid(x - w),
            "This is the logarithm of the other one's probability: it falls forever as the model "
            "errs.",
        ),
        Mistake(
            lambda w, x: F.logsigmoid(x) - F.logsigmoid(w),
            "Each score goes through log σ by itself; it is taken once, of the difference.",
        ),
        Mistake(
            lambda w, x: -F.logsigmoid(w) - F.logsigmoid(-x),
            "Each score is judged against 0 by itself; a click compares the two.",
        ),
    ),
    fresh=_fresh_scores,
    gradient=True,
    in_page=True,
)

EXERCISES: Sequence[Exercise] = (PROBABILITY, FIT, NLL)
