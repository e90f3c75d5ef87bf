"""Rewards: worked numbers, ties, errors that name the argument."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dpo_lib import dpo_reward, naive_reward, reward_accuracy
from dpo_lib.rewards import reward_auc
from tests.helpers import deterministic

logps = st.floats(-500, 0)


def test_the_naive_reward_is_the_log_probability():
    assert naive_reward(-0.2 - 0.3).item() == -0.5
    values = torch.tensor([-1.0, -2.0], requires_grad=True)
    assert naive_reward(values) is values


@pytest.mark.parametrize(
    ("policy", "reference", "expected", "tolerance"),
    [
        (-0.735, -0.750, 0.0015, 1e-12),  # chapter 8, length
        (-0.210, -0.200, -0.0010, 1e-12),
        (-0.0408, -0.0513, 0.00105, 1e-12),  # chapter 8, bland prior
        (-0.105, -0.916, 0.0811, 1e-12),
        (-10.0, -12.0, 0.2, 1e-12),  # chapter 10
        (-15.0, -14.0, -0.1, 1e-12),
    ],
)
def test_worked_rewards(policy, reference, expected, tolerance):
    reward = dpo_reward(policy, reference, beta=0.1)
    assert reward.item() == pytest.approx(expected, abs=tolerance)
    assert reward.dtype == torch.float64


@given(logps, logps, st.floats(0.01, 10))
@deterministic
def test_reward_is_beta_times_the_log_ratio(policy, reference, beta):
    reward = dpo_reward(policy, reference, beta).item()
    assert reward == pytest.approx(beta * (policy - reference), rel=1e-12, abs=1e-12)
    assert dpo_reward(reference, policy, beta).item() == -reward
    assert dpo_reward(policy, policy, beta).item() == 0


def test_gradients_and_dtypes_pass_through():
    policy = torch.tensor([-1.0, -2.0], requires_grad=True)
    reward = dpo_reward(policy, torch.tensor([-2.0, -2.0]), 0.5)
    reward.sum().backward()
    assert reward.dtype == torch.float32
    assert policy.grad.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ([1.0, 2.0], [0.0, 3.0], 0.5),
        ([0.0, 0.0], [0.0, 0.0], 0.5),
        ([1.0, 0.0, -1.0, 2.0], [0.0, 0.0, 0.0, 1.0], 0.625),
        (1.0, 0.0, 1.0),
    ],
)
def test_accuracy_counts_a_tie_as_one_half(chosen, rejected, expected):
    assert reward_accuracy(chosen, rejected).item() == expected


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: naive_reward(math.nan), ["policy_logps", "nan"]),
        (lambda: naive_reward(0.5), ["policy_logps", "at most 0", "0.5"]),
        (lambda: naive_reward(-math.inf), ["policy_logps", "-inf"]),
        (lambda: naive_reward("x"), ["policy_logps", "'x'"]),
        (lambda: dpo_reward(-1.0, math.nan, 0.1), ["reference_logps", "nan"]),
        (lambda: dpo_reward(2.0, -1.0, 0.1), ["policy_logps", "2"]),
        (
            lambda: dpo_reward([-1.0, -2.0], [-1.0], 0.1),
            ["policy_logps (2,)", "reference_logps (1,)"],
        ),
        (lambda: dpo_reward(-1.0, -1.0, 0.0), ["beta", "0.0"]),
        (lambda: dpo_reward(-1.0, -1.0, -0.1), ["beta", "-0.1"]),
        (lambda: dpo_reward(-1.0, -1.0, math.nan), ["beta", "nan"]),
        (lambda: dpo_reward(-1.0, -1.0, math.inf), ["beta", "inf"]),
        (lambda: dpo_reward(-1.0, -1.0, "0.1"), ["beta", "'0.1'"]),
        (lambda: dpo_reward(-1.0, -1.0, None), ["beta", "None"]),
        (lambda: dpo_reward(-1.0, -1.0, 10**400), ["beta", "1000"]),
        (
            lambda: reward_accuracy([1.0], [1.0, 2.0]),
            ["chosen_rewards (1,)", "rejected_rewards (2,)"],
        ),
        (lambda: reward_accuracy([], []), ["chosen_rewards", "(0,)"]),
        (lambda: reward_accuracy([math.nan], [1.0]), ["chosen_rewards", "nan"]),
        (lambda: reward_accuracy([1.0], [math.nan]), ["rejected_rewards", "nan"]),
        (lambda: reward_accuracy("x", [1.0]), ["chosen_rewards", "'x'"]),
        (lambda: reward_accuracy([1.0], "x"), ["rejected_rewards", "'x'"]),
        (lambda: reward_accuracy([1.0], [1.0], "x"), ["tie", "'x'"]),
        (lambda: reward_accuracy([1.0], [1.0], -1.0), ["tie", "-1.0"]),
        (lambda: reward_accuracy([1.0], [1.0], torch.zeros(2)), ["rewards (1,)", "tie (2,)"]),
        (
            lambda: reward_auc([1.0, 2.0], torch.tensor([[True, False]])),
            ["rewards (2,)", "desirable (1, 2)"],
        ),
        (lambda: reward_auc("x", torch.tensor([True])), ["rewards", "'x'"]),
        (lambda: reward_auc([1.0], [True]), ["desirable", "bools, got [True]"]),
        (lambda: reward_auc([1.0], torch.tensor([1])), ["desirable", "bools, got tensor([1])"]),
        (
            lambda: reward_auc([1.0], torch.tensor([True]), torch.zeros(2)),
            ["rewards (1,)", "tie (2,)"],
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=rf"\b{words[0].split(' ')[0]}\b") as error:
        call()
    for word in words:
        assert word in str(error.value)


def test_rounding_just_above_zero_is_let_through():
    assert_close(naive_reward(torch.tensor(2e-7)), torch.tensor(2e-7))


def test_rewards_within_the_tie_width_count_one_half():
    chosen, rejected = [1.0, 1.0, 1.0], [1.0 + 1e-9, 1.0 - 1e-9, 0.5]
    assert reward_accuracy(chosen, rejected).item() == pytest.approx(2 / 3)
    assert reward_accuracy(chosen, rejected, tie=1e-6).item() == pytest.approx(2 / 3)
    assert reward_accuracy(chosen[:1], rejected[:1], tie=1e-6).item() == 0.5
    with pytest.raises(ValueError, match=r"tie must be at least 0, got -1"):
        reward_accuracy(chosen, rejected, tie=-1.0)


rewards_and_thumbs = st.lists(
    st.tuples(st.sampled_from([-2.0, -1.0, -1.0 + 1e-3, 0.0, 3.0]), st.booleans()), min_size=1
)


@given(rewards_and_thumbs, st.sampled_from([0.0, 0.01, 1.0]))
@deterministic
def test_auc_counts_all_couples(rows, tie):
    ups = [reward for reward, up in rows if up]
    downs = [reward for reward, up in rows if not up]
    found = reward_auc(torch.tensor([r for r, _ in rows]), torch.tensor([u for _, u in rows]), tie)
    if not ups or not downs:
        assert math.isnan(found)
        return
    # within 1e-6 of the tie a float32 reward may fall to either side
    wins = [(u - d > tie + 1e-6) + 0.5 * (abs(u - d) <= tie + 1e-6) for u in ups for d in downs]
    assert found.item() == pytest.approx(sum(wins) / len(wins))


def test_auc_of_rewards_as_near_as_can_be_unless_told_otherwise():
    thumbs = torch.tensor([True, False])
    assert reward_auc(torch.tensor([0.5 + 1e-6, 0.5]), thumbs) == 1
    assert reward_auc([2.0, 1.0], thumbs, torch.tensor([0.0, 1.0])) == 1  # the thumb up's own
    assert reward_auc([2.0, 1.0], thumbs, torch.tensor([1.0, 0.0])) == 0.5
