"""Appendix G: its stored measurements are whole, and they say what its text says."""

import itertools
import json
from statistics import median

import pytest

from dpo_lib.benchmarks import growth, report, tricks
from dpo_lib.benchmarks.machine import RESULTS
from dpo_lib.benchmarks.step import GROUPS

BOTH = ("tiny", "smollm2")
both = pytest.mark.parametrize("model", BOTH)


def read(name):
    return json.loads((RESULTS / "avx512" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ladder():
    return read("tricks")["rows"]


@pytest.fixture(scope="module")
def step():
    return read("step")


@pytest.fixture(scope="module")
def points():
    return read("growth")["rows"]


def ratio(ladder, one, other, model):
    """Median time of one rung over that of another, of rounds in which both took their turn."""
    times = {(row["group"], row["name"]): row["seconds"] for row in ladder if row["model"] == model}
    found = [
        a / b
        for (group, name), seconds in times.items()
        if name == one and (group, other) in times
        for a, b in zip(seconds, times[group, other], strict=True)
    ]
    return median(found)


def gain(ladder, name, model):
    order = list(tricks.RUNGS)
    return ratio(ladder, order[order.index(name) - 1], name, model)


# --- the ladder ----------------------------------------------------------------------------------


@both
def test_every_rung_was_measured_on_every_round(ladder, model):
    wanted = [(group, n) for group, names in enumerate(tricks.GROUPS[model]) for n in names]
    rows = [row for row in ladder if row["model"] == model]
    assert [(row["group"], row["name"]) for row in rows] == wanted
    (rounds,) = {len(row["seconds"]) for row in rows}
    assert rounds >= 5
    assert {row["title"] for row in rows} == {rung.title for rung in tricks.RUNGS.values()}


@both
def test_a_rung_and_the_one_before_it_have_rounds_in_common(model):
    order = list(tricks.RUNGS)
    for pair in itertools.pairwise(order):
        assert any(set(pair) <= set(names) for names in tricks.GROUPS[model]), pair


def test_losses_stay_together_but_for_bfloat16(ladder):
    for row in ladder:
        if row["name"] == "bfloat16":
            assert 1e-5 < row["gap"] < tricks.BFLOAT16_TOLERANCE
        else:
            assert row["gap"] <= tricks.FLOAT32_TOLERANCE


@both
def test_the_textbook_is_the_longest_bar_and_bfloat16_the_shortest(ladder, model):
    against = {n: ratio(ladder, n, "onednn", model) for n in tricks.RUNGS if n != "onednn"}
    assert max(against, key=against.get) == "textbook"
    assert min(against, key=against.get) == "bfloat16"
    assert against["bfloat16"] < 1


@both
@pytest.mark.parametrize("name", ["cached", "packed"])
def test_what_removes_work_helps_both_models(ladder, name, model):
    assert gain(ladder, name, model) > 1.1


# --- side by side --------------------------------------------------------------------------------


@both
def test_ours_is_ahead_of_all_others_and_bfloat16_ahead_of_ours(step, model):
    assert {r["name"] for r in step["rows"] if r["model"] == model} == {
        name for group in GROUPS[model].values() for name in group
    }
    found = report.summaries(step, model)  # the fastest first
    assert [each.name for each in found[:2]] == ["ours_bfloat16", "ours"]
    shown = [each.name for each in found if each.name in report.SHOWN]
    assert shown == sorted(shown, key=lambda name: not name.startswith("ours"))


@both
def test_losses_agree_side_by_side(step, model):
    for each in report.summaries(step, model):
        assert each.gap <= each.tolerance


# --- growth --------------------------------------------------------------------------------------


@both
def test_time_is_linear_in_unique_tokens_and_a_prompt_is_paid_once(points, model):
    assert growth.linearity(points, model).r_squared > 0.95
    others = {r["name"] for r in points if r["model"] == model} - {"ours"}
    price = growth.prompt_price(points, model, "ours")
    assert price == pytest.approx(1, abs=0.25)
    for name in others:
        assert growth.prompt_price(points, model, name) > 1.25 * price


@both
def test_the_others_points_lie_above_ours(points, model):
    def key(row):
        return tuple(row[k] for k in ("batch", "prompt", "response", "vocabulary", "varied"))

    mine = {
        key(r): growth.seconds_of(r) for r in points if (r["model"], r["name"]) == (model, "ours")
    }
    for row in points:
        if row["model"] == model and row["name"] != "ours":
            assert growth.seconds_of(row) > mine[key(row)], row
