"""Chapters 8 and 10: DPO and naive training on the labeled pairs, over seeds and three betas.

Both losses of a seed start from the SFT model and see the same batches. A seed decides the labels
(drawn from the Bradley–Terry model of the true reward), the held-out prompts and the order.

python -m dpo_lib.experiments.preference_runs    writes dpo_lib/results/preference_runs.json
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from dpo_lib.data import PreferenceDataset, split_by_prompt
from dpo_lib.evaluation import evaluate_margins, evaluate_samples
from dpo_lib.experiments.store import store
from dpo_lib.losses import dpo_loss, naive_loss
from dpo_lib.models import load_sft, respond
from dpo_lib.reference import make_reference
from dpo_lib.training import DPOConfig, TrainingHistory, train_dpo
from dpo_lib.world import (
    judge,
    label_by_reward,
    load_pairs,
    preference_prompts,
    prompts_of,
    world_tokenizer,
)

SEEDS = range(5)
BETAS = [1.0, 0.3, 0.1]
LOSSES = {"dpo": dpo_loss, "naive": naive_loss}
CONFIG = DPOConfig(learning_rate=2e-4, steps=200, batch_size=32, eval_every=20)
HELD_OUT_SHARE = 0.2  # of the prompts
SAMPLING = {"per_prompt": 8, "seed": 77}  # the same random numbers for every policy
SHOWN = [
    "What is the capital of France?",
    "My order is late.",
    "What is 2 + 2?",
]  # one sampled response to each is stored


def split(seed: int) -> tuple[PreferenceDataset, PreferenceDataset]:
    """Labeled pairs to train on, and those of the held-out prompts."""
    records = label_by_reward(load_pairs(), seed)
    training, held_out = split_by_prompt(records, HELD_OUT_SHARE, seed)
    tokenizer = world_tokenizer()
    return PreferenceDataset(training, tokenizer), PreferenceDataset(held_out, tokenizer)


def measure(
    policy: nn.Module, reference: nn.Module, held_out: PreferenceDataset, beta: float
) -> dict[str, Any]:
    """Held-out pairs under the DPO reward, and what the policy writes."""
    tokenizer = world_tokenizer()
    margins = evaluate_margins(policy, reference, held_out, beta)
    written = evaluate_samples(
        policy, tokenizer, preference_prompts(), reference, judge=judge, **SAMPLING
    )
    sums = [prompt.text for prompt in prompts_of("sum")]
    unseen = evaluate_samples(policy, tokenizer, sums, reference, judge=judge, **SAMPLING)
    return {
        "accuracy": margins.accuracy,
        "margin": margins.margin,
        "chosen_shift": margins.chosen_shift,
        "rejected_shift": margins.rejected_shift,
        "true_reward": written.true_reward.mean,
        "kl": written.kl.k1.mean,
        "length": written.length,
        "malformed": written.malformed,
        "correct": written.correct,
        "sum_correct": unseen.correct,
        "sum_malformed": unseen.malformed,
        "samples": [reply.text for reply in respond(policy, tokenizer, SHOWN, seed=5)],
    }


def run(seed: int, name: str, beta: float, steps: int = CONFIG.steps) -> TrainingHistory:
    """Train once, measuring before the first update, every 20 and at the end."""
    policy = load_sft()
    reference = make_reference(policy)
    training, held_out = split(seed)
    return train_dpo(
        policy,
        reference,
        training,
        replace(CONFIG, beta=beta, seed=seed, steps=steps),
        loss=LOSSES[name],
        evaluate=lambda policy: measure(policy, reference, held_out, beta),
        progress=False,
    )


def rows_of(history: TrainingHistory, name: str) -> list[dict[str, Any]]:
    """A row for each evaluation, with the mean of the training columns since the last one."""
    config, rows = history.config, []
    for evaluation in history.evaluations:
        row = {"loss": name, "beta": config.beta, "seed": config.seed, **evaluation}
        end = evaluation["step"]
        since = history.steps[max(0, end - config.eval_every) : end] or history.steps[:1]
        for column in ("loss", "reward_accuracy", "margin", "chosen_logp", "rejected_logp"):
            row[f"train_{column}"] = sum(step[column] for step in since) / len(since)
        rows.append(row)
    return rows


def main() -> None:
    """Run every seed with both losses and every beta, and store the rows."""
    torch.set_num_threads(1)
    rows = [
        row
        for beta in BETAS
        for seed in SEEDS
        for name in LOSSES
        for row in rows_of(run(seed, name, beta), name)
    ]
    settings = {k: v for k, v in asdict(CONFIG).items() if k not in ("seed", "beta")}
    settings |= {
        "seeds": list(SEEDS),
        "betas": BETAS,
        "held_out_share": HELD_OUT_SHARE,
        "sampling": SAMPLING,
        "shown": SHOWN,
    }
    store("preference_runs", settings, rows)


if __name__ == "__main__":
    main()
