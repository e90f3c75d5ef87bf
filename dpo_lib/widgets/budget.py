"""Chapter 6: how much log-probability a rare word and a common word can gain."""

from __future__ import annotations

from collections.abc import Mapping

from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Slider, WidgetSpec, fmt

TIE = 1e-9  # totals closer than this are equal: their difference is rounding


class Budget(BookWidget):
    """Gain a place times places, for both words, and what is left of it within a pair."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        common = {"color": "muted"}
        return WidgetSpec(
            kind="budget",
            title="Who gets the budget?",
            controls=(
                Slider(
                    "gain_content", "“Paris”: gain in a place", 0.05, 2, 0.05, 1, color="accent"
                ),
                Slider("n_content", "“Paris”: places", 1, 1000, 1, 10, digits=0, color="accent"),
                Slider(
                    "gain_common", "“the”: gain in a place", 0.001, 0.05, 0.001, 0.01, 3, **common
                ),
                Slider("n_common", "“the”: places", 1000, 100_000, 1000, 50_000, 0, **common),
                Slider("alone", "“the”: in one answer only", 0, 100, 1, 100, 0, "%", **common),
            ),
        )

    @staticmethod
    def describe(values: Mapping[str, float]) -> str:
        """Say both totals and which is larger, by how much."""
        content, common = budget(**values)
        gains = f"“Paris” gains {fmt(content, 1)} nats and “the” {fmt(common, 1)}"
        return f"{gains}: {_verdict(content, common)}."


def budget(
    gain_content: float, n_content: float, gain_common: float, n_common: float, alone: float
) -> tuple[float, float]:
    """Total gains (nats) of both words; what stands in both answers of a pair cancels.

    ``alone`` is the share of the common word's places that are in one answer only, in percent.
    """
    return gain_content * n_content, gain_common * n_common * alone / 100


def _verdict(content: float, common: float) -> str:
    if abs(content - common) <= TIE:
        return "they draw level"
    if common <= TIE:
        return "only “Paris” counts"
    if common > content:
        return f"“the” counts {fmt(common / content, 1)} times as much"
    return f"“Paris” counts {fmt(content / common, 1)} times as much"
