"""The calculator of chapter 9 in the browser against dpo_lib, and its worked examples."""

import itertools
import json

import pytest
import torch

from dpo_lib import dpo_loss
from dpo_lib.widgets import DPOCalculator, join
from dpo_lib.widgets.dpo_calculator import EXAMPLES, NAMES
from tests.widgets.conftest import write_page

LOGPS = (-20.0, -14.0, -2.5, -0.1, -0.0)
BETAS = (0.01, 0.1, 0.58, 1.0)
GRID = [(*logps, beta) for logps in itertools.product(LOGPS, repeat=4) for beta in BETAS]
# Shown after a click: table of log-ratio, reward, slope; then z, P, loss, weight, pull.
SHOWN = {
    "2+2, at the start": "0.0 0.000 −0.0500 0.0 0.000 0.0500 0.000 0.5000 0.6931 0.5000 0.0500",
    "2+2, after a step": "0.2 0.020 −0.0483 −0.5 −0.050 0.0483 0.070 0.5175 0.6588 0.4825 0.0483",
    "Customer support": "0.9 0.090 −0.0445 −1.3 −0.130 0.0445 0.220 0.5548 0.5892 0.4452 0.0445",
    "Capital of France": "2.0 0.200 −0.0426 −1.0 −0.100 0.0426 0.300 0.5744 0.5544 0.4256 0.0426",
}


@pytest.fixture
def page(browser, tmp_path):
    spec = DPOCalculator.build_spec()
    body = spec.to_html(DPOCalculator.describe(spec.values))
    page = browser.new_page()
    page.goto(write_page(tmp_path / "page.html", body, join.static_script(["dpo_calculator"])))
    yield page
    page.close()


def settle(page):
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")


def shown(page):
    return page.locator(".dpo-table td, .dpo-value").all_text_contents()


def test_every_number_is_that_of_the_library(page):
    got = page.evaluate(
        """([names, grid]) => grid.map((row) => {
            const state = Object.fromEntries(row.map((value, i) => [names[i], value]));
            const d = dpoBook.widgets.dpo_calculator.calculate(state);
            return [d.loss, d.chosenReward, d.rejectedReward, d.margin, d.probability,
                    d.weight, d.chosenSlope, d.rejectedSlope];
        })""",
        [NAMES, GRID],
    )
    got = torch.tensor(got, dtype=torch.float64)
    table = torch.tensor(GRID, dtype=torch.float64)
    for beta in BETAS:
        rows = table[:, 4] == beta
        logps = table[rows, :4].clone().requires_grad_()
        expected = dpo_loss(*logps.T, beta=beta)
        (slopes,) = torch.autograd.grad(expected.losses.sum(), logps)
        z = expected.chosen_rewards - expected.rejected_rewards
        columns = [*expected, z, z.sigmoid(), (-z).sigmoid(), slopes[:, 0], slopes[:, 1]]
        for column, values in enumerate(columns):
            torch.testing.assert_close(
                got[rows, column], values.detach(), rtol=1e-12, atol=1e-15, msg=f"{beta} {column}"
            )


def test_the_words_are_those_of_python(page):
    spec = DPOCalculator.build_spec()
    states = [dict(zip(NAMES, row, strict=True)) for row in GRID[::7]]
    words = page.evaluate(
        """([spec, states]) => {
            const view = dpoBook.widgets.dpo_calculator.render(
                { model: null, el: document.createElement("div"), spec });
            return states.map((state) => view.describe(state));
        }""",
        [spec.to_json(), states],
    )
    assert words == [DPOCalculator.describe(state) for state in states]
    assert max(map(len, words)) <= 150


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_sets_all_sliders_and_numbers(page, name):
    page.get_by_role("slider", name="β").press("End")
    button = page.get_by_role("button", name=name, exact=True)
    button.focus()
    button.press("Enter")
    settle(page)
    values = dict(zip(NAMES, EXAMPLES[name], strict=True))
    for control in DPOCalculator.build_spec().controls:
        slider = page.locator(f"input[id$=-{control.name}]")
        assert float(slider.input_value()) == values[control.name]
    assert shown(page) == SHOWN[name].split()


def test_a_margin_beyond_the_drawing_waits_at_its_edge(page):
    for name, key in (("β", "End"), ("Chosen: log πθ", "Home"), ("Chosen: log πref", "End")):
        page.get_by_role("slider", name=name, exact=True).press(key)
    settle(page)
    label = page.locator(".dpo-plot .dpo-fill-text-accent").text_content()
    assert label == "z = −20.000, further left"
    box = page.locator("svg.dpo-plot").bounding_box()
    dot = page.locator(".dpo-dot.dpo-fill-accent").bounding_box()
    assert box["x"] <= dot["x"] < box["x"] + box["width"] / 4
    assert shown(page)[6:9] == ["−20.000", "0.0000", "20.0000"]


def test_the_examples_are_in_the_static_page_as_data():
    html = DPOCalculator()._repr_mimebundle_()["text/html"]
    spec = json.loads(html.split('<script type="application/json">')[1].split("</script>")[0])
    assert [example["name"] for example in spec["data"]["examples"]] == list(EXAMPLES)
