"""Train the tiny base and SFT models, sample the preference pairs, and record how well it went.

Run by ``make models``. One thread, fixed seeds: a second run on one machine gives the same files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F

from dpo_lib.data import pad
from dpo_lib.logprobs import get_token_log_probs
from dpo_lib.models import TinyGPT, TinyGPTConfig, respond
from dpo_lib.models.checkpoints import WEIGHTS, save_weights
from dpo_lib.world import (
    all_prompts,
    base_documents,
    demonstrations,
    judge,
    on_policy_pairs,
    preference_prompts,
    prompts_of,
    world_tokenizer,
    write_pairs,
)

Row = tuple[list[int], list[int]]  # tokens that are given, tokens that are learned


@dataclass(frozen=True)
class Stage:
    """Settings of one training stage."""

    texts: int  # documents or demonstrations drawn once, before training
    steps: int
    batch_size: int = 64
    learning_rate: float = 4e-3  # of AdamW; rises over 50 steps, then falls linearly to 5 %
    seed: int = 0  # of the texts; batches use seed + 1, held-out texts seed + 2


BASE = Stage(texts=24_000, steps=3000, seed=10)
SFT = Stage(texts=20_000, steps=1000, seed=20)


def base_rows(count: int, seed: int) -> list[Row]:
    """Plain documents: everything after the first word is learned."""
    encoded = [world_tokenizer().encode_response(text) for text in base_documents(count, seed)]
    return [(ids[:1], ids[1:]) for ids in encoded]


def sft_rows(count: int, seed: int) -> list[Row]:
    """Demonstrations: only the response is learned."""
    tokenizer = world_tokenizer()
    return [
        (tokenizer.encode_prompt(prompt), tokenizer.encode_response(response))
        for prompt, response in demonstrations(count, seed)
    ]


def train(model: TinyGPT, rows: list[Row], stage: Stage) -> None:
    """Lower the mean negative log-likelihood of the learned tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), stage.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 50, max(0.05, 1 - step / stage.steps))
    )
    generator = torch.Generator().manual_seed(stage.seed + 1)
    model.train()
    for _ in range(stage.steps):
        drawn = torch.randint(len(rows), (stage.batch_size,), generator=generator).tolist()
        batch = [rows[i] for i in drawn]
        tokens, mask = pad([given + learned for given, learned in batch], 0, "right")  # (B, T)
        starts = torch.tensor([len(given) for given, _ in batch])[:, None]  # (B, 1)
        learned = mask.bool() & (torch.arange(tokens.shape[1]) >= starts)  # (B, T)
        logits = model(tokens[:, :-1])  # (B, T - 1, V); pads come last, where nothing sees them
        targets = tokens[:, 1:].masked_fill(~learned[:, 1:], -100)  # (B, T - 1)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def nll_per_token(model: TinyGPT, rows: list[Row]) -> float:
    """Mean negative log-likelihood of the learned tokens (nats)."""
    given, given_mask = pad([row[0] for row in rows], 0, "left")
    learned, learned_mask = pad([row[1] for row in rows], 0, "right")
    logps = get_token_log_probs(model, given, learned, given_mask, learned_mask)
    return -(logps.sum() / learned_mask.sum()).item()


def unigram_nll(rows: list[Row], held_out: list[Row]) -> float:
    """The same for a model that knows only how often each token occurs."""
    counts = Counter(token for _, learned in rows for token in learned)
    tokens = [token for _, learned in held_out for token in learned]
    total = counts.total() + len(world_tokenizer())
    return -mean(math.log((counts[token] + 1) / total) for token in tokens)


def measure_base(model: TinyGPT) -> dict[str, float]:
    """What the base model does after a question: shares of the continuations."""
    asked = [p.text for p in prompts_of("capital", "sum", "cause") if p.text.endswith("?")]
    replies = [reply.text for reply in respond(model, world_tokenizer(), asked * 10, 32, seed=1)]
    quiz = mean(text.startswith("A)") for text in replies)
    more = mean(text.startswith(("What", "Name", "List")) for text in replies)
    right = mean(judge(p, text).correct for p, text in zip(asked * 10, replies, strict=True))
    return {
        "quiz_share": float(quiz),
        "further_question_share": float(more),
        "right_answer_share": float(right),
    }


def measure_sft(model: TinyGPT) -> dict[str, dict[str, float]]:
    """True reward, correctness, malformed share and length of sampled replies, by family."""
    groups = {"preferences": preference_prompts()}
    for family in dict.fromkeys(p.family for p in all_prompts()):
        groups[family] = [p.text for p in prompts_of(family)]
    return {name: _measure_replies(model, prompts) for name, prompts in groups.items()}


def _measure_replies(model: TinyGPT, prompts: list[str]) -> dict[str, float]:
    asked = prompts * math.ceil(600 / len(prompts))
    replies = respond(model, world_tokenizer(), asked, seed=2)
    judged = [judge(reply.prompt, reply.text, reply.finished) for reply in replies]
    return {
        "true_reward": mean(j.reward for j in judged),
        "correct_share": float(mean(j.correct for j in judged)),
        "malformed_share": float(mean(j.malformed for j in judged)),
        "length": mean(reply.length for reply in replies),
    }


def train_and_measure(
    config: TinyGPTConfig, base: Stage, sft: Stage
) -> tuple[TinyGPT, TinyGPT, dict]:
    """Both models, float64 after training, and the record of their training."""
    record = {"config": asdict(config), "uniform_nll": math.log(config.vocab_size)}
    torch.manual_seed(base.seed)
    model = TinyGPT(config)
    models = {}
    for name, stage, rows_of, measure in (
        ("base", base, base_rows, measure_base),
        ("sft", sft, sft_rows, measure_sft),
    ):
        rows = rows_of(stage.texts, stage.seed)
        held_out = rows_of(500, stage.seed + 2)
        train(model, rows, stage)
        models[name] = TinyGPT(config)
        models[name].load_state_dict(model.state_dict())
        models[name].double().eval()
        record[name] = {
            "settings": asdict(stage),
            "held_out_nll": nll_per_token(models[name], held_out),
            "unigram_nll": unigram_nll(rows, held_out),
            "samples": measure(models[name]),
        }
        print(name, json.dumps(record[name], indent=1))
    return models["base"], models["sft"], record


def main() -> None:
    """Train, then write weights, pairs and the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=float, default=1.0, help="multiply the steps (to try out)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base, sft = (replace(s, steps=round(s.steps * arguments.steps)) for s in (BASE, SFT))
    config = TinyGPTConfig(len(world_tokenizer()), width=32)
    base_model, sft_model, record = train_and_measure(config, base, sft)
    for name, model in (("base", base_model), ("sft", sft_model)):
        path = save_weights(model, name, arguments.out)
        record[name]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_pairs(on_policy_pairs(sft_model), arguments.out / "pairs.jsonl")
    text = json.dumps(record, indent=2) + "\n"
    (arguments.out / "training.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
