"""What appendix F's experiments on a model's own draws share: the prompts, and each step a command.

A step that was made is not made again, so that a script goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from dpo_lib.data import read_jsonl, write_jsonl
from dpo_lib.experiments.real_model import DATA

IN_TWO = " Answer in two sentences."  # how the questions of `DATA` end
TRAINED, CHOSEN_BY = 120, 24  # prompts; then
HELD_OUT = 60
DRAWS, LONGEST = 8, 72  # answers to a prompt, and their most tokens
SHOWN = 4  # prompts of which answers are stored
_END = re.compile(r"[.!?][\"')\]]*(?=\s+[\"'(\[]*[A-Z0-9]|\s*$)")


def split_prompts(asked: str) -> dict[str, list[str]]:
    """The questions with ``asked`` behind them, by what they are for; none is for two things."""
    questions = [row.prompt.removesuffix(IN_TWO) + asked for row in read_jsonl(DATA)]
    random.Random(0).shuffle(questions)
    second, third = TRAINED + CHOSEN_BY, TRAINED + CHOSEN_BY + HELD_OUT
    return {
        "train": questions[:TRAINED],
        "choose": questions[TRAINED:second],
        "held_out": questions[second:third],
    }


def sentences(answer: str) -> list[str]:
    """The finished sentences of an answer; none, if its end is no end of a sentence."""
    text = answer.strip()
    ends = [match.end() for match in _END.finditer(text)]
    if not ends or ends[-1] != len(text):
        return []
    return [text[a:b].strip() for a, b in itertools.pairwise([0, *ends])]


class Setting(NamedTuple):
    """What is chosen between."""

    rate: float
    beta: float
    steps: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Setting:
        """The setting of a stored row."""
        return cls(*(row[name] for name in cls._fields))


class Work:
    """A folder in which each command leaves what it makes, and is not said again.

    Parameters
    ----------
    folder : path
    asked : mapping
        Prompts by what they are for; a file of each is written.
    threads : int
    """

    def __init__(self, folder: Path, asked: Mapping[str, Sequence[str]], threads: int = 1) -> None:
        self.folder, self.threads = folder, threads
        folder.mkdir(parents=True, exist_ok=True)
        for name, prompts in asked.items():
            (folder / f"{name}.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")

    def command(self, made: Path, *words: object) -> Path:
        """Say ``python -m dpo_lib WORDS`` unless ``made`` is there; note the seconds it took."""
        if not made.exists():
            started = time.perf_counter()
            command = [sys.executable, "-m", "dpo_lib", *map(str, words)]
            print("$", " ".join(command[1:]), flush=True)
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            row = {"made": made.relative_to(self.folder).as_posix()}
            row["seconds"] = round(time.perf_counter() - started, 1)
            with (self.folder / "seconds.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return made

    def seconds(self) -> dict[str, float]:
        """How long each command took, by what it made."""
        rows = (self.folder / "seconds.jsonl").read_text(encoding="utf-8").splitlines()
        return {row["made"]: row["seconds"] for row in map(json.loads, rows)}

    def draw(self, name: str, seed: int, asked: str = "train", model: object = "smollm2") -> Path:
        """`DRAWS` answers to each prompt."""
        drawn, done = self.folder / f"{name}.jsonl", self.folder / f"{name}.done"
        words = ["draw", "--model", model, "--prompts", self.folder / f"{asked}.txt"]
        words += ["--per-prompt", DRAWS, "--max-new-tokens", LONGEST, "--seed", seed]
        self.command(done, *words, "--threads", self.threads, "--quiet", "--out", drawn)
        done.touch()
        return drawn

    def judge(self, drawn: Path, judge: str, name: str = "pairs") -> Path:
        """Of each prompt the best answer against the worst."""
        pairs = drawn.with_name(f"{drawn.stem}-{name}.jsonl")
        return self.command(pairs, "judge", drawn, "--judge", judge, "--out", pairs)

    def train(
        self, name: str, pairs: Path, setting: Setting, seed: int, *more: object, model: object = ""
    ) -> Path:
        """A run; ``more`` are further options."""
        run = self.folder / name
        words = ["train", "--model", model or "smollm2", "--data", pairs, "--out", run]
        words += ["--lr", setting.rate, "--beta", setting.beta, "--steps", setting.steps]
        words += ["--batch-size", 8, "--held-out", 0, "--samples", 1, "--seed", seed]
        self.command(run / "model", *words, "--threads", self.threads, "--quiet", *more)
        return run

    def evaluate(
        self, run: Path, asked: str, each: int, seed: int, shows: str, *more: object
    ) -> dict[str, Any]:
        """What ``eval --behavior`` finds: ``each`` draws to a prompt and a greedy answer."""
        made = self.folder / f"{run.name}-{asked}.json"
        words = ["eval", "--model", run, "--reference", "smollm2", "--out", made, "--seed", seed]
        words += ["--behavior", shows, "--prompts", self.folder / f"{asked}.txt"]
        words += ["--per-prompt", each, "--max-new-tokens", LONGEST, *more]
        return json.loads(self.command(made, *words).read_text(encoding="utf-8"))


def flip(pairs: Path) -> Path:
    """The same pairs with the labels exchanged."""
    made = pairs.with_name(f"{pairs.stem}-flipped.jsonl")
    turned = [
        replace(
            pair,
            chosen=pair.rejected,
            rejected=pair.chosen,
            chosen_ended=pair.rejected_ended,
            rejected_ended=pair.chosen_ended,
        )
        for pair in read_jsonl(pairs)
    ]
    write_jsonl(made, turned)
    return made


def work_from_arguments(what: str, name: str, asked: Mapping[str, Sequence[str]]) -> Work:
    """The folder that is named on the command line, or ``runs/NAME``.

    Parameters
    ----------
    what : str
        What the script does: its docstring.
    name : str
    asked : mapping
        Prompts by what they are for.
    """
    parser = argparse.ArgumentParser(description=what.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs") / name)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    return Work(args.folder.resolve(), asked, args.threads)


def row_of(arm: str, seed: int, setting: Setting, found: dict[str, Any]) -> dict[str, Any]:
    """What is stored of an evaluation: shares with their intervals, lengths, KL, price, answers."""
    kept = {key: found[key] for key in ("prompts", "per_prompt", "kl", "price", "change")}
    sides = {side: found[side] for side in ("before", "after")}
    answers = [
        {
            "prompt": answer["prompt"],
            **{
                side: {"drawn": answer[side]["drawn"][0], "greedy": answer[side]["greedy"]}
                for side in sides
            },
        }
        for answer in found["answers"][:SHOWN]
    ]
    return {"arm": arm, "seed": seed, **setting._asdict(), **kept, **sides, "answers": answers}
