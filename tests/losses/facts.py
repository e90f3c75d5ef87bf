"""What is known of each loss: a row for each, which the common checks run through.

The formulas are written from the papers, on Python floats, in terms of each response's own
log-ratio and of log-sum-exp: not of a margin and softplus as in the library.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from hypothesis import strategies as st

from dpo_lib.losses import LOSSES


def log_add_exp(a, b):
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def sigmoid(x):
    return (1 + math.tanh(x / 2)) / 2


def log_odds(log_p):
    log_rest = math.log(-math.expm1(log_p)) if log_p > -0.6 else math.log1p(-math.exp(log_p))
    return log_p - log_rest


def nll(a, b):
    """Minus the log of e^a / (e^a + e^b)."""
    return max(a, b) - a + math.log1p(math.exp(-abs(a - b)))


def exp(x):
    return math.exp(min(x, 60.0))


def logit(p):
    return math.log(p / (1 - p))


def zero_of(rising):
    """Where a rising function is 0, by halving."""
    low, high = -500.0, 500.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return low


NONE = MappingProxyType({})


class Facts(NamedTuple):
    """A loss as its paper has it."""

    plain: Callable[..., float]  # (a, b, beta, q, **options): see `plain_value`
    optimum: Callable[..., float] | None = None  # (p, beta, **options), see `test_the_optimal_gap`
    options: Mapping = NONE  # values to draw
    needs: Mapping = NONE  # options without a default, with a value
    at_optimum: Mapping = NONE  # options for the optimum
    betas: tuple = (0.1, 1.0)  # for the optimum
    beta: float = 0.1  # the default
    reference: bool = True
    lengths: bool = False
    means: bool = False  # rewards are per token
    coupled: bool = False
    paper: str = "arXiv:"


class Q(NamedTuple):
    """What is not a log-ratio: the policy's two sums, and the lengths."""

    w: float
    l: float  # noqa: E741
    nw: int
    nl: int


def with_offset(p, offset):
    """Best margin z if the winner, whichever it is, has to win by an offset."""
    k = math.exp(-offset)
    root = math.sqrt((2 * p - 1) ** 2 + 4 * p * (1 - p) * k * k)
    return math.log((2 * p - 1 + root) / (2 * (1 - p) * k))


share = st.floats(0, 0.45)
weight = st.floats(0, 5)

