"""Appendix C: one run on customer support, and mistakes of judgment, each trained for real.

Every arm is the sound run of preference_runs.py (beta = 1, update 100) with one decision changed:
half of the labels turned around, a learning rate ten times as high, or a reference that becomes
the policy every ten updates. The arm on support trains on complaints only.

python -m dpo_lib.experiments.in_practice    writes dpo_lib/results/in_practice.json
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dpo_lib.data import PreferenceDataset
from dpo_lib.evaluation import evaluate_samples
from dpo_lib.experiments import preference_runs
from dpo_lib.experiments.label_noise import flipped
from dpo_lib.experiments.store import store
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.losses import dpo_loss
from dpo_lib.models import load_sft
from dpo_lib.reference import make_reference
from dpo_lib.rewards import reward_accuracy
from dpo_lib.training import DPOConfig
from dpo_lib.training import train_dpo as train
from dpo_lib.world import (
    judge,
    label_by_reward,
    load_pairs,
    preference_prompts,
    prompts_of,
    world_tokenizer,
)

SEEDS = range(5)
CONFIG = DPOConfig(beta=1.0, learning_rate=2e-4, steps=100, batch_size=32)
SUPPORT = replace(CONFIG, steps=40, batch_size=16)  # there are few complaints
FAST = 2e-3
EVERY = 10  # updates between two references
ARMS = ["50 % flipped", "fast", "moving reference"]
SAMPLING = preference_runs.SAMPLING
LAST = 20  # updates of which the stored training columns are means
UNSEEN = "chair"  # no complaint about it is trained on


def complaints() -> tuple[list[str], list[str]]:
    """The support prompts: those trained on, and those about the thing that is held out."""
    asked = [prompt.text for prompt in prompts_of("support")]
    return [x for x in asked if UNSEEN not in x], [x for x in asked if UNSEEN in x]


def support_pairs(seed: int) -> PreferenceDataset:
    """The labeled pairs of the complaints trained on."""
    seen, _ = complaints()
    records = [r for r in label_by_reward(load_pairs(), seed) if r.prompt in seen]
    return PreferenceDataset(records, world_tokenizer())


def moving(
    policy: nn.Module, dataset: PreferenceDataset, config: DPOConfig, every: int
) -> list[dict[str, float]]:
    """DPO whose reference becomes the policy every so often; else as `train_dpo` does it."""
    reference, rows = make_reference(policy), []
    optimizer = torch.optim.AdamW(policy.parameters(), config.learning_rate, weight_decay=0.0)
    batches = dataset.batches(config.batch_size, config.steps, config.seed)
    for step, batch in enumerate(batches):
        if step % every == 0:
            reference.load_state_dict(policy.state_dict())
        with torch.no_grad():
            kept = get_pair_log_probs(reference, batch)
        losses, r_w, r_l = dpo_loss(*get_pair_log_probs(policy, batch), *kept, config.beta)
        optimizer.zero_grad()
        losses.mean().backward()
        nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        optimizer.step()
        accuracy = reward_accuracy(r_w, r_l).item()
        margin = (r_w - r_l).mean().item()
        rows.append({"loss": losses.mean().item(), "reward_accuracy": accuracy, "margin": margin})
    return rows


def run(arm: str, seed: int, steps: int = CONFIG.steps) -> dict[str, Any]:
    """The end of one run."""
    policy = load_sft()
    reference = make_reference(policy)
    training, held_out = preference_runs.split(seed)
    config = replace(CONFIG, seed=seed, steps=steps)
    if arm == "moving reference":
        rows = moving(policy, training, config, EVERY)
    else:
        if arm.endswith("flipped"):
            training = flipped(training, float(arm.split()[0]) / 100, seed)
        if arm == "fast":
            config = replace(config, learning_rate=FAST)
        rows = train(policy, reference, training, config, progress=False).steps
    row = {"arm": arm, "seed": seed}
    for name in ("loss", "reward_accuracy", "margin"):
        row[f"train_{name}"] = sum(r[name] for r in rows[-LAST:]) / len(rows[-LAST:])
    row["highest_loss"] = max(r["loss"] for r in rows)
    return row | preference_runs.measure(policy, reference, held_out, CONFIG.beta)


def run_support(seed: int) -> dict[str, Any]:
    """Train on the complaints; look at replies to complaints and to everything else."""
    policy = load_sft()
    reference = make_reference(policy)
    training = support_pairs(seed)
    history = train(policy, reference, training, replace(SUPPORT, seed=seed), progress=False)
    seen, unseen = complaints()
    others = [text for text in preference_prompts() if text not in {*seen, *unseen}]
    row = {"arm": "support", "seed": seed, "pairs": len(training)}
    row["train_loss"] = sum(history.column("loss")[-10:]) / 10
    for name, prompts in (("seen", seen), ("unseen", unseen), ("others", others)):
        for when, model in (("before", reference), ("after", policy)):
            written = evaluate_samples(
                model, world_tokenizer(), prompts, reference, judge=judge, **SAMPLING
            )
            row[f"{name}_{when}"] = written.true_reward.mean
        row |= {f"{name}_kl": written.kl.k1.mean, f"{name}_malformed": written.malformed}
    return row


def main() -> None:
    """Run every arm with every seed, and store the rows."""
    torch.set_num_threads(1)
    rows = [run(arm, seed) for arm in ARMS for seed in SEEDS]
    rows += [run_support(seed) for seed in SEEDS]
    settings = {
        "beta": CONFIG.beta,
        "learning_rate": CONFIG.learning_rate,
        "steps": CONFIG.steps,
        "batch_size": CONFIG.batch_size,
        "fast": FAST,
        "every": EVERY,
        "support": {"steps": SUPPORT.steps, "batch_size": SUPPORT.batch_size, "unseen": UNSEEN},
        "seeds": SEEDS,
        "sampling": SAMPLING,
        "last": LAST,
    }
    store("in_practice", settings, rows)


if __name__ == "__main__":
    main()
