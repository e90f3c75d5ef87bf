"""The triangle in the browser against autograd and closed_form, and the four things it shows."""

import itertools
import math

import pytest
import torch

from dpo_lib.closed_form import expected_dpo_loss, optimal_policy
from dpo_lib.widgets import join
from dpo_lib.widgets.triangle import (
    PAIRS,
    Triangle,
    TriangleOptimum,
    TriangleReference,
    loss_value,
    numbers_at,
    path,
)
from tests.widgets.conftest import write_page

SPEC = Triangle.build_spec()
KINDS = SPEC.data["kinds"]
VERDICTS = [
    ("by reward", "by reward", "by reward"),
    ("coin flips", "coin flips", "coin flips"),
    ("first wins", "not compared", "not compared"),
    ("second wins", "first wins", "by reward"),
    ("not compared", "coin flips", "not compared"),
    ("not compared", "not compared", "not compared"),
]
STARTS = [(0.05, 0.55, 0.40), (0.98, 0.01, 0.01)]


def state_of(verdicts, beta=0.5, start=STARTS[0], share=False, steps=12):
    pairs = {f"pair_{i}{j}": verdict for (i, j), verdict in zip(PAIRS, verdicts, strict=True)}
    changed = {"beta": beta, "start": list(start), "share": share, "steps": steps}
    return dict(SPEC.values) | pairs | changed


STATES = [
    state_of(verdicts, beta, start, share)
    for verdicts, beta, start, share in itertools.product(
        VERDICTS, (0.1, 0.7, 3.0), STARTS, (False, True)
    )
]


def for_js(state):
    return {k: KINDS.index(v) if k.startswith("pair_") else v for k, v in state.items()}


@pytest.fixture(scope="module")
def js(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script(["triangle"]))
    yield lambda expression, argument: page.evaluate(
        f"argument => {{ const t = dpoBook.widgets.triangle; return ({expression})(argument); }}",
        argument,
    )
    page.close()


