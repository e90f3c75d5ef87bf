"""Prefix trees: what they hold, and what each node sees."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_lib.fast.prefix_tree import pack_pairs
from tests.fast.packed import random_rows


def test_a_tree_by_hand():
    rows = [
        {"prompt": [1, 2], "chosen": [3, 4], "rejected": [3, 5, 6]},
        {"prompt": [1, 7], "chosen": [8], "rejected": [9, 9]},
    ]
    packed = pack_pairs(rows)
    # 1 - 2 - 3 - 5 and 1 - 7 - 9; the last token of each response is no node
    assert packed.tokens.tolist() == [[1, 2, 3, 5, 7, 9]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 1, 2]]
    assert packed.visible()[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 1, 1],
    ]
    edges = [(packed.readers[r].item(), t.item()) for r, t in zip(*packed[4:6], strict=True)]
    assert sorted(edges) == [(1, 3), (2, 4), (2, 5), (3, 6), (4, 8), (4, 9), (5, 9)]
    read = [[] for _ in range(4)]
    for step, response in zip(packed.steps.tolist(), packed.response.tolist(), strict=True):
        read[response].append(edges[step])
    assert read == [[(1, 3), (2, 4)], [(1, 3), (2, 5), (3, 6)], [(4, 8)], [(4, 9), (5, 9)]]


@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from([8, 25, 60, 1000]))
@settings(max_examples=60, deadline=None)
def test_every_node_sees_exactly_its_own_sequence(seed, n, row_length):
    rows = random_rows(n, seed, longest=5, vocab=3)
    packed = pack_pairs(rows, row_length)
    flat = packed.tokens.flatten().tolist()
    edges = [(packed.readers[r].item(), t.item()) for r, t in zip(*packed[4:6], strict=True)]
    assert len(set(edges)) == len(edges)
    length, visible = packed.tokens.shape[1], packed.visible()
    for response in range(2 * n):
        row = rows[response // 2]
        ids = [*row["prompt"], *row["rejected" if response % 2 else "chosen"]]
        steps = packed.steps[packed.response == response].tolist()
        assert [edges[s][1] for s in steps] == ids[len(row["prompt"]) :]
        for number, (place, _) in enumerate(edges[s] for s in steps):
            r, node = divmod(place, length)
            seen = visible[r, node].nonzero().flatten()
            assert [flat[r * length + int(i)] for i in seen] == ids[: len(row["prompt"]) + number]
            assert packed.positions[r, seen].tolist() == [*range(len(seen))]


def test_one_row_holds_every_prefix_once():
    rows = random_rows(6, seed=3)
    packed = pack_pairs(rows)
    prefixes = {
        tuple([*row["prompt"], *row[side]][:end])
        for row in rows
        for side in ("chosen", "rejected")
        for end in range(1, len(row["prompt"]) + len(row[side]))
    }
    assert packed.tokens.shape == (1, len(prefixes))


def test_everything_goes_to_another_device():
    packed = pack_pairs(random_rows(3))
    there = packed.to("meta")
    assert {x.device.type for x in there[:-2]} == {"meta"}
    assert [x.shape for x in there[:-2]] == [x.shape for x in packed[:-2]]
    assert there[-2:] == packed[-2:] == (3, 2)


def test_rows_are_of_about_one_length():
    rows = random_rows(60, seed=4, prompts=20)
    packed = pack_pairs(rows, row_length=100)
    nodes = packed.tokens.numel()
    assert packed.tokens.shape[1] <= 130
    assert nodes <= 1.3 * 100 * len(packed.tokens)
    assert len(packed.tokens) > 5
