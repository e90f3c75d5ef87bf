"""The fast path: log-probabilities of many pairs with every common prefix computed once.

The sequences of a batch, each a prompt with one of its responses, are merged into a tree of
prefixes. Its nodes stand one after the other in a row of tokens; attention lets each node see its
ancestors and itself, so it computes what it would in its own sequence. What `get_pair_log_probs`
does in four padded forward passes, of policy and reference, is one here, without padding, and
only the positions that predict a response token reach the vocabulary.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpo_lib.fast import kernels
from dpo_lib.fast import lean as lean_passes
from dpo_lib.logprobs import get_pair_log_probs

Row = Mapping[str, Sequence[int]]  # ids of "prompt", "chosen" and "rejected"
DTYPES = ("float32", "bfloat16")


class Packed(NamedTuple):
    """Pairs of responses as a few rows of nodes, and where the responses are read."""

    tokens: Tensor  # (R, T) id of each node, 0 behind the last one
    positions: Tensor  # (R, T) depth of each node: its place in its own sequence
    ends: Tensor  # (R, T) first node behind the subtree of each node
    readers: Tensor  # (N,) places in the R * T nodes at which response tokens are predicted
    edge_reader: Tensor  # (E,) which reader predicts ...
    edge_token: Tensor  # (E,) ... which token; shared by all responses that run along this edge
    steps: Tensor  # (S,) edge of each response token, response after response
    response: Tensor  # (S,) 2 i for the chosen response of pair i, 2 i + 1 for its rejected one
    paths: Tensor  # (2 B, L) node, of R * T, at each place of each sequence; 0 behind its end
    homes: Tensor  # (R * T,) a place, of 2 B * L, at which each node stands
    n_pairs: int

    def visible(self) -> Tensor:
        """Which node (row) may see which (column): its ancestors and itself, (R, T, T)."""
        places = torch.arange(self.tokens.shape[1], device=self.tokens.device)  # (T,)
        before = places[None, :] <= places[:, None]  # (T, T)
        return before & (places[None, :, None] < self.ends[:, None, :])  # (R, T, T)

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        return Packed(*(x.to(device) for x in self[:-1]), self.n_pairs)


def pack_pairs(rows: Sequence[Row], row_length: int = 1024) -> Packed:
    """Merge the sequences of pairs into prefix trees.

    Parameters
    ----------
    rows : sequence of mapping
        Token ids ``prompt``, ``chosen`` and ``rejected`` of each pair.
    row_length : int
        Nodes in a row, about. Within a row every common prefix is merged; between rows none is,
        but attention costs the square of a row.

    Returns
    -------
    Packed
        The last token of a response is predicted, never read: it is no node.

    Raises
    ------
    ValueError
        If there are no rows, or a prompt or response is empty.
    """
    if not rows:
        raise ValueError("rows must hold at least one pair, got none")
    sequences = []  # (ids, where the response starts)
    for i, row in enumerate(rows):
        for side in ("chosen", "rejected"):
            if not len(row["prompt"]) or not len(row[side]):
                empty = side if len(row["prompt"]) else "prompt"
                raise ValueError(f"{empty} of row {i} is empty")
            sequences.append(([*row["prompt"], *row[side]], len(row["prompt"])))
    trees = [_Tree(sequences, members) for members in _share_out(sequences, row_length)]

    length = max(len(tree.tokens) for tree in trees)
    readers: dict[int, int] = {}  # place -> number
    edges: dict[tuple[int, int], int] = {}  # reader and token -> number
    steps: list[list[int]] = [[] for _ in sequences]
    longest = max(len(ids) for ids, _ in sequences) - 1
    paths = [[0] * longest for _ in sequences]
    homes = [0] * (len(trees) * length)
    for r, tree in enumerate(trees):
        for member, path in tree.paths.items():
            ids, start = sequences[member]
            for place, node in enumerate(path):
                paths[member][place] = r * length + node
                homes[r * length + node] = member * longest + place
            for node, token in zip(path[start - 1 :], ids[start:], strict=True):
                reader = readers.setdefault(r * length + node, len(readers))
                steps[member].append(edges.setdefault((reader, token), len(edges)))

    def stack(lists: Sequence[list[int]], fill: Sequence[int]) -> Tensor:
        return torch.tensor([[*x, *fill[len(x) :]] for x in lists])

    # A branch adds edges to a reader of long ago: sort them, so that chunks of readers own slices.
    edge_reader, edge_token = torch.tensor([*edges]).unbind(dim=1)  # (E,)
    order = edge_reader.argsort(stable=True)
    return Packed(
        tokens=stack([tree.tokens for tree in trees], [0] * length),
        positions=stack([tree.positions for tree in trees], [0] * length),
        # A place without a node sees itself alone: a softmax over nothing would be NaN.
        ends=stack([tree.ends for tree in trees], range(1, length + 1)),
        readers=torch.tensor([*readers]),
        edge_reader=edge_reader[order],
        edge_token=edge_token[order],
        steps=order.argsort()[torch.tensor([edge for member in steps for edge in member])],
        response=torch.arange(len(steps)).repeat_interleave(torch.tensor([*map(len, steps)])),
        paths=torch.tensor(paths),
        homes=torch.tensor(homes),
        n_pairs=len(rows),
    )


class _Tree:
    """The prefixes of some sequences, in the order of a walk that finishes each branch."""

    def __init__(self, sequences: Sequence[tuple[list[int], int]], members: Sequence[int]) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.ends: list[int] = []
        self.paths: dict[int, list[int]] = {}  # nodes of each sequence, its last token left out
        path: list[int] = []
        before: list[int] = []
        # Sorted, every sequence shares most with its neighbor.
        for member in sorted(members, key=lambda m: sequences[m][0]):
            ids = sequences[member][0][:-1]
            shared = _shared(before, ids)
            for node in path[shared:]:
                self.ends[node] = len(self.tokens)
            first = len(self.tokens)
            self.tokens += ids[shared:]
            path = [*path[:shared], *range(first, len(self.tokens))]
            self.positions += range(shared, len(ids))
            self.ends += [0] * (len(ids) - shared)
            self.paths[member], before = path, ids
        for node in path:
            self.ends[node] = len(self.tokens)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix."""
    for n, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return n
    return min(len(one), len(other))


