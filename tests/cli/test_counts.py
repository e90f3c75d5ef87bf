"""Numbers that the commands tell on their way: none is off by one, none is doubled."""

import contextlib
import dataclasses
import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from dpo_lib.cli import data, label
from dpo_lib.cli.data import (
    DataSettings,
    _about_cut,
    _about_joints,
    _with_system,
    about_thumbs,
    describe,
    fit_to_model,
    read_pairs,
)
from dpo_lib.cli.drawn import Answer, Drawn
from dpo_lib.cli.held_out import Plan as Evaluations
from dpo_lib.cli.judgements import Plan, make_plan
from dpo_lib.cli.label import _opening
from dpo_lib.cli.models import open_model
from dpo_lib.cli.parser import make_parser
from dpo_lib.cli.progress import Progress, Stage
from dpo_lib.cli.settings import RunSettings
from dpo_lib.cli.train import _introduction, _job, _read
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
    said = "5 thumbs (80% up), 2 prompts (1 with both kinds)"
    again = "; 1 of them repeat another one (kept)"
    assert describe([*thumbs, thumbs[0]], {}) == said + again
    assert describe([*thumbs, UnpairedRecord("p", "d", True)], {}) == said


def test_what_differs_in_one_thing_repeats_nothing():
    thumb, pair = UnpairedRecord("p", "a", True), PreferenceRecord("p", "a", "b")
    for record, changes in (
        (thumb, {"prompt": "q", "response": "b", "desired": False}),
        (pair, {"prompt": "q", "chosen": "c", "rejected": "c"}),
    ):
        others = [dataclasses.replace(record, **{name: new}) for name, new in changes.items()]
        assert "repeat" not in describe([record, *others], {})
        assert "1 of them repeat another one" in describe([record, *others, record], {})


def test_a_token_that_the_model_does_not_have_is_a_bad_row(tmp_path, capsys):
    opened = open_model("tiny")
    rows = [
        {"prompt": "List two metals.", "chosen": metal, "rejected": "iron"}
        for metal in ("gold", "silver")
    ]
    for name, row in zip("ab", rows, strict=True):
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    ids = {t for row in rows for t in opened.tokenizer.encode(" ".join(row.values()))}
    (most,) = {max(ids)} - {opened.tokenizer.eos_id}
    read = read_pairs(DataSettings((str(tmp_path / "a"), str(tmp_path / "b")), skip_bad=True))
    small = SimpleNamespace(tokenizer=opened.tokenizer, context=48, vocab_size=most + 1)
    assert fit_to_model(read, small).lines == [1, 1]
    small.vocab_size = most
    found = fit_to_model(read, small)
    assert found.skipped == {"unknown words": 1}
    (left,) = {"gold", "silver"} - {found.records[0].chosen}
    bad = tmp_path / "ab"[left == "silver"]
    why = f"a token has the id {most}, the model knows {most}"
    assert f"{bad}, line 1: unknown words: {why}\n" in capsys.readouterr().err


def test_answers_that_were_cut_are_counted():
    cut = PreferenceRecord("p", "a", "b", chosen_ended=False, rejected_ended=False)
    one = PreferenceRecord("p", "a", "b", rejected_ended=False)
    whole = PreferenceRecord("p", "a", "b")
    assert _about_cut([whole]) == []
    thumb = UnpairedRecord("p", "a", True, ended=False)
    said = "4 answers were cut: they are scored without an end token"
    assert _about_cut([cut, one, whole, thumb]) == [said]


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
    assert f"\nline 3: too long: prompt and response have {long} tokens, above {limit} (" in error
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
    only = encoded(tmp_path, [pair]).introduce().splitlines()
    assert only[1] == "       every column is used"
    prompts = (prompt, "My order is late.")  # a mismatched response to each is not told
    start = max(len(tokenizer.encode_prompt(text)) for text in prompts)
    thumbs = [{"prompt": text, "completion": "gold", "label": text == prompt} for text in prompts]
    found = encoded(tmp_path, thumbs)
    said = found.introduce().splitlines()[0]
    assert (found.dataset.unit, "mismatched" in found.dataset.rows[0]) == ("thumbs", True)
    assert said == f"tokens prompt up to {start}, response up to {one}; no chat template"


