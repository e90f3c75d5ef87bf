"""What a run shows while it goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dpo_lib.cli.records import Metrics


class Live:
    """A progress bar with the newest numbers, and their rows in ``metrics.jsonl``.

    Parameters
    ----------
    out : path
        The run's folder.
    steps : int
        Updates of the whole run.
    show, write : bool
        Whether to draw, and whether to write the file: with several processes one does.
    """

    def __init__(self, out: Path, steps: int, show: bool, write: bool) -> None:
        self.metrics = Metrics(out / "metrics.jsonl")
        self.steps, self.show, self.write = steps, show and write, write
        self.bar: tqdm | None = None
        self.held_out = ""

    def updated(self, row: dict[str, float]) -> None:
        """Take up the row of an update."""
        if self.write:
            self.metrics.add_update(row)
        if not self.show:
            return
        done = int(row["step"]) + 1
        if self.bar is None:
            self.bar = tqdm(
                total=self.steps, initial=done - 1, unit="update", disable=not sys.stderr.isatty()
            )
        numbers = f"loss {row['loss']:.3f} acc {row['reward_accuracy']:.2f} "
        numbers += f"margin {row['margin']:.2f}{self.held_out}"
        self.bar.set_postfix_str(numbers, refresh=False)
        self.bar.update()
        if self.bar.disable and (done % max(1, self.steps // 20) == 0 or done == self.steps):
            print(f"update {done}/{self.steps}  {numbers}", file=sys.stderr, flush=True)

    def evaluated(self, row: dict[str, Any]) -> None:
        """Take up the row of an evaluation."""
        if self.write:
            self.metrics.add_evaluation(row)
        self.held_out = f" | held out: acc {row['held_out_accuracy']:.2f} "
        self.held_out += f"margin {row['held_out_margin']:.2f}"

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()
