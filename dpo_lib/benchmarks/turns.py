"""Implementations measured side by side: a process each, one step in turn, round after round.

An implementation is a function that calls `Turn.loaded` when its model is in memory, and then
`Turn.begin` before and `Turn.end` after each of its steps. Only one of them runs at a time. The
machine's slow moments hit all of them, so the ratios within a round say more than the times.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PATIENCE = 900.0  # seconds to wait for a process before giving up
PAUSE = 0.02  # seconds between turns, in which the threads of the last one come to rest


class WorkerError(RuntimeError):
    """An implementation failed."""


class DisagreementError(RuntimeError):
    """Implementations do not compute the same loss, so their times cannot be compared."""


@dataclass(frozen=True)
class Implementation:
    """Something to be measured."""

    title: str
    run: Callable[..., None]  # called in a process of its own, with a `Turn` and the options
    tolerance: float  # nats: how far its loss may lie from that of the first implementation
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Measured:
    """What one implementation did."""

    seconds: list[float] = field(default_factory=list)  # of each round that counts
    losses: list[float] = field(default_factory=list)  # of every round
    gap: float = 0.0  # largest distance of its loss from the first implementation's
    peak_mib: float = 0.0  # largest resident memory after its model was loaded


# --- in the process of an implementation ---------------------------------------------------------


class Turn:
    """How an implementation waits for its turn and reports."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ready = False
        self._started = 0.0

    def loaded(self) -> None:
        """The model is in memory: the peak of memory counts from here."""
        # Linux sets the peak (VmHWM) to what is resident now.
        Path("/proc/self/clear_refs").write_text("5")

    def begin(self) -> None:
        """Wait for the turn; the clock runs from here."""
        if not self._ready:
            self._connection.send(("ready", None))
            self._ready = True
        self._connection.recv()
        self._started = time.perf_counter()

    def end(self, loss: Callable[[], float] | float) -> None:
        """The step is done: stop the clock, and only then read the loss."""
        elapsed = time.perf_counter() - self._started
        value = loss() if callable(loss) else loss
        self._connection.send(("step", (elapsed, float(value))))


def _work(
    connection: Connection, log: str, run: Callable[..., None], options: Mapping[str, Any]
) -> None:
    """Run one implementation; what it prints goes to a file, its end and its errors to the pipe."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        run(Turn(connection), **options)
        connection.send(("end", peak_mib()))
    except BaseException:
        connection.send(("error", traceback.format_exc()))


def peak_mib(process: int | str = "self") -> float:
    """Largest resident memory of a process so far."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


# --- in the process that measures ----------------------------------------------------------------


class _Worker:
    """The other end of an implementation's pipe."""

    def __init__(self, name: str, implementation: Implementation, folder: Path) -> None:
        self.name, self.implementation, self.done = name, implementation, False
        self.log = folder / f"{len([*folder.iterdir()])}.log"
        self.log.touch()
        # A fresh interpreter: nothing that others imported, no threads, no memory of ours.
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        options = dict(implementation.options)
        self.process = spawn.Process(
            target=_work, args=(theirs, str(self.log), implementation.run, options), daemon=True
        )
        self.process.start()
        theirs.close()

    def expect(self, kind: str) -> Any:
        """The next message, which must be of this kind."""
        try:
            if not self.connection.poll(PATIENCE):
                raise WorkerError(f"{self.name} has been silent for {PATIENCE:.0f} s")
            found, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(10)
            tail = self.log.read_text(errors="replace")[-2000:]
            raise WorkerError(
                f"{self.name} died (exit code {self.process.exitcode}); it last wrote:\n{tail}"
            ) from None
        if found == "error":
            raise WorkerError(f"{self.name} failed:\n{value}")
        self.done = found == "end"
        if found != kind:
            raise WorkerError(f"{self.name} sent {found!r} where {kind!r} was due")
        return value

    def step(self) -> tuple[float, float]:
        """Seconds and loss of its next step."""
        with contextlib.suppress(BrokenPipeError):  # what it sent before it ended says why
            self.connection.send("go")
        return self.expect("step")

    def stop(self) -> None:
        """Wait for the end of a process that is done; end one that is not."""
        if self.done:
            self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.connection.close()


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Processes started within compute with this many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(number)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def take_turns(
    implementations: Mapping[str, Implementation],
    rounds: Sequence[bool],
    n_threads: int = 2,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[str, Measured]:
    """Measure implementations in alternation.

    Parameters
    ----------
    implementations : mapping
        By name. Each must take ``len(rounds)`` steps. The first one is what the losses of the
        others are compared with.
    rounds : sequence of bool
        For each round whether its times count; those of warm-up rounds do not.
    n_threads : int
        Threads of each process.
    on_round : callable, optional
        Called with the number of rounds done: when all are ready, and after every round.

    Returns
    -------
    dict of Measured
        By name.

    Raises
    ------
    WorkerError
        If an implementation fails or falls silent.
    DisagreementError
        If a loss lies further from the first implementation's than its tolerance allows. It is
        checked after every round, before a time is reported.
    """
    measured = {name: Measured() for name in implementations}
    workers: list[_Worker] = []
    with tempfile.TemporaryDirectory() as folder, threads(n_threads):
        try:
            for name, implementation in implementations.items():
                workers.append(_Worker(name, implementation, Path(folder)))
            for worker in workers:
                worker.expect("ready")
            on_round(0)
            for number, counts in enumerate(rounds):
                first = number % len(workers)  # whoever comes first is another one each time
                for worker in workers[first:] + workers[:first]:
                    time.sleep(PAUSE)
                    seconds, loss = worker.step()
                    mine = measured[worker.name]
                    mine.losses.append(loss)
                    if counts:
                        mine.seconds.append(seconds)
                _compare(implementations, measured, number)
                on_round(number + 1)
            for worker in workers:
                measured[worker.name].peak_mib = worker.expect("end")
        finally:
            for worker in workers:
                worker.stop()
    return measured


def _compare(
    implementations: Mapping[str, Implementation], measured: Mapping[str, Measured], number: int
) -> None:
    standard, *_ = (mine.losses[number] for mine in measured.values())
    for name, mine in measured.items():
        gap = abs(mine.losses[number] - standard)
        mine.gap = max(mine.gap, gap)
        # Written so that NaN does not pass.
        if not gap <= implementations[name].tolerance:
            raise DisagreementError(
                f"round {number}: the loss of {name} is {mine.losses[number]:.7f}, "
                f"{gap:.2g} away from {standard:.7f} (allowed: "
                f"{implementations[name].tolerance:.2g})"
            )
