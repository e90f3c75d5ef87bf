"""One optimizer step of everybody, side by side.

python -m dpo_lib.benchmarks.step [--models tiny smollm2] [--rounds N] [--threads 2] [--quick]

writes step.json into the folder of this kind of processor in dpo_lib/benchmarks/results. If losses
disagree nothing is written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpo_lib.benchmarks.implementations import implementations
from dpo_lib.benchmarks.machine import RESULTS, describe, kind, matmul_rates, without
from dpo_lib.benchmarks.turns import Measured, take_turns
from dpo_lib.benchmarks.work import sizes_of, tokens_of, unavoidable_flops
from dpo_lib.benchmarks.workloads import WORKLOADS, load_model, token_statistics
from dpo_lib.experiments.store import store

# Who takes turns with whom; "ours" is in every group, as what all ratios refer to. Four or five
# processes with SmolLM2 fit into 24 GiB.
GROUPS = {
    "smollm2": {
        "trl": ("ours", "ours_stock", "ours_bfloat16", "trl_default", "trl_precomputed"),
        "trl_other": ("ours", "ours_padded", "trl_float32", "trl_bfloat16"),
        "peers": ("ours", "textbook", "concatenated", "raschka", "lesson"),
    },
    "tiny": {
        "all": (
            *("ours", "ours_stock", "ours_padded", "ours_bfloat16"),
            *("trl_default", "trl_float32", "trl_precomputed", "trl_bfloat16"),
            *("textbook", "concatenated", "raschka", "lesson"),
        )
    },
    "tiny_bytes": {"all": ("ours", "trl_default", "trl_precomputed", "textbook")},
}
ROUNDS = {"smollm2": 6, "tiny": 30, "tiny_bytes": 30}  # that count
QUICK = "tiny"  # the model of --quick, for one round of everything
WARM_UP = {"smollm2": 2, "tiny": 5, "tiny_bytes": 5}  # that do not
MOVED = 1e-3  # nats that losses must have gone, or their agreement says nothing of updates


def measure(
    model: str, rounds: int, n_threads: int, only: Sequence[str] | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every group of a model: what was computed, and a row for each implementation."""
    warm_up = WARM_UP[model]
    workload = WORKLOADS[model](warm_up + rounds)
    loaded = load_model(workload.model)
    sizes, vocabulary = sizes_of(loaded), loaded.config.vocab_size
    del loaded
    counts = [tokens_of(batch) for batch in workload.batches]
    flops = [unavoidable_flops(sizes, tokens) for tokens in counts[warm_up:]]
    everybody = implementations([workload])
    left_out = without({name: everybody[name].title for name in everybody})
    rows = []
    for group, names in GROUPS[model].items():
        some = {
            name: everybody[name]
            for name in names
            if (not only or name in ("ours", *only)) and name not in left_out
        }
        if len(some) == 1 and only != ["ours"]:
            continue
        counting = [False] * warm_up + [True] * rounds
        measured = take_turns(some, counting, n_threads, progress(f"{model}, {group}"))
        print(file=sys.stderr)
        _check_moved(measured)
        for name, mine in measured.items():
            rows.append(
                {
                    "model": model,
                    "group": group,
                    "name": name,
                    "title": some[name].title,
                    "tolerance": some[name].tolerance,
                    "gap": mine.gap,
                    "peak_mib": round(mine.peak_mib),
                    "seconds": mine.seconds,
                }
            )
    described = {
        "batch_size": workload.batch_size,
        "vocabulary": vocabulary,
        "tokens": token_statistics(workload),
        "sequence_tokens": [tokens.total for tokens in counts[warm_up:]],
        "unique_tokens": [tokens.unique for tokens in counts[warm_up:]],
        "gflop": [count / 1e9 for count in flops],
        "beta": workload.beta,
        "learning_rate": workload.learning_rate,
        "warm_up": warm_up,
        "rounds": rounds,
        "left_out": left_out,
    }
    return described, rows


def progress(what: str) -> Callable[[int], None]:
    """Say on one line how far a group is."""
    started = time.perf_counter()

    def show(done: int) -> None:
        elapsed = time.perf_counter() - started
        text = f"round {done} done" if done else "all are ready"
        print(f"\r{what}: {text} after {elapsed:.0f} s ", end="", file=sys.stderr, flush=True)

    return show


def parser_of(doc: str, models: Iterable[str]) -> argparse.ArgumentParser:
    """The options that all benchmarks of steps have."""
    names = [*models]
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, help="that count; by default as many as take minutes")
    parser.add_argument("--threads", type=int, default=2, help="of each process (default: 2)")
    parser.add_argument(
        "--quick", action="store_true", help="one round of the tiny model, to see that it runs"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS / kind(), help="folder of the results (%(default)s)"
    )
    return parser


def read_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """What was typed; a quick look is no measurement, so it is not kept among them."""
    options = parser.parse_args(arguments)
    if options.quick:
        options.models, options.rounds = [QUICK], 1
        if options.out == parser.get_default("out"):
            options.out = Path(tempfile.mkdtemp(prefix="benchmark-"))
    return options


def _check_moved(measured: Mapping[str, Measured]) -> None:
    """Losses that all stay at log 2 agree whatever the updates are."""
    for name, mine in measured.items():
        if max(mine.losses) - min(mine.losses) < MOVED:
            raise SystemExit(f"error: training did not change the loss of {name}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and store."""
    parser = parser_of(__doc__, WORKLOADS)
    parser.add_argument("--only", nargs="+", help="these implementations, and ours")
    options = read_options(parser, arguments)

    import torch

    torch.set_num_threads(options.threads)
    rates = [matmul_rates()]
    described, rows = {}, []
    for model in options.models:
        rounds = options.rounds or ROUNDS[model]
        described[model], more = measure(model, rounds, options.threads, options.only)
        rows += more
    rates.append(matmul_rates())
    fastest = {
        dtype: {shape: max(found[dtype][shape] for found in rates) for shape in rates[0][dtype]}
        for dtype in rates[0]
    }
    settings = {
        "machine": describe(options.threads),
        "matmul_gflops": fastest,
        **described,
    }
    print(store("step", settings, rows, options.out), file=sys.stderr)


if __name__ == "__main__":
    main()
