"""What is typed reaches what computes, for every command; nothing is read and then forgotten."""

import argparse
import contextlib
import dataclasses
import errno
import gzip
import io
import json
import sys
from types import SimpleNamespace

import pytest
import torch

from dpo_lib import demo
from dpo_lib.cli import behavior, data, label, main, rounds, sample, train
from dpo_lib.cli.data import DataSettings, tokenizer_options
from dpo_lib.cli.draw import settings_beside
from dpo_lib.cli.models import DEFAULT_LENGTH, OpenModel, open_model
from dpo_lib.cli.parser import make_parser
from dpo_lib.cli.progress import Progress, Stage
from dpo_lib.cli.settings import RunSettings
from dpo_lib.data.files import digest_files
from dpo_lib.models import Reply
from dpo_lib.world import load_pairs

OF_DATA = {
    "map": (("a", "prompt"),), "encoding": "cp1252", "score": "s", "label": ("l", "1"),
    "system": "Be brief.", "skip_bad": True, "max_length": 77, "plain": True,
    "control_tokens": True, "answer_prefix": "So:", "template": (("think", False),),
}  # fmt: skip


def parsed(*words):
    return make_parser().parse_args([str(word) for word in words])


class Seen(Exception):
    pass


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in load_pairs()[::40] if a != b]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def accents(tmp_path):
    path = tmp_path / "accents.txt"
    path.write_text("Où est Zoé?\n", encoding="cp1252")
    return path


# --- data and tokenizer --------------------------------------------------------------------------


def test_pairs_to_evaluate_on_are_read_as_those_to_train_on():
    settings = RunSettings(out="o", data=("d",), eval_data=("e",), **OF_DATA)
    known = {field.name for field in dataclasses.fields(DataSettings)}
    assert known == {"data", *OF_DATA}
    for evaluation, files in ((False, ("d",)), (True, ("e",))):
        found = settings.data_settings(evaluation=evaluation)
        assert vars(found) == {"data": files, **OF_DATA}


def test_columns_and_encoding_reach_the_files(monkeypatch, tmp_path):
    def read_feedback(*given, **options):
        raise Seen(given, options)

    monkeypatch.setattr(data, "read_feedback", read_feedback)
    with pytest.raises(Seen) as seen:
        data.read_pairs(DataSettings(("d", "e"), **OF_DATA))
    columns, options = seen.value.args
    assert columns == (("d", "e"), {"a": "prompt"})
    assert options == {"encoding": "cp1252", "score": "s", "label": ("l", "1")}
    file = tmp_path / "d"
    file.write_text("x")
    assert DataSettings((str(file),)).digest() == digest_files(str(file))


def test_prompts_of_a_data_file_are_read_packed_and_in_their_encoding(tmp_path):
    rows = '{"prompt": "Zoé"}\n'
    (tmp_path / "a.jsonl").write_text(rows, encoding="cp1252")
    assert sample.read_prompts(tmp_path / "a.jsonl", "cp1252") == ["Zoé"]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    assert sample.read_prompts(tmp_path / "a.jsonl.gz") == ["Zoé"]


def test_the_tokenizer_gets_its_settings():
    expected = {
        "chat": False,
        "control_tokens": True,
        "answer_prefix": "So:",
        "template": {"think": False},
    }
    assert tokenizer_options(OF_DATA) == expected
    assert RunSettings(out="o", data=("d",), **OF_DATA).data_settings().tokenizer() == expected
    nothing = {"chat": None, "control_tokens": False, "answer_prefix": "", "template": {}}
    assert tokenizer_options({}) == nothing


def test_prompts_are_read_in_their_encoding_and_get_the_system_text(accents, pairs, monkeypatch):
    words = ("--prompts", accents, "--encoding", "cp1252", "--system", "Be brief.")
    for name in ("sample", "compare", "draw"):
        out = ("--out", "x") if name == "draw" else ()
        (prompt,) = sample.prompts_of(parsed(name, "--model", "x", *words, *out), None)
        assert [m["content"] for m in prompt.messages] == ["Be brief.", "Où est Zoé?"]
    args = parsed("eval", "--model", "x", "--data", "y", *words, "--behavior", "a:b")
    (prompt,) = behavior._prompts(args, None)
    assert [m["content"] for m in prompt.messages] == ["Be brief.", "Où est Zoé?"]
    drawn = accents.with_suffix(".jsonl")
    row = '{"prompt": "Zoé", "answers": ["é", "è"]}\n'
    drawn.write_text(row, encoding="cp1252")

    def make_plan(found, per_prompt, repeats, seed):
        raise Seen([one.prompt for one in found], per_prompt, repeats, seed)

    monkeypatch.setattr(label, "make_plan", make_plan)
    asked = ("--encoding", "cp1252", "--per-prompt", "3", "--repeats", "0.25", "--seed", "7")
    with pytest.raises(Seen) as seen:
        label.run_label(parsed("label", drawn, "--out", "x", *asked))
    assert seen.value.args == (["Zoé"], 3, 0.25, 7)


