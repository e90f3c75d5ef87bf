"""All losses, by the facts of each: arithmetic, gradients, extremes, optima, form, errors."""

import functools
import inspect
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dpo_lib import PreferenceLoss, losses
from dpo_lib.losses import (
    ALIASES,
    LOSSES,
    as_loss_function,
    looks_across_pairs,
    takes_lengths,
    uses_reference,
)
from dpo_lib.losses.form import FOUR
from tests.helpers import deterministic
from tests.losses.facts import FACTS, call, lengths_for, logit, plain_value

wide_logps = st.floats(-60, -1e-6) | st.floats(-1e4, -1e-6)
wide_four = st.tuples(*[wide_logps] * 4)
betas = st.floats(0.01, 3)
tokens = st.integers(1, 50)
every_loss = pytest.mark.parametrize("name", LOSSES)
some_losses = functools.partial(pytest.mark.parametrize, "name")
those = lambda fact: [name for name, facts in FACTS.items() if fact(facts)]  # noqa: E731


# --- values --------------------------------------------------------------------------------------


@every_loss
def test_defaults_are_those_of_the_plain_formula(name):
    """So a default that changes unseen fails here."""
    values, needs = (-11.0, -15.5, -10.0, -14.0), FACTS[name].needs
    result = call(name, values, lw=3, ll=7)
    expected = plain_value(name, values, FACTS[name].beta, 3, 7, **needs)
    assert result.losses.item() == pytest.approx(expected, rel=1e-12)
    assert result == call(name, values, FACTS[name].beta, lw=3, ll=7)  # rewards, too


@every_loss
@given(st.data())
@deterministic
def test_each_loss_equals_plain_arithmetic(name, data):
    values = data.draw(wide_four)
    beta, lw, ll = data.draw(betas), data.draw(tokens), data.draw(tokens)
    options = {key: data.draw(drawn) for key, drawn in FACTS[name].options.items()}
    result = LOSSES[name](*values, beta, **lengths_for(name, lw, ll), **options).losses
    expected = plain_value(name, values, beta, lw, ll, **options)
    assert result.item() == pytest.approx(expected, rel=1e-9, abs=1e-8)


