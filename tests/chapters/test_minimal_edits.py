"""Appendix F, act two: pairs that differ in the second sentence alone, and three losses on them."""

import json

import pytest

from dpo_lib.cli.drawn import Answer, Drawn
from dpo_lib.data import PreferenceRecord, read_jsonl
from dpo_lib.experiments import minimal_edits
from dpo_lib.experiments.by_commands import Work, sentences
from dpo_lib.experiments.minimal_edits import edited, gives_example
from dpo_lib.experiments.one_sided import ASKED, EACH, SEEDS
from dpo_lib.experiments.real_model import DATA
from dpo_lib.experiments.store import RESULTS
from dpo_lib.world import load_pairs


def test_only_the_second_sentence_is_edited():
    row, other = read_jsonl(DATA)[:2]
    own = "The sky is up. It is far."
    answers = [Answer("One."), Answer("Cut. Off.", ended=False), Answer(own), Answer("A b. C d.")]
    (pair,) = edited([Drawn(row.prompt, answers), Drawn(other.prompt, answers[:2])])
    _, second = sentences(row.chosen)
    assert second.startswith("For example, ")
    assert pair == PreferenceRecord(row.prompt, f"The sky is up. {second}", own)


@pytest.mark.parametrize(
    ("answer", "ended", "gives"),
    [
        ("A cat purrs. For example, at night.", True, True),
        ("A cat purrs. It does. For example, at night.", True, True),
        ("A cat purrs. For example, at night.", False, False),
        ("For example, a cat purrs. It does.", True, False),
        ("A cat purrs, for example, at night. It does.", True, False),
        ("A cat purrs. For example, at", True, False),
    ],
)
def test_an_example_stands_behind_the_first_sentence(answer, ended, gives):
    assert gives_example("", answer, ended) is gives


def test_the_stored_rows_are_those_of_the_script():
    stored = json.loads((RESULTS / "minimal_edits.json").read_text(encoding="utf-8"))
    rows = [row for row in stored["rows"] if row["arm"] != "pairs"]
    found = {(row["arm"], row["rate"], row["seed"]) for row in rows}
    runs = [(minimal_edits.RATES[0], seed) for seed in SEEDS] + [(minimal_edits.RATES[1], 0)]
    assert found == {(arm, *run) for arm in minimal_edits.ARMS for run in runs}
    for row in rows:
        assert (row["prompts"], row["per_prompt"], row["steps"]) == (
            ASKED,
            EACH,
            minimal_edits.STEPS,
        )
        drawn = row["before"]["drawn"]
        assert row["price"]["share"] == (drawn["share"] or drawn["high"])
    assert all(row["pairs"] >= 80 for row in stored["rows"] if row["arm"] == "pairs")


def test_the_whole_of_it_on_the_books_own_model(tmp_path, monkeypatch, tiny_commands):
    pairs = load_pairs()
    asked = list(dict.fromkeys(pair.prompt for pair in pairs))

    def two_answers(drawn):
        texts = [(row.prompt, row.answers[0].text) for row in drawn]
        return [PreferenceRecord(prompt, f"{text} {text}", text) for prompt, text in texts]

    monkeypatch.setattr(minimal_edits, "edited", two_answers)
    monkeypatch.setattr(minimal_edits, "STEPS", 1)
    monkeypatch.setattr(minimal_edits, "SEEDS", range(2))
    work = Work(tmp_path, {"train": asked[:8], "held_out": asked[8:11]})
    rows = minimal_edits.run(work)
    runs = [(row["arm"], row["seed"], row["rate"]) for row in rows if row["arm"] != "pairs"]
    arms = ("dpo", "sft", "rpo")
    first, second = minimal_edits.RATES
    assert runs == [
        *((arm, seed, first) for seed in (0, 1) for arm in arms),
        *((arm, 0, second) for arm in arms),
    ]
    assert [row["pairs"] for row in rows if row["arm"] == "pairs"] == [8, 8]
    losses = [words[words.index("--loss") + 1] for words in tiny_commands if "--loss" in words]
    assert losses == ["sft", "rpo"] * 3
    assert len({row["kl"]["mean"] for row in rows if row["arm"] != "pairs"}) == 9
    tiny_commands.clear()
    assert minimal_edits.run(work) == rows
    assert not tiny_commands  # everything was there
