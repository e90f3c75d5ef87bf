"""Appendix B: the capstone over seeds, and its stretch goals.

Each seed has its own weights, warm-up and held-out prompts. All variants of a seed start from the
same warmed-up policy and see the same pairs.

python -m dpo_lib.experiments.capstone    writes dpo_lib/results/capstone.json
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from dpo_lib import demo
from dpo_lib.data import PreferenceDataset
from dpo_lib.experiments.store import store
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.models import TinyGPT, respond
from dpo_lib.reference import make_reference
from dpo_lib.training import train_dpo

SEEDS = range(8)  # each choice of held-out prompts comes up twice
STEPS, EVERY = 45, 5
SMALL_WIDTH = 12  # of the smaller reference; the policy has 32
VARIANTS = {  # name: (loss, beta)
    "dpo": ("dpo", 1.0),
    "length normalization": ("length_normalized", 10.0),
    "ipo": ("ipo", 0.1),
    "label smoothing": ("cdpo", 1.0),
    "smaller reference": ("dpo", 1.0),
    "short winners only": ("dpo", 1.0),
}
PER_PROMPT = 16  # sampled answers


@cache
def warmed_up(seed: int, width: int = 32) -> TinyGPT:
    """A model that has learned to write, from the demo's own warm-up; copy it before training."""
    model = demo.new_model(seed, width)
    demo.warm_up(model, demo.split(seed), seed)
    return model


def evades(dataset: PreferenceDataset) -> Tensor:
    """Whether the loser of each pair evades the question; the others are wrong answers."""
    wrong = {"Cusco", "9", "H2O"}
    return torch.tensor([not any(w in r.rejected for w in wrong) for r in dataset.records])


def answers(policy: nn.Module, dataset: PreferenceDataset, seed: int) -> dict[str, float]:
    """Shares of right answers, and of texts that are none of the known ones, in samples."""
    prompts = {r.prompt: set() for r in dataset.records}
    known = {r.prompt: set() for r in dataset.records}
    for r in dataset.records:
        prompts[r.prompt].add(r.chosen)
        known[r.prompt] |= {r.chosen, r.rejected}
    asked = [prompt for prompt in prompts for _ in range(PER_PROMPT)]
    replies = respond(policy, dataset.tokenizer, asked, 40, seed=seed)
    return {
        "right": sum(x.text in prompts[x.prompt] for x in replies) / len(replies),
        "garbled": sum(x.text not in known[x.prompt] for x in replies) / len(replies),
    }


def run(seed: int, variant: str, steps: int = STEPS) -> Iterator[dict[str, Any]]:
    """Train once; a row for every fifth update."""
    loss, beta = VARIANTS[variant]
    training, held_out = demo.split(seed)
    if variant == "short winners only":  # quality and length are one thing in these pairs
        training = PreferenceDataset(training.records[0::2], training.tokenizer)
    policy = copy.deepcopy(warmed_up(seed))
    start = make_reference(policy)
    small = variant == "smaller reference"
    reference = make_reference(warmed_up(seed, SMALL_WIDTH)) if small else start
    with torch.no_grad():
        before = [torch.stack(get_pair_log_probs(start, d.batch())) for d in (training, held_out)]

    def evaluate(policy: nn.Module) -> dict[str, Any]:
        row = {}
        for name, dataset, old in zip(("", "held_"), (training, held_out), before, strict=True):
            z = demo.margins(policy, reference, dataset, beta=1.0)
            shift = (torch.stack(get_pair_log_probs(policy, dataset.batch())) - old).mean(dim=1)
            row[f"{name}margin"] = z.mean().item()
            row[f"{name}accuracy"] = ((1 + z.round(decimals=9).sign()) / 2).mean().item()
            row[f"{name}spread"] = z.std().item()
            row[f"{name}chosen_shift"], row[f"{name}rejected_shift"] = shift.tolist()
        row["held_shorter"], row["held_longer"] = z[0::2].mean().item(), z[1::2].mean().item()
        evading = evades(held_out)
        row["held_evading"] = z[evading].mean().item()
        row["held_wrong"] = z[~evading].mean().item() if not evading.all() else None
        row |= {f"held_{key}": x for key, x in answers(policy, held_out, seed=77).items()}
        return row

    config = replace(
        demo.CONFIG,
        steps=steps,
        seed=seed,
        beta=beta,
        batch_size=len(training),
        eval_every=EVERY,
    )
    history = train_dpo(
        policy, reference, training, config, loss=loss, evaluate=evaluate, progress=False
    )
    for row in history.evaluations:
        loss_then = history.steps[row["step"]]["loss"] if row["step"] < steps else None
        yield {"variant": variant, "seed": seed, **row, "loss": loss_then}


def main() -> None:
    """Run every seed with every variant and store the rows."""
    torch.set_num_threads(1)
    rows = [row for seed in SEEDS for variant in VARIANTS for row in run(seed, variant)]
    settings = {
        "seeds": list(SEEDS),
        "steps": STEPS,
        "variants": VARIANTS,
        "small_width": SMALL_WIDTH,
        "per_prompt": PER_PROMPT,
        "learning_rate": demo.CONFIG.learning_rate,
        "warm_up_steps": demo.WARM_UP_STEPS,
    }
    store("capstone", settings, rows)


if __name__ == "__main__":
    main()
