"""Appendix D: DPO at β = 0.1 beside two losses that hold the chosen response up.

The runs of plain DPO are those of preference_runs.py; these use the same pairs, the same batches,
the same number of updates and the same sampling. Sums are in no preference pair.

python -m dpo_lib.experiments.displacement    writes dpo_lib/results/displacement.json
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from dpo_lib.experiments import preference_runs
from dpo_lib.experiments.store import store
from dpo_lib.models import load_sft
from dpo_lib.reference import make_reference
from dpo_lib.training import train_dpo

SEEDS = range(5)
NAMES = ["rpo", "dpop"]  # with the defaults of the library
BETA = 0.1
COLUMNS = ["margin", "chosen_logp", "rejected_logp"]
CONFIG = replace(preference_runs.CONFIG, beta=BETA)


def run(seed: int, name: str, steps: int = CONFIG.steps) -> list[dict[str, Any]]:
    """Train once; a row for each 20 updates with means over them, the last one also measured."""
    policy = load_sft()
    reference = make_reference(policy)
    training, held_out = preference_runs.split(seed)
    config = replace(CONFIG, seed=seed, steps=steps)
    history = train_dpo(policy, reference, training, config, loss=name, progress=False)
    rows = []
    for end in range(config.eval_every, steps + 1, config.eval_every):
        since = history.steps[end - config.eval_every : end]
        means = {f"train_{key}": sum(row[key] for row in since) / len(since) for key in COLUMNS}
        rows.append({"loss": name, "seed": seed, "step": end, **means})
    measured = preference_runs.measure(policy, reference, held_out, BETA)
    del measured["samples"]
    return [*rows[:-1], rows[-1] | measured]


def main() -> None:
    """Run every seed with both losses and store the rows."""
    torch.set_num_threads(1)
    rows = [row for name in NAMES for seed in SEEDS for row in run(seed, name)]
    settings = {
        "beta": BETA,
        "learning_rate": CONFIG.learning_rate,
        "batch_size": CONFIG.batch_size,
        "steps": CONFIG.steps,
        "seeds": SEEDS,
        "sampling": preference_runs.SAMPLING,
    }
    store("displacement", settings, rows)


if __name__ == "__main__":
    main()
