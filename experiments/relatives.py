"""Appendix D: SimPO, ORPO, APO-zero and χPO on the plane of reward and KL.

The pairs, batches, settings and sampling are those of beta_frontier.py, so that the rows can be
drawn on one plane. Each loss has its own three values of beta: SimPO's works on means of about
8 tokens, and ORPO's is a weight.

python -m experiments.relatives    writes experiments/results/relatives.json
"""

from __future__ import annotations

from typing import Any

import torch

from experiments import beta_frontier, preference_runs
from experiments.beta_frontier import CONFIG
from experiments.store import store

SEEDS = range(5)
BETAS = {
    "simpo": [8.0, 2.4, 0.8],
    "orpo": [1.0, 0.3, 0.1],
    "apo_zero": [1.0, 0.3, 0.1],
    "chi_po": [1.0, 0.3, 0.1],
}


def run(seed: int, name: str, beta: float, steps: int = CONFIG.steps) -> dict[str, Any]:
    """The end of one run."""
    return beta_frontier.run(seed, name, beta, steps)


def main() -> None:
    """Run every seed with every loss and beta, and store the rows."""
    torch.set_num_threads(1)
    rows = [
        run(seed, name, beta) for name, betas in BETAS.items() for beta in betas for seed in SEEDS
    ]
    settings = {
        "learning_rate": CONFIG.learning_rate,
        "batch_size": CONFIG.batch_size,
        "steps": CONFIG.steps,
        "seeds": SEEDS,
        "betas": BETAS,
        "sampling": preference_runs.SAMPLING,
    }
    store("relatives", settings, rows)


if __name__ == "__main__":
    main()
