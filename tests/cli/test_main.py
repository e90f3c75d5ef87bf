"""What is around every command: what it ends with, what it says, and who hears a Ctrl-C."""

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
import time
import warnings
from types import SimpleNamespace

import pytest

from dpo_lib import cli
from dpo_lib.cli.progress import Progress

NEEDED = {
    "train": "--out a --data b", "show": "--data a", "eval": "--model a", "sample": "--model a",
    "compare": "--model a", "draw": "--out a", "judge": "a --out b --scores c",
    "rounds": "--out a --judge b", "label": "a --out b", "merge": "--model a --out b", "demo": "",
}  # fmt: skip


@pytest.fixture
def run(monkeypatch):
    """Run a command as if it did what is given."""

    def run(do, command="sample", *more):
        module = SimpleNamespace(**{f"run_{command}": do})
        monkeypatch.setitem(sys.modules, cli._COMMANDS[command], module)
        return cli.main([command, *NEEDED[command].split(), *more])

    return run


@pytest.mark.parametrize("command", NEEDED)
def test_a_command_is_called_and_an_interruption_told(run, command, capsys):
    seen = []

    def stop(args):
        seen.append(args.command)
        raise KeyboardInterrupt

    assert run(lambda args: 7, command) == 7
    assert run(stop, command) == 130
    assert seen == [command]
    goes_on = command in ("train", "draw", "rounds")
    then = ": the same command goes on where it stopped" if goes_on else ""
    assert capsys.readouterr().err == f"interrupted{then}\n"


def test_what_is_warned_and_logged_is_said_and_nothing_stays(run, capsys):
    logger, shown = logging.getLogger("dpo_lib"), warnings.showwarning
    before = [*logger.handlers]

    def speak(args):
        warnings.warn("of peft", FutureWarning, stacklevel=1)
        warnings.warn("of use", UserWarning, stacklevel=1)
        logging.getLogger("dpo_lib.data").info("read %d", 3)
        logging.getLogger("dpo_lib.data").debug("nothing")
        return 0

    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        filters = [*warnings.filters]
        assert run(speak) == 0
        assert warnings.filters == filters
    assert capsys.readouterr().err == "note   of use\nread 3\n"
    assert logger.handlers == before
    assert warnings.showwarning is shown

    def fail(args):
        raise ValueError("no")

    assert run(fail) == 2
    assert logger.handlers == before


@pytest.mark.parametrize(
    ("command", "more", "rank", "shows"),
    [
        ("draw", [], None, True), ("draw", ["--quiet"], None, False), ("draw", [], "0", True),
        ("draw", [], "1", False), ("sample", [], None, True),
    ],
)  # fmt: skip
def test_one_process_shows_unless_asked_to_be_quiet(run, monkeypatch, command, more, rank, shows):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    stages, original = [], Progress.stage
    monkeypatch.setattr(
        Progress, "stage", lambda self, *what: stages.append(what) or original(self, *what)
    )
    assert run(lambda args: args.progress.show, command, *more) is shows
    assert stages == [("starting",)]


# --- what is told of an error --------------------------------------------------------------------


def within(error, inner, name="__cause__"):
    setattr(error, name, inner)
    return error


ROOM = "; make room, and the same command goes on from the last checkpoint"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "full", "a"), f"cannot read or write a: full{ROOM}"),
        (OSError(errno.EDQUOT, "full"), f"cannot read or write: full{ROOM}"),
        (OSError(errno.EFBIG, "big", "a"), f"cannot read or write a: big{ROOM}"),
        (OSError(errno.EACCES, "denied", "a"), "cannot read or write a: denied"),
        (OSError("odd"), "cannot read or write: odd"),
        (within(KeyError("a"), OSError("odd")), "cannot read or write: odd"),
        (within(KeyError("a"), OSError("odd"), "__context__"), "cannot read or write: odd"),
        (within(within(KeyError("a"), OSError("b")), KeyError("c"), "__context__"),
         "cannot read or write: b"),
        (within(KeyError("a"), within(KeyError("b"), OSError("odd"))), "cannot read or write: odd"),
        (KeyError("a"), None),
        (RuntimeError("No space left\non it"),
         "a file cannot be written (No space left); is the disk full?"),
        (RuntimeError("os error 28"), "a file cannot be written (os error 28); is the disk full?"),
        (RuntimeError("in StreamWriter"),
         "a file cannot be written (in StreamWriter); is the disk full?"),
    ],
)  # fmt: skip
def test_of_a_file_it_is_told_what_went_wrong(error, said):
    assert cli._about_files(error) == said


def test_a_reader_that_has_gone_is_no_error(run, monkeypatch):
    closed = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(close=lambda: closed.append(1)))

    def write(args):
        raise BrokenPipeError

    assert run(write) == 0
    assert closed == [1]


# --- Ctrl-C --------------------------------------------------------------------------------------


@contextlib.contextmanager
def handled_by(handler):
    usual = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def test_the_usual_answer_to_a_ctrl_c_is_put_back(run):
    def stop(args):
        seen.append(signal.getsignal(signal.SIGINT))
        signal.raise_signal(signal.SIGINT)
        time.sleep(5)

    seen = []
    with handled_by(signal.default_int_handler):
        assert run(stop) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert seen[0] is not signal.default_int_handler


def test_the_answer_of_another_is_left_alone(run):
    def own(*_):
        raise KeyboardInterrupt("own")

    with handled_by(own):
        assert run(lambda args: signal.getsignal(signal.SIGINT) is own) is True
        assert signal.getsignal(signal.SIGINT) is own


def test_a_thread_has_no_say_in_it(run):
    found = []
    with handled_by(signal.default_int_handler):
        thread = threading.Thread(target=lambda: found.append(run(lambda args: 5)))
        thread.start()
        thread.join()
    assert found == [5]


def test_a_ctrl_c_within_a_destructor_comes_again_when_it_is_over(run, monkeypatch):
    """At once in the tests, and from whatever depth."""
    waits, sent = [], []

    class Timer:
        def __init__(self, seconds, function, args):
            waits.append(seconds)
            sent.append((function, args))

        def start(self):
            sent.append("started")

    def deeper():
        signal.raise_signal(signal.SIGINT)

    class Dying:
        def __del__(self):
            deeper()

    def die(args):
        Dying()
        return 0

    monkeypatch.setattr(threading, "Timer", Timer)
    with handled_by(signal.default_int_handler):
        assert run(die) == 0
    assert sent == [(os.kill, [os.getpid(), signal.SIGINT]), "started"]
    assert 0 < waits[0] < 0.1
