"""Chapters 6 and 7: train on labels without any preference, with and without a reference.

Every pair of the tiny world stands in the data in both orders, so nothing can be learned from it.
Both runs of a seed start from the SFT model and see the same batches. At β = 1, the first file, the
chapters show everything; the second has the β at which DPO is mostly trained.

python -m dpo_lib.experiments.coin_flip    writes dpo_lib/results/coin_flip.json
                                           and dpo_lib/results/coin_flip_low_beta.json
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from dpo_lib.data import PreferenceDataset
from dpo_lib.evaluation import evaluate_samples
from dpo_lib.experiments.store import store
from dpo_lib.losses import dpo_loss, naive_loss
from dpo_lib.models import load_sft
from dpo_lib.reference import make_reference
from dpo_lib.training import DPOConfig, train_dpo
from dpo_lib.world import judge, label_both_ways, load_pairs, preference_prompts, world_tokenizer

SEEDS = range(8)  # of the order of the pairs
LOSSES = {"dpo": dpo_loss, "naive": naive_loss}
LOW_BETA = 0.1
CONFIG = DPOConfig(beta=1.0, learning_rate=2e-4, steps=60, batch_size=64, eval_every=20)
SAMPLING = {"per_prompt": 16, "seed": 77}  # the same random numbers for every policy


def measure(policy: nn.Module, reference: nn.Module) -> dict[str, float]:
    """What the policy writes to the prompts of the pairs."""
    report = evaluate_samples(
        policy, world_tokenizer(), preference_prompts(), reference, judge=judge, **SAMPLING
    )
    return {
        "kl": report.kl.k1.mean,
        "true_reward": report.true_reward.mean,
        "length": report.length,
        "malformed": report.malformed,
        "correct": report.correct,
        "entropy": report.entropy.mean,
    }


def run(seed: int, name: str, beta: float = CONFIG.beta) -> list[dict[str, Any]]:
    """Train once; a row for each evaluation."""
    policy = load_sft()
    reference = make_reference(policy)
    dataset = PreferenceDataset(label_both_ways(load_pairs()), world_tokenizer())
    config = replace(CONFIG, seed=seed, beta=beta)
    history = train_dpo(
        policy,
        reference,
        dataset,
        config,
        loss=LOSSES[name],
        evaluate=lambda policy: measure(policy, reference),
        progress=False,
    )
    return [{"seed": seed, "loss": name} | row for row in history.evaluations]


def settings(beta: float) -> dict[str, Any]:
    """What is stored beside the rows."""
    kept = {key: value for key, value in asdict(CONFIG).items() if key != "seed"} | {"beta": beta}
    return kept | {"seeds": [*SEEDS], "sampling": SAMPLING, "labels": "each pair in both orders"}


def runs(beta: float) -> list[dict[str, Any]]:
    """Every seed with both losses."""
    return [row for seed in SEEDS for name in LOSSES for row in run(seed, name, beta)]


def main() -> None:
    """Run both values of beta and store the rows."""
    torch.set_num_threads(1)
    store("coin_flip", settings(CONFIG.beta), runs(CONFIG.beta))
    store("coin_flip_low_beta", settings(LOW_BETA), runs(LOW_BETA))


if __name__ == "__main__":
    main()
