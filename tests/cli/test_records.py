"""The files of a run: whole at any moment, damaged ones named, and no other file touched."""

import json
from types import SimpleNamespace

import pytest

from dpo_lib.cli import records
from dpo_lib.cli.records import Metrics, clear, read_json, read_metrics, read_run, write_json


def test_json_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "a.json"
    assert read_json(path) is None
    write_json(path, {"a": "é", "b": [1]})
    assert path.read_text("utf-8") == '{\n  "a": "é",\n  "b": [\n    1\n  ]\n}\n'
    assert read_json(path) == {"a": "é", "b": [1]}


@pytest.mark.parametrize("data", [b'{"a"', b'"\xff"', b""])
def test_damaged_json_names_the_file_and_the_remedy(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    message = r"^.*a\.json is damaged \(.+\); train --restart begins the run again$"
    with pytest.raises(ValueError, match=message):
        read_json(path)


def test_a_run_has_all_its_parts(tmp_path):
    assert read_run(tmp_path) is None
    run = {"settings": {}, "machine": {}, "finished": True, "held_out": 3}
    for whole in (run, {**run, "more": 1}):
        write_json(tmp_path / "run.json", whole)
        assert read_run(tmp_path) == whole
    for damaged in ([*run], *({k: v for k, v in run.items() if k != name} for name in run)):
        write_json(tmp_path / "run.json", damaged)
        with pytest.raises(ValueError, match=r"run\.json is damaged \(parts are missing\); train"):
            read_run(tmp_path)


def test_only_files_of_a_run_are_removed(tmp_path):
    ours = ("run.json", "metrics.jsonl", "samples.json", "report.html", "checkpoint.pt")
    ours += ("held_out.json", "run.json.1.partial")
    theirs = {"notes.txt", "my-run.json", "run.json.bak", "1.partial"}
    for name in (*ours, *theirs):
        (tmp_path / name).write_text("x")
    for name in ("model", "logs", "model.partial", "others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("x")
    clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == theirs | {"others"}
    clear(tmp_path)  # nothing is there


def test_every_line_of_metrics_says_what_it_is(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert [*read_metrics(path)] == []
    path.write_text('{"kind": "update", "step": 9}\n')  # of a run that was dropped
    metrics = Metrics(path)
    metrics.add_evaluation({"accuracy": 0.5})
    metrics.add_update({"step": 0, "loss": 0.7})
    metrics.add_update({"step": 1, "loss": 0.6})
    metrics.add_evaluation({"accuracy": 0.75})
    rows = [
        {"kind": "evaluation", "step": 0, "accuracy": 0.5},
        {"kind": "update", "step": 0, "loss": 0.7},
        {"kind": "update", "step": 1, "loss": 0.6},
        {"kind": "evaluation", "step": 2, "accuracy": 0.75},
    ]
    assert path.read_text() == "".join(json.dumps(row) + "\n" for row in rows)
    assert [*read_metrics(path)] == rows
    history = SimpleNamespace(
        steps=[{"step": 0, "loss": 0.7}, {"step": 1, "loss": 0.6}],
        evaluations=[{"step": 0, "accuracy": 0.5}, {"step": 2, "accuracy": 0.75}],
    )
    before = path.read_bytes()
    Metrics(path).finish(history)
    assert path.read_bytes() == before


def test_a_run_that_is_taken_up_again_keeps_what_was_before_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"kind": "update", "step": step} for step in range(4)]
    rows[2:2] = [{"kind": "evaluation", "step": 2}]
    records.write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
    again = Metrics(path)
    again.add_update({"step": 2.0, "loss": 0.1})
    assert again.step == 3
    again.add_update({"step": 3, "loss": 0.2})
    assert [*read_metrics(path)] == [
        *rows[:3],
        {"kind": "update", "step": 2.0, "loss": 0.1},
        {"kind": "update", "step": 3, "loss": 0.2},
    ]


def test_damaged_metrics_name_the_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "update", "step": 0}\n{"ki\n{"step": 1}\n{"cut')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is damaged .* --restart"):
        list(read_metrics(path))