@every_loss
@given(wide_four, betas, tokens, tokens)
@deterministic
def test_rewards_are_what_the_loss_compares(name, values, beta, lw, ll):
    pc, pr, rc, rr = values
    facts = FACTS[name]
    result = call(name, values, beta, lw=lw, ll=ll)
    scale_w, scale_l = (lw, ll) if facts.means else (1, 1)
    expected = (
        beta * (pc - (rc if facts.reference else 0)) / scale_w,
        beta * (pr - (rr if facts.reference else 0)) / scale_l,
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
    result = call(name, inputs, 0.5, lw=torch.full(shape, 3), ll=torch.full(shape, 5))
    assert isinstance(result, PreferenceLoss)
    assert all(x.shape == shape and x.dtype == dtype for x in result)
    assert [x.requires_grad for x in result] == [True, False, False]
    expected = [
        plain_value(name, values, 0.5, 3, 5, **FACTS[name].needs)
        for values in zip(*(x.flatten().tolist() for x in inputs), strict=True)
    ]
    assert_close(result.losses.flatten(), torch.tensor(expected, dtype=dtype))


# --- gradients and extremes ----------------------------------------------------------------------


@every_loss
def test_gradients_are_the_slopes_of_the_plain_formula(name):
    generator = torch.Generator().manual_seed(0)
    inputs = [-9 * torch.rand(12, generator=generator, dtype=torch.float64) - 1 for _ in range(4)]
    inputs = [x.requires_grad_() for x in inputs]
    lengths = torch.randint(1, 9, (2, 12), generator=generator)
    # The library treats WPO's weight, which the formula moves, as fixed.
    weight = torch.exp(inputs[0] / lengths[0] + inputs[1] / lengths[1]).tolist()
    of = "dpo" if name == "wpo" else name
    beta, step = 0.4, 1e-6
    call(name, inputs, beta, lw=lengths[0], ll=lengths[1]).losses.sum().backward()
    for row, which in itertools.product(range(12), range(4)):
        ends = []
        for direction in (step, -step):
            moved = [x[row].item() for x in inputs]
            moved[which] += direction
            sizes = lengths[:, row].tolist()
            ends.append(plain_value(of, moved, beta, *sizes, **FACTS[name].needs))
        slope = (ends[0] - ends[1]) / (2 * step) * (weight[row] if name == "wpo" else 1)
        gradient = 0.0 if inputs[which].grad is None else inputs[which].grad[row].item()
        assert gradient == pytest.approx(slope, rel=1e-5, abs=1e-7)


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
    result = call(name, columns, beta, lw=lengths, ll=lengths)
    assert all(x.isfinite().all() for x in result)
    result.losses.sum().backward()
    for x in columns[:2]:
        assert x.grad is None or x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_digits_are_kept_where_sigmoids_and_odds_round(dtype):
    """A relative error at the ends, where a formula that is right on paper gives 0 or 1."""
    relative = 1e-5 if dtype == torch.float32 else 1e-12
    reference = torch.tensor(-50.0, dtype=dtype)
    chosen = torch.tensor(-10.0, dtype=dtype)  # 40 nats above its reference
    for name, pairs in (("kto", 1), ("apo_zero", 2)):
        options = {"kl": 0.0} if name == "kto" else {}
        value = LOSSES[name](chosen, reference - 40, reference, reference, 1.0, **options).losses
        assert value.item() == pytest.approx(pairs * math.exp(-40), rel=10 * relative, abs=0)
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


# --- where they stop -----------------------------------------------------------------------------


def slope_at(loss, h, p, **options):
    """Slope of the expected loss, if a share p of the labels prefer the first response.

    Only the first response moves, to h nats above its reference; the second stays at its own.
    """
    gap = torch.tensor(h, dtype=torch.float64, requires_grad=True)
    floor = torch.tensor(-70.0, dtype=torch.float64)
    first, second = gap + floor, floor
    named = {"chosen_lengths": 2, "rejected_lengths": 2} if takes_lengths(loss) else {}
    ways = [
        loss(*pair, floor, floor, **named, **options).losses
        for pair in ((first, second), (second, first))
    ]
    (p * ways[0] + (1 - p) * ways[1]).backward()
    return gap.grad.item()


def assert_stops_at(loss, h, p, **options):
    below, here, above = (slope_at(loss, h + step, p, **options) for step in (-0.01, 0, 0.01))
    assert below < 0 < above
    assert abs(here) < 1e-6 * (above - below)


@some_losses(those(lambda facts: facts.optimum))
@pytest.mark.parametrize("p", [0.6, 0.75, 0.9])
@pytest.mark.parametrize("which", [0, 1])
def test_the_optimal_gap_by_loss_and_label_probability(name, p, which):
    facts = FACTS[name]
    beta, options = facts.betas[which], facts.at_optimum
    assert_stops_at(LOSSES[name], facts.optimum(p, beta, **options), p, beta=beta, **options)


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
        assert slope_at(LOSSES["robust_dpo"], gap, 1.0, beta=1.0) < -0.1 / 0.8
    assert_stops_at(LOSSES["ipo"], 5.0, 1.0, beta=0.1)
    assert_stops_at(LOSSES["sppo"], 5.0, 1.0, beta=0.1)
    assert_stops_at(LOSSES["cdpo"], math.log(9) / 0.5, 1.0, beta=0.5)
    assert_stops_at(LOSSES["nca"], math.log(2) / 0.5, 1.0, beta=0.5)


@some_losses(["kto", "apo_zero"])
def test_what_is_compared_with_one_level_has_no_optimum_between_its_ends(name):
    """The expected loss of a response is monotone in its log-ratio, whatever the label's share."""
    options = {"kl": 0.0} if name == "kto" else {}
    for p, sign in ((0.6, -1), (0.4, 1)):
        for gap in (-30.0, -1.0, 0.0, 1.0, 30.0):
            assert sign * slope_at(LOSSES[name], gap, p, beta=0.3, **options) > 0


def test_js_has_no_optimum_where_labels_ask_for_more_than_it_can_reward():
    """Its reward of one response stays below beta log 2."""
    p = 0.9
    for gap in (1.0, 10.0, 30.0):
        assert slope_at(LOSSES["js_dpo"], gap, p, beta=logit(p) / math.log(2) - 0.1) < 0


@given(wide_four, betas, st.floats(0, 0.45))
@deterministic
def test_the_robust_loss_is_the_clean_loss_on_average(values, beta, epsilon):
    pc, pr, rc, rr = values
    robust = functools.partial(LOSSES["robust_dpo"], beta=beta, label_smoothing=epsilon)
    mean = (1 - epsilon) * robust(pc, pr, rc, rr).losses + epsilon * robust(pr, pc, rr, rc).losses
    assert_close(mean, LOSSES["dpo"](*values, beta=beta).losses, atol=1e-8, rtol=1e-10)


# --- how they are related ------------------------------------------------------------------------

logps = st.floats(-60, -10)
four = st.tuples(*[logps] * 4)
SEE_ONLY_THE_GAP = {"dpo", "cdpo", "robust_dpo", "ipo", "hinge", "odpo", "r_dpo"}


@every_loss
@given(four, st.floats(0.01, 9))
@deterministic
def test_which_losses_see_a_shift_of_both_references(name, values, shift):
    chosen, rejected, *reference = values

    def with_references(*reference):
        return call(name, (chosen, rejected, *reference), 0.01, lw=2, ll=5).losses

    change = (with_references(*(x - shift for x in reference)) - with_references(*reference)).abs()
    assert uses_reference(LOSSES[name]) == FACTS[name].reference
    if not FACTS[name].reference:
        assert change == 0
    elif name in SEE_ONLY_THE_GAP | {"rpo", "wpo"}:
        assert change < 1e-9
    elif name == "length_normalized_dpo":  # lengths differ: the shift is spread over 2 and 5
        assert change > 0


@some_losses(
    ["kto", "apo_zero", "apo_down", "bco", "nca", "sppo", "cal_dpo", "dpop", "js_dpo", "chi_po"]
)
def test_some_see_the_level_of_the_reference(name):
    values, shifted = (-9.0, -12.0, -8.0, -9.5), (-9.0, -12.0, -5.0, -6.5)
    assert call(name, values).losses != call(name, shifted).losses


@some_losses(sorted({*SEE_ONLY_THE_GAP, "naive"}))
@given(four, betas, st.floats(0, 9))
@deterministic
def test_displacement_is_invisible_to_losses_on_the_gap(name, values, beta, fall):
    chosen, rejected, *reference = values
    fallen = call(name, (chosen - fall, rejected - fall, *reference), beta).losses
    assert_close(fallen, call(name, values, beta).losses, atol=1e-8, rtol=1e-8)


@given(four, betas, tokens, tokens)
@deterministic
def test_limits_that_give_dpo_back(values, beta, lw, ll):
    lengths = {"chosen_lengths": lw, "rejected_lengths": ll}
    dpo = LOSSES["dpo"](*values, beta=beta)
    same = [
        LOSSES["cdpo"](*values, beta, label_smoothing=0.0),
        LOSSES["robust_dpo"](*values, beta, label_smoothing=0.0),
        LOSSES["odpo"](*values, beta, offset=0.0),
        LOSSES["r_dpo"](*values, beta, alpha=0.0, **lengths),
        LOSSES["r_dpo"](*values, beta, alpha=0.3, chosen_lengths=lw, rejected_lengths=lw),
        LOSSES["length_normalized_dpo"](*values, beta, chosen_lengths=1, rejected_lengths=1),
        LOSSES["dpop"](*values, beta, penalty=0.0),
        LOSSES["rpo"](*values, beta, alpha=0.0, **lengths),
        LOSSES["mpo"](*values, beta, preference=1.0, quality=0.0, generation=0.0, **lengths),
    ]
    if values[0] >= values[2]:
        same.append(LOSSES["dpop"](*values, beta))
    for other in same:
        for ours, theirs in zip(other, dpo, strict=True):
            assert_close(ours, theirs, atol=1e-11, rtol=1e-11)


@given(st.tuples(*[st.floats(-3, -1)] * 4), betas)
@deterministic
def test_divergences_that_meet(values, beta):
    """Small orders of the α-divergence are DPO, order 1 is forward KL."""
    alpha = functools.partial(LOSSES["alpha_dpo"], *values, beta)
    assert_close(alpha(order=1.0), LOSSES["forward_kl_dpo"](*values, beta), atol=1e-11, rtol=1e-11)
    assert_close(alpha(order=1e-6), LOSSES["dpo"](*values, beta), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "steepness"),
    [("dpo", 1), ("forward_kl_dpo", 1), ("alpha_dpo", 1), ("js_dpo", 0.5), ("chi_po", 2)],
)
def test_how_steep_a_link_is_at_the_reference(name, steepness):
    assert slope_at(LOSSES[name], 0.0, 1.0, beta=0.4) == pytest.approx(-0.2 * steepness)


