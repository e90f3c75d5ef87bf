"""Log-probabilities of given responses under a causal language model (chapters 4 and 5)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from dpo_lib._validation import check_whole


def get_sequence_log_probs(
    model: Callable[..., Any],
    prompt_tokens: Tensor,
    response_tokens: Tensor,
    prompt_mask: Tensor | None = None,
    response_mask: Tensor | None = None,
) -> Tensor:
    r"""Log-probability of each response given its prompt: the sum over its tokens.

    Parameters
    ----------
    model : callable
        Causal language model. Called with token ids of shape ``(batch, length)``, it returns
        logits of shape ``(batch, length, vocab)`` or an object with such ``.logits``.
    prompt_tokens : Tensor
        Ids, shape ``(batch, prompt_len)``; unequal prompts are padded on the left.
    response_tokens : Tensor
        Ids, shape ``(batch, response_len)``; unequal responses are padded on the right. End each
        response with its end-of-sequence token, or its end is not scored.
    prompt_mask, response_mask : Tensor, optional
        1 (or True) on real tokens, 0 on padding; shapes of the tokens. Absent: no padding.

    Returns
    -------
    Tensor
        :math:`\log\pi(y\mid x)` in nats, shape ``(batch,)``, float32 or wider.

    Raises
    ------
    ValueError
        On shapes that disagree, an empty prompt or response, padding on the wrong side, ids
        outside the vocabulary, or more tokens than the model's context holds.

    Notes
    -----
    Gradients flow; wrap the call in ``torch.no_grad()`` for a reference. Chapter 5 builds this
    function step by step.
    """
    return get_token_log_probs(
        model, prompt_tokens, response_tokens, prompt_mask, response_mask
    ).sum(dim=-1)  # (B,)


def get_token_log_probs(
    model: Callable[..., Any],
    prompt_tokens: Tensor,
    response_tokens: Tensor,
    prompt_mask: Tensor | None = None,
    response_mask: Tensor | None = None,
) -> Tensor:
    r"""Log-probability of every response token given all tokens before it.

    Parameters
    ----------
    model, prompt_tokens, response_tokens, prompt_mask, response_mask
        As in `get_sequence_log_probs`.

    Returns
    -------
    Tensor
        :math:`\log\pi(y_t\mid x, y_{<t})` in nats, shape ``(batch, response_len)``, float32 or
        wider; 0 on padding.

    Raises
    ------
    ValueError
        As in `get_sequence_log_probs`.
    """
    prompt, prompt_mask = _check_tokens(prompt_tokens, prompt_mask, "prompt")  # (B, P)
    response, response_mask = _check_tokens(response_tokens, response_mask, "response")  # (B, R)
    if len(prompt) != len(response):
        raise ValueError(
            "prompt_tokens and response_tokens must have one batch size, got "
            f"{len(prompt)} and {len(response)}"
        )
    tokens = torch.cat([prompt, response], dim=1)  # (B, T)
    mask = torch.cat([prompt_mask, response_mask], dim=1)  # (B, T)
    config = getattr(model, "config", None)
    _check_context(config, mask)
    _check_vocabulary(getattr(config, "vocab_size", None), prompt, response)
    logits = _response_logits(model, tokens, mask, prompt.shape[1])  # (B, R, V)
    _check_vocabulary(logits.shape[-1], prompt, response)
    return _gather_log_probs(logits, response).masked_fill(~response_mask, 0.0)  # (B, R)


def get_pair_log_probs(
    model: Callable[..., Any], batch: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Sequence log-probabilities of the chosen and of the rejected responses of a batch.

    Parameters
    ----------
    model : callable
        As in `get_sequence_log_probs`.
    batch : mapping
        Token ids ``prompt``, ``chosen``, ``rejected``, each ``(batch, length)``; if rows were
        padded, also ``prompt_mask``, ``chosen_mask``, ``rejected_mask``.

    Returns
    -------
    chosen, rejected : Tensor
        Nats, shape ``(batch,)`` each.

    Raises
    ------
    ValueError
        If a key is missing, or as in `get_sequence_log_probs`.
    """
    if not isinstance(batch, Mapping):
        raise ValueError(f"batch must be a mapping, got {type(batch).__name__}")
    missing = [key for key in ("prompt", "chosen", "rejected") if key not in batch]
    if missing:
        raise ValueError(f"batch lacks {missing}; it has {sorted(map(str, batch))}")
    prompt, prompt_mask = batch["prompt"], batch.get("prompt_mask")
    logps = []
    for side in ("chosen", "rejected"):
        response, response_mask = batch[side], batch.get(f"{side}_mask")
        try:
            logps.append(
                get_sequence_log_probs(model, prompt, response, prompt_mask, response_mask)
            )
        except ValueError as error:
            raise ValueError(f"batch with {side} as response: {error}") from error
    return logps[0], logps[1]


