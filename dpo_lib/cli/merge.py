"""The command ``merge``: adapters put into the weights, as a plain folder."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from dpo_lib._files import writing_alone
from dpo_lib.cli.models import is_tiny, open_model


def run_merge(args: argparse.Namespace) -> int:
    """Write a folder that transformers loads without peft."""
    out = Path(args.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is there already and not an empty folder")
    with args.progress.loading(args.model):
        opened = open_model(args.model)
    if is_tiny(opened.model):
        raise ValueError(f"{args.model} is a model of the book: it has no adapters to merge")
    if opened.wrapper is None:
        raise ValueError(f"{args.model} has no adapters: it is a plain model already")
    rank = opened.adapter_rank
    opened.merge()
    partial = out.with_name(f"{out.name}.partial")
    with writing_alone(out, f"merging into {out}"):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with args.progress.stage("saving"):
                opened.save(partial)
            if out.exists():
                out.rmdir()
            partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    print(f"{args.model}, adapters of rank {rank} put into the weights: {out}")
    return 0
