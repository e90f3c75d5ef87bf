"""Chapter 6: keep the likeliest of n responses, by the SFT model's own log-probability.

python -m dpo_lib.experiments.best_of_n    writes dpo_lib/results/best_of_n.json
"""

from __future__ import annotations

from typing import Any

import torch

from dpo_lib.evaluation import reply_log_probs
from dpo_lib.experiments.store import store
from dpo_lib.models import load_sft, respond
from dpo_lib.world import preference_prompts, true_reward, world_tokenizer

SEEDS = range(8)  # of the sampling
SIZES = [1, 4, 16, 64]
PROMPTS = preference_prompts()[::3]  # every third, so that all families are there
BLAND = ("I do not know.", "Please wait.")


def run(seed: int) -> list[dict[str, Any]]:
    """Draw 64 responses to each prompt; a row for each n, over all disjoint groups of n."""
    model, tokenizer, most = load_sft(), world_tokenizer(), max(SIZES)
    replies = respond(model, tokenizer, [p for p in PROMPTS for _ in range(most)], seed=seed)
    logps = reply_log_probs(model, tokenizer, replies)  # (prompts * most,)
    rows = []
    for n in SIZES:
        best = logps.view(-1, n).argmax(dim=1) + n * torch.arange(len(logps) // n)  # (groups,)
        kept = [replies[i] for i in best.tolist()]
        rows.append(
            {
                "seed": seed,
                "n": n,
                "tokens": sum(reply.length for reply in kept) / len(kept),
                "true_reward": sum(true_reward(*reply[:3]) for reply in kept) / len(kept),
                "bland": sum(reply.text in BLAND for reply in kept) / len(kept),
            }
        )
    return rows


def main() -> None:
    """Run every seed and store the rows."""
    torch.set_num_threads(1)
    rows = [row for seed in SEEDS for row in run(seed)]
    settings = {"seeds": list(SEEDS), "sizes": SIZES, "prompts": len(PROMPTS), "bland": BLAND}
    store("best_of_n", settings, rows)


if __name__ == "__main__":
    main()
