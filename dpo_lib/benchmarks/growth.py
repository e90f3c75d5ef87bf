"""How the time of a step grows with the batch, with prompts and responses, and the vocabulary.

python -m dpo_lib.benchmarks.growth [--models tiny smollm2] [--rounds N] [--threads 2] [--quick]

writes growth.json into the folder of this kind of processor in dpo_lib/benchmarks/results. Random
pairs that share nothing but a pair's own prompt.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from dpo_lib.benchmarks.implementations import implementations
from dpo_lib.benchmarks.machine import describe
from dpo_lib.benchmarks.step import parser_of, progress, read_options
from dpo_lib.benchmarks.turns import take_turns
from dpo_lib.benchmarks.work import sizes_of, tokens_of, unavoidable_flops
from dpo_lib.benchmarks.workloads import Workload, load_model, random_pairs
from dpo_lib.experiments.store import store
from dpo_lib.models import TinyGPTConfig

MEASURED = ("ours", "textbook", "trl_precomputed")
WARM_UP = 1  # rounds of every point that do not count


class Point(NamedTuple):
    """One size of the work."""

    batch: int  # pairs
    prompt: int  # tokens
    response: int  # tokens of each of the two
    vocabulary: int


class Axis(NamedTuple):
    """Points that differ in one size."""

    varied: str
    points: tuple[Point, ...]


def _axes(start: Point, **values: Sequence[int]) -> tuple[Axis, ...]:
    return tuple(
        Axis(name, tuple(start._replace(**{name: size}) for size in sizes))
        for name, sizes in values.items()
    )


AXES = {
    "tiny": _axes(
        Point(batch=8, prompt=64, response=32, vocabulary=260),
        batch=(2, 4, 8, 16, 32),
        prompt=(16, 32, 64, 128),
        response=(8, 16, 32, 64, 128),
        vocabulary=(260, 2048, 8192, 32768),
    ),
    "smollm2": _axes(
        Point(batch=2, prompt=50, response=30, vocabulary=49152),
        batch=(1, 2, 4, 8),
        prompt=(50, 200, 400, 800),
        response=(15, 30, 60, 120),
    ),
}
ROUNDS = {"tiny": 5, "smollm2": 2}  # that count
# Without the textbook: it is slow at these sizes, and TRL stands for the padded.
LEFT_OUT = {"smollm2": ("textbook",)}
# Nats. Log-probabilities of long texts are in the hundreds, their rounding errors with them.
TOLERANCE = 2e-4
RATES = {"tiny": 1e-5, "smollm2": 1e-6}


def workloads(model: str, points: Sequence[Point], rounds: int) -> Iterator[Workload]:
    """A workload for each point; all of one model."""
    for point in points:
        architecture = "smollm2"
        if model == "tiny":
            architecture = TinyGPTConfig(
                point.vocabulary, context_length=256, width=128, heads=4, layers=4
            )
        batches = [
            random_pairs(
                point.batch, point.prompt, point.response, point.response, point.vocabulary, seed
            )
            for seed in range(WARM_UP + rounds)
        ]
        yield Workload(architecture, batches, 0, RATES[model])


def measure(model: str, rounds: int, n_threads: int) -> list[dict[str, Any]]:
    """A row for each point and implementation."""
    rows = []
    # One process takes all points of a vocabulary: it loads its model once.
    for vocabulary in sorted({p.vocabulary for axis in AXES[model] for p in axis.points}):
        labeled = [
            (axis.varied, point)
            for axis in AXES[model]
            for point in axis.points
            if point.vocabulary == vocabulary
        ]
        loads = [*workloads(model, [point for _, point in labeled], rounds)]
        some = {
            name: implementation
            for name, implementation in implementations(loads, TOLERANCE).items()
            if name in MEASURED and name not in LEFT_OUT.get(model, ())
        }
        counts = ([False] * WARM_UP + [True] * rounds) * len(labeled)
        found = take_turns(some, counts, n_threads, progress(f"{model}, {vocabulary} tokens"))
        print(file=sys.stderr)
        sizes = sizes_of(load_model(loads[0].model))
        for i, ((varied, point), workload) in enumerate(zip(labeled, loads, strict=True)):
            tokens = tokens_of(workload.batches[0])
            rows += [
                {
                    "model": model,
                    "varied": varied,
                    **point._asdict(),
                    "unique_tokens": tokens.unique,
                    "sequence_tokens": tokens.total,
                    "gflop": unavoidable_flops(sizes, tokens) / 1e9,
                    "name": name,
                    "seconds": mine.seconds[i * rounds : (i + 1) * rounds],
                }
                for name, mine in found.items()
            ]
    return rows


class Line(NamedTuple):
    """A straight line through points, by least squares of relative errors."""

    start: float
    slope: float
    r_squared: float
    worst: float  # largest distance of a point from the line, as a share of the point


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Fit y = start + slope x; a point counts by its relative error, so that small ones do too."""
    at, values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    columns = np.stack([np.ones_like(at), at], axis=1) / values[:, None]
    (start, slope), *_ = np.linalg.lstsq(columns, np.ones_like(at), rcond=None)
    errors = start + slope * at - values
    r_squared = 1 - (errors**2).sum() / ((values - values.mean()) ** 2).sum()
    return Line(float(start), float(slope), float(r_squared), float(abs(errors / values).max()))


def seconds_of(row: Mapping[str, Any]) -> float:
    """Shortest time of a row: whatever else the machine does only adds to it."""
    return min(row["seconds"])


def linearity(rows: Sequence[Mapping[str, Any]], model: str, name: str = "ours") -> Line:
    """Time against unique tokens, over all points of one vocabulary."""
    some = [
        row
        for row in rows
        if row["model"] == model and row["name"] == name and row["varied"] != "vocabulary"
    ]
    return fit_line([row["unique_tokens"] for row in some], [seconds_of(row) for row in some])


def prompt_price(rows: Sequence[Mapping[str, Any]], model: str, name: str) -> float:
    """Time of a token more in the prompt of each pair, in units of a response token more.

    One token more in a prompt and one more in one response are both one unique token. The price
    is about 1 where a prompt is paid once and about 2 where it is paid for either response.
    """

    def slope(varied: str, tokens: int) -> float:
        some = [r for r in rows if (r["model"], r["name"], r["varied"]) == (model, name, varied)]
        line = fit_line([tokens * r[varied] for r in some], [seconds_of(r) for r in some])
        return line.slope

    return slope("prompt", 1) / slope("response", 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and store."""
    options = read_options(parser_of(__doc__, AXES), arguments)
    torch.set_num_threads(options.threads)
    rows = []
    for model in options.models:
        rows += measure(model, options.rounds or ROUNDS[model], options.threads)
    settings = {"machine": describe(options.threads), "warm_up": WARM_UP}
    print(store("growth", settings, rows, options.out), file=sys.stderr)


if __name__ == "__main__":
    main()
