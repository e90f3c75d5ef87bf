"""Numbers that the commands tell on their way: none is off by one, none is doubled."""

import json
from types import SimpleNamespace

import pytest
import torch

from dpo_lib.cli import label
from dpo_lib.cli.data import (
    DataSettings,
    _about_cut,
    _about_joints,
    describe,
    fit_to_model,
    read_pairs,
)
from dpo_lib.cli.drawn import Answer, Drawn
from dpo_lib.cli.held_out import Plan as Evaluations
from dpo_lib.cli.judgements import Plan, make_plan
from dpo_lib.cli.label import _opening
from dpo_lib.cli.live import Live
from dpo_lib.cli.models import open_model
from dpo_lib.cli.parser import make_parser
from dpo_lib.cli.progress import Progress
from dpo_lib.cli.settings import RunSettings
from dpo_lib.cli.train import _introduction
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


def encoded(tmp_path, rows, **settings):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_pairs(DataSettings((str(path),), **settings))
    return fit_to_model(read, open_model("tiny"))


def test_what_is_too_long_is_counted_with_its_lines_and_the_longest(tmp_path, capsys):
    prompt = "List two metals."
    sizes = [open_model("tiny").tokenizer.encode_response("gold" + " gold" * n) for n in (0, 3, 5)]
    start = len(open_model("tiny").tokenizer.encode_prompt(prompt))
    rows = [
        {"prompt": prompt, "chosen": "gold" + " gold" * n, "rejected": "iron", "x": n}
        for n in (3, 0, 5)
    ]
    limit = start + len(sizes[1])
    found = encoded(tmp_path, rows, max_length=limit, skip_bad=True)
    assert (found.lines, found.skipped, found.unused) == ([1, 2], {"too long": 1}, {"x": 2})
    assert [record.chosen for record in found.records] == ["gold gold gold gold", "gold"]
    error = capsys.readouterr().err
    long = start + len(sizes[2])
    assert f"line 3: too long: prompt and response have {long} tokens, above {limit} (--m" in error
    with pytest.raises(ValueError, match=rf"up to {long} tokens, above {limit - 1} \(--max-length"):
        encoded(tmp_path, rows, max_length=limit - 1)
    context = open_model("tiny").context
    assert encoded(tmp_path, rows, max_length=context).skipped == {}
    message = rf"^--max-length {context + 1} is above what the model can read \({context}\)$"
    with pytest.raises(ValueError, match=message):
        encoded(tmp_path, rows, max_length=context + 1)


def test_what_is_said_of_the_tokens_of_pairs_and_thumbs(tmp_path):
    tokenizer = open_model("tiny").tokenizer
    prompt = "List two metals."
    start = len(tokenizer.encode_prompt(prompt))
    one, four = (len(tokenizer.encode_response(text)) for text in ("gold", "gold gold gold gold"))
    pair = {"prompt": prompt, "chosen": "gold", "rejected": "gold gold gold gold"}
    found = encoded(tmp_path, [pair, {**pair, "a": 1}, {**pair, "a": 1, "b": 2}])
    first, second = found.introduce().splitlines()[:2]
    assert first == (
        f"tokens prompt up to {start}, chosen up to {one}, rejected up to {four}; {found.how}"
    )
    assert second == "       not used: a (2), b (1) (rows)"
    found.notes, found.warnings, found.unused = ["n"], ["w"], {}
    assert found.introduce().splitlines()[1:] == [
        "       every column is used",
        "note   n",
        "look   w",
    ]
    thumbs = [{"prompt": prompt, "completion": "gold", "label": up} for up in (True, False)]
    said = encoded(tmp_path, thumbs).introduce().splitlines()[0]
    assert said.startswith(f"tokens prompt up to {start}, response up to {one}; ")


def test_prompt_and_response_that_would_be_other_tokens_as_one_text_are_counted():
    rows = [
        {"prompt": [1], "chosen": [2], "rejected": [3]},
        {"prompt": [1], "chosen": [3], "rejected": [2]},
        {"prompt": [1], "chosen": [2], "rejected": [2]},
    ]
    tokenizer = SimpleNamespace(joins=lambda prompt, response: response != [3])
    (said,) = _about_joints(tokenizer, rows)
    assert said.startswith("in 2 rows prompt and response as one text would be other tokens;")
    assert _about_joints(tokenizer, rows[2:]) == []
    assert _about_joints(SimpleNamespace(), rows) == []


def test_settings_of_data_are_those_of_a_run_or_of_the_command_line():
    stored = {"data": "a", "map": [["x", "prompt"]], "template": None, "label": ["l", "1"], "z": 1}
    found = DataSettings.of(stored)
    assert found.data == ("a",)
    assert found.map == (("x", "prompt"),)
    assert (found.template, found.label, found.answer_prefix) == ((), ("l", "1"), "")
    assert DataSettings.of(SimpleNamespace(data=["a", "b"])).name == "a, b"


def test_bad_rows_of_one_kind_are_added_up_whichever_look_finds_them(tmp_path):
    """Two texts that are the same are told when read; two of the same tokens, when encoded."""
    answers = [("gold.", "iron."), ("gold.", "gold."), ("gold.", "gold ."), ("iron.", "iron.")]
    rows = [{"prompt": "List two metals.", "chosen": a, "rejected": b} for a, b in answers]
    (path := tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_pairs(DataSettings(data=(str(path),), skip_bad=True))
    found = fit_to_model(read, open_model("tiny"))
    assert (len(found.dataset), found.lines, found.skipped) == (1, [1], {"identical": 3})


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


def test_updates_of_an_earlier_session_do_not_count_for_the_time_left(tmp_path):
    with Progress(False) as progress:
        live = Live(tmp_path, 9, 8, progress, SimpleNamespace(log=len), write=True)
        with live._open:
            for step in (5, 6):
                live.updated({"step": step, "loss": 0.5, "reward_accuracy": 0.75, "margin": 0.1})
                assert (live._training.done, live._training.resumed) == (step + 1, 6)


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


@pytest.mark.parametrize(
    ("steps", "used", "times"),
    [
        (4, "32 are used, once each", "70 at the end"),
        (5, "1.0 passes", "70 at the end"),  # the one at update 5 is that at the end
        (20, "4.0 passes", "64 pairs 3 times on the way, 70 at the end"),
        (21, "4.2 passes", "64 pairs 4 times on the way, 70 at the end"),
    ],
)
def test_a_run_says_what_it_uses_and_how_often_it_looks(steps, used, times):
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    settings = RunSettings(
        out="o", data=("d",), loss="dpo", beta=0.1, lr=1e-4, steps=steps, batch_size=8, accumulate=4
    )
    job = SimpleNamespace(
        settings=settings,
        opened=SimpleNamespace(model=model),
        pairs=SimpleNamespace(records=[PreferenceRecord("p", "a", "b")], introduce=lambda: ""),
        train=40,
        used=SimpleNamespace(unit="pairs"),
        counts={"skipped": {}, "held_out": 70},
        plan=Evaluations(final=70, first=64, every=5),
        notes=(),
    )
    said = _introduction(job)
    assert f"       40 to train on ({used}), 70 held out by prompt\n" in said
    assert "model  smollm2: 8 weights, 6 trained (every weight)\n" in said
    assert f"{steps} updates of 8 pairs" in said
    assert f"eval   {times}" in said
