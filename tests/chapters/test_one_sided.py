"""Appendix F, what a pair says: kinds of answers, and rejected ones on one or two sides."""

import json
from collections import Counter

import pytest

from dpo_lib.data import read_jsonl
from dpo_lib.experiments import one_sided
from dpo_lib.experiments.by_commands import Work
from dpo_lib.experiments.one_sided import KINDS, is_two, kind, make_pairs, over_less, over_more
from dpo_lib.experiments.store import RESULTS
from dpo_lib.world import load_pairs

EXAMPLES = {
    "one": ("It is a cat.", True),
    "two": ("It is a cat. It purrs.", True),
    "more": ("It is a cat. It purrs. It sleeps.", True),
    "cut": ("It is a cat. It purrs.", False),
    "other": ("It is a cat. It", True),
}


def test_kinds_of_answers():
    assert [kind(*EXAMPLES[name]) for name in KINDS] == [*KINDS]
    assert kind("It is a cat.\nIt purrs.", True) == "other"
    assert [name for name in KINDS if is_two("", *EXAMPLES[name])] == ["two"]


def test_the_judges_put_the_two_ends_far_apart():
    for judge, worst in ((over_less, {"one"}), (over_more, {"more", "cut"})):
        scores = {name: judge("", *EXAMPLES[name]) for name in KINDS}
        assert scores["two"] == 2
        assert {name for name, score in scores.items() if score == 0} == worst


def test_rejected_answers_lie_on_one_side_or_on_both(tmp_path, tiny_commands):
    has = ["two one more", "two one cut", "two one", "two one more", "two more", "one more"]
    rows = []
    for i, names in enumerate(has):
        answers = [
            dict(zip(("text", "ended"), EXAMPLES[name], strict=True)) for name in names.split()
        ]
        rows.append({"prompt": f"What is {i}?", "answers": answers})
    drawn = tmp_path / "drawn.jsonl"
    drawn.write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = make_pairs(Work(tmp_path, {}), drawn)
    made = {arm: read_jsonl(path) for arm, path in paths.items()}
    assert [pair.prompt[8] for pair in made["one side"]] == [
        pair.prompt[8] for pair in made["both sides"]
    ]
    assert [pair.prompt[8] for pair in made["one side"]] == ["0", "1", "2", "3"]
    assert all(
        is_two("", pair.chosen, pair.chosen_ended) for pairs in made.values() for pair in pairs
    )
    counts = {arm: one_sided.pairs_row(arm, 0, pairs)["rejected"] for arm, pairs in made.items()}
    assert counts == {"one side": {"one": 4}, "both sides": {"more": 2, "one": 2}}
    rows[3]["answers"][2]["ended"] = False
    row = one_sided.pairs_row("x", 0, made["both sides"])
    assert (row["chosen_words"], row["rejected_words"]) == (6.0, (4 + 4 + 8 + 8) / 4)


def test_the_stored_shares_are_those_of_the_kinds():
    stored = json.loads((RESULTS / "one_sided.json").read_text(encoding="utf-8"))
    rows = [row for row in stored["rows"] if "kinds" in row]
    assert {(row["arm"], row["seed"]) for row in rows} == {
        (arm, seed) for arm in ("one side", "both sides") for seed in one_sided.SEEDS
    }
    for row in rows:
        assert (row["prompts"], row["per_prompt"]) == (one_sided.ASKED, one_sided.EACH)
        assert row["price"]["share"] == row["before"]["drawn"]["share"]
        for side in ("before", "after"):
            kinds = row["kinds"][side]
            for way in ("drawn", "greedy"):
                assert kinds[way]["two"] == row[side][way]["share"]
                assert sum(kinds[way].values()) == pytest.approx(1, abs=1e-5)
            assert 1 - kinds["drawn"]["cut"] == pytest.approx(row[side]["ends"]["share"], abs=1e-5)


def test_the_whole_of_it_on_the_books_own_model(tmp_path, monkeypatch, tiny_commands):
    def by_words(answer, ended):
        return ("one", "two", "more")[len(answer.split()) % 3]

    monkeypatch.setattr(one_sided, "kind", by_words)
    monkeypatch.setattr(one_sided, "SETTING", one_sided.SETTING._replace(steps=1))
    monkeypatch.setattr(one_sided, "SEEDS", range(1))
    asked = list(dict.fromkeys(pair.prompt for pair in load_pairs()))
    work = Work(tmp_path, {"train": asked[:8], "held_out": asked[8:11]})
    rows = one_sided.run(work)
    arms = ["one side", "both sides"]
    assert [row["arm"] for row in rows] == [name for arm in arms for name in (f"pairs, {arm}", arm)]
    for row in rows[1::2]:
        found = json.loads(
            (tmp_path / f"{row['arm'].replace(' ', '-')}-0-held_out.json").read_text()
        )
        answers = [one for answer in found["answers"] for one in answer["after"]["drawn"]]
        counts = Counter(by_words(one["text"], True) for one in answers)
        assert len(answers) == 3 * one_sided.EACH
        assert row["kinds"]["after"]["drawn"] == {name: counts[name] / 6 for name in KINDS}
        assert row["kinds"]["after"]["drawn"]["two"] == row["after"]["drawn"]["share"]
    tiny_commands.clear()
    assert one_sided.run(work) == rows
    assert not tiny_commands  # everything was there
