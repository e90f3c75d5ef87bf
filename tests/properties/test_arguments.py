"""Any value in the place of one argument: an error that names it, or what is always returned."""

import inspect

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from dpo_lib import closed_form, evaluation, logprobs, losses, preference, rewards
from dpo_lib.data import (
    PreferenceDataset,
    PreferenceRecord,
    UnpairedRecord,
    make_preferences,
    split_by_prompt,
)
from dpo_lib.losses import LOSSES, takes_lengths
from dpo_lib.models import InstructionTokenizer, TinyGPTConfig, WordTokenizer, sample
from dpo_lib.training import DPOConfig
from tests.helpers import PrefixModel
from tests.losses.facts import FACTS
from tests.properties.budget import outcome, tried
from tests.properties.values import junk

FOUR = {
    "policy_chosen_logps": torch.tensor([-3.0, -4.0]),
    "policy_rejected_logps": torch.tensor([-5.0, -4.5]),
    "reference_chosen_logps": torch.tensor([-3.5, -4.0]),
    "reference_rejected_logps": torch.tensor([-4.0, -4.0]),
}
LENGTHS = {"chosen_lengths": torch.tensor([3, 4]), "rejected_lengths": torch.tensor([2, 5])}
POLICY = torch.tensor([0.2, 0.3, 0.5]).log()
EVEN = torch.tensor([0.5, 0.25, 0.25]).log()
REWARDS = torch.tensor([1.0, 0.0, -1.0])
MODEL = PrefixModel(vocab_size=6, context=10)
TOKENS = {
    "prompt_tokens": torch.tensor([[1, 2], [0, 3]]),
    "response_tokens": torch.tensor([[4, 5, 1], [2, 0, 0]]),
    "prompt_mask": torch.tensor([[1, 1], [0, 1]]),
    "response_mask": torch.tensor([[1, 1, 1], [1, 0, 0]]),
}
SHARE = {"records": make_preferences(), "held_out_share": 0.25, "seed": 0}
BYTES = InstructionTokenizer()
WORDS = WordTokenizer(["a", "b", "c"])


def loss_call(name):
    options = {
        key: FACTS[name].needs.get(key, parameter.default)
        for key, parameter in inspect.signature(LOSSES[name]).parameters.items()
        if key not in FOUR and key not in LENGTHS
    }
    return LOSSES[name], {**FOUR, **options, **(LENGTHS if takes_lengths(LOSSES[name]) else {})}


def of_two(prompt_tokens, **more):
    with torch.random.fork_rng(devices=[]):
        return sample(MODEL_TO_SAMPLE, prompt_tokens, eos_id=1, pad_id=0, **more)


def MODEL_TO_SAMPLE(tokens, attention_mask, position_ids):
    return MODEL.logits(tokens, attention_mask, position_ids)


