"""Appendix F, act one: what counts as brief, the prompts, the steps and the rule of success."""

from statistics import mean

import pytest

from dpo_lib.data import read_jsonl
from dpo_lib.experiments import own_draws
from dpo_lib.experiments.by_commands import Work
from dpo_lib.experiments.own_draws import choose, is_brief, is_right, verdict
from dpo_lib.world import load_pairs


@pytest.mark.parametrize(
    ("answer", "ended", "brief"),
    [
        ("A cat is an animal.", True, True),
        ("  A cat is an animal!\t", True, True),
        ("The U.S. is a country of 50 states.", True, True),
        ("It is about 3.5 m (e.g. a car).", True, True),
        ('He said, "It is a cat."', True, True),
        ("A cat is an animal.", False, False),
        ("A cat is an animal", True, False),
        ("A cat is an animal. It purrs.", True, False),
        ("Is it a cat? 2 of them are.", True, False),
        ('It is "a cat." "A cat" purrs.', True, False),
        ("A cat\nis an animal.", True, False),
        ("Yes, indeed.", True, False),
        ("", True, False),
    ],
)
def test_brief_is_one_finished_sentence(answer, ended, brief):
    assert is_brief("What is a cat? Answer briefly.", answer, ended) is brief


@pytest.mark.parametrize(
    ("question", "answer", "right"),
    [
        ("What is the capital of France?", "It is Paris.", True),
        ("What is the capital of France?", "The comparison is hard.", False),
        ("What is the chemical symbol of gold?", "Gold is Au.", True),
        ("What is the chemical symbol of gold?", "It is an author.", False),
        ("How many legs does a spider have?", "Eight legs.", True),
        ("How many legs does a spider have?", "It has 18.", False),
    ],
)
def test_a_fact_is_right_by_a_whole_word(question, answer, right):
    assert is_right(question + own_draws.ASKED, answer) is right


def test_no_prompt_is_for_two_things():
    prompts = own_draws.prompts()
    assert [len(prompts[name]) for name in ("train", "choose", "held_out")] == [120, 24, 60]
    every = [prompt for asked in prompts.values() for prompt in asked]
    assert len({*every}) == len(every)
    assert all(prompt.endswith("? Answer briefly.") for prompt in every)


def row(arm, share, before=0.2, ends=0.9, kl=1.0):
    side = {"drawn": {"share": share}, "greedy": {"share": share}, "ends": {"share": ends}}
    old = {"drawn": {"share": before}, "greedy": {"share": before}}
    return {"arm": arm, "before": old, "after": side, "kl": {"mean": kl}}


def test_a_setting_that_does_not_end_or_goes_too_far_is_not_chosen():
    rows = [row("grid", 0.5), row("grid", 0.6), row("grid", 0.9, ends=0.84)]
    rows += [row("grid", 0.8, kl=3.0)]
    assert choose(rows) is rows[1]
    assert choose(rows[2:]) is rows[2]  # there is none: the largest share


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, set()),
        ({"share": 0.39}, {"drawn", "greedy"}),
        ({"ends": 0.84}, {"ends"}),
        ({"kl": 3.0}, {"kl"}),
    ],
)
def test_each_point_of_the_rule_can_be_missed(change, missed):
    rows = [row("dpo", **{"share": 0.4, **change}) for _ in range(3)]
    rows += [row("facts", 0.5, before=0.56), row("grid", 0.0, ends=0.0, kl=9.0)]
    assert {name for name, (*_, met) in verdict(rows).items() if not met} == missed
    rows[3] = row("facts", 0.49, before=0.56)  # 2.1 facts less
    assert not verdict(rows)["facts"][2]
    rows[3] = row("facts", 0.8, before=0.866667)  # 24 after 26: two less are allowed
    assert verdict(rows)["facts"] == (26.0, 24.0, True)


def test_the_whole_of_it_on_the_books_own_model(tmp_path, monkeypatch, tiny_commands):
    """Every command that the script says is one, and the rows are those of the arms."""
    asked = list(dict.fromkeys(pair.prompt for pair in load_pairs()))
    facts = dict.fromkeys(asked[9:11], "good")
    given = {"train": asked[:4], "choose": asked[4:6], "held_out": asked[6:9], "facts": [*facts]}
    small = {"ASKED": "", "FACTS": facts, "SEEDS": range(1)}
    small |= {"RATES": (1e-4, 1e-3), "BETAS": (0.1,), "STEPS": 1, "LONGER": 2}
    small |= {"is_brief": lambda prompt, answer, ended: len(answer.split()) % 2 == 0}
    for name, value in small.items():
        monkeypatch.setattr(own_draws, name, value)

    rows = own_draws.run(Work(tmp_path, given))
    arms = [
        "grid",
        "grid",
        "grid",
        "pairs",
        "dpo",
        "facts",
        "sft",
        "flipped",
        "best of 8",
        "second round",
    ]
    assert [found["arm"] for found in rows] == arms
    made = read_jsonl(tmp_path / "drawn-0-pairs.jsonl")
    longer = mean(len(pair.rejected) > len(pair.chosen) for pair in made)
    assert rows[3] == {"arm": "pairs", "seed": 0, "pairs": len(made), "rejected_longer": longer}
    assert rows[4]["steps"] == choose(rows[:3])["steps"]
    assert [answer["prompt"] for answer in rows[4]["answers"]] == given["held_out"]
    (first, *_), sides = rows[4]["answers"], ("before", "after")
    assert all(first[side][way]["text"] for side in sides for way in ("drawn", "greedy"))
    assert [row["per_prompt"] for row in rows if "per_prompt" in row] == [2, 2, 2, 4, 1, 2, 2, 4]
    tiny_commands.clear()
    assert own_draws.run(Work(tmp_path, given)) == rows
    assert not tiny_commands  # everything was there
    assert verdict(rows).keys() == {"drawn", "greedy", "ends", "kl", "facts"}
