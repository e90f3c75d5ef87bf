"""The command ``rounds``: draw, judge and train in turn, on the model's own answers of the day.

Each round is the three commands, with what the one before has left; that is all there is to it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dpo_lib.cli.draw import run_draw, train_as_drawn
from dpo_lib.cli.judge import write_pairs
from dpo_lib.cli.judges import load_function
from dpo_lib.cli.parser import make_parser
from dpo_lib.cli.records import read_json, write_json
from dpo_lib.cli.train import run_train
from dpo_lib.training.checkpoint import differences

OURS = ("--model", "--data", "--out", "--restart", "--quiet")  # said by every round itself
FREE = ("command", "progress", "out", "rounds", "quiet", "threads", "timeout", "prompts")


def run_rounds(args: argparse.Namespace) -> int:
    """Make the rounds that are missing."""
    parser, out, model = make_parser(), Path(args.out), args.model
    _look_ahead(args, parser)
    _check(out, args)
    for number in range(1, args.rounds + 1):
        args.progress.say(f"round  {number} of {args.rounds}, from {model}")
        drawn, pairs = out / f"drawn-{number}.jsonl", out / f"pairs-{number}.jsonl"
        own = {"model": model, "seed": args.seed + number - 1, "restart": False}
        run_draw(argparse.Namespace(**{**vars(args), **own, "out": str(drawn)}))
        if not pairs.exists():  # it is written as a whole; a judge may change its mind
            own = {"drawn": str(drawn), "scores": None, "out": str(pairs)}
            write_pairs(argparse.Namespace(**{**vars(args), **own}))
        run = str(out / str(number))
        words = ["train", "--model", model, "--data", str(pairs), "--out", run]
        train = parser.parse_args([*words, *_as_drawn(args, drawn), *args.train])
        train.progress = args.progress
        run_train(train)
        model = run
    print(f"model  {out / str(args.rounds) / 'model'}")
    return 0


def _look_ahead(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse, before the first answer is drawn, what could not be done after it."""
    for word in args.train:
        name = word.partition("=")[0]
        if len(name) > 2 and any(own.startswith(name) for own in OURS):
            raise ValueError(f"{name} is not for the options of train: each round has its own")
    parser.parse_args(["train", "--data", "x", "--out", "x", *args.train])
    if not args.prompt and not args.prompts:
        raise ValueError("--prompts is needed: what is asked in every round")
    if args.judge is not None:
        load_function(args.judge)


def _as_drawn(args: argparse.Namespace, drawn: Path) -> list[str]:
    """Options of ``train`` that follow from those of ``draw``."""
    threads = [] if args.threads is None else ["--threads", str(args.threads)]
    return [*threads, *(["--quiet"] if args.quiet else []), *train_as_drawn(drawn)]


def _check(out: Path, args: argparse.Namespace) -> None:
    """Note what decides the rounds, or refuse to go on with others."""
    settings = {name: value for name, value in vars(args).items() if name not in FREE}
    settings: dict[str, Any] = json.loads(json.dumps(settings))
    before = read_json(out / "rounds.json")
    if before is None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "rounds.json", settings)
    elif changed := differences(before, settings):
        raise ValueError(f"{out} holds other rounds ({'; '.join(changed)}); use another --out")
