"""The losses: worked numbers, plain arithmetic, gradients, optima, extremes, properties, errors."""

import functools
import inspect
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dpo_lib import PreferenceLoss, dpo_loss, losses
from dpo_lib.losses import LOSSES, kto_loss, naive_loss, takes_lengths
from tests.helpers import deterministic

NAMES = (
    "policy_chosen_logps",
    "policy_rejected_logps",
    "reference_chosen_logps",
    "reference_rejected_logps",
)
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


# --- the relatives: each against plain arithmetic -------------------------------------------------
#
# Written from the papers in terms of each response's own log-ratio and of log-sum-exp, not of the
# gap h and softplus as in the library, and on Python floats.


def plain_log_add_exp(a, b):
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def plain_sigmoid(x):
    return (1 + math.tanh(x / 2)) / 2


def plain_log_odds(log_p):
    log_rest = math.log(-math.expm1(log_p)) if log_p > -0.6 else math.log1p(-math.exp(log_p))
    return log_p - log_rest


def plain_nll(a, b):
    """Minus the log of e^a / (e^a + e^b)."""
    return plain_log_add_exp(a, b) - a


def plain_dpo(pc, pr, rc, rr, beta):
    return plain_nll(beta * (pc - rc), beta * (pr - rr))


def plain_cdpo(pc, pr, rc, rr, beta, label_smoothing=0.1):
    a, b = beta * (pc - rc), beta * (pr - rr)
    return (1 - label_smoothing) * plain_nll(a, b) + label_smoothing * plain_nll(b, a)


def plain_robust(pc, pr, rc, rr, beta, label_smoothing=0.1):
    a, b = beta * (pc - rc), beta * (pr - rr)
    kept, flipped = 1 - label_smoothing, label_smoothing
    return (kept * plain_nll(a, b) - flipped * plain_nll(b, a)) / (kept - flipped)


def plain_ipo(pc, pr, rc, rr, beta):
    return ((2 * beta * (pc - rc) - 2 * beta * (pr - rr) - 1) / (2 * beta)) ** 2


def plain_hinge(pc, pr, rc, rr, beta):
    a, b = beta * (pc - rc), beta * (pr - rr)
    return 1 + b - a if a < 1 + b else 0.0


def plain_r_dpo(pc, pr, rc, rr, beta, lw, ll, alpha=0.01):
    return plain_nll(beta * (pc - rc) + alpha * lw, beta * (pr - rr) + alpha * ll)


def plain_length_normalized(pc, pr, rc, rr, beta, lw, ll):
    return plain_nll(beta * (pc / lw - rc / lw), beta * (pr / ll - rr / ll))


def plain_simpo(pc, pr, rc, rr, beta, lw, ll, gamma=1.0):
    return plain_nll(beta * pc / lw - gamma, beta * pr / ll)


def plain_orpo(pc, pr, rc, rr, beta, lw, ll):
    return -pc / lw + beta * plain_nll(plain_log_odds(pc / lw), plain_log_odds(pr / ll))


def plain_kto(pc, pr, rc, rr, beta, kl, desirable_weight=1.0, undesirable_weight=1.0):
    good = desirable_weight * (1 - plain_sigmoid(beta * (pc - rc - kl)))
    bad = undesirable_weight * (1 - plain_sigmoid(beta * (kl - (pr - rr))))
    return 0.5 * good + 0.5 * bad


def plain_dpop(pc, pr, rc, rr, beta, penalty=50.0):
    lost = rc - pc if pc < rc else 0.0
    return plain_nll(beta * (pc - rc), beta * (pr - rr + penalty * lost))


def plain_rpo(pc, pr, rc, rr, beta, lw, ll, alpha=1.0):
    return plain_dpo(pc, pr, rc, rr, beta) - alpha * pc / lw


def plain_reference_free(pc, pr, rc, rr, beta):
    return plain_nll(beta * pc, beta * pr)


