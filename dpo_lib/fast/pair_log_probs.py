"""The door of the fast path: log-probabilities of many pairs, every common prefix computed once.

What `get_pair_log_probs` does in two padded forward passes of a model is one here, over the trees
of ``dpo_lib.fast.prefix_tree``, without padding; and only the positions that predict a response
token reach the vocabulary.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpo_lib.fast import kernels
from dpo_lib.fast.backbones import Parts, parts_of
from dpo_lib.fast.kernels import keep_freed_memory
from dpo_lib.fast.precision import DTYPES, check_dtype, reason_against_bfloat16
from dpo_lib.fast.prefix_tree import Packed, Row, pack_pairs
from dpo_lib.logprobs import get_response_log_probs, pad_rows, responses_of

__all__ = [
    "DTYPES",
    "PairLogProbs",
    "Row",
    "check_dtype",
    "keep_freed_memory",
    "log_probs_of_rows",
    "packed_pair_log_probs",
    "reason_against_bfloat16",
]


def packed_pair_log_probs(
    model: nn.Module,
    rows: Sequence[Row],
    *,
    dtype: str = "float32",
    row_length: int | None = None,
    lean: bool = True,
) -> tuple[Tensor, ...]:
    """Log-probabilities of chosen and rejected responses, by one forward pass over prefix trees.

    Parameters
    ----------
    model : nn.Module
        A `TinyGPT`, or a Hugging Face decoder that takes a mask of shape (batch, 1, T, T) and
        position ids, in eval mode.
    rows : sequence of mapping
        Token ids ``prompt``, ``chosen`` and ``rejected`` of each pair, unpadded; or ``prompt``
        with other `RESPONSES`, such as the ``response`` of a thumb.
    dtype : {"float32", "bfloat16"}
        "bfloat16" runs the layers below the vocabulary in it, by autocast; the
        log-probabilities are float32 (or wider) all the same.
    row_length : int, optional
        As in `pack_pairs`; by default twice the model's width, at least 256, or one row for all
        where attention does not cost the square of a row.
    lean : bool
        Compute a `TinyGPT`, and models with the layers of Llama by ``dpo_lib.fast.lean``; False: by
        their own forward pass, as all others. The lean pass was the faster one on every processor
        tried, since it takes the matrix products that are faster there (`kernels.onednn_product`).

    Returns
    -------
    chosen, rejected : Tensor
        Nats, shape ``(len(rows),)`` each: the values and gradients of `get_pair_log_probs`. Of
        other responses as many as a row has.

    Raises
    ------
    ValueError
        If the model cannot take packed rows, naming the reason, an id lies outside the
        vocabulary, or a sequence is longer than the model's context.
    """
    parts = parts_of(model, lean)
    if isinstance(parts, str):
        raise ValueError(f"model cannot take packed rows: {parts}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {[*DTYPES]}, got {dtype!r}")
    packed = pack_pairs(rows, row_length or parts.row_length)
    _check_fits(packed, parts)
    packed = packed.to(parts.head.device)
    with _autocast(packed.tokens.device, dtype):
        hidden, head = parts.run(packed, dtype)  # (R * T, D), (V, D)
    read = hidden[packed.readers]  # (N, D)
    wide = torch.promote_types(head.dtype, torch.float32)
    read, head = read.to(wide), head.to(wide)
    with torch.autocast(packed.tokens.device.type, enabled=False):
        bias = None if parts.bias is None else parts.bias.to(read.dtype)
        edges = kernels.edge_log_probs(read, head, bias, packed.edge_reader, packed.edge_token)
    n = packed.n_sides
    logps = torch.zeros(n * packed.n_pairs, dtype=edges.dtype, device=edges.device)
    logps = logps.index_add(0, packed.response, edges[packed.steps])  # (2 B,)
    return tuple(logps[side::n].clone() for side in range(n))  # FSDP warns of views


def _check_fits(packed: Packed, parts: Parts) -> None:
    longest = int(packed.positions.max()) + 2  # the last token of a response is no node
    limits = parts.limits | ({"sliding_window": parts.window} if parts.window else {})
    for name, limit in limits.items():
        if longest > limit:
            raise ValueError(
                f"rows hold a sequence of {longest} tokens, above the model's {name} ({limit})"
            )
    for ids in (packed.tokens, packed.edge_token):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= len(parts.head):
            raise ValueError(f"ids must lie in [0, {len(parts.head)}), got {low} to {high}")


def _autocast(device: torch.device, dtype: str) -> contextlib.AbstractContextManager:
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


# --- either path ---------------------------------------------------------------------------------


class _Way(NamedTuple):
    """How the log-probabilities of a model are computed."""

    packed: bool
    lean: bool
    window: int | None  # longest sequence that can be packed, where the model has such a limit


# What the self-check has found, in this process: by model, then by what was asked and how the
# model is built.
_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[object, _Way]] = weakref.WeakKeyDictionary()


class PairLogProbs(nn.Module):
    """Log-probabilities of pairs under one model: packed where that gives the same, else padded.

    At the first call the packed values of a few pairs are compared with those of
    `get_pair_log_probs`. Where they differ, or the model cannot take packed rows, a warning says
    why, and from then on the next way is used: the lean pass, the model's own, the padded path.
    A model is checked once in a process, and once more when its parts are no longer the same.

    Parameters
    ----------
    model : callable
        As in `get_sequence_log_probs`.
    packed : bool
        False: the padded path from the start.
    dtype, lean
        As in `packed_pair_log_probs`.
    force_dtype : bool
        Compute in bfloat16 even where that is the slower one; without it the first call raises
        the ValueError of `check_dtype`.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        packed: bool = True,
        dtype: str = "float32",
        lean: bool = True,
        force_dtype: bool = False,
    ) -> None:
        super().__init__()
        check_dtype("cpu", dtype, force=True)  # where the model will be is known at the first call
        self.model, self.packed, self.dtype, self.lean = model, packed, dtype, lean
        self.force_dtype = force_dtype
        self.verified, self.window = False, None
        # What accelerate asks a model for: the layers that FSDP shards one by one.
        self._no_split_modules = getattr(model, "_no_split_modules", None)

    def forward(self, rows: Sequence[Row]) -> tuple[Tensor, ...]:
        """Log-probabilities of chosen and rejected responses, shape ``(len(rows),)`` each.

        Rows with other responses than these give as many values as they have.
        """
        if not self.verified:
            check_dtype(self._device(), self.dtype, self.force_dtype)
            if self.packed:
                self._choose_way(rows)
            self.verified = True
        if self.packed and self.window and _longest(rows) > self.window:
            warnings.warn(
                f"some rows are padded, not packed: a sequence of {_longest(rows)} tokens is "
                f"longer than the model's sliding window ({self.window})",
                stacklevel=2,
            )
        elif self.packed:
            return packed_pair_log_probs(self.model, rows, dtype=self.dtype, lean=self.lean)
        return self._padded(rows, self.dtype)

    def _padded(self, rows: Sequence[Row], dtype: str) -> tuple[Tensor, ...]:
        device = self._device()
        with _autocast(device, dtype):
            return get_response_log_probs(self.model, pad_rows(rows, device=device))

    def _device(self) -> torch.device:
        first = next(self.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def _choose_way(self, rows: Sequence[Row]) -> None:
        """Take the way that was found for this model before, or find it."""
        known, key = {}, None
        if isinstance(self.model, nn.Module):
            known, key = _KNOWN.setdefault(self.model, {}), (self.lean, _structure(self.model))
        if key in known:
            self.packed, self.lean, self.window = known[key]
            return
        self._verify(rows)
        # Rows too long for a window say nothing of the next ones.
        if self.packed or not self.window:
            known[key] = _Way(self.packed, self.lean, self.window)

    @torch.no_grad()
    def _verify(self, rows: Sequence[Row]) -> None:
        """Find the fastest way that gives the values of the padded path."""
        reason = self._reason_against_rows(rows)
        if reason:
            self.packed = False
        else:
            some = rows[:4]
            expected = self._padded(some, "float32")  # says by itself what is wrong with the rows
            if self.lean:
                reason = self._difference(some, expected)
                if reason:
                    self.lean = False
                    warnings.warn(f"the model's own forward pass is used: {reason}", stacklevel=4)
            if not self.lean:
                reason = self._difference(some, expected)
                self.packed = not reason
        if not self.packed:
            warnings.warn(f"rows are padded, not packed: {reason}", stacklevel=4)

    def _reason_against_rows(self, rows: Sequence[Row]) -> str:
        parts = parts_of(self.model, self.lean)
        if isinstance(parts, str):
            return parts
        self.window = parts.window
        if self.window and _longest(rows) > self.window:
            return f"its sliding window ({self.window}) is shorter than the sequences"
        return ""

    def _difference(self, rows: Sequence[Row], padded: tuple[Tensor, ...]) -> str:
        try:
            found = packed_pair_log_probs(self.model, rows, lean=self.lean)
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
            return f"the packed pass failed ({error})"
        expected, found = torch.cat(padded), torch.cat(found)
        gap = float((found - expected).abs().max())
        stored = next(self.parameters()).dtype
        allowed = {torch.float64: 1e-9, torch.float32: 1e-4}.get(stored, 0.02)
        # Written so that NaN does not pass.
        if not gap <= allowed * max(1.0, float(expected.abs().max())):
            return f"its packed log-probabilities differ by {gap:.2g} nats"
        return ""


def _structure(model: nn.Module) -> int:
    """A number that changes when parts of a model are replaced, added or wrapped.

    A number, since the parts themselves, kept, would keep the model.
    """
    parts = (
        (name, type(module), id(vars(module).get("forward")), module.training, *_hooks(module))
        for name, module in model.named_modules()
    )
    kinds = ((name, p.dtype) for name, p in model.named_parameters())
    return hash((*parts, *kinds, str(getattr(model, "config", None))))


def _hooks(module: nn.Module) -> tuple[int, int]:
    return len(module._forward_hooks), len(module._forward_pre_hooks)


@torch.no_grad()
def log_probs_of_rows(
    log_probs: Callable[[Sequence[Row]], tuple[Tensor, ...]],
    rows: Sequence[Row],
    batch_size: int = 64,
    n_tokens: int = 2048,
) -> tuple[Tensor, ...]:
    """Values of many rows, some at a time and without gradients.

    Rows of one length are taken together, and those of one prompt: as many as ``batch_size`` and
    ``n_tokens`` allow, so that a batch of long ones takes no longer than one of short ones.
    """
    sides = responses_of(rows[0])

    def sizes(i: int) -> tuple[int, list[int], int]:
        prompt, *responses = ([*rows[i][name]] for name in ("prompt", *sides))
        return len(prompt), prompt, sum(map(len, responses))

    order = sorted(range(len(rows)), key=sizes)
    batches: list[list[int]] = []
    filled = n_tokens
    for i in order:
        length = sizes(i)[0] + sizes(i)[2]
        if filled + length > n_tokens or len(batches[-1]) == batch_size:
            batches.append([])
            filled = 0
        batches[-1].append(i)
        filled += length
    parts = [log_probs([rows[i] for i in some]) for some in batches]
    back = torch.tensor(order).argsort()
    return tuple(torch.cat(values)[back] for values in zip(*parts, strict=True))


def _longest(rows: Sequence[Row]) -> int:
    sides = responses_of(rows[0])
    return max(len(row["prompt"]) + max(len(row[side]) for side in sides) for row in rows)
