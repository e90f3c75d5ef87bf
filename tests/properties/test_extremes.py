"""Losses, rewards and exact results at extreme numbers, against mpmath with hundreds of digits.

What floating point can give is the exact result of inputs that differ in their last bit: so a value
may be off by some units of ``eps`` times itself, plus what such a change of each input makes of
it. Numbers that the type cannot hold, below its least, count as 0.
"""

import functools

import mpmath
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from dpo_lib import closed_form, evaluation, preference, rewards
from dpo_lib.logprobs import get_token_log_probs
from dpo_lib.losses import LOSSES, unpaired_kto_loss
from tests.losses import facts
from tests.losses.facts import FACTS, call, plain_value
from tests.properties.budget import tried

# 1 - sigmoid(x) can be the least number of its type, and its slope is a difference.
DIGITS = {torch.float32: 140, torch.float64: 420}
UNITS = 24  # in the last place; most results take fewer than 4
SIGMOIDS = ("kto", "apo_zero", "apo_down")
TYPES = (torch.float32, torch.float64)


@pytest.fixture(autouse=True)
def exact(monkeypatch, dtype):
    """The plain formulas of the losses compute with mpmath in place of math."""
    monkeypatch.setattr(facts, "math", mpmath)
    with mpmath.workdps(DIGITS[dtype]):
        yield


def slope(function, values, i):
    """Exact derivative by value number ``i``: of a difference at 1e-30, some 60 digits."""
    step = mpmath.mpf(10) ** -30 * max(1, abs(values[i]))
    up, down = (function(*values[:i], values[i] + d, *values[i + 1 :]) for d in (step, -step))
    return (up - down) / (2 * step)


def assert_near(found, function, values, dtype, level=0.0):
    """``found`` is ``function`` of values that may be off in their last bit.

    ``level`` is the size of terms that cancel in it, whose last bits stay.
    """
    right, info = function(*values), torch.finfo(dtype)
    if abs(right) > info.max / 8:
        return
    moved = sum(abs(values[i] * slope(function, values, i)) for i in range(len(values)))
    room = mpmath.mpf(info.eps) * (abs(right) + moved + level) + 4 * mpmath.mpf(info.tiny)
    off = abs(mpmath.mpf(found) - right) / room
    assert off <= UNITS, f"{found} is {mpmath.nstr(off, 4)} units from {mpmath.nstr(right, 20)}"


edges = st.sampled_from([-1e-30, -1e-7, -0.69, -1.0, -37.0, -700.0, -5e3, -1e4])
logps = edges | st.floats(-1e4, -1e-6) | st.floats(-60, -1e-3)
betas = st.sampled_from([1e-8, 1e-3, 0.1, 0.5, 1.0, 30.0, 1e3]) | st.floats(0.01, 3)
lengths = st.integers(1, 50)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", LOSSES)
@given(st.tuples(logps, logps, logps, logps), betas, lengths, lengths)
@tried(2, parts=2 * len(LOSSES))
def test_each_loss_and_its_gradient(name, dtype, four, beta, lw, ll):
    if name == "dpop":
        assume(four[0] != four[2])  # its penalty has a kink there
    columns = [x.requires_grad_() for x in torch.tensor(four, dtype=dtype).unbind()]
    given = [mpmath.mpf(x) for x in (*(x.item() for x in columns), beta)]
    if name == "orpo":  # beyond, its odds count as certain
        assume(max(given[0] / lw, given[1] / ll) < -2 * torch.finfo(dtype).eps)

    def of(name):
        return lambda *values: mpmath.mpf(
            plain_value(name, values[:4], values[4], lw, ll, **FACTS[name].needs)
        )

    def gradient(i, *values):
        if name != "wpo":
            return slope(of(name), values, i)
        weight = mpmath.exp(values[0] / lw + values[1] / ll)  # counts as fixed
        return weight * slope(of("dpo"), values, i)

    # The derivative of a sigmoid s is computed as s(1 - s), and 1 - s to eps.
    level = beta if name in SIGMOIDS else 0.0
    loss = call(name, columns, beta, lw=lw, ll=ll).losses
    assert_near(loss.item(), of(name), given, dtype)
    for i, found in enumerate(torch.autograd.grad(loss, columns[:2], allow_unused=True)):
        value = 0.0 if found is None else found.item()
        assert_near(value, functools.partial(gradient, i), given, dtype, level)


# --- what the losses are made of -----------------------------------------------------------------


def nll(difference):
    return mpmath.log1p(mpmath.exp(-difference))


margins = st.sampled_from([-1e4, -745.0, -89.0, -40.0, 1e-30, 0.0, 19.9, 20.1, 40.1, 700.0, 1e4])