def test_what_is_typed_goes_before_the_settings_of_the_run():
    run = {"settings": {**OF_DATA, "system": "Be long."}}
    words = ("--model", "x", "--prompt", "Who?")
    for more, system in (((), "Be long."), (("--system", "Be brief."), "Be brief.")):
        for args in (parsed("sample", *words, *more), parsed("compare", *words, *more)):
            (prompt,) = sample.prompts_of(args, run)
            assert [m["content"] for m in prompt.messages] == [system, "Who?"]
    words = ("eval", "--model", "x", "--behavior", "a:b")
    assert sample.options_of(parsed(*words), run) == tokenizer_options(OF_DATA)
    typed = ("--answer-prefix", "And:", "--template", "think=true", "--control-tokens", "--plain")
    expected = {
        "chat": False,
        "control_tokens": True,
        "answer_prefix": "And:",
        "template": {"think": True},
    }
    for settings in (None, {"settings": {}}, run):
        assert sample.options_of(parsed(*words, *typed), settings) == expected


# --- training and rounds -------------------------------------------------------------------------


def test_rank_and_seed_reach_the_adapters(pairs, tmp_path, monkeypatch):
    def prepare(self, lora, seed):
        raise Seen(lora, seed)

    monkeypatch.setattr(OpenModel, "prepare", prepare)
    words = ("train", "--model", "tiny", "--data", pairs, "--out", tmp_path / "run")
    with pytest.raises(Seen) as seen:
        main([*map(str, words), "--seed", "5"])
    assert seen.value.args == (None, 5)


def test_the_seed_decides_which_pairs_are_used_and_which_are_scored_first(pairs):
    opened, used, scored = open_model("tiny"), [], []
    for seed in (0, 1):
        words = {"data": (str(pairs),), "eval_data": (str(pairs),), "steps": 1, "batch_size": 4}
        settings = RunSettings(out="o", model="tiny", seed=seed, **words)
        job = train._job(settings, opened, train._read(settings))
        used.append({record.prompt for record in job.used.records})
        scored.append([record.prompt for record in job.held_out.records])
    assert used[0] != used[1]
    assert scored[0] != scored[1]


def test_the_card_tells_how_a_model_was_trained():
    opened = SimpleNamespace(model=torch.nn.Linear(1, 1))
    own = {"model": "a/base", "loss": "ipo", "beta": 0.25, "lr": 2e-5, "steps": 7, "batch_size": 3}
    for lora, library, how in (
        (4, "peft", "LoRA of rank 4"), (None, "transformers", "all weights")
    ):  # fmt: skip
        settings = RunSettings(out="o", data=("d",), lora=lora, seed=5, **own)
        head, text = train._card(settings, opened, "thumbs").removeprefix("---\n").split("---\n")
        assert head == f"library_name: {library}\n"  # and no license that is not known
        assert "from `a/base` (base) with the loss `ipo`: beta 0.25, learning rate 2e-05" in text
        assert f"7 updates of 3 thumbs, {how}, seed 5." in text


def test_the_dtype_is_forced_for_held_out_pairs_too():
    settings = RunSettings(out="o", data=("d",), dtype="bfloat16", force_dtype=True)
    opened = SimpleNamespace(model=torch.nn.Linear(1, 1))
    found = train._log_probs(SimpleNamespace(settings=settings, opened=opened))
    assert (found.dtype, found.force_dtype) == ("bfloat16", True)


