"""Appendix D: SimPO, ORPO, APO-zero and χPO on the plane of reward and KL.

The pairs, batches, settings and sampling are those of beta_frontier.py, so that the rows can be
drawn on one plane. Each loss has its own three values of beta: SimPO's works on means of about
8 tokens, and ORPO's is a weight.

python -m dpo_lib.experiments.relatives    writes dpo_lib/results/relatives.json
"""

from __future__ import annotations

from dpo_lib.experiments.beta_frontier import run_all, settings
from dpo_lib.experiments.store import store

BETAS = {
    "simpo": [8.0, 2.4, 0.8],
    "orpo": [1.0, 0.3, 0.1],
    "apo_zero": [1.0, 0.3, 0.1],
    "chi_po": [1.0, 0.3, 0.1],
}


if __name__ == "__main__":
    store("relatives", settings(BETAS), run_all(BETAS))