@pytest.mark.parametrize("dtype", TYPES)
@given(margins | st.floats(-1e4, 1e4), st.floats(-100, 100))
@tried(10, parts=2)
def test_bradley_terry(dtype, margin, score):
    chosen = torch.tensor(margin, dtype=dtype, requires_grad=True)
    rejected = torch.tensor(score, dtype=dtype)
    given = [mpmath.mpf(chosen.item()), mpmath.mpf(rejected.item())]
    loss = preference.preference_nll(chosen, rejected)
    probability = preference.bradley_terry_probability(chosen, rejected).item()
    assert_near(probability, lambda a, b: 1 / (1 + mpmath.exp(b - a)), given, dtype)
    assert_near(loss.item(), lambda a, b: nll(a - b), given, dtype)
    (found,) = torch.autograd.grad(loss, chosen)
    assert_near(found.item(), lambda a, b: -1 / (1 + mpmath.exp(a - b)), given, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@given(logps, logps, betas)
@tried(10, parts=2)
def test_rewards_and_estimates_of_kl(dtype, policy, reference, beta):
    policy, reference = (torch.tensor([x], dtype=dtype) for x in (policy, reference))
    given = [mpmath.mpf(x.item()) for x in (policy, reference)]
    reward = rewards.dpo_reward(policy, reference, beta).item()
    assert_near(reward, lambda p, r, b: b * (p - r), [*given, mpmath.mpf(beta)], dtype)
    k1, k2, k3 = (kind.mean for kind in evaluation.estimate_kl(policy, reference))
    assert_near(k1, lambda p, r: p - r, given, dtype)
    assert_near(k2, lambda p, r: (p - r) ** 2 / 2, given, dtype)
    if policy - reference > -80:  # beyond, float32 has no room
        level = abs(given[0] - given[1])  # of its two terms, which cancel where it is small
        assert_near(k3, lambda p, r: mpmath.expm1(r - p) + p - r, given, dtype, level)


@pytest.mark.parametrize("dtype", TYPES)
@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=5), st.integers(0, 4))
@tried(10, parts=2)
def test_log_probs_of_tokens(dtype, logits, token):
    token = min(token, len(logits) - 1)
    row = torch.tensor(logits, dtype=dtype)
    found = get_token_log_probs(
        lambda tokens: row.expand(1, tokens.shape[1], len(row)),
        torch.tensor([[0]]),
        torch.tensor([[token]]),
    )
    given = [mpmath.mpf(x) for x in row.tolist()]

    def right(*logits):
        return logits[token] - mpmath.log(mpmath.fsum(map(mpmath.exp, logits)))

    assert found.item() <= 0
    assert_near(found.item(), right, given, dtype, max(map(abs, logits)))


@pytest.mark.parametrize("dtype", TYPES)
@given(
    st.lists(st.tuples(st.floats(-9, 0), st.floats(-1e4, 1e4)), min_size=2, max_size=4),
    st.sampled_from([1e-3, 0.1, 1.0, 1e3]),
)
@tried(10, parts=2)
def test_closed_forms(dtype, rows, beta):
    logits, reward = torch.tensor(rows, dtype=dtype).unbind(1)
    reference = logits.log_softmax(dim=-1)
    given = [*(mpmath.mpf(x) for x in (*reference.tolist(), *reward.tolist())), mpmath.mpf(beta)]
    n = len(rows)

    def tilted(values):
        return [values[i] + values[n + i] / values[-1] for i in range(n)]

    def log_z(*values):
        return mpmath.log(mpmath.fsum(map(mpmath.exp, tilted(values))))

    level = max(map(abs, tilted(given)))  # from which they are subtracted
    found = closed_form.log_partition(reference, reward, beta).item()
    assert_near(found, log_z, given, dtype, level)
    best = closed_form.optimal_policy(reference, reward, beta)
    for i in range(n):
        assert_near(
            best[i].item(),
            lambda *values, i=i: tilted(values)[i] - log_z(*values),
            given,
            dtype,
            level,
        )


@pytest.mark.parametrize("dtype", TYPES)
@given(st.tuples(logps, logps), st.booleans(), betas, st.floats(0, 1e4))
@tried(10, parts=2)
def test_the_loss_of_thumbs(dtype, two, up, beta, kl):
    policy, reference = (x.requires_grad_() for x in torch.tensor(two, dtype=dtype).unbind())
    loss = unpaired_kto_loss(policy, reference, torch.tensor(up), beta, kl=kl).losses
    sign = 1 if up else -1

    def right(p, r, b, z):
        return 1 / (1 + mpmath.exp(sign * b * (p - r - z)))

    given = [mpmath.mpf(x) for x in (policy.item(), reference.item(), beta, kl)]
    assert_near(loss.item(), right, given, dtype)
    (found,) = torch.autograd.grad(loss, policy)
    assert_near(found.item(), lambda *v: slope(right, v, 0), given, dtype, beta)
