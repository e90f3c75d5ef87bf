"""Every chapter: a prediction made in the page, and the truth that appears beside it.

Placed bets are kept in the reader's browser by their names (``js/bets.js``). A bet whose truth a
later chapter finds has ``truth=None`` first and the same name there, where it is scored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import GRID_TOLERANCE, WidgetSpec

BEFORE = "Place your bet, and the truth appears here."
KEPT = "Place your bet: it is kept in this browser."

# Chapter 4's four statements: bet on there, scored in chapter 6.
STATEMENTS = {
    "name": "four-statements",
    "question": "which statements will hold?",
    "options": ("true", "false", "it depends"),
    "rows": (
        "Ruler: the better response has the higher log π, whatever its length and wording.",
        "Selector: of many candidates, the one with the highest log π is a good one.",
        "Goal: a policy that raises its own log-probabilities becomes better.",
        "Loss: training makes better responses likelier and hurts nothing else.",
    ),
}


class Bet(BookWidget):
    """A number, a curve or a choice that the reader bets on before the truth is shown.

    Made by `number`, `curve` and `choice`. The truth and the sentence about it are the caller's:
    computed in the notebook, rounded to what is stable.
    """

    load = "near"

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return a small example: the first step of any DPO run."""
        return cls.choice_spec(
            "example",
            "The loss of the first step of a DPO run",
            ("0", "log 2", "it depends on the model"),
            truth="log 2",
            said="Policy and reference are equal, so every margin is 0.",
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say what is to do first; what was bet and what is true is the browser's to say."""
        return KEPT if values["later"] else BEFORE

    @classmethod
    def number(cls, *args: Any, **kwargs: Any) -> Bet:
        """Bet on a number on an axis; parameters as for `number_spec`."""
        return cls(cls.number_spec(*args, **kwargs))

    @classmethod
    def curve(cls, *args: Any, **kwargs: Any) -> Bet:
        """Bet on a curve by moving its points; parameters as for `curve_spec`."""
        return cls(cls.curve_spec(*args, **kwargs))

    @classmethod
    def choice(cls, *args: Any, **kwargs: Any) -> Bet:
        """Bet on one of several options, once or for several rows; as for `choice_spec`."""
        return cls(cls.choice_spec(*args, **kwargs))

    @staticmethod
    def number_spec(
        name: str,
        question: str,
        axis: tuple[float, float, float],
        truth: float,
        said: str,
        unit: str = "",
    ) -> WidgetSpec:
        """Describe a bet on a number.

        Parameters
        ----------
        name : str
            What the bet is kept under: lower-case letters, digits and hyphens.
        question : str
            The title.
        axis : tuple of float
            Least and largest bet, and the step between them.
        truth : float
            The number that is true, within the axis.
        said : str
            A sentence about it.
        unit : str
            Behind the numbers.

        Raises
        ------
        ValueError
            If the name is none, the step does not divide the axis, or the truth is off it.
        """
        low, high, step = _check_axis(name, axis)
        _check_text(question=question, said=said, unit=unit)
        _check_truth(name, [truth], low, high)
        start = low + step * round((high - low) / step / 2)
        data = {"form": "number", **_axis(low, high, step), "unit": unit, "truth": truth}
        return _spec(name, question, data, said, start)

    @staticmethod
    def curve_spec(
        name: str,
        question: str,
        x: Sequence[float],
        axis: tuple[float, float, float],
        truth: Sequence[float],
        said: str,
        x_label: str,
        y_label: str,
        start: float | None = None,
    ) -> WidgetSpec:
        """Describe a bet on a curve through the points ``x``, each moved on ``axis``.

        Parameters as for `number_spec`, and the names of both axes. The curve that the reader
        finds is flat at ``start`` (the middle of the axis if it is not given).

        Raises
        ------
        ValueError
            As for `number_spec`; also if there are not as many truths as points, or too few.
        """
        low, high, step = _check_axis(name, axis)
        _check_text(question=question, said=said, x_label=x_label, y_label=y_label)
        _check_numbers(name, "x", x)
        _check_numbers(name, "truth", truth)
        if len(x) < 2 or len(truth) != len(x):
            raise ValueError(
                f"{name}: truth must have one value for each of two or more x, "
                f"got {len(truth)} for {len(x)}"
            )
        _check_truth(name, truth, low, high)
        middle = low + step * round((high - low) / step / 2) if start is None else start
        _check_truth(name, [middle], low, high, "start")
        labels = {"x": list(x), "x_label": x_label, "y_label": y_label}
        data = {"form": "curve", **_axis(low, high, step), **labels, "truth": list(truth)}
        return _spec(name, question, data, said, [middle] * len(x))

    @staticmethod
    def choice_spec(
        name: str,
        question: str,
        options: Sequence[str],
        truth: str | Sequence[str] | None,
        said: str,
        rows: Sequence[str] = ("",),
        why: Sequence[str] = (),
    ) -> WidgetSpec:
        """Describe a choice among ``options``, made once or for each of several ``rows``.

        Parameters as for `number_spec`. ``truth`` is the option of each row, or None where a
        later chapter finds it; ``why`` is a sentence for each row, shown with the truth.

        Raises
        ------
        ValueError
            As for `number_spec`; also if a truth is not an option, or their numbers differ.
        """
        _check_name(name)
        _check_text(question=question, said=said)
        lists = {"options": options, "rows": rows, "why": why}
        if truth is not None and not isinstance(truth, str):
            lists["truth"] = truth
        for what, texts in lists.items():
            if not isinstance(texts, (list, tuple)):
                raise ValueError(f"{name}: {what} must be a list of texts, got {texts!r:.80}")
            for text in texts:
                _check_text(**{what: text})
        truths = [truth] if isinstance(truth, str) else truth
        if len(set(options)) != len(options) or len(options) < 2:
            raise ValueError(f"{name}: options must be two or more and differ, got {options}")
        if truths is not None and len(truths) != len(rows):
            raise ValueError(f"{name}: {len(truths)} truths for {len(rows)} rows")
        if unknown := [t for t in truths or () if t not in options]:
            raise ValueError(f"{name}: truth {unknown[0]!r} is not one of {list(options)}")
        if why and len(why) != len(rows):
            raise ValueError(f"{name}: {len(why)} sentences for {len(rows)} rows")
        data = {
            "form": "choice",
            "options": list(options),
            "rows": list(rows),
            "why": list(why),
            "truth": None if truths is None else list(truths),
        }
        return _spec(name, question, data, said, [""] * len(rows))


def _spec(name: str, question: str, data: dict[str, Any], said: str, guess: Any) -> WidgetSpec:
    return WidgetSpec(
        kind="bet",
        title=f"Your bet: {question}",
        data={"name": name, "said": said, **data},
        # what is set now, what was bet, whether the truth was asked for without a bet
        state={"guess": guess, "bet": None, "shown": False, "later": data["truth"] is None},
    )


def _axis(low: float, high: float, step: float) -> dict[str, Any]:
    first = max(0, -math.floor(math.log10(step) + GRID_TOLERANCE))
    digits = next(  # enough to tell neighbors apart; of a third there are never enough
        (
            n
            for n in range(first, first + 4)
            if all(abs(round(x, n) - x) <= GRID_TOLERANCE * step for x in (low, step))
        ),
        first + 1,
    )
    return {"min": low, "max": high, "step": step, "digits": digits}


def _check_text(**texts: object) -> None:
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{name} must be text, got {text!r:.80}")


def _check_numbers(name: str, what: str, values: object) -> None:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{name}: {what} must be a list of numbers, got {values!r:.80}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name}: {what} must be a number, got {value!r:.80}")


def _check_name(name: str) -> None:
    _check_text(name=name)
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ValueError(f"name must be lower-case letters, digits and -, got {name!r}")


def _check_axis(name: str, axis: tuple[float, float, float]) -> tuple[float, float, float]:
    _check_name(name)
    _check_numbers(name, "axis", axis)
    if len(axis) != 3:
        raise ValueError(
            f"{name}: axis must be least, largest and a step between, got {axis!r:.80}"
        )
    low, high, step = axis
    steps = (high - low) / step if step > 0 else math.nan
    if not (steps >= 1 and abs(steps - round(steps)) < GRID_TOLERANCE * steps):
        raise ValueError(f"{name}: axis must be least, largest and a step between, got {axis}")
    return low, high, step


def _check_truth(
    name: str, values: Sequence[float], low: float, high: float, what: str = "truth"
) -> None:
    _check_numbers(name, what, values)
    for value in values:
        if not low <= value <= high:
            raise ValueError(f"{name}: {what} {value} is outside [{low}, {high}]")
