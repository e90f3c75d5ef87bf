"""The command ``eval``: what a model's own reward says about preferences."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from dpo_lib.cli import data, records
from dpo_lib.cli.held_out import lengths, pair_log_probs, score
from dpo_lib.cli.models import open_model
from dpo_lib.data import PreferenceDataset, split_by_prompt
from dpo_lib.losses import LOSSES


def run_eval(args: argparse.Namespace) -> int:
    """Score a file of preferences, or the pairs that a run held out."""
    run = records.read_json(Path(args.model) / "run.json")
    base = args.reference or (run and run["settings"]["model"])
    beta = args.beta or (run and run["settings"]["beta"]) or 0.1
    chat = False if args.plain or (run and run["settings"]["plain"]) else None
    path, rename = args.data or held_out_path(run), dict(args.map)
    limit, skip_bad = args.max_length, args.skip_bad
    if args.data is None:
        rename = dict(map(tuple, run["settings"]["map"]))
        limit, skip_bad = run["settings"]["max_length"], run["settings"]["skip_bad"]
    file, skipped = data.read_pairs(path, rename, skip_bad)
    opened = open_model(args.model, chat)
    found, too_long = data.fit_to_model(file, path, opened, limit, skip_bad)
    if args.data is None:
        settings = run["settings"]
        _, found = split_by_prompt(found, settings["held_out"], settings["seed"])
    dataset = PreferenceDataset(found, opened.tokenizer)
    policy = pair_log_probs(opened.model, dataset)
    if base is None:
        reference, loss = torch.zeros_like(policy), LOSSES["reference_free"]
    else:
        reference = pair_log_probs(open_model(base, chat).model, dataset)
        loss = LOSSES["dpo"]
    chosen, rejected = lengths(dataset)
    result: dict[str, Any] = {
        "model": args.model,
        "reference": base,
        "beta": beta,
        "data": path,
        "pairs": len(found),
        "skipped": {**skipped, **too_long},
        **score(policy, reference, dataset, loss, beta),
        "tokens_chosen": chosen,
        "tokens_rejected": rejected,
    }
    if args.json:
        print(json.dumps(result))
        return 0
    against = f"relative to {base}" if base else "by log-probability alone, without a reference"
    print(f"{args.model}, {against}, beta {beta:g}")
    print(f"{path}: {data.describe(found, result['skipped'])}")
    for name, value in list(result.items())[6:]:
        print(f"{name:<24}{value:>9.3f}" if isinstance(value, float) else f"{name:<24}{value:>9}")
    return 0


def held_out_path(run: dict[str, Any] | None) -> str:
    """The data file of a run that held pairs out, if it is still the same."""
    import hashlib

    if run is None:
        raise ValueError("--data is needed: the model is not a run with held-out pairs")
    if not run["held_out"]:
        raise ValueError("--data is needed: the run held no pairs out")
    path = Path(run["data"])
    if not path.is_file():
        raise ValueError(f"--data is needed: the run's file {path} is not there")
    if hashlib.sha256(path.read_bytes()).hexdigest() != run["settings"]["data_sha256"]:
        raise ValueError(f"--data is needed: the run's file {path} has changed")
    return str(path)
