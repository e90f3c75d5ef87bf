"""Appendix D: reward against KL for several losses and betas, from one SFT model.

The runs of DPO and of the naive loss are those of preference_runs.py; these use the same pairs,
the same batches and the same sampling.

python -m dpo_lib.experiments.beta_frontier    writes dpo_lib/results/beta_frontier.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from dpo_lib.data import PreferenceDataset
from dpo_lib.evaluation import evaluate_samples
from dpo_lib.experiments import preference_runs
from dpo_lib.experiments.store import store
from dpo_lib.losses import as_loss_function
from dpo_lib.models import load_sft
from dpo_lib.reference import make_reference
from dpo_lib.training import DPOConfig, train_dpo
from dpo_lib.world import judge, preference_prompts, world_tokenizer

SEEDS = range(5)
BETAS = [1.0, 0.3, 0.1]
NAMES = ["ipo", "kto"]
CONFIG = DPOConfig(learning_rate=2e-4, steps=100, batch_size=32)
EARLY = 20  # updates


def measure(policy: nn.Module, reference: nn.Module) -> dict[str, float]:
    """What the policy writes to the prompts of the pairs."""
    written = evaluate_samples(
        policy,
        world_tokenizer(),
        preference_prompts(),
        reference,
        judge=judge,
        **preference_runs.SAMPLING,
    )
    return {
        "true_reward": written.true_reward.mean,
        "kl": written.kl.k1.mean,
        "length": written.length,
        "malformed": written.malformed,
        "correct": written.correct,
    }


def train(
    dataset: PreferenceDataset,
    name: str,
    seed: int,
    beta: float,
    steps: int = CONFIG.steps,
    **options: Any,
) -> dict[str, float]:
    """Train the SFT model once and measure it; ``options`` are those of the loss.

    ``early_margin`` is the mean over the first 20 updates, which a shorter run has too.
    """
    policy = load_sft()
    reference = make_reference(policy)
    config = replace(CONFIG, beta=beta, seed=seed, steps=steps)
    loss = partial(as_loss_function(name), **options) if options else name
    history = train_dpo(policy, reference, dataset, config, loss=loss, progress=False)
    early = history.column("margin")[:EARLY]
    return {"early_margin": sum(early) / EARLY} | measure(policy, reference)


def run(seed: int, name: str, beta: float, steps: int = CONFIG.steps) -> dict[str, Any]:
    """The end of one run."""
    training, _ = preference_runs.split(seed)
    return {"loss": name, "beta": beta, "seed": seed} | train(training, name, seed, beta, steps)


def run_all(betas: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """The rows of every seed with every loss and its betas."""
    torch.set_num_threads(1)
    return [
        run(seed, name, beta) for name, some in betas.items() for beta in some for seed in SEEDS
    ]


def settings(betas: object) -> dict[str, Any]:
    """What is stored beside the rows."""
    return {
        "learning_rate": CONFIG.learning_rate,
        "batch_size": CONFIG.batch_size,
        "steps": CONFIG.steps,
        "seeds": SEEDS,
        "betas": betas,
        "sampling": preference_runs.SAMPLING,
    }


if __name__ == "__main__":
    store("beta_frontier", settings(BETAS), run_all(dict.fromkeys(NAMES, BETAS)))
