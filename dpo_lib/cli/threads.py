"""How many threads torch takes: fewer than its own choice where others keep the processor busy.

Two threads that wait for each other at every matrix product lose far more than half when one of
them has to share its core: an update of seconds can take minutes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import torch


@contextlib.contextmanager
def chosen(
    asked: int | None, say: Callable[[str], None], before: int | None = None
) -> Iterator[None]:
    """Set torch's number of threads for the block.

    Parameters
    ----------
    asked : int or None
        What the user asked for.
    say : callable
        Prints a line, if the number is not torch's own.
    before : int, optional
        Of a run that is taken up again: with as many threads it ends with the same bits.
    """
    own = torch.get_num_threads()
    number = asked or own
    if asked is None and "OMP_NUM_THREADS" not in os.environ:
        if before is not None:
            number = before
        elif (free := _free_cores()) < own:
            number = max(1, free)
            say(
                f"other programs keep the processor busy: {number} of {own} threads are used "
                "(--threads takes as many as you say)"
            )
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(own)


def _free_cores() -> int:
    """Cores that no other program keeps busy."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    if not hasattr(os, "getloadavg"):
        return cores
    busy = os.getloadavg()[0]  # of the last minute: our own last command may be in it
    if round(busy) > 0:
        with contextlib.suppress(ImportError):
            import psutil

            busy = min(busy, psutil.cpu_percent(interval=0.3) / 100 * (os.cpu_count() or 1))
    return cores - round(busy)
