"""Sequence log-probabilities: the chain rule by brute force, padding, gradients, memory, errors."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from dpo_lib import get_pair_log_probs, get_sequence_log_probs, get_token_log_probs
from dpo_lib.logprobs import get_response_log_probs, pad_rows
from dpo_lib.logprobs import pad as pad_to_one_length
from tests.helpers import (
    PrefixModel,
    callables,
    deterministic,
    every_response,
    log_probs_by_hand,
    pad,
)

MODEL = PrefixModel().requires_grad_(False)
PROMPTS = [[1, 2, 3], [2], [3, 1]]
RESPONSES = [[1, 3], [2, 1, 1, 3], [3]]
NAMES = list(callables(MODEL))


def by_hand(model=MODEL, prompts=PROMPTS, responses=RESPONSES):
    return [log_probs_by_hand(model, p, r) for p, r in zip(prompts, responses, strict=True)]


# --- the course's trace --------------------------------------------------------------------------


def trace(other_logits):
    """Logits of chapter 5: rows after "France" and "is" are known, the rest is arbitrary."""
    logits = torch.full((1, 6, 8), -7.0, dtype=torch.float64)
    for position, known, other in zip(
        (3, 4), ([3.0, 0.5, 0.2], [0.1, 4.0, 1.0]), other_logits, strict=True
    ):
        logits[0, position] = other
        logits[0, position, 5:] = torch.tensor(known)
    return lambda tokens: logits


THE_CAPITAL_OF_FRANCE, IS_PARIS = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[5, 6]])


def test_trace_over_three_tokens_alone():
    model = trace((-math.inf, -math.inf))
    per_token = get_token_log_probs(model, THE_CAPITAL_OF_FRANCE, IS_PARIS)
    assert_close(per_token, torch.tensor([[-0.13, -0.07]]).double(), atol=0.005, rtol=0)
    total = get_sequence_log_probs(model, THE_CAPITAL_OF_FRANCE, IS_PARIS)
    assert round(total.item(), 2) == -0.20


def test_trace_with_mass_on_the_rest_of_the_vocabulary():
    model = trace((-0.766, 0.328))  # five more tokens, together 2.32 and 6.94 before dividing
    total = get_sequence_log_probs(model, THE_CAPITAL_OF_FRANCE, IS_PARIS)
    assert total.shape == (1,)
    assert round(total.item(), 2) == -0.41


# --- the chain rule, by enumeration --------------------------------------------------------------


@pytest.mark.parametrize("eos", [None, 0], ids=["fixed length", "ended by EOS or the limit"])
def test_all_responses_sum_to_one_and_follow_the_chain_rule(eos):
    prompt, responses = [2, 1], every_response(vocab_size=4, length=4, eos=eos)
    total = 0.0
    for length in range(1, 5):
        group = [list(r) for r in responses if len(r) == length]
        if not group:
            continue
        logps = get_sequence_log_probs(
            MODEL, torch.tensor([prompt] * len(group)), torch.tensor(group)
        )
        total += logps.exp().sum().item()
        for response, logp in zip(group[::7], logps[::7].tolist(), strict=True):
            product = 1.0  # one call for each factor, on the prefix alone
            for t, token in enumerate(response):
                after_prefix = MODEL(torch.tensor([prompt + response[:t]]))[0, -1]
                product *= after_prefix.softmax(dim=-1)[token].item()
            assert math.exp(logp) == pytest.approx(product, rel=1e-12)
    assert total == pytest.approx(1, abs=1e-12)


def test_responses_of_all_lengths_in_one_padded_batch_sum_to_one():
    responses = [list(r) for r in every_response(vocab_size=4, length=4, eos=0)]
    prompts = [[3, 1, 2]] * len(responses)
    assert get_sequence_log_probs(MODEL, *pad(prompts, responses)).exp().sum().item() == (
        pytest.approx(1, abs=1e-12)
    )


# --- padding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pad_id", [0, 3, 999, -100])
def test_a_padded_batch_equals_one_by_one(name, pad_id):
    model = callables(MODEL)[name]
    per_token = get_token_log_probs(model, *pad(PROMPTS, RESPONSES, pad_id))
    assert per_token.shape == (3, 4)
    for row, expected in zip(per_token, by_hand(), strict=True):
        assert_close(row[: len(expected)], expected, atol=1e-13, rtol=0)
        assert (row[len(expected) :] == 0).all()
    total = get_sequence_log_probs(model, *pad(PROMPTS, RESPONSES, pad_id))
    assert_close(total, torch.stack([x.sum() for x in by_hand()]), atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_one_row_without_masks(name):
    for prompt, response, expected in zip(PROMPTS, RESPONSES, by_hand(), strict=True):
        row = get_token_log_probs(
            callables(MODEL)[name], torch.tensor([prompt]), torch.tensor([response])
        )
        assert_close(row[0], expected, atol=1e-13, rtol=0)


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=5)


@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=4), st.sampled_from(NAMES))
@deterministic
def test_any_batch_equals_one_by_one(pairs, name):
    prompts, responses = (list(side) for side in zip(*pairs, strict=True))
    total = get_sequence_log_probs(callables(MODEL)[name], *pad(prompts, responses))
    expected = torch.stack([x.sum() for x in by_hand(MODEL, prompts, responses)])
    assert_close(total, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_use_up_the_context(name):
    prompts, responses = [[1] * 9, [1]], [[2], [3] * 9]  # ten tokens a row, eighteen columns
    total = get_sequence_log_probs(callables(MODEL)[name], *pad(prompts, responses))
    expected = torch.stack([x.sum() for x in by_hand(MODEL, prompts, responses)])
    assert_close(total, expected, atol=1e-12, rtol=0)


def test_masks_of_other_types_and_ids_of_other_widths():
    prompt, response, prompt_mask, response_mask = pad(PROMPTS, RESPONSES)
    expected = get_sequence_log_probs(MODEL, prompt, response, prompt_mask, response_mask)
    for mask_dtype in (torch.bool, torch.float32, torch.uint8):
        for dtype in (torch.int32, torch.uint8):
            total = get_sequence_log_probs(
                MODEL,
                prompt.to(dtype),
                response.to(dtype),
                prompt_mask.to(mask_dtype),
                response_mask.to(mask_dtype),
            )
            assert_close(total, expected)


def test_each_token_is_scored_once():
    """A batch where the model is certain: the right slice gives 0, a neighboring one does not."""

    def successor(tokens):
        return 60.0 * F.one_hot((tokens + 1) % 5, 5).double()

    total = get_sequence_log_probs(successor, torch.tensor([[0, 1]]), torch.tensor([[2, 3, 4]]))
    assert total.item() == pytest.approx(0, abs=1e-12)
    total = get_sequence_log_probs(successor, torch.tensor([[0, 1]]), torch.tensor([[1, 2, 3]]))
    assert total.item() == pytest.approx(-60, abs=1e-12)  # the first token alone is wrong


# --- what the model is given ---------------------------------------------------------------------


def spy_on(model):
    seen = {}

    def spy(tokens, attention_mask, position_ids, use_cache=True, logits_to_keep=0):
        seen.update(
            tokens=tokens,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
        )
        return model.logits(tokens, attention_mask, position_ids)[:, -logits_to_keep:]

    return spy, seen


def test_masks_and_positions_are_passed_to_a_model_that_takes_them():
    spy, seen = spy_on(MODEL)
    get_sequence_log_probs(spy, *pad(PROMPTS, RESPONSES))
    assert seen["tokens"].tolist() == [
        [1, 2, 3, 1, 3, 0, 0],
        [0, 0, 2, 2, 1, 1, 3],
        [0, 3, 1, 3, 0, 0, 0],
    ]
    assert seen["attention_mask"].tolist() == [
        [1, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 1],
        [0, 1, 1, 1, 0, 0, 0],
    ]
    first = [row.tolist() for row in seen["position_ids"]]
    assert first[0][:5] == [0, 1, 2, 3, 4]
    assert first[1][2:] == [0, 1, 2, 3, 4]
    assert first[2][1:4] == [0, 1, 2]
    assert seen["position_ids"].min() == 0
    assert seen["position_ids"].max() == 4  # pads stay inside the context
    assert seen["use_cache"] is False


def test_a_module_is_given_what_its_forward_takes():
    spy, seen = spy_on(MODEL)

    class Module(torch.nn.Module):
        def forward(self, tokens, attention_mask, position_ids):
            return spy(tokens, attention_mask, position_ids)

    get_sequence_log_probs(Module(), *pad(PROMPTS, RESPONSES))
    assert seen["attention_mask"].tolist()[2] == [0, 1, 1, 1, 0, 0, 0]


def test_only_the_logits_that_are_needed_are_asked_for():
    spy, seen = spy_on(MODEL)
    get_sequence_log_probs(spy, *pad(PROMPTS, RESPONSES))
    assert seen["logits_to_keep"] == 5  # four response tokens, and one more that predicts beyond


def test_a_model_that_ignores_logits_to_keep_still_gives_the_same():
    def ignoring(tokens, attention_mask, position_ids, logits_to_keep=0):
        return MODEL.logits(tokens, attention_mask, position_ids)

    batch = pad(PROMPTS, RESPONSES)
    assert_close(get_token_log_probs(ignoring, *batch), get_token_log_probs(MODEL, *batch))


def test_a_callable_without_a_signature():
    lookup = torch.randn(4, 4, dtype=torch.float64)

    class Bare:
        __signature__ = "none"  # inspect refuses it

        def __call__(self, tokens):
            return lookup[tokens]

    total = get_sequence_log_probs(Bare(), torch.tensor([[1, 2]]), torch.tensor([[3]]))
    assert_close(total[0], lookup[2].log_softmax(dim=-1)[3])


def test_pairs_are_scored_each_with_its_own_mask():
    prompt, chosen, prompt_mask, chosen_mask = pad(PROMPTS, RESPONSES)
    _, rejected, _, rejected_mask = pad(PROMPTS, RESPONSES[::-1])
    batch = {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "prompt_mask": prompt_mask,
        "chosen_mask": chosen_mask,
        "rejected_mask": rejected_mask,
    }
    chosen_logps, rejected_logps = get_pair_log_probs(MODEL, batch)
    assert_close(chosen_logps, torch.stack([x.sum() for x in by_hand()]))
    expected = by_hand(MODEL, PROMPTS, RESPONSES[::-1])
    assert_close(rejected_logps, torch.stack([x.sum() for x in expected]))


# --- precision, memory, gradients ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_computed_in_float32_or_wider(dtype, result):
    logits = 4 * torch.randn(2, 40, 50, generator=torch.Generator().manual_seed(0))
    logits = logits.to(dtype)
    prompt, response = torch.zeros(2, 10, dtype=torch.long), torch.arange(60).reshape(2, 30) % 50
    total = get_sequence_log_probs(lambda tokens: logits, prompt, response)
    exact = logits.double()[:, 9:-1].log_softmax(-1).gather(-1, response[..., None]).sum((1, 2))
    assert total.dtype == result
    # In bfloat16 arithmetic the error would be near one nat.
    assert_close(total.double(), exact, rtol=1e-6 if result == torch.float32 else 1e-14, atol=0)


def test_never_above_zero_even_when_the_model_is_certain():
    logits = torch.zeros(1, 4, 3)
    logits[..., 1] = 88.0
    total = get_sequence_log_probs(
        lambda tokens: logits, torch.tensor([[0, 0]]), torch.tensor([[1, 1]])
    )
    assert total.item() == 0


class Watch(TorchDispatchMode):
    """Record every operator, and the size and the storage of each result."""

    def __init__(self):
        super().__init__()
        self.operators, self.results = set(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operators.add(func.overloadpacket.__name__)
        if isinstance(out, torch.Tensor):
            self.results.append((out.numel(), out.untyped_storage().data_ptr()))
        return out


@pytest.mark.parametrize("masked", [False, True])
def test_no_log_softmax_is_built_and_none_is_kept(masked):
    logits = torch.randn(2, 9, 101, requires_grad=True)  # (B, T, V), the response takes six
    prompt, response = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 6, dtype=torch.long)
    masks = (torch.ones(2, 3), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])) if masked else ()
    large = 2 * 6 * 101
    saved = []

    def keep(tensor):
        saved.append((tensor.numel(), tensor.untyped_storage().data_ptr()))
        return tensor

    with Watch() as watch, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        total = get_sequence_log_probs(lambda tokens: logits, prompt, response, *masks)
    assert not {name for name in watch.operators if "softmax" in name}
    own = logits.untyped_storage().data_ptr()
    for tensors in (watch.results, saved):
        assert {storage for size, storage in tensors if size >= large} == {own}
    total.sum().backward()
    assert logits.grad.shape == logits.shape


def test_gradient_with_respect_to_logits_by_formula():
    """One-hot minus softmax at the positions that predict real response tokens, else 0."""
    logits = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    prompt, response = torch.tensor([[1, 2], [0, 2]]), torch.tensor([[1, 3, 2], [2, 0, 0]])
    response_mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    get_sequence_log_probs(
        lambda tokens: logits, prompt, response, None, response_mask
    ).sum().backward()
    expected = torch.zeros_like(logits)
    for row, step in [(0, 0), (0, 1), (0, 2), (1, 0)]:
        one_hot = F.one_hot(response[row, step], 4)
        expected[row, 1 + step] = one_hot - logits[row, 1 + step].detach().softmax(dim=-1)
    assert_close(logits.grad, expected)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_with_respect_to_parameters_by_finite_differences(name):
    model = PrefixModel(vocab_size=4, context=7, hidden=2, seed=1)
    batch = pad(PROMPTS, RESPONSES)

    def totals(table, head):
        del model.table, model.head
        model.table, model.head = table, head
        return get_sequence_log_probs(callables(model)[name], *batch)

    table, head = model.table.data.requires_grad_(), model.head.data.requires_grad_()
    del model._parameters["table"], model._parameters["head"]
    model.table, model.head = table, head
    assert torch.autograd.gradcheck(totals, (table, head))


def test_gradient_of_a_padded_batch_equals_one_by_one():
    model = PrefixModel()
    get_sequence_log_probs(model, *pad(PROMPTS, RESPONSES)).sum().backward()
    padded = model.table.grad
    model.zero_grad()
    sum(x.sum() for x in by_hand(model)).backward()
    assert_close(padded, model.table.grad)


# --- errors --------------------------------------------------------------------------------------

GOOD = {"prompt_tokens": torch.tensor([[1, 2]]), "response_tokens": torch.tensor([[3, 1, 2]])}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt_tokens": torch.tensor([1, 2])}, ["prompt_tokens", "(2,)"]),
        ({"prompt_tokens": [[1, 2]]}, ["prompt_tokens", "list"]),
        ({"response_tokens": torch.ones(1, 2)}, ["response_tokens", "float32"]),
        ({"response_tokens": torch.ones(1, 2).bool()}, ["response_tokens", "bool"]),
        (
            {"response_tokens": torch.ones(2, 3).long()},
            ["prompt_tokens", "response_tokens", "1 and 2"],
        ),
        ({"response_tokens": torch.ones(1, 0).long()}, ["response_tokens", "empty", "(1, 0)"]),
        ({"prompt_tokens": torch.ones(1, 0).long()}, ["prompt_tokens", "empty", "(1, 0)"]),
        ({"response_mask": torch.zeros(1, 3)}, ["response", "row 0", "empty"]),
        ({"prompt_mask": torch.zeros(1, 2)}, ["prompt", "row 0", "empty"]),
        ({"response_mask": torch.ones(1, 2)}, ["response_mask (1, 2)", "response_tokens (1, 3)"]),
        ({"prompt_mask": torch.ones(2)}, ["prompt_mask (2,)", "prompt_tokens (1, 2)"]),
        ({"prompt_mask": [[1, 1]]}, ["prompt_mask", "list"]),
        ({"response_mask": torch.tensor([[1, 2, 0]])}, ["response_mask", "0 and 1", "2"]),
        ({"response_mask": torch.tensor([[1, 0.5, 0]])}, ["response_mask", "0 and 1", "0.5"]),
        (
            {"response_mask": torch.tensor([[0, 1, 1]])},
            ["response_mask", "padding on the right only", "[0, 1, 1]"],
        ),
        (
            {"response_mask": torch.tensor([[1, 0, 1]])},
            ["response_mask", "padding on the right only", "[1, 0, 1]"],
        ),
        (
            {"prompt_mask": torch.tensor([[1, 0]])},
            ["prompt_mask", "padding on the left only", "[1, 0] in row 0"],
        ),
        (
            {
                "prompt_tokens": torch.ones(1, 4).long(),
                "prompt_mask": torch.tensor([[0, 1, 0, 1]]),
            },
            ["prompt_mask", "padding on the left only", "[0, 1, 0, 1]"],
        ),
        ({"response_tokens": torch.tensor([[3, -1]])}, ["response_tokens", "-1"]),
        ({"prompt_tokens": torch.tensor([[-100, 1]])}, ["prompt_tokens", "-100"]),
        ({"response_tokens": torch.tensor([[3, 7]])}, ["response_tokens", "7"]),
        ({"prompt_tokens": torch.tensor([[7, 1]])}, ["prompt_tokens", "7"]),
        ({"response_tokens": torch.ones(1, 9).long()}, ["response_tokens", "11", "context"]),
    ],
)
@pytest.mark.parametrize("knows", ["nothing", "its config"])
def test_bad_tokens_are_named(knows, change, words):
    def model(tokens):
        return MODEL.logits(tokens)

    if knows == "its config":
        model.config = SimpleNamespace(vocab_size=4, max_position_embeddings=10)
    with pytest.raises(ValueError, match=rf"\b{words[0].split(' ')[0]}\b") as error:
        get_sequence_log_probs(model, **{**GOOD, **change})
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", ["max_position_embeddings", "n_positions", "context_length"])
def test_the_context_counts_real_tokens_and_may_be_filled(name):
    def model(tokens, attention_mask, position_ids):
        return MODEL.logits(tokens, attention_mask, position_ids)

    model.config = SimpleNamespace(**{name: 5})
    get_sequence_log_probs(model, **GOOD)
    batch = pad([[1, 2], [1]], [[1, 2, 3], [1, 2, 3, 1]])  # five real tokens a row, six columns
    get_sequence_log_probs(model, *batch)
    with pytest.raises(ValueError, match=r"hold 6 tokens together, above the model's context \(5"):
        get_sequence_log_probs(model, torch.ones(1, 3).long(), torch.ones(1, 3).long())


def test_what_a_model_cannot_embed_is_said_with_its_own_words():
    words = (
        "^prompt_tokens and response_tokens must lie in the model's vocabulary and context, "
        r"got ids up to 7 in 4 positions \(index"
    )
    with pytest.raises(ValueError, match=words):
        get_sequence_log_probs(MODEL, torch.tensor([[1, 2]]), torch.tensor([[3, 7]]))


def test_a_model_that_cannot_embed_a_prompt_id_but_scores_it_is_caught():
    with pytest.raises(ValueError, match=r"prompt_tokens must be ids in \[0, 4\), got 1 to 6"):
        get_sequence_log_probs(
            lambda tokens: torch.zeros(*tokens.shape, 4),
            torch.tensor([[6, 1]]),
            torch.tensor([[1]]),
        )


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (torch.zeros(1, 5), ["model", "(1, 5)"]),
        (torch.zeros(2, 5, 4), ["model", "(2, 5, 4)"]),
        (torch.zeros(1, 3, 4), ["model", "5 tokens, got 3"]),
        ((torch.zeros(1, 5, 4),), ["model", "tuple"]),
        (None, ["model", "NoneType"]),
    ],
)
def test_bad_model_output_is_named(output, words):
    with pytest.raises(ValueError, match="model must return logits") as error:
        get_sequence_log_probs(lambda tokens: output, **GOOD)
    for word in words:
        assert word in str(error.value)


def test_rows_are_padded_on_the_side_that_is_asked_for():
    rows = [[5, 6, 7], [8]]
    tokens, mask = pad_to_one_length(rows, 9, "left")
    assert tokens.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    tokens, mask = pad_to_one_length(rows, 9, "right")
    assert tokens.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    for wrong in ([], [[1], []]):
        with pytest.raises(ValueError, match="rows must"):
            pad_to_one_length(wrong, 9, "left")


def test_a_batch_of_rows_has_each_side_and_its_mask():
    rows = [
        {"prompt": [5, 6], "chosen": [7], "rejected": [8, 9]},
        {"prompt": [5], "chosen": [7, 8, 9], "rejected": [4]},
    ]
    batch = pad_rows(rows, 3)
    assert {name: x.tolist() for name, x in batch.items()} == {
        "prompt": [[5, 6], [3, 5]],
        "prompt_mask": [[1, 1], [0, 1]],
        "chosen": [[7, 3, 3], [7, 8, 9]],
        "chosen_mask": [[1, 0, 0], [1, 1, 1]],
        "rejected": [[8, 9], [4, 3]],
        "rejected_mask": [[1, 1], [1, 0]],
    }
    assert pad_rows(rows)["prompt"].tolist() == [[5, 6], [0, 5]]
    assert pad_rows(rows[1:])["chosen"].tolist() == [[7, 8, 9]]
    assert {x.device.type for x in pad_rows(rows, device="meta").values()} == {"meta"}


PAIR = {"prompt": [1], "chosen": [2], "rejected": [3]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pad_to_one_length([1], 9, "left"), "rows must be sequences of token ids, got [1]"),
        (lambda: pad_to_one_length([[1]], 9, "middle"), "side must be 'left' or 'right', got 'mid"),
        (lambda: pad_to_one_length([[1]], 9, 1), "side must be 'left' or 'right', got 1"),
        (lambda: pad_to_one_length([[1]], 0.5, "left"), "pad_id must be a whole number, got 0.5"),
        (
            lambda: pad_to_one_length([["a"]], 2**99, "left"),
            f"rows and pad_id must be token ids, got [['a']] and {2**99}",
        ),
        (
            lambda: pad_to_one_length([[0.5]], 9, "left"),
            "rows must hold whole numbers, got dtype t",
        ),
        (lambda: pad_rows([]), "rows must be given and not empty, got lengths []"),
        (lambda: pad_rows(3), "rows must be a sequence of mappings, got 3"),
        (lambda: pad_rows([PAIR, 4]), "rows must be a sequence of mappings, got [{"),
        (
            lambda: pad_rows([PAIR, {"prompt": [1], "chosen": [2]}]),
            "rows must all have rejected, row 1 has ['prompt', 'chosen']",
        ),
        (lambda: get_pair_log_probs(MODEL, [PAIR]), "batch must be a mapping, got list"),
    ],
)
def test_what_makes_no_batch_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


def test_thumbs_are_scored_as_pairs_are():
    model = PrefixModel()
    rows = [{"prompt": [1, 2], "response": [3, 1, 2]}, {"prompt": [3], "response": [2]}]
    (found,) = get_response_log_probs(model, pad_rows(rows))
    expected = [log_probs_by_hand(model, r["prompt"], r["response"]).sum() for r in rows]
    assert_close(found, torch.stack(expected))
    unpadded = {name: torch.tensor([[1, 2]]) for name in ("prompt", "chosen", "rejected")}
    assert get_response_log_probs(model, unpadded) == get_pair_log_probs(model, unpadded)


def test_a_vocabulary_is_read_from_the_configuration():
    model = PrefixModel()
    model.config = SimpleNamespace(vocab_size=3)  # its table has room for one more
    fits, beyond = torch.tensor([[1, 2]]), torch.tensor([[1, 3]])
    get_sequence_log_probs(model, fits, fits)
    with pytest.raises(ValueError, match=r"response_tokens must be ids in \[0, 3\), got 1 to 3"):
        get_sequence_log_probs(model, fits, beyond)
    with pytest.raises(ValueError, match=r"prompt_tokens must be ids in \[0, 3\), got 1 to 3"):
        get_sequence_log_probs(model, beyond, fits)


def test_pair_errors_say_which_side():
    batch = {"prompt": torch.tensor([[1]]), "chosen": torch.tensor([[1]])}
    with pytest.raises(ValueError, match=r"lacks \['rejected'\]; it has \['chosen', 'prompt'\]"):
        get_pair_log_probs(MODEL, batch)
    with pytest.raises(ValueError, match=r"rejected as response: response_tokens .* -3"):
        get_pair_log_probs(MODEL, {**batch, "rejected": torch.tensor([[-3]])})