PLAIN = {name: globals()[f"plain_{name}"] for name in LOSSES}
OPTIONS = {  # the options of each loss, other than its lengths, with values to try
    "dpo": {},
    "cdpo": {"label_smoothing": st.floats(0, 0.49)},
    "robust": {"label_smoothing": st.floats(0, 0.45)},
    "ipo": {},
    "hinge": {},
    "r_dpo": {"alpha": st.floats(0, 2)},
    "length_normalized": {},
    "simpo": {"gamma": st.floats(0, 5)},
    "orpo": {},
    "kto": {
        "kl": st.floats(0, 20),
        "desirable_weight": st.floats(0.1, 5),
        "undesirable_weight": st.floats(0.1, 5),
    },
    "dpop": {"penalty": st.floats(0, 100)},
    "rpo": {"alpha": st.floats(0, 5)},
    "reference_free": {},
}
wide_logps = st.floats(-60, -1e-6) | st.floats(-1e4, -1e-6)
tokens = st.integers(1, 50)
every_loss = pytest.mark.parametrize("name", LOSSES)


def lengths_for(name, lw, ll):
    """The lengths as keywords, if the loss takes them."""
    return {"chosen_lengths": lw, "rejected_lengths": ll} if takes_lengths(LOSSES[name]) else {}


def options_at_default(name):
    """What the plain formula needs beyond its defaults: KTO's level, which it does not estimate."""
    return {"kl": 0.5} if name == "kto" else {}


def plain_value(name, values, beta, lw, ll, **options):
    lengths = (lw, ll) if takes_lengths(LOSSES[name]) else ()
    return PLAIN[name](*values, beta, *lengths, **options)


@every_loss
@given(st.data())
@deterministic
def test_each_loss_equals_plain_arithmetic(name, data):
    values = data.draw(st.tuples(*[wide_logps] * 4))
    beta, lw, ll = data.draw(betas), data.draw(tokens), data.draw(tokens)
    options = {key: data.draw(values) for key, values in OPTIONS[name].items()}
    result = LOSSES[name](*values, beta, **lengths_for(name, lw, ll), **options).losses
    expected = plain_value(name, values, beta, lw, ll, **options)
    assert result.item() == pytest.approx(expected, rel=1e-10, abs=1e-8)


@every_loss
def test_defaults_are_those_of_the_plain_formula(name):
    """So a default that changes unseen fails here."""
    betas = {"length_normalized": 5.0, "simpo": 2.0, "dpop": 0.3, "reference_free": 1.0}
    values, beta = (-11.0, -15.5, -10.0, -14.0), betas.get(name, 0.1)
    options = options_at_default(name)
    result = LOSSES[name](*values, **lengths_for(name, 3, 7), **options).losses.item()
    assert result == pytest.approx(plain_value(name, values, beta, 3, 7, **options), rel=1e-12)


@every_loss
@given(st.tuples(*[wide_logps] * 4), betas, tokens, tokens)
@deterministic
def test_rewards_are_what_the_loss_compares(name, values, beta, lw, ll):
    pc, pr, rc, rr = values
    result = LOSSES[name](*values, beta, **lengths_for(name, lw, ll))
    flat = name in ("simpo", "orpo", "reference_free")
    scale_w, scale_l = (lw, ll) if name in ("simpo", "orpo", "length_normalized") else (1, 1)
    expected = (
        beta * (pc - (0 if flat else rc)) / scale_w,
        beta * (pr - (0 if flat else rr)) / scale_l,
    )
    assert result.chosen_rewards.item() == pytest.approx(expected[0], rel=1e-10, abs=1e-12)
    assert result.rejected_rewards.item() == pytest.approx(expected[1], rel=1e-10, abs=1e-12)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_each_loss_is_unreduced_typed_and_detached(name, dtype, shape):
    generator = torch.Generator().manual_seed(1)
    inputs = [-1 - 9 * torch.rand(shape, dtype=dtype, generator=generator) for _ in range(4)]
    inputs = [x.requires_grad_() for x in inputs]
    lengths = torch.full(shape, 3), torch.full(shape, 5)
    result = LOSSES[name](*inputs, 0.5, **lengths_for(name, *lengths))
    assert isinstance(result, PreferenceLoss)
    assert all(x.shape == shape and x.dtype == dtype for x in result)
    assert [x.requires_grad for x in result] == [True, False, False]
    options = {"kl": kto_level(*inputs).item()} if name == "kto" else {}
    expected = [
        plain_value(name, values, 0.5, 3, 5, **options)
        for values in zip(*(x.flatten().tolist() for x in inputs), strict=True)
    ]
    assert_close(result.losses.flatten(), torch.tensor(expected, dtype=dtype))


