"""Autograd functions of the fast path: each computes what torch does in more steps or memory.

Every function here is a formula of the textbook with its derivative written out, so that a
backward pass keeps little and repeats what is cheap.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = 2**24  # more entries (64 MB in float32) are computed in chunks, and twice
ONEDNN_TYPES = (torch.float32, torch.bfloat16)  # of matrix products that oneDNN computes on CPUs


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, in the dtype of ``x``.

    Parameters
    ----------
    x : Tensor, shape (N, K)
        Rows of features.
    weight : Tensor, shape (M, K)
        Parameter, of any floating dtype; its gradient has that dtype.
    bias : Tensor, optional, shape (M,)

    Returns
    -------
    Tensor, shape (N, M)
    """
    return _Linear.apply(x, weight, bias)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Rows scaled to a root mean square of 1, then by a weight (Zhang and Sennrich, 2019).

    Parameters
    ----------
    x : Tensor, shape (N, D)
    weight : Tensor, shape (D,)
    epsilon : float
        Added to the mean square.
    dtype : torch.dtype
        Of the result; the arithmetic is that of ``x``.

    Returns
    -------
    Tensor, shape (N, D)
    """
    return _RMSNorm.apply(x, weight, epsilon, dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up`` (Shazeer, 2020), keeping nothing but its two arguments.

    Parameters
    ----------
    gate, up : Tensor
        Of one shape.

    Returns
    -------
    Tensor
        Of that shape.
    """
    return _SwiGLU.apply(gate, up)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary position embedding (Su et al., 2021): feature i turns with feature i + D / 2.

    Parameters
    ----------
    x : Tensor, shape (N, H, D)
        Queries or keys of N tokens and H heads.
    cosines, sines : Tensor, shape (N, 1, D)
        Of the angle of each token and feature, repeated for the second half; no gradient.

    Returns
    -------
    Tensor, shape (N, H, D)
    """
    return _Rotate.apply(x, cosines, sines)


def tied_embedding(
    weight: Tensor, tokens: Tensor, padding_idx: int | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of an embedding that is the output layer too, and that layer's weights.

    Parameters
    ----------
    weight : Tensor, shape (V, D)
    tokens : Tensor of int, shape (N,)
    padding_idx : int, optional
        Token whose row takes no gradient as an embedding, as in `torch.nn.Embedding`.

    Returns
    -------
    embedded : Tensor, shape (N, D)
    head : Tensor, shape (V, D)
        The weights. To be used in one place, that of the output layer, whose gradient is written
        over: the embedding adds its few rows to it, instead of a second (V, D) of zeros.
    """
    return _TiedEmbedding.apply(weight, tokens, padding_idx)


def edge_log_probs(
    hidden: Tensor, head: Tensor, bias: Tensor | None, rows: Tensor, tokens: Tensor
) -> Tensor:
    """``log_softmax(hidden @ head.T + bias)`` at some (row, token), few logits at a time.

    Parameters
    ----------
    hidden : Tensor, shape (N, D)
        Rows that predict a token.
    head : Tensor, shape (V, D)
        Output weights.
    bias : Tensor, optional, shape (V,)
    rows : Tensor of int, shape (E,)
        Row of each entry that is read, in ascending order.
    tokens : Tensor of int, shape (E,)
        Its token.

    Returns
    -------
    Tensor, shape (E,)
        Nats.

    Notes
    -----
    A logit minus the row's logsumexp: the other V - 1 log-probabilities are never made. What is
    larger than `LOGITS_AT_ONCE` is computed in chunks of rows, once more in the backward pass.
    """
    return _EdgeLogProbs.apply(hidden, head, bias, rows, tokens)


def keep_freed_memory() -> None:
    """Tell glibc, where it is what is in use, to keep what this process frees.

    By default it gives large pieces back to the system. Gradients and activations of the next
    step then lie on new pages, and the system clears each of them first.
    """
    trim_threshold, mmap_threshold = -1, -3  # numbers of these parameters in malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**25)  # as high as it goes; larger pieces are few


