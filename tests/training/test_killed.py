"""A training process killed at any moment goes on where it was, and ends with the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dpo_lib import fingerprint
from dpo_lib.data import PreferenceDataset, make_preferences
from dpo_lib.models import InstructionTokenizer
from dpo_lib.training import DPOConfig, train_dpo
from tests.training.runs import new_policy

ROOT = Path(__file__).resolve().parents[2]
CONFIG = DPOConfig(
    steps=40, batch_size=4, eval_every=1, learning_rate=1e-3, schedule="cosine", weight_decay=0.01
)


def train(file):
    """Train in float32, with a checkpoint at every update, and return policy and history."""
    torch.set_num_threads(1)
    dataset = PreferenceDataset(make_preferences(), InstructionTokenizer())
    policy = new_policy().float()
    history = train_dpo(policy, None, dataset, CONFIG, checkpoint=file, progress=False)
    return policy, history


def start(file):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.test_killed", str(file)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def kill_after(file, writes, seconds, within_a_write):
    """Start a run, wait until it has written some checkpoints and a moment more, and kill it."""
    process = start(file)

    def half_written():
        return any(file.parent.glob(f"{file.name}.*-{process.pid}.*.partial"))

    try:
        seen = {file.stat().st_mtime_ns} if file.exists() else set()
        enough = len(seen) + writes
        while len(seen) < enough and process.poll() is None:
            time.sleep(0.001)
            if file.exists():
                seen.add(file.stat().st_mtime_ns)
        time.sleep(seconds)
        while within_a_write and process.poll() is None and not half_written():
            pass  # a write takes about a millisecond
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL  # it was still at work
    return half_written()


@pytest.fixture(scope="module")
def whole():
    return train(None)


@pytest.mark.parametrize("within_a_write", [False, True])
def test_killed_twice_and_resumed_it_ends_with_the_same_bits(whole, tmp_path, within_a_write):
    policy, history = whole
    file, moments = tmp_path / "run.pt", random.Random()
    cut = []
    # Two kills; where they must fall into a write, as many as it takes to hit one.
    while len(cut) < 2 or (within_a_write and not any(half for *_, half in cut)):
        moment = moments.randint(2, 6), moments.uniform(0.0, 0.01)
        half = kill_after(file, *moment, within_a_write)
        done = len(json.loads(torch.load(file, weights_only=True)["history"])[0])
        cut.append((*moment, done, half))
        assert len(cut) < 8, cut
    assert 0 < cut[0][2] < CONFIG.steps, cut
    resumed, second = train(file)
    assert second.steps == history.steps, cut
    assert fingerprint(resumed) == fingerprint(policy), cut
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"], cut


if __name__ == "__main__":
    train(Path(sys.argv[1]))