class Letters:
    """A tokenizer of letters with all that one of transformers can say; ``!`` it refuses."""

    pad_id = eos_id = 0
    controls = ("<end>",)
    backend = None

    def __init__(self):
        self.notes = Counter({"of another file": 3})

    def is_templated(self, prompt):
        return str(prompt) == "templated"

    def joins(self, prompt, response):
        return prompt[0] != response[0]

    def describe(self):
        return "letters"

    def encode_prompt(self, text):
        text = text.messages[-1]["content"]
        if text == "!":
            raise ValueError("the template refuses it")
        return self.encode_response(text)[:-1]

    def encode_response(self, text):
        self.notes["capitals made small"] += text != text.lower()
        return [*(ord(letter) - ord("a") + 1 for letter in text.lower()), 0]


def test_what_does_not_fit_the_model_is_told_with_its_place_and_what_fits_is_kept(
    tmp_path, monkeypatch, capsys
):
    whole = ("abc", "abcdef", "A")  # ten tokens, as many as may be
    first = [whole, ("templated", "a", "b"), ("abc", "ab", "AB"), ("abc", "b", "z")]
    second = [("abc", "a", "abcdefg"), ("!", "a", "b"), ("Abc", "y", "x"), ("abc", "a" * 1000, "b")]
    for name, rows in (("a", first), ("b", second)):
        lines = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows]
        text = "".join(json.dumps({**row, "other": 1}) + "\n" for row in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    paths = tuple(str(tmp_path / f"{name}.jsonl") for name in "ab")
    monkeypatch.setattr(data, "audit_pairs", lambda *given: given)
    opened = SimpleNamespace(tokenizer=Letters(), context=99, vocab_size=26)
    settings = {"system": "Be brief.", "max_length": 10}
    found = fit_to_model(read_pairs(DataSettings(paths, **settings, skip_bad=True)), opened)
    bad = (
        f"{', '.join(paths)}: 6 of 8 rows are bad "
        "(2 template, 2 too long, 1 identical, 1 unknown words)\n"
        f"{paths[0]}, line 2: template: --system cannot be put into a prompt that is written in "
        "the chat template already\n"
        f"{paths[0]}, line 3: identical: chosen and rejected become the same tokens\n"
        f"{paths[0]}, line 4: unknown words: a token has the id 26, the model knows 26\n"
        f"{paths[1]}, lines 1, 4: too long: prompt and response have up to 1,004 tokens, above 10 "
        "(--max-length)\n"
        f"{paths[1]}, line 2: template: the template refuses it\n"
    )
    assert capsys.readouterr().err == f"{bad}skipped (--skip-bad)\n"
    assert (found.lines, found.how, found.unused) == ([1, 3], "letters", {"other": 2})
    kinds = {"template": 2, "identical": 1, "unknown words": 1, "too long": 2}
    assert found.skipped == kinds
    assert [(r.prompt.messages[-1]["content"], r.chosen) for r in found.records] == [
        ("abc", "abcdef"), ("Abc", "y")
    ]  # fmt: skip
    assert {r.prompt.messages[0]["content"] for r in found.records} == {"Be brief."}
    rows = [
        {"prompt": [1, 2, 3], "chosen": [1, 2, 3, 4, 5, 6, 0], "rejected": [1, 0]},
        {"prompt": [1, 2, 3], "chosen": [25, 0], "rejected": [24, 0]},
    ]
    assert (found.dataset.rows, found.dataset.tokenizer) == (rows, opened.tokenizer)
    assert found.dataset.rows[0] is found.warnings[1][0]  # nothing is encoded twice
    assert found.warnings == (found.records, rows, ("<end>",))
    assert found.notes == [
        "capitals made small in 3 texts",
        "in 1 rows prompt and response as one text would be other tokens; they are encoded apart, "
        "as the model writes behind the prompt",
    ]
    monkeypatch.delattr(Letters, "backend")  # as a tokenizer of words
    with pytest.raises(ValueError, match="line 2: unknown words: the template refuses it"):
        fit_to_model(read_pairs(DataSettings(paths, **settings)), opened)
    for left in (settings, {**settings, "max_length": 2, "skip_bad": True}):
        with pytest.raises(ValueError, match="rows are bad") as error:
            fit_to_model(read_pairs(DataSettings(paths, **left)), opened)
        last = "no row is left" if "skip_bad" in left else "--skip-bad leaves them out"
        assert str(error.value).splitlines()[-1] == last


def test_a_system_text_is_put_before_prompts_of_any_tokenizer():
    record = PreferenceRecord("p", "a", "b", {"x": 1}, rejected_ended=False)
    found = _with_system(record, "Be brief.", SimpleNamespace())
    assert [message["content"] for message in found.prompt.messages] == ["Be brief.", "p"]
    assert {**vars(found), "prompt": "p"} == vars(record)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (None, "thumbs up weigh 3 times "),
        ({"undesirable_weight": 3.0}, ""),
        ({"undesirable_weight": 0.5}, "thumbs up weigh 6 times "),
        ({"desirable_weight": 2.0}, "thumbs up weigh 6 times "),
    ],
)
def test_weights_of_thumbs_are_those_typed(option, said):
    thumbs = [UnpairedRecord("p", text, text != "d") for text in "abcd"]
    found = about_thumbs(thumbs, option)
    assert found.startswith(said) if said else not found


