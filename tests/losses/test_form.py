"""What the form gives to every loss: declarations that are seen, names, sums of losses."""

import copy
import functools
import inspect
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dpo_lib.losses import (
    LOSSES,
    bco_loss,
    coupled,
    dpo_loss,
    ipo_loss,
    kto_loss,
    looks_across_pairs,
    loss_name,
    mpo_loss,
    naive_loss,
    rpo_loss,
    sft_loss,
    simpo_loss,
    takes_lengths,
    uses_reference,
    weighted_sum,
)
from dpo_lib.losses.form import (
    FOUR,
    on_both,
    on_log_ratios,
    on_mean_log_probs,
    on_mean_log_ratios,
)
from tests.helpers import deterministic

four = st.tuples(*[st.floats(-60, -10)] * 4)
LENGTHS = {"chosen_lengths": 3, "rejected_lengths": 5}


class Stateful:
    """A loss with a state, which declares that it looks across pairs."""

    looks_across_pairs = True

    def __call__(self, *logps, beta=0.1):
        return dpo_loss(*logps, beta)


def test_coupling_is_declared_and_seen_through_options():
    assert looks_across_pairs(kto_loss)
    assert looks_across_pairs(functools.partial(functools.partial(kto_loss, kl=0.0), beta=1.0))
    assert looks_across_pairs(Stateful())
    assert not looks_across_pairs(functools.partial(dpo_loss, beta=1.0))
    assert not looks_across_pairs(lambda *logps: None)

    @coupled
    def mine(*logps):
        return None

    assert looks_across_pairs(mine)


def test_declarations_are_seen_through_options():
    assert takes_lengths(functools.partial(simpo_loss, gamma=0.5))
    assert not takes_lengths(functools.partial(LOSSES["dpop"], penalty=5.0))
    assert not uses_reference(functools.partial(naive_loss, beta=0.5))


def test_names():
    assert loss_name(simpo_loss) == "simpo_loss"
    assert loss_name(functools.partial(simpo_loss, gamma=0.5)) == "simpo_loss(gamma=0.5)"
    assert (
        loss_name(functools.partial(simpo_loss, -1.0, gamma=0.5)) == "simpo_loss(-1.0, gamma=0.5)"
    )
    assert loss_name(Stateful()) == "Stateful"


def test_a_loss_can_be_copied_and_pickled_and_shows_its_formula():
    assert pickle.loads(pickle.dumps(ipo_loss)) is ipo_loss
    assert copy.deepcopy(ipo_loss) is ipo_loss
    assert "chosen - rejected - 1 / (2 * beta)" in inspect.getsource(ipo_loss)


# --- from a formula to a loss --------------------------------------------------------------------

# Policy, then reference: log-ratios of 4 and -1 nats, over lengths of 2 and 5 tokens.
VALUES, SIZES = (-6.0, -9.0, -10.0, -8.0), {"chosen_lengths": 2, "rejected_lengths": 5}


def of_two(chosen, rejected, beta=0.5, *, gain=2.0, offset=0.0):
    """What it is."""
    return torch.stack([chosen, rejected, offset * beta * gain])


def of_four(chosen, rejected, chosen_mean, rejected_mean, beta=0.5):
    """What it is."""
    return torch.stack([chosen, rejected, chosen_mean, rejected_mean])


@pytest.mark.parametrize(
    ("made_by", "formula", "compared", "sizes"),
    [
        (on_log_ratios, of_two, [4.0, -1.0], {}),
        (on_mean_log_ratios, of_two, [2.0, -0.2], SIZES),
        (on_mean_log_probs, of_two, [-3.0, -1.8], SIZES),
        (on_both, of_four, [4.0, -1.0, -3.0, -1.8], SIZES),
    ],
)
def test_a_formula_is_given_what_it_compares_and_rewards_follow(made_by, formula, compared, sizes):
    loss = made_by(formula)
    four = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in VALUES]
    given = loss(*four, **sizes)
    assert given.losses[: len(compared)].tolist() == pytest.approx(compared)
    assert given.chosen_rewards.item() == pytest.approx(0.5 * compared[0])
    assert given.rejected_rewards.item() == pytest.approx(0.5 * compared[1])
    assert [x.requires_grad for x in given] == [True, False, False]
    other = loss(**dict(zip(FOUR, four, strict=True)), beta=3.0, **sizes)
    assert other.rejected_rewards.item() == pytest.approx(3 * compared[1])
    assert (takes_lengths(loss), uses_reference(loss)) == (
        bool(sizes),
        made_by is not on_mean_log_probs,
    )


