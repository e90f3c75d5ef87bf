"""The family of losses in the browser against dpo_lib: values, slopes and optima."""

import itertools
import math

import pytest
import torch

from dpo_lib.closed_form import optimal_margin
from dpo_lib.losses import LOSSES, takes_lengths
from dpo_lib.widgets import LossFamily, join
from dpo_lib.widgets.loss_family import FAMILIES, GROUPS
from tests.widgets.conftest import write_page

BETAS, EPSILONS = (0.1, 0.5, 1.0), (0.0, 0.05, 0.3, 0.45)
PROBABILITIES = (0.0, 0.05, 0.3, 0.5, 0.7, 0.95, 1.0)
# Not at the kink of the hinge, whose slope jumps there.
ON_THE_GAP = [name for name, family in FAMILIES.items() if family.gap_alone]
OTHERS = [name for name in FAMILIES if name not in ON_THE_GAP]
NEAR = (-11.0, -3.1, -0.7, 0.2, 0.7, 3.1, 11.0)  # as far as log π = −12 allows, and no kink
GAPS = (-1000.0, -12.0, -3.1, -0.7, 0.0, 0.7, 3.1, 12.0, 1000.0)  # symmetric


@pytest.fixture
def page(browser, tmp_path):
    spec = LossFamily.build_spec()
    body = spec.to_html(LossFamily.describe(spec.values))
    page = browser.new_page()
    page.goto(write_page(tmp_path / "page.html", body, join.static_script(["loss_family"])))
    yield page
    page.close()


def calculate(page, states, gaps=GAPS):
    """For each state the optimum, then value, slope, expected loss and pull at each gap."""
    return page.evaluate(
        """([states, gaps]) => states.map((state) => {
            const d = dpoBook.widgets.loss_family.calculate(state);
            const curves = [d.value, d.slope, d.expected, d.pull];
            return [String(d.optimum), ...curves.map((f) => gaps.map(f))];
        })""",
        [states, gaps],
    )


def library(family, beta, epsilon):
    """Value and slope (in units of β) at each gap, by the library and autograd."""
    options = {"label_smoothing": epsilon} if family.smoothed else {}
    gap = torch.tensor(GAPS, dtype=torch.float64, requires_grad=True)
    floor = torch.full_like(gap, -2000.0)
    value = family.loss(floor + gap / 2, floor - gap / 2, floor, floor, beta=beta, **options).losses
    value = value * (beta**2 if family.scaled else 1)
    (slope,) = torch.autograd.grad(value.sum(), gap)
    return value.detach(), slope / beta


def test_every_loss_is_shown_once():
    shown = [family.loss for family in FAMILIES.values() if not family.smoothed]
    assert {*shown, LOSSES["robust_dpo"], LOSSES["cdpo"]} == {*LOSSES.values()}  # cDPO is smoothed
    assert len(shown) == len({*shown}) == len(LOSSES) - 2
    assert {family.group for family in FAMILIES.values()} == {*range(len(GROUPS))}


@pytest.mark.parametrize("name", OTHERS)
def test_the_others_are_those_of_the_library(page, name):
    family = FAMILIES[name]
    lengths = (
        {"chosen_lengths": 10.0, "rejected_lengths": 6.0} if takes_lengths(family.loss) else {}
    )
    for beta in BETAS:
        gap = torch.tensor(NEAR, dtype=torch.float64, requires_grad=True)
        floor, beta_there = torch.full_like(gap, -12.0), family.times * beta
        tokens = {key: floor * 0 + n for key, n in lengths.items()}
        logps = (floor + gap / 2, floor - gap / 2, floor, floor)
        value = family.loss(*logps, beta=beta_there, **family.options, **tokens).losses
        value = value * (beta**2 if family.scaled else 1)
        (slope,) = torch.autograd.grad(value.sum(), gap)
        state = {"loss": [*FAMILIES].index(name), "beta": beta, "epsilon": 0.1, "p": 1.0}
        ((optimum, values, slopes, *_),) = calculate(page, [state], NEAR)
        assert optimum == "NaN"
        assert values == pytest.approx(value.tolist(), rel=1e-9)
        assert slopes == pytest.approx((slope / beta).tolist(), rel=1e-5, abs=1e-6)


