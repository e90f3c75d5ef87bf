"""The commands ``sample`` and ``compare``: what models write."""

from __future__ import annotations

import argparse
import json
import textwrap
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dpo_lib.cli import records
from dpo_lib.cli.answers import BATCH, answer, as_prompt_row, as_row, prompt_of_row
from dpo_lib.cli.data import tokenizer_options
from dpo_lib.cli.models import open_model
from dpo_lib.cli.progress import counted
from dpo_lib.data.files import SUFFIXES, Row, find_files, not_utf8, read_rows, to_utf8, unpack
from dpo_lib.data.formats import BadRow, make_prompt, with_system
from dpo_lib.models import Reply


def run_sample(args: argparse.Namespace) -> int:
    """Answer prompts with one model."""
    run = records.read_run(Path(args.model))
    prompts = prompts_of(args, run)
    asked = [prompt for prompt in prompts for _ in range(args.n)]
    replies = _answers(args, args.model, options_of(args, run), asked)
    for prompt, reply in zip(asked, replies, strict=True):
        if args.json:
            print(json.dumps({**as_prompt_row(prompt), **as_row(reply)}, ensure_ascii=False))
        else:
            print(f"> {prompt}\n{reply.text}{'' if reply.finished else ' …'}\n")
    return 0


def run_compare(args: argparse.Namespace) -> int:
    """Answer prompts with two models, side by side."""
    run = records.read_run(Path(args.model))
    before = args.before or (run and run["settings"]["model"])
    if before is None and not Path(args.model).exists():
        raise ValueError(f"there is no folder {args.model}")
    if before is None:
        raise ValueError("--before is needed: the model is not a run of this command line")
    prompts, options = prompts_of(args, run), options_of(args, run)
    columns = []
    for name in (before, args.model):
        columns.append(_answers(args, name, options, prompts))  # only one model is in memory
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


def _answers(
    args: argparse.Namespace, name: str, options: dict[str, Any], prompts: list[str]
) -> list[Reply]:
    with args.progress.loading(name):
        opened = open_model(name, options)
    calls = args.max_new_tokens * -(-len(prompts) // BATCH)
    with (
        args.progress.stage("answers", calls, "tokens") as stage,
        counted(opened.model, stage),
    ):
        return answer(opened, prompts, args.max_new_tokens, args.temperature, args.seed)


def _lines(reply: Any, width: int) -> list[str]:
    text = reply.text + ("" if reply.finished else " …")
    return [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]]


def options_of(args: argparse.Namespace, run: dict[str, Any] | None) -> dict[str, Any]:
    """The tokenizer's settings: those of the run, and what was typed."""
    typed = {name: value for name, value in vars(args).items() if value}
    return tokenizer_options({**(run["settings"] if run else {}), **typed})


def prompts_of(args: argparse.Namespace, run: dict[str, Any] | None) -> list[str]:
    """What was typed, or stands in the file, or was asked in the run."""
    prompts = list(args.prompt)
    if args.prompts:
        prompts += read_prompts(args.prompts, args.encoding)
    if not prompts:
        samples = records.read_json(Path(args.model) / "samples.json")
        prompts = [prompt_of_row(row) for row in samples or []]
    if not prompts:
        raise ValueError("no prompts: give --prompt or --prompts")
    system = args.system or (run and run["settings"].get("system"))
    return [with_system(prompt, system) for prompt in prompts] if system else prompts


def read_prompts(path: str | Path, encoding: str | None = None) -> list[str]:
    """Prompts of a file: one a line of text, or those of a data file (conversations stay such).

    Only a newline ends a line: other separators of Unicode belong to the text.
    """
    (file,) = find_files([path]) if not Path(path).is_dir() else (None,)
    if file is None:
        raise ValueError(f"{path} is a folder; --prompts takes a file")
    if file.name.lower().removesuffix(".gz").endswith(SUFFIXES):
        return [_prompt_of(row) for row in read_rows(file, encoding)]
    data = to_utf8(unpack(file.read_bytes(), file), file, encoding)
    found = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            text = line.decode().removesuffix("\r")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}, line {number}: {not_utf8(line)}") from error
        if text.strip():
            found.append(text)
    return found


def _prompt_of(row: Row) -> str:
    place = f"{row.file}, {row.unit} {row.line}"
    if isinstance(row.value, Exception):
        raise ValueError(f"{place}: {row.value}")
    try:
        return make_prompt(row.value)
    except BadRow as error:
        raise ValueError(f"{place}: {error}") from error
