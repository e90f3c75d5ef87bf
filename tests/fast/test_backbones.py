"""What is asked of a model before its rows are packed, and what its parts are."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dpo_lib.fast.backbones import parts_of
from dpo_lib.fast.prefix_tree import pack_pairs
from tests.fast.packed import hugging_face, random_rows, tiny


class Backbone(nn.Module):
    """Takes what it must, and gives the positions in the place of states."""

    def __init__(self, kind=tuple):
        super().__init__()
        self.kind = kind

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=True):
        self.taken = (input_ids, attention_mask, position_ids, use_cache)
        states = position_ids[:, :, None]
        return self.kind([states]) if self.kind is tuple else self.kind(last_hidden_state=states)


class Deaf(nn.Module):
    def forward(self, input_ids, use_cache=True):
        """Takes neither mask nor positions."""


class Model:
    """What transformers gives of a model, as far as it is asked for."""

    def __init__(self, backbone=None, head=None, **config):
        self.config = SimpleNamespace(**{"_attn_implementation": "sdpa", **config})
        self.head = head or nn.Linear(4, 9)
        self.base_model = backbone or Backbone()

    def get_output_embeddings(self):
        return self.head


NEITHER = "TinyGPT nor a Hugging Face model"


def its_own_backbone():
    model = Model()
    model.base_model = model
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (print, f"builtin_function_or_method is neither a {NEITHER}"),
        *(
            (SimpleNamespace(**{name: print}), f"SimpleNamespace is neither a {NEITHER}")
            for name in ("hidden_states", "get_output_embeddings")
        ),
        (Model(head=nn.Embedding(9, 4)), "its output layer is Embedding, not a plain linear layer"),
        (its_own_backbone(), "its output layer cannot be told from its backbone"),
        (Model(Deaf()), "its backbone does not take attention_mask and position_ids"),
        (
            Model(_attn_implementation="flash_attention_2"),
            "its attention (flash_attention_2) takes no mask of our own",
        ),
        (
            SimpleNamespace(base_model=Backbone(), get_output_embeddings=lambda: nn.Linear(4, 9)),
            "its attention (None) takes no mask of our own",
        ),
        (
            Model(layer_types=["full_attention", "linear", "chunked"]),
            "it has layers of type chunked, linear",
        ),
    ],
)
def test_why_a_model_cannot_take_packed_rows(model, reason):
    assert parts_of(model, lean=True) == parts_of(model, lean=False) == reason


@pytest.mark.parametrize(
    ("config", "limits", "window"),
    [
        ({}, {}, None),
        ({"max_position_embeddings": 7}, {"max_position_embeddings": 7}, None),
        ({"n_positions": 7, "max_position_embeddings": None}, {"n_positions": 7}, None),
        ({"sliding_window": 5}, {}, 5),
        ({"sliding_window": 5, "layer_types": ["full_attention"]}, {}, None),
        (
            {"sliding_window": 5, "layer_types": ["full_attention", "sliding_attention"]},
            {},
            5,
        ),
    ],
)
def test_what_limits_a_sequence(config, limits, window):
    parts = parts_of(Model(**config), lean=True)
    assert (parts.limits, parts.window) == (limits, window)


def test_a_window_holds_for_the_lean_pass_too():
    model = hugging_face("Mistral", dtype=torch.float32, sliding_window=12)
    assert parts_of(model, lean=True).window == 12


@pytest.mark.parametrize("kind", [tuple, SimpleNamespace])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_what_a_backbone_is_given(attention, kind):
    packed = pack_pairs(random_rows(4), row_length=30)
    model = Model(Backbone(kind), nn.Linear(4, 9).double(), _attn_implementation=attention)
    states, weight = parts_of(model, lean=False).run(packed, "float32")
    assert torch.equal(states, packed.positions.flatten()[:, None])
    assert weight is model.head.weight
    tokens, mask, positions, use_cache = model.base_model.taken
    assert (tokens is packed.tokens, positions is packed.positions, use_cache) == (
        True,
        True,
        False,
    )
    visible = packed.visible()[:, None]
    if attention == "eager":  # adds it to its scores
        hidden = torch.tensor(torch.finfo(torch.float64).min, dtype=torch.float64)
        visible = torch.where(visible, torch.zeros_like(hidden), hidden)
    torch.testing.assert_close(mask, visible, rtol=0, atol=0)
    parts_of(model, lean=False).run(packed.to("meta"), "float32")
    assert model.base_model.taken[1].device.type == "meta"


def test_rows_are_as_long_as_attention_pays_for():
    wide = Model(head=nn.Linear(200, 9))
    assert [parts_of(model, lean=False).row_length for model in (Model(), wide)] == [256, 400]
    assert [parts_of(tiny(width=w), lean=False).row_length for w in (16, 200)] == [256, 400]
    lean = tiny(), hugging_face("Llama", dtype=torch.float32)  # every sequence sees itself alone
    assert [parts_of(model, lean=True).row_length for model in lean] == [2**30] * 2


def test_the_head_and_its_bias():
    for model in (Model(), Model(head=nn.Linear(4, 9, bias=False))):
        parts = parts_of(model, lean=True)
        assert parts.head is model.head.weight
        assert parts.bias is model.head.bias
    model = tiny()
    for lean in (True, False):
        parts = parts_of(model, lean)
        assert parts.head is model.token_embedding.weight
        assert (parts.bias, parts.limits, parts.window) == (None, {"context_length": 40}, None)
