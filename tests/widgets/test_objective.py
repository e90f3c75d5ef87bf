"""J and its two decompositions in the browser against dpo_lib.closed_form, on the whole grid."""

import itertools

import pytest

from dpo_lib.widgets import Objective, join
from dpo_lib.widgets.objective import REFERENCE, RESPONSES, REWARDS, parts
from dpo_lib.widgets.triangle import TriangleOptimum

SPEC = Objective.build_spec()
PROBABILITIES = (0.01, 0.2, 0.5, 0.89, 0.99)
STATES = [
    {"first": first, "share": share, "beta": beta}
    for first, share, beta in itertools.product(PROBABILITIES, PROBABILITIES, (0.2, 1.0, 2.0))
]


@pytest.fixture(scope="module")
def js(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script(["objective"]))
    yield page
    page.close()


def test_every_number_is_that_of_the_library(js):
    got = js.evaluate(
        "([states, data]) => states.map((s) => dpoBook.widgets.objective.parts(s, data))",
        [STATES, SPEC.to_json()["data"]],
    )
    for state, shown in zip(STATES, got, strict=True):
        for name, want in parts(state)._asdict().items():
            assert shown[name] == pytest.approx(want, rel=1e-9, abs=1e-12), (state, name)


@pytest.mark.parametrize("state", STATES)
def test_both_ways_to_write_the_objective_agree(state):
    now = parts(state)
    assert sum(now.policy) == pytest.approx(1)
    assert now.reward - now.leash == pytest.approx(now.objective, abs=1e-12)
    assert now.ceiling - now.gap == pytest.approx(now.objective, abs=1e-12)
    assert now.gap >= 0


@pytest.mark.parametrize("beta", [0.2, 1.0, 2.0])
def test_the_ceiling_is_reached_at_the_best_policy_only(beta):
    first, second, third = parts({"first": 0.5, "share": 0.5, "beta": beta}).best
    there = parts({"first": first, "share": second / (second + third), "beta": beta})
    assert there.objective == pytest.approx(there.ceiling, abs=1e-12)
    for state in STATES:
        if state["beta"] == beta:
            assert parts(state).objective < there.ceiling


def test_it_starts_at_the_reference():
    start = parts(SPEC.values)
    assert start.policy == pytest.approx(list(REFERENCE))
    assert start.leash == pytest.approx(0, abs=1e-12)


def test_the_world_is_that_of_the_triangle_below_it():
    triangle = TriangleOptimum.build_spec()
    assert triangle.data["names"] == [*RESPONSES]
    assert triangle.state["reference"] == [*REFERENCE]
    assert triangle.state["rewards"] == [*REWARDS]


def test_the_words_are_those_of_python(js):
    words = js.evaluate(
        """([spec, states]) => {
            const view = dpoBook.widgets.objective.render(
                { model: null, el: document.createElement("div"), spec });
            return states.map((state) => { view.update(state); return view.describe(state); });
        }""",
        [SPEC.to_json(), STATES],
    )
    assert words == [Objective.describe(state) for state in STATES]
    assert max(map(len, words)) <= 150