def test_a_loss_shows_the_public_form_and_what_its_formula_says():
    loss = on_mean_log_ratios(of_two)
    assert (loss.__name__, loss.__doc__) == ("of_two", "What it is.")
    assert str(inspect.signature(loss)) == (
        "(policy_chosen_logps: 'LogProbs', policy_rejected_logps: 'LogProbs', "
        "reference_chosen_logps: 'LogProbs', reference_rejected_logps: 'LogProbs', beta=0.5, *, "
        "gain=2.0, offset=0.0, chosen_lengths: 'Lengths', rejected_lengths: 'Lengths')"
        " -> 'PreferenceLoss'"
    )


def test_options_reach_the_formula_checked_by_their_names():
    loss = on_log_ratios(of_two)
    assert loss(*VALUES, offset=7).losses[2] == 7 * 0.5 * 2.0  # the formula's defaults
    assert loss(*VALUES, 3.0, gain=1, offset=7).losses[2] == 21
    each = [torch.tensor([x, x], dtype=torch.float64) for x in VALUES]
    offsets = torch.tensor([1.0, -7.0], requires_grad=True)
    result = loss(*each, offset=offsets).losses
    assert (result[2].tolist(), result.dtype) == ([1.0, -7.0], torch.float64)
    assert not result.requires_grad  # an offset is data
    for options, words in (
        ({"beta": 0}, "beta must be"),
        ({"gain": -1}, "gain must be a number, at least 0, got -1"),
        ({"offset": math.nan}, "offset must be finite"),
        ({"offset": torch.zeros(3)}, r"policy_chosen_logps \(\), offset \(3,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            loss(*VALUES, **options)
    with pytest.raises(TypeError, match="gian"):
        loss(*VALUES, gian=1)


# --- weighted sums -------------------------------------------------------------------------------


def test_a_sum_s_beta_is_by_default_that_of_its_first_term():
    def default(loss):
        return inspect.signature(loss).parameters["beta"].default

    assert default(dpo_loss) != default(simpo_loss)
    assert default(weighted_sum((dpo_loss, 1), (simpo_loss, 1))) == default(dpo_loss)
    assert default(weighted_sum((simpo_loss, 1), (dpo_loss, 1))) == default(simpo_loss)


@given(four, st.floats(0.01, 3), st.floats(0, 5))
@deterministic
def test_rpo_and_mpo_are_weighted_sums(values, beta, alpha):
    sums = {
        functools.partial(rpo_loss, alpha=alpha): [(dpo_loss, 1.0), (sft_loss, alpha)],
        mpo_loss: [(dpo_loss, 0.8), (bco_loss, 0.2), (sft_loss, 1.0)],
    }
    for named, terms in sums.items():
        ours = weighted_sum(*terms)(*values, beta, **LENGTHS)
        for mine, theirs in zip(ours, named(*values, beta, **LENGTHS), strict=True):
            assert_close(mine, theirs, atol=1e-11, rtol=1e-11)


def test_a_sum_is_a_loss_like_the_others():
    plain = weighted_sum((functools.partial(dpo_loss, label_smoothing=0.1), 1), (ipo_loss, 0.25))
    assert loss_name(plain) == "1 * dpo_loss(label_smoothing=0.1) + 0.25 * ipo_loss"
    assert (takes_lengths(plain), looks_across_pairs(plain), uses_reference(plain)) == (0, 0, 1)
    assert plain(-1, -2, -3, -4) == plain(-1, -2, -3, -4, 0.1)  # the first term's beta
    mixed = weighted_sum((naive_loss, 1), (kto_loss, 1), (sft_loss, 1))
    assert (takes_lengths(mixed), looks_across_pairs(mixed), uses_reference(mixed)) == (1, 1, 1)
    assert inspect.signature(mixed).parameters["beta"].default == 1.0
    assert not uses_reference(weighted_sum((naive_loss, 1), (sft_loss, 1)))
    nested = weighted_sum((plain, 2.0))
    assert nested(-1, -2, -3, -4).losses == 2 * plain(-1, -2, -3, -4).losses


def test_gradients_flow_through_every_term_of_a_sum():
    x = torch.tensor([-3.0, -4.0], dtype=torch.float64, requires_grad=True)
    total = weighted_sum((dpo_loss, 0.5), (ipo_loss, 2.0))(x, x.detach(), x.detach() - 1, -x / -1)
    total.losses.sum().backward()
    assert (x.grad != 0).all()


def test_bad_sums_are_refused():
    with pytest.raises(ValueError, match=r"^terms must be at least one"):
        weighted_sum()
    with pytest.raises(ValueError, match="weight must be a number, at least 0, got -1"):
        weighted_sum((dpo_loss, -1))
    with pytest.raises(TypeError, match="chosen_lengths"):
        weighted_sum((dpo_loss, 1), (sft_loss, 1))(-1, -2, -3, -4)
