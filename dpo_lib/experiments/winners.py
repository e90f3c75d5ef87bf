"""Chapter 8: the rival that throws the losers away, SFT on the chosen responses.

Start, pairs, batches, optimizer and sampling are those of preference_runs.py; only the loss
differs, minus the log-probability of the chosen response. It has no beta to set, so it gets three
learning rates instead.

python -m dpo_lib.experiments.winners    writes dpo_lib/results/winners.json
"""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
from torch import Tensor

from dpo_lib.experiments import preference_runs
from dpo_lib.experiments.preference_runs import CONFIG, SEEDS
from dpo_lib.experiments.store import store
from dpo_lib.losses import PreferenceLoss
from dpo_lib.models import load_sft
from dpo_lib.reference import make_reference
from dpo_lib.training import TrainingHistory, train_dpo

RATES = [5e-5, CONFIG.learning_rate, 1e-3]
MEASURED_AT = 1.0  # the beta of the rewards that are reported; the loss has none


def winners_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
) -> PreferenceLoss:
    """Minus the log-probability of the chosen response; the rewards are DPO's, to be compared."""
    chosen = beta * (policy_chosen_logps - reference_chosen_logps).detach()
    rejected = beta * (policy_rejected_logps - reference_rejected_logps).detach()
    return PreferenceLoss(-policy_chosen_logps, chosen, rejected)


def run(seed: int, learning_rate: float, steps: int = CONFIG.steps) -> TrainingHistory:
    """Train once, measured as the preference runs are."""
    policy = load_sft()
    reference = make_reference(policy)
    training, held_out = preference_runs.split(seed)
    return train_dpo(
        policy,
        reference,
        training,
        replace(CONFIG, beta=MEASURED_AT, seed=seed, steps=steps, learning_rate=learning_rate),
        loss=winners_loss,
        evaluate=lambda policy: preference_runs.measure(policy, reference, held_out, MEASURED_AT),
        progress=False,
    )


def rows_of(history: TrainingHistory) -> list[dict]:
    """A row for each evaluation; the learning rate stands where the other runs have beta."""
    rows = preference_runs.rows_of(history, "winners")
    for row in rows:
        row["learning_rate"] = history.config.learning_rate
        del row["beta"]
    return rows


def main() -> None:
    """Run every seed with every learning rate, and store the rows."""
    torch.set_num_threads(1)
    rows = [row for rate in RATES for seed in SEEDS for row in rows_of(run(seed, rate))]
    settings = {
        k: v for k, v in asdict(CONFIG).items() if k not in ("seed", "beta", "learning_rate")
    }
    settings |= {
        "seeds": list(SEEDS),
        "learning_rates": RATES,
        "measured_at_beta": MEASURED_AT,
        "held_out_share": preference_runs.HELD_OUT_SHARE,
        "sampling": preference_runs.SAMPLING,
        "shown": preference_runs.SHOWN,
    }
    store("winners", settings, rows)


if __name__ == "__main__":
    main()