@every_loss
def test_gradients_are_the_slopes_of_the_plain_formula(name):
    generator = torch.Generator().manual_seed(0)
    shape = (12,)
    inputs = [
        -9 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1 for _ in range(4)
    ]
    inputs = [x.requires_grad_() for x in inputs]
    lengths = torch.randint(1, 9, (2, 12), generator=generator)
    beta, options, step = 0.4, options_at_default(name), 1e-6
    LOSSES[name](*inputs, beta, **lengths_for(name, *lengths), **options).losses.sum().backward()
    for row, which in itertools.product(range(12), range(4)):
        ends = []
        for direction in (step, -step):
            moved = [x[row].item() for x in inputs]
            moved[which] += direction
            ends.append(plain_value(name, moved, beta, *lengths[:, row].tolist(), **options))
        gradient = 0.0 if inputs[which].grad is None else inputs[which].grad[row].item()
        assert gradient == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7)


# --- the relatives: extremes ---------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [1e-8, 0.1, 1.0])
@pytest.mark.parametrize("length", [1, 4096])
def test_extremes_give_finite_losses_and_gradients(name, dtype, beta, length):
    """Certain, nearly certain and hopeless responses, in every combination of the four."""
    corners = (0.0, -1e-30, -1e-7, -0.69, -1e4)
    columns = torch.tensor(list(itertools.product(corners, repeat=4)), dtype=dtype).unbind(1)
    columns = [x.clone().requires_grad_() for x in columns]
    lengths = torch.full((len(corners) ** 4,), length)
    result = LOSSES[name](*columns, beta, **lengths_for(name, lengths, lengths))
    assert all(x.isfinite().all() for x in result)
    result.losses.sum().backward()
    for x in columns[:2]:
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float32_keeps_its_digits_where_sigmoids_and_odds_round(dtype):
    """A relative error at the ends, where a formula that is right on paper gives 0 or 1."""
    relative = 1e-5 if dtype == torch.float32 else 1e-12
    reference = torch.tensor(-50.0, dtype=dtype)
    chosen = torch.tensor(-10.0, dtype=dtype)  # 40 nats above its reference
    kto = kto_loss(chosen, reference - 40, reference, reference, 1.0, kl=0.0).losses
    assert kto.item() == pytest.approx(math.exp(-40), rel=10 * relative, abs=0)
    tiny = torch.tensor(-1e-6, dtype=dtype)  # a chosen response of probability 1 - 1e-6
    half = torch.tensor(-math.log(2), dtype=dtype)
    odds = LOSSES["orpo"](tiny, half, tiny, half, 1.0, chosen_lengths=1, rejected_lengths=1)
    # log o_w is log(1e6), log o_l is 0
    assert (odds.losses + tiny).item() == pytest.approx(1e-6, rel=1e-5 + relative)
    never = torch.tensor(-1e4, dtype=dtype)
    odds = LOSSES["orpo"](never, half, never, half, 1.0, chosen_lengths=1, rejected_lengths=1)
    assert odds.losses.item() == pytest.approx(2e4, rel=relative)


def test_a_response_that_is_certain_has_finite_odds():
    certain = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    other = torch.tensor([-1.0, -1.0], dtype=torch.float64, requires_grad=True)
    ones = torch.ones(2)
    orpo = functools.partial(LOSSES["orpo"], chosen_lengths=ones, rejected_lengths=ones)
    wins = orpo(certain, other, other, other, 1.0).losses
    loses = orpo(other, certain, other, other, 1.0).losses
    assert (wins < 1e-14).all()
    assert ((loses > 36) & (loses < 39)).all()  # the log of one over the machine epsilon, plus 1