RESPONSES = ("chosen", "rejected", "response", "mismatched")
"""The responses that a row may have beside its ``prompt``: those of a pair, or of a thumb."""


def responses_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the responses in a row, or a batch, of token ids."""
    return tuple(name for name in RESPONSES if name in row)


def get_response_log_probs(
    model: Callable[..., Any], batch: Mapping[str, Tensor]
) -> tuple[Tensor, ...]:
    """What `get_pair_log_probs` is for pairs, for whichever responses a padded batch has."""
    names = responses_of(batch)
    if names == ("chosen", "rejected"):
        return get_pair_log_probs(model, batch)
    prompt, mask = batch["prompt"], batch["prompt_mask"]
    return tuple(
        get_sequence_log_probs(model, prompt, batch[name], mask, batch[f"{name}_mask"])
        for name in names
    )


def pad(
    rows: Sequence[Sequence[int]],
    pad_id: int,
    side: Literal["left", "right"],
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Stack rows of unequal length: tokens and mask (1 on real tokens), both (B, T)."""
    try:
        lengths = [len(row) for row in rows]
    except TypeError as error:
        raise ValueError(f"rows must be sequences of token ids, got {rows!r:.60}") from error
    if not lengths or 0 in lengths:
        raise ValueError(f"rows must be given and not empty, got lengths {lengths}")
    if not isinstance(side, str) or side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', got {side!r}")
    pad_id = check_whole(pad_id, "pad_id")
    longest = max(lengths)
    tokens, mask = [], []
    for row in rows:
        gap, real = longest - len(row), [1] * len(row)
        tokens.append([pad_id] * gap + [*row] if side == "left" else [*row] + [pad_id] * gap)
        mask.append([0] * gap + real if side == "left" else real + [0] * gap)
    try:
        stacked = torch.tensor(tokens, device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"rows and pad_id must be token ids, got {rows!r:.60} and {pad_id!r:.60}"
        ) from error
    if stacked.dtype != torch.int64:
        raise ValueError(f"rows must hold whole numbers, got dtype {stacked.dtype}")
    return stacked, torch.tensor(mask, device=device)


def pad_rows(
    rows: Sequence[Mapping[str, Sequence[int]]],
    pad_id: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """The batch of `get_pair_log_probs`: prompts padded on the left, responses on the right.

    Parameters
    ----------
    rows : sequence of mapping
        Token ids ``prompt``, ``chosen`` and ``rejected`` of each pair; or other `RESPONSES`.
    pad_id : int
        What stands on padding; the masks say where, so any id will do.
    device : torch.device or str
        Of the batch.

    Returns
    -------
    dict
        ``prompt``, ``chosen``, ``rejected`` and their masks, each ``(batch, length)``.
    """
    batch = {}
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"rows must be a sequence of mappings, got {rows!r:.60}")
    for name in ("prompt", *(responses_of(rows[0]) if rows else ())):
        side = "left" if name == "prompt" else "right"
        if missing := [i for i, row in enumerate(rows) if name not in row]:
            raise ValueError(
                f"rows must all have {name}, row {missing[0]} has {[*rows[missing[0]]]}"
            )
        padded = pad([row[name] for row in rows], pad_id, side, device)
        batch[name], batch[f"{name}_mask"] = padded
    return batch


def _gather_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-softmax of ``logits`` at ``targets`` only: no second ``(B, R, V)`` tensor is kept."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    chosen = logits.gather(dim=-1, index=targets.unsqueeze(-1)).squeeze(-1)  # (B, R)
    return chosen - logits.logsumexp(dim=-1)  # (B, R)


def _response_logits(
    model: Callable[..., Any], tokens: Tensor, mask: Tensor, prompt_len: int
) -> Tensor:
    """Logits that predict the response tokens, shape ``(B, R, V)``.

    The logits at position t predict token t + 1: the first response token is predicted at the
    last prompt position, and the last logits predict beyond the response.
    """
    takes = _accepted_arguments(model)
    extra: dict[str, Any] = {}
    if takes.attention_mask:
        extra["attention_mask"] = mask.long()
    if takes.position_ids:
        extra["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
    if takes.use_cache:
        extra["use_cache"] = False
    response_len = tokens.shape[1] - prompt_len

    padded_left = bool((~mask[:, 0]).any())
    if padded_left and not (takes.attention_mask and takes.position_ids):
        # The model would read the pads, or count them as positions. Moved behind the real
        # tokens they are in the future of every position that counts: a causal model is blind
        # to them there.
        order = mask.long().argsort(dim=1, descending=True, stable=True)  # (B, T)
        longest = int(mask.sum(dim=1).max())  # T - longest columns hold pads only: drop them
        kept = order[:, :longest]
        moved = {name: x.gather(1, kept) for name, x in extra.items() if isinstance(x, Tensor)}
        logits = _call(model, tokens.gather(1, kept), {**extra, **moved})  # (B, longest, V)
        back = order.argsort(dim=1)[:, prompt_len - 1 : -1].clamp(max=longest - 1)  # (B, R)
        rows = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)  # (B, 1)
        return logits[rows, back]
    if takes.logits_to_keep:
        logits = _call(model, tokens, {**extra, "logits_to_keep": response_len + 1})
        return logits[:, -response_len - 1 : -1]
    return _call(model, tokens, extra)[:, prompt_len - 1 : -1]


