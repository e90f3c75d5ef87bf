"""Who judges answers: a function of the user's, or a command; and what to say when they fail.

Nothing that a judge does ends in a traceback or in endless waiting: what it raises, prints or does
not print becomes one sentence with the place of the answer.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import json
import math
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NamedTuple

from dpo_lib.cli.progress import Stage


class Case(NamedTuple):
    """What is judged: an answer to a prompt."""

    prompt: str
    answer: str
    ended: bool  # False: it was cut
    place: str  # in words


def load_function(name: str, option: str = "--judge") -> Callable[..., Any]:
    """The function that ``module:function`` or ``file.py:function`` names.

    Raises
    ------
    ValueError
        If there is none, or its module fails.
    """
    where, _, function = name.rpartition(":")
    if not where or not function:
        raise ValueError(f"{option} must be module:function or file.py:function, got {name!r}")
    try:
        module = _load_file(where) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:
        raise ValueError(f"{option} {name}: {where} cannot be loaded: {_said(error)}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"{option} {name}: {where} has no function {function!r}")
    return found


def _load_file(path: str) -> ModuleType:
    if not Path(path).is_file():
        raise ValueError("there is no such file")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers_of(
    function: Callable[..., Any],
    name: str,
    asked: Sequence[tuple[tuple[Any, ...], dict[str, Any], str]],
    timeout: float,
    stage: Stage,
) -> Iterator[Any]:
    """What the function returns for each of the arguments; with a place in words for messages.

    It works in a thread of its own: so it can be given up.

    Raises
    ------
    ValueError
        If it raises anything, or takes more than ``timeout`` seconds over one of them.
    """
    found: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()
    over = threading.Event()

    def work() -> None:
        for arguments, named, _ in asked:
            if over.is_set():
                return
            try:
                found.put((function(*arguments, **named), None))
            except BaseException as error:  # also what would end the program
                found.put((None, error))
                return

    threading.Thread(target=work, daemon=True).start()
    try:
        for _, _, place in asked:
            try:
                value, error = found.get(timeout=timeout)
            except queue.Empty:
                raise ValueError(
                    f"{name} is silent for {timeout:g} s at {place} (--timeout)"
                ) from None
            if error is not None:
                raise ValueError(f"{name} fails at {place}: {_said(error)}") from error
            stage.advance()
            yield value
    finally:
        over.set()


def by_function(
    function: Callable[..., Any], name: str, cases: Sequence[Case], timeout: float, stage: Stage
) -> list[float]:
    """The function's number for each case; an argument called ``ended`` gets what the case says.

    Raises
    ------
    ValueError
        As `answers_of`; or if it gives something else than a finite number.
    """
    knows = takes(function, "ended")
    asked = [
        ((case.prompt, case.answer), {"ended": case.ended} if knows else {}, case.place)
        for case in cases
    ]
    given = answers_of(function, name, asked, timeout, stage)
    return [as_number(value, name, case.place) for value, case in zip(given, cases, strict=True)]


def takes(function: Callable[..., Any], argument: str) -> bool:
    """Whether a function has an argument of this name."""
    with contextlib.suppress(TypeError, ValueError):  # those of C have no signature
        return argument in inspect.signature(function).parameters
    return False


def as_number(value: Any, name: str, place: str) -> float:
    """A judge's answer as a finite number; True is 1."""
    number = math.nan
    if not isinstance(value, str | bytes):
        with contextlib.suppress(TypeError, ValueError, OverflowError, RuntimeError):
            number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must give a finite number, gives {value!r:.60} at {place}")
    return number


def by_command(command: str, cases: Sequence[Case], timeout: float, stage: Stage) -> list[float]:
    """The numbers that a shell command prints, a line for each case that it reads.

    It gets a JSON object a line: ``prompt``, ``answer``, ``ended``.

    Raises
    ------
    ValueError
        If it fails, prints nothing for ``timeout`` seconds, or prints something else than as many
        finite numbers.
    """
    lines = [
        json.dumps({"prompt": str(c.prompt), "answer": c.answer, "ended": c.ended}) for c in cases
    ]
    places = [*(f"at {case.place}" for case in cases), "after its last number"]
    group = {"start_new_session": True} if os.name == "posix" else {}
    numbers: list[float] = []
    with tempfile.TemporaryFile() as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        process = subprocess.Popen(command, shell=True, **pipes, **group)
        printed: queue.Queue[bytes] = queue.Queue()
        _in_background(_feed, process.stdin, lines)
        _in_background(_read, process.stdout, printed)
        try:
            while line := _next(printed, timeout, places[len(numbers)]):
                text = line.decode(errors="replace").strip()
                if len(numbers) == len(cases):
                    raise ValueError(
                        f"the command prints more than {len(cases)} lines: {text!r:.60}"
                    )
                number = math.nan
                with contextlib.suppress(ValueError):
                    number = float(text)
                if not math.isfinite(number):
                    raise ValueError(
                        f"the command must print a finite number a line, prints {text!r:.60} in "
                        f"line {len(numbers) + 1}, for {cases[len(numbers)].place}"
                    )
                numbers.append(number)
                stage.advance()
            status = _wait(process, timeout)
            if status or len(numbers) < len(cases):
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                why = f": {said[-1]:.200}" if said else ""
                raise ValueError(
                    f"the command ends with status {status} after {len(numbers)} of {len(cases)} "
                    f"numbers{why}"
                )
        finally:
            _end(process)
    return numbers


def _next(printed: queue.Queue[bytes], timeout: float, where: str) -> bytes:
    """The next line that was printed; nothing at the end."""
    try:
        return printed.get(timeout=timeout)
    except queue.Empty:
        raise ValueError(f"the command is silent for {timeout:g} s {where} (--timeout)") from None


def _in_background(function: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


def _feed(pipe: IO[bytes], lines: Sequence[str]) -> None:
    with contextlib.suppress(OSError), pipe:  # it may have ended, or read no further
        pipe.write("".join(f"{line}\n" for line in lines).encode())


def _read(pipe: IO[bytes], printed: queue.Queue[bytes]) -> None:
    with pipe:
        for line in pipe:
            printed.put(line)
    printed.put(b"")


def _wait(process: subprocess.Popen[bytes], timeout: float) -> int:
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise ValueError(f"the command does not end for {timeout:g} s (--timeout)") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and all that it has started."""
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _said(error: BaseException) -> str:
    """An error in one line, with its kind."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]:.200}" if lines else type(error).__name__