@given(four, betas, tokens, tokens)
@deterministic
def test_simpo_without_margin_is_length_normalized_dpo_without_reference(values, beta, lw, ll):
    lengths = {"chosen_lengths": lw, "rejected_lengths": ll}
    simpo = LOSSES["simpo"](*values, beta, gamma=0.0, **lengths)
    flat = LOSSES["length_normalized_dpo"](*values[:2], 0.0, 0.0, beta, **lengths)
    for ours, theirs in zip(simpo, flat, strict=True):
        assert_close(ours, theirs, atol=1e-11, rtol=1e-11)


def test_a_longer_winner_owes_part_of_its_win_to_its_length():
    values = (-10.0, -12.0, -11.0, -11.5)
    longer = LOSSES["r_dpo"](*values, alpha=0.1, chosen_lengths=20, rejected_lengths=5).losses
    shorter = LOSSES["r_dpo"](*values, alpha=0.1, chosen_lengths=5, rejected_lengths=20).losses
    assert longer < LOSSES["dpo"](*values).losses < shorter


def test_an_offset_for_each_pair():
    columns = [torch.tensor([-9.0, -9.0]), *[torch.tensor([-10.0, -10.0])] * 3]
    both = LOSSES["odpo"](*columns, offset=torch.tensor([0.0, 2.0])).losses
    assert both[0] == LOSSES["dpo"](*columns).losses[0]
    assert both[1] > both[0]


