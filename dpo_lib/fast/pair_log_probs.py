"""The door of the fast path: log-probabilities of many pairs, every common prefix computed once.

What `get_pair_log_probs` does in four padded forward passes, of policy and reference, is one here,
over the trees of `dpo_lib.fast.prefix_tree`, without padding; and only the positions that predict a
response token reach the vocabulary.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dpo_lib.fast import kernels
from dpo_lib.fast.backbones import Parts, parts_of
from dpo_lib.fast.kernels import keep_freed_memory
from dpo_lib.fast.prefix_tree import Packed, Row, pack_pairs
from dpo_lib.logprobs import get_pair_log_probs, pad_rows

__all__ = [
    "DTYPES",
    "PairLogProbs",
    "Row",
    "keep_freed_memory",
    "log_probs_of_rows",
    "packed_pair_log_probs",
]

DTYPES = ("float32", "bfloat16")


def packed_pair_log_probs(
    model: nn.Module,
    rows: Sequence[Row],
    *,
    dtype: str = "float32",
    row_length: int | None = None,
    lean: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of chosen and rejected responses, by one forward pass over prefix trees.

    Parameters
    ----------
    model : nn.Module
        A `TinyGPT`, or a Hugging Face decoder that takes a mask of shape (batch, 1, T, T) and
        position ids, in eval mode.
    rows : sequence of mapping
        Token ids ``prompt``, ``chosen`` and ``rejected`` of each pair, unpadded.
    dtype : {"float32", "bfloat16"}
        "bfloat16" runs the layers below the vocabulary in it, by autocast; the
        log-probabilities are float32 (or wider) all the same.
    row_length : int, optional
        As in `pack_pairs`; by default twice the model's width, at least 256, or one row for all
        where attention does not cost the square of a row.
    lean : bool
        Compute models with the layers of Llama by `dpo_lib.fast.lean`; False: by their own forward
        pass, as all others.

    Returns
    -------
    chosen, rejected : Tensor
        Nats, shape ``(len(rows),)`` each: the values and gradients of `get_pair_log_probs`.

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
    if read.dtype != head.dtype or read.dtype in (torch.float16, torch.bfloat16):
        wide = torch.promote_types(head.dtype, torch.float32)
        read, head = read.to(wide), head.to(wide)
    with torch.autocast(packed.tokens.device.type, enabled=False):
        bias = None if parts.bias is None else parts.bias.to(read.dtype)
        edges = kernels.edge_log_probs(read, head, bias, packed.edge_reader, packed.edge_token)
    logps = torch.zeros(2 * packed.n_pairs, dtype=edges.dtype, device=edges.device)
    logps = logps.index_add(0, packed.response, edges[packed.steps])  # (2 B,)
    return logps[0::2].clone(), logps[1::2].clone()  # FSDP warns of views


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


class PairLogProbs(nn.Module):
    """Log-probabilities of pairs under one model: packed where that gives the same, else padded.

    At its first call the packed values of a few pairs are compared with those of
    `get_pair_log_probs`. Where they differ, or the model cannot take packed rows, a warning says
    why, and from then on the next way is used: the lean pass, the model's own, the padded path.

    Parameters
    ----------
    model : callable
        As in `get_sequence_log_probs`.
    packed : bool
        False: the padded path from the start.
    dtype, lean
        As in `packed_pair_log_probs`.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        packed: bool = True,
        dtype: str = "float32",
        lean: bool = True,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {[*DTYPES]}, got {dtype!r}")
        self.model, self.packed, self.dtype, self.lean = model, packed, dtype, lean
        self.verified, self.window = False, None
        # What accelerate asks a model for: the layers that FSDP shards one by one.
        self._no_split_modules = getattr(model, "_no_split_modules", None)

    def forward(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of chosen and rejected responses, shape ``(len(rows),)`` each."""
        if self.packed and not self.verified:
            self._verify(rows)
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

    def _padded(self, rows: Sequence[Row], dtype: str) -> tuple[Tensor, Tensor]:
        first = next(self.parameters(), None)
        device = torch.device("cpu") if first is None else first.device
        with _autocast(device, dtype):
            return get_pair_log_probs(self.model, pad_rows(rows, device=device))

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
                    warnings.warn(f"the model's own forward pass is used: {reason}", stacklevel=3)
            if not self.lean:
                reason = self._difference(some, expected)
                self.packed = not reason
        if not self.packed:
            warnings.warn(f"rows are padded, not packed: {reason}", stacklevel=3)

    def _reason_against_rows(self, rows: Sequence[Row]) -> str:
        parts = parts_of(self.model, self.lean)
        if isinstance(parts, str):
            return parts
        self.window = parts.window
        if self.window and _longest(rows) > self.window:
            return f"its sliding window ({self.window}) is shorter than the sequences"
        return ""

    def _difference(self, rows: Sequence[Row], padded: tuple[Tensor, Tensor]) -> str:
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


@torch.no_grad()
def log_probs_of_rows(
    log_probs: Callable[[Sequence[Row]], tuple[Tensor, Tensor]],
    rows: Sequence[Row],
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Values of many rows, some at a time and without gradients."""
    batches = [log_probs(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    chosen, rejected = zip(*batches, strict=True)
    return torch.cat(chosen), torch.cat(rejected)


def _longest(rows: Sequence[Row]) -> int:
    return max(len(r["prompt"]) + max(len(r["chosen"]), len(r["rejected"])) for r in rows)