# --- the relatives: where they stop --------------------------------------------------------------

LOG_ODDS = {p: math.log(p / (1 - p)) for p in (0.6, 0.75, 0.9)}


def slope_at(loss, h, p, **options):
    """Slope in h of the expected loss, if a share p of the labels prefer the first response."""
    gap = torch.tensor(h, dtype=torch.float64, requires_grad=True)
    first, second, reference = (
        gap - 700,
        torch.tensor(-700.0).double(),
        torch.tensor(-700.0).double(),
    )
    both = [options.pop(key, None) for key in ("first_length", "second_length")]
    ways = []
    for chosen, rejected, lengths in ((first, second, both), (second, first, both[::-1])):
        named = dict(zip(("chosen_lengths", "rejected_lengths"), lengths, strict=True))
        named = named if takes_lengths(loss) else {}
        ways.append(loss(chosen, rejected, reference, reference, **named, **options).losses)
    (p * ways[0] + (1 - p) * ways[1]).backward()
    return gap.grad.item()


def assert_stops_at(loss, h, p, **options):
    assert abs(slope_at(loss, h, p, **options)) < 1e-12
    assert slope_at(loss, h - 0.01, p, **options) < 0 < slope_at(loss, h + 0.01, p, **options)


@pytest.mark.parametrize("p", LOG_ODDS)
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_optimal_gap_by_loss_and_label_probability(p, beta):
    epsilon = 0.2
    smoothed = (1 - epsilon) * p + epsilon * (1 - p)
    assert_stops_at(LOSSES["dpo"], LOG_ODDS[p] / beta, p, beta=beta)
    assert_stops_at(LOSSES["reference_free"], LOG_ODDS[p] / beta, p, beta=beta)
    cdpo = math.log(smoothed / (1 - smoothed)) / beta
    assert_stops_at(LOSSES["cdpo"], cdpo, p, beta=beta, label_smoothing=epsilon)
    # flips turn the share p of the clean labels into the share `smoothed` that is seen
    robust = functools.partial(LOSSES["robust"], label_smoothing=epsilon)
    assert_stops_at(robust, LOG_ODDS[p] / beta, smoothed, beta=beta)
    assert_stops_at(LOSSES["ipo"], (2 * p - 1) / (2 * beta), p, beta=beta)
    priced = functools.partial(LOSSES["r_dpo"], alpha=0.05)
    lengths = {"first_length": 12, "second_length": 4}
    assert_stops_at(priced, (LOG_ODDS[p] - 0.05 * 8) / beta, p, beta=beta, **lengths)
    means = LOSSES["length_normalized"]  # the first response has 2 tokens, and all of the gap
    lengths = {"first_length": 2, "second_length": 4}
    assert_stops_at(means, 2 * LOG_ODDS[p] / beta, p, beta=beta, **lengths)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_hinge_turns_at_one_over_beta(beta):
    for p in (0.6, 0.9):
        assert slope_at(LOSSES["hinge"], 1 / beta - 0.01, p, beta=beta) < 0
        assert slope_at(LOSSES["hinge"], 1 / beta + 0.01, p, beta=beta) > 0
    assert slope_at(LOSSES["hinge"], 1 / beta - 0.01, 1.0, beta=beta) < 0
    assert slope_at(LOSSES["hinge"], 1 / beta + 0.01, 1.0, beta=beta) == 0


def test_a_pair_that_is_always_labelled_alike():
    for gap in (1.0, 10.0, 30.0):  # no end to the way for these two
        assert slope_at(LOSSES["dpo"], gap, 1.0, beta=1.0) < 0
        assert slope_at(LOSSES["robust"], gap, 1.0, beta=1.0) < -0.1 / 0.8
    assert_stops_at(LOSSES["ipo"], 5.0, 1.0, beta=0.1)
    assert_stops_at(LOSSES["cdpo"], math.log(9) / 0.5, 1.0, beta=0.5)


