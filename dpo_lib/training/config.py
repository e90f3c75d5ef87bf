"""Settings of a training run, and the learning rate that they ask for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dpo_lib._validation import as_number, check_positive, check_whole
from dpo_lib.fast.pair_log_probs import DTYPES


@dataclass(frozen=True)
class DPOConfig:
    """Settings of one training run."""

    beta: float = 0.1  # inverse temperature of the KL penalty
    learning_rate: float = 1e-4  # of AdamW, at its highest
    steps: int = 100  # optimizer updates
    batch_size: int = 32  # pairs an update
    accumulate: int = 1  # parts of a batch, one after the other: less memory, the same update
    schedule: str = "constant"  # after the warm-up: "constant", or "linear" or "cosine" to 0
    warmup_steps: int = 0  # updates over which the learning rate rises from 0
    weight_decay: float = 0.0  # of AdamW, on matrices; biases and norms are left alone
    max_grad_norm: float = 1.0  # longer gradients are scaled down to this length; inf: never
    eval_every: int = 10  # updates between evaluations
    seed: int = 0  # decides the order of the pairs
    packed: bool = True  # common prefixes computed once, no padding; the same up to rounding
    lean: bool = True  # models that dpo_lib.fast.lean knows, by its pass; the same up to rounding
    keep_memory: bool = True  # glibc: freed memory stays with the process, for the next update
    dtype: str = "float32"  # or "bfloat16": of the layers; log-probs, weights stay as they are
    force_dtype: bool = False  # bfloat16 even where the device only emulates it

    def __post_init__(self) -> None:
        for name in ("beta", "learning_rate"):
            check_positive(getattr(self, name), name)
        if not as_number(self.max_grad_norm, "max_grad_norm") > 0:
            raise ValueError(f"max_grad_norm must be above 0, got {self.max_grad_norm!r}")
        if not 0 <= as_number(self.weight_decay, "weight_decay") < math.inf:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay!r}")
        for name, least in (
            ("steps", 1), ("batch_size", 1), ("accumulate", 1), ("eval_every", 1),
            ("warmup_steps", 0), ("seed", None),
        ):  # fmt: skip
            object.__setattr__(self, name, check_whole(getattr(self, name), name, least))
        for name in ("packed", "lean", "keep_memory", "force_dtype"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate must be at most batch_size ({self.batch_size}), got {self.accumulate}"
            )
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {[*DTYPES]}, got {self.dtype!r}")
        if not isinstance(self.schedule, str) or self.schedule not in _SCHEDULES:
            raise ValueError(f"schedule must be one of {[*_SCHEDULES]}, got {self.schedule!r}")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of update number ``step``, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * _SCHEDULES[self.schedule](done)


_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
