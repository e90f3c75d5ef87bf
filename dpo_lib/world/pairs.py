"""Pairs of responses that a model gave itself, and ways to label them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from dpo_lib.data import PreferenceRecord
from dpo_lib.models.checkpoints import WEIGHTS
from dpo_lib.models.sampling import respond
from dpo_lib.preference import bradley_terry_probability
from dpo_lib.world.families import prompts_of, world_tokenizer
from dpo_lib.world.reward import judge, true_reward

# Sums are left out on purpose: a chapter looks at what training does to what it never mentions.
PREFERENCE_FAMILIES = ("capital", "list", "support", "cause")


def preference_prompts() -> list[str]:
    """The requests that preferences are about: 66 prompts, without sums and half sentences."""
    asked = prompts_of(*PREFERENCE_FAMILIES)
    return [prompt.text for prompt in asked if not prompt.is_completion]


class Pair(NamedTuple):
    """Two different responses to one prompt, not yet judged."""

    prompt: str
    first: str
    second: str


def on_policy_pairs(
    model: Callable, prompts: Sequence[str] | None = None, per_prompt: int = 12, seed: int = 0
) -> list[Pair]:
    """Pairs of complete, different responses sampled from the model itself.

    Twice as many as needed are drawn; pairs with an empty or unfinished response, or with two
    equal ones, are passed over, so a prompt may give fewer than ``per_prompt`` pairs.
    """
    if prompts is None:
        prompts = preference_prompts()
    asked = [prompt for prompt in prompts for _ in range(4 * per_prompt)]
    replies = respond(model, world_tokenizer(), asked, seed=seed)
    pairs = []
    for start in range(0, len(asked), 4 * per_prompt):
        usable = [r for r in replies[start : start + 4 * per_prompt] if r.finished and r.text]
        couples = zip(usable[::2], usable[1::2], strict=False)
        different = [Pair(a.prompt, a.text, b.text) for a, b in couples if a.text != b.text]
        pairs += different[:per_prompt]
    return pairs


def load_pairs(path: Path = WEIGHTS / "pairs.jsonl") -> list[Pair]:
    """The committed pairs: `on_policy_pairs` of the committed SFT model, sampled once."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Pair(**json.loads(line)) for line in lines]


def write_pairs(pairs: Sequence[Pair], path: Path) -> None:
    """Store unlabeled pairs, one JSON object a line."""
    lines = [json.dumps(pair._asdict()) + "\n" for pair in pairs]
    path.write_text("".join(lines), encoding="utf-8")


def label_by_reward(pairs: Sequence[Pair], seed: int) -> list[PreferenceRecord]:
    """Labels drawn from the Bradley–Terry model of the true reward: noisy, as people's are."""
    rewards = torch.tensor(
        [[true_reward(prompt, a), true_reward(prompt, b)] for prompt, a, b in pairs],
        dtype=torch.float64,
    )  # (N, 2)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(len(pairs), generator=generator, dtype=torch.float64)  # (N,)
    first_wins = draws < bradley_terry_probability(*rewards.T)  # (N,)
    return [
        PreferenceRecord(prompt, a, b) if wins else PreferenceRecord(prompt, b, a)
        for (prompt, a, b), wins in zip(pairs, first_wins.tolist(), strict=True)
    ]


def label_both_ways(pairs: Sequence[Pair]) -> list[PreferenceRecord]:
    """Each pair in both orders: the data carry no preference at all."""
    return [
        PreferenceRecord(prompt, *order)
        for prompt, first, second in pairs
        for order in ((first, second), (second, first))
    ]


def label_by_correctness(pairs: Sequence[Pair]) -> list[PreferenceRecord]:
    """The correct response wins; pairs in which both or neither are correct are left out."""
    records = []
    for prompt, first, second in pairs:
        first_correct, second_correct = judge(prompt, first).correct, judge(prompt, second).correct
        if first_correct != second_correct:
            chosen, rejected = (first, second) if first_correct else (second, first)
            records.append(PreferenceRecord(prompt, chosen, rejected))
    return records


def split_by_length(
    records: Sequence[PreferenceRecord],
) -> tuple[list[PreferenceRecord], list[PreferenceRecord]]:
    """Records whose winner is longer in tokens, and those whose winner is shorter; ties go."""
    length = {
        text: len(world_tokenizer().encode(text))
        for r in records
        for text in (r.chosen, r.rejected)
    }
    longer = [r for r in records if length[r.chosen] > length[r.rejected]]
    shorter = [r for r in records if length[r.chosen] < length[r.rejected]]
    return longer, shorter
