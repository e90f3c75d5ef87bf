"""Chapters 7 and 10: how far a policy has gone, and one step of training."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dpo_lib import evaluation, losses
from dpo_lib.exercises.sheet import Case, Exercise, Mistake, Plain, plain
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.training.step import dpo_training_step

# --- 7.2: KL from samples -------------------------------------------------------------------------


def _k3(policy: Tensor, ref: Tensor) -> float:
    return evaluation.estimate_kl(policy, ref).k3.mean


def _fresh_kl(rng: random.Random) -> tuple[list[float], list[float]]:
    ref = [-15 * rng.random() - 1 for _ in range(rng.randint(2, 8))]
    return [min(0.0, x + rng.gauss(0.2, 0.8)) for x in ref], ref


KL = Exercise(
    number="7.2",
    name="kl_from_samples",
    arguments=("policy_logps", "ref_logps"),
    library=evaluation.estimate_kl,
    line="ratio = policy_logps - reference_logps\n(torch.expm1(-ratio) + ratio).mean()",
    solution=_k3,
    cases=(
        Case("three samples", ([-4.0, -6.5, -3.0], [-4.6, -6.1, -4.2])),
        Case("one sample that the reference likes better", ([-7.0], [-5.5])),
        Case("policy and reference agree", ([-4.0, -9.0], [-4.0, -9.0])),
        Case("four samples", ([-2.0, -12.0, -8.0, -1.0], [-2.5, -13.0, -7.5, -3.0])),
        Case(
            "two responses of hundreds of tokens",
            ([-800.0, -901.0], [-801.0, -900.5]),
            "where the probability itself is too small for a float",
        ),
    ),
    mistakes=(
        Mistake(
            lambda p, r: (p - r).mean(),
            "This is k1, the mean log-ratio: right on average, but one batch of it can be below 0, "
            "as no KL can. Add the term that mends that.",
        ),
        Mistake(
            lambda p, r: (r - p).mean(),
            "The mean log-ratio, and the wrong way round: on samples of the policy the policy's "
            "log-probability comes first.",
        ),
        Mistake(
            lambda p, r: (p - r).square().mean() / 2,
            "This is k2: never negative, but biased where the two models are far apart.",
        ),
        Mistake(
            lambda p, r: (torch.expm1(p - r) - (p - r)).mean(),
            "The ratio in the exponent is turned round: on samples of the policy it is reference "
            "over policy, whose mean is 1.",
        ),
        Mistake(
            lambda p, r: (torch.expm1(r - p) + (p - r)).sum(),
            "This is the sum over the samples; KL is a mean and does not grow with their number.",
        ),
        Mistake(
            lambda p, r: (torch.exp(r - p) + (p - r)).mean(),
            "A 1 is left over: where the models agree this gives 1, and KL is 0 there.",
        ),
        Mistake(
            lambda p, r: (p.exp() * (p - r)).sum(),
            "Each sample is weighted by its probability again. They are samples of the policy "
            "already: likely responses come more often, which is the weight.",
        ),
        Mistake(
            lambda p, r: torch.expm1(r - p).mean(),
            "This mean is 0 for any two models, but for chance: the log-ratio itself is missing.",
        ),
        Mistake(
            lambda p, r: (p - r).abs().mean(),
            "The size of each log-ratio: that is never negative, but it is not the KL.",
        ),
        Mistake(
            lambda p, r: (torch.expm1(r - p) + (r - p)).mean(),
            "The log-ratio is added with the wrong sign: both terms fall together, and nothing is"
            " canceled.",
        ),
        Mistake(
            lambda p, r: torch.expm1((r - p).mean()) + (p - r).mean(),
            "The mean is taken before e to it: of each sample the whole term, and then the mean.",
        ),
        Mistake(
            lambda p, r: (p - r).mean().clamp(min=0),
            "Cut off at 0, the mean log-ratio is biased: the negative half of its noise is lost.",
        ),
        Mistake(
            lambda p, r: (torch.expm1(r - p) + (p - r)).sum() / (len(p) - 1),
            "Divided by one too few: nothing was estimated from the samples before, so all of "
            "them count.",
        ),
    ),
    fresh=_fresh_kl,
    tolerance=1e-9,
)

# --- 10.1: one step of training -------------------------------------------------------------------

Step = Callable[..., Any]


class _Bigram(nn.Module):
    """The smallest causal language model: the next token depends on the last one."""

    def __init__(self, seed: int, vocabulary: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(vocabulary, vocabulary, generator=generator, dtype=torch.float64)
        self.table = nn.Parameter(table)

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.table[tokens]


FACTS = (
    "steps of the given optimizer in two updates",
    "its learning rate",
    "the policy's mode",
    "the reference",
    "gradients in the reference",
    "loss of the first update",
    "what it moved",
    "weights after it",
    "loss of the second update",
    "what it moved",
    "weights after it",
)


def _step_probe(function: Step, arguments: list[Plain]) -> Plain:
    """What two updates do, in the order of `FACTS`."""
    seed, beta = arguments
    policy = _Bigram(seed)
    reference = copy.deepcopy(policy)
    with torch.no_grad():
        policy.table += 0.3 * torch.randn(
            policy.table.shape,
            generator=torch.Generator().manual_seed(seed + 1),
            dtype=torch.float64,
        )
    kept = reference.table.detach().clone()
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.5)
    steps = []
    optimizer.register_step_post_hook(lambda *_: steps.append(1))
    generator = torch.Generator().manual_seed(seed + 2)
    seen: list[Plain] = []
    for _ in range(2):
        draw = torch.randint(5, (3, 8), generator=generator)
        batch = {"prompt": draw[:, :2], "chosen": draw[:, 2:5], "rejected": draw[:, 5:]}
        before = policy.table.detach().clone()
        value = function(policy, reference, optimizer, batch, beta)
        if value is None or value is Ellipsis:
            return value
        if torch.is_tensor(value) and value.requires_grad:
            return "a tensor that still hangs on its graph, and keeps it in memory: take its number"
        number = plain(value)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return f"something of type {type(value).__name__} where one number is wanted"
        asked = policy.table.grad is not None and bool(policy.table.grad.any())
        stood = "no weight" if asked else "no weight, and left no gradient"
        moved = not torch.equal(policy.table, before)
        seen += [
            float(number),
            "the weights" if moved else stood,
            policy.table.detach().flatten()[:8].tolist(),
        ]
    around = [
        len(steps),
        optimizer.param_groups[0]["lr"],
        "training" if policy.training else "eval",
        "stays" if torch.equal(reference.table, kept) else "moves",
        "none" if reference.table.grad is None else "some",
    ]
    return around + seen


def _step(
    policy: nn.Module,
    reference: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Mapping[str, Tensor],
    beta: float,
    *,
    zero: bool = True,
    late_zero: bool = False,
    step: bool = True,
    free: bool = False,
    turned: bool = False,
    total: bool = False,
    after: bool = False,
    sign: float = 1.0,
    early: bool = False,
    half_turned: bool = False,
    times: int = 1,
) -> float:
    """The library's step, with places for the mistakes."""
    chosen, rejected = get_pair_log_probs(policy, batch)
    if turned or half_turned:
        chosen, rejected = rejected, chosen
    with torch.set_grad_enabled(free):
        ref_chosen, ref_rejected = get_pair_log_probs(reference, batch)
    if turned:
        ref_chosen, ref_rejected = ref_rejected, ref_chosen
    each = losses.dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta).losses
    loss = sign * (each.sum() if total else each.mean())
    if early:
        optimizer.step()
    if zero:
        optimizer.zero_grad()
    loss.backward()
    if late_zero:
        optimizer.zero_grad()
    for _ in range(times if step and not early else 0):
        optimizer.step()
    if after:
        with torch.no_grad():
            pairs = (*get_pair_log_probs(policy, batch), ref_chosen, ref_rejected)
            return losses.dpo_loss(*pairs, beta).losses.mean().item()
    return loss.item()


