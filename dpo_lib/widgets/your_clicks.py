"""Chapters 2, 3, 4 and 8: what each chapter's idea says of the reader's own clicks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpo_lib.widgets import live
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import WidgetSpec, fmt

ACTIONS = {
    "scores": "Fit scores",
    "loss": "Compute the loss",
    "log_probs": "Ask the model",
    "rewards": "Compute rewards",
}
TITLES = {
    "scores": "Your clicks: scores",
    "loss": "Your clicks: their loss",
    "log_probs": "Your clicks: what the model says",
    "rewards": "Your clicks: their rewards",
}


class YourClicks(BookWidget):
    """The rows that chapter 1 kept in the browser, or a stored annotator's. Made by `of`."""

    load = "near"
    parts = live.parts("engine", "model")

    @classmethod
    def of(cls, mode: str) -> YourClicks:
        """Return a chapter's form: "scores" (2), "loss" (3), "log_probs" (4) or "rewards" (8)."""
        return cls(cls.spec_of(mode))

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the form of chapter 2."""
        return cls.spec_of("scores")

    @staticmethod
    def spec_of(mode: str) -> WidgetSpec:
        """Describe a form; see `of`."""
        if not isinstance(mode, str) or mode not in ACTIONS:
            raise ValueError(f"mode must be one of {list(ACTIONS)}, got {mode!r}")
        return WidgetSpec(
            kind="your_clicks",
            title=TITLES[mode],
            # own: rows of the reader in this browser; result: what was computed of the rows
            state={"mode": mode, "own": 0, "note": "", "result": None},
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say whose clicks they are and what to press, or what came of them."""
        if values["note"]:
            return values["note"]
        if values["result"]:
            return _SAY[values["mode"]](values["result"])
        own = values["own"]
        stored = "You have no clicks yet; a stored annotator’s stand in."
        have = f"{own} of your clicks are here." if own else stored
        return f"{have} Press {ACTIONS[values['mode']]}."


def _clicks_of(result: Mapping[str, Any]) -> str:
    n = result["n"]
    return f"{n} of your clicks" if result["yours"] else f"a stored annotator’s {n} clicks"


def _half(value: float) -> str:
    return fmt(value, 1) if value % 1 else str(int(value))


def _say_scores(result: Mapping[str, Any]) -> str:
    if not result["names"]:
        return (
            f"From {_clicks_of(result)}: each compares two answers of one kind, "
            "so there is nothing to fit."
        )
    scores = zip(result["names"], result["scores"], strict=True)
    said = ", ".join(f"{name} {fmt(score, 2)}" for name, score in scores)
    return f"From {_clicks_of(result)}: {said}."


def _say_loss(result: Mapping[str, Any]) -> str:
    clicks = _clicks_of(result)
    return (
        f"{clicks[0].upper()}{clicks[1:]}: mean loss {fmt(result['fitted'], 3)} with scores "
        f"fitted to them, {fmt(result['truth'], 3)} with the true reward."
    )


def _say_log_probs(result: Mapping[str, Any]) -> str:
    agree = _half(result["agree"])
    return f"The SFT model ranks {agree} of {_clicks_of(result)} as they were clicked."


def _say_rewards(result: Mapping[str, Any]) -> str:
    words = result["words"]
    return (
        f"{words[0].upper()}{words[1:]}: mean reward {fmt(result['chosen'], 2)} chosen, "
        f"{fmt(result['rejected'], 2)} rejected; {_half(result['agree'])} of "
        f"{_clicks_of(result)} ranked so."
    )


_SAY = {
    "scores": _say_scores,
    "loss": _say_loss,
    "log_probs": _say_log_probs,
    "rewards": _say_rewards,
}