def test_kto_has_no_optimum_between_its_ends():
    """The expected loss of a response is monotone in its log-ratio, whatever the label's share."""
    for p, sign in ((0.6, -1), (0.4, 1)):
        for gap in (-30.0, -1.0, 0.0, 1.0, 30.0):
            assert sign * slope_at(functools.partial(kto_loss, kl=0.0), gap, p, beta=0.3) > 0


@given(four, betas, st.floats(0, 0.45))
@deterministic
def test_the_robust_loss_is_the_clean_loss_on_average(values, beta, epsilon):
    pc, pr, rc, rr = values
    robust = functools.partial(LOSSES["robust"], beta=beta, label_smoothing=epsilon)
    mean = (1 - epsilon) * robust(pc, pr, rc, rr).losses + epsilon * robust(pr, pc, rr, rc).losses
    assert_close(mean, dpo_loss(*values, beta=beta).losses, atol=1e-10, rtol=1e-10)


# --- the relatives: how they are related ----------------------------------------------------------

IGNORE_REFERENCE = {"simpo", "orpo", "reference_free"}
SEE_ONLY_THE_GAP = {"dpo", "cdpo", "robust", "ipo", "hinge", "r_dpo"}


@every_loss
@given(four, st.floats(0.01, 9))
@deterministic
def test_which_losses_see_a_shift_of_both_references(name, values, shift):
    chosen, rejected, *reference = values
    lengths = lengths_for(name, 2, 5)

    def with_references(*reference):
        return LOSSES[name](chosen, rejected, *reference, 0.01, **lengths).losses

    change = (with_references(*(x - shift for x in reference)) - with_references(*reference)).abs()
    if name in IGNORE_REFERENCE:
        assert change == 0
    elif name in SEE_ONLY_THE_GAP or name == "rpo":
        assert change < 1e-9
    elif name == "length_normalized":  # lengths differ: the shift is spread over 2 and 5 tokens
        assert change > 0


def test_kto_and_dpop_see_the_level_of_the_reference():
    values, shifted = (-9.0, -12.0, -8.0, -9.5), (-9.0, -12.0, -5.0, -6.5)
    for name in ("kto", "dpop"):
        assert LOSSES[name](*values).losses != LOSSES[name](*shifted).losses


@pytest.mark.parametrize("name", sorted({*SEE_ONLY_THE_GAP, "reference_free"}))
@given(four, betas, st.floats(0, 9))
@deterministic
def test_displacement_is_invisible_to_losses_on_the_gap(name, values, beta, fall):
    chosen, rejected, *reference = values
    loss = functools.partial(LOSSES[name], beta=beta, **lengths_for(name, 3, 3))
    fallen = loss(chosen - fall, rejected - fall, *reference).losses
    assert_close(fallen, loss(*values).losses, atol=1e-8, rtol=1e-8)


@given(four, betas, tokens, tokens)
@deterministic
def test_limits_that_give_dpo_back(values, beta, lw, ll):
    lengths = {"chosen_lengths": lw, "rejected_lengths": ll}
    dpo = dpo_loss(*values, beta=beta)
    same = [
        LOSSES["cdpo"](*values, beta, label_smoothing=0.0),
        LOSSES["robust"](*values, beta, label_smoothing=0.0),
        LOSSES["r_dpo"](*values, beta, alpha=0.0, **lengths),
        LOSSES["r_dpo"](*values, beta, alpha=0.3, chosen_lengths=lw, rejected_lengths=lw),
        LOSSES["length_normalized"](*values, beta, chosen_lengths=1, rejected_lengths=1),
        LOSSES["dpop"](*values, beta, penalty=0.0),
        LOSSES["rpo"](*values, beta, alpha=0.0, **lengths),
    ]
    if values[0] >= values[2]:
        same.append(LOSSES["dpop"](*values, beta))
    for other in same:
        for ours, theirs in zip(other, dpo, strict=True):
            assert_close(ours, theirs, atol=1e-11, rtol=1e-11)