def _with(**slip: bool) -> Step:
    return lambda *arguments: _step(*arguments, **slip)


def _naive_step(
    policy: nn.Module, reference: nn.Module, optimizer: Any, batch: Any, beta: float
) -> float:
    chosen, rejected = get_pair_log_probs(policy, batch)
    loss = losses.naive_loss(
        chosen, rejected, chosen.detach(), rejected.detach(), beta
    ).losses.mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _two_updates(*arguments: Any) -> float:
    _step(*arguments)
    return _step(*arguments)


def _left_in_eval(policy: nn.Module, *others: Any) -> float:
    return _step(policy.eval(), *others)


def _own_optimizer(policy: nn.Module, reference: nn.Module, optimizer: Any, *others: Any) -> float:
    return _step(policy, reference, torch.optim.SGD(policy.parameters(), 0.5), *others)


def _imitation_step(
    policy: nn.Module, reference: nn.Module, optimizer: Any, batch: Any, beta: float
) -> float:
    loss = -get_pair_log_probs(policy, batch)[0].mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _fresh_step(rng: random.Random) -> tuple[int, float]:
    return rng.randrange(1000), rng.uniform(0.1, 1.5)


TRAINING_STEP = Exercise(
    number="10.1",
    name="dpo_training_step",
    arguments=("model_number", "beta"),
    numbers=("model_number", "beta"),
    library=dpo_training_step,
    solution=lambda policy, reference, optimizer, batch, beta: dpo_training_step(
        policy, reference, optimizer, batch, beta
    )[0],
    probe=_step_probe,
    facts=FACTS,
    called=("policy", "reference", "optimizer", "batch", "beta"),
    cases=(
        Case("two updates of a small model", (1, 0.1)),
        Case("another model, a greater beta", (2, 1.0)),
        Case("a third one", (7, 0.5)),
    ),
    mistakes=(
        Mistake(
            _with(zero=False),
            "The gradients of earlier batches are still there, and add up.",
        ),
        Mistake(
            _with(late_zero=True),
            "When the optimizer steps, no gradient is there: backward() is missing, or comes from"
            " a loss that is not tied to the policy, or zero_grad() wipes what it left.",
        ),
        Mistake(
            _with(step=False),
            "The loss and its gradients are right, and the weights never move.",
        ),
        Mistake(
            _with(free=True),
            "The update is right, but the reference was run with gradients: they cost memory, and "
            "an optimizer that also held its weights would move it. Use torch.no_grad().",
        ),
        Mistake(
            _with(turned=True),
            "Chosen and rejected are exchanged: this trains the model toward what people rejected.",
        ),
        Mistake(
            _with(total=True),
            "The losses are summed over the batch: the rate would have to change with the batch "
            "size. Take the mean.",
        ),
        Mistake(
            lambda p, r, o, b, beta: _step(p, r, o, b, 1.0),
            "beta is given and not handed on to the loss.",
        ),
        Mistake(
            lambda p, r, o, b, beta: _step(p, p, o, b, beta, free=True),
            "The policy is its own reference here: every reward is 0, the loss stays at log 2, and "
            "nothing is learned.",
        ),
        Mistake(
            lambda p, r, o, b, beta: _step(p, p, o, b, beta),
            "The policy is its own reference here: each step starts again at log 2, and nothing "
            "holds the policy near to where it began.",
        ),
        Mistake(
            _naive_step,
            "The reference is never asked: this is naive training.",
        ),
        Mistake(
            _with(after=True),
            "The loss is computed again after the update; what the step returns is the loss that "
            "it descended.",
        ),
        Mistake(
            _with(sign=-1.0),
            "The loss has the wrong sign: this step goes uphill.",
        ),
        Mistake(
            _with(early=True),
            "The optimizer steps before backward(): it uses the gradients of the batch before.",
        ),
        Mistake(
            _with(times=2),
            "The optimizer steps twice with the same gradients.",
        ),
        Mistake(
            _two_updates,
            "The policy is updated twice for each batch; one step is asked for.",
        ),
        Mistake(
            lambda p, r, o, b, beta: _step(r, p, o, b, beta),
            "Policy and reference have changed places: the gradient goes to the reference, and no"
            " weight of the policy moves.",
        ),
        Mistake(
            _left_in_eval,
            "The policy is left in eval mode: its dropout would be off in training from now on.",
        ),
        Mistake(
            _own_optimizer,
            "The weights are moved, but not by the optimizer that you are given: its rate and its"
            " memory of earlier steps are lost.",
        ),
        Mistake(
            _imitation_step,
            "This trains the policy to imitate the chosen responses; the loss of a pair is "
            "missing.",
        ),
        Mistake(
            lambda p, r, o, b, beta: _step(p, r, o, b, 0.1),
            "beta is given and not handed on to the loss: it is always 0.1, which is its default.",
        ),
        Mistake(
            _with(half_turned=True),
            "Chosen and rejected are exchanged for one of the two models only.",
        ),
    ),
    fresh=_fresh_step,
)

EXERCISES: Sequence[Exercise] = (KL, TRAINING_STEP)
