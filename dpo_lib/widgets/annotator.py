"""Chapter 1: be the annotator, and keep what you clicked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpo_lib.widgets import live
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.clicks import pairs, rows_of
from dpo_lib.widgets.spec import WidgetSpec


class Annotator(BookWidget):
    """Two responses to one prompt, a click on the better one, and a row for every click.

    After the stored pairs the model in the page writes new ones, where they are asked for.
    """

    load = "near"
    parts = live.parts("engine", "model")

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="annotator",
            title="Be the annotator",
            data={"pairs": list(pairs())},
            # judged: one {"choice", "seconds"} for each pair seen, of the stored and the fresh ones
            state={"started": False, "judged": [], "fresh": [], "note": ""},
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say how far the reader is, and the prompt that waits."""
        if values["note"]:
            return values["note"]
        shown = [*pairs(), *values["fresh"]]
        total = len(shown) - 1
        if not values["started"] and not values["judged"]:
            return (
                f"A practice pair and {total} pairs are waiting. "
                "Press Start, then choose the better response of each pair."
            )
        seen = len(values["judged"])
        rows = len(rows_of(shown, values["judged"]))
        skipped = sum(entry["choice"] == "skip" for entry in values["judged"][1:])
        counts = f"{rows} in your file, {skipped} skipped."
        if not values["started"] and seen <= total:
            return f"From before: {counts} Press Go on for pair {seen} of {total}."
        if seen > total:
            return f"All {total} pairs seen: {counts}"
        which = f"pair {seen} of {total}" if seen else "the practice pair"
        return f"{counts} Next is {which}: {shown[seen]['prompt']}"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows clicked so far, as the downloaded file holds them."""
        judged, fresh = self.values["judged"], self.values["fresh"]
        for name, value in (("judged", judged), ("fresh", fresh)):
            if not isinstance(value, list):
                raise ValueError(f"{name} must be a list, got {value!r:.80}")
        for place, pair in enumerate(fresh):
            if not isinstance(pair, dict) or not {"prompt", "first", "second", "practice"} <= {
                *pair
            }:
                raise ValueError(f"fresh[{place}] must be a pair, got {pair!r:.80}")
        return rows_of([*pairs(), *fresh], judged)
