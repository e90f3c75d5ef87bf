"""Checks: one by one or gathered, and then a GPU is waited for once."""

import math

import pytest
import torch

from dpo_lib import dpo_loss, dpo_reward, preference_nll, reward_accuracy
from dpo_lib._validation import (
    as_float_tensor,
    as_number,
    check_finite,
    check_label_smoothing,
    check_log_probs,
    check_positive,
    check_same_shape,
    check_whole,
    checked_at_once,
    gathered_checks,
)
from tests.helpers import looks_at_values

GOOD, NAN = torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, math.nan])
ABOVE, INF = torch.tensor([-1.0, 0.5]), torch.tensor([-math.inf, -1.0])


@pytest.mark.parametrize(
    ("function", "tensors"), [(dpo_loss, 4), (dpo_reward, 2), (preference_nll, 2)]
)
def test_good_values_are_looked_at_once(function, tensors):
    values = [GOOD.clone().requires_grad_() for _ in range(tensors)]
    beta = () if function is preference_nll else (0.1,)
    with looks_at_values() as looks:
        function(*values, *beta)
    assert looks.number == 1


def test_accuracy_looks_once_even_at_a_tie_width_that_is_a_tensor():
    with looks_at_values() as looks:
        reward_accuracy(GOOD, GOOD, torch.tensor(1e-6))
    assert looks.number == 1
    with pytest.raises(ValueError, match="tie must be at least 0, got tensor"):
        reward_accuracy(GOOD, GOOD, torch.tensor(math.nan))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    ("bad", "words"),
    [(NAN, r"finite, got \[nan\]"), (INF, "finite"), (ABOVE, "at most 0; got 0.5")],
)
def test_the_culprit_is_named(place, bad, words):
    names = [
        f"{model}_{side}_logps"
        for model in ("policy", "reference")
        for side in ("chosen", "rejected")
    ]
    values = [GOOD] * 4
    values[place] = bad
    with pytest.raises(ValueError, match=f"^{names[place]} must be .*{words}"):
        dpo_loss(*values)


@checked_at_once()
def check(first, second, error=None):
    check_log_probs(first, "first")
    check_finite(second, "second")
    if error:
        raise error


def test_the_first_of_several_is_named_and_nothing_is_left_over():
    with pytest.raises(ValueError, match="first must"):
        check(ABOVE, NAN)
    with pytest.raises(ValueError, match="second must"):
        check(GOOD, NAN)
    check(GOOD, GOOD)
    with pytest.raises(ValueError, match="alone must be finite"):
        check_finite(NAN, "alone")


def test_a_bad_value_is_named_though_something_else_failed_over_it():
    with pytest.raises(ValueError, match="second must be finite"):
        check(GOOD, NAN, RuntimeError())
    with pytest.raises(RuntimeError):
        check(GOOD, GOOD, RuntimeError())


def test_who_gathers_looks():
    with gathered_checks() as checks:
        dpo_loss(GOOD, GOOD, GOOD, ABOVE)
        check_finite(GOOD, "x")
    assert checks.failed()
    with pytest.raises(ValueError, match="reference_rejected_logps"):
        checks.settle()
    with gathered_checks() as checks:
        dpo_loss(GOOD, GOOD, GOOD, GOOD)
    assert not checks.failed()
    checks.settle()


def test_nothing_asked_is_nothing_failed():
    with gathered_checks() as checks:
        pass
    assert not checks.failed()


# --- one by one ----------------------------------------------------------------------------------

A_NUMBER = "a must be a number, got "
MANY = torch.tensor([1.0, math.nan, math.inf, -math.inf, math.nan])


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (as_float_tensor, "1", "a must be a number or a tensor of numbers, got '1'"),
        (as_float_tensor, None, "a must be a number or a tensor of numbers, got None"),
        (as_float_tensor, torch.tensor(1j), "a must be real, got dtype torch.complex64"),
        (check_finite, MANY, "a must be finite, got [nan, inf, -inf]"),
        (check_log_probs, 2e-6, "a must be log-probabilities, which are at most 0; got 2e-06"),
        (check_log_probs, MANY, "a must be finite, got [nan, inf, -inf]"),
        (check_positive, 0, "a must be a finite number above 0, got 0"),
        (check_positive, math.inf, "a must be a finite number above 0, got inf"),
        (check_positive, math.nan, "a must be a finite number above 0, got nan"),
        (check_positive, "1", A_NUMBER + "'1'"),
        (as_number, "1", A_NUMBER + "'1'"),
        (as_number, [1, 2], A_NUMBER + "[1, 2]"),
        (as_number, 10**400, A_NUMBER + repr(10**400)),
        (check_whole, True, "a must be a whole number, got True"),
        (check_whole, 1.0, "a must be a whole number, got 1.0"),
        (check_whole, torch.tensor([1, 2]), "a must be a whole number, got tensor([1, 2])"),
    ],
)
def test_what_is_refused_is_named_and_shown(check, value, message):
    with pytest.raises(ValueError, match=r"^a must be") as error:
        check(value, "a")
    assert str(error.value) == message


def test_what_is_out_of_its_range_is_shown():
    for value in (-0.01, 0.5, math.nan):
        with pytest.raises(
            ValueError, match=rf"^label_smoothing must lie in .0, 0.5., got {value}"
        ):
            check_label_smoothing(value)
    with pytest.raises(ValueError, match=r"^a must be at least 3, got 2$"):
        check_whole(2, "a", 3)
    with pytest.raises(ValueError, match=r"^shapes must agree, got a \(2,\), b \(2,\), c \(\)$"):
        check_same_shape(a=GOOD, b=GOOD, c=torch.tensor(0.0))
    check_same_shape(a=GOOD, b=NAN)


def test_what_is_let_through_is_a_number_as_wide_as_it_was():
    for value in (2, 2.0, [1, 2], torch.tensor([1, 2])):
        assert as_float_tensor(value, "a").dtype == torch.float64
    assert as_float_tensor(GOOD, "a") is GOOD
    assert check_log_probs(torch.tensor(1e-6, dtype=torch.float64), "a") == 1e-6  # by rounding
    for found in (as_number(2, "a"), check_positive(2, "a"), as_number(torch.tensor(2), "a")):
        assert (found, type(found)) == (2.0, float)
    assert (check_label_smoothing(0), check_label_smoothing(0.49)) == (0.0, 0.49)
    assert (check_whole(3, "a", 3), check_whole(-1, "a"), check_whole(torch.tensor(4), "a")) == (
        3,
        -1,
        4,
    )
