"""Chapters 7 and 8: the frozen reference, and the reward that is measured from it."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence

import torch
from torch import nn

from dpo_lib import reference, rewards
from dpo_lib.exercises.sheet import Case, Exercise, Mistake, Plain, fresh_lists

# --- 7.1: make a reference ------------------------------------------------------------------------


class _Small(nn.Module):
    """A model with all that can go wrong: weights, a buffer, a tied weight, dropout."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed = nn.Parameter(torch.randn(4, 3, generator=generator))
        self.out = self.embed
        self.scale = nn.Parameter(torch.rand(3, generator=generator))
        self.drop = nn.Dropout(0.5)
        self.bias = nn.Parameter(torch.zeros(4))
        self.register_buffer("seen", torch.tensor([float(seed)]))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.drop(self.embed[tokens]) * self.scale
        return hidden @ self.out.T + self.bias + self.seen


FACTS = (
    "what you return",
    "its mode",
    "its answers",
    "its outputs",
    "gradients of its weights",
    "gradients of the policy's weights",
    "the policy's mode",
    "while the policy is trained, your copy",
)


def _reference_probe(function: Callable[..., object], arguments: list[Plain]) -> Plain:
    """What becomes of the copy while the policy is trained, in the order of `FACTS`."""
    policy = _Small(int(arguments[0])).train()
    tokens = torch.arange(4)
    with torch.no_grad():
        before = policy.eval()(tokens).clone()
    policy.train()
    found = function(policy)
    if found is None or found is Ellipsis:
        return found
    if not isinstance(found, nn.Module):
        return f"no model, but something of type {type(found).__name__}"
    learns = {parameter.requires_grad for parameter in policy.parameters()}
    asks = {parameter.requires_grad for parameter in found.parameters()}
    facts = [
        "another object" if found is not policy else "the policy itself",
        "training" if any(m.training for m in found.modules()) else "eval",
        "",
        "",
        "none" if asks <= {False} else "all" if asks == {True} else "some",
        "all" if learns == {True} else "none" if learns == {False} else "some",
        "training" if policy.training else "eval",
        "",
    ]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        steady = torch.equal(found(tokens), found(tokens))
        facts[2] = "the same each time" if steady else "another each time"
        found_eval = copy.deepcopy(found).eval()
        same = torch.equal(found_eval(tokens), before)
        facts[3] = "those of the policy" if same else "others than the policy's"
        for weight in (*policy.parameters(), *policy.buffers()):
            weight.add_(1.0)
        stays = torch.equal(copy.deepcopy(found).eval()(tokens), found_eval(tokens))
        facts[7] = "stays" if stays else "moves too"
    return facts


def _frozen_alias(policy: nn.Module) -> nn.Module:
    return policy.eval().requires_grad_(False)


def _shallow(policy: nn.Module) -> nn.Module:
    return copy.copy(policy).eval().requires_grad_(False)


def _fresh_weights(policy: nn.Module) -> nn.Module:
    return type(policy)(12345).eval().requires_grad_(False)


def _frozen_the_wrong_one(policy: nn.Module) -> nn.Module:
    made = copy.deepcopy(policy).eval()
    policy.requires_grad_(False)
    return made


def _without_copies(policy: nn.Module) -> nn.Module:
    made = copy.deepcopy(policy).eval().requires_grad_(False)
    for mine, other in zip(made.parameters(), policy.parameters(), strict=True):
        mine.data = other.data
    return made


def _policy_in_eval(policy: nn.Module) -> nn.Module:
    made = copy.deepcopy(policy.eval())
    return made.requires_grad_(False)


MAKE_REFERENCE = Exercise(
    number="7.1",
    name="make_reference",
    arguments=("policy",),
    numbers=("policy",),
    library=reference.make_reference,
    line="copy.deepcopy(policy).eval().requires_grad_(False)",
    solution=reference.make_reference,
    probe=_reference_probe,
    facts=FACTS,
    cases=(
        Case("a small model in training mode", (1,)),
        Case("another one", (2,)),
    ),
    mistakes=(
        Mistake(
            lambda policy: policy,
            "The reference is the policy itself: it moves too, and all rewards stay 0.",
        ),
        Mistake(
            _frozen_alias,
            "This freezes the policy itself and returns it: nothing can be trained any more.",
        ),
        Mistake(
            _shallow,
            "A shallow copy shares its weights with the policy: freezing it freezes both, and "
            "it would move with every update.",
        ),
        Mistake(
            copy.deepcopy,
            "A copy of its own, but neither frozen nor in eval mode: dropout makes its values "
            "random, and an optimizer could move it.",
        ),
        Mistake(
            lambda policy: copy.deepcopy(policy).eval(),
            "Its weights still ask for gradients: memory is spent on them, and an optimizer that "
            "is given both models would train it.",
        ),
        Mistake(
            lambda policy: copy.deepcopy(policy).requires_grad_(False),
            "It is still in training mode: dropout is on, so the reference says something else "
            "each time it is asked, and the rewards do not start at 0.",
        ),
        Mistake(
            _policy_in_eval,
            "The policy was put into eval mode on the way: copy first, then change the copy.",
        ),
        Mistake(
            _fresh_weights,
            "It says something else than the policy does: its weights are its own, or rounded, or "
            "wiped. The reference must be a copy of the policy as it stands.",
        ),
        Mistake(
            lambda policy: policy.state_dict(),
            "These are the weights, not a model that can be asked; and unless they are copied, "
            "they move with the policy.",
        ),
        Mistake(
            lambda policy: copy.deepcopy(policy.eval().requires_grad_(False)),
            "The policy was frozen first and copied then: now it cannot learn. Copy first, then "
            "change the copy.",
        ),
        Mistake(
            _frozen_the_wrong_one,
            "The loop freezes the weights of the policy, not those of the copy.",
        ),
        Mistake(
            _without_copies,
            "It is a model of its own whose weights are the policy's: each update moves both.",
        ),
    ),
    fresh=lambda rng: (rng.randrange(10, 1000),),
)