@given(four, betas, tokens, tokens)
@deterministic
def test_simpo_without_margin_is_length_normalized_dpo_without_reference(values, beta, lw, ll):
    lengths = {"chosen_lengths": lw, "rejected_lengths": ll}
    simpo = LOSSES["simpo"](*values, beta, gamma=0.0, **lengths)
    flat = LOSSES["length_normalized"](*values[:2], 0.0, 0.0, beta, **lengths)
    for ours, theirs in zip(simpo, flat, strict=True):
        assert_close(ours, theirs, atol=1e-11, rtol=1e-11)


def test_a_longer_winner_owes_part_of_its_win_to_its_length():
    values = (-10.0, -12.0, -11.0, -11.5)
    longer = LOSSES["r_dpo"](*values, alpha=0.1, chosen_lengths=20, rejected_lengths=5).losses
    shorter = LOSSES["r_dpo"](*values, alpha=0.1, chosen_lengths=5, rejected_lengths=20).losses
    assert longer < dpo_loss(*values).losses < shorter


# --- KTO's reference point -----------------------------------------------------------------------


def kto_level(pc, pr, rc, rr):
    return torch.cat([(pc - rc).reshape(-1), (pr - rr).reshape(-1)]).mean().clamp(min=0)


def random_four(n, lift=0.0):
    generator = torch.Generator().manual_seed(3)
    columns = [-20 - 5 * torch.rand(n, dtype=torch.float64, generator=generator) for _ in range(4)]
    return [columns[0] + lift, columns[1] + lift, *columns[2:]]


@pytest.mark.parametrize(("lift", "positive"), [(4.0, True), (-9.0, False)])
def test_the_level_is_the_mean_log_ratio_of_the_batch_or_zero(lift, positive):
    columns = random_four(6, lift)
    level = kto_level(*columns).item()
    assert (level > 1) == positive
    expected = [
        plain_kto(*row, 0.1, level) for row in zip(*(x.tolist() for x in columns), strict=True)
    ]
    assert_close(kto_loss(*columns).losses, torch.tensor(expected, dtype=torch.float64))
    assert_close(kto_loss(*columns, kl=level).losses, kto_loss(*columns).losses)


def test_no_gradient_flows_through_the_level():
    columns = [x.requires_grad_() for x in random_four(6, lift=4.0)]
    kto_loss(*columns).losses.sum().backward()
    estimated = [x.grad.clone() for x in columns]
    level = kto_level(*columns)
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


# --- the mapping ---------------------------------------------------------------------------------


def test_every_public_loss_is_in_the_mapping_once():
    functions = [
        function
        for name, function in inspect.getmembers(losses, inspect.isfunction)
        if name.endswith("_loss") and not name.startswith("_")
    ]
    assert sorted(f.__name__ for f in functions) == sorted(f.__name__ for f in LOSSES.values())
    assert set(functions) == set(LOSSES.values())


@every_loss
def test_one_form(name):
    parameters = list(inspect.signature(LOSSES[name]).parameters.values())
    assert tuple(p.name for p in parameters[:5]) == (*NAMES, "beta")
    if name != "dpo":  # its label_smoothing may stand sixth
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters[5:])
    own = {p.name for p in parameters[5:]} - {"chosen_lengths", "rejected_lengths"}
    assert own == set(OPTIONS[name]) | ({"label_smoothing"} if name == "dpo" else set())
    assert "arXiv:" in LOSSES[name].__doc__ or name in ("cdpo", "reference_free")


def test_takes_lengths():
    taking = {name for name, loss in LOSSES.items() if takes_lengths(loss)}
    assert taking == {"r_dpo", "length_normalized", "simpo", "orpo", "rpo"}
    assert takes_lengths(functools.partial(LOSSES["simpo"], gamma=0.5))
    assert not takes_lengths(functools.partial(LOSSES["dpop"], penalty=5.0))


