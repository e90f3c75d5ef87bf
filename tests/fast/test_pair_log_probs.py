"""The fast path: prefix trees against the padded path, values and gradients."""

import copy
import gc
import itertools
import math
import re
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dpo_lib.fast import kernels, pair_log_probs
from dpo_lib.fast.pair_log_probs import (
    PairLogProbs,
    log_probs_of_rows,
    packed_pair_log_probs,
)
from dpo_lib.logprobs import get_pair_log_probs, pad_rows
from dpo_lib.models import TinyGPT
from tests.fast.packed import (
    VOCAB,
    assert_equal_paths,
    hugging_face,
    random_rows,
    random_thumbs,
    tiny,
)
from tests.helpers import PrefixModel

# --- values and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("row_length", [None, 20, 64])
@pytest.mark.parametrize("seed", range(3))
def test_tiny_gpt_in_float64(seed, row_length):
    assert_equal_paths(tiny(), random_rows(7, seed), 1e-12, row_length=row_length)


def test_tiny_gpt_in_float32(monkeypatch):
    assert_equal_paths(tiny(torch.float32), random_rows(7), 1e-5)
    monkeypatch.setattr(kernels, "onednn_product", lambda dtype: None)  # torch's, on any device
    assert_equal_paths(tiny(torch.float32), random_rows(7), 1e-5)


def test_chunks_of_the_vocabulary_change_nothing(monkeypatch):
    monkeypatch.setattr(kernels, "LOGITS_AT_ONCE", 4 * VOCAB)
    assert_equal_paths(tiny(), random_rows(7), 1e-12)


@pytest.mark.parametrize("names", [("response",), ("mismatched",), ("response", "mismatched")])
@pytest.mark.parametrize("row_length", [None, 20])
def test_thumbs_have_the_values_of_the_padded_path(names, row_length):
    rows = random_thumbs(7, names=names)
    assert_equal_paths(tiny(), rows, 1e-12, row_length=row_length)
    assert_equal_paths(hugging_face("Llama"), rows, *HF_DOUBLE, row_length=row_length)
    for packed in (True, False):
        values = PairLogProbs(tiny(), packed)(rows)
        assert [len(logps) for logps in values] == [7] * len(names)
    scored = pair_log_probs.log_probs_of_rows(PairLogProbs(tiny()), rows, n_tokens=30)
    assert_close(scored, values)


def test_identical_and_nested_responses():
    rows = [
        {"prompt": [1, 2], "chosen": [3], "rejected": [3, 4]},
        {"prompt": [1, 2], "chosen": [3, 4], "rejected": [3]},
        {"prompt": [1], "chosen": [2, 3], "rejected": [2]},
    ]
    assert_equal_paths(tiny(), rows, 1e-12)


def test_bfloat16_is_close_and_gives_float32():
    model, rows = tiny(torch.float32), random_rows(5)
    exact = torch.cat(packed_pair_log_probs(model, rows))
    rough = torch.cat(packed_pair_log_probs(model, rows, dtype="bfloat16"))
    assert rough.dtype == torch.float32
    gap = (exact - rough).abs().max()
    assert 1e-5 < gap < 0.02 * exact.abs().max()
    logps = PairLogProbs(model, dtype="bfloat16", force_dtype=True)
    assert torch.equal(torch.cat(logps(rows)), rough)


def test_no_gradient_no_graph():
    with torch.no_grad():
        logps = packed_pair_log_probs(tiny(), random_rows(3))
    assert not logps[0].requires_grad


def test_frozen_output_layer_gets_no_gradient():
    model, rows = tiny(), random_rows(4)
    model.requires_grad_(False)
    model.blocks[1].mlp.requires_grad_(True)
    assert_equal_paths(model, rows, 1e-12)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": [1], "chosen": [VOCAB], "rejected": [2]}], "[0, 13), got 2 to 13"),
        ([{"prompt": [-1], "chosen": [1], "rejected": [2]}], "[0, 13), got -1 to -1"),
        ([{"prompt": [1] * 40, "chosen": [1], "rejected": [2]}], "context_length (40)"),
    ],
)
def test_bad_rows_are_named(rows, message):
    whole = {
        "[": f"ids must lie in {message}",
        "c": f"rows hold a sequence of 41 tokens, above the model's {message}",
    }[message[0]]
    with pytest.raises(ValueError, match=f"^{re.escape(whole)}$"):
        packed_pair_log_probs(tiny(), rows)


@pytest.mark.parametrize(
    ("options", "row_length"), [({}, 2**30), ({"lean": False}, 256), ({"row_length": 20}, 20)]
)
def test_how_long_rows_of_nodes_are(monkeypatch, options, row_length):
    asked, real = [], pair_log_probs.pack_pairs
    monkeypatch.setattr(
        pair_log_probs, "pack_pairs", lambda rows, most: asked.append(most) or real(rows, most)
    )
    packed_pair_log_probs(tiny(), random_rows(3), **options)
    assert asked == [row_length]


