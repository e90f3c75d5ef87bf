"""The whole job, from a file of preferences to a finished run: our command line and TRL's trainer.

python -m dpo_lib.benchmarks.job [--rounds N] [--threads 2] [--quick]

writes job.json into the folder of this kind of processor in dpo_lib/benchmarks/results.

Both get the same file of about a thousand pairs, SmolLM2 with LoRA, the same pairs in the same
number of updates, and the same held-out pairs to score before, while and after they train; TRL in
float32, with the reference's values computed beforehand, as ours. A process each, one after the
other: loading, tokenizing, scoring, training and saving count. What is not there for both, the
answers in our report, is switched off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpo_lib._files import replacing
from dpo_lib.benchmarks.machine import describe
from dpo_lib.benchmarks.step import parser_of, progress
from dpo_lib.benchmarks.turns import peak_mib
from dpo_lib.experiments.store import store

ROOT = Path(__file__).resolve().parents[2]
PAIRS, SEED = 1000, 0
SIDES = {"ours": "Ours: the command line", "trl_precomputed": "TRL: float32, precomputed"}
LORA = 8  # rank
BETA, LEARNING_RATE = 0.1, 2e-4
LONGEST = 512  # tokens of a prompt with its response
LOOK = 0.05  # seconds between looks at the memory of a process, and at whether it has ended


class Size(NamedTuple):
    """How much of the file is used: a pass over all of it takes hours on two cores."""

    updates: int  # each of `batch` pairs, none twice
    batch: int
    held_out: int  # pairs scored before the first update, every `evaluate` updates, and at the end
    evaluate: int


FULL, QUICK = Size(4, 8, 24, 2), Size(1, 2, 2, 1)


# --- the file ------------------------------------------------------------------------------------

WORDS = {
    "nouns": (
        "river garden teacher engine letter mountain market window kitchen winter story "
        "bridge doctor village machine question morning library ticket neighbor harbor recipe "
        "forest island"
    ),
    "verbs": ("finds carries explains repairs follows answers builds describes measures remembers"),
    "adjectives": ("old quiet useful bright narrow careful distant simple warm heavy early broken"),
}
WORDS_MEDIAN = {"prompt": 24, "chosen": 48, "rejected": 48}  # as in common files of instructions
SPREAD = 0.7  # of the logarithm


def write_pairs(path: Path, number: int = PAIRS, seed: int = SEED) -> None:
    """Pairs of made-up sentences, no prompt twice, in lengths as people's files have them."""
    rng = random.Random(seed)

    def size(kind: str) -> int:
        return max(4, min(180, round(rng.lognormvariate(0, SPREAD) * WORDS_MEDIAN[kind])))

    nouns, verbs, adjectives = (words.split() for words in WORDS.values())

    def text(length: int) -> str:
        parts: list[str] = []
        while len(parts) < length:
            one, other = rng.sample(nouns, 2)
            said = f"The {rng.choice(adjectives)} {one} {rng.choice(verbs)} the {other}."
            parts += said.split()
        return " ".join(parts[:length])

    with replacing(path) as file:
        for i in range(number):
            row = {
                "prompt": f"Go on from note {i}: {text(size('prompt'))}",
                "chosen": text(size("chosen")),
                "rejected": text(size("rejected")),
            }
            file.write(f"{json.dumps(row)}\n".encode())


# --- the two jobs --------------------------------------------------------------------------------


def ours(file: Path, out: Path, size: Size) -> list[str]:
    """Our command line."""
    options = {
        "--data": file,
        "--model": "smollm2",
        "--out": out,
        "--lora": LORA,
        "--beta": BETA,
        "--lr": LEARNING_RATE,
        "--steps": size.updates,
        "--batch-size": size.batch,
        "--held-out": size.held_out / PAIRS,
        "--eval-pairs": size.held_out,
        "--eval-every": size.evaluate,
        "--max-length": LONGEST,
        "--samples": 0,
        "--seed": SEED,
    }
    return ["-m", "dpo_lib", "train", *(str(x) for pair in options.items() for x in pair)]


def trl(file: Path, out: Path, size: Size) -> list[str]:
    """TRL, in a process that runs `train_with_trl`."""
    return ["-m", "benchmarks.job", "--trl", str(file), str(out), *map(str, size)]


