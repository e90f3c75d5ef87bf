"""Sequence log-probabilities of models from transformers: GPT-2's and Llama's shapes."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dpo_lib import get_sequence_log_probs, get_token_log_probs
from tests.helpers import log_probs_by_hand, pad

VOCAB, CONTEXT = 61, 16
PROMPTS = [[7, 3, 9, 11], [5], [8, 2, 60]]
RESPONSES = [[4, 1], [12, 30, 31, 6, 1], [1]]


def build(shape, dtype, attention="sdpa"):
    torch.manual_seed(0)
    if shape == "gpt2":
        config = GPT2Config(vocab_size=VOCAB, n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2)
        config._attn_implementation = attention
        model = GPT2LMHeadModel(config)
    else:
        config = LlamaConfig(
            vocab_size=VOCAB,
            max_position_embeddings=CONTEXT,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        config._attn_implementation = attention
        model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:  # as drawn, the models are too close to uniform to test much
            nn.init.normal_(parameter, std=0.4, generator=torch.Generator().manual_seed(len(name)))
    return model.to(dtype).eval()


def one_by_one(model):
    with torch.no_grad():
        return [log_probs_by_hand(model, p, r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]


@pytest.fixture(params=["gpt2", "llama"])
def shape(request):
    return request.param


@pytest.mark.parametrize(
    ("dtype", "attention", "tolerance"),
    [
        # Not eager in float64: transformers masks with float64's minimum, then takes the softmax
        # in float32, where that is -inf, and a left pad's own row becomes NaN.
        (torch.float64, "sdpa", 1e-12),
        (torch.float32, "sdpa", 1e-5),
        (torch.float32, "eager", 1e-5),
        # bfloat16 keeps 8 bits: the model's own logits differ that much with the batch's layout.
        (torch.bfloat16, "sdpa", 0.15),
        (torch.bfloat16, "eager", 0.15),
    ],
)
def test_a_padded_batch_equals_one_by_one(shape, dtype, attention, tolerance):
    model = build(shape, dtype, attention)
    with torch.no_grad():
        per_token = get_token_log_probs(model, *pad(PROMPTS, RESPONSES))
    assert per_token.dtype == torch.promote_types(dtype, torch.float32)
    for row, expected in zip(per_token, one_by_one(model), strict=True):
        assert_close(row[: len(expected)], expected, atol=tolerance, rtol=0)
        assert (row[len(expected) :] == 0).all()


def test_bfloat16_logits_are_turned_into_log_probs_in_float32(shape):
    model = build(shape, torch.bfloat16)
    prompt, response = torch.tensor([[7, 3, 9, 11]]), torch.tensor([[4, 1, 12, 30]])
    with torch.no_grad():
        total = get_sequence_log_probs(model, prompt, response)
        expected = log_probs_by_hand(model, prompt[0].tolist(), response[0].tolist()).sum()
    assert total.dtype == torch.float32
    assert_close(total[0], expected, atol=1e-5, rtol=0)


def test_mask_positions_and_the_logits_wanted_reach_the_model(shape):
    model, seen = build(shape, torch.float32), {}
    model.register_forward_pre_hook(lambda m, a, kwargs: seen.update(kwargs), with_kwargs=True)
    get_sequence_log_probs(model, *pad(PROMPTS, RESPONSES))
    assert seen["attention_mask"].sum(dim=1).tolist() == [6, 6, 4]
    assert seen["position_ids"][1].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert seen["logits_to_keep"] == 6
    assert seen["use_cache"] is False


class Wrapper(nn.Module):
    """Hides the signature, as DistributedDataParallel does."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


class AllLogits(Wrapper):
    """Takes mask and positions, and always returns all logits as a plain tensor."""

    def forward(self, tokens, attention_mask, position_ids):
        output = self.module(tokens, attention_mask=attention_mask, position_ids=position_ids)
        return output.logits


@pytest.mark.parametrize("wrapper", [Wrapper, AllLogits])
def test_other_paths_give_the_same(shape, wrapper):
    model, batch = build(shape, torch.float64), pad(PROMPTS, RESPONSES)
    assert_close(
        get_token_log_probs(wrapper(model), *batch),
        get_token_log_probs(model, *batch),
        atol=1e-12,
        rtol=0,
    )


def test_gradients_of_a_padded_batch_equal_one_by_one(shape):
    model = build(shape, torch.float64)
    get_sequence_log_probs(model, *pad(PROMPTS, RESPONSES)).sum().backward()
    padded = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        log_probs_by_hand(model, prompt, response).sum().backward()
    for name, parameter in model.named_parameters():
        assert_close(padded[name], parameter.grad, atol=1e-10, rtol=1e-8)


def test_errors_come_before_the_model_fails(shape):
    model = build(shape, torch.float32)
    fine, long = torch.ones(1, 8).long(), torch.ones(1, 9).long()
    get_sequence_log_probs(model, fine, fine)
    with pytest.raises(ValueError, match=r"hold 17 tokens together, above .* context \(16\)"):
        get_sequence_log_probs(model, fine, long)
    with pytest.raises(ValueError, match=r"response_tokens must be ids in \[0, 61\), got 61 to 61"):
        get_sequence_log_probs(model, fine, 61 * fine)