@pytest.mark.parametrize("loss", ["dpo", "naive", "sft"])
def test_paths_values_and_numbers_are_those_of_the_library(js, loss):
    got = js(
        "([states, loss, data]) => states.map((s) =>"
        " [t.path(loss, s, data), t.numbers(loss, s, data)])",
        [[for_js(state) for state in STATES], loss, SPEC.to_json()["data"]],
    )
    for state, (points, shown) in zip(STATES, got, strict=True):
        expected = path(state, loss)
        torch.testing.assert_close(
            torch.tensor(points, dtype=torch.float64), expected, rtol=1e-9, atol=1e-9
        )
        want = numbers_at(state, loss, expected[-1])
        assert shown["probabilities"] == pytest.approx(want["probabilities"], rel=1e-9, abs=1e-12)
        assert shown["rewards"] == pytest.approx(want["rewards"], rel=1e-9, abs=1e-9)
        assert shown["loss"] == pytest.approx(want["loss"], rel=1e-9, abs=1e-12)
        assert shown["kl"] == pytest.approx(want["kl"], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("loss", ["dpo", "naive", "sft"])
def test_slopes_are_those_of_autograd(js, loss):
    logps = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log().requires_grad_()
    rows = [for_js(state) for state in STATES]
    got = js(
        "([states, loss, data, logps]) => states.map((s) =>"
        " t.lossAt(loss, s, t.verdicts(s, data), logps).slopes)",
        [rows, loss, SPEC.to_json()["data"], logps.tolist()],
    )
    for state, slopes in zip(STATES, got, strict=True):
        (want,) = torch.autograd.grad(loss_value(state, loss, logps), logps)
        assert slopes == pytest.approx(want.tolist(), rel=1e-10, abs=1e-14)


def test_with_all_pairs_by_reward_it_is_the_expected_dpo_loss_and_runs_to_its_minimum():
    state = state_of(("by reward",) * 3, beta=1.0, steps=400)
    reference = torch.tensor(state["reference"], dtype=torch.float64).log()
    logps = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
    rewards = torch.tensor(state["rewards"], dtype=torch.float64)
    want = expected_dpo_loss(logps, reference, rewards, 1.0)
    assert loss_value(state, "dpo", logps).item() == pytest.approx(want.item(), rel=1e-12)
    goal = optimal_policy(reference, rewards, 1.0)
    torch.testing.assert_close(path(state, "dpo")[-1].exp(), goal.exp(), rtol=0, atol=1e-3)


def test_coin_flips_pull_the_naive_loss_to_the_center_and_leave_dpo_at_the_reference():
    values = dict(TriangleReference.build_spec().values) | {"steps": 400}
    assert path(values, "dpo")[-1].exp().tolist() == pytest.approx(values["reference"], abs=1e-12)
    assert path(values, "naive")[-1].exp().tolist() == pytest.approx([1 / 3] * 3, abs=0.01)


def test_the_chosen_response_falls_while_the_margin_grows_where_features_are_shared():
    state = state_of(("first wins", *["not compared"] * 2), start=(0.2, 0.1, 0.7), steps=100)
    alone, shared = path(state, "dpo"), path(state | {"share": True}, "dpo")
    for points, falls in ((alone, False), (shared, True)):
        margins = points[:, 0] - points[:, 1]
        assert (margins.diff() > 0).all()
        assert bool((points[:, 0].diff() < 0).all()) is falls


def test_the_level_lines_of_one_pair_run_into_the_unseen_corner(js):
    state = for_js(state_of(("first wins", *["not compared"] * 2)))
    pieces = js(
        "([s, data]) => { const shares = t.verdicts(s, data);"
        " return t.levelLines((logps) => t.lossAt('dpo', s, shares, logps).value); }",
        [state, SPEC.to_json()["data"]],
    )
    assert len(pieces) > 200
    angles = []  # of each piece, and of the line from it to the right corner
    for (x, y), (u, v) in pieces:
        if math.hypot(u - x, v - y) > 1e-3 and math.hypot(1 - x, y) > 0.2:
            along, home = math.atan2(v - y, u - x), math.atan2(-y, 1 - x)
            angles.append(abs(math.sin(along - home)))
    assert len(angles) > 100
    assert max(angles) < 0.1
    flat = js("() => t.levelLines(() => 0)", None)
    assert flat == []


def test_a_point_of_the_drawing_is_a_policy_off_the_edges(js):
    spots = [[0.5, 0.3], [-3, 0], [9, 9], [0.5, -1], [0.5, 0.866]]
    policies = js("spots => spots.map((s) => t.policyAt(...s))", spots)
    for (x, y), policy in zip(spots, policies, strict=True):
        assert sum(policy) == pytest.approx(1, abs=1e-12)
        assert min(policy) >= 0.004
        if (x, y) == (0.5, 0.3):
            assert js("p => t.place(p)", policy) == pytest.approx([x, y], abs=2e-3)


@pytest.mark.parametrize("widget", [Triangle, TriangleOptimum, TriangleReference])
def test_the_words_are_those_of_python(js, widget):
    spec = widget.build_spec()
    values = [dict(spec.values) | {"steps": steps, "beta": 0.3} for steps in (0, 7, 50)]
    words = js(
        """([spec, states]) => {
            const view = t.render({ model: null, el: document.createElement("div"), spec });
            return states.map((state) => { view.update(state); return view.describe(state); });
        }""",
        [
            spec.to_json(),
            [
                {k: spec.data["kinds"].index(v) if k[:5] == "pair_" else v for k, v in row.items()}
                for row in values
            ],
        ],
    )
    assert words == [widget.describe(row) for row in values]
    assert max(map(len, words)) <= 150


def test_the_start_is_dragged_and_moved_by_arrow_keys(browser, tmp_path):
    page = browser.new_page(viewport={"width": 1000, "height": 1000})
    script = join.static_script(["triangle"])
    page.goto(write_page(tmp_path / "page.html", SPEC.to_html("words"), script))
    shown = "[...document.querySelectorAll('td')].map((cell) => cell.textContent)"

    def column(k):  # of the table: π_ref, π*, DPO, naive, SFT
        page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")
        return [float(text.replace("−", "-")) for text in page.evaluate(shown)[k : 5 * 3 : 5]]

    assert column(2) == [0.05, 0.55, 0.40]
    page.get_by_role("group", name="Start of the policy").focus()
    page.keyboard.press("ArrowUp")
    top, left, right = column(2)
    assert (top, left, right) == (0.07, 0.54, 0.39)
    page.keyboard.press("ArrowLeft")
    assert column(2)[1] == pytest.approx(left + 0.02)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert column(2) == pytest.approx([0.05, 0.55, 0.40], abs=0.011)
    box = page.locator("svg.dpo-plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.8 * box["height"])
    page.mouse.up()
    top, left, right = column(2)
    assert left == pytest.approx(right, abs=0.02)
    assert 0 < top < 0.2
    page.get_by_role("button", name="Start at the reference").click()
    assert column(2) == [0.05, 0.55, 0.40]
    page.get_by_role("button", name="Step").click()
    assert column(2) != [0.05, 0.55, 0.40]
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").click()
    page.emulate_media(reduced_motion="reduce")
    page.get_by_role("button", name="To the start").click()
    assert column(2) == [0.05, 0.55, 0.40]
    page.get_by_role("button", name="Fifty steps").click()
    there = numbers_at(SPEC.values, "dpo", path({**SPEC.values, "steps": 50}, "dpo")[-1])
    assert column(2) == [round(p, 2) for p in there["probabilities"]]
    for _ in range(7):
        page.get_by_role("button", name="Fifty steps").click()
    end = column(2)
    page.emulate_media(reduced_motion="no-preference")
    page.get_by_role("button", name="Fifty steps").click()  # from the end: again from the start
    page.get_by_role("button", name="Pause").click(timeout=3000)
    assert column(2) != end
    page.close()
