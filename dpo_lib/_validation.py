"""Checks shared by the public functions: bad input becomes a ``ValueError`` that names it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

# A log-probability computed in float32 may land this far above 0 (nats) by rounding alone.
LOG_PROB_SLACK = 1e-6


class Checks:
    """What has been asked of values and not yet looked at."""

    def __init__(self) -> None:
        self._asked: list[tuple[Tensor, Callable[[], str]]] = []

    def add(self, bad: Tensor, message: Callable[[], str]) -> None:
        """Ask for a ``ValueError`` if an entry of ``bad`` is true."""
        self._asked.append((bad, message))

    def failed(self) -> Tensor:
        """Whether any check has failed: a scalar, where the values are, and not yet read."""
        devices = [bad.device for bad, _ in self._asked]
        device = next((d for d in devices if d.type != "cpu"), torch.device("cpu"))
        found = [bad.any().to(device, non_blocking=True) for bad, _ in self._asked]
        return torch.stack(found).any() if found else torch.zeros((), dtype=torch.bool)

    def settle(self) -> None:
        """Raise the error of the first check that has failed; if none has, look once."""
        if self.failed():
            for bad, message in self._asked:
                if bad.any():
                    raise ValueError(message())


_gathered: ContextVar[Checks | None] = ContextVar("_gathered", default=None)


@contextmanager
def gathered_checks() -> Iterator[Checks]:
    """Gather all checks within the block; who opened it looks at them."""
    checks = Checks()
    token = _gathered.set(checks)
    try:
        yield checks
    finally:
        _gathered.reset(token)


@contextmanager
def checked_at_once() -> Iterator[None]:
    """Look at all checks within the block, or the decorated function, once, at its end.

    Only a look that finds something wrong is followed by others, to find out what.
    """
    if _gathered.get() is not None:  # a part of something larger, which will look
        yield
        return
    with gathered_checks() as checks:
        try:
            yield
        finally:  # also upon another error: a bad value may be the reason
            checks.settle()


def as_float_tensor(value: object, name: str) -> Tensor:
    """Return ``value`` as a real floating tensor; Python numbers and integers become float64."""
    try:
        # Without a dtype, as_tensor would round Python floats to float32.
        dtype = None if hasattr(value, "dtype") else torch.float64
        tensor = torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"{name} must be a number or a tensor of numbers, got {value!r}"
        ) from error
    if tensor.is_complex():
        raise ValueError(f"{name} must be real, got dtype {tensor.dtype}")
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64)


def refuse(bad: Tensor, message: Callable[[], str]) -> None:
    """Raise ``ValueError(message())`` if an entry of ``bad`` is true.

    The answer is looked at now, for which a GPU is waited for, or, within `gathered_checks` or
    `checked_at_once`, together with all others.
    """
    checks = _gathered.get()
    if checks is not None:
        checks.add(bad, message)
    elif bad.any():
        raise ValueError(message())


def check_finite(tensor: Tensor, name: str) -> None:
    """Refuse NaN and infinite entries."""
    values = tensor.detach()
    bad = ~torch.isfinite(values)
    refuse(bad, lambda: f"{name} must be finite, got {values[bad].flatten()[:3].tolist()}")


def check_log_probs(value: object, name: str) -> Tensor:
    """Return finite log-probabilities (nats) as a tensor; refuse values above 0."""
    tensor = as_float_tensor(value, name)
    check_finite(tensor, name)
    values = tensor.detach()
    refuse(
        values > LOG_PROB_SLACK,
        lambda: f"{name} must be log-probabilities, which are at most 0; got {values.max():g}",
    )
    return tensor


def check_same_shape(**tensors: Tensor) -> None:
    """Refuse tensors of different shapes: silent broadcasting would pair the wrong examples."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes must agree, got {listed}")


def check_paired_log_probs(**values: object) -> list[Tensor]:
    """Return log-probabilities of one shape as tensors; errors name them by their keywords."""
    with checked_at_once():
        logps = {name: check_log_probs(value, name) for name, value in values.items()}
    check_same_shape(**logps)
    return list(logps.values())


def check_positive(value: float, name: str) -> float:
    """Return ``value`` as a float if it is a finite number above 0."""
    number = as_number(value, name)
    if not 0.0 < number < float("inf"):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return number


def check_label_smoothing(value: float) -> float:
    """Return the label-smoothing share if it lies in [0, 0.5)."""
    number = as_number(value, "label_smoothing")
    if not 0.0 <= number < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), got {value!r}")
    return number


def check_whole(value: object, name: str, least: int | None = None) -> int:
    """Return ``value`` as an int if it is a whole number, at least ``least``."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from error
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def as_number(value: object, name: str) -> float:
    """Return ``value`` as a float if it is one number."""
    try:
        if isinstance(value, str):  # float() would read it
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be a number, got {value!r}") from error