# --- errors --------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("argument", NAMES)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, ["nan"]),
        (-math.inf, ["-inf"]),
        (0.5, ["at most 0", "0.5"]),
        (torch.tensor([-1.0, 3.0]), ["at most 0", "3"]),
        (torch.tensor([-1.0, -2.0]), ["shapes must agree", "(2,)", "()"]),
        (None, ["None"]),
        ("minus one", ["minus one"]),
    ],
)
def test_each_bad_log_probability_is_named(name, argument, value, words):
    arguments = dict.fromkeys(NAMES, -1.0)
    arguments[argument] = value
    with pytest.raises(ValueError, match=argument) as error:
        LOSSES[name](**arguments, **lengths_for(name, 2, 2))
    for word in words:
        assert word in str(error.value)


@every_loss
@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf, "0.1", None])
def test_a_bad_beta_is_named(name, value):
    with pytest.raises(ValueError, match="beta") as error:
        LOSSES[name](-1, -1, -1, -1, beta=value, **lengths_for(name, 2, 2))
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("name", ["dpo", "cdpo", "robust"])
@pytest.mark.parametrize("value", [-0.01, 0.5, 1.0, math.nan, "0.1", None])
def test_a_bad_label_smoothing_is_named(name, value):
    with pytest.raises(ValueError, match="label_smoothing") as error:
        LOSSES[name](-1, -1, -1, -1, label_smoothing=value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("name", [name for name in LOSSES if takes_lengths(LOSSES[name])])
@pytest.mark.parametrize("argument", ["chosen_lengths", "rejected_lengths"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.tensor([3, 0]), ["whole numbers of tokens, at least 1", "0"]),
        (torch.tensor([-2, 4]), ["-2"]),
        (torch.tensor([2.0, 2.5]), ["2.5"]),
        (torch.tensor([2.0, math.inf]), ["inf"]),
        (torch.tensor([2.0, math.nan]), ["nan"]),
        (torch.tensor([2]), ["shapes must agree", "(1,)", "(2,)"]),
        (2, ["shapes must agree", "()", "(2,)"]),
        (None, ["None"]),
    ],
)
def test_each_bad_length_is_named(name, argument, value, words):
    logps = [torch.tensor([-1.0, -2.0])] * 4
    lengths = {"chosen_lengths": torch.tensor([2, 3]), "rejected_lengths": torch.tensor([4, 1])}
    with pytest.raises(ValueError, match=argument) as error:
        LOSSES[name](*logps, **{**lengths, argument: value})
    for word in words:
        assert word in str(error.value)


def test_lengths_may_be_single_numbers_but_not_left_out():
    one = LOSSES["simpo"](-4.0, -9.0, 0.0, 0.0, chosen_lengths=2, rejected_lengths=3)
    assert one.chosen_rewards.item() == -4.0
    with pytest.raises(TypeError, match="chosen_lengths"):
        LOSSES["simpo"](-4.0, -9.0, 0.0, 0.0)
    bad = {"chosen_lengths": 0, "rejected_lengths": 3}
    with pytest.raises(ValueError, match=r"chosen_lengths must be whole .* got \[0.0\]"):
        LOSSES["simpo"](-4.0, -9.0, 0.0, 0.0, **bad)


@pytest.mark.parametrize(
    ("name", "option"),
    [("r_dpo", "alpha"), ("simpo", "gamma"), ("dpop", "penalty"), ("rpo", "alpha")],
)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.1", None, [1.0, 2.0]])
def test_a_bad_weight_is_named(name, option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        LOSSES[name](-1, -1, -1, -1, **{option: value}, **lengths_for(name, 2, 2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kl": -0.5}, "kl must be at least 0, got -0.5"),
        ({"kl": math.nan}, "kl must be finite"),
        ({"kl": "much"}, "kl must be a number"),
        ({"kl": torch.zeros(3)}, r"shapes must agree.* kl \(3,\)"),
        ({"desirable_weight": 0.0}, "desirable_weight must be .* above 0, got 0.0"),
        ({"undesirable_weight": -1}, "undesirable_weight must be .* above 0, got -1"),
    ],
)
def test_bad_options_of_kto_are_named(options, words):
    logps = [torch.tensor([-1.0, -2.0])] * 4
    with pytest.raises(ValueError, match=words):
        kto_loss(*logps, **options)
