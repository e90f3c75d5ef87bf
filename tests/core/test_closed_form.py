"""Exact policies: every identity of appendix A on random worlds with six responses."""

import math

import pytest
import torch

from dpo_lib.closed_form import (
    entropy,
    expected_dpo_loss,
    fit_policy,
    kl_divergence,
    log_partition,
    optimal_margin,
    optimal_policy,
    rlhf_objective,
    total_variation,
)
from dpo_lib.losses import cdpo_loss, dpo_loss, hinge_loss, ipo_loss, naive_loss, robust_dpo_loss

BETAS = (0.1, 0.5, 1.0, 2.0)


def world(seed: int, n_prompts: int = 3, n_responses: int = 6):
    generator = torch.Generator().manual_seed(seed)
    shape = (n_prompts, n_responses)
    reference = torch.randn(shape, dtype=torch.float64, generator=generator).log_softmax(dim=-1)
    return reference, torch.randn(shape, dtype=torch.float64, generator=generator)


def random_policy(seed: int, like: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, dtype=like.dtype, generator=generator).log_softmax(dim=-1)


@pytest.mark.parametrize("beta", BETAS)
def test_optimum_is_the_tilted_reference(beta):
    reference, rewards = world(0)
    tilted = reference.exp() * (rewards / beta).exp()
    best = optimal_policy(reference, rewards, beta)
    assert torch.allclose(best.exp(), tilted / tilted.sum(-1, keepdim=True), atol=1e-12)
    assert torch.allclose(log_partition(reference, rewards, beta), tilted.sum(-1).log())


@pytest.mark.parametrize("beta", BETAS)
def test_objective_is_beta_log_z_minus_beta_kl_to_the_optimum(beta):
    reference, rewards = world(1)
    best = optimal_policy(reference, rewards, beta)
    log_z = log_partition(reference, rewards, beta)
    for seed in range(5):
        policy = random_policy(seed, reference)
        objective = rlhf_objective(policy, reference, rewards, beta)
        assert torch.allclose(objective, beta * (log_z - kl_divergence(policy, best)), atol=1e-11)
        assert (objective < beta * log_z).all()
    assert torch.allclose(rlhf_objective(best, reference, rewards, beta), beta * log_z)


@pytest.mark.parametrize("beta", BETAS)
def test_rlhf_ascent_and_dpo_descent_reach_the_same_policy(beta):
    reference, rewards = world(2)
    best = optimal_policy(reference, rewards, beta)
    start = random_policy(7, reference)
    by_rlhf = fit_policy(lambda p: -rlhf_objective(p, reference, rewards, beta), start)
    by_dpo = fit_policy(lambda p: expected_dpo_loss(p, reference, rewards, beta), start)
    assert total_variation(by_rlhf, best).max() < 1e-5
    assert total_variation(by_dpo, best).max() < 1e-5


def test_rewards_of_the_optimum_return_the_true_differences():
    reference, rewards = world(3)
    implicit = 0.3 * (optimal_policy(reference, rewards, 0.3) - reference)
    shift = rewards - implicit
    assert torch.allclose(shift, shift[:, :1].expand_as(shift))  # one constant a prompt
    assert torch.allclose(shift[:, 0], 0.3 * log_partition(reference, rewards, 0.3))


def test_large_beta_keeps_the_reference_and_small_beta_finds_the_best_response():
    reference, rewards = world(4)
    assert total_variation(optimal_policy(reference, rewards, 1e6), reference).max() < 1e-5
    greedy = optimal_policy(reference, rewards, 1e-3)
    assert torch.equal(greedy.argmax(-1), rewards.argmax(-1))
    assert (greedy.exp().max(-1).values > 0.999).all()


def test_entropy_and_divergences_by_hand():
    half = torch.tensor([0.5, 0.5]).double().log()
    skewed = torch.tensor([0.9, 0.1]).double().log()
    assert entropy(half).item() == pytest.approx(math.log(2))
    expected = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert kl_divergence(skewed, half).item() == pytest.approx(expected)
    assert total_variation(skewed, half).item() == pytest.approx(0.4)


