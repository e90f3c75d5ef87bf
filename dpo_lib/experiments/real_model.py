"""Appendix F: SmolLM2-135M-Instruct learns a style from our own pairs, over three seeds.

Every chosen answer says the thing in its first sentence and goes on with "For example, ...". Every
rejected one is the model's own. A seed decides the split, the adapters and the order of the pairs.
The run goes on for longer than it should, so that one can see where to stop. What these pairs leave
open, `minimal_edits` asks.

python -m dpo_lib.experiments.real_model    writes dpo_lib/results/real_model.json (half an hour)
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpo_lib.cli.held_out import pair_log_probs, score
from dpo_lib.cli.models import OpenModel, open_model
from dpo_lib.data import PreferenceDataset, read_jsonl, split_by_prompt
from dpo_lib.evaluation import estimate_kl, reply_log_probs
from dpo_lib.experiments.store import store
from dpo_lib.losses import dpo_loss
from dpo_lib.models import Reply, respond
from dpo_lib.training import DPOConfig, train_dpo

DATA = Path(__file__).parent / "data" / "plain_answers.jsonl"
SEEDS = range(3)
RANK = 8  # of the adapters
CONFIG = DPOConfig(beta=0.1, learning_rate=2e-4, steps=24, batch_size=8, eval_every=4)
HELD_OUT_SHARE = 0.2  # of the prompts
STYLE = "For example,"
ASKED, LONGEST = 24, 72  # held-out prompts that are answered, and the most tokens of an answer
SHOWN, SHOWN_AT = 8, (0, 8, 24)  # answers that are stored as they stand, before these updates


def split(seed: int, opened: OpenModel) -> tuple[PreferenceDataset, PreferenceDataset]:
    """Training and held-out pairs; no prompt is in both."""
    train, held_out = split_by_prompt(read_jsonl(DATA), HELD_OUT_SHARE, seed)
    return PreferenceDataset(train, opened.tokenizer), PreferenceDataset(held_out, opened.tokenizer)


def describe(replies: list[Reply]) -> dict[str, float]:
    """Shares and means over sampled answers."""
    number = len(replies)
    return {
        "style": sum(STYLE in reply.text for reply in replies) / number,
        "finished": sum(reply.finished for reply in replies) / number,
        "length": sum(reply.length for reply in replies) / number,
    }


def run(seed: int, config: DPOConfig = CONFIG) -> list[dict[str, Any]]:
    """Train once; a row for each evaluation."""
    opened = open_model("smollm2")
    train, held_out = split(seed, opened)
    opened.prepare(RANK, seed)
    prompts = [record.prompt for record in held_out.records[:ASKED]]
    reference = pair_log_probs(opened.model, held_out)  # (2, N)

    def answers(temperature: float, number: int) -> list[Reply]:
        asked = prompts[:number]
        return respond(opened.model, opened.tokenizer, asked, LONGEST, temperature, seed=seed)

    def evaluate(policy: nn.Module) -> dict[str, Any]:
        step = 0 if not rows else rows[-1]["step"] + config.eval_every
        row = score(pair_log_probs(policy, held_out), reference, held_out, dpo_loss, config.beta)
        drawn = answers(1.0, ASKED)
        logps = reply_log_probs(policy, opened.tokenizer, drawn, 8)
        with opened.as_it_was() as start:
            kl = estimate_kl(logps, reply_log_probs(start, opened.tokenizer, drawn, 8))
        row |= describe(drawn) | {"kl": kl.k1.mean, "kl_error": kl.k1.error, "k3": kl.k3.mean}
        if step in SHOWN_AT:
            row["answers"] = [
                {"prompt": str(reply.prompt), "text": reply.text, "finished": reply.finished}
                for reply in answers(0.0, SHOWN)
            ]
        rows.append({"seed": seed, "step": step, **row})
        return row

    rows: list[dict[str, Any]] = []
    config = replace(config, seed=seed)
    history = train_dpo(opened.model, None, train, config, evaluate=evaluate, progress=False)
    for row in rows:
        since = history.steps[max(0, row["step"] - config.eval_every) : row["step"]]
        for name in ("loss", "reward_accuracy", "margin"):
            mean = sum(step[name] for step in since) / max(1, len(since))
            row[f"train_{name}"] = mean if since else history.steps[0][name]
    return rows


def settings_of(config: DPOConfig) -> dict[str, Any]:
    """What is stored beside the rows."""
    settings = {key: value for key, value in asdict(config).items() if key != "seed"}
    settings |= {"seeds": SEEDS, "rank": RANK, "held_out_share": HELD_OUT_SHARE, "asked": ASKED}
    return settings | {"longest": LONGEST, "shown": SHOWN, "shown_at": SHOWN_AT}


def main() -> None:
    """Run every seed and store the rows."""
    torch.set_num_threads(1)
    store("real_model", settings_of(CONFIG), [row for seed in SEEDS for row in run(seed)])


if __name__ == "__main__":
    main()
