"""Going on from an adapter: the first stage stays in the result; merging; evaluation files."""

import errno
import json

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_lib.cli import main
from dpo_lib.cli.live import Live
from dpo_lib.cli.models import OpenModel, open_model
from dpo_lib.cli.progress import Progress
from dpo_lib.cli.records import read_metrics
from tests.models.hf import make_folder

PAIRS = [
    {"prompt": f"{a}+{b}", "chosen": f"{a}.", "rejected": "?" * b}
    for a in range(1, 6)
    for b in range(1, 5)
]
IDS = torch.tensor([[5, 9, 40, 41, 3]])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return path


def train(model, data, out, *more):
    names = ["--model", str(model), "--data", str(data), "--out", str(out), "--samples", "1"]
    options = ["--batch-size", "4", "--held-out", "0.2", "--max-new-tokens", "3", "--threads", "1"]
    return main(["train", *names, *options, *more])


@pytest.fixture(scope="module")
def first(base, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    assert train(base, data, out, "--lora", "4", "--steps", "10", "--lr", "1e-2") == 0
    return out


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


def by_peft(run):
    from peft import AutoPeftModelForCausalLM

    return AutoPeftModelForCausalLM.from_pretrained(run / "model")


@pytest.mark.parametrize("how", [[], ["--full"]], ids=["adapter", "full"])
def test_the_second_stage_starts_from_the_first(base, first, data, tmp_path, how):
    out = tmp_path / "second"
    assert train(first, data, out, "--steps", "1", "--lr", "1e-9", "--loss", "dpo", *how) == 0
    load = AutoModelForCausalLM.from_pretrained if how else lambda _: by_peft(out)
    found, stage_one = logits(load(out / "model")), logits(by_peft(first))
    torch.testing.assert_close(found, stage_one, rtol=1e-4, atol=1e-4)
    plain = logits(AutoModelForCausalLM.from_pretrained(base))
    assert (found - plain).abs().max() > 0.1
    rows = [*read_metrics(out / "metrics.jsonl")]
    assert rows[0]["held_out_margin"] == 0.0  # the reference is the adapted model
    assert rows[1]["margin"] == pytest.approx(0.0, abs=1e-5)


def test_margins_of_a_second_stage_are_relative_to_the_first(first, data, tmp_path, capsys):
    out = tmp_path / "second"
    assert train(first, data, out, "--steps", "3", "--lr", "1e-3") == 0
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert settings["lora"] == 4
    told = json.loads((out / "run.json").read_text())["results"]["held_out"]
    capsys.readouterr()
    assert main(["eval", "--model", str(out), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["margin"] == pytest.approx(told["margin"], abs=1e-4)
    assert abs(again["margin"]) > 1e-3


def test_what_was_written_before_training_is_the_first_stages(first, data, tmp_path):
    out = tmp_path / "second"
    assert train(first, data, out, "--steps", "3", "--lr", "1e-2") == 0
    (row,) = json.loads((out / "samples.json").read_text())
    from dpo_lib.cli.answers import answer

    (reply,) = answer(open_model(str(first)), [row["prompt"]], 3)
    assert row["before"]["text"] == reply.text


def test_an_interrupted_second_stage_ends_with_the_same_bits(first, data, tmp_path, monkeypatch):
    options = ["--steps", "6", "--lr", "1e-3", "--eval-every", "2"]
    assert train(first, data, tmp_path / "whole", *options) == 0
    original = Live.updated

    def stop(self, row):
        original(self, row)
        if row["step"] == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Live, "updated", stop)
        assert train(first, data, tmp_path / "cut", *options) == 130
    assert train(first, data, tmp_path / "cut", *options) == 0
    for name in ("metrics.jsonl", "samples.json", "model/adapter_model.safetensors"):
        whole, cut = ((tmp_path / run / name).read_bytes() for run in ("whole", "cut"))
        assert whole == cut, name


def test_another_first_stage_is_another_run(base, first, data, tmp_path, capsys):
    """The folder's name stays, what is in it does not."""
    import shutil

    copy = tmp_path / "first"
    shutil.copytree(first, copy)
    assert train(copy, data, tmp_path / "second", "--steps", "1") == 0
    shutil.rmtree(copy)
    assert train(base, data, copy, "--lora", "4", "--steps", "1", "--lr", "1e-3") == 0
    assert train(copy, data, tmp_path / "second", "--steps", "1") == 2
    assert "adapter_sha256 was" in capsys.readouterr().err


def test_another_rank_is_refused(first, data, tmp_path, capsys):
    assert train(first, data, tmp_path / "second", "--steps", "1", "--lora", "2") == 2
    assert "has adapters of rank 4, which are trained further" in capsys.readouterr().err


def test_merge_writes_a_plain_folder(first, tmp_path, capsys):
    (out := tmp_path / "plain").mkdir()  # it may be there, if nothing is in it
    capsys.readouterr()
    assert main(["merge", "--model", str(first), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said == f"{first}, adapters of rank 4 put into the weights: {out}\n"
    assert not [name for name in load_file(out / "model.safetensors") if "lora" in name]
    model = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(logits(model), logits(by_peft(first)), rtol=1e-4, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(out)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    ends = model.generation_config.eos_token_id
    assert end in (ends if isinstance(ends, list) else [ends])
    assert main(["sample", "--model", str(out), "--prompt", "1+1", "--max-new-tokens", "2"]) == 0


@pytest.mark.parametrize(
    ("model", "out", "message"),
    [
        ("BASE", "new", "has no adapters: it is a plain model already"),
        ("tiny", "new", "has no adapters to merge"),
        ("FIRST", ".", "is there already and not an empty folder"),
        ("FIRST", "file", "is there already and not an empty folder"),
    ],
)
def test_what_cannot_be_merged(base, first, tmp_path, capsys, model, out, message):
    (tmp_path / "file").write_text("mine")
    names = {"BASE": str(base), "FIRST": str(first)}
    assert main(["merge", "--model", names.get(model, model), "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_is_half_merged_does_not_stay(first, tmp_path, monkeypatch, capsys):
    def save(self, folder):
        folder.mkdir()
        (folder / "half").touch()
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(OpenModel, "save", save)
    assert main(["merge", "--model", str(first), "--out", str(tmp_path / "plain")]) == 1
    assert "cannot read or write: full" in capsys.readouterr().err
    assert not [*tmp_path.glob("plain*")]


def test_two_do_not_merge_into_one_folder(first, tmp_path, monkeypatch, capsys):
    (tmp_path / "plain.partial").mkdir()
    (tmp_path / "plain.partial" / "theirs").touch()
    words = ["merge", "--model", str(first), "--out", str(tmp_path / "plain")]
    with FileLock(tmp_path / ".plain.lock"):
        assert main(words) == 2
    assert f"another process is merging into {tmp_path / 'plain'}" in capsys.readouterr().err
    assert (tmp_path / "plain.partial" / "theirs").exists()
    shown, original = [], Progress.stage

    def stage(progress, name, *words, **more):
        shown.append(name)
        return original(progress, name, *words, **more)

    monkeypatch.setattr(Progress, "stage", stage)
    assert main(words) == 0  # and what a killed one left is cleared up
    assert shown == ["starting", f"loading {first}", "saving"]
    assert not (tmp_path / "plain" / "theirs").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_another_kind_of_adapter_is_refused(first, tmp_path, capsys):
    import shutil

    shutil.copytree(first / "model", tmp_path / "a")
    file = tmp_path / "a" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "peft_type": "PROMPT_TUNING"}))
    assert main(["sample", "--model", str(tmp_path / "a"), "--prompt", "1"]) == 2
    assert "holds a PROMPT_TUNING adapter; LoRA alone is read" in capsys.readouterr().err


def test_pairs_to_evaluate_on_from_a_file_of_their_own(base, data, tmp_path, capsys):
    own = tmp_path / "own.jsonl"
    rows = [{"prompt": "1+1", "chosen": "a", "rejected": "b"}, *({**r, "prompt": r["prompt"] + "?"}
            for r in PAIRS[:3])]  # fmt: skip
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    assert train(base, data, out, "--eval-data", str(own), "--steps", "2") == 0
    assert "20 to train on" in (said := capsys.readouterr().err)
    assert "4 prompts of --eval-data are in --data too, with the same words" in said
    told = json.loads((out / "run.json").read_text())
    assert told["held_out"] == 4
    assert main(["eval", "--model", str(out), "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["pairs"] == 4
    assert again["margin"] == pytest.approx(told["results"]["held_out"]["margin"], abs=1e-4)
    own.write_text(own.read_text() + own.read_text())
    assert train(base, data, out, "--eval-data", str(own), "--steps", "2") == 2
    assert "eval_data_sha256 was" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_cut_adapter_is_named(first, tmp_path, capsys, name):
    import shutil

    shutil.copytree(first / "model", tmp_path / "a")
    file = tmp_path / "a" / name
    file.write_bytes(file.read_bytes()[:30])
    capsys.readouterr()
    assert main(["sample", "--model", str(tmp_path / "a"), "--prompt", "1"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "a") in error
    assert "is damaged" in error
    assert error.count("\n") == 1