def test_expected_dpo_loss_by_a_double_loop():
    reference, rewards = world(5, n_prompts=1, n_responses=4)
    policy = random_policy(1, reference)
    total, count, beta = 0.0, 0, 0.7
    for i in range(4):
        for j in range(i):
            z = beta * (policy - reference)[0, i] - beta * (policy - reference)[0, j]
            p = 1 / (1 + math.exp(rewards[0, j] - rewards[0, i]))
            total += p * math.log1p(math.exp(-z)) + (1 - p) * math.log1p(math.exp(z))
            count += 1
    loss = expected_dpo_loss(policy, reference, rewards, beta)
    assert loss.item() == pytest.approx(total / count)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([-0.1, -0.2], [0.0, 1.0], 1.0), "reference_logps must sum to one"),
        (([math.log(0.5)] * 2, [0.0, 1.0, 2.0], 1.0), r"reference_logps \(2,\), rewards \(3,\)"),
        (([math.log(0.5)] * 2, [0.0, math.nan], 1.0), "rewards must be finite"),
        (([math.log(0.5)] * 2, "good", 1.0), "^rewards must be a number"),
        (([math.log(0.5)] * 2, [0.0, 1.0], 0.0), "beta must be .* above 0"),
        ((0.0, 1.0, 1.0), "must list the responses"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimal_policy(*arguments)


@pytest.mark.parametrize("function", [rlhf_objective, expected_dpo_loss])
def test_a_bad_beta_is_named(function):
    with pytest.raises(ValueError, match=r"^beta must be .* above 0, got 0.0"):
        function(HALVES, HALVES, [0.0, 1.0], 0.0)


def test_one_response_makes_no_pair():
    with pytest.raises(ValueError, match="at least two responses, got 1"):
        expected_dpo_loss([0.0], [0.0], [1.0], 1.0)


P = torch.tensor([0.0, 1e-6, 0.2, 0.45, 0.5, 0.6, 0.9, 0.999, 1 - 1e-9, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.3])
def test_the_best_margin_is_that_of_the_formulas(beta, epsilon):
    smoothed = torch.logit((1 - epsilon) * P + epsilon * (1 - P)) / beta
    clean = torch.logit(((P - epsilon) / (1 - 2 * epsilon)).clamp(0, 1)) / beta
    wanted = {
        dpo_loss: torch.logit(P) / beta,
        naive_loss: torch.logit(P) / beta,  # with equal references
        cdpo_loss: smoothed,
        robust_dpo_loss: clean,
        ipo_loss: (2 * P - 1) / (2 * beta),
        hinge_loss: (P - 0.5).sign() / beta,
    }
    for loss, expected in wanted.items():
        options = {"label_smoothing": epsilon} if loss in (cdpo_loss, robust_dpo_loss) else {}
        got = optimal_margin(loss, P, beta, **options)
        torch.testing.assert_close(got * beta, expected * beta, rtol=1e-7, atol=1e-8)


def test_the_best_margin_is_least_on_a_grid():
    h = torch.linspace(-40, 40, 8001, dtype=torch.float64)  # no formula, only the loss
    floor = torch.full_like(h, -100.0)
    for loss in (dpo_loss, cdpo_loss, robust_dpo_loss, ipo_loss, hinge_loss):
        up, down = floor + h / 2, floor - h / 2
        for p in (0.3, 0.75):
            expected = p * loss(up, down, floor, floor, 0.1).losses
            expected = expected + (1 - p) * loss(down, up, floor, floor, 0.1).losses
            best = optimal_margin(loss, p, 0.1).item()
            assert abs(h[expected.argmin()].item() - best) <= 0.01 + 1e-9, loss


def test_the_best_margin_says_what_is_wrong():
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"^probability must be in \[0, 1\], got \[{p}"):
            optimal_margin(dpo_loss, p)
    with pytest.raises(ValueError, match=r"^probability must be a number"):
        optimal_margin(dpo_loss, "often")
    with pytest.raises(ValueError, match=r"^beta must be"):
        optimal_margin(dpo_loss, 0.5, beta=0.0)
    with pytest.raises(ValueError, match=r"^beta is too small .* got 1e-307"):
        optimal_margin(dpo_loss, 0.5, beta=1e-307)
    assert optimal_margin(dpo_loss, 0.7) == optimal_margin(dpo_loss, 0.7, beta=0.1)
    assert optimal_margin(dpo_loss, torch.full((2, 3), 0.5)).shape == (2, 3)