def test_a_round_trains_as_it_draws(tmp_path):
    """Also where it is the run drawn from that decides, and nothing was typed."""
    words, drawn = ("rounds", "--judge", "a:b", "--out", "x", "--prompts", "y"), tmp_path / "drawn"
    assert rounds._as_drawn(parsed(*words), drawn) == []
    for options in ({}, {"plain": True}, OF_DATA):
        settings_beside(drawn).write_text(json.dumps(tokenizer_options(options)))
        found = rounds._as_drawn(parsed(*words, "--threads", 3, "--quiet"), drawn)
        args = parsed("train", "--data", "x", "--out", "y", *found)
        assert (args.threads, args.quiet) == (3, True)
        settings = RunSettings.typed(args).data_settings()
        assert settings.tokenizer() == tokenizer_options(options)
    both = {a.dest for a in of_command("rounds")} & {a.dest for a in of_command("train")}
    own = {"help", "model", "out", "seed", "max_new_tokens"}  # a round has its own, or train has
    asked = {"encoding", "system"}  # of the prompts: what was drawn is UTF-8, its system text in it
    assert both == {"threads", "plain", "quiet"} | own | asked


def test_the_demo_is_run_as_asked(monkeypatch):
    def run_demo(**options):
        raise Seen(options)

    monkeypatch.setattr(demo, "run_demo", run_demo)
    with pytest.raises(Seen) as seen:
        main(["demo", "--steps", "4", "--seed", "3", "--loss", "ipo"])
    assert seen.value.args == ({"steps": 4, "seed": 3, "loss": "ipo"},)


# --- answers and scores --------------------------------------------------------------------------


def test_a_judge_of_behavior_may_be_silent_as_long_as_asked(monkeypatch):
    def answers_of(function, name, asked, timeout, stage):
        raise Seen(name, len(asked), timeout)

    monkeypatch.setattr(behavior, "answers_of", answers_of)
    args = argparse.Namespace(judge="a:b", behavior="c:d", timeout=7.5, progress=Progress(False))
    one = [[Reply("p", "t", True, (1,))]]
    with pytest.raises(Seen) as seen:
        behavior._wins(args, lambda prompt, answer: 0, one, one)
    assert seen.value.args == ("a:b", 2, 7.5)
    with pytest.raises(Seen) as seen:
        behavior._seen(args, lambda prompt, answer: True, behavior.Written(one, one))
    assert seen.value.args == ("c:d", 2, 7.5)


def test_sampling_is_as_asked(monkeypatch, capsys):
    asked = []

    def answer(opened, prompts, max_new_tokens, temperature, seed):
        asked.append((len(prompts), max_new_tokens, temperature, seed))
        return [Reply(prompt, "a", True, (1,)) for prompt in prompts]

    monkeypatch.setattr(sample, "answer", answer)
    words = ["--model", "tiny", "--prompt", "My order is late.", "--max-new-tokens", "5"]
    words += ["--temperature", "0.6", "--seed", "9"]
    assert main(["sample", *words, "--n", "3"]) == 0
    assert main(["compare", *words, "--before", "tiny"]) == 0
    assert asked == [(3, 5, 0.6, 9), *[(1, 5, 0.6, 9)] * 2]


