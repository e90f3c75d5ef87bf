"""Prefix trees: what they hold, and what each node sees."""

import pytest
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
    assert packed.paths.tolist() == [[0, 1, 2, 0], [0, 1, 2, 3], [0, 4, 0, 0], [0, 4, 5, 0]]

    # In two rows the prompts' common start stands twice.
    packed = pack_pairs(rows, 6)
    assert packed.tokens.tolist() == [[1, 2, 3, 5], [1, 7, 9, 0]]
    assert packed.positions.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0]]
    assert packed.ends.tolist() == [[4, 4, 4, 4], [3, 3, 3, 4]]
    assert packed.paths.tolist() == [[0, 1, 2, 0], [0, 1, 2, 3], [4, 5, 0, 0], [4, 5, 6, 0]]


def test_one_response_of_each_prompt():
    packed = pack_pairs([{"prompt": [1], "response": [2, 3]}, {"prompt": [1], "response": [4]}])
    assert (packed.n_pairs, packed.n_sides) == (2, 1)
    assert packed.tokens.tolist() == [[1, 2]]
    assert packed.response.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows must hold at least one pair, got none"),
        ([{"prompt": [], "chosen": [1], "rejected": [2]}], "prompt of row 0 is empty"),
        ([{"prompt": [1], "chosen": [], "rejected": [2]}], "chosen of row 0 is empty"),
        (
            [{"prompt": [1], "response": [1]}, {"prompt": [1], "response": []}],
            "response of row 1 is empty",
        ),
    ],
)
def test_what_cannot_be_packed(rows, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        pack_pairs(rows)


@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from([8, 25, 60, 1000]))
@settings(max_examples=60, deadline=None)
def test_every_node_sees_exactly_its_own_sequence(seed, n, row_length):
    rows = random_rows(n, seed, longest=5, vocab=3)
    packed = pack_pairs(rows, row_length)
    flat = packed.tokens.flatten().tolist()
    edges = [(packed.readers[r].item(), t.item()) for r, t in zip(*packed[4:6], strict=True)]
    assert len(set(edges)) == len(edges)
    length, visible = packed.tokens.shape[1], packed.visible()
    prefixes = {}  # of each node: its row and all tokens from the start of a sequence to it
    for response in range(2 * n):
        row = rows[response // 2]
        ids = [*row["prompt"], *row["rejected" if response % 2 else "chosen"]]
        path = packed.paths[response].tolist()
        assert not any(path[len(ids) - 1 :])
        for place, node in enumerate(path[: len(ids) - 1]):
            prefix = (node // length, *ids[: place + 1])
            assert prefixes.setdefault(node, prefix) == prefix
        steps = packed.steps[packed.response == response].tolist()
        assert [edges[s][1] for s in steps] == ids[len(row["prompt"]) :]
        for number, (place, _) in enumerate(edges[s] for s in steps):
            r, node = divmod(place, length)
            seen = visible[r, node].nonzero().flatten()
            assert [flat[r * length + int(i)] for i in seen] == ids[: len(row["prompt"]) + number]
            assert packed.positions[r, seen].tolist() == [*range(len(seen))]
    assert len({*prefixes.values()}) == len(prefixes)  # each stands once in its row
    nodes = [*prefixes]
    assert packed.paths.flatten()[packed.homes[nodes]].tolist() == nodes


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
    assert there.visible().device.type == "meta"


def test_rows_are_of_about_one_length():
    rows = random_rows(60, seed=4, prompts=20)
    packed = pack_pairs(rows, row_length=100)
    nodes = packed.tokens.numel()
    assert packed.tokens.shape[1] <= 130
    assert nodes <= 1.3 * 100 * len(packed.tokens)
    assert len(packed.tokens) > 5


def test_the_pairs_of_a_prompt_stand_in_one_row():
    one, other = [1, 2, 3], [1, 7, 8]
    rows = [{"prompt": prompt, "response": [n]} for n in range(2) for prompt in (one, other)]
    packed = pack_pairs(rows, row_length=5)
    assert packed.tokens.tolist() == [one, other]
    assert len(pack_pairs(rows, row_length=4).tokens) == 4  # more than fits into one


def test_the_longest_are_placed_first():
    rows = [{"prompt": [n], "response": [n] * more} for n, more in enumerate([1, 1, 3])]
    assert pack_pairs(rows, row_length=4).tokens.tolist() == [[2, 2, 2], [0, 1, 0]]


def test_what_is_placed_by_length_is_merged_by_prefix():
    prompts = [9] * 11, [1, 2, 3, 3], [1, 5, 5], [1, 2]
    packed = pack_pairs([{"prompt": ids, "response": [1]} for ids in prompts], row_length=12)
    assert [row[:6] for row in packed.tokens.tolist()] == [[9] * 6, [1, 2, 3, 3, 5, 5]]
    assert not packed.tokens[1, 6:].any()