# A function, its arguments, and those of them that only the type checker holds to anything.
CALLS = {
    "losses": {name: loss_call(name) for name in LOSSES}
    | {
        "unpaired_kto": (
            losses.unpaired_kto_loss,
            {
                "policy_logps": torch.tensor([-3.0, -4.0]),
                "reference_logps": torch.tensor([-3.5, -4.0]),
                "desirable": torch.tensor([True, False]),
                "beta": 0.1,
                "kl": None,
                "desirable_weight": 1.0,
                "undesirable_weight": 1.0,
            },
        )
    },
    "scores": {
        "probability": (
            preference.bradley_terry_probability,
            {"chosen_score": REWARDS, "rejected_score": 0.0},
        ),
        "nll": (preference.preference_nll, {"chosen_score": REWARDS, "rejected_score": 0.0}),
        "sample": (preference.sample_comparisons, {"scores": REWARDS, "n_comparisons": 5}),
        "fit": (
            preference.fit_bradley_terry,
            {"winners": torch.tensor([0, 1, 1]), "losers": torch.tensor([1, 0, 0]), "n_items": 2},
        ),
        "naive": (rewards.naive_reward, {"policy_logps": POLICY}),
        "reward": (
            rewards.dpo_reward,
            {"policy_logps": POLICY, "reference_logps": EVEN, "beta": 0.1},
        ),
        "accuracy": (
            rewards.reward_accuracy,
            {"chosen_rewards": REWARDS, "rejected_rewards": EVEN, "tie": 0.0},
        ),
        "auc": (
            rewards.reward_auc,
            {"rewards": REWARDS, "desirable": torch.tensor([True, False, True]), "tie": 0.0},
        ),
    },
    "closed forms": {
        name: (getattr(closed_form, name), arguments)
        for name, arguments in {
            "log_partition": {"reference_logps": EVEN, "rewards": REWARDS, "beta": 0.5},
            "optimal_policy": {"reference_logps": EVEN, "rewards": REWARDS, "beta": 0.5},
            "entropy": {"logps": POLICY},
            "kl_divergence": {"logps": POLICY, "other_logps": EVEN},
            "total_variation": {"logps": POLICY, "other_logps": EVEN},
            "rlhf_objective": {
                "policy_logps": POLICY,
                "reference_logps": EVEN,
                "rewards": REWARDS,
                "beta": 0.5,
            },
            "expected_dpo_loss": {
                "policy_logps": POLICY,
                "reference_logps": EVEN,
                "rewards": REWARDS,
                "beta": 0.5,
            },
        }.items()
    }
    | {
        "optimal_margin": (
            lambda probability, beta: closed_form.optimal_margin(
                losses.dpo_loss, probability, beta
            ),
            {"probability": torch.tensor([0.6]), "beta": 0.5},
        ),
        "estimate_kl": (evaluation.estimate_kl, {"policy_logps": POLICY, "reference_logps": EVEN}),
        "least_kl": (evaluation.least_kl, {"before": 0.2, "after": 0.4}),
        "clustered_share": (evaluation.clustered_share, {"outcomes": [[1, 0], [1, 1]]}),
        "estimate": (evaluation.estimate, {"values": [0.5, 1.0]}),
        "wilson": (evaluation.wilson_interval, {"successes": 2, "trials": 5}),
        "enumerate": (
            evaluation.enumerate_responses,
            {"vocab_size": 3, "max_length": 2, "eos_id": 1, "pad_id": 0},
        ),
    },
    "tokens": {
        "sequence": (
            lambda **arguments: logprobs.get_sequence_log_probs(MODEL, **arguments),
            TOKENS,
        ),
        "tokens": (lambda **arguments: logprobs.get_token_log_probs(MODEL, **arguments), TOKENS),
        "pairs": (
            lambda batch: logprobs.get_pair_log_probs(MODEL, batch),
            {"batch": {n: torch.tensor([[1, 2]]) for n in ("prompt", "chosen", "rejected")}},
        ),
        "pad": (logprobs.pad, {"rows": [[1], [2, 3]], "pad_id": 0, "side": "left"}),
        "pad_rows": (
            logprobs.pad_rows,
            {"rows": [{"prompt": [1], "chosen": [2], "rejected": [3, 4]}], "pad_id": 0},
        ),
        "sample": (
            of_two,
            {
                "prompt_tokens": TOKENS["prompt_tokens"],
                "prompt_mask": TOKENS["prompt_mask"],
                "max_new_tokens": 3,
                "temperature": 1.0,
                "top_k": None,
            },
        ),
        "decode bytes": (BYTES.decode, {"ids": [104, 105, 258]}),
        "decode words": (WORDS.decode, {"ids": [2, 3, 1]}),
        "encode bytes": (BYTES.encode_response, {"text": "hi"}),
        "encode words": (WORDS.encode, {"text": "a b"}),
        "words": (WordTokenizer, {"words": ["a", "b"]}),
    },
    "records": {
        "pair": (
            PreferenceRecord,
            {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_ended": True,
             "rejected_ended": True},
        ),
        "thumb": (
            UnpairedRecord,
            {"prompt": "a", "response": "b", "desired": True, "ended": True},
        ),
        "row": (
            PreferenceRecord.from_row, {"row": {"prompt": "a", "chosen": "b", "rejected": "c"}},
        ),
        "split": (split_by_prompt, SHARE),
        "make": (make_preferences, {"winners": "longer"}),
        "dataset": (
            lambda records, rows: PreferenceDataset(records, BYTES, rows),
            {"records": make_preferences(), "rows": None},
        ),
        "batch": (
            PreferenceDataset(make_preferences(), BYTES).batch, {"indices": [0, 1]},
        ),
        "step": (
            PreferenceDataset(make_preferences(), BYTES).pairs_of_step,
            {"step": 1, "batch_size": 4, "seed": 0},
        ),
    },
    "configs": {
        "DPOConfig": (
            DPOConfig,
            {n: p.default for n, p in inspect.signature(DPOConfig).parameters.items()},
        ),
        "TinyGPTConfig": (
            TinyGPTConfig,
            {"vocab_size": 5, "context_length": 8, "width": 8, "heads": 2, "layers": 1,
             "dropout": 0.0},
        ),
    },
}  # fmt: skip


# How much is asked for: any amount is right, and a large one takes its time and memory.
AMOUNTS = ("n_comparisons", "max_length", "vocab_size", "max_new_tokens", "n_items", "batch_size")


def _is_number(value):
    if torch.is_tensor(value):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, int | float)


@pytest.mark.parametrize("group", CALLS)
@given(data=st.data())
@tried(150)
def test_an_argument_of_any_kind(group, data):
    name = data.draw(st.sampled_from([*CALLS[group]]), label="function")
    function, arguments = CALLS[group][name]
    broken = data.draw(st.sampled_from([*arguments]), label="argument")
    value = data.draw(junk, label="value")
    assume(broken not in AMOUNTS or not (_is_number(value) and value > 50))
    found, refusal = outcome(function, **{**arguments, broken: value})
    if refusal:
        assert broken in refusal or "no finite scores exist" in refusal
    else:
        assert type(found) is type(function(**arguments))


def test_the_calls_are_right_as_they_stand():
    for group in CALLS.values():
        for function, arguments in group.values():
            function(**arguments)
    assert len(CALLS["losses"]) == len(LOSSES) + 1
