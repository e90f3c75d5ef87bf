"""Chapter 10, short forms in 6 to 8: the tiny model is trained in the page, by the reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpo_lib.widgets import live
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Choice, LogSlider, WidgetSpec, fmt

LOSSES = ("DPO", "naive", "SFT on winners", "mine, from chapter 9")
BOTH_WAYS = "a coin, each pair both ways"
LABELS = (
    "the true reward",
    "noisy people",
    "coin flips",
    "my clicks of chapter 1",
    "my clicks, one of them wrong",
)
SHOWN = (
    "What is the capital of France?",
    "My order is late.",
    "List two colors.",
    "What is 2 + 2?",
)
PANELS = ("reward", "kl", "logps", "loss", "accuracy", "malformed")
BETA = LogSlider("beta", "β", -1.5, 0.5, 0.1, 1.0, color="policy")
RATE = LogSlider("rate", "learning rate", -4.0, -2.5, 0.1, 10**-3.7)
# Of a short form: its controls, what stays as it is, its panels.
SHORT = {
    "naive": (
        (Choice("labels", "Labels by", (BOTH_WAYS, LABELS[0]), BOTH_WAYS),),
        {"loss": "naive"},
        ("kl", "reward"),
    ),
    "reference": (
        (
            Choice("loss", "Loss", ("naive, without a reference", "DPO, with it"), "DPO, with it"),
            Choice("labels", "Labels by", (BOTH_WAYS, LABELS[0]), BOTH_WAYS),
        ),
        {},
        ("kl", "reward"),
    ),
    "beta": ((BETA,), {"loss": "DPO", "labels": LABELS[1]}, ("kl", "reward")),
}
SHORT_UPDATES = 100
NOTHING = {"updates": 0, "reward": None, "kl": None, "malformed": None, "note": ""}


class TrainItYourself(BookWidget):
    """Loss, labels, β and rate are chosen; the tiny SFT model is trained before one's eyes.

    `short` makes the forms that have few controls.
    """

    load = "near"
    parts = live.parts("engine", "model", "python")

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="train_it_yourself",
            title="Train it yourself",
            controls=(
                Choice("loss", "Loss", LOSSES, LOSSES[0]),
                Choice("labels", "Labels by", LABELS, LABELS[0]),
                BETA,
                RATE,
            ),
            data={"shown": list(SHOWN), "panels": list(PANELS), "updates": 200},
            state={"progress": NOTHING},
        )

    @classmethod
    def short(cls, name: str) -> TrainItYourself:
        """Return the form of a chapter: "naive" (6), "reference" (7) or "beta" (8)."""
        return cls(cls.short_spec(name))

    @classmethod
    def short_spec(cls, name: str) -> WidgetSpec:
        """Describe a short form; see `short`."""
        if not isinstance(name, str) or name not in SHORT:
            raise ValueError(f"name must be one of {list(SHORT)}, got {name!r}")
        controls, fixed, panels = SHORT[name]
        every = {"beta": BETA.value, "rate": RATE.value} | fixed
        chosen = {control.name for control in controls}
        return WidgetSpec(
            kind="train_it_yourself",
            title="Train it yourself",
            controls=controls,
            data={"shown": list(SHOWN), "panels": list(panels), "updates": SHORT_UPDATES},
            state={k: v for k, v in every.items() if k not in chosen} | {"progress": NOTHING},
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say the settings of the next run, or how far the present one is."""
        progress = values["progress"]
        if progress["note"]:
            return progress["note"]
        if progress["reward"] is not None:
            return (
                f"{progress['updates']} updates in this page: true reward "
                f"{fmt(progress['reward'], 2)}, KL {fmt(progress['kl'], 2)} nats, "
                f"malformed {fmt(100 * progress['malformed'], 0)} %."
            )
        return (
            f"{values['loss']}, β = {values['beta']:.2g}, rate {values['rate']:.2g}, labels by "
            f"{values['labels']}. Press Play."
        )
