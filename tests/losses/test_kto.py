"""KTO's level, and KTO on thumbs without pairs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dpo_lib.losses import (
    LOSSES,
    as_loss_function,
    dpo_loss,
    kto_loss,
    looks_across_pairs,
    unpaired_kto_loss,
)
from dpo_lib.losses.unpaired import check_kind, mismatched_level
from tests.helpers import deterministic
from tests.losses.facts import plain_value, sigmoid


def level_of(pc, pr, rc, rr):
    return torch.cat([(pc - rc).reshape(-1), (pr - rr).reshape(-1)]).mean().clamp(min=0)


def random_four(n, lift=0.0):
    generator = torch.Generator().manual_seed(3)
    columns = [-20 - 5 * torch.rand(n, dtype=torch.float64, generator=generator) for _ in range(4)]
    return [columns[0] + lift, columns[1] + lift, *columns[2:]]


@pytest.mark.parametrize(("lift", "positive"), [(4.0, True), (-9.0, False)])
def test_the_level_is_the_mean_log_ratio_of_the_batch_or_zero(lift, positive):
    columns = random_four(6, lift)
    level = level_of(*columns).item()
    assert (level > 1) == positive
    expected = [
        plain_value("kto", row, 0.1, 1, 1, kl=level)
        for row in zip(*(x.tolist() for x in columns), strict=True)
    ]
    assert_close(kto_loss(*columns).losses, torch.tensor(expected, dtype=torch.float64))
    assert_close(kto_loss(*columns, kl=level).losses, kto_loss(*columns).losses)


def test_no_gradient_flows_through_the_level():
    columns = [x.requires_grad_() for x in random_four(6, lift=4.0)]
    kto_loss(*columns).losses.sum().backward()
    estimated = [x.grad.clone() for x in columns]
    level = level_of(*columns)
    for x in columns:
        x.grad = None
    kto_loss(*columns, kl=level).losses.sum().backward()  # a level with a graph of its own
    for x, gradient in zip(columns, estimated, strict=True):
        assert_close(x.grad, gradient)


def test_a_level_for_each_pair():
    columns = random_four(3)
    levels = torch.tensor([0.0, 1.0, 7.0], dtype=torch.float64)
    each = [kto_loss(*(x[i] for x in columns), kl=levels[i]).losses for i in range(3)]
    assert_close(kto_loss(*columns, kl=levels).losses, torch.stack(each))


# --- without pairs -------------------------------------------------------------------------------

logps = st.floats(-60, -10) | st.floats(-1e4, -1e-6)


@given(
    st.lists(st.tuples(logps, logps, st.booleans()), min_size=1, max_size=6),
    st.floats(0.01, 3),
    st.floats(0.1, 5),
    st.floats(0.1, 5),
    st.none() | st.floats(0, 20),
)
@deterministic
def test_thumbs_equal_plain_arithmetic(rows, beta, good, bad, kl):
    policy, reference, thumbs = zip(*rows, strict=True)
    ratios = [p - r for p, r in zip(policy, reference, strict=True)]
    level = max(0.0, sum(ratios) / len(ratios)) if kl is None else kl
    expected = [
        good * (1 - sigmoid(beta * (x - level))) if up else bad * (1 - sigmoid(beta * (level - x)))
        for x, up in zip(ratios, thumbs, strict=True)
    ]
    result = unpaired_kto_loss(
        torch.tensor(policy, dtype=torch.float64),
        torch.tensor(reference, dtype=torch.float64),
        torch.tensor(thumbs),
        beta,
        kl=kl,
        desirable_weight=good,
        undesirable_weight=bad,
    )
    assert_close(result.losses, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9)
    assert_close(result.rewards, beta * torch.tensor(ratios, dtype=torch.float64))


@pytest.mark.parametrize("lift", [4.0, -9.0])
def test_pairs_cut_in_two_give_the_loss_of_pairs(lift):
    pc, pr, rc, rr = (x.requires_grad_() for x in random_four(5, lift))
    options = {"desirable_weight": 2.0, "undesirable_weight": 0.7}
    paired = kto_loss(pc, pr, rc, rr, 0.3, **options).losses.mean()
    thumbs = torch.arange(10) < 5
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    columns = torch.cat([pc, pr])[order], torch.cat([rc, rr])[order], thumbs[order]
    unpaired = unpaired_kto_loss(*columns, 0.3, **options)
    assert not unpaired.rewards.requires_grad
    assert_close(unpaired.losses.mean(), paired)
    ours, theirs = (torch.autograd.grad(x, (pc, pr)) for x in (unpaired.losses.mean(), paired))
    assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thumbs_are_typed_and_finite_at_the_ends(dtype):
    policy = torch.tensor([0.0, -1e4, 0.0, -1e4], dtype=dtype, requires_grad=True)
    reference = torch.tensor([-1e4, 0.0, -1e4, 0.0], dtype=dtype)
    result = unpaired_kto_loss(policy, reference, torch.tensor([True, True, False, False]), 1.0)
    result.losses.sum().backward()
    assert result.losses.dtype == result.rewards.dtype == dtype
    assert result.losses.tolist() == [0, 1, 1, 0]
    assert policy.grad.isfinite().all()
    one = unpaired_kto_loss(-40.0, -80.0, True, 1.0, kl=0.0).losses
    assert one.item() == pytest.approx(math.exp(-40), rel=1e-12, abs=0)


def test_the_level_of_mismatched_responses_is_a_mean_and_not_below_0():
    own = torch.tensor([-3.0, -1.5, -4.0], requires_grad=True)
    reference = torch.tensor([-5.0, -2.0, -3.0])
    level = mismatched_level(own, reference)
    assert level.item() == pytest.approx((2 + 0.5 - 1) / 3)
    assert not level.requires_grad
    assert mismatched_level(reference, own.detach()) == 0


def test_a_thumb_weighs_one_and_beta_is_a_tenth_unless_given():
    thumbs = torch.tensor([-1.0, -2.0]), torch.tensor([-2.5, -1.0]), torch.tensor([True, False])
    said = {"kl": None, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    assert_close(unpaired_kto_loss(*thumbs), unpaired_kto_loss(*thumbs, 0.1, **said))


def test_a_batch_of_thumbs_is_coupled():
    assert looks_across_pairs(unpaired_kto_loss)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"desirable": torch.tensor([1, 0])}, "desirable must be of bools"),
        ({"desirable": None}, "desirable must be of bools"),
        ({"desirable": torch.tensor([True])}, r"shapes must agree.* desirable \(1,\)"),
        ({"policy_logps": torch.tensor([-1.0, 1.0])}, "policy_logps .* at most 0"),
        ({"reference_logps": torch.tensor([-1.0])}, r"shapes must agree.* reference_logps \(1,\)"),
        ({"reference_logps": torch.tensor([-1.0, 1.0])}, "reference_logps .* at most 0"),
        ({"beta": 0}, "beta must be"),
        ({"kl": -1}, "kl must be at least 0"),
        ({"desirable_weight": 0}, "desirable_weight must be .* above 0, got 0"),
        ({"undesirable_weight": 0}, "undesirable_weight must be .* above 0, got 0"),
    ],
)
def test_bad_thumbs_are_named(changed, words):
    arguments = {
        "policy_logps": torch.tensor([-1.0, -2.0]),
        "reference_logps": torch.tensor([-1.5, -2.0]),
        "desirable": torch.tensor([True, False]),
    }
    with pytest.raises(ValueError, match=f"^{words}"):
        unpaired_kto_loss(**{**arguments, **changed})


def test_a_loss_is_refused_for_data_of_the_other_kind():
    check_kind(unpaired_kto_loss, True)
    check_kind(dpo_loss, False)
    with pytest.raises(ValueError, match=r"dpo_loss compares the two responses .* one of .'kto'."):
        check_kind(dpo_loss, True)
    with pytest.raises(ValueError, match=r"^unpaired_kto_loss takes thumbs, .* data are pairs$"):
        check_kind(unpaired_kto_loss, False)
    assert as_loss_function("kto", True) is unpaired_kto_loss
    assert as_loss_function("kto") is LOSSES["kto"]
