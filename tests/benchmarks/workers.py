"""Implementations for tests of the runner. No torch here: each runs in a process of its own."""

import os
import time
from pathlib import Path


def steps(turn, losses, log="", name=""):
    """A step for each loss; writes its name down when it is its turn."""
    turn.loaded()
    for loss in losses:
        turn.begin()
        if log:
            with Path(log).open("a") as file:
                file.write(f"{name}\n")
        turn.end(loss)


def slow(turn, losses, seconds):
    """Steps that last, and a loss that takes long to read."""
    turn.loaded()

    def read():
        time.sleep(1)
        return 0.5

    for _ in losses:
        turn.begin()
        time.sleep(seconds)
        turn.end(read)


def hungry(turn, before_mib, after_mib):
    """One step, with memory taken before and after the model was loaded."""
    bytearray(os.urandom(1)) * (before_mib << 20)  # gone at once
    turn.loaded()
    turn.begin()
    kept = bytearray(os.urandom(1)) * (after_mib << 20)
    turn.end(float(len(kept) > 0))


def failing(turn):
    """Breaks in its first step."""
    turn.loaded()
    turn.begin()
    raise ValueError("something is wrong here")


def dying(turn):
    """Ends without a word to the pipe."""
    print("the last words", flush=True)
    os._exit(7)


def silent(turn):
    """Never gets ready."""
    time.sleep(600)


def threads(turn):
    """Its loss is the number of threads it may use."""
    turn.loaded()
    turn.begin()
    turn.end(float(os.environ["OMP_NUM_THREADS"]))
