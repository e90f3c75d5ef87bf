"""The command ``eval``: what a model's own reward says about preferences, or what it does."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dpo_lib.cli import data, records
from dpo_lib.cli.behavior import measure_behavior
from dpo_lib.cli.held_out import lengths, pair_log_probs, score
from dpo_lib.cli.models import OpenModel, open_model
from dpo_lib.data import PreferenceDataset
from dpo_lib.data.files import digest_files
from dpo_lib.losses import dpo_loss, naive_loss, unpaired_kto_loss


def run_eval(args: argparse.Namespace) -> int:
    """Score a file of preferences, or the pairs that a run held out; or see how it answers."""
    run = records.read_run(Path(args.model))
    base = args.reference or (run and run["settings"]["model"])
    if args.behavior is not None:
        return measure_behavior(args, run, base, lambda: _held_out_prompts(args, run))
    for name in ("prompts", "judge", "out"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} goes with --behavior")
    beta = args.beta or (run and run["settings"]["beta"]) or 0.1
    settings, read, opened, pairs = _open(args, run)
    dataset = _scored_part(args, run, pairs)
    policy = _scored(opened.model, dataset, args)
    if base is None:
        reference, loss = torch.zeros_like(policy), naive_loss
    else:
        with args.progress.loading(base):
            before = open_model(base, settings.tokenizer()).model
        reference = _scored(before, dataset, args)
        loss = dpo_loss
    if read.file.unpaired:
        loss = unpaired_kto_loss
    result: dict[str, Any] = {
        "model": args.model,
        "reference": base,
        "beta": beta,
        "data": settings.name,
        dataset.unit: len(dataset),
        "skipped": pairs.skipped,
        **score(policy, reference, dataset.rows, loss, beta),
        **{f"tokens_{side}": tokens for side, tokens in lengths(dataset.rows).items()},
    }
    if args.json:
        print(json.dumps(result))
        return 0
    against = f"relative to {base}" if base else "by log-probability alone, without a reference"
    print(f"{args.model}, {against}, beta {beta:g}")
    print(f"{settings.name}: {data.describe(dataset.records, pairs.skipped)}")
    for name, value in list(result.items())[6:]:
        print(f"{name:<24}{value:>9.3f}" if isinstance(value, float) else f"{name:<24}{value:>9}")
    return 0


def _open(
    args: argparse.Namespace, run: dict[str, Any] | None
) -> tuple[data.DataSettings, data.ReadPairs, OpenModel, data.Pairs]:
    if args.data is None:
        typed = {**vars(args), **(run or {"settings": {}})["settings"]}
        settings = data.DataSettings.of({**typed, "data": held_out_paths(run)})
    else:
        settings = data.DataSettings.of(args)
        if run and run["settings"]["plain"]:
            settings = dataclasses.replace(settings, plain=True)
    return (settings, *data.open_pairs(settings, args.model, args.progress))


def _scored_part(
    args: argparse.Namespace, run: dict[str, Any] | None, pairs: data.Pairs
) -> PreferenceDataset:
    """All pairs, or those that the run held out."""
    if args.data is not None or run.get("eval_data"):
        return pairs.dataset
    return pairs.dataset.split(run["settings"]["held_out"], run["settings"]["seed"])[1]


def _held_out_prompts(args: argparse.Namespace, run: dict[str, Any] | None) -> list[str]:
    if run is None:
        raise ValueError("--prompts is needed: the model is not a run with held-out pairs")
    *_, pairs = _open(args, run)
    return [record.prompt for record in _scored_part(args, run, pairs).records]


def _scored(model: nn.Module, dataset: PreferenceDataset, args: argparse.Namespace) -> Tensor:
    with args.progress.stage("scoring", len(dataset), dataset.unit) as stage:
        return pair_log_probs(model, dataset, stage)


def held_out_paths(run: dict[str, Any] | None) -> list[str]:
    """The data files of a run that held pairs out, if they are still the same."""
    if run is None:
        raise ValueError("--data is needed: the model is not a run with held-out pairs")
    if not run["held_out"]:
        raise ValueError("--data is needed: the run held no pairs out")
    which = "eval_data" if run.get("eval_data") else "data"
    paths = [run[which]] if isinstance(run[which], str) else run[which]
    gone = [path for path in paths if not Path(path).exists()]
    if gone:
        raise ValueError(f"--data is needed: the run's file {gone[0]} is not there")
    if digest_files(paths) != run["settings"][f"{which}_sha256"]:
        raise ValueError(f"--data is needed: the run's file {', '.join(paths)} has changed")
    return paths
