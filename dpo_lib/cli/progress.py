"""What is being done, how far it is and how long it will take: on stderr, never silent for long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

TICK = 0.5  # seconds between two looks of the thread that draws
PATIENCE = 4.0  # seconds of silence at most, where lines are printed
GROWTH = 1 / 200  # of the time gone by, should that be more: a night makes hundreds of lines


class Stage:
    """One thing that takes time."""

    def __init__(self, name: str, total: int | None, unit: str, resumed: int = 0) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done: float = resumed
        self.resumed = resumed
        self.note = ""
        self.started = time.monotonic()

    def advance(self, number: float = 1) -> None:
        """Count what has been done."""
        self.done += number

    def __str__(self) -> str:
        elapsed = time.monotonic() - self.started
        parts = [self.name, f"{elapsed:.0f} s" if elapsed < 100 else _minutes(elapsed)]
        if self.total:
            done = min(self.done, self.total)  # some totals are estimates themselves
            parts[0] = f"{self.name} {int(done)}/{self.total} {self.unit}".rstrip()
            if self.done > self.resumed:
                left = elapsed * (self.total - self.done) / (self.done - self.resumed)
                if left >= 1:
                    parts.append(f"about {f'{left:.0f} s' if left < 100 else _minutes(left)} left")
        return ", ".join(parts) + (self.note and f"  {self.note}")


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


class Progress:
    """Shows the stage that is going on; a thread of its own, so that nothing has to call it.

    In a terminal it is one line that is drawn anew; elsewhere it is a line every few seconds,
    fewer as the hours go by.

    Parameters
    ----------
    show : bool
        False: say nothing but what is passed to `say`.
    """

    def __init__(self, show: bool = True) -> None:
        self.show = show
        self._began = self._said = time.monotonic()
        self._stages: list[Stage] = []
        self._drawn = False  # whether the terminal's last line is ours
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int | None = None, unit: str = "", resumed: int = 0
    ) -> Iterator[Stage]:
        """Show something that takes time, while the block runs; the innermost stage is shown.

        Parameters
        ----------
        name : str
            What is being done.
        total : int, optional
            How many ``unit`` it takes; with it the time that is left is estimated.
        unit : str
            What is counted.
        resumed : int
            How many were done before.
        """
        stage = Stage(name, total, unit, resumed)
        with self._lock:
            self._stages.append(stage)
        if self.show and self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        try:
            yield stage
        finally:
            with self._lock:
                self._stages.remove(stage)
                self._wipe()

    @contextlib.contextmanager
    def loading(self, model: object) -> Iterator[Stage]:
        """Show that a model is loaded, and how many of its weights, where that is known."""
        from dpo_lib.models.pretrained import weights_counted  # not before a command needs models

        with self.stage(f"loading {model}", unit="weights") as stage, weights_counted(stage):
            yield stage

    def say(self, text: str) -> None:
        """Print lines that stay."""
        with self._lock:
            self._wipe()
            print(text, file=sys.stderr)
            self._said = time.monotonic()

    def tell(self, stage: Stage) -> None:
        """Print a stage as it stands, where lines are printed; a terminal shows it anyway."""
        if self.show and not sys.stderr.isatty():
            self.say(str(stage))

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._wipe()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _watch(self) -> None:
        while not self._over.wait(TICK):
            with contextlib.suppress(ValueError, OSError), self._lock:  # stderr may be closed
                self._look()

    def _look(self) -> None:
        if not self._stages:
            return
        now = time.monotonic()
        if sys.stderr.isatty():
            self._draw(str(self._stages[-1]))
        elif now - self._said >= max(PATIENCE, GROWTH * (now - self._began)):
            self.say(str(self._stages[-1]))

    def _draw(self, text: str) -> None:
        import shutil

        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r{text[:width]}\033[K")
        sys.stderr.flush()
        self._drawn = True

    def _wipe(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._drawn = False


@contextlib.contextmanager
def counted(module: Any, stage: Stage, by: float = 1) -> Iterator[None]:
    """Advance a stage with each call of a torch module."""
    handle = module.register_forward_hook(lambda *_: stage.advance(by))
    try:
        yield
    finally:
        handle.remove()
