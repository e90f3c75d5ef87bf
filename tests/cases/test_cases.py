"""From a user's file and model to a run, for each kind that went wrong in silence once."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo_lib.cli import main
from dpo_lib.cli.data import DataSettings, fit_to_model, read_pairs
from dpo_lib.cli.models import open_model
from dpo_lib.data.formats import Conversation
from dpo_lib.models.chat import PretrainedTokenizer
from dpo_lib.models.tokenizers import WordTokenizer
from dpo_lib.world import label_by_reward, load_pairs
from tests.models.families import make_family
from tests.models.hf import save_llama

TOWNS = ["Adra", "Brix", "Cole", "Dorn", "Esk", "Fenn", "Gorm", "Hale", "Ivel", "Jura"]
PLAIN = [
    {"prompt": f"Where is the inn in {town}?", "chosen": f"In {town}, left.", "rejected": "Hm."}
    for town in TOWNS
]


def make_model(path, family, vocab=None, **settings):
    """A folder with a small Llama and a family's tokenizer."""
    return save_llama(path, make_family(family, **settings), context=256, vocab=vocab)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def train(model, data, out, *more):
    options = ["--steps", "2", "--batch-size", "4", "--held-out", "0.2", "--max-new-tokens", "4"]
    names = ["--model", str(model), "--data", str(data), "--out", str(out)]
    return main(["train", *names, "--samples", "2", *options, *more])


def test_the_saved_folder_stops_where_the_responses_ended(tmp_path):
    """The template's end of turn is not the tokenizer's EOS."""
    model = make_model(tmp_path / "model", "headers")
    data = write(tmp_path / "a.jsonl", PLAIN)
    end = make_family("headers").convert_tokens_to_ids("<|eot|>")
    assert train(model, data, tmp_path / "run", "--full") == 0
    folder = tmp_path / "run" / "model"
    saved = AutoModelForCausalLM.from_pretrained(folder)
    assert saved.generation_config.eos_token_id == end
    with torch.no_grad():  # a model that writes the end token whatever it reads
        saved.model.norm.weight.zero_()
        saved.lm_head = torch.nn.Linear(16, saved.config.vocab_size)
        saved.lm_head.weight.zero_()
        saved.lm_head.bias.zero_()
        saved.lm_head.bias[end] = 9.0
    ids = AutoTokenizer.from_pretrained(folder)("Hi.", return_tensors="pt")
    written = saved.generate(**ids, max_new_tokens=20, do_sample=False)
    assert written.shape[1] == ids["input_ids"].shape[1] + 1
    assert train(model, data, tmp_path / "lora", "--lora", "2") == 0
    kept = json.loads((tmp_path / "lora" / "model" / "generation_config.json").read_text())
    assert kept["eos_token_id"] == end