def test_files_are_read_before_the_model_is_loaded_and_each_is_shown(monkeypatch):
    stages, opened = [], []

    @contextlib.contextmanager
    def stage(progress, name, total=None, unit=""):
        stages.append(name)
        yield Stage(name, total, unit)

    monkeypatch.setattr(Progress, "stage", stage)
    monkeypatch.setattr(data, "read_pairs", lambda settings: ("read", settings))
    monkeypatch.setattr(data, "open_model", lambda *given: opened.append(given) or "opened")
    monkeypatch.setattr(data, "fit_to_model", lambda *given: given)
    settings = DataSettings(("a", "b"), plain=True)
    read = ("read", settings)
    found = data.open_pairs(settings, "m", Progress(False))
    assert found == (read, "opened", (read, "opened"))
    assert opened == [("m", settings.tokenizer())]
    assert stages == ["reading a, b", "loading m", "encoding the pairs"]


def test_prompt_and_response_that_would_be_other_tokens_as_one_text_are_counted():
    rows = [
        {"prompt": [1], "chosen": [2], "rejected": [3]},
        {"prompt": [1], "chosen": [3], "rejected": [2]},
        {"prompt": [1], "chosen": [2], "rejected": [2]},
    ]
    tokenizer = SimpleNamespace(joins=lambda prompt, response: response != [3])
    assert _about_joints(tokenizer, rows)[0].startswith("in 2 rows prompt and response as one text")
    assert _about_joints(tokenizer, rows[2:]) == []
    assert _about_joints(SimpleNamespace(), rows) == []


def test_weights_are_told_of_the_thumbs_that_are_trained_on(tmp_path):
    rows = [
        {"prompt": f"List {number} {things}.", "completion": f"{answer}.", "label": answer == "red"}
        for number in ("two", "three")
        for things in ("metals", "colors", "fruits", "animals")
        for answer in ("red", "gold", "iron", "blue")
    ]
    (path := tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = RunSettings(out="o", data=(str(path),), model="tiny", held_out=0.5)
    job = _job(settings, open_model("tiny"), _read(settings))
    assert job.train == 16
    assert "(4 and 12)" in job.notes[0]


def test_settings_of_data_are_those_of_a_run_or_of_the_command_line():
    stored = {"data": "ab", "map": [["x", "prompt"]], "template": None, "label": ["l", "1"], "z": 1}
    found = DataSettings.of(stored)
    assert found.data == ("ab",)
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