def test_a_model_stored_in_bfloat16_gives_float32():
    model, rows = hugging_face("Phi", dtype=torch.bfloat16), random_rows(5)
    assert model.lm_head.bias is not None
    rough = torch.cat(packed_pair_log_probs(model, rows))
    assert rough.dtype == torch.float32
    exact = torch.cat(packed_pair_log_probs(model.float(), rows))
    assert 1e-5 < (rough - exact).abs().max() < 0.02 * exact.abs().max()


def test_the_longest_sequence_that_fits():
    rows = [{"prompt": [1] * 38, "chosen": [1, 2], "rejected": [2]}]
    assert_equal_paths(tiny(), rows, 1e-12)


@pytest.mark.parametrize(("batch_size", "n_tokens"), [(4, 10**6), (64, 60), (4, 60), (64, 1)])
def test_many_rows_are_scored_some_at_a_time_and_come_back_in_their_order(batch_size, n_tokens):
    rows, asked = random_rows(20, longest=6), []

    def log_probs(some):
        assert not torch.is_grad_enabled()
        asked.append(some)
        return tuple(
            torch.tensor([sum(row[side]) for row in some]) for side in ("chosen", "rejected")
        )

    chosen, rejected = log_probs_of_rows(log_probs, rows, batch_size, n_tokens)
    assert chosen.tolist() == [sum(row["chosen"]) for row in rows]
    assert rejected.tolist() == [sum(row["rejected"]) for row in rows]

    def tokens(some):
        return sum(len(ids) for row in some for ids in row.values())

    assert all(len(some) <= batch_size for some in asked)
    assert all(tokens(some) <= n_tokens or len(some) == 1 for some in asked)
    for some, more in itertools.pairwise(asked):  # as many as may be
        assert len(some) == batch_size or tokens([*some, more[0]]) > n_tokens
    prompts = [row["prompt"] for some in asked for row in some]
    assert [*map(len, prompts)] == sorted(map(len, prompts))
    assert len([*itertools.groupby(prompts)]) == len({tuple(ids) for ids in prompts})


def test_one_row_alone():
    (row,) = random_rows(1)
    for logps, side in zip(log_probs_of_rows(PairLogProbs(tiny()), [row]), row, strict=False):
        assert logps.shape == (1,), side


# --- the choice of the path ----------------------------------------------------------------------


def test_the_packed_path_is_taken_where_it_can_be(monkeypatch):
    model, rows, calls = tiny(), random_rows(5), []
    monkeypatch.setattr(
        pair_log_probs,
        "get_response_log_probs",
        lambda *args: calls.append(1) or get_pair_log_probs(*args),
    )
    structures, structure = [], pair_log_probs._structure
    monkeypatch.setattr(
        pair_log_probs, "_structure", lambda model: structures.append(1) or structure(model)
    )
    logps = PairLogProbs(model)
    for _ in range(3):
        assert_close(torch.cat(logps(rows)), torch.cat(get_pair_log_probs(model, pad_rows(rows))))
    assert len(calls) == len(structures) == 1  # to compare with, at the first call
    PairLogProbs(model, packed=False)(rows)
    assert len(calls) == 2


def checks(monkeypatch):
    """Count the self-checks: the calls of the padded path, as long as models can be packed."""
    calls = []
    monkeypatch.setattr(
        pair_log_probs,
        "get_response_log_probs",
        lambda *args: calls.append(1) or get_pair_log_probs(*args),
    )
    return calls


def test_a_model_is_checked_once(monkeypatch):
    calls, model, rows = checks(monkeypatch), tiny(torch.float32), random_rows(5)
    first = PairLogProbs(model)(rows)
    for _ in range(8):  # as in a run, with held-out pairs at every evaluation
        again = PairLogProbs(model, dtype="float32")(rows[:2])
        assert_close(torch.cat(again), torch.cat([x[:2] for x in first]))
    logps = PairLogProbs(model)
    logps(rows)
    assert logps.lean  # the way that was found is the one that is taken
    assert len(calls) == 1
    PairLogProbs(model, lean=False)(rows)  # another pass, which has not been looked at
    assert len(calls) == 2
    PairLogProbs(copy.deepcopy(model))(rows)
    assert len(calls) == 3


