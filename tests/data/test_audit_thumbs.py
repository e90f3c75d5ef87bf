"""What the audit says of thumbs, and what it does not say of clean ones."""

import re

import pytest

from dpo_lib.data import UnpairedRecord
from dpo_lib.data.audit import about_weights, audit_thumbs

TEXTS = ["red plum", "blue fig", "old tree", "warm rain", "cold wind"]


def thumbs(up, down):
    """Thumbs up and down, each of its own prompt."""
    return [
        UnpairedRecord(f"Question {kind} {i} of many", text, kind)
        for kind, texts in ((True, up), (False, down))
        for i, text in enumerate(texts)
    ]


def test_clean_thumbs_are_passed_in_silence():
    assert audit_thumbs(thumbs(TEXTS, TEXTS)) == []
    both = [UnpairedRecord("Name a tree.", text, i % 2 == 0) for i, text in enumerate(TEXTS)]
    assert audit_thumbs([*both, UnpairedRecord("Other", "old tree", True)]) == []


def test_one_text_with_both_thumbs():
    some = [*thumbs(TEXTS, TEXTS), UnpairedRecord("question TRUE 1 of many", "blue fig ", False)]
    found = "\n".join(audit_thumbs(some))
    assert "1 responses have thumbs both up and down, such as 'blue fig'" in found
    assert "prompts are there in forms that differ" in found


@pytest.mark.parametrize("longer", ["up", "down"])
def test_the_kind_that_is_longer(longer):
    texts = [TEXTS, [text + " and more" for text in TEXTS]]
    (found, *_) = audit_thumbs(thumbs(*texts[:: -1 if longer == "up" else 1]))
    assert f"a thumb {longer} is longer than one of the other kind in 100%" in found
    rows = [{"response": [0] * 3} for _ in range(10)]
    assert not any("longer" in line for line in audit_thumbs(thumbs(*texts), rows))


@pytest.mark.parametrize("kind", ["up", "down"])
def test_a_word_that_tells_the_thumb_whatever_the_shares(kind):
    marked, plain = [f"sorry {text}" for text in TEXTS], [f"fine {text}" for text in TEXTS * 8]
    some = thumbs(marked, plain) if kind == "up" else thumbs(plain, marked)
    (found,) = [line for line in audit_thumbs(some) if "alone tells" in line]
    assert re.search(r"alone tells thumbs (up|down) in 100% of the cases", found)
    # a word of nearly all, where nearly all are up, tells nothing
    some = thumbs([f"well {text}" for text in TEXTS * 8], [f"well {text}" for text in TEXTS])
    assert not any("alone tells" in line for line in audit_thumbs(some))


def test_one_prompt_foreign_marks_and_prompts_within_responses():
    one = [
        UnpairedRecord("Name a tree.", f"{text}.", i % 2 == 0) for i, text in enumerate(TEXTS * 2)
    ]
    assert "all 10 thumbs have one prompt" in audit_thumbs(one)[0]
    marked = [*thumbs(TEXTS, TEXTS), UnpairedRecord("A <|im_start|>", "b", True)]
    assert "1 thumb hold marks of a chat template" in audit_thumbs(marked)[0]
    again = UnpairedRecord("A question of many words?", "A question of many words? Yes.", True)
    assert "the response begins with the whole prompt" in audit_thumbs([again])[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((100, 100), ""),
        ((100, 75), ""),
        ((10, 40, 4.0), ""),
        ((228, 244), ""),
        ((40, 10), r"4 times .*undesirable_weight=3.5 \(3.00 to 4.00\)"),
        ((40, 10, 1.0, 2.0), r"2 times .*undesirable_weight=3.5 \(3.00 to 4.00\)"),
        ((10, 40), r"0.25 times .* desirable_weight=4.7 \(4.00 to 5.33\)"),
        ((10, 40, 2.0), r"0.5 times .* desirable_weight=4.7 \(4.00 to 5.33\)"),
        ((9, 0), "all thumbs point up"),
        ((0, 9), "all thumbs point down"),
    ],
)
def test_weights_of_uneven_thumbs(arguments, words):
    found = about_weights(*arguments)
    assert bool(found) == bool(words)
    assert re.search(words, found)
