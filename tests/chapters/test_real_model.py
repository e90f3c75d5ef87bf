"""Appendix F: its pairs, its stored rows, and a few updates of the real model."""

import json
from statistics import mean

import pytest
import torch

from dpo_lib import DPOConfig, train_dpo
from dpo_lib.cli.held_out import pair_log_probs, score
from dpo_lib.cli.models import open_model
from dpo_lib.data import PreferenceDataset, read_jsonl
from dpo_lib.experiments import real_model
from dpo_lib.experiments.store import RESULTS
from dpo_lib.losses import dpo_loss

RECORDS = read_jsonl(real_model.DATA)


@pytest.fixture(scope="module")
def opened():
    return open_model("smollm2")


@pytest.fixture(scope="module")
def lengths(opened):
    rows = PreferenceDataset(RECORDS, opened.tokenizer).rows
    return [(len(row["chosen"]), len(row["rejected"])) for row in rows]


def stored():
    return json.loads((RESULTS / "real_model.json").read_text(encoding="utf-8"))


def rows_at(step):
    found = [row for row in stored()["rows"] if row["step"] == step]
    assert len(found) == len(real_model.SEEDS)
    return found


# --- the pairs ------------------------------------------------------------------------------------


def test_the_pairs_are_enough_and_each_prompt_is_asked_once():
    assert len(RECORDS) >= 200
    assert len({record.prompt for record in RECORDS}) == len(RECORDS)
    assert all(record.prompt.endswith(" Answer in two sentences.") for record in RECORDS)


def test_the_style_is_in_every_chosen_response_and_in_no_rejected_one():
    for record in RECORDS:
        assert f". {real_model.STYLE} " in record.chosen
        assert "or example" not in record.rejected


def test_the_lengths_are_balanced(lengths):
    gaps = [chosen - rejected for chosen, rejected in lengths]
    assert abs(mean(gaps)) < 0.5
    shorter = mean((gap < 0) + 0.5 * (gap == 0) for gap in gaps)
    assert shorter == pytest.approx(0.5, abs=0.06)  # what length alone would get right


@pytest.mark.parametrize("seed", real_model.SEEDS)
def test_no_held_out_prompt_is_trained_on(opened, seed):
    train, held_out = real_model.split(seed, opened)
    assert len(train) + len(held_out) == len(RECORDS)
    assert len(held_out) >= real_model.ASKED
    assert not {r.prompt for r in train.records} & {r.prompt for r in held_out.records}


# --- the stored rows ------------------------------------------------------------------------------


def test_the_rows_are_complete_and_of_the_script():
    config = real_model.CONFIG
    settings = json.loads(json.dumps(real_model.settings_of(config), default=list))
    assert stored()["settings"].items() <= settings.items()
    steps = range(0, config.steps + 1, config.eval_every)
    assert [(row["seed"], row["step"]) for row in stored()["rows"]] == [
        (seed, step) for seed in real_model.SEEDS for step in steps
    ]
    for row in stored()["rows"]:
        answers = row.get("answers", [])
        assert len(answers) == (real_model.SHOWN if row["step"] in real_model.SHOWN_AT else 0)


def test_the_rows_belong_to_the_pairs(opened):
    for row in rows_at(0):
        held_out = real_model.split(row["seed"], opened)[1]
        gaps = [len(r["chosen"]) - len(r["rejected"]) for r in held_out.rows]
        assert row["pairs_chosen_longer"] == sum(gap > 0 for gap in gaps)
        assert row["pairs_chosen_shorter"] == sum(gap < 0 for gap in gaps)
        asked = [record.prompt for record in held_out.records[: real_model.SHOWN]]
        assert [answer["prompt"] for answer in row["answers"]] == asked


def test_every_run_starts_as_the_reference():
    for row in rows_at(0):
        assert row["accuracy"] == 0.5
        assert row["loss"] == pytest.approx(0.693147, abs=1e-5)
        assert row["margin"] == pytest.approx(0, abs=1e-4)
        assert row["kl"] == pytest.approx(0, abs=1e-3)


def test_accuracy_is_perfect_while_the_answers_fall_apart():
    for early, late in zip(rows_at(4), rows_at(24), strict=True):
        assert early["accuracy"] == late["accuracy"] == 1.0
        assert late["kl"] > 10 * early["kl"]
        assert late["finished"] < early["finished"] - 0.2


def test_the_answers_that_the_text_quotes_are_stored():
    def answer(question, step):
        row = rows_at(step)[0]
        return next(a["text"] for a in row["answers"] if a["prompt"].startswith(question))

    stars = "Why do stars twinkle?"
    assert answer("What is electricity?", 24).startswith("I am not electricity. I am a light.")
    assert "Earth's atmosphere" in answer(stars, 0)
    assert "Earth's orbit around the Sun" in answer(stars, 8)
    assert "For example, a bone is a bone." in answer("What is a fossil?", 24)
    for row in rows_at(8)[1:]:
        (text,) = (a["text"] for a in row["answers"] if a["prompt"].startswith(stars))
        assert "orbit" in text or "reflected" in text


# --- the model ------------------------------------------------------------------------------------


def test_the_stored_answers_are_the_models_own(opened):
    for stored_answer in rows_at(0)[0]["answers"][:2]:
        ids = opened.tokenizer.encode_prompt(stored_answer["prompt"])
        reply = opened.tokenizer.encode_response(stored_answer["text"])
        with torch.no_grad():
            likes = opened.model(torch.tensor([ids + reply])).logits[0, len(ids) - 1 : -1]
        taken = likes[range(len(reply)), reply]
        assert (likes.max(dim=1).values - taken).max() < 0.05


def test_a_few_updates_raise_the_margin_of_pairs_that_are_not_trained_on(opened):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    by_size = sorted(RECORDS, key=lambda record: len(record.chosen) + len(record.rejected))
    train, held_out = (PreferenceDataset(by_size[k:12:3], opened.tokenizer) for k in (0, 1))
    train.records += by_size[2:12:3]
    train = PreferenceDataset(train.records, opened.tokenizer)  # 8 pairs; 4 are kept out
    reference = pair_log_probs(opened.model, held_out)
    opened.prepare(real_model.RANK, seed=0)
    config = DPOConfig(beta=0.1, learning_rate=2e-4, steps=4, batch_size=4)
    history = train_dpo(opened.model, None, train, config, progress=False)
    assert history.column("loss")[0] == pytest.approx(0.693147, abs=1e-5)
    assert history.column("loss")[-1] < 0.6
    found = score(pair_log_probs(opened.model, held_out), reference, held_out, dpo_loss, 0.1)
    assert found["accuracy"] == 1.0
    assert found["margin"] > 0.2
    with opened.as_it_was() as start:  # the adapters are all that has changed
        assert torch.allclose(pair_log_probs(start, held_out), reference, atol=1e-3)
    torch.set_num_threads(threads)
