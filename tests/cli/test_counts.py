"""Numbers that the commands tell on their way: none is off by one, none is doubled."""

import json
from types import SimpleNamespace

import pytest

from dpo_lib.cli import label
from dpo_lib.cli.data import _about_cut, describe
from dpo_lib.cli.drawn import Answer, Drawn
from dpo_lib.cli.judgements import Plan, make_plan
from dpo_lib.cli.label import _opening
from dpo_lib.cli.live import Live
from dpo_lib.cli.parser import make_parser
from dpo_lib.cli.progress import Progress
from dpo_lib.data import PreferenceRecord, UnpairedRecord
from dpo_lib.data.files import digest_files


def test_what_is_used_is_counted():
    records = [PreferenceRecord("p", "a", "b")] * 3 + [PreferenceRecord("q", "a", "b")]
    said = describe(records, {"empty": 2, "too long": 1})
    assert said == (
        "4 pairs, 2 prompts; 2 of them repeat another one (kept); skipped: 2 empty, 1 too long"
    )
    assert describe(records[2:], {}) == "2 pairs, 2 prompts"
    thumbs = [UnpairedRecord("p", "a", True), UnpairedRecord("p", "b", False)]
    thumbs += [UnpairedRecord("q", "a", True), UnpairedRecord("q", "c", True)]
    assert describe(thumbs, {}) == "4 thumbs (75% up), 2 prompts (1 with both kinds)"


def test_answers_that_were_cut_are_counted():
    cut = PreferenceRecord("p", "a", "b", chosen_ended=False, rejected_ended=False)
    one = PreferenceRecord("p", "a", "b", rejected_ended=False)
    whole = PreferenceRecord("p", "a", "b")
    assert _about_cut([whole]) == []
    assert _about_cut([cut, one, whole])[0].startswith("3 answers were cut")


def test_a_pair_that_is_asked_twice_is_one_pair():
    drawn = [Drawn(f"{i}?", [Answer("a"), Answer("b")]) for i in range(10)]
    plan = make_plan(drawn, 1, 0.2, 0)
    assert len(plan.pairs) == 12
    new = SimpleNamespace(torn=False, judged=[], left=12)
    assert _opening(plan, new) == ["10 pairs, 2 of them asked twice"]
    assert _opening(Plan([], ["one"]), SimpleNamespace(torn=True, judged=[1, 2], left=3))[-1] == (
        "2 judged before, 3 left"
    )


def test_what_was_labeled_belongs_to_its_answers_and_options(tmp_path, monkeypatch):
    file = tmp_path / "drawn.jsonl"
    file.write_text('{"prompt": "a", "answers": ["b", "c"]}\n')

    class Seen(Exception):
        pass

    def judgements(out, plan, settings):
        raise Seen(settings)

    monkeypatch.setattr(label, "Judgements", judgements)
    words = ["label", str(file), "--out", "x", "--seed", "4", "--per-prompt", "2"]
    with pytest.raises(Seen) as seen:
        label.run_label(make_parser().parse_args([*words, "--repeats", "0.25"]))
    digest = digest_files(str(file))
    own = {"sha256": digest, "seed": 4, "per_prompt": 2, "repeats": 0.25}
    assert seen.value.args == (own,)
    assert len(digest) == 64


def test_updates_are_told_as_they_are_made(tmp_path, capsys):
    logged = []
    with Progress(True) as progress:
        trackers = SimpleNamespace(log=logged.append)
        live = Live(tmp_path, 3, 8, progress, trackers, write=True)
        with live._open:
            for step in range(3):
                live.updated({"step": step, "loss": 0.5, "reward_accuracy": 0.75, "margin": 0.1})
                assert (live._training.done, live._training.total) == (step + 1, 3)
    lines = [line for line in capsys.readouterr().err.splitlines() if "update" in line]
    assert [line.split("update ")[1].split(",")[0] for line in lines][-3:] == ["1/3", "2/3", "3/3"]
    assert "acc 0.75 margin 0.10" in lines[-1]
    kept = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in kept] == [row["step"] for row in logged]