HALVES = [math.log(0.5)] * 2
NOT_ONE = [math.log(0.5), math.log(0.4)]


@pytest.mark.parametrize(
    ("function", "right", "names"),
    [
        (entropy, [HALVES], ["logps"]),
        (kl_divergence, [HALVES] * 2, ["logps", "other_logps"]),
        (total_variation, [HALVES] * 2, ["logps", "other_logps"]),
        (rlhf_objective, [HALVES, HALVES, [0.0, 1.0], 1.0], ["policy_logps", "reference_logps"]),
        (expected_dpo_loss, [HALVES, HALVES, [0.0, 1.0], 1.0], ["policy_logps", "reference_logps"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_policy_is_named(function, right, names):
    function(*right)
    for i, name in enumerate(names):
        for wrong, what in ((NOT_ONE, "sum to one"), ([-0.1, math.nan], "be finite")):
            with pytest.raises(ValueError, match=f"^{name} must {what}"):
                function(*right[:i], wrong, *right[i + 1 :])


@pytest.mark.parametrize("function", [kl_divergence, total_variation])
def test_policies_of_two_shapes_are_not_broadcast(function):
    with pytest.raises(ValueError, match=r"logps \(2,\), other_logps \(1, 2\)"):
        function(HALVES, [HALVES])
    for function in (rlhf_objective, expected_dpo_loss):
        with pytest.raises(ValueError, match=r"policy_logps \(2,\), .*rewards \(1, 2\)"):
            function(HALVES, HALVES, [[0.0, 1.0]], 1.0)
        with pytest.raises(ValueError, match=r"logps \(2,\), (reference|other)_logps \(1, 2\)"):
            function(HALVES, [HALVES], [0.0, 1.0], 1.0)


def test_one_policy_and_many_in_any_number_of_dimensions_give_the_same():
    reference, rewards = world(4, 4, 3)
    policy = random_policy(1, reference)
    calls = {
        entropy: (policy,),
        kl_divergence: (policy, reference),
        total_variation: (policy, reference),
        lambda *x: rlhf_objective(*x, 0.5): (policy, reference, rewards),
        lambda *x: expected_dpo_loss(*x, 0.5): (policy, reference, rewards),
        lambda *x: log_partition(*x, 0.5): (reference, rewards),
        lambda *x: optimal_policy(*x, 0.5): (reference, rewards),
    }
    for function, arguments in calls.items():
        together = function(*arguments)
        assert torch.equal(
            function(*(x.unflatten(0, (2, 2)) for x in arguments)), together.unflatten(0, (2, 2))
        )
        alone = torch.stack([function(*(x[i] for x in arguments)) for i in range(4)])
        torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-15)


def test_two_responses_make_a_pair():
    loss = expected_dpo_loss(HALVES, HALVES, [0.0, 1.0], 1.0)
    assert loss.item() == pytest.approx(math.log(2))


def test_a_policy_is_fitted_from_one_row_as_from_many():
    target = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)

    def loss(logps):
        return -(target * logps).sum(dim=-1)

    start = torch.full((3,), 1 / 3, dtype=torch.float64).log()
    for shape in ((3,), (2, 3), (1, 2, 3)):
        fitted = fit_policy(loss, start.expand(shape)).exp()
        torch.testing.assert_close(fitted, target.expand(shape), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="start_logps must sum to one"):
        fit_policy(loss, NOT_ONE)
    with pytest.raises(ValueError, match="loss must be finite"):
        fit_policy(lambda logps: logps * torch.nan, start)
