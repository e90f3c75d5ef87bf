"""Chapters 7 and 8: the frozen reference, and the reward that is measured from it."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence

import torch
from torch import nn

from dpo_lib import reference, rewards
from dpo_lib.exercises.sheet import Case, Exercise, Mistake, Plain

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
        self.register_buffer("seen", torch.tensor([float(seed)]))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return (self.drop(self.embed[tokens]) * self.scale) @ self.out.T


def _reference_probe(function: Callable[..., object], arguments: list[Plain]) -> Plain:
    """What becomes of the copy while the policy is trained: yes (True) or no (False), in words."""
    policy = _Small(int(arguments[0])).train()
    tokens = torch.arange(4)
    with torch.no_grad():
        before = policy.eval()(tokens).clone()
    policy.train()
    found = function(policy)
    if found is None or found is Ellipsis:
        return found
    if not isinstance(found, nn.Module):
        return f"no model, but {type(found).__name__}"
    facts = [
        "another object" if found is not policy else "the policy itself",
        "dropout off" if not any(m.training for m in found.modules()) else "dropout on",
        "no gradients" if not any(p.requires_grad for p in found.parameters()) else "gradients",
        "policy learns" if all(p.requires_grad for p in policy.parameters()) else "policy frozen",
        "policy in train mode" if policy.training else "policy put into eval mode",
    ]
    with torch.no_grad():
        found_eval = copy.deepcopy(found).eval()
        same = torch.equal(found_eval(tokens), before)
        facts.append("the same outputs" if same else "other outputs")
        for parameter in policy.parameters():
            parameter.add_(1.0)
        policy.seen.add_(1.0)
        stays = torch.equal(copy.deepcopy(found).eval()(tokens), found_eval(tokens))
        stays = stays and torch.equal(found.seen, found_eval.seen)
        facts.append("stays put" if stays else "moves with the policy")
    return facts


def _frozen_alias(policy: nn.Module) -> nn.Module:
    return policy.eval().requires_grad_(False)


def _shallow(policy: nn.Module) -> nn.Module:
    return copy.copy(policy).eval().requires_grad_(False)


def _fresh_weights(policy: nn.Module) -> nn.Module:
    return type(policy)(12345).eval().requires_grad_(False)


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
            "Dropout is still on, so the reference says something else each time it is asked, and "
            "the rewards do not start at 0.",
        ),
        Mistake(
            _policy_in_eval,
            "The policy was put into eval mode on the way: copy first, then change the copy.",
        ),
        Mistake(
            _fresh_weights,
            "A new model of the same kind, with weights of its own: the reference must be a copy "
            "of the policy as it stands.",
        ),
        Mistake(
            lambda policy: policy.state_dict(),
            "These are the weights, not a model that can be asked; and they share the policy's "
            "storage.",
        ),
    ),
    fresh=lambda rng: (rng.randrange(10, 1000),),
)

# --- 8.1: the reward ------------------------------------------------------------------------------


def _fresh_reward(rng: random.Random) -> tuple[list[float], list[float], float]:
    return *([-20 * rng.random() for _ in range(5)] for _ in range(2)), rng.uniform(0.05, 2)


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
        Case("a long response", (-240.0, -243.0, 0.2)),
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
    ),
    fresh=_fresh_reward,
    gradient=True,
    in_page=True,
)

EXERCISES: Sequence[Exercise] = (MAKE_REFERENCE, DPO_REWARD)
