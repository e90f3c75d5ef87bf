"""The lean passes against the models' own: values, gradients, and when they step aside."""

import pytest
import torch

from dpo_lib.fast import lean
from dpo_lib.fast.pair_log_probs import PairLogProbs, packed_pair_log_probs
from dpo_lib.fast.prefix_tree import pack_pairs
from dpo_lib.logprobs import get_pair_log_probs, pad_rows
from tests.fast.packed import assert_equal_paths, hugging_face, random_rows, tiny

LLAMAS = {
    "Llama": {},
    "Llama tied": {"tie_word_embeddings": True},
    "Llama with biases": {"attention_bias": True, "mlp_bias": True},
    "Llama with stretched positions": {
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    },
    "Mistral": {"sliding_window": None},
    "Qwen2": {},
    "Qwen2 tied": {"tie_word_embeddings": True},
}


def llama(kind="Llama", **options):
    options = {**LLAMAS.get(kind, {}), **options}
    return hugging_face(kind.split()[0], dtype=torch.float32, **options)


def used(monkeypatch, name):
    """Count the calls of a lean pass."""
    calls, real = [], getattr(lean, name)
    monkeypatch.setattr(lean, name, lambda *args: calls.append(1) or real(*args))
    return calls


@pytest.mark.parametrize("kind", LLAMAS)
def test_models_with_the_layers_of_llama(monkeypatch, kind):
    calls = used(monkeypatch, "llama_states")
    model = llama(kind)
    assert_equal_paths(model, random_rows(6), 1e-5)
    assert len(calls) == 1


def test_attention_is_scaled_as_the_model_says():
    model = llama()
    for layer in model.model.layers:
        layer.self_attn.scaling *= 2
    assert_equal_paths(model, random_rows(6), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_gpt(monkeypatch, dtype):
    calls = used(monkeypatch, "tiny_states")
    assert_equal_paths(tiny(dtype), random_rows(7), 1e-5 if dtype == torch.float32 else 1e-12)
    assert len(calls) == 1
    PairLogProbs(tiny(dtype))(random_rows(7))
    assert len(calls) == 3  # once to compare


def test_the_pass_of_the_model_by_option(monkeypatch):
    calls = used(monkeypatch, "llama_states")
    assert_equal_paths(llama(), random_rows(6), 1e-5, lean=False)
    PairLogProbs(llama(), lean=False)(random_rows(6))
    assert not calls


def test_more_than_one_row(monkeypatch):
    assert pack_pairs(random_rows(7), 30).tokens.shape[0] > 1
    assert_equal_paths(llama(), random_rows(7), 1e-5, row_length=30)


def test_adapters_stay_in_their_places(monkeypatch):
    import peft

    calls = used(monkeypatch, "llama_states")
    settings = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    base = llama()
    torch.manual_seed(0)
    model = peft.get_peft_model(base, settings).eval()
    assert_equal_paths(model, random_rows(5), 1e-5)
    rough = torch.cat(packed_pair_log_probs(model, random_rows(5), dtype="bfloat16"))
    exact = torch.cat(packed_pair_log_probs(model, random_rows(5)))
    assert 1e-5 < (rough - exact).abs().max() < 0.05 * exact.abs().max()
    assert len(calls) == 3
    with model.disable_adapter():
        base = torch.cat(packed_pair_log_probs(model, random_rows(5)))
    assert (base - exact).abs().max() > 0.1


def looked_at(function, kinds):
    """The same, and the dtypes it is given are kept."""
    return lambda x, *args: kinds.add(x.dtype) or function(x, *args)


@pytest.mark.parametrize("model", [llama(), llama("Llama tied"), tiny(torch.float32)])
def test_bfloat16(monkeypatch, model):
    rows, seen = random_rows(5), {"linear": set(), "_attend": set()}
    for place, name in ((lean.kernels, "linear"), (lean, "_attend")):
        monkeypatch.setattr(place, name, looked_at(getattr(place, name), seen[name]))
    own = torch.cat(packed_pair_log_probs(model, rows, dtype="bfloat16", lean=False))
    rough = torch.cat(packed_pair_log_probs(model, rows, dtype="bfloat16"))
    assert seen == {"linear": {torch.bfloat16}, "_attend": {torch.float32}}
    exact = torch.cat(packed_pair_log_probs(model, rows))
    assert seen["linear"] == {torch.bfloat16, torch.float32}
    assert rough.dtype == torch.float32
    assert 1e-5 < (rough - exact).abs().max() < 3 * (own - exact).abs().max() + 0.01
    rough.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
    model.zero_grad()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (hugging_face("Llama"), "its weights are torch.float64"),
        (llama("Qwen3"), r"not those of Llama \(qwen3\)"),
        (llama(hidden_act="gelu"), "its gate is gelu"),
    ],
)
def test_other_models_go_their_own_way(monkeypatch, model, reason):
    import re

    assert re.search(reason, lean.reason_against_llama(model.base_model))
    calls = used(monkeypatch, "llama_states")
    logps = PairLogProbs(model)
    assert_equal_paths(model, random_rows(4), 1e-5)
    logps(random_rows(4))
    assert logps.packed
    assert not calls


