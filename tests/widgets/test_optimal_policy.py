"""The optimal policy in the browser against dpo_lib.closed_form, from tiny β to huge β."""

import itertools
import math

import pytest
import torch

from dpo_lib.closed_form import log_partition
from dpo_lib.widgets import OptimalPolicy, join
from dpo_lib.widgets.optimal_policy import (
    PROMPT,
    REFERENCE,
    RESPONSES,
    REWARDS,
    OptimalPolicyRewards,
    optimum,
)
from dpo_lib.world import judge

BETAS = [1e-3, 0.01, 0.05, 0.1, 0.31, 1.0, 2.0, 10.0, 100.0, 1e6]
REWARD_ROWS = [REWARDS, (0.0,) * 5, (-3.0, -3.0, -3.0, -3.0, 3.0), (3.0, 3.0, 3.0, -3.0, -3.0)]
STATES = [
    {"beta": beta} | {f"r_{i}": reward for i, reward in enumerate(rewards)}
    for beta, rewards in itertools.product(BETAS, REWARD_ROWS)
]


@pytest.fixture(scope="module")
def js(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script(["optimal_policy"]))
    yield page
    page.close()


def test_every_number_is_that_of_the_library(js):
    data = OptimalPolicy.build_spec().to_json()["data"]
    got = js.evaluate(
        "([states, data]) => states.map((s) => dpoBook.widgets.optimal_policy.optimum(s, data))",
        [STATES, data],
    )
    for state, shown in zip(STATES, got, strict=True):
        want = optimum(state)
        assert shown["probabilities"] == pytest.approx(want.probabilities, rel=1e-9, abs=1e-15)
        assert shown["kl"] == pytest.approx(want.kl, rel=1e-9, abs=1e-14)
        assert shown["reward"] == pytest.approx(want.reward, rel=1e-12, abs=1e-12)
        assert shown["objective"] == pytest.approx(want.objective, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("state", STATES)
def test_the_objective_is_beta_log_z(state):
    rewards = torch.tensor([state[f"r_{i}"] for i in range(5)], dtype=torch.float64)
    reference = torch.tensor(REFERENCE, dtype=torch.float64).log()
    best = state["beta"] * log_partition(reference, rewards, state["beta"]).item()
    assert optimum(state).objective == pytest.approx(best, rel=1e-9, abs=1e-9)


def test_large_beta_is_the_reference_and_small_beta_the_best_response():
    far, near = optimum({"beta": 1e6}), optimum({"beta": 0.01})
    assert far.probabilities == pytest.approx(REFERENCE, abs=1e-5)
    assert far.kl == pytest.approx(0, abs=1e-9)
    best = REWARDS.index(max(REWARDS))
    assert near.probabilities[best] == pytest.approx(1)
    assert near.kl == pytest.approx(-math.log(REFERENCE[best]))
    assert near.reward == pytest.approx(max(REWARDS))


def test_distance_and_reward_fall_as_beta_grows():
    path = [optimum({"beta": beta}) for beta in BETAS]
    for now, later in itertools.pairwise(path):
        assert later.kl <= now.kl + 1e-12
        assert later.reward <= now.reward + 1e-12


@pytest.mark.parametrize("widget", [OptimalPolicy, OptimalPolicyRewards])
def test_the_words_are_those_of_python(js, widget):
    spec = widget.build_spec()
    states = [{name: state[name] for name in spec.values} for state in STATES]
    words = js.evaluate(
        """([spec, states]) => {
            const view = dpoBook.widgets.optimal_policy.render(
                { model: null, el: document.createElement("div"), spec });
            return states.map((state) => { view.update(state); return view.describe(state); });
        }""",
        [spec.to_json(), states],
    )
    assert words == [widget.describe(state) for state in states]
    assert max(map(len, words)) <= 150


def test_the_rewards_are_those_of_the_tiny_world():
    assert sum(REFERENCE) == pytest.approx(1)
    for text, (_, reward) in RESPONSES.items():
        assert judge(PROMPT, text).reward == reward


def test_reward_sliders_start_where_the_fixed_rewards_are():
    values = OptimalPolicyRewards.build_spec().values
    assert OptimalPolicyRewards.describe(values) == OptimalPolicy.describe({"beta": 1.0})
    assert repr(OptimalPolicyRewards()).startswith("OptimalPolicyRewards: ")