def test_an_adapter_of_a_relative_model_loads_from_any_folder(tmp_path, monkeypatch):
    make_model(tmp_path / "model", "chatml")
    write(tmp_path / "a.jsonl", PLAIN)
    monkeypatch.chdir(tmp_path)
    assert train("./model", "a.jsonl", "run", "--lora", "2") == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = json.loads((tmp_path / "run" / "model" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str((tmp_path / "model").resolve())
    assert open_model(str(tmp_path / "run")).vocab_size > 256


def test_a_pad_id_beyond_the_embedding(tmp_path):
    """Prompts differ in length, so that there are pads; what they are does not matter."""
    model = make_model(tmp_path / "model", "chatml")
    tokenizer = AutoTokenizer.from_pretrained(model)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(model)
    assert tokenizer.pad_token_id == size
    rows = [{**row, "prompt": "very " * i + row["prompt"]} for i, row in enumerate(PLAIN)]
    assert train(model, write(tmp_path / "a.jsonl", rows), tmp_path / "run", "--full") == 0
    opened = open_model(str(model))
    assert opened.tokenizer.pad_id == opened.tokenizer.eos_id < opened.vocab_size == size


def test_rows_that_the_template_refuses_have_a_line_and_its_words(tmp_path, capsys):
    model = make_model(tmp_path / "model", "turns")
    two = [{"role": "user", "content": "Hm."}, {"role": "user", "content": "Where?"}]
    data = write(tmp_path / "a.jsonl", [*PLAIN, {**PLAIN[0], "prompt": two}])
    assert train(model, data, tmp_path / "run", "--full") == 2
    error = capsys.readouterr().err
    assert "line 11: template: the chat template refuses this: Roles must alternate" in error
    assert "--skip-bad leaves them out" in error
    assert train(model, data, tmp_path / "run", "--full", "--skip-bad") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["skipped"] == {"template": 1}
    capsys.readouterr()
    assert train(model, data, tmp_path / "b", "--system", "Be brief.", "--skip-bad") == 2
    error = capsys.readouterr().err
    assert "System role not supported" in error
    assert "no row is left" in error
    assert "--skip-bad leaves" not in error


def test_conversations_stay_messages_in_samples(tmp_path, capsys, monkeypatch):
    model = make_model(tmp_path / "model", "chatml")
    turns = [("system", "Be brief."), ("user", "Hi."), ("assistant", "Aye.")]
    rows = [
        {**row, "prompt": [*({"role": r, "content": c} for r, c in turns),
                           {"role": "user", "content": row["prompt"]}]}
        for row in PLAIN
    ]  # fmt: skip
    data = write(tmp_path / "a.jsonl", rows)
    assert train(model, data, tmp_path / "run", "--full") == 0
    samples = json.loads((tmp_path / "run" / "samples.json").read_text())
    assert [m["role"] for m in samples[0]["messages"]] == ["system", "user", "assistant", "user"]
    asked = []
    original = PretrainedTokenizer.encode_prompt

    def listen(self, text):
        asked.append(text)
        return original(self, text)

    monkeypatch.setattr(PretrainedTokenizer, "encode_prompt", listen)
    capsys.readouterr()
    run = ["--model", str(tmp_path / "run"), "--max-new-tokens", "4"]
    assert main(["sample", *run, "--json"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in again] == [row["after"]["text"] for row in samples]
    assert main(["compare", *run]) == 0
    assert {type(prompt) for prompt in asked} == {Conversation}
    asked.clear()
    assert main(["sample", *run, "--prompts", str(data)]) == 0
    assert asked[0].messages[0] == {"role": "system", "content": "Be brief."}
    assert main(["sample", *run, "--prompt", "Hm?", "--system", "Be long."]) == 0
    assert [m["content"] for m in asked[-1].messages] == ["Be long.", "Hm?"]


def test_prompts_of_a_file_end_at_newlines_only(tmp_path, capsys):
    model = make_model(tmp_path / "model", "chatml")
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffOne?\r\nTwo\u2028halves?\n\nPage\x0cbreak?\n".encode())
    sample = ["sample", "--model", str(model), "--max-new-tokens", "2", "--prompts", str(path)]
    assert main([*sample, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.split("\n") if line]
    assert [row["prompt"] for row in rows] == ["One?", "Two\u2028halves?", "Page\x0cbreak?"]
    for encoding, words in (("utf-16", "--encoding utf-16"), ("latin-1", "--encoding cp1252")):
        path.write_bytes("Où?\n".encode(encoding))
        assert main(sample) == 2
        error = capsys.readouterr().err
        assert str(path) in error
        assert words in error
        assert main([*sample, "--encoding", words.split()[-1]]) == 0
        assert "Où?" in capsys.readouterr().out


def test_show_prints_what_is_scored_and_what_to_look_at(tmp_path, capsys):
    model = make_model(tmp_path / "model", "thinking")
    rows = [{**row, "chosen": f"{row['chosen']}<|im_end|>", "source": "me"} for row in PLAIN]
    rows += [{**rows[0], "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}]
    data = write(tmp_path / "a.jsonl", [*rows, {**rows[1], "prompt": rows[1]["prompt"].upper()}])
    assert main(["show", "--model", str(model), "--data", str(data), "--rows", "1"]) == 0
    text = capsys.readouterr().out
    for words in (
        "pair 1 (line 1)",
        "<|im_start|>user⏎",
        "chosen, scored: 21 tokens",
        "‹<think>›‹⏎›‹⏎›‹</think>›",
        "‹<|im_end|>›",
        "not used: source (12) (rows)",
        "an end token (<|im_end|>) was there already in 12 texts",
        "1 pairs are there both ways round",
        "1 prompts are there in forms that differ in case",
        "the chosen response is the longer one in 92% of the pairs",
    ):
        assert words in text, words
    assert "pair 2" not in text


def test_rows_too_long_are_one_line(tmp_path, capsys):
    model = make_model(tmp_path / "model", "chatml")
    long = [{**PLAIN[0], "chosen": "so " * (90 + i)} for i in range(40)]
    capsys.readouterr()
    rows = [row for pair in zip(long, PLAIN * 4, strict=True) for row in pair]
    assert main(["show", "--model", str(model), "--data", str(write(tmp_path / "a", rows))]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "too long: prompt and response have up to 4" in lines[1]


def test_each_text_is_encoded_once(tmp_path, monkeypatch):
    """Reading, fitting, splitting and training take the ids that were made first."""
    rows = [record.to_row() for record in label_by_reward(load_pairs(), 0)[::2]]
    assert len(rows) == 396
    data = write(tmp_path / "a.jsonl", rows)
    made = []
    original = WordTokenizer.encode

    def count(self, text):
        made.append(text)
        return original(self, text)

    monkeypatch.setattr(WordTokenizer, "encode", count)
    monkeypatch.setattr(WordTokenizer, "encode_prompt", count)
    settings = DataSettings(data=(str(data),))
    pairs = fit_to_model(read_pairs(settings), open_model("tiny"))
    train_pairs, held_out = pairs.dataset.split(0.1)
    held_out.take(range(3))
    assert len(made) == 3 * 396 == 1188
    assert len(train_pairs) + len(held_out) == 396
    made.clear()
    assert train("tiny", data, tmp_path / "run", "--steps", "20", "--samples", "0") == 0
    assert len(made) == 1188


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_training_on_alpaca_says_what_it_did_with_input(tmp_path, capsys, name):
    rows = [
        {"instruction": "Translate.", "input": f"The gate of {town} is open.", "chosen": f"{town}!",
         "rejected": "No idea.", "source": "me"}
        for town in TOWNS
    ]  # fmt: skip
    tab = "\t" if name.endswith("tsv") else ","
    path = write(tmp_path / name, rows)
    if not name.endswith("jsonl"):
        path.write_text(
            "\n".join(tab.join(row) for row in [[*rows[0]], *(r.values() for r in rows)])
        )
    model = make_model(tmp_path / "model", "chatml")
    options = ["--map", "instruction=prompt"] if name == "a.tsv" else []
    assert train(model, path, tmp_path / "run", "--full", *options) == 0
    error = capsys.readouterr().err
    assert "10 pairs, 10 prompts" in error
    assert "input joined to the instruction, after a blank line, in 10 rows" in error
    assert "not used: source (10) (rows)" in error
    assert "the word 'idea' alone tells the rejected response in 100% of the pairs" in error


def test_a_pair_that_becomes_the_same_tokens_is_a_bad_row(tmp_path, capsys):
    """The template strips answers, so that two that differ in white space are one."""
    model = make_model(tmp_path / "model", "headers")
    rows = [*PLAIN, {**PLAIN[0], "rejected": f"{PLAIN[0]['chosen']} \n"}]
    data = write(tmp_path / "a.jsonl", rows)
    assert main(["show", "--model", str(model), "--data", str(data)]) == 2
    error = capsys.readouterr().err
    assert "line 11: identical: chosen and rejected become the same tokens" in error
    other = make_model(tmp_path / "other", "chatml")  # here the white space is scored
    assert main(["show", "--model", str(other), "--data", str(data)]) == 0


def test_empty_cells_and_foreign_marks_are_pointed_at(tmp_path, capsys):
    model = make_model(tmp_path / "model", "chatml")
    rows = [*PLAIN, {**PLAIN[0], "chosen": "nan"}]
    rows += [{**PLAIN[1], "prompt": "### Instruction:\nAdd.\n\n### Response:\n"}]
    data = write(tmp_path / "a.jsonl", rows)
    assert main(["show", "--model", str(model), "--data", str(data)]) == 0
    text = capsys.readouterr().out
    assert "look   1 texts are only 'nan': was their cell empty?" in text
    assert "1 pair hold marks of a chat template that is not this model's (### " in text
