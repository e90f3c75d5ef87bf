"""Measures of a policy: how good it is, and how far it has gone from its reference.

Two views that must not be mixed up: `evaluate_margins` scores *given* responses, as the loss
does; `evaluate_samples` looks at what the policy now *writes*. Each can look fine when the other
does not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dpo_lib._validation import (
    as_float_tensor,
    as_number,
    check_paired_log_probs,
    check_positive,
    check_whole,
)
from dpo_lib.data import PreferenceDataset, Tokenizer
from dpo_lib.fast.pair_log_probs import log_probs_of_rows
from dpo_lib.logprobs import get_pair_log_probs, get_sequence_log_probs, pad
from dpo_lib.models.sampling import Reply, respond
from dpo_lib.rewards import dpo_reward, naive_reward, reward_accuracy
from dpo_lib.scores import pair_scores, tie_width

Model = Callable[..., Any]


class Verdict(Protocol):
    """What is known of one reply; that of the tiny world is `dpo_lib.world.judge`'s."""

    @property
    def reward(self) -> float:
        """True reward."""

    @property
    def correct(self) -> bool:
        """Whether it answers the prompt."""

    @property
    def malformed(self) -> bool:
        """Whether it is no whole answer."""


class Estimate(NamedTuple):
    """A mean over samples and its standard error."""

    mean: float
    error: float


class Share(NamedTuple):
    """A share of samples and its 95% interval."""

    share: float
    low: float
    high: float


class MarginReport(NamedTuple):
    """Means over the pairs of a dataset; log-probabilities and rewards in nats."""

    pairs: int
    accuracy: float  # share with the higher reward on the chosen side; ties count one half
    margin: float  # chosen reward minus rejected reward
    chosen_reward: float
    rejected_reward: float
    chosen_logp: float  # log π(chosen) under the policy
    rejected_logp: float
    chosen_shift: float  # log π(chosen) − log π_ref(chosen); NaN without a reference
    rejected_shift: float


class KLEstimates(NamedTuple):
    """Three estimates of KL(policy ‖ reference) in nats, from samples of the policy."""

    k1: Estimate  # unbiased, may be negative
    k2: Estimate  # never negative, biased, good when the two are close
    k3: Estimate  # unbiased and never negative; heavy-tailed when the two are far apart


class SampleReport(NamedTuple):
    """What a policy writes: means over sampled replies."""

    replies: int
    true_reward: Estimate
    correct: float  # share
    malformed: float  # share
    length: float  # tokens, EOS included
    entropy: Estimate  # of whole responses given the prompt (nats)
    kl: KLEstimates | None  # from the reference, where one was given


@torch.no_grad()
def evaluate_margins(
    policy: Model,
    reference: Model | None,
    dataset: PreferenceDataset,
    beta: float = 0.1,
    batch_size: int = 256,
) -> MarginReport:
    """Score the pairs of a dataset by the policy's own reward.

    Parameters
    ----------
    policy : callable
        Causal language model, see `get_sequence_log_probs`.
    reference : callable or None
        Frozen reference. Without one the naive reward ``beta * log π`` is used.
    dataset : PreferenceDataset
        Best held out: in training, accuracy rises whatever the model writes.
    beta : float
        Scale of the reward, above 0.
    batch_size : int
        Pairs to a forward pass; changes no result.

    Returns
    -------
    MarginReport

    Raises
    ------
    ValueError
        If ``beta`` is not above 0, or from the log-probabilities.
    """
    beta = check_positive(beta, "beta")

    def log_probs(model: Model) -> tuple[Tensor, Tensor]:
        def padded(rows: Sequence[dict[str, list[int]]]) -> tuple[Tensor, Tensor]:
            return get_pair_log_probs(model, dataset.collate(rows))

        return log_probs_of_rows(padded, dataset.rows, batch_size)

    reference_logps = None if reference is None else log_probs(reference)
    scores = pair_scores(log_probs(policy), reference_logps, dataset.rows)
    logps = torch.stack([scores.chosen, scores.rejected])  # (2, N)
    if reference is None:
        rewards, shifts = beta * naive_reward(logps), torch.full_like(logps, float("nan"))
    else:
        kept = torch.stack([scores.reference_chosen, scores.reference_rejected])  # (2, N)
        rewards = dpo_reward(logps, kept, beta)  # (2, N)
        shifts = rewards / beta
    return MarginReport(
        len(dataset),
        reward_accuracy(*rewards, tie_width(scores, beta)).item(),
        (rewards[0] - rewards[1]).mean().item(),
        *rewards.mean(dim=1).tolist(),
        *logps.mean(dim=1).tolist(),
        *shifts.mean(dim=1).tolist(),
    )