def test_answers_are_printed_under_their_prompts_and_beside_each_other(
    monkeypatch, tmp_path, capsys
):
    def answer(opened, prompts, *_):
        texts = {"p": "a b", "q": "one two three four\n\nend"}
        done = {"p": False, "q": True}
        return [Reply(p, texts[p], done[p], (1,) * (2 + 3 * done[p])) for p in prompts]

    monkeypatch.setattr(sample, "answer", answer)
    words = ["--model", "tiny", "--prompt", "p", "--prompt", "q"]
    assert main(["sample", *words]) == 0
    assert capsys.readouterr().out == "> p\na b …\n\n> q\none two three four\n\nend\n\n"
    assert main(["sample", *words, "--n", "2", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == ["p", "p", "q", "q"]
    assert rows[0] == {"prompt": "p", "text": "a b", "tokens": 2, "finished": False}
    assert main(["compare", *words, "--before", "tiny", "--width", "40"]) == 0
    line = "-" * 39
    assert capsys.readouterr().out.splitlines() == [
        "before: tiny       | after: tiny",
        line,
        "> p",
        "a b …              | a b …",
        line,
        "> q",
        "one two three four | one two three four",
        "                   |",
        "end                | end",
        line,
        "3.5 tokens an answer | 3.5 tokens an answer",
    ]


def test_sample_and_compare_ask_as_the_run_did(monkeypatch, tmp_path, capsys):
    from dpo_lib.cli.records import write_json

    run = {"settings": {"model": "start", "system": "Be brief.", "answer_prefix": "So:"}}
    write_json(tmp_path / "run.json", {**run, "machine": {}, "finished": True, "held_out": 0})
    write_json(tmp_path / "samples.json", [{"prompt": "é"}])
    opened, asked, texts = [], [], {"start": "one\ntwo", str(tmp_path): "only"}

    def open_model(name, options):
        opened.append((name, options))
        return SimpleNamespace(name=name, model=torch.nn.Linear(1, 1))

    def answer(model, prompts, *_):
        asked.append([[m["content"] for m in prompt.messages] for prompt in prompts])
        text = texts[model.name]
        return [Reply(prompt, text, True, (1,) * len(text)) for prompt in prompts]

    monkeypatch.setattr(sample, "open_model", open_model)
    monkeypatch.setattr(sample, "answer", answer)
    assert main(["sample", "--model", str(tmp_path), "--json"]) == 0
    assert '"é"' in capsys.readouterr().out  # as it is written
    assert main(["compare", "--model", str(tmp_path), "--width", "51"]) == 0
    options = tokenizer_options(run["settings"])
    names = [str(tmp_path), "start", str(tmp_path)]
    assert opened == [(name, options) for name in names]
    assert asked == [[["Be brief.", "é"]]] * 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"before: start            | after: {tmp_path}"
    assert lines[-4:] == [
        "one                      | only",
        "two                      |",
        "-" * 51,
        "7.0 tokens an answer     | 4.0 tokens an answer",
    ]


def test_compare_wraps_what_is_long_and_shows_how_far_it_is(monkeypatch, capsys):
    stages, running = [], []

    @contextlib.contextmanager
    def stage(progress, *what, **unit):
        stages.append((*what, *unit.values()))
        running.append(Stage(what[0], None, ""))
        yield running[-1]

    def answer(model, prompts, *_):
        model.model(torch.ones(1))
        assert (running[-1].name, running[-1].done) == ("answers", 1)  # it is counted
        return [
            Reply(prompt, "five words of this answer, or six", True, (1,)) for prompt in prompts
        ]

    opened = SimpleNamespace(model=torch.nn.Linear(1, 1))
    monkeypatch.setattr(Progress, "stage", stage)
    monkeypatch.setattr(sample, "open_model", lambda *_: opened)
    monkeypatch.setattr(sample, "answer", answer)
    prompts = ["a prompt that is longer than both columns are", *["short"] * sample.BATCH]
    words = [word for prompt in prompts for word in ("--prompt", prompt)]
    words += ["--before", "tiny", "--max-new-tokens", "7", "--width", "40"]
    assert main(["compare", "--model", "other", *words]) == 0
    assert capsys.readouterr().out.splitlines()[1:7] == [
        "-" * 39,
        "> a prompt that is longer than both",
        "columns are",
        "five words of this | five words of this",
        "answer, or six     | answer, or six",
        "-" * 39,
    ]
    answers = ("answers", 2 * 7, "tokens")
    assert stages[1:] == [
        ("loading tiny", "weights"),
        answers,
        ("loading other", "weights"),
        answers,
    ]


def test_what_a_model_was_before_is_told_or_asked_for(tmp_path, capsys):
    assert main(["compare", "--model", str(tmp_path / "no"), "--prompt", "p"]) == 2
    assert f"there is no folder {tmp_path / 'no'}" in capsys.readouterr().err
    assert main(["compare", "--model", str(tmp_path), "--prompt", "p"]) == 2
    assert "--before is needed: the model is not a run" in capsys.readouterr().err
    assert main(["sample", "--model", "tiny"]) == 2
    assert "no prompts: give --prompt or --prompts" in capsys.readouterr().err


def test_prompts_are_those_typed_then_those_of_the_file_or_those_of_the_run(tmp_path):
    from dpo_lib.cli.records import write_json

    file = tmp_path / "prompts.txt"
    file.write_bytes("b\r\n\n  \nc\u2028d\n".encode())
    run = {"settings": {"system": "Be brief.", "plain": False, "answer_prefix": "So:"}}
    words = ("sample", "--model", tmp_path)
    typed = sample.prompts_of(parsed(*words, "--prompt", "a", "--prompts", file), None)
    assert typed == ["a", "b", "c\u2028d"]
    write_json(tmp_path / "samples.json", [{"prompt": "s"}, {"prompt": "t"}])
    asked = sample.prompts_of(parsed(*words), run)
    assert [[m["content"] for m in p.messages] for p in asked] == [
        ["Be brief.", "s"], ["Be brief.", "t"]
    ]  # fmt: skip
    other = sample.prompts_of(parsed(*words, "--system", "Be long."), run)
    assert other[0].messages[0]["content"] == "Be long."
    of_run = tokenizer_options(run["settings"])
    assert sample.options_of(parsed(*words), run) == of_run
    assert sample.options_of(parsed(*words, "--plain"), run) == {**of_run, "chat": False}
    assert sample.options_of(parsed(*words), None) == tokenizer_options({})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", b"a\n\xff\n", "a.txt, line 2: "),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt"\n', "a.jsonl, line 2: "),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": 1}\n', "a.jsonl, line 2: prompt"),
        ("", b"", " is a folder; --prompts takes a file"),
    ],
)
def test_prompts_that_cannot_be_read_are_named(tmp_path, name, text, message):
    if name:
        (tmp_path / name).write_bytes(text)
    with pytest.raises(ValueError, match=message):
        sample.read_prompts(tmp_path / name)


