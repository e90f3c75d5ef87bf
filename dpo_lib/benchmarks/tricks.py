"""What each trick of the fast step gains, on top of those before it.

python -m dpo_lib.benchmarks.tricks [--models tiny smollm2] [--rounds N] [--quick]

writes tricks.json into the folder of this kind of processor in dpo_lib/benchmarks/results.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpo_lib.benchmarks.implementations import BFLOAT16_TOLERANCE, FLOAT32_TOLERANCE
from dpo_lib.benchmarks.machine import describe, without
from dpo_lib.benchmarks.peers import (
    SIDES,
    make_optimizer,
    take_step,
    textbook_log_probs,
    whole_texts,
)
from dpo_lib.benchmarks.step import parser_of, progress, read_options
from dpo_lib.benchmarks.turns import Implementation, Turn, take_turns
from dpo_lib.benchmarks.workloads import WORKLOADS, Workload, as_transformers, load_model
from dpo_lib.experiments.store import store
from dpo_lib.fast import kernels
from dpo_lib.fast.pair_log_probs import Row, packed_pair_log_probs
from dpo_lib.logprobs import pad_rows
from dpo_lib.reference import make_reference

ROUNDS = {"smollm2": 6, "tiny": 30}  # that count
WARM_UP = {"smollm2": 2, "tiny": 5}  # that do not


class Rung(NamedTuple):
    """A step with some of the tricks."""

    title: str
    log_probs: Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
    prepare: Callable[[Sequence[Row]], Any]  # before the clock runs
    cached: bool = True  # reference log-probabilities known before the first step
    fused: bool = True  # AdamW in one kernel
    keeps: bool = True  # freed memory stays with the process
    onednn: bool = True  # in place of what torch takes for matrix products


def response_log_probs(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The textbook's forward passes, but only what predicts a response token is scored."""
    sums = []
    for side in SIDES:
        tokens, masks = whole_texts(batch, side)
        states = model.base_model(tokens, **masks)[0]  # (B, T, D)
        predicting = states[:, batch["prompt"].shape[1] - 1 : -1]  # (B, R, D)
        real = batch[f"{side}_mask"].bool()
        head = model.get_output_embeddings()
        read, wanted = predicting[real], batch[side][real]  # (N, D), (N,)
        each = kernels.edge_log_probs(
            read, head.weight, head.bias, torch.arange(len(read)), wanted
        )  # (N,)
        sums.append(torch.zeros(len(real)).index_add(0, real.nonzero()[:, 0], each))
    return sums[0], sums[1]


def packed(**options: Any) -> Callable[[nn.Module, Sequence[Row]], tuple[Tensor, Tensor]]:
    """`packed_pair_log_probs` with these options."""
    return lambda model, rows: packed_pair_log_probs(model, rows, **options)


def as_it_is(rows: Sequence[Row]) -> Sequence[Row]:
    """Rows are packed within the step."""
    return rows


RUNGS = {
    "textbook": Rung(
        "the textbook's step", textbook_log_probs, pad_rows, False, False, False, False
    ),
    "cached": Rung("reference cached", textbook_log_probs, pad_rows, True, False, False, False),
    "fused": Rung("AdamW fused", textbook_log_probs, pad_rows, True, True, False, False),
    "kept": Rung("memory kept", textbook_log_probs, pad_rows, onednn=False),
    "responses": Rung("responses only scored", response_log_probs, pad_rows, onednn=False),
    "packed": Rung("prefixes packed", packed(lean=False), as_it_is, onednn=False),
    "lean": Rung("lean forward pass", packed(), as_it_is, onednn=False),
    "onednn": Rung("products by oneDNN", packed(), as_it_is),
    "bfloat16": Rung("layers in bfloat16", packed(dtype="bfloat16"), as_it_is),
}
# "onednn" is in every group: the step as it is in `train_dpo` by default.
GROUPS = {
    "smollm2": (
        ("onednn", "textbook", "cached", "fused"),
        ("onednn", "fused", "kept", "responses", "packed"),
        ("onednn", "packed", "lean", "bfloat16"),
    ),
    "tiny": (("onednn", *(name for name in RUNGS if name != "onednn")),),
}


def run_rung(turn: Turn, workload: Workload, name: str) -> None:
    """Steps with the tricks up to this one, in the plainest loop."""
    rung = RUNGS[name]
    policy = load_model(workload.model)
    if name not in ("lean", "onednn", "bfloat16"):
        policy = as_transformers(policy)
    if rung.keeps:
        kernels.keep_freed_memory()
    if not rung.onednn:
        kernels.ONEDNN_TYPES = ()
    turn.loaded()
    batches = [rung.prepare(rows) for rows in workload.batches]
    reference = None if rung.cached else make_reference(policy)
    known: list[tuple[Tensor, Tensor] | None] = [None] * len(batches)
    if rung.cached:
        with torch.no_grad():
            known = [rung.log_probs(policy, batch) for batch in batches]
    optimizer = make_optimizer(policy, workload.learning_rate, rung.fused)
    for batch, values in zip(batches, known, strict=True):
        turn.begin()
        loss = take_step(rung.log_probs, policy, reference, optimizer, batch, workload.beta, values)
        turn.end(loss.item)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and store."""
    options = read_options(parser_of(__doc__, GROUPS), arguments)
    left_out = without({name: rung.title for name, rung in RUNGS.items()})
    rows = []
    for model in options.models:
        warm_up, rounds = WARM_UP[model], options.rounds or ROUNDS[model]
        workload = WORKLOADS[model](warm_up + rounds)
        for number, names in enumerate(GROUPS[model]):
            some = {
                name: Implementation(
                    RUNGS[name].title,
                    run_rung,
                    BFLOAT16_TOLERANCE if name == "bfloat16" else FLOAT32_TOLERANCE,
                    {"workload": workload, "name": name},
                )
                for name in names
                if name not in left_out
            }
            counting = [False] * warm_up + [True] * rounds
            found = take_turns(
                some, counting, options.threads, progress(f"{model}, group {number}")
            )
            print(file=sys.stderr)
            for name, mine in found.items():
                rows.append(
                    {
                        "model": model,
                        "group": number,
                        "name": name,
                        "title": some[name].title,
                        "gap": mine.gap,
                        "peak_mib": round(mine.peak_mib),
                        "seconds": mine.seconds,
                    }
                )
    settings = {"machine": describe(options.threads), "left_out": left_out}
    print(store("tricks", settings, rows, options.out), file=sys.stderr)


if __name__ == "__main__":
    main()