# a and b: the log-ratios of the chosen and the rejected response
FACTS = {
    "dpo": Facts(
        lambda a, b, beta, q: nll(beta * a, beta * b), lambda p, beta: logit(p) / beta
    ),
    "naive": Facts(
        lambda a, b, beta, q: nll(beta * q.w, beta * q.l), lambda p, beta: logit(p) / beta,
        beta=1.0, reference=False, paper="",
    ),
    "cdpo": Facts(
        lambda a, b, beta, q, label_smoothing=0.1: (1 - label_smoothing) * nll(beta * a, beta * b)
        + label_smoothing * nll(beta * b, beta * a),
        lambda p, beta, label_smoothing: logit(
            (1 - label_smoothing) * p + label_smoothing * (1 - p)
        ) / beta,
        options={"label_smoothing": share}, at_optimum={"label_smoothing": 0.2}, paper="Mitchell",
    ),
    "robust_dpo": Facts(
        lambda a, b, beta, q, label_smoothing=0.1: (
            (1 - label_smoothing) * nll(beta * a, beta * b)
            - label_smoothing * nll(beta * b, beta * a)
        ) / (1 - label_smoothing - label_smoothing),
        # flips turn the share of the clean labels into the share p that is seen
        lambda p, beta, label_smoothing: logit(
            (p - label_smoothing) / (1 - 2 * label_smoothing)
        ) / beta,
        options={"label_smoothing": share}, at_optimum={"label_smoothing": 0.05},
    ),
    "ipo": Facts(
        lambda a, b, beta, q: ((2 * beta * a - 2 * beta * b - 1) / (2 * beta)) ** 2,
        lambda p, beta: (2 * p - 1) / (2 * beta),
    ),
    "ipo_per_token": Facts(
        lambda a, b, beta, q: (a / q.nw - b / q.nl - 0.5 / beta) ** 2,
        lambda p, beta: 2 * (2 * p - 1) / (2 * beta), lengths=True, means=True,
    ),
    "hinge": Facts(
        lambda a, b, beta, q: 1 + beta * b - beta * a if beta * a < 1 + beta * b else 0.0,
        paper="arXiv:2309.06657",
    ),
    "odpo": Facts(
        lambda a, b, beta, q, offset: nll(beta * a - offset, beta * b),
        lambda p, beta, offset: with_offset(p, offset) / beta,
        options={"offset": st.floats(-5, 5)}, needs={"offset": 0.7}, at_optimum={"offset": 0.7},
    ),
    "r_dpo": Facts(
        lambda a, b, beta, q, alpha=0.01: nll(beta * a + alpha * q.nw, beta * b + alpha * q.nl),
        lambda p, beta, alpha: (logit(p) - alpha * (2 - 2)) / beta,
        options={"alpha": st.floats(0, 2)}, at_optimum={"alpha": 0.05}, lengths=True,
    ),
    "length_normalized_dpo": Facts(
        lambda a, b, beta, q: nll(beta * a / q.nw, beta * b / q.nl),
        lambda p, beta: 2 * logit(p) / beta, beta=5.0, lengths=True, means=True,
    ),
    "simpo": Facts(
        lambda a, b, beta, q, gamma=1.0: nll(beta * q.w / q.nw - gamma, beta * q.l / q.nl),
        lambda p, beta, gamma: 2 * with_offset(p, gamma) / beta,
        options={"gamma": weight}, at_optimum={"gamma": 0.5}, beta=2.0,
        reference=False, lengths=True, means=True,
    ),
    "orpo": Facts(
        lambda a, b, beta, q: -q.w / q.nw
        + beta * nll(log_odds(q.w / q.nw), log_odds(q.l / q.nl)),
        reference=False, lengths=True, means=True,
    ),
    "kto": Facts(
        lambda a, b, beta, q, kl, desirable_weight=1.0, undesirable_weight=1.0: 0.5
        * desirable_weight * (1 - sigmoid(beta * (a - kl)))
        + 0.5 * undesirable_weight * (1 - sigmoid(beta * (kl - b))),
        options={
            "kl": st.floats(0, 20),
            "desirable_weight": st.floats(0.1, 5),
            "undesirable_weight": st.floats(0.1, 5),
        },
        needs={"kl": 0.5}, coupled=True,
    ),
    "apo_zero": Facts(lambda a, b, beta, q: 1 - sigmoid(beta * a) + sigmoid(beta * b)),
    "apo_down": Facts(lambda a, b, beta, q: sigmoid(beta * a) + 1 - sigmoid(beta * a - beta * b)),
    "bco": Facts(
        lambda a, b, beta, q, shift=0.0: nll(beta * a, shift) + nll(shift, beta * b),
        lambda p, beta, shift: (logit(p) + shift) / beta,
        options={"shift": st.floats(-5, 5)}, at_optimum={"shift": 0.3},
    ),
    "nca": Facts(
        lambda a, b, beta, q: nll(beta * a, 0) + 0.5 * (nll(0, beta * a) + nll(0, beta * b)),
        lambda p, beta: math.log(2 * p) / beta,
    ),
    "sppo": Facts(
        lambda a, b, beta, q: (a - 0.5 / beta) ** 2 + (b + 0.5 / beta) ** 2,
        lambda p, beta: (2 * p - 1) / (2 * beta),
    ),
    "cal_dpo": Facts(
        lambda a, b, beta, q: nll(a, b) + (a - 0.5 / beta) ** 2 + (b + 0.5 / beta) ** 2,
        lambda p, beta: zero_of(lambda h: sigmoid(h) - p + 2 * h - (2 * p - 1) / beta),
    ),
    "dpop": Facts(
        lambda a, b, beta, q, penalty=50.0: nll(beta * a, beta * (b + penalty * max(0.0, -a))),
        lambda p, beta, penalty: logit(p) / beta,
        options={"penalty": st.floats(0, 100)}, at_optimum={"penalty": 5.0}, beta=0.3,
    ),
    "forward_kl_dpo": Facts(
        lambda a, b, beta, q: nll(-beta * exp(-a), -beta * exp(-b)),
        lambda p, beta: -math.log(1 - logit(p) / beta), betas=(4.0, 10.0),
    ),
    "js_dpo": Facts(
        lambda a, b, beta, q: nll(-beta * log_add_exp(0, -a), -beta * log_add_exp(0, -b)),
        lambda p, beta: logit(p) / beta - math.log(2 - math.exp(logit(p) / beta)),
        betas=(4.0, 10.0),
    ),
    "alpha_dpo": Facts(
        lambda a, b, beta, q, order=0.5: nll(
            -beta * exp(-order * a) / order, -beta * exp(-order * b) / order
        ),
        lambda p, beta, order: -math.log(1 - order * logit(p) / beta) / order,
        options={"order": st.floats(0.1, 2)}, at_optimum={"order": 0.3}, betas=(4.0, 10.0),
    ),
    "chi_po": Facts(
        lambda a, b, beta, q: nll(beta * (a - b), beta * (exp(b) - exp(a))),
        lambda p, beta: zero_of(lambda h: beta * (h + exp(h) - 1) - logit(p)),
    ),
    "sft": Facts(
        lambda a, b, beta, q: -q.w / q.nw, beta=1.0, reference=False, lengths=True, means=True,
        paper="",
    ),
    "rpo": Facts(
        lambda a, b, beta, q, alpha=1.0: nll(beta * a, beta * b) - alpha * q.w / q.nw,
        options={"alpha": weight}, lengths=True,
    ),
    "mpo": Facts(
        lambda a, b, beta, q, preference=0.8, quality=0.2, generation=1.0: preference
        * nll(beta * a, beta * b)
        + quality * (nll(beta * a, 0) + nll(0, beta * b)) - generation * q.w / q.nw,
        options=dict.fromkeys(("preference", "quality", "generation"), weight), lengths=True,
    ),
    "wpo": Facts(
        lambda a, b, beta, q: math.exp(q.w / q.nw) * math.exp(q.l / q.nl) * nll(beta * a, beta * b),
        lambda p, beta: logit(p) / beta, lengths=True,
    ),
}  # fmt: skip


def lengths_for(name, lw, ll):
    """The lengths as keywords, if the loss takes them."""
    return {"chosen_lengths": lw, "rejected_lengths": ll} if FACTS[name].lengths else {}


def plain_value(name, values, beta, lw, ll, **options):
    """A loss in plain Python, of four log-probabilities."""
    pc, pr, rc, rr = values
    return FACTS[name].plain(pc - rc, pr - rr, beta, Q(pc, pr, lw, ll), **options)


def call(name, values, *beta, lw=3, ll=3, **options):
    """The library's loss of the same."""
    options = {**FACTS[name].needs, **options}
    return LOSSES[name](*values, *beta, **lengths_for(name, lw, ll), **options)
