"""Checks shared by the public functions: bad input becomes a ``ValueError`` that names it."""

from __future__ import annotations

import torch
from torch import Tensor

# A log-probability computed in float32 may land this far above 0 (nats) by rounding alone.
LOG_PROB_SLACK = 1e-6


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


def check_finite(tensor: Tensor, name: str) -> None:
    """Refuse NaN and infinite entries."""
    finite = torch.isfinite(tensor)
    if not finite.all():
        bad = tensor[~finite].flatten()[:3].tolist()
        raise ValueError(f"{name} must be finite, got {bad}")


def check_log_probs(value: object, name: str) -> Tensor:
    """Return finite log-probabilities (nats) as a tensor; refuse values above 0."""
    tensor = as_float_tensor(value, name)
    check_finite(tensor, name)
    if (tensor > LOG_PROB_SLACK).any():
        raise ValueError(
            f"{name} must be log-probabilities, which are at most 0; got {tensor.max().item():g}"
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
    logps = {name: check_log_probs(value, name) for name, value in values.items()}
    check_same_shape(**logps)
    return list(logps.values())


def check_positive(value: float, name: str) -> float:
    """Return ``value`` as a float if it is a finite number above 0."""
    number = _as_float(value, name)
    if not 0.0 < number < float("inf"):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return number


def check_label_smoothing(value: float) -> float:
    """Return the label-smoothing share if it lies in [0, 0.5)."""
    number = _as_float(value, "label_smoothing")
    if not 0.0 <= number < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), got {value!r}")
    return number


def _as_float(value: object, name: str) -> float:
    try:
        if isinstance(value, str):  # float() would read it
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be a number, got {value!r}") from error