# --- the mapping and the form --------------------------------------------------------------------


def test_every_public_loss_is_in_the_mapping_once():
    functions = [
        function
        for name, function in inspect.getmembers(losses, inspect.isfunction)
        if name.endswith("_loss") and not name.startswith("_") and name != "unpaired_kto_loss"
    ]
    assert set(functions) == set(LOSSES.values())
    assert [*LOSSES] == [loss.__name__.removesuffix("_loss") for loss in LOSSES.values()]
    assert {*FACTS} == {*LOSSES}


def test_names_of_the_first_edition():
    assert not {*ALIASES} & {*LOSSES}
    assert as_loss_function("robust") is as_loss_function("robust_dpo") is losses.robust_dpo_loss
    assert as_loss_function("length_normalized") is losses.length_normalized_dpo_loss
    assert as_loss_function("reference_free") is losses.naive_loss
    assert as_loss_function(slope_at) is slope_at
    with pytest.raises(ValueError, match=r"loss must be a function or one of .*'dpo'.* got 'ppo'"):
        as_loss_function("ppo")


@every_loss
def test_one_form(name):
    parameters = list(inspect.signature(LOSSES[name]).parameters.values())
    assert tuple(p.name for p in parameters[:5]) == (*FOUR, "beta")
    if name != "dpo":  # its label_smoothing may stand sixth
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters[5:])
    own = {p.name for p in parameters[5:]} - {"chosen_lengths", "rejected_lengths"}
    assert own == set(FACTS[name].options) | ({"label_smoothing"} if name == "dpo" else set())
    assert FACTS[name].paper in LOSSES[name].__doc__
    positional = LOSSES[name](*[-1.0] * 4, 0.3, **lengths_for(name, 1, 1), **FACTS[name].needs)
    named = LOSSES[name](
        **dict.fromkeys(FOUR, -1.0), beta=0.3, **lengths_for(name, 1, 1), **FACTS[name].needs
    )
    assert positional == named


@every_loss
def test_what_a_loss_says_of_itself(name):
    loss, facts = LOSSES[name], FACTS[name]
    assert takes_lengths(loss) == facts.lengths
    assert looks_across_pairs(loss) == facts.coupled
    assert uses_reference(loss) == facts.reference
    row = losses._table().partition(f"   * - ``{name}``\n")[2].partition("   * - ")[0]
    cells = [loss.__doc__.splitlines()[0]]
    cells += ["yes" if said else "" for said in (facts.reference, facts.lengths, facts.coupled)]
    assert row.rstrip("\n") == "\n".join(f"     - {cell}" for cell in cells)


