"""``train`` in two processes: the numbers of one, and one set of files."""

import json

import pytest

from dpo_lib.cli import main
from dpo_lib.cli.records import read_metrics
from dpo_lib.data import write_jsonl
from dpo_lib.world import label_by_reward, load_pairs
from tests.training.runs import run_in_two_processes


def test_two_processes_train_as_one(tmp_path):
    data = tmp_path / "pairs.jsonl"
    write_jsonl(data, label_by_reward(load_pairs(), 0)[::8])
    options = ["train", "--model", "tiny", "--data", str(data), "--steps", "4"]
    options += ["--batch-size", "6", "--eval-every", "2", "--out"]
    run = run_in_two_processes("dpo_lib", *options, str(tmp_path / "two"))
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stderr.count("held out by prompt") == 1
    assert run.stderr.count("update 4/4") == 1
    assert run.stdout.count("report ") == 1

    assert main([*options, str(tmp_path / "one")]) == 0
    one, two = ([*read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("one", "two"))
    assert len(one) == len(two) == 4 + 3
    for alone, shared in zip(one, two, strict=True):
        assert shared.pop("kind") == alone.pop("kind")
        assert shared == pytest.approx(alone, rel=1e-6, abs=1e-6)
    names = [sorted(p.name for p in (tmp_path / name).rglob("*")) for name in ("one", "two")]
    assert names[0] == names[1]
    told = json.loads((tmp_path / "two" / "run.json").read_text())
    assert told["machine"]["processes"] == 2