def evaluate_samples(
    policy: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    reference: Model | None = None,
    *,
    judge: Callable[[str, str, bool], Verdict],
    per_prompt: int = 4,
    seed: int = 0,
    max_new_tokens: int = 24,
    temperature: float = 1.0,
) -> SampleReport:
    """Sample replies and look at them.

    Parameters
    ----------
    policy, reference : callable
        Causal language models; without a reference no KL is estimated.
    tokenizer : Tokenizer
    prompts : sequence of str
    judge : callable
        Gives a `Verdict` on (prompt, response, finished): `dpo_lib.world.judge` is the truth of
        the tiny world.
    per_prompt : int
        Replies to each prompt.
    seed : int
        Of the sampling.
    max_new_tokens : int
        Replies are cut there; a cut reply is scored without EOS, so that entropy and KL are
        those of the cut distribution.
    temperature : float
        1 samples the policy itself; at any other value entropy and KL would not be the
        policy's, so they are NaN and None.

    Returns
    -------
    SampleReport
    """
    asked = [prompt for prompt in prompts for _ in range(per_prompt)]
    replies = respond(policy, tokenizer, asked, max_new_tokens, temperature, seed=seed)
    judged = [judge(reply.prompt, reply.text, reply.finished) for reply in replies]
    entropy, kl = Estimate(float("nan"), float("nan")), None
    if temperature == 1.0:
        logps = reply_log_probs(policy, tokenizer, replies)  # (N,)
        entropy = estimate(-logps)
        if reference is not None:
            kl = estimate_kl(logps, reply_log_probs(reference, tokenizer, replies))
    return SampleReport(
        len(replies),
        estimate([j.reward for j in judged]),
        estimate([float(j.correct) for j in judged]).mean,
        estimate([float(j.malformed) for j in judged]).mean,
        estimate([float(reply.length) for reply in replies]).mean,
        entropy,
        kl,
    )


@torch.no_grad()
def reply_log_probs(
    model: Model, tokenizer: Tokenizer, replies: Sequence[Reply], batch_size: int = 512
) -> Tensor:
    """Log-probabilities (nats) of sampled replies under any model, shape ``(N,)``."""
    parts = []
    for start in range(0, len(replies), batch_size):
        some = replies[start : start + batch_size]
        rows = [tokenizer.encode_prompt(reply.prompt) for reply in some]
        prompt, prompt_mask = pad(rows, tokenizer.pad_id, "left")
        response, response_mask = pad([r.tokens for r in some], tokenizer.pad_id, "right")
        parts.append(get_sequence_log_probs(model, prompt, response, prompt_mask, response_mask))
    return torch.cat(parts)


def estimate_kl(policy_logps: object, reference_logps: object) -> KLEstimates:
    r"""Estimate :math:`\mathrm{KL}(\pi\,\|\,\pi_{\mathrm{ref}})` from samples of the policy.

    With :math:`\ell=\log\pi-\log\pi_{\mathrm{ref}}` of each sample, the means of
    :math:`k_1=\ell`, :math:`k_2=\ell^2/2` and :math:`k_3=e^{-\ell}-1+\ell`.

    Parameters
    ----------
    policy_logps, reference_logps : Tensor
        Sequence log-probabilities (nats) of the same samples, shape ``(N,)``. The samples must
        come from the policy; log-ratios on a preference dataset are not a KL.

    Raises
    ------
    ValueError
        If the shapes differ, or a value is not finite or above 0.

    References
    ----------
    Schulman (2020), "Approximating KL divergence", http://joschu.net/blog/kl-approx.html.
    """
    policy, reference = check_paired_log_probs(
        policy_logps=policy_logps, reference_logps=reference_logps
    )
    ratio = (policy - reference).flatten()  # (N,)
    return KLEstimates(
        estimate(ratio), estimate(ratio**2 / 2), estimate(torch.expm1(-ratio) + ratio)
    )


