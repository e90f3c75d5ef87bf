"""The settings of a run: what was typed, and what follows from the model and the data."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import math
from dataclasses import dataclass, fields
from typing import Any

from dpo_lib.cli.data import DataSettings
from dpo_lib.cli.parser import BATCH_SIZE, LEARNING_RATE, LORA_RANK, MOST_STEPS, SPLITS
from dpo_lib.losses import as_loss_function
from dpo_lib.training import DPOConfig


@dataclass(frozen=True)
class RunSettings:
    """Settings of one run of ``train``; None where the model, the loss or the data decide."""

    out: str  # folder of the run
    data: tuple[str, ...]  # files of preferences; this and what follows as in `DataSettings`
    map: tuple[tuple[str, str], ...] = ()
    encoding: str | None = None
    score: str | None = None
    label: tuple[str, str] | None = None
    system: str | None = None
    skip_bad: bool = False
    max_length: int | None = None
    plain: bool = False
    control_tokens: bool = False
    answer_prefix: str = ""
    template: tuple[tuple[str, Any], ...] = ()
    model: str = "smollm2"  # what training starts from
    eval_data: tuple[str, ...] = ()  # files of held-out pairs, instead of a share of `data`
    held_out: float = 0.1  # share of the prompts that is not trained on
    eval_pairs: int | None = None  # held-out pairs scored while training
    lora: int | None = None  # rank of the adapters
    full: bool = False  # train every weight
    loss: str | None = None  # its name in LOSSES
    option: tuple[tuple[str, float], ...] = ()  # settings of the loss
    beta: float | None = None  # inverse temperature of the KL penalty
    lr: float | None = None  # learning rate at its highest
    steps: int | None = None  # updates
    epochs: float | None = None  # passes over the pairs, instead of `steps`
    batch_size: int | None = None  # pairs an update
    accumulate: int = 1  # parts of a batch, one after the other
    warmup: int = 0  # updates over which the learning rate rises
    schedule: str = "constant"  # of the learning rate after the warm-up
    seed: int = 0  # of the split, the order of the pairs, the adapters and the samples
    dtype: str = "float32"  # of the layers
    force_dtype: bool = False  # though another one is faster here
    eval_every: int | None = None  # updates between evaluations, and between checkpoints
    samples: int = 6  # prompts answered before and after
    max_new_tokens: int = 48  # where a sampled answer is cut
    threads: int | None = None  # of torch on the processor
    log_with: str | None = None  # tracker of Accelerate
    restart: bool = False  # drop what is in `out`
    quiet: bool = False  # show no progress

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be in [0, 1), got {self.held_out}")
        if self.full and self.lora:
            raise ValueError(f"full and lora exclude each other, got lora {self.lora}")
        if self.loss is not None:
            as_loss_function(self.loss)
        for name in ("beta", "lr", "epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {value}")
        for name, least in (
            ("steps", 1), ("batch_size", 1), ("eval_every", 1), ("eval_pairs", 1), ("lora", 1),
            ("threads", 1), ("max_length", 2), ("max_new_tokens", 1), ("samples", 0), ("seed", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")

    @classmethod
    def typed(cls, args: argparse.Namespace) -> RunSettings:
        """Settings from the parsed command line."""
        values = {field.name: getattr(args, field.name) for field in fields(cls)}
        values["eval_data"] = values["eval_data"] or ()
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def completed(
        self, tiny: bool, pairs: int, adapter: int | None = None, unpaired: bool = False
    ) -> RunSettings:
        """The settings with every default filled in but those of the evaluations (see `plan`).

        Parameters
        ----------
        tiny : bool
            Whether the model is one of the book's.
        pairs : int
            That can be trained on.
        adapter : int, optional
            Rank of the adapters that the model already has; they are trained further.
        unpaired : bool
            Whether they are thumbs: then a batch has twice as many, as many responses as of pairs.

        Raises
        ------
        ValueError
            If a setting does not go with the model.
        """
        if tiny and self.lora:
            raise ValueError("--lora is for models of transformers; tiny is trained in full")
        if adapter and self.lora not in (None, adapter):
            raise ValueError(
                f"--lora {self.lora}: {self.model} has adapters of rank {adapter}, which are "
                "trained further; leave --lora out, or put them into the weights first "
                f"(python -m dpo_lib merge --model {self.model} --out FOLDER)"
            )
        lora = None if tiny or self.full else self.lora or adapter or LORA_RANK
        kind = "tiny" if tiny else "LoRA" if lora else "full"
        loss = self.loss or ("kto" if unpaired else "rpo" if kind == "full" else "dpo")
        beta = self.beta
        if beta is None:
            usual = inspect.signature(as_loss_function(loss)).parameters["beta"].default
            beta = 1.0 if tiny and usual == 0.1 else usual
        batch_size = self.batch_size or BATCH_SIZE["tiny" if tiny else "others"] * (1 + unpaired)
        steps = self.steps or min(MOST_STEPS, max(1, pairs // batch_size))
        if self.epochs is not None:
            steps = max(1, math.ceil(self.epochs * pairs / batch_size))
        return dataclasses.replace(
            self,
            lora=lora,
            full=lora is None,
            loss=loss,
            beta=beta,
            lr=self.lr or LEARNING_RATE[kind],
            batch_size=batch_size,
            steps=steps,
            eval_every=self.eval_every or usual_every(steps),
        )

    def data_settings(self, evaluation: bool = False) -> DataSettings:
        """How the pairs are read, or those to evaluate on."""
        values = vars(self)
        return DataSettings.of({**values, "data": self.eval_data} if evaluation else values)

    def config(self) -> DPOConfig:
        """What `train_dpo` needs of completed settings."""
        return DPOConfig(
            beta=self.beta,
            learning_rate=self.lr,
            steps=self.steps,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            schedule=self.schedule,
            warmup_steps=self.warmup,
            eval_every=self.eval_every,
            dtype=self.dtype,
            force_dtype=self.force_dtype,
            seed=self.seed,
        )

    def identity(self) -> dict[str, Any]:
        """What decides the numbers of a run, as JSON has it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _FREE}
        return json.loads(json.dumps(values))


def usual_every(steps: int) -> int:
    """Updates between two evaluations where their time is no question."""
    return max(1, -(-steps // SPLITS))


# What may differ when a run is taken up again: it does not change what is computed.
_FREE = (
    "out", "data", "eval_data", "epochs", "samples", "max_new_tokens", "threads", "log_with",
    "force_dtype", "restart", "quiet",
)  # fmt: skip
