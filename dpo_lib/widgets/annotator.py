"""Chapter 1: be the annotator, and keep what you clicked."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import WidgetSpec

SEED = 1  # of the pairs that are shown, of their order, and of which response comes first
PER_FAMILY = 6

# Its words are not the tiny world's, so no model here could train on it: practice only.
PRACTICE = {
    "prompt": "Summarize the article on climate change.",
    "first": "Sea levels are rising because of CO2 in the air. Policy will have to respond.",
    "second": (
        "Seas rise because warming water expands and glaciers melt. To cut CO2, carbon taxes "
        "are weighed against regulation."
    ),
    "practice": True,
}


class Annotator(BookWidget):
    """Two responses to one prompt, a click on the better one, and a row for every click."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="annotator",
            title="Be the annotator",
            data={"pairs": list(pairs())},
            state={"started": False, "judged": []},  # one {"choice", "seconds"} for each pair seen
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say how far the reader is, and the prompt that waits."""
        total = len(pairs()) - 1
        if not values["started"]:
            return (
                f"A practice pair and {total} pairs are waiting. "
                "Press Start, then choose the better response of each pair."
            )
        seen = len(values["judged"])
        rows = len(rows_of(pairs(), values["judged"]))
        skipped = sum(entry["choice"] == "skip" for entry in values["judged"][1:])
        counts = f"{rows} in your file, {skipped} skipped."
        if seen > total:
            return f"All {total} pairs seen: {counts}"
        which = f"pair {seen} of {total}" if seen else "the practice pair"
        return f"{counts} Next is {which}: {pairs()[seen]['prompt']}"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows clicked so far, as the downloaded file holds them."""
        return rows_of(pairs(), self.values["judged"])


@functools.cache
def pairs() -> tuple[dict[str, Any], ...]:
    """The pairs that are shown: one for practice, then on-policy pairs of the SFT model."""
    from dpo_lib.world import find_prompt, load_pairs
    from dpo_lib.world.pairs import PREFERENCE_FAMILIES

    rng = random.Random(SEED)
    chosen = []
    for family in PREFERENCE_FAMILIES:
        of_family = [pair for pair in load_pairs() if find_prompt(pair.prompt).family == family]
        chosen += rng.sample(of_family, PER_FAMILY)
    rng.shuffle(chosen)
    shown = [PRACTICE]
    for pair in chosen:
        first, second = rng.sample([pair.first, pair.second], 2)
        shown.append({"prompt": pair.prompt, "first": first, "second": second, "practice": False})
    return tuple(shown)


def rows_of(
    shown: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Preference rows of the judgements, in the order of the pairs; practice and skips left out."""
    rows = []
    for pair, entry in zip(shown, judged, strict=False):
        if pair["practice"] or entry["choice"] == "skip":
            continue
        other = "second" if entry["choice"] == "first" else "first"
        rows.append(
            {
                "prompt": pair["prompt"],
                "chosen": pair[entry["choice"]],
                "rejected": pair[other],
                "seconds": entry["seconds"],
            }
        )
    return rows
