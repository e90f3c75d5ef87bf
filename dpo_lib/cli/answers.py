"""What a model writes before and after training, and how far it has moved."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dpo_lib.cli import records
from dpo_lib.cli.models import OpenModel
from dpo_lib.data.formats import Conversation
from dpo_lib.evaluation import estimate, estimate_kl
from dpo_lib.fast.pair_log_probs import PairLogProbs, log_probs_of_rows
from dpo_lib.models import Reply, respond

KL_REPLIES = 16  # sampled replies from which the KL is estimated
BATCH = 16


def answer(
    opened: OpenModel,
    prompts: Sequence[str],
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int | Sequence[int] = 0,
    together: int = BATCH,
) -> list[Reply]:
    """One reply to each prompt, ``together`` at a time; of one seed, or a seed for each prompt."""
    new = min(max_new_tokens, room_for_answers(opened, prompts))
    replies: list[Reply] = []
    for start in range(0, len(prompts), together):
        some = slice(start, start + together)
        seeds = seed + start if isinstance(seed, int) else seed[some]
        replies += respond(
            opened.model, opened.tokenizer, prompts[some], new, temperature, seed=seeds
        )
    return replies


def room_for_answers(opened: OpenModel, prompts: Sequence[str]) -> int:
    """Tokens that the model can read behind the longest of the prompts.

    Raises
    ------
    ValueError
        If a prompt cannot be encoded, or leaves no room.
    """
    longest = 0
    for prompt in dict.fromkeys(prompts):
        try:
            longest = max(longest, len(opened.tokenizer.encode_prompt(prompt)))
        except ValueError as error:
            raise ValueError(f"the prompt {str(prompt)!r:.60}: {error}") from error
    if longest >= opened.context:
        raise ValueError(f"a prompt has {longest} tokens, the model reads {opened.context}")
    return opened.context - longest


def answer_seed(*places: int) -> int:
    """A seed of its own for every place, such as (seed, prompt, answer)."""
    digest = hashlib.sha256(" ".join(map(str, places)).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def answer_before(
    out: Path, opened: OpenModel, prompts: Sequence[str], max_new_tokens: int
) -> None:
    """Write the answers of the untrained model, unless an interrupted run did so already."""
    path = out / "samples.json"
    if path.exists():
        return
    replies = answer(opened, prompts, max_new_tokens)
    rows = [
        {**as_prompt_row(prompt), "before": as_row(reply)}
        for prompt, reply in zip(prompts, replies, strict=True)
    ]
    records.write_json(path, rows)


def answers_after(
    out: Path, opened: OpenModel, prompts: Sequence[str], max_new_tokens: int, seed: int
) -> tuple[dict[str, Any], list[Reply]]:
    """Add the answers of the trained model; return means over them, and replies drawn from it."""
    path = out / "samples.json"
    rows = records.read_json(path)
    if not rows:
        return {}, []
    replies = answer(opened, prompts[: len(rows)], max_new_tokens)
    for row, reply in zip(rows, replies, strict=True):
        row["after"] = as_row(reply)
    records.write_json(path, rows)
    means = {
        f"{name}_{when}": estimate([float(row[when][name]) for row in rows]).mean
        for name in ("tokens", "finished")
        for when in ("before", "after")
    }
    few = prompts[:KL_REPLIES]
    asked = [*few] * (KL_REPLIES // len(few))
    return means, answer(opened, asked, max_new_tokens, temperature=1.0, seed=seed)


def kl_from_start(opened: OpenModel, drawn: Sequence[Reply]) -> dict[str, Any]:
    """The KL divergence of the trained model from its start, estimated from its replies."""
    if not drawn:
        return {}
    rows = scored_rows(opened, drawn)
    (policy,) = log_probs_of_rows(PairLogProbs(opened.model), rows)
    with opened.as_it_was() as model:
        (reference,) = log_probs_of_rows(PairLogProbs(model), rows)
    kl = estimate_kl(policy, reference).k1
    return {"kl": kl.mean, "kl_error": kl.error, "kl_replies": len(drawn)}


def scored_rows(opened: OpenModel, replies: Iterable[Reply]) -> list[dict[str, list[int]]]:
    """Token ids of replies and of their prompts, as `log_probs_of_rows` takes them."""
    return [
        {"prompt": opened.tokenizer.encode_prompt(reply.prompt), "response": reply.tokens}
        for reply in replies
    ]


def as_prompt_row(prompt: str) -> dict[str, Any]:
    """A prompt for a JSON file: its text, and its messages and tools if it has several."""
    row: dict[str, Any] = {"prompt": str(prompt)}
    if isinstance(prompt, Conversation):
        row["messages"] = list(prompt.messages)
        if prompt.tools:
            row["tools"] = list(prompt.tools)
    return row


def prompt_of_row(row: dict[str, Any]) -> str:
    """The prompt that `as_prompt_row` wrote."""
    if "messages" in row:
        return Conversation(row["messages"], row.get("tools", ()))
    return row["prompt"]


def as_data_row(prompt: str) -> dict[str, Any]:
    """A prompt as a data file has it: text or messages, and tools beside them."""
    if not isinstance(prompt, Conversation):
        return {"prompt": prompt}
    tools = {"tools": list(prompt.tools)} if prompt.tools else {}
    return {"prompt": list(prompt.messages), **tools}


def as_row(reply: Reply) -> dict[str, Any]:
    """Text, number of tokens, and whether the model ended it itself."""
    return {"text": reply.text, "tokens": reply.length, "finished": reply.finished}