def test_groups_come_and_go_by_the_keyboard(page):
    def drawn():
        page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")
        paths = page.locator(".dpo-plot").first.locator(".dpo-thin")
        return sum(bool(path.get_attribute("d")) for path in paths.all())

    per_group = [sum(f.group == i for f in FAMILIES.values()) for i in range(len(GROUPS))]
    assert drawn() == per_group[0]
    page.get_by_label(f"Show: {GROUPS[2]}").press("Space")
    assert drawn() == per_group[0] + per_group[2]
    page.get_by_label(f"Show: {GROUPS[0]}").press("Space")
    assert drawn() == per_group[2]


def states_of(name, probabilities):
    index = [*FAMILIES].index(name)
    for beta, epsilon, p in itertools.product(BETAS, EPSILONS, probabilities):
        yield {"loss": index, "beta": beta, "epsilon": epsilon, "p": p}


@pytest.mark.parametrize("name", ON_THE_GAP)
def test_values_and_slopes_are_those_of_the_library(page, name):
    states = [*states_of(name, (1.0, 0.3))]
    for state, (_, *got) in zip(states, calculate(page, states), strict=True):
        value, slope = library(FAMILIES[name], state["beta"], state["epsilon"])
        p = state["p"]
        expected = p * value + (1 - p) * value.flip(0)
        pull = p * slope - (1 - p) * slope.flip(0)
        for column, wanted in zip(got, (value, slope, expected, pull), strict=True):
            column = torch.tensor(column, dtype=torch.float64)
            torch.testing.assert_close(column, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ON_THE_GAP)
def test_optima_are_those_of_the_library(page, name):
    family, states = FAMILIES[name], [*states_of(name, PROBABILITIES)]
    texts = [got[0].replace("Infinity", "inf") for got in calculate(page, states)]
    wanted = [
        optimal_margin(
            family.loss, torch.tensor(PROBABILITIES, dtype=torch.float64), beta, **options
        )
        for beta, epsilon in itertools.product(BETAS, EPSILONS)
        for options in [{"label_smoothing": epsilon} if family.smoothed else {}]
    ]
    assert [*map(float, texts)] == pytest.approx(torch.cat(wanted).tolist(), rel=1e-6, abs=1e-9)


def test_the_words_are_those_of_python(page):
    spec = LossFamily.build_spec()
    states = [
        dict(zip(("loss", "beta", "epsilon", "p"), row, strict=True))
        for row in itertools.product(FAMILIES, (0.1, 1.0), (0.05, 0.3), PROBABILITIES[::2])
    ]
    words = page.evaluate(
        """([spec, states]) => {
            const view = dpoBook.widgets.loss_family.render(
                { model: null, el: document.createElement("div"), spec });
            return states.map((state) => view.describe(state));
        }""",
        [spec.to_json(), [s | {"loss": [*FAMILIES].index(s["loss"])} for s in states]],
    )
    assert words == [LossFamily.describe(state) for state in states]
    assert max(map(len, words)) <= 150


def test_an_optimum_beyond_the_drawing_waits_at_its_edge(page):
    page.get_by_label("Loss", exact=True).select_option("DPO")
    page.get_by_role("slider", name="Label probability p").press("End")
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")
    labels = page.locator(".dpo-plot .dpo-fill-text-ink").all_text_contents()
    assert labels.count("h* = ∞, further right") == 2
    assert page.locator(".dpo-value").all_text_contents() == ["∞", "1.000", "−0.50 β"]
    assert math.isinf(optimal_margin(FAMILIES["DPO"].loss, 1.0).item())
