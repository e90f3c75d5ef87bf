"""Bradley–Terry: worked numbers, properties, gradients three ways, fitting and sampling."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dpo_lib import (
    bradley_terry_probability,
    fit_bradley_terry,
    preference_nll,
    sample_comparisons,
)
from tests.helpers import deterministic

scores = st.floats(-30, 30)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(5.0, 0.993), (1.7, 0.846), (0.0, 0.5), (-1.7, 0.154), (-5.0, 0.007)],
)
def test_probability_table(difference, expected):
    assert round(bradley_terry_probability(difference, 0.0).item(), 3) == expected


def test_running_example():
    assert round(bradley_terry_probability(2.5, 0.8).item(), 4) == 0.8455
    assert round(preference_nll(2.5, 0.8).item(), 4) == 0.1678


def test_python_numbers_are_computed_in_float64_and_tensors_keep_their_dtype():
    for function in (bradley_terry_probability, preference_nll):
        assert function(2, 1).dtype == torch.float64
        assert function([2.5, 1.0], 0.8).dtype == torch.float64
        for dtype in (torch.float32, torch.float64):
            assert function(torch.ones(2, dtype=dtype), 0.5).dtype == dtype


@given(scores, scores, scores)
@deterministic
def test_shifting_both_scores_changes_nothing(a, b, shift):
    assert_close(
        bradley_terry_probability(a + shift, b + shift),
        bradley_terry_probability(a, b),
        atol=1e-12,
        rtol=1e-12,
    )
    assert_close(preference_nll(a + shift, b + shift), preference_nll(a, b), atol=1e-12, rtol=1e-12)


@given(scores, scores)
@deterministic
def test_the_two_orders_add_to_one(a, b):
    total = bradley_terry_probability(a, b) + bradley_terry_probability(b, a)
    assert total.item() == pytest.approx(1, abs=1e-15)
    # and the two losses differ by the score difference
    assert (preference_nll(b, a) - preference_nll(a, b)).item() == pytest.approx(a - b, abs=1e-12)


@given(scores, scores, st.floats(1e-3, 5))
@deterministic
def test_a_higher_chosen_score_is_more_probable_and_costs_less(a, b, rise):
    assert preference_nll(a + rise, b) < preference_nll(a, b)
    assert bradley_terry_probability(a + rise, b) >= bradley_terry_probability(a, b)
    if abs(a - b) < 15:  # further out, neighboring probabilities round to the same number
        assert bradley_terry_probability(a + rise, b) > bradley_terry_probability(a, b)


@given(scores, scores)
@deterministic
def test_equals_the_softmax_of_two_scores(a, b):
    softmax = math.exp(a) / (math.exp(a) + math.exp(b))
    assert bradley_terry_probability(a, b).item() == pytest.approx(softmax, rel=1e-12)
    assert preference_nll(a, b).item() == pytest.approx(math.log1p(math.exp(b - a)), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_differences_stay_finite(dtype):
    difference = torch.tensor([-1e4, -100, 100, 1e4], dtype=dtype, requires_grad=True)
    losses = preference_nll(difference, torch.zeros(4, dtype=dtype))
    losses.sum().backward()
    assert_close(losses, torch.tensor([1e4, 100, 0, 0], dtype=dtype))
    assert_close(difference.grad, torch.tensor([-1, -1, 0, 0], dtype=dtype))
    assert not losses.signbit().any()  # no "-0.0" in print


@pytest.mark.parametrize("difference", [-45.0, -36.0, -20.5, 20.5, 36.0, 45.0])
def test_float64_keeps_its_digits_in_the_tails(difference):
    exact = max(-difference, 0) + math.log1p(math.exp(-abs(difference)))
    assert preference_nll(difference, 0.0).item() == pytest.approx(exact, rel=4e-16)


def test_gradient_by_formula_autograd_and_finite_differences():
    chosen = torch.linspace(-8, 8, 9, dtype=torch.float64, requires_grad=True)
    rejected = torch.linspace(3, -2, 9, dtype=torch.float64, requires_grad=True)
    preference_nll(chosen, rejected).sum().backward()
    formula = torch.tensor([-1 / (1 + math.exp(d)) for d in (chosen - rejected).tolist()]).double()
    assert_close(chosen.grad, formula, atol=1e-7, rtol=1e-6)
    assert_close(rejected.grad, -chosen.grad)
    assert torch.autograd.gradcheck(preference_nll, (chosen, rejected))
    assert torch.autograd.gradcheck(bradley_terry_probability, (chosen, rejected))


def test_scores_broadcast():
    probability = bradley_terry_probability(torch.zeros(3, 1), torch.arange(2.0))
    assert probability.shape == (3, 2)


@pytest.mark.parametrize("function", [bradley_terry_probability, preference_nll])
@pytest.mark.parametrize(
    ("chosen", "rejected", "words"),
    [
        (math.nan, 0.0, ["chosen_score", "nan"]),
        (0.0, math.inf, ["rejected_score", "inf"]),
        (None, 0.0, ["chosen_score", "None"]),
        (0.0, "two", ["rejected_score", "two"]),
        (10**400, 0.0, ["chosen_score", "1000"]),
        (1j, 0.0, ["chosen_score", "1j"]),
        (torch.tensor(1j), 0.0, ["chosen_score", "complex"]),
        (
            [1.0, 2.0],
            [1.0, 2.0, 3.0],
            ["chosen_score (2,)", "rejected_score (3,) cannot be broadcast"],
        ),
    ],
)
def test_bad_scores_are_named(function, chosen, rejected, words):
    with pytest.raises(ValueError, match=rf"^{words[0].split(' ')[0]}\b") as error:
        function(chosen, rejected)
    for word in words:
        assert word in str(error.value)


# --- fitting -----------------------------------------------------------------------------------


def comparisons(wins):
    """Index vectors for a table of wins."""
    pairs = [pair for pair, count in wins.items() for _ in range(count)]
    return tuple(torch.tensor(side) for side in zip(*pairs, strict=True))


WINS = {(0, 1): 7, (1, 0): 3, (1, 2): 6, (2, 1): 2, (2, 0): 1, (0, 2): 4}


def log_likelihood(wins, fitted):
    total = 0.0
    for (winner, loser), count in wins.items():
        total -= count * math.log1p(math.exp(fitted[loser] - fitted[winner]))
    return total


def test_two_items_have_the_closed_form_log_odds():
    fitted = fit_bradley_terry(*comparisons({(0, 1): 9, (1, 0): 2}), n_items=2)
    assert_close(fitted[0] - fitted[1], torch.tensor(math.log(9 / 2), dtype=torch.float64))
    assert fitted.dtype == torch.float64
    assert abs(fitted.sum().item()) < 1e-12


def test_the_gradient_vanishes_at_the_fit():
    fitted = fit_bradley_terry(*comparisons(WINS), n_items=3).tolist()
    for item in range(3):
        slope = 0.0
        for (winner, loser), count in WINS.items():
            lost = 1 / (1 + math.exp(fitted[winner] - fitted[loser]))
            slope += count * lost * ((item == winner) - (item == loser))
        assert abs(slope) < 1e-8


def test_no_point_of_a_grid_is_more_likely_than_the_fit():
    fitted = fit_bradley_terry(*comparisons(WINS), n_items=3).tolist()
    best = log_likelihood(WINS, fitted)
    grid = [x / 20 for x in range(-60, 61)]
    peak = max(itertools.product(grid, grid), key=lambda ab: log_likelihood(WINS, [*ab, 0.0]))
    assert log_likelihood(WINS, [*peak, 0.0]) <= best
    assert peak[0] == pytest.approx(fitted[0] - fitted[2], abs=0.05)
    assert peak[1] == pytest.approx(fitted[1] - fitted[2], abs=0.05)


def test_the_true_scores_are_recovered_from_many_comparisons():
    true = torch.linspace(-1.5, 1.5, 6, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    winners, losers = sample_comparisons(true, 40_000, generator)
    fitted = fit_bradley_terry(winners, losers, n_items=6)
    assert (fitted - true).square().mean().sqrt() < 0.03


def test_lopsided_counts_converge():
    fitted = fit_bradley_terry(*comparisons({(0, 1): 50_000, (1, 0): 1}), n_items=2)
    assert (fitted[0] - fitted[1]).item() == pytest.approx(math.log(50_000))


def test_a_step_that_overshoots_is_halved():
    counts = {(0, 1): 12, (1, 2): 1156, (2, 3): 9, (3, 0): 432, (3, 2): 164, (3, 4): 1883}
    winners, losers = comparisons(counts | {(4, 0): 1253, (4, 2): 2})
    scores = fit_bradley_terry(winners, losers, n_items=5)
    gaps = scores[:, None] - scores[None, :]
    for item in range(5):  # as many wins as the scores expect
        opponents = torch.cat([losers[winners == item], winners[losers == item]])
        assert gaps[item][opponents].sigmoid().sum() == pytest.approx((winners == item).sum())


def test_a_perfect_cycle_fits_equal_scores():
    fitted = fit_bradley_terry(*comparisons({(0, 1): 5, (1, 2): 5, (2, 0): 5}), n_items=3)
    assert_close(fitted, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_indices_of_any_integer_type(dtype):
    winners, losers = comparisons(WINS)
    expected = fit_bradley_terry(winners, losers, 3)
    assert_close(fit_bradley_terry(winners.to(dtype), losers.to(dtype), 3), expected)
    assert_close(fit_bradley_terry(winners.tolist(), losers.tolist(), 3), expected)


@pytest.mark.parametrize(
    ("wins", "n_items", "start", "end"),
    [
        ({(0, 1): 5}, 2, 1, 0),  # never lost
        ({(0, 1): 2, (1, 0): 2, (2, 0): 3}, 3, 0, 2),  # the newcomer won all
        ({(0, 1): 2, (1, 0): 2, (2, 3): 1, (3, 2): 1}, 4, 0, 2),  # two groups that never met
        ({(0, 1): 2, (1, 0): 2}, 3, 0, 2),  # an item that never played
    ],
)
def test_no_finite_scores_is_an_error_that_names_the_gap(wins, n_items, start, end):
    with pytest.raises(ValueError, match=f"from item {start} to item {end}"):
        fit_bradley_terry(*comparisons(wins), n_items)


@pytest.mark.parametrize(
    ("winners", "losers", "n_items", "words"),
    [
        ([0, 1], [1], 2, ["winners", "losers", "(2,)", "(1,)"]),
        ([], [], 2, ["winners", "(0,)"]),
        ([[0], [1]], [[1], [0]], 2, ["winners", "(2, 1)"]),
        ([0, 5], [1, 0], 2, ["winners", "[0, 2)", "5"]),
        ([0, 2], [1, 0], 2, ["winners", "[0, 2)", "0 to 2"]),
        ([0, -1], [1, 0], 2, ["winners", "[0, 2)", "-1"]),
        ([0.0, 1.0], [1.0, 0.0], 2, ["winners", "float"]),
        ([True, False], [False, True], 2, ["winners", "bool"]),
        ([0, 1], [1, 1], 2, ["winners", "differ", "item 1", "row 1"]),
        ([0, 1], [1, 0], 1, ["n_items", "1"]),
        ([0, 1], [1, 0], 2.0, ["n_items", "2.0"]),
    ],
)
def test_malformed_comparisons_are_named(winners, losers, n_items, words):
    with pytest.raises(ValueError, match=rf"^{words[0]}\b") as error:
        fit_bradley_terry(torch.tensor(winners), torch.tensor(losers), n_items)
    for word in words:
        assert word in str(error.value)


def test_what_is_no_index_is_named():
    words = r"^winners and losers must be index vectors, got \['a'\] and \[1\]"
    with pytest.raises(ValueError, match=words):
        fit_bradley_terry(["a"], [1], 2)


def test_too_few_steps_is_an_error():
    with pytest.raises(ValueError, match="max_steps=1"):
        fit_bradley_terry(*comparisons(WINS), n_items=3, max_steps=1)


# --- sampling ----------------------------------------------------------------------------------


def test_sampled_frequencies_follow_the_model():
    true, n = [1.0, 0.0, -0.7], 60_000
    winners, losers = sample_comparisons(true, n, torch.Generator().manual_seed(1))
    assert winners.shape == losers.shape == (n,)
    for a, b in itertools.combinations(range(3), 2):
        won = ((winners == a) & (losers == b)).sum().item()
        met = won + ((winners == b) & (losers == a)).sum().item()
        p = 1 / (1 + math.exp(true[b] - true[a]))
        assert met == pytest.approx(n / 3, abs=4 * math.sqrt(n * 2 / 9))  # 4 standard deviations
        assert won == pytest.approx(met * p, abs=4 * math.sqrt(met * p * (1 - p)))
    assert not (winners == losers).any()


def test_sampling_repeats_with_its_generator():
    first, second = (
        sample_comparisons([0.0, 1.0, 0.5, 2.0], 50, torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_one_comparison_can_be_sampled():
    winners, losers = sample_comparisons([0.0, 1.0], 1)
    assert sorted([*winners.tolist(), *losers.tolist()]) == [0, 1]


@pytest.mark.parametrize(
    ("scores", "n", "words"),
    [
        ([1.0], 5, ["scores", "(1,)"]),
        (1.0, 5, ["scores", "()"]),
        ([0.0, math.nan], 5, ["scores", "nan"]),
        (["one", "two"], 5, ["scores", "one"]),
        ([0.0, 1.0], 0, ["n_comparisons", "0"]),
    ],
)
def test_bad_sampling_requests_are_named(scores, n, words):
    with pytest.raises(ValueError, match=rf"^{words[0]}\b") as error:
        sample_comparisons(scores, n)
    for word in words:
        assert word in str(error.value)