def test_a_model_with_other_parts_is_checked_again(monkeypatch):
    calls, model, rows = checks(monkeypatch), tiny(), random_rows(5)
    PairLogProbs(model)(rows)
    with torch.no_grad():
        model.final_norm.bias += 1  # training changes no part
    PairLogProbs(model)(rows)
    assert len(calls) == 1
    model.blocks[0].mlp[1] = nn.GELU().eval()  # of which the lean pass knows nothing
    with pytest.warns(UserWarning, match="the model's own forward pass is used"):
        found = PairLogProbs(model)(rows)
    assert_close(torch.cat(found), torch.cat(get_pair_log_probs(model, pad_rows(rows))))
    assert len(calls) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once, and remembered
        logps = PairLogProbs(model)
        logps(rows)
    assert logps.packed
    assert not logps.lean


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.blocks.append(copy.deepcopy(model.blocks[0])),
        lambda model: setattr(model.blocks[0], "forward", lambda x, visible: x),
        lambda model: model.blocks[0].register_forward_hook(print),
        lambda model: model.train(),
        lambda model: model.float(),
        lambda model: setattr(model, "config", None),
    ],
)
def test_what_is_another_structure(change):
    model = tiny()
    before = pair_log_probs._structure(model)
    assert pair_log_probs._structure(model) == before
    change(model)
    assert pair_log_probs._structure(model) != before


def test_a_module_without_a_configuration_has_a_structure():
    one, other = nn.Linear(1, 1), nn.Linear(1, 1).double()
    assert pair_log_probs._structure(one) != pair_log_probs._structure(other)


@pytest.mark.parametrize("size", [0.5, 8.0])
@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.bfloat16, 0.02)],
)
def test_how_much_packed_values_may_differ(monkeypatch, dtype, allowed, size):
    packed = torch.tensor([-size]).double(), torch.tensor([-size / 2]).double()
    monkeypatch.setattr(pair_log_probs, "packed_pair_log_probs", lambda *_, **__: packed)
    logps = PairLogProbs(tiny(dtype))
    for share, said in ((0.9, ""), (1.2, "its packed log-probabilities differ by ")):
        padded = tuple(x + share * allowed * max(1.0, size) for x in packed)
        found = logps._difference([], padded)
        assert found[: len(said) or None] == said


def test_rows_go_where_the_model_is():
    assert PairLogProbs(tiny().to("meta"))._device().type == "meta"


def test_layers_that_may_not_be_split_are_those_of_the_model():
    model = tiny()
    assert PairLogProbs(model)._no_split_modules is None
    model._no_split_modules = ["Block"]
    assert PairLogProbs(model)._no_split_modules == ["Block"]


def test_a_model_that_is_gone_is_forgotten():
    gc.collect()  # models of other tests
    known = len(pair_log_probs._KNOWN)
    model = tiny()
    PairLogProbs(model)(random_rows(3))
    assert len(pair_log_probs._KNOWN) == known + 1
    del model
    gc.collect()
    assert len(pair_log_probs._KNOWN) <= known


