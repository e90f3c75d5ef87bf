"""What the form gives to every loss: declarations that are seen, names, sums of losses."""

import copy
import functools
import inspect
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
    assert loss_name(Stateful()) == "Stateful"


def test_a_loss_can_be_copied_and_pickled_and_shows_its_formula():
    assert pickle.loads(pickle.dumps(ipo_loss)) is ipo_loss
    assert copy.deepcopy(ipo_loss) is ipo_loss
    assert "chosen - rejected - 1 / (2 * beta)" in inspect.getsource(ipo_loss)


# --- weighted sums -------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="terms must be at least one"):
        weighted_sum()
    with pytest.raises(ValueError, match="weight must be a number, at least 0, got -1"):
        weighted_sum((dpo_loss, -1))
    with pytest.raises(TypeError, match="chosen_lengths"):
        weighted_sum((dpo_loss, 1), (sft_loss, 1))(-1, -2, -3, -4)