def test_other_parts_in_a_layer():
    model = llama()
    model.model.layers[1].mlp.extra = torch.nn.Identity()
    assert lean.reason_against_llama(model.model) == (
        "its LlamaMLP has other parts: act_fn, down_proj, extra, gate_proj, up_proj"
    )
    model = llama()
    model.model.embed_tokens = torch.nn.Sequential(model.model.embed_tokens)
    assert lean.reason_against_llama(model.model) == "its embedding is Sequential"


def test_a_hook_is_called(monkeypatch):
    for model, part in ((llama(), "model.layers.0.mlp"), (tiny(), "blocks.0")):
        seen = []
        model.get_submodule(part).register_forward_hook(lambda *_, seen=seen: seen.append(1))
        packed_pair_log_probs(model, random_rows(3))
        assert seen


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("forward_hook", lambda module, given, found: None),
        ("forward_pre_hook", lambda module, given: None),
        ("full_backward_hook", lambda module, to_given, to_found: None),
        ("full_backward_pre_hook", lambda module, to_found: None),
    ],
)
def test_a_hook_of_every_kind_keeps_off_the_lean_pass(name, hook):
    model = tiny()
    assert lean.reason_against_tiny(model) == ""
    handle = getattr(model.blocks[0].mlp[0], f"register_{name}")(hook)
    assert lean.reason_against_tiny(model).startswith("blocks.0.mlp.0 has hooks")
    handle.remove()
    assert lean.reason_against_tiny(model) == ""
    getattr(model, f"register_{name}")(hook)
    assert lean.reason_against_tiny(model).startswith("the model has hooks")


@pytest.mark.parametrize("model", [tiny(dropout=0.5), llama(attention_dropout=0.5)])
def test_dropout_is_drawn(model):
    model.train()
    first, second = (packed_pair_log_probs(model, random_rows(3))[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_dropout_keeps_off_the_lean_pass_where_it_is_drawn():
    model = tiny(dropout=0.5)
    assert lean.reason_against_tiny(model) == ""
    assert lean.reason_against_tiny(model.train()) == "dropout is on"
    assert lean.reason_against_tiny(tiny().train()) == ""


def test_a_wrong_pass_is_noticed(monkeypatch):
    real = lean.llama_states
    monkeypatch.setattr(lean, "llama_states", lambda *args: 1.01 * real(*args))
    model, rows = llama(), random_rows(4)
    logps = PairLogProbs(model)
    with pytest.warns(UserWarning, match="the model's own forward pass is used.*differ by"):
        found = torch.cat(logps(rows))
    assert logps.packed
    expected = torch.cat(get_pair_log_probs(model, pad_rows(rows)))
    assert (found - expected).abs().max() < 1e-4
