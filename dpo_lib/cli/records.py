"""The files of a run: settings and results, metrics, samples; each is whole at any moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpo_lib._files import replacing
from dpo_lib.training import TrainingHistory

UNFINISHED = ("checkpoint.pt", "held_out.json")  # needed to go on, dropped at the end
FILES = ("run.json", "metrics.jsonl", "samples.json", "report.html", "model", "logs", *UNFINISHED)


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is the old one or the new one, never half of it."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: object) -> None:
    """`write_whole` of a JSON value."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote, or None.

    Raises
    ------
    ValueError
        If the file is damaged, naming it.
    """
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also of bytes that are no UTF-8
        raise ValueError(
            f"{path} is damaged ({error}); train --restart begins the run again"
        ) from None


def read_run(out: Path) -> dict[str, Any] | None:
    """The ``run.json`` of a run's folder, or None; see `read_json` for its errors."""
    run = read_json(out / "run.json")
    if run is None or (
        isinstance(run, dict) and {"settings", "machine", "finished", "held_out"} <= run.keys()
    ):
        return run
    raise ValueError(
        f"{out / 'run.json'} is damaged (parts are missing); train --restart begins the run again"
    )


def clear(out: Path) -> None:
    """Remove the files of an earlier run, and nothing else."""
    for name in FILES:
        for path in (out / name, *out.glob(f"{name}.*partial")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


class Metrics:
    """``metrics.jsonl``: a line for every update and every evaluation, as they happen.

    A killed run is resumed from its last checkpoint, so some updates are made again. Their lines
    are dropped first: no line is lost, and none is there twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.step: int | None = None  # updates made so far; None before the first event

    def add_update(self, row: dict[str, float]) -> None:
        """Append the row of an update."""
        step = int(row["step"])
        if self.step is None:
            self._keep(step)
        self._append({"kind": "update", **row})
        self.step = step + 1

    def add_evaluation(self, row: dict[str, Any]) -> None:
        """Append the row of an evaluation."""
        if self.step is None:  # a resumed run begins with an update: this is the very start
            write_whole(self.path, "")
            self.step = 0
        self._append({"kind": "evaluation", "step": self.step, **row})

    def finish(self, history: TrainingHistory) -> None:
        """Make the file equal to the history."""
        rows = sorted(
            [{"kind": "update", **row} for row in history.steps]
            + [{"kind": "evaluation", **row} for row in history.evaluations],
            key=lambda row: (row["step"], row["kind"]),  # the evaluation comes before the update
        )
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def _keep(self, step: int) -> None:
        """Drop what comes after the checkpoint, which was written before update ``step``."""
        kept = [
            row
            for row in read_metrics(self.path)
            if row["step"] < step or (row["step"] == step and row["kind"] == "evaluation")
        ]
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row) + "\n")


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of ``metrics.jsonl``; a last line that a kill has cut is left out."""
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}, is damaged ({error}); train --restart begins the run again"
            ) from None
