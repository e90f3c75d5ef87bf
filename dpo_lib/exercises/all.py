"""All exercises that `dpo_lib.exercises.check` knows.

python -m dpo_lib.exercises.all

writes their files of cases again.
"""

from __future__ import annotations

from dpo_lib.exercises import log_probs, loss, reference, scores, training
from dpo_lib.exercises.sheet import Exercise, write_sheet

EXERCISES: dict[str, Exercise] = {
    exercise.number: exercise
    for module in (log_probs, scores, reference, loss, training)
    for exercise in module.EXERCISES
}


def exercise_of(number: str) -> Exercise:
    """The exercise of a number such as ``"9.1"``; ``ValueError`` if there is none."""
    if number not in EXERCISES:
        known = ", ".join(sorted(EXERCISES, key=lambda n: [*map(int, n.split("."))]))
        raise ValueError(f"number must be one of {known}, got {number!r}")
    return EXERCISES[number]


if __name__ == "__main__":
    for one in EXERCISES.values():
        write_sheet(one)