@pytest.mark.parametrize(
    ("model", "kind"),
    [(PrefixModel(vocab_size=VOCAB, context=40), "PrefixModel"), (tiny().forward, "method")],
)
def test_a_model_of_another_kind_is_padded_and_said_so(model, kind):
    rows = random_rows(5)
    logps = PairLogProbs(model)
    with pytest.warns(UserWarning, match=f"^rows are padded, not packed: {kind} is neither"):
        found = logps(rows)
    assert torch.equal(torch.cat(found), torch.cat(get_pair_log_probs(model, pad_rows(rows))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        logps(rows)
    with pytest.raises(ValueError, match=f"cannot take packed rows: {kind}"):
        packed_pair_log_probs(model, rows)


class Scaled(TinyGPT):
    """Its logits are not those of its output layer alone."""

    def forward(self, *args, **kwargs):
        return 0.5 * super().forward(*args, **kwargs)


class Deaf(TinyGPT):
    """It takes the mask and does not heed it."""

    def hidden_states(self, tokens, attention_mask=None, position_ids=None):
        if attention_mask is not None and attention_mask.ndim == 3:
            attention_mask = torch.ones_like(attention_mask).tril()
        return super().hidden_states(tokens, attention_mask, position_ids)


@pytest.mark.parametrize("kind", [Scaled, Deaf])
def test_unequal_values_are_noticed(kind):
    model, rows = tiny(), random_rows(5)
    model.__class__ = kind
    logps = PairLogProbs(model)
    with pytest.warns(UserWarning, match=r"log-probabilities differ by \d"):
        found = logps(rows)
    assert torch.equal(torch.cat(found), torch.cat(get_pair_log_probs(model, pad_rows(rows))))


def test_nan_is_no_agreement():
    model, rows = tiny(), random_rows(2)
    nn.init.constant_(model.final_norm.weight, math.nan)
    with pytest.warns(UserWarning, match="differ by nan"):
        PairLogProbs(model)(rows)


@pytest.mark.parametrize(
    "made",
    [PairLogProbs, lambda model, dtype: packed_pair_log_probs(model, random_rows(2), dtype=dtype)],
)
def test_unknown_dtype(made):
    message = r"^dtype must be one of \['float32', 'bfloat16'\], got 'float16'$"
    with pytest.raises(ValueError, match=message):
        made(tiny(), dtype="float16")


def test_padding_equals_the_data_set(tmp_path):
    from dpo_lib.data import PreferenceDataset, make_preferences
    from dpo_lib.models import InstructionTokenizer

    dataset = PreferenceDataset(make_preferences(), InstructionTokenizer())
    ours, theirs = pad_rows([*dataset]), dataset.batch()
    assert ours.keys() == theirs.keys()
    for name in ("prompt", "chosen", "rejected"):
        mask = theirs[f"{name}_mask"]
        assert torch.equal(ours[f"{name}_mask"], mask)
        assert torch.equal(ours[name], theirs[name] * mask)


# --- Hugging Face models -------------------------------------------------------------------------


# Some of their layers (norms, rotations) go through float32 whatever the model is in.
HF_DOUBLE = (1e-10, 1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["Llama", "GPT2", "Qwen2", "Qwen3", "GPTNeoX", "Phi"])
def test_stock_models(kind, attention):
    rows = random_rows(5, seed=1)
    if attention == "sdpa":  # in float64 eager attention is NaN, packed or not
        assert_equal_paths(hugging_face(kind, attention), rows, *HF_DOUBLE)
    model = hugging_face(kind, attention, torch.float32)
    assert_equal_paths(model, rows, 1e-5, row_length=40)
    logps = PairLogProbs(model)
    logps(rows)
    assert logps.packed


def test_tied_embeddings():
    model = hugging_face("Llama", tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert_equal_paths(model, random_rows(5), *HF_DOUBLE)


def test_a_model_with_an_adapter():
    import peft

    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    model = peft.get_peft_model(hugging_face("Llama"), settings).eval()
    assert_equal_paths(model, random_rows(5), *HF_DOUBLE)
    settings = peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    model = peft.get_peft_model(hugging_face("Llama"), settings).eval()
    with pytest.warns(UserWarning, match="its output layer is Linear, not a plain"):
        PairLogProbs(model)(random_rows(2))


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("Bloom", {"attention": "eager"}, "does not take position_ids"),
        (
            "Gemma2",
            {"attention": "eager", "dtype": torch.float32},
            r"log-probabilities differ by \d",
        ),
        ("Mistral", {"sliding_window": 5}, r"sliding window \(5\) is shorter"),
    ],
)
def test_stock_models_that_cannot(kind, options, reason):
    model, rows = hugging_face(kind, **options), random_rows(4)
    with pytest.warns(UserWarning, match=reason):
        found = PairLogProbs(model)(rows)
    assert torch.equal(torch.cat(found), torch.cat(get_pair_log_probs(model, pad_rows(rows))))


def test_a_sliding_window_holds_up_long_batches_only(monkeypatch):
    model, short = hugging_face("Mistral", sliding_window=12), random_rows(4, longest=3)
    assert_equal_paths(model, short, *HF_DOUBLE)
    long = random_rows(4, longest=20)
    longest = max(
        len(row["prompt"]) + max(len(row["chosen"]), len(row["rejected"])) for row in long
    )
    calls = checks(monkeypatch)
    with pytest.warns(
        UserWarning, match=r"^rows are padded, not packed: its sliding window \(12\)"
    ):
        PairLogProbs(model)(long)  # which says nothing of the next ones
    assert len(calls) == 1
    for _ in range(2):  # checked, and remembered
        logps = PairLogProbs(model)
        logps(short)
        assert len(calls) == 2
        with pytest.warns(UserWarning, match="some rows are padded") as caught:
            found = logps(long)
        assert str(caught[0].message) == (
            f"some rows are padded, not packed: a sequence of {longest} tokens is longer than the "
            "model's sliding window (12)"
        )
        assert torch.equal(torch.cat(found), torch.cat(get_pair_log_probs(model, pad_rows(long))))
        calls.pop()
    whole = f"rows hold a sequence of {longest} tokens, above the model's sliding_window (12)"
    with pytest.raises(ValueError, match=f"^{re.escape(whole)}$"):
        packed_pair_log_probs(model, long)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        just_so = [{"prompt": [1] * 10, "chosen": [1, 2], "rejected": [2]}]
        for after in (PairLogProbs(model), logps, PairLogProbs(copy.deepcopy(model))):
            after(just_so)
            assert after.packed
    assert len(calls) == 3  # the copy
