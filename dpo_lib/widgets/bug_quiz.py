"""Appendix E: a stored run, its curves beside the sound ones, and the question which bug it has.

python -m dpo_lib.widgets.bug_quiz dpo_lib/results/bug_zoo.json
writes ``data/bug_quiz.json`` anew from an experiment's results.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import WidgetSpec

DATA = Path(__file__).parent / "data" / "bug_quiz.json"
SEED = 1  # of the runs that are shown; the sound runs behind them are those of all seeds
CURVES = ("loss", "accuracy", "chosen", "rejected", "grad_norm")

TITLES = {
    "sound": "No bug",
    "slice": "Wrong slice",
    "prompt": "Prompt in the mask",
    "pads": "Pads in the sum",
    "eos": "No EOS",
    "dropout": "Dropout on in the policy",
    "reference": "Reference not frozen",
    "dtype": "Reference in another dtype",
    "swap": "Chosen and rejected swapped",
    "mean": "Mean for sum",
    "axis": "Log-softmax over the wrong axis",
}

# The runs in the order of the quiz: which, the four answers, and how it could be told.
ROUNDS = (
    (
        "reference",
        ("dtype", "reference", "mean", "swap"),
        "Every reward is a model minus itself, so loss, accuracy and margin never move. "
        "The gradient is not zero: the policy runs away unseen, and its samples show it.",
    ),
    (
        "dropout",
        ("dropout", "pads", "dtype", "axis"),
        "The policy is noisier than its reference, so the first loss is far above log 2 and both "
        "log-ratios start below zero. Only dropout in one of the two does that.",
    ),
    (
        "pads",
        ("eos", "mean", "pads", "swap"),
        "The first log-probability is far too low for a short answer, the gradient far too large: "
        "most of the score is padding, and most of the learning goes there.",
    ),
    (
        "sound",
        ("axis", "swap", "mean", "sound"),
        "First loss log 2, a first log-probability of a few nats, EOS among the scored tokens, "
        "better samples at a small KL: nothing is wrong here.",
    ),
    (
        "swap",
        ("sound", "swap", "eos", "slice"),
        "The curves are those of a sound run, since the code that trains also keeps the score. "
        "The samples tell: the true reward has fallen.",
    ),
    (
        "mean",
        ("mean", "dtype", "reference", "eos"),
        "A first log-probability near that of one token, a tiny gradient, a loss that hardly "
        "falls: all is divided by the length. β is too small by that factor, so KL is large.",
    ),
    (
        "prompt",
        ("dropout", "slice", "prompt", "reference"),
        "Loss and accuracy are those of the sound run to the last digit: the prompt cancels in the "
        "difference. Only the two log-ratios, and the first log-probability, contain it.",
    ),
    (
        "eos",
        ("pads", "axis", "prompt", "eos"),
        "No curve shows it. The scored tokens do: they end without EOS. Here the model still "
        "stops, as SFT has taught it to.",
    ),
    (
        "slice",
        ("sound", "slice", "mean", "reference"),
        "Loss falls and accuracy rises, yet the samples have not changed. A first log-probability "
        "that bad says that these texts were not scored as the model reads them.",
    ),
    (
        "dtype",
        ("mean", "dtype", "dropout", "pads"),
        "Only the first loss gives it away: not quite log 2, because one of two equal models was "
        "rounded. Here it does little harm.",
    ),
    (
        "axis",
        ("prompt", "eos", "axis", "sound"),
        "The curves improve a little and the samples do not: what is normalized over positions is "
        "no probability of a word. The first log-probability is wrong, too.",
    ),
)


class BugQuiz(BookWidget):
    """The curves of a run whose name is hidden, four answers, and the explanation afterward."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="bug_quiz",
            title="Which bug is this?",
            data={"titles": list(TITLES.values()), "rounds": rounds(), **runs()["sound"]},
            state={"shown": 0, "answers": []},  # run on the screen; answers given, as places
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say which run is shown, what was answered, and the score."""
        shown, answers = values["shown"], list(values["answers"])
        right = sum(is_right(i, answer) for i, answer in enumerate(answers))
        score = f"Score: {right} of {len(answers)}."
        run = f"Run {shown + 1} of {len(ROUNDS)}"
        if shown >= len(answers):
            return f"{run}: which bug is this? {score}"
        name, options, _ = ROUNDS[shown]
        if is_right(shown, answers[shown]):
            return f"{run}: right, “{TITLES[name]}”. {score}"
        given = TITLES[options[answers[shown]]]
        return f"{run}: not “{given}” but “{TITLES[name]}”. {score}"


def is_right(shown: int, answer: int) -> bool:
    """Whether the answer at this place is the bug of this run."""
    name, options, _ = ROUNDS[shown]
    return options[answer] == name


def rounds() -> list[dict[str, Any]]:
    """The runs as the browser reads them, in the order of the quiz."""
    names = list(TITLES)
    return [
        {
            "options": [names.index(option) for option in options],
            "right": options.index(name),
            "why": why,
            **runs()["specimens"][name],
        }
        for name, options, why in ROUNDS
    ]


@functools.cache
def runs() -> dict[str, Any]:
    """The stored runs."""
    return json.loads(DATA.read_text(encoding="utf-8"))


def condense(results: Mapping[str, Any]) -> dict[str, Any]:
    """One run of each specimen, and the range of the sound runs behind all of them."""
    settings, rows = results["settings"], results["rows"]
    width = settings["bin"]
    sound = [row for row in rows if row["bug"] == "sound"]

    def short(value: float) -> float:
        return float(f"{value:.3g}") + 0.0

    def specimen(row: Mapping[str, Any]) -> dict[str, Any]:
        looks = row["looks"]
        return {
            "curves": {key: [short(x) for x in row["updates"][key]] for key in CURVES},
            "own_accuracy": [short(x) for x in looks["own_accuracy"]],
            "first_loss": round(row["first"]["loss"], 4),
            "first_logp": round(row["reference_logp"] + row["first"]["chosen"], 1),
            "scored": row["scored"],
            "reward": [round(looks["true_reward"][i], 2) + 0.0 for i in (0, -1)],
            "kl": round(looks["kl"][-1], 2) + 0.0,
        }

    def over_seeds(pick: Any, key: str) -> list[float]:
        columns = zip(*(row["updates"][key] for row in sound), strict=True)
        return [short(pick(column)) for column in columns]

    return {
        "sound": {
            "steps": [width * i + (width - 1) / 2 for i in range(settings["steps"] // width)],
            "looks": [*range(0, settings["steps"] + 1, settings["every"])],
            "low": {key: over_seeds(min, key) for key in CURVES},
            "high": {key: over_seeds(max, key) for key in CURVES},
        },
        "specimens": {row["bug"]: specimen(row) for row in rows if row["seed"] == SEED},
    }


def to_text(data: Mapping[str, Any]) -> str:
    """The text of the data file."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    stored = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_text(to_text(condense(stored)), encoding="utf-8")
