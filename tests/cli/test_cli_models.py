"""The command line on models of transformers: what it saves loads again, adapters and all."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_lib.cli import main, models
from dpo_lib.cli.live import Live
from dpo_lib.cli.models import OpenModel, open_model
from dpo_lib.cli.records import read_metrics
from dpo_lib.models import TinyGPT, TinyGPTConfig
from dpo_lib.models.pretrained import load_pretrained, smollm2_folder
from tests.models.hf import make_folder

PAIRS = [
    {"prompt": [{"role": "user", "content": f"{a}+{b}"}], "chosen": f"{a}.", "rejected": "?" * b}
    for a in range(1, 6)
    for b in range(1, 5)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.json"
    path.write_text(json.dumps(PAIRS, indent=1))
    return path


def train(folder, data, out, *more):
    options = ["--steps", "6", "--batch-size", "4", "--eval-every", "2", "--lr", "1e-2"]
    names = ["--model", str(folder), "--data", str(data), "--out", str(out)]
    return main(["train", *names, *options, "--held-out", "0.2", "--max-new-tokens", "6", *more])


def logits_of(model, tokenizer):
    ids = torch.tensor([tokenizer.encode("<|user|>1+1<|end|><|assistant|>")])
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.fixture(scope="module", params=[["--lora", "4"], ["--full"]], ids=["lora", "full"])
def run(request, folder, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train(folder, data, out, *request.param) == 0
    return out, request.param


def test_held_out_pairs_are_learned(run):
    out, _ = run
    results = json.loads((out / "run.json").read_text())["results"]
    assert results["held_out"]["accuracy"] > 0.7
    assert abs(results["kl"]) < 5


def test_the_output_loads_in_transformers(run, folder):
    out, how = run
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    if how == ["--full"]:
        model = AutoModelForCausalLM.from_pretrained(out / "model")
    else:
        from peft import AutoPeftModelForCausalLM

        model = AutoPeftModelForCausalLM.from_pretrained(out / "model")
    ours = load_pretrained(out / "model")
    assert torch.equal(logits_of(model, tokenizer), logits_of(ours.model, tokenizer))
    before = AutoModelForCausalLM.from_pretrained(folder)
    assert not torch.allclose(logits_of(model, tokenizer), logits_of(before, tokenizer))
    assert "license of the model it started from" in (out / "model" / "README.md").read_text()


def test_eval_of_the_output_repeats_the_run(run, capsys):
    out, _ = run
    results = json.loads((out / "run.json").read_text())["results"]["held_out"]
    capsys.readouterr()
    assert main(["eval", "--model", str(out), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    for name in ("accuracy", "margin", "chosen_logp", "rejected_logp"):
        assert again[name] == pytest.approx(results[name], abs=1e-4)
    assert again["pairs"] == 4


def test_an_interrupted_run_ends_with_the_same_bits(run, folder, data, tmp_path, monkeypatch):
    whole, how = run
    out = tmp_path / "run"
    original = Live.updated

    def stop(self, row):
        original(self, row)
        if row["step"] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Live, "updated", stop)
    assert train(folder, data, out, *how) == 130
    monkeypatch.setattr(Live, "updated", original)
    assert train(folder, data, out, *how) == 0
    assert (out / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    for path in (whole / "model").iterdir():
        assert (out / "model" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not (out / "checkpoint.pt").exists()


def test_a_second_run_can_start_from_the_first(run, data, tmp_path):
    first, how = run
    if how == ["--full"]:
        assert train(first, data, tmp_path / "second", *how) == 0
        rows = [*read_metrics(tmp_path / "second" / "metrics.jsonl")]
        assert rows[1]["loss"] != rows[-2]["loss"]


def test_sample_and_compare(run, capsys):
    out, _ = run
    capsys.readouterr()
    options = ["--max-new-tokens", "4"]
    assert main(["sample", "--model", str(out), "--prompt", "1+1", "--json", *options]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["prompt"] == "1+1"
    assert row["tokens"] <= 4
    assert main(["compare", "--model", str(out), *options]) == 0
    text = capsys.readouterr().out
    assert text.startswith("before: ")
    assert " | " in text
    assert "tokens an answer" in text


def test_sampling_at_a_temperature_repeats_with_its_seed(folder, capsys):
    command = ["sample", "--model", str(folder), "--prompt", "ab", "--temperature", "1"]
    texts = []
    for seed in ("1", "1", "2"):
        assert main([*command, "--n", "2", "--max-new-tokens", "8", "--seed", seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_conversations_need_a_template(folder, tmp_path, capsys):
    pair = {"chosen": "Yes.", "rejected": "No.", "system": "Be brief.", "prompt": "Well?"}
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({**pair, "prompt": f"{i}?"}) + "\n" for i in range(10)))
    assert train(folder, path, tmp_path / "chat", "--steps", "1") == 0
    assert train(folder, path, tmp_path / "plain", "--steps", "1", "--plain") == 2
    assert "needs a chat template" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--model", "FOLDER"], "--data is needed: the model is not a run"),
        (["compare", "--model", "FOLDER", "--prompt", "a"], "--before is needed"),
        (["sample", "--model", "FOLDER"], "no prompts: give --prompt"),
        (["sample", "--model", "FOLDER", "--prompt", "a" * 99], "a prompt has 102 tokens"),
        (["sample", "--model", "FOLDER", "--prompts", "no.txt"], "there is no file no.txt"),
        (["sample", "--model", "FOLDER", "--prompt", "a", "--temperature", "-1"], "temperature"),
    ],
)
def test_errors_are_one_line(folder, capsys, arguments, message):
    assert main([str(folder) if a == "FOLDER" else a for a in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# --- in process, without a run -------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    """The folder of a small model of the book, and the model."""
    torch.manual_seed(0)
    sizes = TinyGPTConfig(vocab_size=150, context_length=7, width=8, heads=2, layers=1)
    model = TinyGPT(sizes).double()
    OpenModel("any", model, None).save(tmp_path / "tiny")
    return tmp_path / "tiny", model


def test_a_tiny_model_loads_as_it_was_saved(tiny):
    folder, model = tiny
    files = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert files == dict.fromkeys(("tiny_gpt.json", "tiny_gpt.safetensors"), 0o644)
    opened = open_model(str(folder))
    assert (opened.name, opened.context, opened.model.config) == (str(folder), 7, model.config)
    assert not opened.model.training
    assert opened.vocab_size == len(opened.tokenizer)
    weights = opened.model.state_dict()
    for name, weight in model.state_dict().items():
        assert weights[name].dtype == torch.float64
        assert torch.equal(weights[name], weight)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("tiny_gpt.json", b"{", "Expecting property name enclosed in double quotes: .*"),
        ("tiny_gpt.json", b'{"\xff"}', "'utf-8' codec can't decode byte 0xff .*"),
        ("tiny_gpt.json", b'{"depth": 3}', ".*unexpected keyword argument 'depth'"),
        ("tiny_gpt.json", b'{"vocab_size": 9}', r"Error\(s\) in loading state_dict for TinyGPT:"),
        ("tiny_gpt.safetensors", b"", "Error while deserializing header.*"),
        ("tiny_gpt.safetensors", b"\x02" + 7 * b"\0" + b"{}", "it holds no weights"),
        ("tiny_gpt.safetensors", None, "No such file or directory: .*tiny_gpt.safetensors"),
    ],
)
def test_a_tiny_model_that_is_damaged_is_named_in_one_sentence(tiny, name, content, reason):
    folder, _ = tiny
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"\A{re.escape(str(folder))} is damaged: {reason}\Z"):
        open_model(str(folder))


def test_a_path_that_is_no_folder_is_not_looked_for_on_the_hub():
    with pytest.raises(ValueError, match=r"^model '\./nowhere' is not a folder$"):
        open_model("./nowhere")


@pytest.mark.parametrize("lora", [None, 2])
def shift(opened):
    """Change all that is trained."""
    with torch.no_grad():
        for parameter in opened.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)


@torch.no_grad()
def logits(model):
    return model(torch.tensor([[5, 9, 40, 41]])).logits


@pytest.mark.parametrize("lora", [None, 2])
def test_the_model_before_training_comes_back_and_goes(folder, tmp_path, lora):
    first, options = open_model(str(folder)), {"answer_prefix": "So"}
    first.prepare(2, seed=0)
    shift(first)
    first.save(tmp_path / "first")
    for name in (str(folder), str(tmp_path / "first")):
        opened = open_model(name, options)
        assert (opened.name, opened.options) == (name, options)
        assert opened.tokenizer.answer_prefix == "So"
        before = logits(opened.model)
        opened.prepare(lora, seed=0)
        assert opened.continued == bool(lora and name != str(folder))
        shift(opened)
        now = logits(opened.model)
        assert not torch.allclose(now, before, atol=1e-3)
        with opened.as_it_was() as was:
            torch.testing.assert_close(logits(was), before)
            assert (was is opened.model) == bool(lora)  # adapters need no second model
        assert torch.equal(logits(opened.model), now)


def test_new_adapters_are_in_every_linear_layer(folder):
    opened = open_model(str(folder))
    linear = {n for n, m in opened.model.named_modules() if isinstance(m, torch.nn.Linear)}
    opened.prepare(3, seed=0)
    config = opened.wrapper.active_peft_config
    assert (config.r, config.lora_alpha, config.task_type) == (3, 6, "CAUSAL_LM")
    learned = {name.partition(".lora_")[0] for name in opened.start}
    assert learned == linear - {"lm_head"}
    assert not opened.continued


@pytest.mark.parametrize("generates", [True, False])
def test_adapters_are_saved_with_the_license_and_the_end_of_their_base(tmp_path, generates):
    base = make_folder(tmp_path / "base")
    (base / "LICENSE").write_bytes(b"Mine.\r\n")
    opened = open_model(str(base))
    opened.name = "smollm2"  # as it may be typed
    opened.prepare(2, seed=0)
    if not generates:
        opened.model.generation_config = None
    opened.save(tmp_path / "out")
    saved = {path.name: path for path in (tmp_path / "out").iterdir()}
    own = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "LICENSE"}
    assert own <= saved.keys()
    assert saved["LICENSE"].read_bytes() == b"Mine.\r\n"
    assert ("generation_config.json" in saved) == generates
    if generates:
        config = json.loads(saved["generation_config.json"].read_text())
        assert config["eos_token_id"] == opened.tokenizer.eos_id
    assert {path.stat().st_mode & 0o777 for path in saved.values()} == {0o644}


def test_the_model_is_loaded_again_as_it_was_opened(monkeypatch):
    opened, asked = OpenModel("any", None, None, {"chat": False}), []
    again = SimpleNamespace(model="again")
    monkeypatch.setattr(models, "open_model", lambda *given: asked.append(given) or again)
    with opened.as_it_was() as was:
        assert was == "again"
    assert asked == [("any", {"chat": False})]


def test_adapters_that_are_no_numbers_are_not_merged(folder):
    opened = open_model(str(folder))
    opened.prepare(2, seed=0)
    with torch.no_grad():
        next(p for p in opened.model.parameters() if p.requires_grad).fill_(torch.nan)
    with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
        opened.merge()


@pytest.mark.parametrize("name", ["max_position_embeddings", "n_positions", "context_length"])
def test_what_a_model_can_read_stands_under_one_of_three_names(name):
    config = SimpleNamespace(max_position_embeddings=None)
    opened = OpenModel("any", SimpleNamespace(config=config), None)
    assert opened.context > 10**9
    setattr(config, name, 77)
    assert opened.context == 77


# --- SmolLM2, for real ---------------------------------------------------------------------------

BLOCK = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was touched")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from dpo_lib.cli import main, models
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def smollm2_run(tmp_path_factory):
    """A few updates of the real model in a process of its own that cannot reach the network."""
    smollm2_folder()  # with the network, where the cache is empty
    work = tmp_path_factory.mktemp("smollm2")
    towns = {"France": "Paris", "Japan": "Tokyo", "Peru": "Lima", "Italy": "Rome", "Cuba": "Havana"}
    rows = [
        {"question": f"Capital of {country}?", "chosen": f"{town}.", "rejected": "Who can know?"}
        for country, town in towns.items()
    ]
    (work / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-c", BLOCK, "train", "--data", str(work / "pairs.jsonl")]
    command += ["--map", "question=prompt", "--out", str(work / "run"), "--held-out", "0.2"]
    command += ["--steps", "4", "--batch-size", "2", "--samples", "1", "--max-new-tokens", "6"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return work / "run"


def test_smollm2_learns_offline(smollm2_run):
    rows = [row for row in read_metrics(smollm2_run / "metrics.jsonl") if row["kind"] == "update"]
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert rows[-1]["loss"] < 0.65
    run = json.loads((smollm2_run / "run.json").read_text())
    assert run["settings"]["lora"] == 8
    assert run["results"]["held_out"]["margin"] > 0


def test_smollm2s_adapter_loads_in_peft(smollm2_run):
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(smollm2_run / "model")
    ours, tokenizer = load_pretrained(smollm2_run / "model")
    ids = torch.tensor([tokenizer.encode_prompt("Capital of France?")])
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, ours(ids).logits)
    card = (smollm2_run / "model" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
