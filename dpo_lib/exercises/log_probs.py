"""Chapters 1, 4 and 5: the loss of imitation, a response's log-probability, and its slice."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from torch import Tensor

from dpo_lib import logprobs
from dpo_lib.exercises.sheet import Case, Exercise, Mistake, Plain

# --- 1.1: the loss of imitation -------------------------------------------------------------------


def imitation_loss(token_log_probs: Tensor, is_response: Tensor) -> Tensor:
    """Mean negative log-probability (nats) of the response tokens of a batch, both ``(B, T)``."""
    return -token_log_probs[is_response].mean()


def _fresh_imitation(rng: random.Random) -> tuple[list[list[float]], list[list[bool]]]:
    rows, length = rng.randint(1, 4), rng.randint(3, 7)
    values = [[-5 * rng.random() for _ in range(length)] for _ in range(rows)]
    mask = [[False] + [rng.random() < 0.6 for _ in range(length - 2)] + [True] for _ in range(rows)]
    return values, mask


def _rows_first(values: Tensor, mask: Tensor) -> Tensor:
    return -((values * mask).sum(1) / mask.sum(1)).mean()


F_, T_ = False, True
IMITATION = Exercise(
    number="1.1",
    name="imitation_loss",
    arguments=("token_log_probs", "is_response"),
    library=imitation_loss,
    line="-token_log_probs[is_response].mean()",
    solution=imitation_loss,
    cases=(
        Case("one row, a prompt of two tokens", ([[-3.0, -2.0, -0.5, -0.1]], [[F_, F_, T_, T_]])),
        Case(
            "responses of different lengths",
            (
                [[-1.0, -2.5, -0.3, -0.2, -0.4], [-4.0, -1.5, -2.0, -0.6, -9.0]],
                [[F_, T_, T_, T_, T_], [F_, F_, F_, T_, F_]],
            ),
        ),
        Case("a certain token and an unlikely one", ([[-2.0, 0.0, -7.0]], [[F_, T_, T_]])),
        Case(
            "three rows",
            (
                [[-1.0, -1.5, -0.2], [-2.0, -0.7, -0.9], [-0.3, -3.0, -0.4]],
                [[F_, T_, T_], [F_, F_, T_], [F_, T_, T_]],
            ),
        ),
    ),
    mistakes=(
        Mistake(
            lambda v, m: -v.mean(),
            "The prompt is scored too (and padding): the model would be trained to write the "
            "reader's questions. Only response tokens count.",
        ),
        Mistake(
            lambda v, m: v[m].mean(),
            "The sign is missing: log-probabilities are below 0, and a loss falls as they rise.",
        ),
        Mistake(
            lambda v, m: -(v * m).mean(),
            "The sum over response tokens is divided by the number of all tokens: long prompts "
            "would make the loss look small.",
        ),
        Mistake(
            lambda v, m: -v[m].sum(),
            "This is the sum: it grows with the batch and with the length. Take the mean.",
        ),
        Mistake(
            _rows_first,
            "This averages each row first and the rows then, so a token of a short response counts "
            "more. The exercise asks for the mean over tokens.",
        ),
        Mistake(
            lambda v, m: -v[~m].mean(),
            "The mask is turned round: this scores the prompt.",
        ),
        Mistake(
            lambda v, m: -v[m].exp().mean(),
            "This averages the probabilities, not their logarithms: an impossible token would cost "
            "next to nothing.",
        ),
        Mistake(
            lambda v, m: -(v * m).sum() / len(v),
            "This divides by the number of rows, not of response tokens.",
        ),
        Mistake(
            lambda v, m: (
                -v[:, :-1][m[:, :-1]].mean() if m[:, :-1].any() else torch.tensor(math.nan)
            ),
            "The last token is left out: that is the end of the response, and a model that never "
            "sees it never stops.",
        ),
        Mistake(
            lambda v, m: (-v[m].mean()).exp(),
            "This is the perplexity, e to the loss: stop one step earlier.",
        ),
        Mistake(
            lambda v, m: -v[m].median(),
            "This is the median token; every token counts, the unlikely ones most.",
        ),
    ),
    fresh=_fresh_imitation,
    gradient=True,
)

# --- 4.1: the log-probability of a response -------------------------------------------------------


def _fresh_probabilities(rng: random.Random) -> tuple[list[float]]:
    return ([rng.uniform(0.01, 1) for _ in range(rng.randint(1, 8))],)


RESPONSE_LOG_PROB = Exercise(
    number="4.1",
    name="response_log_prob",
    arguments=("token_probs",),
    library=logprobs.get_sequence_log_probs,
    line="token_log_probs.sum(dim=-1)",
    solution=lambda p: p.log().sum(),
    cases=(
        Case("two tokens", ([0.82, 0.74],)),
        Case("one token", ([0.3],)),
        Case("a certain token adds nothing", ([0.5, 1.0, 0.25],)),
        Case(
            "one token of a billionth",
            ([0.9, 1e-9, 0.95, 0.8],),
            "where a token is all but impossible",
        ),
        Case("three hundred tokens of 0.05", ([0.05] * 300,), "where the product is too small"),
    ),
    mistakes=(
        Mistake(
            lambda p: p.prod().log(),
            "Right for short responses. The product of many probabilities is too small for a "
            "float and becomes 0: add logarithms instead.",
        ),
        Mistake(
            lambda p: p.prod(),
            "This is the probability: take logarithms, and add them.",
        ),
        Mistake(
            lambda p: p.log().mean(),
            "This is the mean over tokens. It is no log-probability of anything; take the sum.",
        ),
        Mistake(
            lambda p: p.sum().log(),
            "The logarithm comes last here: log of a sum is not the sum of logarithms.",
        ),
        Mistake(
            lambda p: -p.log().sum(),
            "The sign is turned round: this is the negative log-likelihood, above 0.",
        ),
        Mistake(
            lambda p: p.sum(),
            "Probabilities are added: those of tokens that all must come are multiplied, and so "
            "their logarithms are added.",
        ),
        Mistake(
            lambda p: p.log2().sum(),
            "These are bits, with base 2; nats have base e.",
        ),
        Mistake(
            lambda p: p[:-1].log().sum(),
            "The last token is left out: it is the end of the response, and it counts.",
        ),
        Mistake(
            lambda p: p[1:].log().sum(),
            "The first token is left out: it, too, was chosen by the model.",
        ),
        Mistake(
            lambda p: (p + 1e-8).log().sum(),
            "A small constant is added in the logarithm, and every value is a little wrong.",
        ),
        Mistake(
            lambda p: (p * p.log()).sum(),
            "Each logarithm is weighted by its probability, as in an entropy. These tokens stand "
            "there: each counts once.",
        ),
        Mistake(
            lambda p: p[0].log(),
            "Only the first token is counted: does the return stand inside the loop?",
        ),
        Mistake(
            lambda p: p.log().min(),
            "Only the least likely token is counted; all of them must come.",
        ),
        Mistake(
            lambda p: p.log_softmax(-1).sum(),
            "The softmax is done already: these are probabilities, not logits.",
        ),
    ),
    fresh=_fresh_probabilities,
    in_page=True,
    tolerance=1e-9,
)

# --- 5.1: from logits to the log-probability of a response ----------------------------------------


def _solution(logits: Tensor, tokens: Tensor, prompt_length: int, mask: Tensor) -> Tensor:
    return logprobs.get_sequence_log_probs(
        lambda tokens, attention_mask=None: logits,
        tokens[:, :prompt_length],
        tokens[:, prompt_length:],
        response_mask=mask,
    )


def _score(
    logits: Tensor,
    tokens: Tensor,
    start: int,
    mask: Tensor | None,
    *,
    shift: int = 1,
    normalize: bool = True,
    mean: bool = False,
) -> Tensor:
    """Sum over the tokens from ``start`` on, each with the logits ``shift`` positions earlier."""
    length = tokens.shape[1] - start
    values = logits.log_softmax(-1) if normalize else logits
    rows = values[:, start - shift : start - shift + length]
    picked = rows.gather(-1, tokens[:, start : start + rows.shape[1], None]).squeeze(-1)
    if mask is not None:
        picked = picked * mask[:, : picked.shape[1]]
    return picked.sum(-1) / (mask.sum(-1) if mean else 1)


def _late(logits: Tensor, tokens: Tensor, prompt_length: int, mask: Tensor) -> Tensor:
    return _score(logits, tokens, prompt_length, mask, shift=0)


def _wrong_axis(logits: Tensor, tokens: Tensor, prompt_length: int, mask: Tensor) -> Tensor:
    values = logits.log_softmax(1)[:, prompt_length - 1 : -1]
    return (values.gather(-1, tokens[:, prompt_length:, None]).squeeze(-1) * mask).sum(-1)


def _early(logits: Tensor, tokens: Tensor, prompt_length: int, mask: Tensor) -> Tensor:
    values = logits[:, prompt_length - 2 : -2].log_softmax(-1)
    return (values.gather(-1, tokens[:, prompt_length:, None]).squeeze(-1) * mask).sum(-1)


def _unlogged(logits: Tensor, tokens: Tensor, prompt_length: int, mask: Tensor) -> Tensor:
    values = logits[:, prompt_length - 1 : -1].softmax(-1)
    return (values.gather(-1, tokens[:, prompt_length:, None]).squeeze(-1) * mask).sum(-1)


def _over_batch(logits: Tensor, tokens: Tensor, prompt_length: int, mask: Tensor) -> Tensor:
    values = logits.log_softmax(0)[:, prompt_length - 1 : -1]
    return (values.gather(-1, tokens[:, prompt_length:, None]).squeeze(-1) * mask).sum(-1)


def _last_left_out(logits: Tensor, tokens: Tensor, prompt_length: int, mask: Tensor) -> Tensor:
    values = logits[:, prompt_length - 1 : -2].log_softmax(-1)
    taken = values.gather(-1, tokens[:, prompt_length:-1, None]).squeeze(-1)
    return (taken * mask[:, :-1]).sum(-1)


def _greedy(logits: Tensor, tokens: Tensor, prompt_length: int, mask: Tensor) -> Tensor:
    values = logits.log_softmax(-1)[:, prompt_length - 1 : -1]
    return (values.amax(-1) * mask).sum(-1)


def _with_prompt(logits: Tensor, tokens: Tensor, prompt_length: int, mask: Tensor) -> Tensor:
    prompt = torch.ones(len(tokens), prompt_length - 1, dtype=mask.dtype)
    return _score(logits, tokens, 1, torch.cat([prompt, mask], dim=1))


def _first_left_out(logits: Tensor, tokens: Tensor, prompt_length: int, mask: Tensor) -> Tensor:
    return _score(logits, tokens, prompt_length + 1, mask[:, 1:])


def _logits(rng: random.Random, rows: int, length: int, vocabulary: int) -> Plain:
    return [
        [[round(rng.gauss(0, 2), 2) for _ in range(vocabulary)] for _ in range(length)]
        for _ in range(rows)
    ]


def _batch(
    rng: random.Random, prompt_length: int, lengths: Sequence[int], vocabulary: int = 5
) -> tuple[Plain, Plain, int, Plain]:
    """Logits, tokens, prompt length and response mask of rows that are padded on the right."""
    longest = max(lengths)
    total = prompt_length + longest
    tokens = [[rng.randrange(1, vocabulary) for _ in range(total)] for _ in lengths]
    mask = [[t < n for t in range(longest)] for n in lengths]
    for row, n in zip(tokens, lengths, strict=True):
        row[prompt_length + n :] = [0] * (longest - n)
    return _logits(rng, len(lengths), total, vocabulary), tokens, prompt_length, mask


def _fresh_batch(rng: random.Random) -> tuple[Plain, Plain, int, Plain]:
    lengths = [rng.randint(1, 4) for _ in range(rng.randint(1, 3))]
    return _batch(rng, rng.randint(1, 3), lengths)


_RNG = random.Random(5)
SEQUENCE_LOG_PROBS = Exercise(
    number="5.1",
    name="sequence_log_probs",
    arguments=("logits", "tokens", "prompt_length", "response_mask"),
    numbers=("prompt_length",),
    library=logprobs.get_sequence_log_probs,
    line="predictions = logits[:, prompt_length - 1 : -1]\n"
    "chosen = predictions.gather(-1, response[..., None]).squeeze(-1)\n"
    "(chosen - predictions.logsumexp(-1)).masked_fill(~response_mask, 0.0).sum(-1)",
    solution=_solution,
    cases=(
        Case("one row, two prompt tokens", _batch(_RNG, 2, [3])),
        Case("two rows of one length", _batch(_RNG, 2, [2, 2])),
        Case("rows of different lengths", _batch(_RNG, 3, [4, 1, 2])),
        Case("a prompt of one token", _batch(_RNG, 1, [2, 3])),
        Case("a response of one token", _batch(_RNG, 4, [1])),
    ),
    mistakes=(
        Mistake(
            _late,
            "Your slice starts one position late: each token is scored with the logits at its own "
            "place, which already know it. The logits that predict a token stand one before it.",
        ),
        Mistake(
            lambda g, t, n, m: _score(g, t, n, None),
            "Padding is scored too: multiply by the mask, or fill with 0, before you add.",
        ),
        Mistake(
            _with_prompt,
            "The prompt's tokens are scored too: start at the response.",
        ),
        Mistake(
            _first_left_out,
            "The first response token is left out: it is predicted by the last prompt position.",
        ),
        Mistake(
            lambda g, t, n, m: _score(g, t, n, m, normalize=False),
            "These are raw logits: without log_softmax over the vocabulary they are no "
            "log-probabilities.",
        ),
        Mistake(
            lambda g, t, n, m: _score(g, t, n, m, mean=True),
            "This is the mean over the tokens of a response; the sum is its log-probability.",
        ),
        Mistake(
            _wrong_axis,
            "log_softmax runs over positions here. It belongs over the vocabulary, the last axis.",
        ),
        Mistake(
            _greedy,
            "This scores the likeliest token at each place, not the one that stands there: gather "
            "by the response's ids.",
        ),
        Mistake(
            lambda g, t, n, m: -_solution(g, t, n, m),
            "The sign is turned round: these are negative log-likelihoods.",
        ),
        Mistake(
            lambda g, t, n, m: _solution(g, t, n, m).exp(),
            "These are probabilities: for responses of ordinary length they vanish.",
        ),
        Mistake(
            lambda g, t, n, m: _solution(g, t, n, m).mean(),
            "One number for the whole batch; each pair needs the value of its own row.",
        ),
        Mistake(
            lambda g, t, n, m: _score(g, t, n, ~m),
            "The mask is turned round: padding is scored, and the response is not.",
        ),
        Mistake(
            _early,
            "Your slice starts one position early: the logits before the prompt's last token do "
            "not know it yet.",
        ),
        Mistake(
            _last_left_out,
            "The last token is left out: it is the end of the longest response, and it counts.",
        ),
        Mistake(
            _unlogged,
            "These are sums of probabilities: the logarithm is missing.",
        ),
        Mistake(
            lambda g, t, n, m: _unlogged(g, t, n, m).log(),
            "The logarithm comes last here: log of a sum is not the sum of logarithms.",
        ),
        Mistake(
            _over_batch,
            "log_softmax runs over the rows of the batch here. It belongs over the vocabulary, "
            "the last axis.",
        ),
        Mistake(
            lambda g, t, n, m: _solution(g, t, n, m) / m.shape[1],
            "This is the mean over the places of the longest response; the sum is wanted.",
        ),
    ),
    fresh=_fresh_batch,
    gradient=True,
)

EXERCISES: Sequence[Exercise] = (IMITATION, RESPONSE_LOG_PROB, SEQUENCE_LOG_PROBS)
