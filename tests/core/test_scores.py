"""Scores of pairs: what a loss gets, what the means are, and what counts as a tie."""

import functools
import inspect

import pytest
import torch

from dpo_lib.losses import LOSSES, dpo_loss, simpo_loss, unpaired_kto_loss
from dpo_lib.scores import (
    apply_loss,
    detach_scores,
    join_scores,
    pair_scores,
    read_numbers,
    summarize,
    tie_width,
    unpaired_scores,
)
from tests.helpers import looks_at_values
from tests.losses.facts import FACTS

ROWS = [
    {"prompt": [1], "chosen": [2, 3], "rejected": [4]},
    {"prompt": [1, 2], "chosen": [3], "rejected": [4, 5, 6]},
]
POLICY = torch.tensor([-3.0, -1.5]).double(), torch.tensor([-1.0, -5.0]).double()
REFERENCE = torch.tensor([-2.0, -2.0]).double(), torch.tensor([-2.0, -4.0]).double()


def scores():
    return pair_scores(POLICY, REFERENCE, ROWS)


def test_lengths_are_those_of_the_rows():
    assert scores().chosen_lengths.tolist() == [2, 1]
    assert scores().rejected_lengths.tolist() == [1, 3]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_gets_what_it_takes(name):
    loss, lengths = functools.partial(LOSSES[name], **FACTS[name].needs), {}
    if "chosen_lengths" in inspect.signature(loss).parameters:
        lengths = {"chosen_lengths": torch.tensor([2, 1]), "rejected_lengths": torch.tensor([1, 3])}
    expected = loss(*POLICY, *REFERENCE, beta=0.3, **lengths)
    for ours, theirs in zip(apply_loss(loss, scores(), 0.3), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_without_a_reference_its_place_is_taken_by_zero():
    alone = pair_scores(POLICY, None, ROWS)
    assert alone.reference_chosen.tolist() == alone.reference_rejected.tolist() == [0, 0]
    assert tie_width(alone, 1.0) == 0


def test_means_by_hand():
    found = summarize(dpo_loss, scores(), 0.5)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {
            "loss": dpo_loss(*POLICY, *REFERENCE, 0.5).losses.mean().item(),
            "reward_accuracy": 0.5,
            "margin": 0.5 * ((-1 - 1) + (0.5 + 1)) / 2,
            "chosen_logp": (-1 + 0.5) / 2,
            "rejected_logp": (1 - 1) / 2,
        }
    )


def test_gradients_flow_into_a_loss_and_not_into_the_means():
    policy = [logps.clone().requires_grad_() for logps in POLICY]
    held = pair_scores(policy, REFERENCE, ROWS)
    assert apply_loss(simpo_loss, held, 2.0).losses.requires_grad
    assert not any(value.requires_grad for value in summarize(dpo_loss, held, 0.5).values())
    assert not any(value.requires_grad for value in detach_scores(held))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("last_bits", "accuracy"), [(0, 0.5), (4, 0.5), (-4, 0.5), (100, 1.0)])
def test_a_difference_of_last_bits_is_a_tie(dtype, last_bits, accuracy):
    reference = [torch.tensor([-40.0], dtype=dtype)] * 2
    unit = torch.finfo(dtype).eps * 32  # of the last place of 40
    policy = [reference[0] + last_bits * unit, reference[1]]
    found = summarize(dpo_loss, pair_scores(policy, reference, ROWS[:1]), 0.1)
    assert found["reward_accuracy"] == accuracy


@pytest.mark.parametrize("largest", [0, 1])
def test_the_largest_value_of_either_side_and_beta_decide_what_a_tie_is(largest):
    reference = [torch.tensor([-2.0]), torch.tensor([-2.0])]
    reference[largest] = torch.tensor([-400.0])
    held = pair_scores(reference, reference, ROWS[:1])
    eps = torch.finfo(torch.float32).eps
    assert tie_width(held, 0.1).item() == pytest.approx(16 * eps * 0.1 * 400)


def test_parts_are_joined_in_their_order():
    apart = [
        pair_scores([x[i : i + 1] for x in POLICY], [x[i : i + 1] for x in REFERENCE], [ROWS[i]])
        for i in range(2)
    ]
    for joined, whole in zip(join_scores(apart), scores(), strict=True):
        assert torch.equal(joined, whole)


@pytest.mark.parametrize(
    ("policy", "reference", "message"),
    [
        (POLICY, [x[:1] for x in REFERENCE], r"reference_logps must be one value.*2 rows.*\(1,\)"),
        ([x[:1] for x in POLICY], None, r"policy_logps must be one value.*2 rows.*\(1,\)"),
        ([POLICY[0]], REFERENCE, r"policy_logps must be one value"),
    ],
)
def test_values_that_do_not_fit_the_rows_are_named(policy, reference, message):
    with pytest.raises(ValueError, match=message):
        pair_scores(policy, reference, ROWS)


def test_numbers_are_read_all_at_once_and_exactly():
    third, half = torch.tensor(1 / 3), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    with looks_at_values() as looks:
        found = read_numbers({"third": third, "half": half, "yes": torch.tensor(True)})
    assert looks.number == 1
    assert found == {"third": third.item(), "half": 0.5, "yes": 1.0}


# --- thumbs --------------------------------------------------------------------------------------

THUMBS = [{"prompt": [1], "response": [2], "desirable": up} for up in (True, False, True)]
OWN = torch.tensor([-3.0, -1.5, -4.0]).double()
KNOWN = torch.tensor([-5.0, -2.0, -3.0]).double()


def test_means_of_thumbs_by_hand():
    level = torch.tensor(0.75).double()
    own = OWN + torch.tensor([1.0, 0.0, 0.0])
    held = unpaired_scores(own, KNOWN, THUMBS, level)
    losses = unpaired_kto_loss(own, KNOWN, torch.tensor([True, False, True]), 0.5, kl=0.75).losses
    found = summarize(unpaired_kto_loss, held, 0.5)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {
            "loss": losses.mean().item(),
            "reward_auc": 0.5,  # above one and below the other
            "margin": 0.5 * ((3 - 1) / 2 - 0.5),
            "desirable_logp": (3 - 1) / 2,
            "undesirable_logp": 0.5,
            "level": 0.75,
        }
    )


def test_a_kind_of_thumb_that_is_not_there_has_no_mean():
    one = unpaired_scores(OWN[:1], KNOWN[:1], THUMBS[:1], torch.zeros(()))
    found = summarize(unpaired_kto_loss, one, 0.5)
    missing = {name for name, value in found.items() if value.isnan()}
    assert missing == {"reward_auc", "margin", "undesirable_logp"}


def test_a_difference_of_last_bits_is_a_tie_of_thumbs():
    reference = torch.full((3,), -40.0)
    policy = reference + torch.tensor([4.0, 0, 4]) * torch.finfo(torch.float32).eps * 32
    held = unpaired_scores(policy, reference, THUMBS, torch.zeros(()))
    assert summarize(unpaired_kto_loss, held, 0.1)["reward_auc"] == 0.5


def test_thumbs_must_have_a_value_each():
    with pytest.raises(ValueError, match=r"must be \(3,\), got \[\(2,\), \(3,\)\]"):
        unpaired_scores(OWN[:2], KNOWN, THUMBS, torch.zeros(()))