def train_with_trl(file: Path, out: Path, size: Size) -> None:
    """What a careful reader of TRL's documentation would write for this job."""
    import peft
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from dpo_lib.data import read_jsonl, split_by_prompt
    from dpo_lib.models.pretrained import smollm2_folder

    train, held_out = split_by_prompt(read_jsonl(file), size.held_out / PAIRS, SEED)
    train = random.Random(SEED).sample(train, size.updates * size.batch)

    def as_messages(records: Sequence[Any]) -> Dataset:
        sides = ("prompt", "chosen", "rejected")
        roles = dict(zip(sides, ("user", "assistant", "assistant"), strict=True))
        return Dataset.from_list(
            [
                {side: [{"role": roles[side], "content": getattr(r, side)}] for side in sides}
                for r in records
            ]
        )

    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(out),
            beta=BETA,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            max_steps=size.updates,
            per_device_train_batch_size=size.batch,
            per_device_eval_batch_size=size.batch,
            eval_strategy="steps",
            eval_steps=size.evaluate,
            eval_on_start=True,
            max_length=LONGEST,
            precompute_ref_log_probs=True,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            logging_steps=1,
            seed=SEED,
        ),
        train_dataset=as_messages(train),
        eval_dataset=as_messages(held_out),
        processing_class=AutoTokenizer.from_pretrained(smollm2_folder()),
        peft_config=peft.LoraConfig(
            r=LORA, lora_alpha=2 * LORA, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    trainer.train()
    trainer.save_model(str(out / "model"))


# --- measuring -----------------------------------------------------------------------------------


def run(command: Sequence[str], n_threads: int, folder: Path) -> tuple[float, float]:
    """Wall time (s) and peak memory (MiB) of a Python of its own; what it said if it fails."""
    number = str(n_threads)
    environment = os.environ | {
        "OMP_NUM_THREADS": number,
        "MKL_NUM_THREADS": number,
        "DPO_LIB_REFERENCES": str(folder / "references"),  # nothing is known beforehand
    }
    with (folder / "log.txt").open("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        peak = 0.0
        while process.poll() is None:
            # What the system says at the end counts the memory of this process too.
            with contextlib.suppress(OSError, TypeError):  # it has just ended
                peak = peak_mib(process.pid)
            time.sleep(LOOK)
        elapsed = time.perf_counter() - started
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"error: {' '.join(command)} failed:\n{log.read()[-3000:]}")
    return elapsed, peak


def measure(size: Size, rounds: int, n_threads: int) -> list[dict[str, Any]]:
    """A row for each of the two; whoever comes first is another one each round."""
    rows = [
        {"name": name, "title": title, "seconds": [], "peak_mib": 0}
        for name, title in SIDES.items()
    ]
    show = progress("job")
    for number in range(rounds):
        for row in rows[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_pairs(folder / "pairs.jsonl")
                make = ours if row["name"] == "ours" else trl
                command = make(folder / "pairs.jsonl", folder / "out", size)
                seconds, peak = run(command, n_threads, folder)
                if not any((folder / "out" / "model").glob("adapter_model*")):
                    raise SystemExit(f"error: {row['title']} left no trained model")
            row["seconds"].append(seconds)
            row["peak_mib"] = max(row["peak_mib"], round(peak))
            show(number + 1)
    print(file=sys.stderr)
    return rows


def ratio(job: Mapping[str, Any]) -> float:
    """Wall time of ours over TRL's: median over the rounds."""
    seconds = {row["name"]: row["seconds"] for row in job["rows"]}
    pairs = zip(seconds["ours"], seconds["trl_precomputed"], strict=True)
    return statistics.median(mine / theirs for mine, theirs in pairs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and store."""
    parser = parser_of(__doc__, ["smollm2"])
    parser.add_argument("--trl", nargs=2 + len(FULL), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.trl:
        file, out, *numbers = options.trl
        train_with_trl(Path(file), Path(out), Size(*map(int, numbers)))
        return
    from dpo_lib.models.pretrained import smollm2_folder

    smollm2_folder()  # fetched and converted once, before any clock runs
    size = QUICK if options.quick else FULL
    rows = measure(size, 1 if options.quick else options.rounds or 1, options.threads)
    if options.quick:
        options.out = Path(tempfile.mkdtemp(prefix="benchmark-"))
    settings = {"machine": describe(options.threads), "pairs": PAIRS, **size._asdict()}
    print(store("job", settings, rows, options.out), file=sys.stderr)


if __name__ == "__main__":
    main()
