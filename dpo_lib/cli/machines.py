"""One process or many: what differs when accelerate or torchrun started the command."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch

from dpo_lib.cli.models import OpenModel


class Machines:
    """The processes of this run; alone unless a launcher says otherwise."""

    def __init__(self) -> None:
        self.accelerator: Any = None
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
        if launched or "ACCELERATE_MIXED_PRECISION" in os.environ:
            from accelerate import Accelerator

            self.accelerator = Accelerator(cpu=not torch.cuda.is_available())

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.accelerator is None or self.accelerator.is_main_process

    @property
    def number(self) -> int:
        """How many processes there are."""
        return 1 if self.accelerator is None else self.accelerator.num_processes

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the parameters only."""
        return self.accelerator is not None and "FSDP" in str(self.accelerator.distributed_type)

    def place(self, opened: OpenModel) -> None:
        """Move the model to this process's device."""
        if self.sharded:
            return  # a whole model may not fit: the parts are placed in training
        if self.accelerator is not None:
            opened.model.to(self.accelerator.device)
        elif torch.cuda.is_available():
            opened.model.to("cuda")

    def for_training(self) -> dict[str, Any]:
        """Arguments for `train_dpo`."""
        return {} if self.accelerator is None else {"accelerator": self.accelerator}

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def say(self, text: str) -> None:
        """Print, once."""
        if self.main:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def quiet_others(self) -> Iterator[None]:
        """Only the main process reports an error that all of them meet."""
        try:
            yield
        except ValueError:
            if not self.main:
                raise SystemExit(2) from None
            raise
