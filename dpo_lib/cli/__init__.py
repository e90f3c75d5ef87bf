"""The command line: train, show, eval, sample, compare, draw, judge, rounds, label, merge, demo."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType

from dpo_lib.cli.parser import make_parser
from dpo_lib.cli.progress import Progress

_COMMANDS = {  # imported when called: the help page needs no torch
    "train": "dpo_lib.cli.train",
    "show": "dpo_lib.cli.show",
    "eval": "dpo_lib.cli.evaluate",
    "sample": "dpo_lib.cli.sample",
    "compare": "dpo_lib.cli.sample",
    "draw": "dpo_lib.cli.draw",
    "judge": "dpo_lib.cli.judge",
    "rounds": "dpo_lib.cli.rounds",
    "label": "dpo_lib.cli.label",
    "merge": "dpo_lib.cli.merge",
    "demo": "dpo_lib.cli.demo",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0 if all went well; 2 for wrong usage or data, 1 if training broke down or a file cannot be
        written, 130 if it was interrupted, each with one message on stderr.
    """
    args = make_parser().parse_args(argv)
    # What torch could tell is not known yet, nor needed: one process of a run shows, the first.
    show = not getattr(args, "quiet", False) and os.environ.get("RANK", "0") == "0"
    with Progress(show) as args.progress, _logging_to(args.progress), _interruptible():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # peft and transformers
                warnings.showwarning = lambda text, *_: args.progress.say(f"note   {text}")
                with args.progress.stage("starting"):
                    module = importlib.import_module(_COMMANDS[args.command])
                return getattr(module, f"run_{args.command}")(args)
        except BrokenPipeError:  # the reader of a pipe has gone, as with `| head`
            sys.stderr.close()
            return 0
        except KeyboardInterrupt as stop:
            known = dict.fromkeys(
                ("train", "draw", "rounds"), "the same command goes on where it stopped"
            )
            then = str(stop) or known.get(args.command, "")
            args.progress.say(f"interrupted{then and ': '}{then}")
            return 130
        except ValueError as error:
            code, text = 2, str(error)
        except FloatingPointError as error:
            code, text = 1, str(error)
        except Exception as error:
            code, text = 1, _about_files(error)
            if text is None:
                raise
        args.progress.say(f"error: {text}")
        return code


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let no Ctrl-C be lost: what is raised within a ``__del__`` Python drops, so it waits."""

    def stop(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_name == "__del__":
                threading.Timer(0.02, os.kill, [os.getpid(), number]).start()
                return
            frame = frame.f_back
        raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _about_files(error: BaseException) -> str | None:
    """What to tell of an error that a file has caused, at whatever depth; else None."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:  # safetensors and torch have errors of their own
        if not any(word in str(error) for word in ("No space left", "os error", "StreamWriter")):
            return None
        return f"a file cannot be written ({str(error).splitlines()[0]}); is the disk full?"
    where = f" {cause.filename}" if cause.filename else ""
    full = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    then = "; make room, and the same command goes on from the last checkpoint" if full else ""
    return f"cannot read or write{where}: {cause.strerror or cause}{then}"


@contextlib.contextmanager
def _logging_to(progress: Progress) -> Iterator[None]:
    """Print what the package logs between the lines of the progress."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            progress.say(self.format(record))

    logger, handler = logging.getLogger("dpo_lib"), Handler()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
