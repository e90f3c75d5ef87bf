"""The DPO loss: worked numbers, plain arithmetic, gradients, extremes, properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dpo_lib import PreferenceLoss, dpo_loss, naive_loss
from tests.helpers import deterministic

logps = st.floats(-60, -10)
four = st.tuples(logps, logps, logps, logps)
betas = st.floats(0.01, 3)


def plain_loss(four, beta, epsilon=0.0):
    """The formula in plain Python."""
    z = beta * ((four[0] - four[2]) - (four[1] - four[3]))
    return (1 - epsilon) * math.log1p(math.exp(-z)) + epsilon * math.log1p(math.exp(z))


@pytest.mark.parametrize(
    ("four", "beta", "rewards", "loss"),
    [
        ((-10.0, -15.0, -12.0, -14.0), 0.1, (0.2, -0.1), 0.554),  # Paris and Lyon, chapter 10
        ((-2.1, -4.5, -3.0, -3.2), 1.0, (0.9, -1.3), 0.105),  # My order is late, chapter 9
        ((-1.0, -2.0, -1.0, -2.0), 0.1, (0.0, 0.0), 0.693),  # What is 2+2?, before and after
        ((-0.8, -2.5, -1.0, -2.0), 0.1, (0.02, -0.05), 0.659),
    ],
)
def test_worked_examples(four, beta, rewards, loss):
    result = dpo_loss(*four, beta=beta)
    assert isinstance(result, PreferenceLoss)
    assert round(result.losses.item(), 3) == loss
    assert result.chosen_rewards.item() == pytest.approx(rewards[0])
    assert result.rejected_rewards.item() == pytest.approx(rewards[1])


def test_beta_is_a_tenth_unless_given():
    four = (-10.0, -15.0, -12.0, -14.0)
    assert dpo_loss(*four) == dpo_loss(*four, beta=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [1e-6, 0.1, 1.0, 1e6])
def test_at_the_start_the_loss_is_log_two(dtype, beta):
    chosen, rejected = -100 * torch.rand(2, 50, dtype=dtype)
    losses, chosen_rewards, rejected_rewards = dpo_loss(chosen, rejected, chosen, rejected, beta)
    assert (losses == torch.tensor(math.log(2), dtype=dtype)).all()
    assert not chosen_rewards.any()
    assert not rejected_rewards.any()


def test_unreduced_typed_and_detached():
    policy = -torch.rand(2, 3, requires_grad=True) - 1
    reference = -torch.rand(2, 3) - 1
    result = dpo_loss(policy, policy - 1, reference, reference)
    assert all(x.shape == (2, 3) and x.dtype == torch.float32 for x in result)
    assert [x.requires_grad for x in result] == [True, False, False]
    assert all(x.dtype == torch.float64 for x in dpo_loss(-1, -2, -1, -2))


@given(four, betas, st.floats(0, 0.49))
@deterministic
def test_equals_the_formula(values, beta, epsilon):
    result = dpo_loss(*values, beta=beta, label_smoothing=epsilon).losses.item()
    assert result == pytest.approx(plain_loss(values, beta, epsilon), rel=1e-12, abs=1e-12)


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_gradients_by_formula_autograd_and_finite_differences(beta, epsilon):
    generator = torch.Generator().manual_seed(0)
    inputs = [-9 * torch.rand(8, generator=generator, dtype=torch.float64) - 1 for _ in range(4)]
    inputs = [x.requires_grad_() for x in inputs]

    def losses(*args):
        return dpo_loss(*args, beta=beta, label_smoothing=epsilon).losses

    losses(*inputs).sum().backward()
    values = [x.tolist() for x in inputs]
    step = 1e-6
    for row in range(8):
        point = [column[row] for column in values]
        z = beta * ((point[0] - point[2]) - (point[1] - point[3]))
        slope = -(1 - epsilon) / (1 + math.exp(z)) + epsilon / (1 + math.exp(-z))
        for which, sign in enumerate((1, -1, -1, 1)):
            autograd = inputs[which].grad[row].item()
            assert autograd == pytest.approx(sign * beta * slope, rel=1e-12)
            ends = []
            for direction in (step, -step):
                moved = list(point)
                moved[which] += direction
                ends.append(plain_loss(moved, beta, epsilon))
            assert autograd == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-9)
    assert torch.autograd.gradcheck(losses, inputs)


def test_wrong_pairs_pull_hard_and_right_pairs_hardly():
    chosen = torch.tensor([-30.0, -20.0, -10.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.full((3,), -20.0, dtype=torch.float64)
    dpo_loss(chosen, rejected, rejected, rejected, beta=1.0).losses.sum().backward()
    assert_close(chosen.grad, -torch.sigmoid(torch.tensor([10.0, 0.0, -10.0])).double())


# --- extremes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("beta", [1e-8, 0.1, 1.0, 1e4])
def test_extreme_margins_give_finite_losses_and_gradients(dtype, beta, epsilon):
    right, wrong = torch.tensor([-1.0, -10001.0], dtype=dtype)
    inputs = [
        torch.stack(pair).requires_grad_()
        for pair in ((right, wrong), (wrong, right), (wrong, right), (right, wrong))
    ]  # the first pair is as right as can be, the second as wrong
    losses = dpo_loss(*inputs, beta=beta, label_smoothing=epsilon).losses
    losses.sum().backward()
    assert losses.isfinite().all()
    assert all(x.grad.isfinite().all() for x in inputs)
    z = 2e4 * beta
    if z > 100:
        expected = torch.tensor([epsilon * z, (1 - epsilon) * z], dtype=dtype)
        assert_close(losses, expected, atol=0, rtol=1e-6)
        slopes = torch.tensor([epsilon * beta, (epsilon - 1) * beta], dtype=dtype)
        assert_close(inputs[0].grad, slopes, atol=0, rtol=1e-6)
    assert not losses.signbit().any()  # no "-0.0" in print


@pytest.mark.parametrize("margin", [-45.0, -36.0, -20.5, 20.5, 36.0, 45.0])
def test_float64_keeps_its_digits_in_the_tails(margin):
    loss = dpo_loss(margin - 100.0, -100.0, -100.0, -100.0, beta=1.0).losses
    exact = max(-margin, 0) + math.log1p(math.exp(-abs(margin)))
    assert loss.item() == pytest.approx(exact, rel=4e-16)


# --- properties ----------------------------------------------------------------------------------


@given(four, betas, st.floats(-9, 9))
@deterministic
def test_shifting_both_references_changes_nothing(values, beta, shift):
    chosen, rejected, *reference = values
    moved = dpo_loss(chosen, rejected, *(x + shift for x in reference), beta=beta).losses
    assert_close(moved, dpo_loss(*values, beta=beta).losses, atol=1e-11, rtol=1e-11)


@given(four, betas)
@deterministic
def test_swapping_the_labels_changes_the_loss_by_the_margin(values, beta):
    pc, pr, rc, rr = values
    right, chosen_rewards, rejected_rewards = dpo_loss(pc, pr, rc, rr, beta=beta)
    swapped = dpo_loss(pr, pc, rr, rc, beta=beta)
    margin = chosen_rewards - rejected_rewards
    assert_close(swapped.losses - right, margin, atol=1e-11, rtol=1e-11)
    assert swapped.chosen_rewards == rejected_rewards
    assert swapped.rejected_rewards == chosen_rewards


@given(four, betas, st.floats(0.01, 5))
@deterministic
def test_monotone_in_each_of_the_four(values, beta, rise):
    loss = dpo_loss(*values, beta=beta).losses
    for which, falls in enumerate((True, False, False, True)):
        moved = list(values)
        moved[which] += rise
        change = dpo_loss(*moved, beta=beta).losses - loss
        assert change < 0 if falls else change > 0


@given(four, betas)
@deterministic
def test_beta_scales_the_log_ratios(values, beta):
    scaled = dpo_loss(*(beta * x for x in values), beta=1.0)
    for ours, theirs in zip(dpo_loss(*values, beta=beta), scaled, strict=True):
        assert_close(ours, theirs, atol=1e-11, rtol=1e-11)


@given(four, betas, st.floats(0, 0.49))
@deterministic
def test_label_smoothing_mixes_the_two_labels(values, beta, epsilon):
    pc, pr, rc, rr = values
    mixed = (1 - epsilon) * dpo_loss(pc, pr, rc, rr, beta=beta).losses + epsilon * dpo_loss(
        pr, pc, rr, rc, beta=beta
    ).losses
    smoothed = dpo_loss(*values, beta=beta, label_smoothing=epsilon).losses
    assert_close(smoothed, mixed, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_with_label_smoothing_the_minimum_is_at_the_log_odds(epsilon):
    """Conservative DPO stops where the margin is logit(1 - epsilon)."""
    margin = math.log((1 - epsilon) / epsilon)
    chosen = torch.tensor(-10.0 + margin, dtype=torch.float64, requires_grad=True)
    dpo_loss(chosen, -10, -10, -10, beta=1.0, label_smoothing=epsilon).losses.backward()
    assert abs(chosen.grad.item()) < 1e-12


# --- the naive loss ------------------------------------------------------------------------------


@given(four, betas)
@deterministic
def test_the_naive_loss_is_dpo_with_a_flat_reference(values, beta):
    chosen, rejected, *_ = values
    naive = naive_loss(*values, beta=beta)
    for reference in (-10.0, -50.0):  # any reference that is the same for both responses
        losses = dpo_loss(chosen, rejected, reference, reference, beta=beta).losses
        assert_close(naive.losses, losses, atol=1e-11, rtol=1e-11)
    assert naive.chosen_rewards.item() == pytest.approx(beta * chosen)
    assert naive.rejected_rewards.item() == pytest.approx(beta * rejected)


def test_the_naive_loss_weighs_log_probabilities_fully_unless_told_otherwise():
    values = (-2.0, -1.0, -5.0, -1.5)
    assert naive_loss(*values) == naive_loss(*values, beta=1.0)
    assert naive_loss(*values).losses.item() == pytest.approx(math.log1p(math.e))
