"""What a run shows while it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dpo_lib.cli.progress import Progress, Stage
from dpo_lib.cli.records import Metrics
from dpo_lib.cli.trackers import Trackers
from dpo_lib.fast.pair_log_probs import PairLogProbs
from dpo_lib.logprobs import responses_of

LINES = 20  # of a run that are printed in any case


class Live:
    """The newest numbers on the screen, and their rows in ``metrics.jsonl`` and in trackers.

    Parameters
    ----------
    out : path
        The run's folder.
    steps : int
        Updates of the whole run.
    pairs : int
        Pairs whose reference is scored before the first update.
    progress : Progress
    trackers : Trackers
    write : bool
        Whether to write and show: with several processes one does.
    unit : str
        What they are, in words.
    """

    def __init__(
        self,
        out: Path,
        steps: int,
        pairs: int,
        progress: Progress,
        trackers: Trackers,
        write: bool,
        unit: str = "pairs",
    ) -> None:
        self.metrics = Metrics(out / "metrics.jsonl")
        self.steps, self.pairs, self.progress, self.trackers = steps, pairs, progress, trackers
        self.write, self.unit = write, unit
        self.held_out = ""
        self._open = contextlib.ExitStack()  # the stage before the first update, or the training
        self._stage: Stage | None = None
        self._training: Stage | None = None
        self._evaluation: Stage | None = None

    @contextlib.contextmanager
    def watching(self, log_probs: PairLogProbs) -> Iterator[None]:
        """Show what `train_dpo` does within the block, by its calls of ``log_probs``."""
        with contextlib.ExitStack() as hooks, self._open:
            for handle in (
                log_probs.register_forward_pre_hook(self._before_call),
                log_probs.register_forward_hook(self._after_call),
            ):
                hooks.callback(handle.remove)
            yield

    @contextlib.contextmanager
    def evaluating(self, pairs: int) -> Iterator[None]:
        """Show the scoring of held-out pairs within the block."""
        with self.progress.stage(f"held-out {self.unit}", pairs, self.unit) as self._evaluation:
            yield
        self._evaluation = None

    def _before_call(self, module: torch.nn.Module, arguments: tuple) -> None:
        if self._training or self._evaluation:
            return
        of_level = responses_of(arguments[0][0]) == ("mismatched",)  # thumbs: a part of an update
        if torch.is_grad_enabled() or of_level:
            if self._stage is None or self._stage.total:
                self._enter("first update")
        elif self._stage is None:
            self._enter("reference", self.pairs, self.unit)

    def _after_call(self, module: torch.nn.Module, arguments: tuple, result: object) -> None:
        stage = self._evaluation or (None if self._training else self._stage)
        if stage is not None and stage.total and not torch.is_grad_enabled():
            stage.advance(len(arguments[0]))

    def _enter(self, name: str, total: int | None = None, unit: str = "", done: int = 0) -> Stage:
        self._open.close()
        self._stage = self._open.enter_context(self.progress.stage(name, total, unit, done))
        return self._stage

    def updated(self, row: dict[str, float]) -> None:
        """Take up the row of an update."""
        if not self.write:
            return
        self.metrics.add_update(row)
        self.trackers.log(row)
        done = int(row["step"]) + 1
        if self._training is None:
            self._training = self._enter("update", self.steps, done=done)
        self._training.done = done
        self._training.note = f"loss {row['loss']:.3f}{_numbers(row, 'reward_')}{self.held_out}"
        if done % max(1, self.steps // LINES) == 0 or done == self.steps:
            self.progress.tell(self._training)

    def evaluated(self, row: dict[str, Any]) -> None:
        """Take up the row of an evaluation."""
        if self.write:
            self.metrics.add_evaluation(row)
            self.trackers.log({"step": self.metrics.step, **row})
        self.held_out = f" | held out:{_numbers(row, 'held_out_')}"


def _numbers(row: dict[str, Any], prefix: str) -> str:
    """Accuracy of pairs or AUC of thumbs, and the margin; a batch may lack a kind of thumb."""
    margin = "held_out_margin" if prefix == "held_out_" else "margin"
    names = {f"{prefix}accuracy": "acc", f"{prefix}auc": "auc", margin: "margin"}
    return "".join(f" {word} {row[name]:.2f}" for name, word in names.items() if name in row)