def _share_out(sequences: Sequence[tuple[list[int], int]], row_length: int) -> list[list[int]]:
    """Sequences of each row: rows of about one length, the pairs of a prompt together."""
    order = sorted(range(len(sequences)), key=lambda m: sequences[m][0])
    if sum(len(ids) for ids, _ in sequences) <= row_length:
        return [order]
    units: list[tuple[int, list[int]]] = []  # nodes and members
    before: list[int] = []
    for member in order:
        ids, start = sequences[member]
        shared = _shared(before, ids)
        new = len(ids) - shared
        if units and shared >= start and units[-1][0] + new <= row_length:
            units[-1] = (units[-1][0] + new, [*units[-1][1], member])
        else:
            units.append((len(ids), [member]))
        before = ids
    # The longest first, each to the row that is shortest so far.
    rows = [[0, []] for _ in range(-(-sum(size for size, _ in units) // row_length))]
    for size, members in sorted(units, key=lambda unit: -unit[0]):
        shortest = min(rows, key=lambda row: row[0])
        shortest[0] += size
        shortest[1] += members
    return [members for _, members in rows if members]


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
    parts = _parts_of(model, lean)
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


# --- what a model must offer ---------------------------------------------------------------------


class _Parts(NamedTuple):
    """A model, cut below the vocabulary."""

    run: Callable[[Packed, str], tuple[Tensor, Tensor]]  # hidden states (R * T, D), and the head
    head: Tensor  # (V, D)
    bias: Tensor | None  # (V,)
    limits: dict[str, int]  # longest sequence, by the name of what limits it
    row_length: int  # at which rows of nodes are cheapest
    window: int | None = None  # longest sequence for which every token sees all before it


def _parts_of(model: object, lean: bool) -> _Parts | str:
    """The parts of a model that takes packed rows, or why it does not."""
    config = getattr(model, "config", None)
    if hasattr(model, "hidden_states") and hasattr(model, "token_embedding"):  # TinyGPT
        tiny_head = model.token_embedding.weight

        def run_lean_tiny(packed: Packed, dtype: str) -> tuple[Tensor, Tensor]:
            tokens, positions = packed.tokens.flatten(), packed.positions.flatten()
            kind = torch.bfloat16 if dtype == "bfloat16" else None
            states = lean_passes.tiny_states(
                model, tokens, positions, packed.paths, packed.homes, kind
            )
            return states, tiny_head

        def run_tiny(packed: Packed, dtype: str) -> tuple[Tensor, Tensor]:
            states = model.hidden_states(packed.tokens, packed.visible(), packed.positions)
            return states.flatten(0, 1), tiny_head

        limits = {"context_length": config.context_length}
        if lean and not lean_passes.reason_against_tiny(model):
            return _Parts(run_lean_tiny, tiny_head, None, limits, 1 << 30)
        return _Parts(run_tiny, tiny_head, None, limits, max(256, 2 * tiny_head.shape[1]))

    if hasattr(model, "get_base_model"):  # a PEFT model; its adapters sit in the layers
        model = model.get_base_model()
    if not (hasattr(model, "get_output_embeddings") and hasattr(model, "base_model")):
        return f"{type(model).__name__} is neither a TinyGPT nor a Hugging Face model"
    head, backbone = model.get_output_embeddings(), model.base_model
    if type(head) is not nn.Linear:
        return f"its output layer is {type(head).__name__}, not a plain linear layer"
    if backbone is model:
        return "its output layer cannot be told from its backbone"
    takes = inspect.signature(backbone.forward).parameters
    missing = [name for name in ("attention_mask", "position_ids") if name not in takes]
    if missing:
        return f"its backbone does not take {' and '.join(missing)}"
    attention = getattr(config, "_attn_implementation", None)
    if attention not in ("sdpa", "eager"):
        return f"its attention ({attention}) takes no mask of our own"
    kinds = {*(getattr(config, "layer_types", None) or ["full_attention"])}
    unknown = kinds - {"full_attention", "sliding_attention"}
    if unknown:
        return f"it has layers of type {', '.join(sorted(unknown))}"
    limits = {}
    for name in ("max_position_embeddings", "n_positions"):
        if isinstance(getattr(config, name, None), int):
            limits[name] = getattr(config, name)
    window = getattr(config, "sliding_window", None)
    if "sliding_attention" not in kinds and getattr(config, "layer_types", None):
        window = None  # set, but used by no layer

    if lean and not lean_passes.reason_against_llama(backbone):
        table = backbone.embed_tokens

        def run_lean(packed: Packed, dtype: str) -> tuple[Tensor, Tensor]:
            tokens = packed.tokens.flatten()  # (R * T,)
            if table.weight is head.weight:
                embedded, weight = kernels.tied_embedding(head.weight, tokens, table.padding_idx)
            else:
                embedded, weight = table(tokens), head.weight
            positions, kind = packed.positions.flatten(), getattr(torch, dtype)
            states = lean_passes.llama_states(
                backbone, embedded, positions, packed.paths, packed.homes, kind
            )
            return states, weight

        return _Parts(run_lean, head.weight, head.bias, limits, 1 << 30, window)

    def run(packed: Packed, dtype: str) -> tuple[Tensor, Tensor]:
        mask = packed.visible()[:, None]  # (R, 1, T, T)
        if attention == "eager":  # adds the mask to the scores
            scores = torch.zeros(mask.shape, dtype=head.weight.dtype, device=mask.device)
            mask = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        output = backbone(
            packed.tokens,
            attention_mask=mask,
            position_ids=packed.positions,
            use_cache=False,
        )
        states = output[0] if isinstance(output, tuple) else output.last_hidden_state
        return states.flatten(0, 1), head.weight

    row_length = max(256, 2 * head.in_features)
    return _Parts(run, head.weight, head.bias, limits, row_length, window)


def _check_fits(packed: Packed, parts: _Parts) -> None:
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
            return get_pair_log_probs(self.model, pad_rows(rows, device))

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
        parts = _parts_of(self.model, self.lean)
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


def pad_rows(rows: Sequence[Row], device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The batch of `get_pair_log_probs`: prompts padded on the left, responses on the right."""
    batch = {}
    for name in ("prompt", "chosen", "rejected"):
        ids = [[*row[name]] for row in rows]
        longest = max(map(len, ids))
        tokens, mask = [], []
        for x in ids:
            gap, ones = [0] * (longest - len(x)), [1] * len(x)
            tokens.append(gap + x if name == "prompt" else x + gap)
            mask.append(gap + ones if name == "prompt" else ones + gap)
        batch[name] = torch.tensor(tokens, device=device)
        batch[f"{name}_mask"] = torch.tensor(mask, device=device)
    return batch
