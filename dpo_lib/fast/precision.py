"""Which precision the layers may compute in on a device."""

from __future__ import annotations

import functools
import time

import torch

from dpo_lib.fast import kernels

DTYPES = ("float32", "bfloat16")
TOO_SLOW = 1.5  # native bfloat16 takes half of float32's time, emulated 5 to 125 times of it
_SHAPES = {"cpu": (128, 256, 512)}  # rows, and sides of the weights, of the product that is timed
_LARGE = (2048, 2048, 2048)  # ... on other devices
_ROUNDS = 7


def check_dtype(device: torch.device | str, dtype: str, force: bool = False) -> None:
    """Refuse a precision that the device only emulates.

    Parameters
    ----------
    device : torch.device or str
        Where the layers compute.
    dtype : {"float32", "bfloat16"}
        What they compute in.
    force : bool
        Take it as it is.

    Raises
    ------
    ValueError
        If ``dtype`` is not one of these; or if it is bfloat16, not forced, and a matrix product
        in it takes longer than in float32, naming how much.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {[*DTYPES]}, got {dtype!r}")
    if dtype == "float32" or force:
        return
    reason = reason_against_bfloat16(device)
    if reason:
        raise ValueError(
            f"dtype 'bfloat16' would only be slower: {reason}; take float32, or force it "
            "(force_dtype=True, on the command line --force-dtype)"
        )


def reason_against_bfloat16(device: torch.device | str = "cpu") -> str:
    """Why a device should not compute in bfloat16; empty if it has it."""
    device = torch.device(device)
    cost = bfloat16_cost(device)
    if cost <= TOO_SLOW:
        return ""
    name = "processor" if device.type == "cpu" else f"{device.type} device"
    return (
        f"this {name} emulates it, and a matrix product takes {cost:.3g} times as long as in "
        "float32, measured just now"
    )


@functools.cache
def bfloat16_cost(device: torch.device) -> float:
    """Time of a matrix product in bfloat16 over that of the same in float32.

    Measured once in a process: what a processor says of itself is one thing, what the libraries
    make of it, and of the variables that bind them to older instructions, another. The shortest
    of several times in alternation on one thread, so that load beside it does not decide.
    """
    rows, inner, columns = _SHAPES.get(device.type, _LARGE)
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, inner, generator=generator).to(device) for n in (rows, columns))
    synchronize = torch.get_device_module(device).synchronize
    shortest = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(_ROUNDS):
            for dtype in shortest:
                inputs = x.to(dtype), weight.to(dtype)
                synchronize()
                started = time.perf_counter()
                with torch.no_grad():
                    kernels.linear(*inputs)
                synchronize()
                shortest[dtype] = min(shortest[dtype], time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return shortest[torch.bfloat16] / shortest[torch.float32]
