"""The steps of others, written anew in plain torch from their descriptions.

Each computes the same loss and ends in the same update as `train_dpo`: gradients clipped to
length 1, AdamW as torch makes it by default. What differs is how the four log-probabilities of a
batch come about. None of them keeps the reference's between epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpo_lib.fast.pair_log_probs import Row
from dpo_lib.logprobs import pad_rows

SIDES = ("chosen", "rejected")
Batch = Any  # whatever a peer's collate makes of some rows

# (model, batch) -> log-probabilities of the chosen and of the rejected responses, (B,) each
LogProbs = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]


class Peer(NamedTuple):
    """One way to a batch's log-probabilities."""

    title: str
    collate: Callable[[Sequence[Row]], Batch]
    log_probs: LogProbs


def _logits(model: nn.Module, tokens: Tensor, **extra: Tensor) -> Tensor:
    output = model(tokens, **extra)
    return getattr(output, "logits", output)  # (B, T, V)


def _gather(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-softmax over the whole vocabulary, then the entries of the targets: (B, T)."""
    return logits.log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


# --- the textbook: four forward passes -----------------------------------------------------------


def whole_texts(batch: Mapping[str, Tensor], side: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Prompts with their responses, (B, T), and what a model must be told of their padding."""
    tokens = torch.cat([batch["prompt"], batch[side]], dim=1)  # (B, T)
    mask = torch.cat([batch["prompt_mask"], batch[f"{side}_mask"]], dim=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return tokens, {"attention_mask": mask, "position_ids": positions}


def textbook_log_probs(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Prompts padded left, responses right; logits of every position, sliced afterward."""
    sums = []
    for side in SIDES:
        tokens, masks = whole_texts(batch, side)
        logits = _logits(model, tokens, **masks)  # (B, T, V)
        predicting = logits[:, batch["prompt"].shape[1] - 1 : -1]  # (B, R, V)
        sums.append((_gather(predicting, batch[side]) * batch[f"{side}_mask"]).sum(dim=1))
    return sums[0], sums[1]


# --- the original paper's code: one forward pass over chosen and rejected ------------------------


def concatenate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Prompt and response in one row, chosen rows first, all padded right to one length."""
    texts = [[*row["prompt"], *row[side]] for side in SIDES for row in rows]
    starts = torch.tensor([len(row["prompt"]) for _ in SIDES for row in rows])  # (2B,)
    lengths = torch.tensor([len(text) for text in texts])  # (2B,)
    places = torch.arange(int(lengths.max()))  # (T,)
    tokens = torch.tensor([[*text, *[0] * (len(places) - len(text))] for text in texts])
    real = places < lengths[:, None]  # (2B, T)
    return {"tokens": tokens, "mask": real.long(), "response": real & (places >= starts[:, None])}


def concatenated_log_probs(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """All 2B rows at once; log-softmax at every position, prompt and padding included."""
    logits = _logits(model, batch["tokens"], attention_mask=batch["mask"])  # (2B, T, V)
    each = _gather(logits[:, :-1], batch["tokens"][:, 1:])  # (2B, T - 1)
    sums = (each * batch["response"][:, 1:]).sum(dim=1)  # (2B,)
    chosen, rejected = sums.chunk(2)
    return chosen, rejected


# --- Raschka's notebook: four forward passes at one common length --------------------------------


def raschka_log_probs(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Chosen and rejected padded right to the batch's longest text, no attention mask.

    Log-softmax at every position, then a mask of the response. His notebook takes the mean over
    the tokens of a response; here it is the sum, so that the loss is that of the others.
    """
    sums = []
    for tokens, response in zip(batch["tokens"].chunk(2), batch["response"].chunk(2), strict=True):
        logits = _logits(model, tokens)[:, :-1]  # (B, T - 1, V)
        sums.append((_gather(logits, tokens[:, 1:]) * response[:, 1:]).sum(dim=1))
    return sums[0], sums[1]


# --- the lesson: its function knows no masks -----------------------------------------------------


def one_by_one(rows: Sequence[Row]) -> list[dict[str, Tensor]]:
    """Each pair as tensors of one row: without masks, only texts of one length share a batch."""
    return [{name: torch.tensor([row[name]]) for name in ("prompt", *SIDES)} for row in rows]


def lesson_log_probs(
    model: nn.Module, batch: Sequence[Mapping[str, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Concatenate, one forward pass, slice, log-softmax, gather, sum: for each response."""
    sums = []
    for side in SIDES:
        each = []
        for pair in batch:
            tokens = torch.cat([pair["prompt"], pair[side]], dim=1)  # (1, T)
            logits = _logits(model, tokens)[:, pair["prompt"].shape[1] - 1 : -1]  # (1, R, V)
            each.append(_gather(logits, pair[side]).sum(dim=1))
        sums.append(torch.cat(each))
    return sums[0], sums[1]


PEERS = {
    "textbook": Peer("Textbook: four forward passes", pad_rows, textbook_log_probs),
    "concatenated": Peer("Original paper: concatenated", concatenate, concatenated_log_probs),
    "raschka": Peer("Raschka's notebook", concatenate, raschka_log_probs),
    "lesson": Peer("The lesson: pair by pair", one_by_one, lesson_log_probs),
}


# --- the step ------------------------------------------------------------------------------------


def make_optimizer(
    policy: nn.Module, learning_rate: float, fused: bool | None = None
) -> torch.optim.Optimizer:
    """AdamW as one gets it without asking for more; without weight decay, like everybody here."""
    return torch.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=0.0, fused=fused)


def take_step(
    log_probs: LogProbs,
    policy: nn.Module,
    reference: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    beta: float,
    cached: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """One update of the policy; the mean loss before it.

    The reference's log-probabilities are computed by it, or given as ``cached``.
    """
    optimizer.zero_grad()
    chosen, rejected = log_probs(policy, batch)
    if cached is None:
        with torch.no_grad():
            cached = log_probs(reference, batch)
    reference_chosen, reference_rejected = cached
    margins = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    loss = -F.logsigmoid(margins).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    optimizer.step()
    return loss.detach()
