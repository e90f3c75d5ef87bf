"""A small run, to be trained, stopped, taken up again, and shared by two processes."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from dpo_lib import make_reference
from dpo_lib.data import PreferenceDataset, UnpairedDataset, UnpairedRecord, make_preferences
from dpo_lib.models import InstructionTokenizer, TinyGPT, TinyGPTConfig
from dpo_lib.training import DPOConfig, train_dpo

CONFIG = DPOConfig(steps=6, batch_size=5, learning_rate=1e-3, eval_every=2)


def load_dataset():
    return PreferenceDataset(make_preferences(), InstructionTokenizer())


def load_thumbs():
    """Twelve thumbs up and eight down."""
    records = []
    for i, pair in enumerate(make_preferences()):
        records.append(UnpairedRecord(pair.prompt, pair.chosen, True))
        if i % 3:
            records.append(UnpairedRecord(pair.prompt, pair.rejected, False))
    return UnpairedDataset(records, InstructionTokenizer())


def new_policy(dropout: float = 0.0) -> TinyGPT:
    torch.manual_seed(0)
    config = TinyGPTConfig(260, context_length=128, width=16, heads=2, layers=1, dropout=dropout)
    return TinyGPT(config).double()


def run(dataset, policy=None, config=CONFIG, **options):
    policy = policy or new_policy()
    history = train_dpo(
        policy, make_reference(new_policy()), dataset, config, progress=False, **options
    )
    return policy, history


class Stopped(Exception):
    pass


def evaluate_until(last: int):
    """An evaluation that stops the run at its call number ``last``, as a killed process would."""
    calls = []

    def evaluate(policy):
        calls.append(None)
        if len(calls) == last:
            raise Stopped
        return {"calls": 1.5}

    return evaluate


def run_in_two_processes(module: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a module as torchrun starts it on one machine, a thread for each process."""
    root = Path(__file__).resolve().parents[2]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [sys.executable, *launcher, "-m", module, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
