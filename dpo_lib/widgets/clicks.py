"""Pairs of chapter 1's annotator, rows that clicks make of them, a stored annotator's rows."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any

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
ANNOTATOR_SEED = 0


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
    """Preference rows of the judgments, in the order of the pairs; practice and skips left out."""
    rows = []
    for place, (pair, entry) in enumerate(zip(shown, judged, strict=False)):
        if not isinstance(entry, Mapping) or not _is_judgment(entry):
            raise ValueError(f"judged[{place}] must be a choice and its seconds, got {entry!r:.80}")
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


def _is_judgment(entry: Mapping[str, Any]) -> bool:
    choice, seconds = entry.get("choice"), entry.get("seconds", "missing")
    return (
        isinstance(choice, str)
        and choice in ("first", "second", "skip")
        and (seconds is None or isinstance(seconds, (int, float)))
    )


def annotator_rows() -> list[dict[str, str]]:
    """Clicks for a reader who has none: chapter 1's pairs, labeled as people would, once."""
    from dpo_lib.world import Pair, label_by_reward

    shown = [Pair(p["prompt"], p["first"], p["second"]) for p in pairs() if not p["practice"]]
    return [record.to_row() for record in label_by_reward(shown, ANNOTATOR_SEED)]