def test_beta_of_eval_is_a_tenth_unless_given(pairs, capsys):
    words = ["eval", "--model", "tiny", "--data", str(pairs), "--json"]
    found = {}
    for more in ((), ("--beta", "0.7")):
        assert main([*words, *more]) == 0
        found[more] = json.loads(capsys.readouterr().out)
    usual, other = found.values()
    (action,) = [a for a in of_command("eval") if a.dest == "beta"]
    assert action.help.endswith("(the run's, or 0.1)")
    assert (usual["beta"], other["beta"]) == (0.1, 0.7)
    assert usual["margin"] == pytest.approx(other["margin"] / 7)


def of_command(name):
    (commands,) = [a for a in make_parser()._actions if a.dest == "command"]
    return commands.choices[name]._actions


@pytest.mark.parametrize("name", ["train", "show", "eval"])
def test_the_help_tells_the_longest_pair(name):
    (action,) = [a for a in of_command(name) if a.dest == "max_length"]
    assert f"({DEFAULT_LENGTH}, or what the model can read)" in action.help


# --- what a command ends with --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (None, 0, ""),
        (BrokenPipeError(), 0, ""),
        (ValueError("no such row"), 2, "error: no such row\n"),
        (FloatingPointError("loss is nan"), 1, "error: loss is nan\n"),
        (OSError(errno.EACCES, "denied", "a"), 1, "error: cannot read or write a: denied\n"),
        (RuntimeError("os error 28\nat x"), 1,
         "error: a file cannot be written (os error 28); is the disk full?\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("2 are kept"), 130, "interrupted: 2 are kept\n"),
    ],
)  # fmt: skip
def test_every_kind_of_failure_has_its_exit_code_and_its_sentence(monkeypatch, failure, code, said):
    def run_sample(args):
        if failure is not None:
            raise failure
        return 0

    stream = io.StringIO()
    stream.close = lambda: None  # as it is done for a reader that has gone
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sample, "run_sample", run_sample)
    assert main(["sample", "--model", "tiny"]) == code
    assert stream.getvalue() == said


def test_an_error_of_the_program_itself_is_not_hidden(monkeypatch):
    def run_sample(args):
        raise KeyError("oops")

    monkeypatch.setattr(sample, "run_sample", run_sample)
    with pytest.raises(KeyError, match="oops"):
        main(["sample", "--model", "tiny"])


# --- what is refused on both sides ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["label", "x", "--out", "y", "--port", "65536"], "between 0 and 65535"),
        (["label", "x", "--out", "y", "--port", "-1"], "between 0 and 65535"),
        (["label", "x", "--out", "y", "--repeats", "-0.1"], "at least 0 and below 1"),
        (["label", "x", "--out", "y", "--repeats", "1"], "at least 0 and below 1"),
        (["train", "--data", "x", "--out", "y", "--held-out", "-0.1"], "at least 0 and below 1"),
        (["train", "--data", "x", "--out", "y", "--beta", "-1"], "above 0 and finite"),
        (["train", "--data", "x", "--out", "y", "--beta", "inf"], "above 0 and finite"),
    ],
)
def test_options_out_of_their_range(words, message, capsys):
    with pytest.raises(SystemExit):
        parsed(*words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("temperature", ["-0.5", "inf", "nan"])
def test_a_temperature_that_is_none_is_refused_before_the_model_is_loaded(
    temperature, tmp_path, capsys
):
    words = ["draw", "--model", "no-such-model", "--prompt", "a", "--out", str(tmp_path / "d")]
    assert main([*words, "--temperature", temperature]) == 2
    error = capsys.readouterr().err
    assert f"--temperature must be 0 or positive and finite, got {temperature}" in error
