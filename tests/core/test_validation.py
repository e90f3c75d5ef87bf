"""Checks: one by one or gathered, and then a GPU is waited for once."""

import math

import pytest
import torch

from dpo_lib import dpo_loss, dpo_reward, preference_nll, reward_accuracy
from dpo_lib._validation import check_finite, check_log_probs, checked_at_once, gathered_checks
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
