"""Pairs of responses as trees in which every common prefix stands once.

The sequences of a batch, each a prompt with one of its responses, are merged. The nodes of the tree
stand one after the other in a row of tokens; attention lets each node see its ancestors and
itself, so it computes what it would in its own sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpo_lib.logprobs import responses_of

Row = Mapping[str, Any]  # ids of "prompt", and of "chosen" and "rejected" or other responses to it


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
    n_pairs: int  # rows; with one response a row, 2 B and 2 i read B and i
    n_sides: int = 2  # responses of each row

    def visible(self) -> Tensor:
        """Which node (row) may see which (column): its ancestors and itself, (R, T, T)."""
        places = torch.arange(self.tokens.shape[1], device=self.tokens.device)  # (T,)
        before = places[None, :] <= places[:, None]  # (T, T)
        return before & (places[None, :, None] < self.ends[:, None, :])  # (R, T, T)

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        return Packed(*(x.to(device) for x in self[:-2]), *self[-2:])


def pack_pairs(rows: Sequence[Row], row_length: int = 1024) -> Packed:
    """Merge the sequences of pairs into prefix trees.

    Parameters
    ----------
    rows : sequence of mapping
        Token ids ``prompt``, ``chosen`` and ``rejected`` of each pair; or other responses, the
        same ones in each row.
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
    sides = responses_of(rows[0])
    sequences = []  # (ids, where the response starts)
    for i, row in enumerate(rows):
        for side in sides:
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
        n_sides=len(sides),
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