def _matmul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` by oneDNN where that is the faster one, else by torch's choice."""
    product = onednn_product(x.dtype) if x.device.type == "cpu" else None
    if product is None or x.dtype not in ONEDNN_TYPES:
        return nn.functional.linear(x, weight, bias)
    return product(x, weight, bias)


Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def onednn_product(dtype: torch.dtype) -> Product | None:
    """OneDNN's ``(x, weight, bias) -> x @ weight.T + bias`` where it is worth taking, else None.

    It has to be in this torch, and switched on, and free to use AVX-512 (or what Arm has for
    bfloat16). With AVX2 alone a step by oneDNN took 1.08 times as long on SmolLM2 as the model's
    own pass on torch's products, and .96 of that with torch's products; with SSE 4.1 1.22 and .88
    on the tiny GPT. With AVX-512 it was .96 by oneDNN and .99 by torch's (medians of processor
    time in alternation, one thread; AVX2 and SSE by ``ONEDNN_MAX_CPU_ISA`` on the same machine).
    """
    return any_onednn_product(dtype) if _onednn_is_wide() else None


def any_onednn_product(dtype: torch.dtype) -> Product | None:
    """The same wherever oneDNN can compute it, fast or not."""
    onednn = torch.backends.mkldnn
    return _onednn_product(dtype) if onednn.is_available() and onednn.enabled else None


@functools.cache
def _onednn_is_wide() -> bool:
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return ask is not None and ask()


@functools.cache
def _onednn_product(dtype: torch.dtype) -> Product | None:
    # A name of torch's own, which another version may lack, or call in another way.
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if linear is None:
        return None

    def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias, "none", [], "")

    one = torch.ones(1, 1, dtype=dtype)
    try:
        works = product(one, one, None).item() == 1
    except (RuntimeError, TypeError):
        return None
    return product if works else None


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _matmul(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = _matmul(slope, weight.to(slope.dtype).T)
        if ctx.needs_input_grad[1]:
            to_weight = slope.T @ x  # which autograd brings to the dtype of the weight
        if ctx.needs_input_grad[2]:
            to_bias = slope.sum(dim=0)
        return to_x, to_weight, to_bias


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()  # (N, 1)
        scale = torch.rsqrt(squares / x.shape[-1] + epsilon)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normal = x * scale
        to_x = to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (slope * normal).sum(dim=0)
        if ctx.needs_input_grad[0]:
            slope = slope * weight
            along = torch.linalg.vecdot(slope, normal)[:, None] / x.shape[-1]  # (N, 1)
            to_x = slope.sub_(normal.mul_(along)).mul_(scale)
        return to_x, to_weight, None, None


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        to_up = nn.functional.silu(gate).mul_(slope)
        return _silu_backward(slope * up, gate), to_up


def _silu_backward(slope: Tensor, x: Tensor) -> Tensor:
    if hasattr(torch.ops.aten, "silu_backward"):  # a name of torch's own: one step
        return torch.ops.aten.silu_backward(slope, x)
    share = x.sigmoid()
    return slope * share * (1 + x * (1 - share))


class _Rotate(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _turn(x, cosines, sines, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return _turn(slope, *ctx.saved_tensors, -1), None, None


def _turn(x: Tensor, cosines: Tensor, sines: Tensor, direction: int) -> Tensor:
    half = x.shape[-1] // 2
    turned = x * cosines
    turned[..., :half].addcmul_(x[..., half:], sines[..., :half], value=-direction)
    turned[..., half:].addcmul_(x[..., :half], sines[..., half:], value=direction)
    return turned


class _TiedEmbedding(Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, tokens: Tensor, padding_idx: int | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(tokens)
        ctx.padding_idx = padding_idx
        return weight[tokens], weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, rows: Tensor, whole: Tensor) -> tuple[Tensor, None, None]:
        (tokens,) = ctx.saved_tensors
        if ctx.padding_idx is not None:
            rows = rows.masked_fill((tokens == ctx.padding_idx)[:, None], 0.0)
        return whole.index_add_(0, tokens, rows), None, None


class _EdgeLogProbs(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, bias: Tensor | None, rows: Tensor, tokens: Tensor
    ) -> Tensor:
        size = max(1, LOGITS_AT_ONCE // len(head))
        chunks, out, kept = [], [], None
        for start in range(0, len(hidden), size):
            stop = min(start + size, len(hidden))
            first, last = torch.searchsorted(rows, torch.tensor([start, stop], device=rows.device))
            logits = _matmul(hidden[start:stop], head, bias)  # (n, V)
            total = logits.logsumexp(dim=-1)  # (n,)
            near = rows[first:last] - start
            out.append(logits[near, tokens[first:last]] - total[near])
            chunks.append((start, stop, int(first), int(last), total))
            kept = logits if stop - start == len(hidden) else None
        ctx.chunks, ctx.kept = chunks, kept
        ctx.save_for_backward(hidden, head, bias, rows, tokens)
        return torch.cat(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, bias, rows, tokens = ctx.saved_tensors
        wants_hidden, wants_head, wants_bias = ctx.needs_input_grad[:3]
        to_hidden, to_head, to_bias = [], None, None
        for start, stop, first, last, total in ctx.chunks:
            logits, ctx.kept = ctx.kept, None  # written over: a second pass makes them anew
            if logits is None:
                logits = _matmul(hidden[start:stop], head, bias)
            near, of_edge = rows[first:last] - start, slope[first:last]
            of_row = torch.zeros_like(total).index_add(0, near, of_edge)  # (n,)
            errors = logits.sub_(total[:, None]).exp_().mul_(-of_row[:, None])  # (n, V)
            errors.index_put_((near, tokens[first:last]), of_edge, accumulate=True)
            if wants_hidden:
                to_hidden.append(_matmul(errors, head.T))
            if wants_head and to_head is None:
                to_head = errors.T @ hidden[start:stop]
            elif wants_head:
                to_head.addmm_(errors.T, hidden[start:stop])
            if wants_bias:
                to_bias = errors.sum(dim=0) + (0 if to_bias is None else to_bias)
        return (torch.cat(to_hidden) if wants_hidden else None), to_head, to_bias, None, None