def least_kl(before: float, after: float) -> float:
    r"""The least KL (nats) at which a behavior's share can go from ``before`` to ``after``.

    No policy is nearer to the reference: :math:`q\log\frac qp+(1-q)\log\frac{1-q}{1-p}`, by the
    data-processing inequality. At :math:`q=1` it is :math:`-\log p`, which conditioning the
    reference on the behavior attains. For means over prompts it still is a bound, by convexity.

    Parameters
    ----------
    before, after : float
        Shares :math:`p` under the reference and :math:`q` under the policy.

    Raises
    ------
    ValueError
        If one is not in [0, 1].
    """
    before, after = as_number(before, "before"), as_number(after, "after")
    for name, value in (("before", before), ("after", after)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")

    def part(new: float, old: float) -> float:
        if new == 0:
            return 0.0
        return new * math.log(new / old) if old else math.inf

    return part(after, before) + part(1 - after, 1 - before)


def clustered_share(outcomes: Sequence[Sequence[float]]) -> Share:
    """The share of samples that come in clusters, such as several answers to each prompt.

    The interval is Wilson's, at as many independent samples as would vary as much as the clusters
    do: at least as many as there are clusters, at most as many as there are samples. Where all
    samples agree they say nothing of that, and count as one a cluster.

    Parameters
    ----------
    outcomes : sequence of sequences
        Of each cluster the outcomes: 1, 0, or something between.

    Raises
    ------
    ValueError
        If there is no outcome, a cluster has none, or one is not in [0, 1].

    References
    ----------
    Korn and Graubard (1998), "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data".
    """
    try:
        outcomes = [[as_number(value, "outcomes") for value in cluster] for cluster in outcomes]
    except TypeError as error:
        raise ValueError(f"outcomes must be sequences of numbers, got {outcomes!r:.60}") from error
    if not outcomes or not all(outcomes):
        raise ValueError("outcomes must hold at least one cluster, and each cluster an outcome")
    values = [value for cluster in outcomes for value in cluster]
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(f"outcomes must be in [0, 1], got {min(values)} to {max(values)}")
    number, clusters = len(values), len(outcomes)
    share = sum(values) / number
    effective = float(clusters)
    if 0 < share < 1 and clusters > 1:
        spread = sum((sum(cluster) - share * len(cluster)) ** 2 for cluster in outcomes)
        variance = spread * clusters / (clusters - 1) / number**2
        if variance > 0:
            effective = min(max(share * (1 - share) / variance, clusters), number)
        else:
            effective = float(number)
    return Share(share, *wilson_interval(share * effective, effective))


def estimate(values: object) -> Estimate:
    """Mean and standard error of independent values; one value has the error NaN."""
    values = as_float_tensor(values, "values").flatten()
    if len(values) == 0:
        raise ValueError("values must not be empty")
    error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return Estimate(values.mean().item(), error)


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """The 95% interval of a share by Wilson's score, which holds for few trials and extreme shares.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    successes, trials = as_number(successes, "successes"), as_number(trials, "trials")
    if not 0 <= successes <= trials or not 1 <= trials < math.inf:
        raise ValueError(
            f"successes must be between 0 and trials, got {successes}, and trials at least 1, "
            f"got {trials}"
        )
    z = 1.959964  # of the normal distribution 2.5% lie above
    share, spread = successes / trials, z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = (share * (1 - share) * spread + spread**2 / 4) ** 0.5 / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def enumerate_responses(
    vocab_size: int, max_length: int, eos_id: int, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Every response: those that end with EOS within ``max_length`` tokens, and those cut there.

    A model's probabilities of them sum to one, so that entropy and KL can be computed exactly
    with ``closed_form.entropy`` and ``closed_form.kl_divergence``. There are about
    ``vocab_size ** max_length``, so keep both small.

    Returns
    -------
    tokens, mask : Tensor
        Shape ``(K, max_length)``, padded on the right.
    """
    vocab_size = check_whole(vocab_size, "vocab_size", 1)
    eos_id, pad_id = check_whole(eos_id, "eos_id", 0), check_whole(pad_id, "pad_id")
    max_length = check_whole(max_length, "max_length", 1)
    if eos_id >= vocab_size:
        raise ValueError(
            f"eos_id must be in [0, vocab_size), got {eos_id} and vocab_size {vocab_size}"
        )
    others = [token for token in range(vocab_size) if token != eos_id]
    rows = [
        [*body, eos_id]
        for length in range(max_length)
        for body in itertools.product(others, repeat=length)
    ]
    rows += [list(body) for body in itertools.product(others, repeat=max_length)]
    return pad(rows, pad_id, "right")


@torch.no_grad()
def response_distribution(
    model: Model, prompt_tokens: Tensor, responses: Tensor, mask: Tensor
) -> Tensor:
    """Log-probabilities (nats) of enumerated responses to one prompt ``(P,)``, shape ``(K,)``."""
    prompts = prompt_tokens.expand(len(responses), -1)  # (K, P)
    return get_sequence_log_probs(model, prompts, responses, None, mask)
