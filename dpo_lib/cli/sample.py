"""The commands ``sample`` and ``compare``: what models write."""

from __future__ import annotations

import argparse
import json
import textwrap
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dpo_lib.cli import records
from dpo_lib.cli.answers import answer, as_row
from dpo_lib.cli.models import open_model


def run_sample(args: argparse.Namespace) -> int:
    """Answer prompts with one model."""
    run = records.read_json(Path(args.model) / "run.json")
    opened = open_model(args.model, _chat(args, run))
    prompts = _prompts(args)
    asked = [prompt for prompt in prompts for _ in range(args.n)]
    replies = answer(opened, asked, args.max_new_tokens, args.temperature, args.seed)
    for prompt, reply in zip(asked, replies, strict=True):
        if args.json:
            print(json.dumps({"prompt": prompt, **as_row(reply)}, ensure_ascii=False))
        else:
            print(f"> {prompt}\n{reply.text}{'' if reply.finished else ' …'}\n")
    return 0


def run_compare(args: argparse.Namespace) -> int:
    """Answer prompts with two models, side by side."""
    run = records.read_json(Path(args.model) / "run.json")
    before = args.before or (run and run["settings"]["model"])
    if before is None and not Path(args.model).exists():
        raise ValueError(f"there is no folder {args.model}")
    if before is None:
        raise ValueError("--before is needed: the model is not a run of this command line")
    prompts, chat = _prompts(args), _chat(args, run)
    columns = []
    for name in (before, args.model):
        opened = open_model(name, chat)  # one after the other: only one is in memory
        columns.append(answer(opened, prompts, args.max_new_tokens, args.temperature, args.seed))
    width = (args.width - 3) // 2
    print(f"{f'before: {before}':<{width}} | after: {args.model}")
    for prompt, old, new in zip(prompts, *columns, strict=True):
        print("-" * (2 * width + 3))
        print(textwrap.fill(f"> {prompt}", 2 * width + 3))
        for left, right in zip_longest(_lines(old, width), _lines(new, width), fillvalue=""):
            print(f"{left:<{width}} | {right}".rstrip())
    means = [sum(reply.length for reply in column) / len(column) for column in columns]
    print("-" * (2 * width + 3))
    print(f"{f'{means[0]:.1f} tokens an answer':<{width}} | {means[1]:.1f} tokens an answer")
    return 0


def _lines(reply: Any, width: int) -> list[str]:
    text = reply.text + ("" if reply.finished else " …")
    return [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]]


def _chat(args: argparse.Namespace, run: dict[str, Any] | None) -> bool | None:
    return False if args.plain or (run and run["settings"]["plain"]) else None


def _prompts(args: argparse.Namespace) -> list[str]:
    prompts = list(args.prompt)
    if args.prompts:
        path = Path(args.prompts)
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
        prompts += [line for line in lines if line.strip()]
    if not prompts:
        samples = records.read_json(Path(args.model) / "samples.json")
        prompts = [row["prompt"] for row in samples or []]
    if not prompts:
        raise ValueError("no prompts: give --prompt or --prompts")
    return prompts
