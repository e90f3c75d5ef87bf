"""Appendix D: known scores made into preferences, with and without the size of their gaps.

The pairs are those of preference_runs.py, but their labels come from scores that are known: the
true reward, which is a sum of "is it right?" and of all else (manners, form, false claims). A
seed decides the held-out prompts and the order. The loop takes the batches of `train_dpo`, and
hands each pair's gap of rewards to ODPO.

python -m dpo_lib.experiments.score_gaps    writes dpo_lib/results/score_gaps.json
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from dpo_lib.data import PreferenceDataset, PreferenceRecord
from dpo_lib.experiments import preference_runs
from dpo_lib.experiments.beta_frontier import CONFIG, EARLY, measure
from dpo_lib.experiments.store import store
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.losses import odpo_loss
from dpo_lib.models import load_sft
from dpo_lib.reference import make_reference
from dpo_lib.world import judge, world_tokenizer
from dpo_lib.world.reward import RIGHT

SEEDS = range(5)
BETAS = [1.0, 0.3]
ARMS = ["winner only", "size as offset", "one label a score"]


class Labeled(NamedTuple):
    """Pairs in the order that scores give them, with the gap of their true rewards."""

    records: list[PreferenceRecord]
    gaps: list[float]


def scores_of(prompt: str, response: str) -> tuple[float, float]:
    """Two scores whose sum is the true reward: for being right, and for all else."""
    judgment = judge(prompt, response)
    right = RIGHT if judgment.correct else 0.0
    return right, judgment.reward - right


def labeled(records: Sequence[PreferenceRecord], arm: str) -> Labeled:
    """Label by the sum of the scores or, the last arm, by each score; equal scores give none."""
    kept, gaps = [], []
    for prompt, first, second in ((r.prompt, r.chosen, r.rejected) for r in records):
        (right, rest), (other_right, other_rest) = (
            scores_of(prompt, response) for response in (first, second)
        )
        apart = [right - other_right, rest - other_rest]
        for gap in apart if arm == "one label a score" else [sum(apart)]:
            if gap:
                order = (first, second) if gap > 0 else (second, first)
                kept.append(PreferenceRecord(prompt, *order))
                gaps.append(abs(gap))
    return Labeled(kept, gaps)


def train(
    policy: nn.Module,
    reference: nn.Module,
    dataset: PreferenceDataset,
    offsets: Sequence[float],
    seed: int,
    beta: float,
    steps: int,
) -> list[float]:
    """Train as `train_dpo` does, with an offset for each pair; the margin of each update."""
    offset, margins = torch.tensor(offsets), []
    optimizer = torch.optim.AdamW(policy.parameters(), lr=CONFIG.learning_rate, weight_decay=0.0)
    for step in range(steps):
        pairs = dataset.pairs_of_step(step, CONFIG.batch_size, seed)
        batch = dataset.batch(pairs.tolist())
        with torch.no_grad():
            kept = get_pair_log_probs(reference, batch)
        losses, chosen, rejected = odpo_loss(
            *get_pair_log_probs(policy, batch), *kept, beta, offset=offset[pairs]
        )
        optimizer.zero_grad()
        losses.mean().backward()
        nn.utils.clip_grad_norm_(policy.parameters(), CONFIG.max_grad_norm)
        optimizer.step()
        margins.append((chosen - rejected).mean().item())
    return margins


def run(seed: int, arm: str, beta: float, steps: int = CONFIG.steps) -> dict[str, Any]:
    """The end of one run; with offsets of 0 ODPO is DPO."""
    pairs = labeled(preference_runs.split(seed)[0].records, arm)
    dataset = PreferenceDataset(pairs.records, world_tokenizer())
    policy = load_sft()
    reference = make_reference(policy)
    sizes = pairs.gaps if arm == "size as offset" else [0.0] * len(dataset)
    margins = train(policy, reference, dataset, sizes, seed, beta, steps)
    row = {"arm": arm, "beta": beta, "seed": seed, "pairs": len(dataset)}
    early = margins[:EARLY]
    return row | {"early_margin": sum(early) / len(early)} | measure(policy, reference)


def main() -> None:
    """Run every seed with every arm and beta, and store the rows."""
    torch.set_num_threads(1)
    rows = [run(seed, arm, beta) for arm in ARMS for beta in BETAS for seed in SEEDS]
    settings = {
        "learning_rate": CONFIG.learning_rate,
        "batch_size": CONFIG.batch_size,
        "steps": CONFIG.steps,
        "seeds": SEEDS,
        "betas": BETAS,
        "sampling": preference_runs.SAMPLING,
    }
    store("score_gaps", settings, rows)


if __name__ == "__main__":
    main()
