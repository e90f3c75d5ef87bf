"""Appendix D: the labeled pairs with 30 % of the labels turned around, under four losses.

cDPO and robust DPO are told the true share of flips. Pairs, batches and sampling are those of
preference_runs.py, whose runs of DPO at update 100 show what the labels give without flips.

python -m dpo_lib.experiments.label_noise    writes dpo_lib/results/label_noise.json
"""

from __future__ import annotations

from typing import Any

import torch

from dpo_lib.data import PreferenceDataset, PreferenceRecord
from dpo_lib.experiments import preference_runs
from dpo_lib.experiments.beta_frontier import CONFIG, train
from dpo_lib.experiments.store import store
from dpo_lib.world import world_tokenizer

SEEDS = range(5)
BETAS = [1.0, 0.1]
SHARE = 0.3  # of the labels that are flipped
OPTIONS = {
    "dpo": {},
    "cdpo": {"label_smoothing": SHARE},
    "robust": {"label_smoothing": SHARE},
    "ipo": {},
}


def flipped(dataset: PreferenceDataset, share: float, seed: int) -> PreferenceDataset:
    """The same pairs with about ``share`` of the labels turned around."""
    generator = torch.Generator().manual_seed(300 + seed)
    flip = torch.rand(len(dataset), generator=generator, dtype=torch.float64) < share
    records = [
        PreferenceRecord(r.prompt, r.rejected, r.chosen) if turn else r
        for r, turn in zip(dataset.records, flip.tolist(), strict=True)
    ]
    return PreferenceDataset(records, world_tokenizer())


def run(seed: int, name: str, beta: float, steps: int = CONFIG.steps) -> dict[str, Any]:
    """The end of one run."""
    dataset = flipped(preference_runs.split(seed)[0], SHARE, seed)
    measured = train(dataset, name, seed, beta, steps, **OPTIONS[name])
    return {"loss": name, "beta": beta, "seed": seed} | measured


def main() -> None:
    """Run every seed with every loss and beta, and store the rows."""
    torch.set_num_threads(1)
    rows = [run(seed, name, beta) for beta in BETAS for name in OPTIONS for seed in SEEDS]
    settings = {
        "learning_rate": CONFIG.learning_rate,
        "batch_size": CONFIG.batch_size,
        "seeds": SEEDS,
        "betas": BETAS,
        "share": SHARE,
        "steps": CONFIG.steps,
        "sampling": preference_runs.SAMPLING,
    }
    store("label_noise", settings, rows)


if __name__ == "__main__":
    main()
