"""Exercises that check themselves and say what is wrong: ``check("9.1", dpo_loss)``.

Each chapter's central piece is first written by the reader. `check` runs it on the cases of the
exercise and answers in words: which known mistake it is, or the first case that differs. It never
raises for a wrong answer and never shows the solution; who has it right sees the library's line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Verdict(NamedTuple):
    """What `check` found; a notebook shows its words."""

    right: bool
    words: str

    def __repr__(self) -> str:
        return self.words


def check(number: str, function: Callable[..., Any], seed: int | None = None) -> Verdict:
    """Judge the reader's answer to an exercise.

    Parameters
    ----------
    number : str
        Chapter and place, as ``"9.1"``.
    function : callable
        The reader's function.
    seed : int, optional
        Of the cases that are drawn anew at every check; by default another one each time.

    Returns
    -------
    Verdict
        Whether it is right, and what to say.

    Raises
    ------
    ValueError
        If there is no such exercise or ``function`` cannot be called.
    """
    from dpo_lib.exercises.all import exercise_of
    from dpo_lib.exercises.diagnosis import diagnose
    from dpo_lib.exercises.sheet import (
        changed_words,
        fresh_sheet,
        gradient_words,
        is_single,
        read_sheet,
    )

    exercise = exercise_of(number)
    if not callable(function):
        raise ValueError(f"function must be a function, got {function!r}")
    sheet = read_sheet(number)
    right, words, _ = diagnose(function, sheet, exercise.call)
    if not right:
        return Verdict(False, words)
    fresh = fresh_sheet(exercise, seed)
    right, words, _ = diagnose(function, fresh, exercise.call)
    if not right:
        where = "Right on the cases that are shown, not on fresh ones."
        if is_single(sheet) and not is_single(fresh):
            where = "Right on the cases that are shown, of single numbers; fresh ones hold several."
        return Verdict(False, f"{where} {words}")
    if words := changed_words(exercise, function) or gradient_words(exercise, function):
        return Verdict(False, words)
    line = "\n".join(f"    {line}" for line in sheet["line"].splitlines())
    return Verdict(
        True, f"Right in all {len(sheet['cases'])} cases and on fresh ones. The library:\n{line}"
    )
