"""Progress: never silent for long, an estimate where there can be one, no flood of lines."""

import re
import sys
import time

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


@pytest.mark.usefixtures("fast")
def test_an_estimate_of_what_is_left(capsys):
    with Progress() as progress, progress.stage("reference", 20, "pairs") as stage:
        for _ in range(5):
            stage.started = time.monotonic() - 30  # the last turn may have had to wait
            stage.advance()
            time.sleep(0.03)
        stage.started = time.monotonic() - 30
        assert str(stage) == "reference 5/20 pairs, 30 s, about 90 s left"
        stage.started -= 6000
        assert str(stage) == "reference 5/20 pairs, 1 h 41 min, about 5 h 02 min left"
    assert any(re.match(r"reference \d/20 pairs, 30 s, about \d+ s left", x) for x in lines(capsys))


def test_what_was_done_before_is_no_measure_of_speed():
    stage = shown.Stage("update", 100, "", resumed=50)
    stage.started -= 10
    assert str(stage) == "update 50/100, 10 s"
    stage.done = 60
    assert str(stage) == "update 60/100, 10 s, about 40 s left"


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


def test_a_long_run_has_hundreds_of_lines_and_not_thousands(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(shown.time, "monotonic", lambda: now)
    progress = Progress()
    stage = shown.Stage("update", 10, "")
    progress._stages.append(stage)
    silent, last, count = 0.0, 0.0, 0
    while now < 12 * 3600:
        now += shown.TICK
        before = progress._said
        progress._look()
        if progress._said != before:
            count += 1
            if now < 600:
                silent = max(silent, now - last)
            last = now
    assert silent <= 5
    assert 300 < count < 1500
    assert len(lines(capsys)) == count


@pytest.mark.usefixtures("fast")
def test_a_terminal_has_one_line_that_is_drawn_anew(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress() as progress, progress.stage("loading"):
        time.sleep(0.06)
        progress.say("a line that stays")
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.count("\rloading, 0 s\x1b[K") >= 2
    assert "\r\x1b[Ka line that stays\n" in text
    assert text.endswith("\r\x1b[K") or text.endswith("\n")


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
