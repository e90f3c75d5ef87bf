"""The machine: what it is, and how fast it multiplies matrices.

python -m dpo_lib.benchmarks.machine    prints both
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dpo_lib.fast import kernels
from dpo_lib.fast.precision import reason_against_bfloat16

RESULTS = Path(__file__).parent / "results"  # a folder for each kind of processor
KINDS = {"avx512": "AVX-512", "avx2": "AVX2", "default": "neither AVX2 nor AVX-512"}
HELD_BY = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")  # variables that allow older instructions
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Rows, columns of the input, columns of the output: a large product, and those of a step of
# SmolLM2 with 300 tokens, forward and (last of each) for the gradient of a weight.
SHAPES = (
    (2048, 2048, 2048),
    (300, 576, 960),
    (300, 576, 3072),
    (300, 1536, 576),
    (200, 576, 49152),
    (3072, 300, 576),
)
SECONDS = 0.4  # for which each product is repeated


def kind() -> str:
    """What decides about the ratios: the instructions that the libraries may use here."""
    found = torch.backends.cpu.get_cpu_capability().lower()
    if found == "avx512" and kernels.onednn_product(torch.float32) is None:
        return "avx2"  # oneDNN, which has the products to do, is held to less
    return found


def without(titles: Mapping[str, str]) -> dict[str, str]:
    """Which of these implementations this machine should not run, and why."""
    reason = reason_against_bfloat16()
    return {name: reason for name, title in titles.items() if "bfloat16" in title and reason}


def describe(n_threads: int) -> dict[str, object]:
    """What one has to know about the machine to read a time."""
    installed = {}
    for name in ("torch", "transformers", "trl", "accelerate"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    held = {name: os.environ[name] for name in HELD_BY if name in os.environ}
    return {
        "date": datetime.date.today().isoformat(),
        "kind": kind(),
        "processor": _processor(),
        **({"held_by": held} if held else {}),
        "cores": len(os.sched_getaffinity(0)),
        "threads": n_threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed,
    }


def _processor() -> str:
    """Name and what it offers beyond the ordinary."""
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*:\s*(.*)", text)
    flags = re.search(r"flags\s*:\s*(.*)", text)
    known = {"avx512f": "AVX-512", "avx512_bf16": "bfloat16", "amx_bf16": "AMX"}
    has = [title for flag, title in known.items() if flags and flag in flags[1].split()]
    return f"{name[1] if name else platform.machine()} ({', '.join(has) or 'no AVX-512'})"


def matmul_rates(shapes: Sequence[tuple[int, int, int]] = SHAPES) -> dict[str, dict[str, float]]:
    """Multiply matrices in every way at hand, as often as fits in a short while.

    Returns
    -------
    dict
        For each dtype, bfloat16 only where the machine has it: GFLOP/s of the fastest call of
        ``torch.mm`` (MKL, for float32) or of oneDNN, by shape, and under "best" the largest.
    """
    rates: dict[str, dict[str, float]] = {}
    left_out = without({name: name for name in DTYPES})
    for name, dtype in DTYPES.items():
        if name in left_out:
            continue
        ways = multiplications(dtype)
        rates[name] = {
            " x ".join(map(str, shape)): max(_rate(f, shape, dtype) for f in ways)
            for shape in shapes
        }
        rates[name]["best"] = max(rates[name].values())
    return rates


def multiplications(dtype: torch.dtype) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """Functions of x (M, K) and w (N, K) that give x @ w.T: those that there are here."""
    found: list[Callable[[Tensor, Tensor], Tensor]] = [lambda x, w: torch.mm(x, w.T)]
    product = kernels.any_onednn_product(dtype)
    if product is not None:
        found.append(lambda x, w: product(x, w, None))
    return found


def _rate(
    multiply: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, int, int], dtype: torch.dtype
) -> float:
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(rows, k, generator=generator).to(dtype) for rows in (m, n))
    with torch.no_grad():
        multiply(x, w)
        fastest, end = float("inf"), time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            started = time.perf_counter()
            multiply(x, w)
            fastest = min(fastest, time.perf_counter() - started)
    return 2 * m * k * n / fastest / 1e9


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(json.dumps(describe(torch.get_num_threads()), indent=1))
    print(json.dumps(matmul_rates() | without({name: name for name in DTYPES}), indent=1))
