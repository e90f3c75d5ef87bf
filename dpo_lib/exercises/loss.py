"""Chapters 6 and 9: the naive loss, the best policy, the DPO loss."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dpo_lib import closed_form, losses
from dpo_lib.exercises.sheet import Case, Exercise, Mistake, fresh_lists

# --- 6.1: the loss of a pair whose score is the log-probability -----------------------------------


def _naive(chosen: Tensor, rejected: Tensor) -> Tensor:
    zero = torch.zeros_like(chosen)
    return losses.naive_loss(chosen, rejected, zero, zero, beta=1.0).losses


def _fresh_naive(rng: random.Random) -> tuple[list[float], ...]:
    return fresh_lists(2, lambda: -30 * rng.random())


NAIVE = Exercise(
    number="6.1",
    name="naive_loss",
    arguments=("chosen", "rejected"),
    library=losses.naive_loss,
    line="-logsigmoid(policy_chosen_logps - policy_rejected_logps)",
    solution=_naive,
    cases=(
        Case("the chosen response is likelier", (-2.0, -3.5)),
        Case("the rejected response is likelier", (-7.0, -4.0)),
        Case("both are equally likely", (-5.0, -5.0)),
        Case("a long chosen response", (-21.5, -18.0)),
        Case("a gap so large that exp overflows", (-2000.0, -3.0), "where exp overflows"),
        Case("a gap so large that the loss is all but 0", (-3.0, -45.0), "where 1 − P is 0"),
    ),
    mistakes=(
        Mistake(
            lambda chosen, rejected: F.softplus(chosen - rejected),
            "The sign of the gap is turned: this loss falls when the rejected response gains.",
        ),
        Mistake(
            lambda chosen, rejected: F.logsigmoid(chosen - rejected),
            "This is the log-likelihood, which is to grow. A loss is to fall.",
        ),
        Mistake(
            lambda chosen, rejected: torch.sigmoid(chosen - rejected),
            "This is the probability of the label, not yet a loss.",
        ),
        Mistake(
            lambda chosen, rejected: 1 - torch.sigmoid(chosen - rejected),
            "1 − P is the loss that chapter 3 gave up: its pull fades on the pairs most wrong.",
        ),
        Mistake(
            lambda chosen, rejected: rejected - chosen,
            "Only the gap is left: it has no floor, so a settled pair would be pulled forever.",
        ),
        Mistake(
            lambda chosen, rejected: -chosen,
            "This is the loss of imitation: the rejected response does not appear.",
        ),
        Mistake(
            lambda chosen, rejected: F.softplus(rejected.exp() - chosen.exp()),
            "The scores are the probabilities here, without the logarithm; the score of chapter 4 "
            "is log π.",
        ),
        Mistake(
            lambda chosen, rejected: F.relu(1 - (chosen - rejected)),
            "This is a hinge: it stops pulling at a gap of 1. Bradley–Terry never stops quite.",
        ),
        Mistake(
            lambda chosen, rejected: F.softplus(0.1 * (rejected - chosen)),
            "A β of 0.1 has crept in; here it is 1.",
        ),
        Mistake(
            lambda chosen, rejected: F.softplus(-chosen - rejected, threshold=50.0),
            "The two log-probabilities are added: the loss would fall as the rejected response "
            "gains.",
        ),
        Mistake(
            lambda chosen, rejected: F.softplus(-chosen / rejected),
            "A ratio of logarithms is no log-odds: the gap is a difference.",
        ),
        Mistake(
            lambda chosen, rejected: -torch.sigmoid(chosen - rejected),
            "Minus the probability: the logarithm is missing.",
        ),
        Mistake(
            lambda chosen, rejected: F.logsigmoid(chosen) - F.logsigmoid(rejected),
            "Each log-probability goes through log σ by itself; it is taken once, of the gap.",
        ),
    ),
    fresh=_fresh_naive,
    gradient=True,
    in_page=True,
)

# --- 9.1: the best policy -------------------------------------------------------------------------


def _optimal(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    return closed_form.optimal_policy(reference.log(), rewards, beta).exp()


def _overflowing_policy(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    weights = reference * (rewards / beta).exp()
    return weights / weights.sum()


def _distribution(rng: random.Random, n: int) -> list[float]:
    weights = [rng.expovariate(1) + 0.01 for _ in range(n)]
    return [w / sum(weights) for w in weights]


def _fresh_optimal(rng: random.Random) -> tuple[list[float], list[float], float]:
    n = rng.randint(2, 6)
    return _distribution(rng, n), [rng.gauss(0, 2) for _ in range(n)], rng.uniform(0.2, 3)


OPTIMAL_POLICY = Exercise(
    number="9.1",
    name="optimal_policy",
    arguments=("reference", "rewards", "beta"),
    numbers=("beta",),
    library=closed_form.optimal_policy,
    line="log_softmax(reference_logps + rewards / beta)   # its exp, for probabilities",
    solution=_optimal,
    cases=(
        Case("three responses", ([0.5, 0.3, 0.2], [1.0, 2.0, 0.0], 1.0)),
        Case("the same at half the beta", ([0.5, 0.3, 0.2], [1.0, 2.0, 0.0], 0.5)),
        Case("equal rewards", ([0.7, 0.2, 0.1], [1.5, 1.5, 1.5], 0.3)),
        Case("a uniform reference", ([0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 2.0, -1.0], 2.0)),
        Case("negative rewards", ([0.1, 0.9], [-3.0, -4.5], 1.5)),
        Case(
            "rewards so large that exp overflows",
            ([0.5, 0.5], [900.0, 901.0], 0.5),
            "where exp overflows",
        ),
    ),
    mistakes=(
        Mistake(
            lambda reference, rewards, beta: (rewards / beta).softmax(-1),
            "The reference is missing: this is the best policy where every response starts equal.",
        ),
        Mistake(
            lambda reference, rewards, beta: (reference.log() + rewards * beta).softmax(-1),
            "β stands on the wrong side: a greater β leaves the policy nearer to the reference.",
        ),
        Mistake(
            lambda reference, rewards, beta: (reference.log() + rewards).softmax(-1),
            "β is missing.",
        ),
        Mistake(
            lambda reference, rewards, beta: reference * (rewards / beta).exp(),
            "These are the weights before they are divided by Z: they do not sum to 1.",
        ),
        Mistake(
            lambda reference, rewards, beta: (reference + rewards / beta).softmax(-1),
            "The reference enters as a probability where its logarithm belongs (or as a term where "
            "it is a factor).",
        ),
        Mistake(
            lambda reference, rewards, beta: (reference.log() - rewards / beta).softmax(-1),
            "The sign of the rewards is turned round: the worst response gains.",
        ),
        Mistake(
            lambda reference, rewards, beta: (reference.log() / beta + rewards / beta).softmax(-1),
            "β divides the reference too: only the reward is divided by it.",
        ),
        Mistake(
            lambda reference, rewards, beta: (reference.log() + rewards / beta).log_softmax(-1),
            "These are log-probabilities; the exercise asks for probabilities.",
        ),
        Mistake(
            lambda reference, rewards, beta: reference * (rewards / beta).softmax(-1),
            "Normalized too early: the product with the reference must be divided by its own sum.",
        ),
        Mistake(
            _overflowing_policy,
            "Right for ordinary rewards. For large ones an exponent is so large that exp is ∞, and "
            "∞ over ∞ is not a number: stay with logarithms until the end.",
        ),
        Mistake(
            lambda reference, rewards, beta: reference.log() + rewards / beta,
            "These are logits: exp and the division by the sum are missing.",
        ),
        Mistake(
            lambda reference, rewards, beta: F.one_hot(rewards.argmax(), len(rewards)).double(),
            "All goes to the response with the highest reward: that is the leash cut, β at 0.",
        ),
        Mistake(
            lambda reference, rewards, beta: reference * rewards / (reference * rewards).sum(),
            "The reference is multiplied by the rewards themselves; it is e to reward over β.",
        ),
        Mistake(
            lambda reference, rewards, beta: (rewards / beta - reference.log()).softmax(-1),
            "The reference is divided by where it multiplies: what it finds unlikely gains.",
        ),
    ),
    fresh=_fresh_optimal,
    in_page=True,
)

# --- 9.2: the DPO loss ----------------------------------------------------------------------------


def _dpo(*pair: Tensor | float) -> Tensor:
    return losses.dpo_loss(*pair).losses


def _margin(margin: Tensor) -> Tensor:
    return F.softplus(-margin, threshold=40.0)


def _fresh_dpo(rng: random.Random) -> tuple[list[float] | float, ...]:
    return *fresh_lists(4, lambda: -20 * rng.random()), rng.uniform(0.05, 2)


DPO_LOSS = Exercise(
    number="9.2",
    name="dpo_loss",
    arguments=("chosen", "rejected", "ref_chosen", "ref_rejected", "beta"),
    numbers=("beta",),
    library=losses.dpo_loss,
    line="chosen_rewards = beta * (policy_chosen - reference_chosen)\n"
    "rejected_rewards = beta * (policy_rejected - reference_rejected)\n"
    "losses = -logsigmoid(chosen_rewards - rejected_rewards)",
    solution=_dpo,
    cases=(
        Case("at the start, where the policy is the reference", (-10.0, -4.0, -10.0, -4.0, 0.1)),
        Case("a pair that moved the right way", (-2.1, -4.5, -3.0, -3.2, 0.1)),
        Case("the same pair at another beta", (-2.1, -4.5, -3.0, -3.2, 1.0)),
        Case("a pair that moved the wrong way", (-6.0, -4.0, -5.0, -4.5, 0.5)),
        Case("a long response that the reference finds unlikely", (-80.0, -9.0, -90.0, -7.0, 0.3)),
        Case(
            "a gap so large that exp overflows",
            (-2000.0, -1.0, -1.0, -2000.0, 1.0),
            "where exp overflows",
        ),
        Case("a margin of 45", (-1.0, -50.0, -2.0, -6.0, 1.0), "where 1 − P is 0"),
    ),
    mistakes=(
        Mistake(
            lambda c, r, rc, rr, beta: _margin(beta * ((r - rr) - (c - rc))),
            "The sign of the margin is turned round: this loss is small when the rejected response "
            "gains.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin(beta * (c - r)),
            "The reference is missing: this is the naive loss.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin(beta * ((c - rr) - (r - rc))),
            "The two reference log-probabilities are crossed, or added where they are subtracted.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin((c - rc) - (r - rr)),
            "β is missing.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: -_margin(beta * ((c - rc) - (r - rr))),
            "The value is right but for its sign: a loss is minus the log-probability.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: beta * _margin((c - rc) - (r - rr)),
            "β stands in front of the logarithm. It belongs inside, on the log-ratios.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin(((c - rc) - (r - rr)) / beta),
            "You divide by β where the reward multiplies by it.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: torch.sigmoid(beta * ((c - rc) - (r - rr))),
            "This is the probability of the label: take minus its logarithm.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: -beta * ((c - rc) - (r - rr)),
            "Only minus the margin is left: σ and the logarithm are missing.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin(beta * (c - rc)),
            "The rejected response does not appear: the chosen one is compared with 0.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin(beta * (c - r) - (rc - rr)),
            "β multiplies the policy's log-probabilities only; the reference's need it too.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: -torch.sigmoid(beta * ((c - rc) - (r - rr))),
            "Minus the probability: the logarithm is missing.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin(beta * (c - rc) - (r - rr)),
            "β multiplies the chosen response's log-ratio only; the rejected one's needs it too.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin(beta * (c - rc - r - rr)),
            "A bracket is missing: a minus before it turns the sign of the last term too.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin(beta * (c / rc - r / rr)),
            "A ratio of logarithms is not the logarithm of the ratio: that is a difference.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: ((c - rc) - (r - rr) - 1 / (2 * beta)) ** 2,
            "This is the loss of IPO, a squared distance; DPO's is −log σ.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: F.relu(1 - beta * ((c - rc) - (r - rr))),
            "This is a hinge: it stops pulling at a margin of 1. −log σ never stops quite.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin(beta * (c - rc)) + _margin(beta * (rr - r)),
            "Each response is judged against the reference by itself; DPO compares the two.",
        ),
        Mistake(
            lambda c, r, rc, rr, beta: _margin(beta * (c - rc)) - _margin(beta * (r - rr)),
            "Each log-ratio goes through log σ by itself; it is taken once, of their difference.",
        ),
    ),
    fresh=_fresh_dpo,
    gradient=True,
    in_page=True,
)

EXERCISES: Sequence[Exercise] = (NAIVE, OPTIMAL_POLICY, DPO_LOSS)