# --- 8.1: the reward ------------------------------------------------------------------------------


def _fresh_reward(rng: random.Random) -> tuple[list[float] | float, ...]:
    return *fresh_lists(2, lambda: -20 * rng.random()), rng.uniform(0.05, 2)


DPO_REWARD = Exercise(
    number="8.1",
    name="dpo_reward",
    arguments=("policy_logp", "ref_logp", "beta"),
    numbers=("beta",),
    library=rewards.dpo_reward,
    line="beta * (policy - reference)",
    solution=rewards.dpo_reward,
    cases=(
        Case("a response that became likelier", (-8.0, -9.5, 0.1)),
        Case("a response that became less likely", (-6.0, -4.0, 0.1)),
        Case("the same at another beta", (-6.0, -4.0, 0.5)),
        Case("a policy that is still the reference", (-12.0, -12.0, 0.3)),
        Case(
            "a response of a thousand tokens",
            (-2400.0, -2403.0, 0.2),
            "where the probability itself is too small for a float",
        ),
        Case("a beta of 2", (-1.0, -3.5, 2.0)),
    ),
    mistakes=(
        Mistake(
            lambda p, r, beta: beta * (r - p),
            "The difference is the wrong way round: a response that became likelier is punished.",
        ),
        Mistake(
            lambda p, r, beta: beta * p,
            "The reference is missing: this is the naive reward, times β.",
        ),
        Mistake(
            lambda p, r, beta: p - r,
            "β is missing: this is the log-ratio.",
        ),
        Mistake(
            lambda p, r, beta: (p - r) / beta,
            "You divide by β; the reward is β times the log-ratio.",
        ),
        Mistake(
            lambda p, r, beta: beta * p / r,
            "A ratio of logarithms is not the logarithm of the ratio: that is a difference.",
        ),
        Mistake(
            lambda p, r, beta: beta * (p - r).exp(),
            "This is β times the ratio of probabilities; its logarithm is missing.",
        ),
        Mistake(
            lambda p, r, beta: beta * (p.exp() - r.exp()),
            "The probabilities are subtracted, not their logarithms.",
        ),
        Mistake(
            lambda p, r, beta: beta * p - r,
            "β multiplies the policy's part only; it stands before the whole difference.",
        ),
        Mistake(
            lambda p, r, beta: beta * (p + r),
            "The reference is added where it is subtracted.",
        ),
        Mistake(
            lambda p, r, beta: beta * (p - r).abs(),
            "The sign is lost: a response can become less likely, and its reward is then below 0.",
        ),
        Mistake(
            lambda p, r, beta: p - beta * r,
            "β multiplies the reference's part only; it stands before the whole difference.",
        ),
        Mistake(
            lambda p, r, beta: beta * (p / r).log(),
            "The logarithm is taken of a ratio of logarithms; log-probabilities need none any "
            "more.",
        ),
        Mistake(
            lambda p, r, beta: beta + (p - r),
            "β is added where it multiplies.",
        ),
        Mistake(
            lambda p, r, beta: torch.sigmoid(beta * (p - r)),
            "σ belongs to a pair of rewards; a reward by itself has no bounds.",
        ),
        Mistake(
            lambda p, r, beta: (p - r) ** beta,
            "β is an exponent here; it multiplies.",
        ),
        Mistake(
            lambda p, r, beta: 0.1 * (p - r),
            "β is given and not used: it is always 0.1 here.",
        ),
    ),
    fresh=_fresh_reward,
    gradient=True,
    in_page=True,
)

EXERCISES: Sequence[Exercise] = (MAKE_REFERENCE, DPO_REWARD)
