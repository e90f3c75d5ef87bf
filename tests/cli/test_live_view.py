"""What a run shows of each of its phases, and the rows that it writes and logs."""

import json

import pytest
import torch

from dpo_lib.cli import progress as shown
from dpo_lib.cli.live import Live
from dpo_lib.cli.progress import Progress

PAIR = {"prompt": [1], "chosen": [2], "rejected": [3]}
THUMB = {"prompt": [1], "response": [2]}
LEVEL = {"prompt": [1], "mismatched": [2]}
ROW = {"loss": 0.5, "reward_accuracy": 0.75, "margin": 0.126, "lr": 1.0}
NUMBERS = "loss 0.500 acc 0.75 margin 0.13"


class Run:
    """Calls of the model and rows, each of which returns what is shown after it."""

    def __init__(self, out, steps=3, show=False, **how):
        self.progress, self.logged = Progress(show), []
        self.module = torch.nn.Identity()
        self.live = Live(out, steps, 4, self.progress, self, **{"write": True, **how})

    def log(self, row):
        self.logged.append(row)

    def look(self):
        return [str(stage) for stage in self.progress._stages]

    def call(self, *rows, grad=False):
        with torch.set_grad_enabled(grad):
            self.module([*rows])
        return self.look()

    def update(self, step, **row):
        self.live.updated({"step": step, **(row or ROW)})
        return self.look()

    def evaluate(self, *rows, **found):
        with self.live.evaluating(3):
            self.call(*rows)
            during = self.call(PAIR, grad=True)  # no pair of the held-out ones
        self.live.evaluated(found)
        return during, self.look()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """It stands still."""
    monkeypatch.setattr(shown.time, "monotonic", lambda: 0.0)


def test_a_run_shows_each_of_its_phases_and_keeps_its_rows(tmp_path):
    run = Run(tmp_path)
    first = {"held_out_accuracy": 0.5, "held_out_margin": 0.25, "samples": 3}
    second = {"held_out_accuracy": 1.0, "held_out_margin": 2.0}
    with run.live.watching(run.module):
        assert run.evaluate(PAIR, PAIR, **first) == (["held-out pairs 2/3 pairs, 0 s"], [])
        assert run.call(PAIR, PAIR, PAIR) == ["reference 3/4 pairs, 0 s"]
        assert run.call(PAIR) == ["reference 4/4 pairs, 0 s"]
        for grad in (True, True, False):
            assert run.call(PAIR, PAIR, grad=grad) == ["first update, 0 s"]
        known = f"{NUMBERS} | held out: acc 0.50 margin 0.25"
        assert run.update(0) == [f"update 1/3, 0 s  {known}"]
        for grad in (True, False):
            assert run.call(PAIR, PAIR, grad=grad) == [f"update 1/3, 0 s  {known}"]
        inner = ["held-out pairs 1/3 pairs, 0 s"]
        training = [f"update 1/3, 0 s  {known}"]
        assert run.evaluate(PAIR, **second) == ([*training, *inner], training)
        assert run.update(1) == [f"update 2/3, 0 s  {NUMBERS} | held out: acc 1.00 margin 2.00"]
    assert run.look() == []
    rows = [{"step": 0, **first}, {"step": 0, **ROW}, {"step": 1, **second}, {"step": 1, **ROW}]
    kinds = ["evaluation", "update"] * 2
    assert run.logged == rows
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"kind": kind, **row} for kind, row in zip(kinds, rows, strict=True)
    ]


def test_of_thumbs_the_level_belongs_to_the_update(tmp_path):
    run = Run(tmp_path, unit="thumbs")
    with run.live.watching(run.module):
        assert run.evaluate(THUMB)[0] == ["held-out thumbs 1/3 thumbs, 0 s"]
        assert run.call(THUMB, THUMB) == ["reference 2/4 thumbs, 0 s"]
        for row in (LEVEL, THUMB, LEVEL):
            assert run.call(row) == ["first update, 0 s"]
        assert run.update(0, loss=0.25, reward_auc=0.625) == [
            "update 1/3, 0 s  loss 0.250 auc 0.62 | held out:"
        ]
        run.evaluate(THUMB, held_out_auc=0.875, held_out_margin=1.0, margin=3.0)
        assert run.update(1, loss=0.25) == [
            "update 2/3, 0 s  loss 0.250 | held out: auc 0.88 margin 1.00"
        ]


@pytest.mark.parametrize(("row", "grad"), [(LEVEL, False), (PAIR, True)])
def test_where_the_reference_is_known_the_first_update_comes_first(tmp_path, row, grad):
    run = Run(tmp_path)
    with run.live.watching(run.module):
        assert run.call(row, grad=grad) == ["first update, 0 s"]
    assert run.call(row, grad=grad) == []  # outside of the block


def test_a_run_that_goes_on_measures_its_own_speed(tmp_path, monkeypatch):
    run = Run(tmp_path, steps=9)
    with run.live.watching(run.module):
        assert run.update(5) == [f"update 6/9, 0 s  {NUMBERS}"]
        monkeypatch.setattr(shown.time, "monotonic", lambda: 30.0)
        assert run.update(6) == [f"update 7/9, 30 s, about 60 s left  {NUMBERS}"]


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (3, [1, 2, 3]),
        (40, [*range(2, 41, 2)]),
        (45, [*range(2, 46, 2), 45]),
        (59, [*range(2, 60, 2), 59]),
    ],
)
def test_twenty_lines_or_some_more_tell_of_the_updates(tmp_path, capsys, steps, told):
    run = Run(tmp_path, steps, show=True)
    with run.progress, run.live.watching(run.module):
        for step in range(steps):
            run.update(step)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"update {done}/{steps}, 0 s  {NUMBERS}" for done in told]


def test_one_of_several_processes_shows_and_writes(tmp_path):
    run = Run(tmp_path, write=False)
    with run.live.watching(run.module):
        assert run.update(0) == []
        run.evaluate(PAIR, held_out_accuracy=0.5)
    assert run.logged == [*tmp_path.iterdir()] == []