def _call(model: Callable[..., Any], tokens: Tensor, extra: dict[str, Any]) -> Tensor:
    try:
        output = model(tokens, **extra)
    except IndexError as error:  # what an embedding raises for an id or a position beyond its table
        raise ValueError(
            "prompt_tokens and response_tokens must lie in the model's vocabulary and context, "
            f"got ids up to {int(tokens.max())} in {tokens.shape[1]} positions ({error})"
        ) from error
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 3 or len(logits) != len(tokens):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model must return logits (batch, length, vocab), got {shape}")
    kept = extra.get("logits_to_keep", tokens.shape[1])
    if logits.shape[1] not in (kept, tokens.shape[1]):
        raise ValueError(
            f"model must return logits for each of {tokens.shape[1]} tokens, got {logits.shape[1]}"
        )
    return logits


class _Accepted(NamedTuple):
    attention_mask: bool
    position_ids: bool
    use_cache: bool
    logits_to_keep: bool


def _accepted_arguments(model: Callable[..., Any]) -> _Accepted:
    """Which optional arguments the model names in its signature."""
    function = model.forward if isinstance(model, nn.Module) else model
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in callables have no signature
        return _Accepted(False, False, False, False)
    return _Accepted(*(name in parameters for name in _Accepted._fields))


def _check_tokens(tokens: Tensor, mask: Tensor | None, part: str) -> tuple[Tensor, Tensor]:
    """Return ids (int64, 0 on padding: a pad's id must not matter) and boolean mask, checked."""
    name = f"{part}_tokens"
    if not isinstance(tokens, Tensor) or tokens.ndim != 2:
        shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"{name} must be a tensor of shape (batch, length), got {shape}")
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ValueError(f"{name} must hold integer ids, got dtype {tokens.dtype}")
    if tokens.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(tokens.shape)}")
    tokens = tokens.long()
    if mask is None:
        return tokens, torch.ones_like(tokens, dtype=torch.bool)
    if not isinstance(mask, Tensor):
        raise ValueError(f"{part}_mask must be a tensor, got {type(mask).__name__}")
    if mask.shape != tokens.shape:
        raise ValueError(
            f"{part}_mask {tuple(mask.shape)} must have the shape of {name} {tuple(tokens.shape)}"
        )
    real = mask.bool()
    if (real != mask).any():
        raise ValueError(f"{part}_mask must hold only 0 and 1, got {mask.unique().tolist()}")
    empty = (~real.any(dim=1)).nonzero().flatten()
    if len(empty):
        raise ValueError(f"{part} in row {int(empty[0])} is empty: its mask is 0 everywhere")
    # Real tokens stand together at the end of a prompt and at the start of a response.
    first_to_last = real if part == "prompt" else real.flip(1)
    wrong = (first_to_last[:, :-1] & ~first_to_last[:, 1:]).nonzero()
    if len(wrong):
        side, row = "left" if part == "prompt" else "right", int(wrong[0, 0])
        raise ValueError(
            f"{part}_mask must mark padding on the {side} only, "
            f"got {mask[row].tolist()} in row {row}"
        )
    return tokens.masked_fill(~real, 0), real


def _check_context(config: object, mask: Tensor) -> None:
    """Check the lengths against what the model's ``config`` says, before it fails inside."""
    # Only real tokens count: pads take no position of their own, or stand behind the last one.
    length = int(mask.sum(dim=1).max())
    for name in ("max_position_embeddings", "n_positions", "context_length"):
        limit = getattr(config, name, None)
        if isinstance(limit, int) and length > limit:
            raise ValueError(
                f"prompt_tokens and response_tokens hold {length} tokens together, "
                f"above the model's context ({limit})"
            )


def _check_vocabulary(vocab_size: int | None, prompt: Tensor, response: Tensor) -> None:
    """Refuse negative ids and, where the size is known, ids beyond the vocabulary."""
    end = vocab_size if isinstance(vocab_size, int) else math.inf
    for name, ids in (("prompt_tokens", prompt), ("response_tokens", response)):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= end:
            raise ValueError(f"{name} must be ids in [0, {end}), got {low} to {high}")