def test_the_table_of_losses_stands_in_the_documentation():
    table = losses._table()
    assert table in losses.__doc__
    header = "name in `LOSSES`", "what it is", "reference", "lengths", "looks across pairs"
    top = [".. list-table::", "   :header-rows: 1", "", f"   * - {header[0]}"]
    assert table.splitlines()[:8] == top + [f"     - {cell}" for cell in header[1:]]
    assert table.count("   * - ") == 1 + len(LOSSES)


@every_loss
def test_a_loss_that_looks_across_pairs_says_so(name):
    generator = torch.Generator().manual_seed(2)
    columns = -20 - 5 * torch.rand(4, 6, dtype=torch.float64, generator=generator)
    columns[:2] += 4
    lengths = torch.randint(1, 9, (2, 6), generator=generator)
    needs = {} if name == "kto" else FACTS[name].needs

    def values(*pairs):
        sizes = lengths_for(name, *lengths[:, pairs])
        return LOSSES[name](*columns[:, pairs], **sizes, **needs).losses

    alone = torch.cat([values(i) for i in range(6)])
    assert torch.allclose(alone, values(*range(6)), rtol=1e-12) != FACTS[name].coupled


# --- errors --------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("argument", FOUR)
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
    arguments = dict.fromkeys(FOUR, -1.0)
    arguments[argument] = value
    with pytest.raises(ValueError, match=argument) as error:
        LOSSES[name](**arguments, **lengths_for(name, 2, 2), **FACTS[name].needs)
    for word in words:
        assert word in str(error.value)


@every_loss
@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf, "0.1", None])
def test_a_bad_beta_is_named(name, value):
    with pytest.raises(ValueError, match="beta") as error:
        call(name, [-1] * 4, value)
    assert repr(value) in str(error.value)


@some_losses(["dpo", *those(lambda facts: "label_smoothing" in facts.options)])
@pytest.mark.parametrize("value", [-0.01, 0.5, 1.0, math.nan, "0.1", None])
def test_a_bad_label_smoothing_is_named(name, value):
    with pytest.raises(ValueError, match="label_smoothing") as error:
        LOSSES[name](-1, -1, -1, -1, label_smoothing=value)
    assert repr(value) in str(error.value)


@some_losses(those(lambda facts: facts.lengths))
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
    with pytest.raises(TypeError, match="offset"):
        LOSSES["odpo"](-4.0, -9.0, 0.0, 0.0)
    bad = {"chosen_lengths": 0, "rejected_lengths": 3}
    with pytest.raises(ValueError, match=r"chosen_lengths must be whole .* got \[0.0\]"):
        LOSSES["simpo"](-4.0, -9.0, 0.0, 0.0, **bad)


WEIGHTS = {"alpha", "gamma", "penalty", "preference", "quality", "generation"}


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, key) for name, facts in FACTS.items() for key in facts.options if key in WEIGHTS],
)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.1", None, [1.0, 2.0]])
def test_a_bad_weight_is_named(name, option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        call(name, [-1] * 4, **{option: value})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("kto", {"kl": -0.5}, "kl must be at least 0, got -0.5"),
        ("kto", {"kl": math.nan}, "kl must be finite"),
        ("kto", {"kl": "much"}, "kl must be a number"),
        ("kto", {"kl": torch.zeros(3)}, r"shapes must agree.* kl \(3,\)"),
        ("kto", {"desirable_weight": 0.0}, "desirable_weight must be .* above 0, got 0.0"),
        ("kto", {"undesirable_weight": -1}, "undesirable_weight must be .* above 0, got -1"),
        ("odpo", {"offset": math.inf}, "offset must be finite"),
        ("odpo", {"offset": torch.zeros(1)}, r"shapes must agree.* offset \(1,\)"),
        ("bco", {"shift": "far"}, "shift must be a number"),
        ("alpha_dpo", {"order": 0}, "order must be .* above 0, got 0"),
    ],
)
def test_other_bad_options_are_named(name, options, words):
    logps = [torch.tensor([-1.0, -2.0])] * 4
    with pytest.raises(ValueError, match=words):
        LOSSES[name](*logps, **options)
