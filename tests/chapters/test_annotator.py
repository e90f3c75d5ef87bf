"""Appendix F, yours: what the annotators' files hold, the rule of success, and all the steps."""

import json

import pytest

from dpo_lib.data import read_jsonl
from dpo_lib.experiments import annotator
from dpo_lib.experiments.annotator import (
    LABELED,
    LIKES,
    PAIRS,
    has_plain_words,
    has_short_sentences,
    is_to_the_point,
    label,
    plain_words,
    short_sentences,
    to_the_point,
    verdict,
)
from dpo_lib.experiments.by_commands import Work
from dpo_lib.world import load_pairs


def agrees(pair, likes):
    better = likes(pair.prompt, pair.chosen, pair.chosen_ended)
    return better > likes(pair.prompt, pair.rejected, pair.rejected_ended)


def test_plain_words_are_short_ones():
    answers = (
        "A cat is an animal.",
        "A cat is an elegant animal.",
        "Domestic elegance.",
        "Elegance.",
    )
    shares = [-plain_words("", answer, True) for answer in answers]
    assert shares == [0, 0, 1, 1]
    assert -plain_words("", "It has a wonderful and beautiful tail.", True) == 2 / 7
    assert [has_plain_words("", answer, True) for answer in answers] == [True, True, False, False]
    assert has_plain_words("", "It has one beautiful tail and coat.", True)  # one word in seven


def test_sentences_are_short_on_average_and_what_was_cut_counts():
    assert short_sentences("", "It is a cat. It purrs.", True) == -3
    assert short_sentences("", "It is a cat. It purrs at", True) == -3.5
    assert short_sentences("", "1. Take it.\n2. Go.", True) == -2.5  # a number is no sentence
    assert short_sentences("", "4.", True) == annotator.NOTHING
    assert has_short_sentences("", " ".join(["word"] * 15) + ".", True)
    assert not has_short_sentences("", " ".join(["word"] * 16) + ".", True)


def test_the_stored_file_is_forty_preferences_with_a_few_slips():
    pairs = read_jsonl(LABELED)
    assert len(pairs) == PAIRS == len({pair.prompt for pair in pairs})
    assert {pair.prompt for pair in pairs} <= {*annotator.prompts()["train"]}
    assert 0.8 * PAIRS <= sum(agrees(pair, LIKES["third"][0]) for pair in pairs) < PAIRS


def test_slips_are_rare_and_ties_are_no_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(annotator, "PAIRS", 200)
    drawn = tmp_path / "drawn.jsonl"
    words = ("a cat", "a reasonable cat", "a formidable dog or cat", "the cat")  # two of them tie
    rows = [
        {"prompt": f"What is {i}?", "answers": [f"{w} {i}." for w in words]} for i in range(300)
    ]
    drawn.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = read_jsonl(label(drawn, tmp_path / "a.jsonl", 0, plain_words))
    assert len(pairs) == 200
    assert all(
        plain_words("", pair.chosen, True) != plain_words("", pair.rejected, True) for pair in pairs
    )
    assert 0.05 < 1 - sum(agrees(pair, plain_words) for pair in pairs) / 200 < 0.15
    again = label(drawn, tmp_path / "b.jsonl", 0, plain_words)
    assert again.read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    other = label(drawn, tmp_path / "c.jsonl", 1, plain_words)
    assert other.read_bytes() != again.read_bytes()


def test_an_answer_that_ends_is_better_than_one_that_was_cut():
    cut = "It is."
    assert to_the_point("", "It is a cat.", True) > to_the_point("", "It is a small cat.", True)
    assert to_the_point("", "word " * 72, True) > to_the_point("", cut, False)
    words = " ".join(["word"] * 25)
    assert is_to_the_point("", words, True)
    assert not is_to_the_point("", f"{words} word", True)
    assert not is_to_the_point("", cut, False)


@pytest.mark.parametrize(
    ("change", "missed"),
    [({}, set()), ({"low": 0.5}, {"wins"}), ({"ends": 0.54}, {"ends"}), ({"kl": 3.0}, {"kl"})],
)
def test_each_point_of_the_rule_can_be_missed(change, missed):
    def row(arm, low=0.51, ends=0.56, kl=1.0):
        sides = {"before": {"ends": {"share": 0.6}}, "after": {"ends": {"share": ends}}}
        return {"who": "first", "arm": arm, "wins": {"low": low}, "kl": {"mean": kl}, **sides}

    other = {**row("dpo", 0.1, 0.1, 9.0), "who": "second"}
    rows = [row("dpo", **change), row("dpo", **{**change, "low": 0.51}), row("flipped", 0.1), other]
    assert {name for name, met in verdict(rows, "first").items() if not met} == missed


def by_length(prompt, answer, ended):
    return len(answer)


def test_the_whole_of_it_on_the_books_own_model(tmp_path, monkeypatch, tiny_commands):
    monkeypatch.setattr(annotator, "PAIRS", 4)
    settings = [
        setting._replace(steps=steps) for steps, setting in enumerate(annotator.SETTINGS, 1)
    ]
    monkeypatch.setattr(annotator, "SETTINGS", settings)
    monkeypatch.setattr(annotator, "SEEDS", range(2))
    likes = {who: (by_length, shows) for who, (_, shows) in LIKES.items()}
    monkeypatch.setattr(annotator, "LIKES", likes)
    monkeypatch.setattr(annotator, "by_length", by_length, raising=False)
    asked = list(dict.fromkeys(pair.prompt for pair in load_pairs()))
    work = Work(tmp_path, {"train": asked[:9], "asked": asked[9:12], "choose": asked[12:14]})
    rows = annotator.run(work)
    runs = [(row["who"], row["arm"], row["steps"], row["seed"]) for row in rows]
    tried = {row["steps"]: row["wins"]["share"] for row in rows if row["arm"] == "grid"}
    best = max(tried, key=tried.get)
    arms = (("dpo", 0), ("dpo", 1), ("flipped", 0))
    assert runs == [
        *(("first", arm, 1, seed) for arm, seed in arms),
        *(("second", "grid", steps, 0) for steps in (1, 2)),
        *(("second", arm, best, seed) for arm, seed in arms),
        *(("third", arm, 1, seed) for arm, seed in arms),
    ]
    assert all(0 <= row["wins"]["low"] <= row["wins"]["share"] <= 1 for row in rows)
    assert all(0 <= row["ranked"] <= 1 for row in rows)
    made, turned = (
        read_jsonl(tmp_path / f"first-labeled-0{end}.jsonl") for end in ("", "-flipped")
    )
    assert [pair.chosen for pair in made] == [pair.rejected for pair in turned]
    tiny_commands.clear()
    assert annotator.run(work) == rows
    assert not tiny_commands  # everything was there
