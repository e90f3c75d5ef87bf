"""What the audit says of pairs, to the number, and what it does not say of clean ones."""

import pytest

from dpo_lib.data import PreferenceRecord
from dpo_lib.data.audit import audit_pairs

TEXTS = ["red plum", "blue figs", "old trees", "warm rains", "cold winds", "dry", "wet sand", "hot"]
OTHERS = [*TEXTS[4:], *TEXTS[:4]]  # as often longer as shorter


def pairs(chosen=TEXTS, rejected=OTHERS, prompt="Question {} of many"):
    texts = enumerate(zip(chosen, rejected, strict=True))
    return [PreferenceRecord(prompt.format(i), a, b) for i, (a, b) in texts]


def test_clean_pairs_are_passed_in_silence():
    assert audit_pairs(pairs()) == []


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_one_side_that_is_longer_and_ties_that_are_not(side):
    sizes = [(3, 2)] * 6 + [(2, 2)] * 2
    rows = [dict(zip(("chosen", "rejected"), map(list, map(range, s)), strict=True)) for s in sizes]
    if side == "rejected":
        rows = [{"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    (found,) = audit_pairs(pairs(), rows)
    assert found.startswith(f"the {side} response is the longer one in 75% of the pairs")
    rows[0] = {"chosen": [1], "rejected": [1]}  # five of eight are too few
    assert audit_pairs(pairs(), rows) == []
    assert audit_pairs(pairs()[:7], rows[1:]) == []  # and of seven pairs nothing is said


def test_a_word_that_stands_on_one_side():
    with_word = [f"well {text}" for text in TEXTS]
    (found, *_) = (w for w in audit_pairs(pairs(with_word)) if "alone" in w)
    assert found.startswith("the word 'well' alone tells the chosen response in 100% of the pairs:")
    (found, *_) = (w for w in audit_pairs(pairs(rejected=with_word, chosen=OTHERS)) if "alone" in w)
    assert "'well' alone tells the rejected response in 100%" in found


def test_a_word_that_as_often_stands_on_the_other_side_tells_nothing():
    """Nine of ten right and one wrong are eight of ten, which is below the share."""
    chosen = [f"well {text}" for text in TEXTS * 2]
    rejected = [*OTHERS, *OTHERS]
    chosen[0], rejected[0] = "sure", "well done"
    assert not any("alone" in line for line in audit_pairs(pairs(chosen, rejected)))
    rejected[0] = "done"  # fifteen of sixteen right, none wrong
    (found,) = (line for line in audit_pairs(pairs(chosen, rejected)) if "alone" in line)
    assert "tells the chosen response in 94% of the pairs" in found


def test_prompts_that_come_again_and_forms_of_one():
    again = [*pairs(), PreferenceRecord("Question 0 of many", "green", "brown")]
    assert audit_pairs(again) == [
        "2 pairs have a prompt that another pair has too (8 prompts in all; most often, 2 times, "
        "'Question 0 of many')"
    ]
    (found,) = audit_pairs([*pairs(), PreferenceRecord("question 0 of MANY?", "green", "brown")])
    assert found.startswith("1 prompts are there in forms that differ in case")
    found = audit_pairs(pairs(prompt="The same"))
    assert found[0] == "all 8 pairs have one prompt: 'The same'"


def test_pairs_that_are_there_both_ways_round_are_counted_once():
    first, second = pairs()[:2]
    turned = [PreferenceRecord(p.prompt.upper(), p.rejected, p.chosen) for p in (first, second)]
    (found,) = (line for line in audit_pairs([*pairs(), *turned]) if "both ways" in line)
    assert found.startswith("2 pairs are there both ways round")


def test_marks_beginnings_cells_and_scores_that_say_the_opposite():
    some = pairs()
    some[0] = PreferenceRecord("A <|im_start|> of it", "one [INST]", "two", {"chosen_score": 1})
    some[1] = PreferenceRecord("A question of many words", *["A question of many words " + t
                                                            for t in ("a", "b")])  # fmt: skip
    some[2] = PreferenceRecord(
        "Another", "None", "nothing", {"chosen_score": 1, "rejected_score": "2"}
    )
    some[3] = PreferenceRecord("A third", "x", "y", {"chosen_rank": 1, "rejected_rank": 2})
    assert audit_pairs(some, known=["[INST]"]) == [
        "1 pair hold marks of a chat template that is not this model's (<|im_start|>): they are "
        "read as text",
        "in 1 pair both responses begin with the whole prompt, which is there twice",
        "in 1 pair chosen_score is below rejected_score; --score chosen_score turns them round",
        "1 texts are only 'None': was their cell empty?",
    ]
