"""The replay shows the stored runs: its file is fresh, its words are right, Play plays."""

import itertools
import json
from pathlib import Path

import pytest

from dpo_lib.widgets import TrainingReplay, join, training_replay
from tests.widgets.conftest import write_page

RESULTS = Path(__file__).resolve().parents[2] / "dpo_lib" / "results" / "preference_runs.json"


@pytest.fixture(scope="module")
def results():
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def values(**changed):
    return TrainingReplay.build_spec().with_values(**changed).values


def test_the_packaged_runs_are_those_of_the_experiment(results):
    fresh = training_replay.to_text(training_replay.condense(results))
    assert training_replay.DATA.read_text(encoding="utf-8") == fresh
    assert len(fresh.encode()) < 40_000


def test_mean_and_range_are_over_the_seeds(results):
    run = training_replay.runs()["runs"][1][2]
    rows = [
        row
        for row in results["rows"]
        if (row["loss"], row["beta"], row["step"]) == ("naive", 0.1, 200)
    ]
    assert len(rows) == training_replay.runs()["seeds"] == 5
    kl = [row["kl"] for row in rows]
    assert run["kl"]["mean"][-1] == pytest.approx(sum(kl) / 5, abs=0.005)
    assert run["kl"]["low"][-1] == pytest.approx(min(kl), abs=0.005)
    assert run["kl"]["high"][-1] == pytest.approx(max(kl), abs=0.005)
    assert run["samples"][-1] == rows[0]["samples"]


def test_every_run_starts_at_the_reference():
    for beta in ("1", "0.3", "0.1"):
        words = TrainingReplay.describe(values(step=0, beta=beta))
        assert words.startswith(f"DPO, β = {beta}, 0 updates: true reward")
        assert "KL 0.00," in words
        assert words.endswith("log π chosen 0.00, rejected 0.00.")


def test_the_browser_says_what_python_says(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script())
    spec = TrainingReplay.build_spec()
    data = spec.data
    states = list(itertools.product(data["steps"], range(3), range(2)))
    got = page.evaluate(
        """([spec, states]) => {
          const el = document.body.appendChild(document.createElement("div"));
          const model = { get: (name) => name === "step" ? 100 : 0, set() {}, save_changes() {} };
          const view = dpoBook.widgets.training_replay.render({ model, el, spec });
          const prompts = [...el.querySelectorAll("dt")].map((node) => node.textContent);
          return states.map(([step, beta, loss]) => {
            const state = { step, beta, loss };
            view.update(state);
            const texts = [...el.querySelectorAll("dd > span:first-child")];
            return [view.describe(state), prompts, texts.map((node) => node.textContent)];
          });
        }""",
        [spec.to_json(), states],
    )
    page.close()
    for (step, beta, loss), (words, prompts, samples) in zip(states, got, strict=True):
        assert prompts == data["prompts"]
        state = {"step": step, "beta": data["betas"][beta], "loss": data["losses"][loss]}
        assert words == TrainingReplay.describe(state)
        assert len(words) <= 150
        assert samples == data["runs"][loss][beta]["samples"][data["steps"].index(step)]


@pytest.fixture
def page(browser, tmp_path):
    spec = TrainingReplay.build_spec()
    address = write_page(tmp_path / "page.html", spec.to_html("words"), join.static_script())
    page = browser.new_page()
    page.clock.install()
    page.goto(address)
    yield page
    page.close()


def step(page):
    page.clock.run_for(50)
    return int(page.get_by_role("slider", name="Updates").input_value())


def test_play_runs_to_the_end_and_pauses(page):
    assert step(page) == 100
    page.get_by_role("button", name="Play").click()
    assert step(page) == 120
    page.clock.run_for(1000)
    assert step(page) == 140
    page.get_by_role("button", name="Pause").click()
    page.clock.run_for(5000)
    assert step(page) == 140
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(5000)
    assert step(page) == 200
    page.get_by_role("button", name="Play").click()  # from the end: again from the start
    assert step(page) == 0
    page.clock.run_for(1000)
    assert step(page) == 20
    page.get_by_role("slider", name="Updates").press("End")  # the reader's hand stops it
    page.clock.run_for(3000)
    assert step(page) == 200
    assert page.get_by_role("button", name="Play").count() == 1


def test_with_reduced_motion_the_button_moves_one_evaluation(page):
    page.get_by_role("button", name="Play").click()
    assert step(page) == 120
    page.emulate_media(reduced_motion="reduce")
    page.get_by_role("button", name="Next").wait_for()
    page.clock.run_for(5000)  # what plays stops
    assert step(page) == 120
    page.get_by_role("button", name="Next").click()
    page.clock.run_for(5000)
    assert step(page) == 140
