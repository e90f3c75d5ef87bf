"""Chapter 10: stored training runs, replayed evaluation by evaluation.

python -m dpo_lib.widgets.training_replay dpo_lib/results/preference_runs.json
writes ``data/training_replay.json`` anew from an experiment's results.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Choice, Slider, WidgetSpec, fmt

DATA = Path(__file__).parent / "data" / "training_replay.json"
LOSSES = {"DPO": "dpo", "naive": "naive"}  # as shown, and as the results call them
DIGITS = {"true_reward": 2, "kl": 2, "accuracy": 3, "chosen_shift": 2, "rejected_shift": 2}


class TrainingReplay(BookWidget):
    """Curves of stored runs with a marker at one evaluation, and what the policy wrote there."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        data = runs()
        steps = data["steps"]
        return WidgetSpec(
            kind="training_replay",
            title="Replay of the training runs",
            controls=(
                Slider("step", "Updates", steps[0], steps[-1], steps[1], 100, digits=0),
                Choice("beta", "β", tuple(data["betas"]), "1"),
                Choice("loss", "Loss", tuple(data["losses"]), "DPO"),
            ),
            data=data,
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say the five numbers at the marker."""
        data, step = runs(), round(values["step"])
        run = data["runs"][data["losses"].index(values["loss"])][
            data["betas"].index(values["beta"])
        ]
        at = data["steps"].index(step)
        reward, kl, accuracy, chosen, rejected = (
            fmt(run[name]["mean"][at], digits) for name, digits in DIGITS.items()
        )
        return (
            f"{values['loss']}, β = {values['beta']}, {step} updates: true reward {reward}, "
            f"KL {kl}, held-out accuracy {accuracy}; log π chosen {chosen}, rejected {rejected}."
        )


@functools.cache
def runs() -> dict[str, Any]:
    """The stored runs as the browser reads them."""
    return json.loads(DATA.read_text(encoding="utf-8"))


def condense(results: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and range over the seeds at each evaluation, and the samples of the first seed."""
    settings, rows = results["settings"], results["rows"]
    steps = sorted({row["step"] for row in rows})

    def run(loss: str, beta: float) -> dict[str, Any]:
        own = [row for row in rows if (row["loss"], row["beta"]) == (loss, beta)]
        at = [[row for row in own if row["step"] == step] for step in steps]
        found: dict[str, Any] = {}
        for name, digits in DIGITS.items():
            columns = [[row[name] for row in some] for some in at]
            found[name] = {
                what: [round(value, digits) + 0.0 for value in map(over_seeds, columns)]
                for what, over_seeds in (("mean", _mean), ("low", min), ("high", max))
            }
        first = settings["seeds"][0]
        found["samples"] = [r["samples"] for some in at for r in some if r["seed"] == first]
        return found

    return {
        "steps": steps,
        "losses": list(LOSSES),
        "betas": [f"{beta:g}" for beta in settings["betas"]],
        "prompts": settings["shown"],
        "seeds": len(settings["seeds"]),
        "runs": [[run(loss, beta) for beta in settings["betas"]] for loss in LOSSES.values()],
    }


def to_text(data: Mapping[str, Any]) -> str:
    """The text of the data file."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    stored = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_text(to_text(condense(stored)), encoding="utf-8")
