"""How many threads torch takes on a machine that is busy, or where it was asked for."""

import contextlib
import sys

import pytest
import torch

from dpo_lib.cli import threads


@pytest.fixture
def machine(monkeypatch):
    """Four cores, of which others keep some busy; torch would take all."""
    import psutil

    def set_busy(load, now):
        def cpu_percent(interval):
            assert round(load) > 0  # else there is nothing to wait for
            assert 0.1 <= interval <= 1
            return now / 4 * 100

        monkeypatch.setattr(threads.os, "getloadavg", lambda: (load, 0.0, 0.0))
        monkeypatch.setattr(psutil, "cpu_percent", cpu_percent)

    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield set_busy
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("load", "now", "taken"),
    [(0.2, 0.0, 4), (1.1, 1.0, 3), (3.4, 3.0, 1), (9.0, 4.0, 1), (3.4, 0.1, 4)],
)
def test_threads_leave_the_busy_cores_alone(machine, load, now, taken):
    said = []
    machine(load, now)
    with threads.chosen(None, said.append):
        assert torch.get_num_threads() == taken
    assert torch.get_num_threads() == 4
    assert [f"{taken} of 4 threads" in line for line in said] == [True] * (taken < 4)


def test_threads_are_given_back_after_an_error(machine):
    machine(3.4, 3.0)
    said = []
    with contextlib.suppress(RuntimeError), threads.chosen(None, said.append):
        raise RuntimeError
    assert torch.get_num_threads() == 4
    assert said == [
        "other programs keep the processor busy: 1 of 4 threads are used "
        "(--threads takes as many as you say)"
    ]


@pytest.mark.parametrize(
    ("load", "now", "free"),
    [(0.4, 4.0, 4), (0.6, 4.0, 3), (2.6, 0.6, 3), (1.4, 4.0, 3), (1.4, 0.1, 4), (3.0, 1.51, 2)],
)
def test_cores_are_counted_that_nobody_keeps_busy(machine, monkeypatch, load, now, free):
    machine(load, now)
    assert threads._free_cores() == free
    monkeypatch.delattr(threads.os, "sched_getaffinity")
    assert threads._free_cores() == free
    monkeypatch.delattr(threads.os, "getloadavg")  # on Windows
    assert threads._free_cores() == 4
    monkeypatch.setattr(threads.os, "cpu_count", lambda: None)
    assert threads._free_cores() == 1


def test_without_psutil_the_load_alone_decides(machine, monkeypatch):
    machine(2.0, 0.0)
    assert threads._free_cores() == 4
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert threads._free_cores() == 2


def test_where_the_cores_cannot_be_counted_there_is_one(machine, monkeypatch):
    machine(3.0, 1.6)  # 40 % of all cores
    monkeypatch.delattr(threads.os, "sched_getaffinity")
    monkeypatch.setattr(threads.os, "cpu_count", lambda: None)
    assert threads._free_cores() == 1


def test_threads_that_were_asked_for_are_taken(machine, monkeypatch):
    machine(3.0, 3.0)
    with threads.chosen(2, pytest.fail):
        assert torch.get_num_threads() == 2
    with threads.chosen(None, pytest.fail, before=3):  # of the run that is taken up again
        assert torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with threads.chosen(None, pytest.fail):
        assert torch.get_num_threads() == 4


def test_cores_that_the_process_may_not_use_do_not_count(machine, monkeypatch):
    machine(0.0, 0.0)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {1, 3})
    assert threads._free_cores() == 2
