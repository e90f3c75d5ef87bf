"""Thumbs on the command line: from a file of completions with labels to a model and a report."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from dpo_lib.cli import main
from dpo_lib.cli.records import read_metrics
from dpo_lib.world import load_pairs, true_reward
from tests.cli.test_cli_train import ROOT, write_lines

OPTIONS = ["--model", "tiny", "--steps", "9", "--batch-size", "32", "--eval-every", "3"]
OPTIONS += ["--lr", "5e-4", "--eval-pairs", "40"]


def rows():
    """The answers of the tiny world: thumbs up for what the judge likes better than half."""
    answers = [(p.prompt, text) for p in load_pairs()[::3] for text in (p.first, p.second)]
    rewards = sorted(true_reward(*answer) for answer in answers)
    middle = rewards[len(rewards) // 2]
    return [{"prompt": x, "completion": y, "label": true_reward(x, y) > middle} for x, y in answers]


@pytest.fixture(scope="module")
def thumbs(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("data") / "thumbs.jsonl", rows())


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    some = [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in load_pairs()[::20] if a != b]
    return write_lines(tmp_path_factory.mktemp("data") / "pairs.jsonl", some)


@pytest.fixture(scope="module")
def finished(thumbs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", "--data", str(thumbs), "--out", str(out), *OPTIONS]) == 0
    return out


def train(path, out, *more):
    return main(["train", "--data", str(path), "--out", str(out), *OPTIONS, *more])


def test_the_numbers_of_a_run_are_those_of_thumbs(finished):
    run = json.loads((finished / "run.json").read_text())
    assert run["settings"]["loss"] == "kto"
    assert (run["pairs"], run["unit"]) == (528, "thumbs")
    final = run["results"]["held_out"]
    assert final["auc"] > 0.6
    assert final["desirable_logp"] > final["undesirable_logp"]
    assert final["thumbs_up"] + final["thumbs_down"] == run["held_out"]
    assert {*run["results"]["tokens"]} == {"desirable", "undesirable"}
    metrics = list(read_metrics(finished / "metrics.jsonl"))
    assert metrics[0]["held_out_auc"] == 0.5
    updates = [row for row in metrics if row["kind"] == "update"]
    assert updates[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert {"reward_auc", "level", "desirable_logp"} <= updates[0].keys()


def test_the_report_speaks_of_thumbs(finished):
    text = (finished / "report.html").read_text()
    assert re.search(r"one with a thumb up has a higher reward than .* in \d+% of the cases", text)
    assert "Thumbs up above thumbs down (AUC)" in text
    assert "updates of 32 thumbs" in text
    assert "NaN" not in text
    assert "chosen" not in re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", text, flags=re.DOTALL)


def test_the_introduction_and_the_progress(thumbs, tmp_path, capsys):
    assert train(thumbs, tmp_path / "run", "--steps", "2", "--samples", "0") == 0
    out, err = capsys.readouterr()
    assert "528 thumbs (" in err
    assert "loss kto" in err
    assert "updates of 32 thumbs" in err
    assert re.search(r"update 2/2, .* loss 0\.\d+ auc \d\.\d\d margin", err)
    assert "held out: AUC" in out


def test_eval_scores_what_the_run_held_out(finished, thumbs, capsys):
    assert main(["eval", "--model", str(finished), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    run = json.loads((finished / "run.json").read_text())
    for name, value in run["results"]["held_out"].items():
        assert found[name] == pytest.approx(value, abs=1e-5), name
    assert found["thumbs"] == run["held_out"]
    one = write_lines(thumbs.parent / "one.jsonl", rows()[:2])  # one prompt: no level
    assert main(["eval", "--model", str(finished), "--data", str(one), "--json"]) == 0
    assert "level" not in json.loads(capsys.readouterr().out)


def test_sample_and_compare_take_the_run(finished, capsys):
    assert main(["compare", "--model", str(finished), "--max-new-tokens", "8"]) == 0
    assert "tokens an answer" in capsys.readouterr().out
    assert main(["sample", "--model", str(finished), "--max-new-tokens", "8"]) == 0
    assert capsys.readouterr().out.startswith("> ")


def test_show_marks_the_response_and_its_thumb(thumbs, capsys):
    assert main(["show", "--data", str(thumbs), "--model", "tiny", "--rows", "2"]) == 0
    text = capsys.readouterr().out
    assert "thumb 2 (line 2)" in text
    prompt = json.loads(thumbs.read_text().splitlines()[0])["prompt"]
    assert " " in prompt
    assert f"tokens\n    {prompt}\n" in text  # words stay apart
    assert re.search(r"response, thumb (up|down), scored: \d+ tokens\n    ‹", text)


@pytest.mark.parametrize(
    ("name", "text", "places", "bad"),
    [
        ("a.csv", "prompt,completion,label\n{0},gold.,1\n{0},iron.,0\n", ["line 2", "line 3"], 0),
        ("a.jsonl", "\n{1}\n\n{{}}\n{2}\n", ["line 2", "line 5"], 1),
        ("a.json", "[\n{1},\n\n{2}\n]", ["line 2", "line 4"], 0),
        ("a.json", "[{1}, 3, {2}]", ["row 1", "row 3"], 1),
    ],
)
def test_show_tells_where_in_the_file_each_one_stands(tmp_path, capsys, name, text, places, bad):
    prompt = "List two metals."
    up, down = (
        {"prompt": prompt, "completion": metal, "label": good}
        for metal, good in (("gold.", True), ("iron.", False))
    )
    (path := tmp_path / name).write_text(text.format(prompt, json.dumps(up), json.dumps(down)))
    assert main(["show", "--data", str(path), "--model", "tiny", "--skip-bad"]) == 0
    told = capsys.readouterr().out
    assert told.count("skipped: 1 malformed") == bad
    shown = re.findall(r"^thumb (\d) \(([^)]*)\)$.*?thumb (\w+), scored", told, re.M | re.S)
    assert shown == [("1", places[0], "up"), ("2", places[1], "down")]


def test_parts_give_the_numbers_of_the_whole_batch(thumbs, finished, tmp_path):
    assert train(thumbs, tmp_path / "run", "--accumulate", "4", "--quiet") == 0
    whole, parts = (read_metrics(out / "metrics.jsonl") for out in (finished, tmp_path / "run"))
    for expected, row in zip(whole, parts, strict=True):
        assert row.pop("kind") == expected.pop("kind")
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_killed_run_ends_with_the_same_bits(thumbs, finished, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "dpo_lib", "train", "--data", str(thumbs), "--out", str(out)]
    command += OPTIONS
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if sum(row["kind"] == "update" for row in read_metrics(out / "metrics.jsonl")) > 4:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.stderr.read()
    assert process.returncode in (-signal.SIGKILL, 0)
    assert train(thumbs, out, "--quiet") == 0
    for name in ("metrics.jsonl", "samples.json"):
        assert (out / name).read_text() == (finished / name).read_text()
    ours, whole = (load_file(run / "model" / "tiny_gpt.safetensors") for run in (out, finished))
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


# --- what is said and refused --------------------------------------------------------------------


def test_pairs_and_thumbs_are_not_taken_for_each_other(thumbs, pairs, tmp_path, capsys):
    assert train(thumbs, tmp_path / "a", "--loss", "ipo") == 2
    error = capsys.readouterr().err
    assert "ipo_loss compares the two responses of a pair, but the data are thumbs" in error
    assert "one of ['kto']" in error
    assert train(pairs, tmp_path / "b", "--loss", "kto", "--steps", "1", "--samples", "0") == 0
    assert "kto on pairs: each counts as one thumb up and one thumb down" in capsys.readouterr().err
    assert train(thumbs, tmp_path / "c", "--eval-data", str(pairs)) == 2
    assert "--data holds thumbs, --eval-data pairs" in capsys.readouterr().err


def test_rows_that_are_no_thumbs_are_named_by_line(tmp_path, capsys):
    bad = [
        {"prompt": "List two metals.", "completion": "gold.", "label": "perhaps"},
        {"prompt": "List two metals.", "completion": "gold."},
        {"prompt": "List two metals.", "completion": " ", "label": True},
        {"completion": "gold.", "label": 1},
        {"prompt": "List two metals.", "chosen": "gold.", "rejected": "iron."},
        {"prompt": "Bonjour", "completion": "gold.", "label": 0},
    ]
    path = write_lines(tmp_path / "thumbs.jsonl", [*rows()[:120], *bad])
    assert train(path, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "5 of 126 rows are bad" in error
    for line, words in (
        (121, "label must be true or false, got 'perhaps'"),
        (122, "missing label"),
        (123, "completion must not be empty"),
        (124, "missing prompt"),
        (125, "a pair is not a completion with a label"),
    ):
        assert re.search(rf"line {line}: \w+: .*{re.escape(words)}", error), error
    assert train(path, tmp_path / "run", "--skip-bad", "--steps", "1", "--samples", "0") == 0
    assert "line 126: unknown words" in capsys.readouterr().err


def test_a_completion_without_a_label_is_told_what_it_needs(tmp_path, capsys):
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "a", "completion": "b", "good": True}])
    assert train(path, tmp_path / "run") == 2
    assert "a completion needs a label (--map THEIRS=label renames)" in capsys.readouterr().err


def test_other_names_of_columns(tmp_path, capsys):
    some = [{"prompt": r["prompt"], "said": r["completion"], "ok": r["label"]} for r in rows()[:80]]
    path = write_lines(tmp_path / "a.jsonl", some)
    names = ["--map", "said=completion", "--map", "ok=label"]
    assert train(path, tmp_path / "run", *names, "--steps", "1", "--samples", "0") == 0
    assert "80 thumbs" in capsys.readouterr().err


def test_uneven_thumbs_get_a_hint_that_makes_them_even(tmp_path, capsys):
    up, down = ([r for r in rows() if r["label"] is kind] for kind in (True, False))
    path = write_lines(tmp_path / "uneven.jsonl", [*up[:60], *down[:240]])
    options = ["--steps", "1", "--samples", "0", "--held-out", "0"]
    own = write_lines(
        tmp_path / "own.jsonl", [up[0], down[0], {**up[1], "prompt": "What is 1 + 1?"}, {}]
    )
    assert train(path, tmp_path / "a", *options, "--eval-data", str(own), "--skip-bad") == 0
    error = capsys.readouterr().err
    assert "skipped: 1 malformed\n" in error
    assert f"300 to train on (32 are used, once each), 3 in {own}\n" in error
    both = len({up[0]["prompt"], down[0]["prompt"]})
    assert f"{both} prompts of --eval-data are in --data too" in error  # beside the next one
    hint = re.search(
        r"weigh 0\.25 times what .*--option desirable_weight=(\S+) \(4.00 to 5.33\)", error
    )
    assert hint, error
    assert main(["show", "--data", str(path), "--model", "tiny", "--rows", "1"]) == 0
    assert hint[0] in capsys.readouterr().out
    weight = f"desirable_weight={hint[1]}"
    assert train(path, tmp_path / "b", *options, "--option", weight) == 0
    assert "thumbs up weigh" not in capsys.readouterr().err
    assert train(path, tmp_path / "c", *options, "--option", "alpha=1") == 2
    error = capsys.readouterr().err
    assert (
        "has no setting 'alpha'; it has ['kl', 'desirable_weight', 'undesirable_weight']" in error
    )
