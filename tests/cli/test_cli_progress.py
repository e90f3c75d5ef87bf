"""Progress: never silent for long, an estimate where there can be one, no flood of lines."""

import re
import sys
import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from dpo_lib.cli import progress as shown
from dpo_lib.cli.progress import Progress, counted
from dpo_lib.models.pretrained import load_pretrained
from tests.models.hf import make_folder


@pytest.fixture
def fast(monkeypatch):
    """Seconds become hundredths."""
    monkeypatch.setattr(shown, "TICK", 0.005)
    monkeypatch.setattr(shown, "PATIENCE", 0.04)


@pytest.fixture
def clock(monkeypatch):
    """Its ``now`` is the time."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(shown.time, "monotonic", lambda: clock.now)
    return clock


def lines(capsys):
    return capsys.readouterr().err.splitlines()


@pytest.mark.usefixtures("fast")
def test_a_stage_that_never_calls_is_shown_all_the_same(capsys):
    with Progress() as progress, progress.stage("loading a model"):
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass  # as busy as an import
    found = lines(capsys)
    assert 4 <= len(found) <= 14
    assert all(re.fullmatch(r"loading a model, \d+ s", line) for line in found)


def test_an_estimate_of_what_is_left(capsys, clock):
    with Progress() as progress, progress.stage("reference", 20, "pairs") as stage:
        stage.advance(5)
        clock.now += 30
        progress._look()
        clock.now += 6000
        assert str(stage) == "reference 5/20 pairs, 1 h 40 min, about 5 h 02 min left"
        progress.tell(stage)
    early, late = lines(capsys)
    assert early == "reference 5/20 pairs, 30 s, about 90 s left"
    assert late == str(stage)


@pytest.mark.usefixtures("fast")
def test_short_things_are_not_mentioned(capsys):
    with Progress() as progress:
        for _ in range(5):
            with progress.stage("nothing"):
                pass
    assert lines(capsys) == []


@pytest.mark.usefixtures("fast")
def test_quiet_means_quiet(capsys):
    with Progress(show=False) as progress, progress.stage("loading") as stage:
        time.sleep(0.1)
        progress.tell(stage)
        progress.say("but this")
    assert lines(capsys) == ["but this"]


def test_a_long_run_has_hundreds_of_lines_and_not_thousands(capsys, clock):
    progress = Progress()
    progress._look()
    progress._stages += [shown.Stage("outer", None, ""), shown.Stage("inner", None, "")]
    times = [0]
    for elapsed in range(2, 12 * 3600, 2):
        clock.now, before = 1000.0 + elapsed, progress._said
        progress._look()
        if progress._said != before:
            times.append(elapsed)
    for last, now in pairwise(times):
        patience = max(4, now / 200)
        assert patience <= now - last < patience + 2
    found = lines(capsys)
    assert 300 < len(found) == len(times) - 1 < 1500
    assert found[:2] == ["inner, 4 s", "inner, 8 s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"), (99, "99 s"), (100, "2 min"), (149, "2 min"), (151, "3 min"),
        (99 * 60, "99 min"), (100 * 60, "1 h 40 min"), (125 * 60, "2 h 05 min"),
        (60 * 3600 + 600, "60 h 10 min"),
    ],
)  # fmt: skip
def test_times_are_told_in_the_unit_that_suits(clock, seconds, text):
    stage = shown.Stage("update", 20, "", resumed=8)
    clock.now += seconds
    assert str(stage) == f"update 8/20, {text}"
    stage.advance(6)  # as many as are left
    left = f", about {text} left" if seconds >= 1 else ""
    assert str(stage) == f"update 14/20, {text}{left}"
    stage.note = "loss 1"
    stage.advance(7.5)  # the total was an estimate
    assert str(stage) == f"update 20/20, {text}  loss 1"


def test_the_last_second_is_not_told(clock):
    stage = shown.Stage("update", 4, "pairs")
    stage.advance(2)
    clock.now += 1
    assert str(stage) == "update 2/4 pairs, 1 s, about 1 s left"
    stage.advance(0.01)
    assert str(stage) == "update 2/4 pairs, 1 s"


def test_a_stage_has_what_it_was_given(clock):
    progress = Progress(show=False)
    with progress.stage("a"), progress.stage("b", 9), progress.stage("c", 9, "rows", 3) as inner:
        clock.now += 6
        inner.advance()
        assert [*map(str, progress._stages)] == [
            "a, 6 s", "b 0/9, 6 s", "c 4/9 rows, 6 s, about 30 s left",
        ]  # fmt: skip
    assert progress._stages == []


def test_a_terminal_has_one_line_that_is_drawn_anew(capsys, monkeypatch, clock):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "24")
    progress = Progress()
    with (
        progress.stage("the whole"),
        progress.stage("loading a model of mine", unit="weights") as stage,
    ):
        progress.tell(stage)
        progress._look()
        progress._look()
        progress.say("a line")
        progress.say("that stay")
        progress._look()
    progress.close()
    drawn, wiped = "\rloading a model of mine\x1b[K", "\r\x1b[K"
    assert len(drawn) == 23 + len(wiped)  # the last column would begin a new line
    assert capsys.readouterr().err == f"{2 * drawn}{wiped}a line\nthat stay\n{drawn}{wiped}"


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("error", [ValueError, OSError])
def test_where_stderr_fails_the_command_goes_on(monkeypatch, error):
    tries = threading.Semaphore(0)

    class Broken:
        def isatty(self):
            tries.release()
            raise error

    with monkeypatch.context() as patch, Progress() as progress, progress.stage("loading"):
        patch.setattr(sys, "stderr", Broken())
        assert progress._thread.daemon  # nor does it keep the command from ending
        assert all(tries.acquire(timeout=5) for _ in range(2))


def test_calls_of_a_module_are_counted():
    module, stage = torch.nn.Linear(1, 1), shown.Stage("tokens", 3, "")
    with counted(module, stage):
        module(torch.zeros(1))
        module(torch.zeros(1))
    module(torch.zeros(1))
    assert stage.done == 2


def test_the_weights_of_a_model_are_counted_while_it_loads(tmp_path):
    folder = make_folder(tmp_path / "model")
    with Progress(show=False) as progress, progress.loading("mine") as stage:
        stage.started -= 30
        model = load_pretrained(folder).model
        assert stage.done == stage.total >= len(dict(model.named_parameters()))
        stage.done //= 2
        assert re.fullmatch(r"loading mine \d+/\d+ weights, 30 s, about 3\d s left", str(stage))
        half = stage.done
    load_pretrained(folder)  # nobody asks: nothing is counted
    assert stage.done == half
