"""Appendix D: a second round of DPO, on pairs that the policy of the first round wrote.

Every seed trains one round on its labeled pairs. Then four second rounds start from that policy,
with as many updates each: on the same pairs again, on fresh pairs of the SFT model, on pairs of
the policy itself, and on the latter with the policy as the new reference. All labels are drawn
from the Bradley–Terry model of the true reward, all prompts are those of the training pairs.

python -m dpo_lib.experiments.online    writes dpo_lib/results/online.json
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from dpo_lib.data import PreferenceDataset
from dpo_lib.evaluation import evaluate_samples
from dpo_lib.experiments import preference_runs
from dpo_lib.experiments.store import store
from dpo_lib.models import load_sft
from dpo_lib.reference import make_reference
from dpo_lib.training import DPOConfig, train_dpo
from dpo_lib.world import (
    judge,
    label_by_reward,
    on_policy_pairs,
    preference_prompts,
    world_tokenizer,
)

SEEDS = range(5)
BETA = 0.3
ARMS = ["same pairs", "fresh pairs of the SFT model", "own pairs", "own pairs, new reference"]
CONFIG = DPOConfig(beta=BETA, learning_rate=2e-4, steps=100, batch_size=32)  # of each round
SAMPLING = {"per_prompt": 8, "seed": 77}  # the same random numbers for every policy


def measure(policy: nn.Module, sft: nn.Module) -> dict[str, float]:
    """What the policy writes to the prompts of the pairs; KL is from the SFT model."""
    written = evaluate_samples(
        policy, world_tokenizer(), preference_prompts(), sft, judge=judge, **SAMPLING
    )
    return {
        "true_reward": written.true_reward.mean,
        "kl": written.kl.k1.mean,
        "length": written.length,
        "malformed": written.malformed,
    }


def train(policy: nn.Module, reference: nn.Module, dataset: PreferenceDataset, seed: int) -> None:
    """One round, in place."""
    train_dpo(policy, reference, dataset, replace(CONFIG, seed=seed), progress=False)


def fresh_pairs(model: nn.Module, dataset: PreferenceDataset, seed: int) -> PreferenceDataset:
    """As many labeled pairs to each prompt of ``dataset``, sampled from ``model``."""
    prompts = list(dict.fromkeys(record.prompt for record in dataset.records))
    pairs = on_policy_pairs(model, prompts, seed=100 + seed)
    return PreferenceDataset(label_by_reward(pairs, 200 + seed), world_tokenizer())


def first_round(seed: int) -> tuple[nn.Module, nn.Module, PreferenceDataset]:
    """The SFT model, the policy after one round, and the pairs it was trained on."""
    sft, policy = make_reference(load_sft()), load_sft()
    training, _ = preference_runs.split(seed)
    train(policy, sft, training, seed)
    return sft, policy, training


def run(seed: int) -> list[dict[str, Any]]:
    """Both rounds; a row for the policy after the first and for each arm of the second."""
    sft, first, training = first_round(seed)
    own = fresh_pairs(first, training, seed)
    data = dict(zip(ARMS, [training, fresh_pairs(sft, training, seed), own, own], strict=True))
    rows = [{"arm": "first round", "pairs": len(training), **measure(first, sft)}]
    for arm, dataset in data.items():
        policy = load_sft()
        policy.load_state_dict(first.state_dict())
        reference = make_reference(first) if "new reference" in arm else sft
        train(policy, reference, dataset, 1000 + seed)
        rows.append({"arm": arm, "pairs": len(dataset), **measure(policy, sft)})
    return [{"seed": seed} | row for row in rows]


def main() -> None:
    """Run every seed and store the rows."""
    torch.set_num_threads(1)
    rows = [row for seed in SEEDS for row in run(seed)]
    settings = {k: v for k, v in asdict(CONFIG).items() if k not in ("seed", "eval_every")}
    settings |= {"seeds": SEEDS, "sampling": SAMPLING}
    store("online", settings, rows)


if __name__ == "__main__":
    main()
