"""What `label` asks and keeps: whole files, whole sentences, and pairs that come again."""

import datetime
import json
import os
import re

import pytest

from dpo_lib.cli.drawn import Answer, Drawn
from dpo_lib.cli.judgements import APART, Judgements, OutOfStep, Pair, make_plan
from dpo_lib.data.formats import Conversation, make_prompt

PAIRS = [
    Pair("¿Qué?", Answer("sí"), Answer("¡no, no!", ended=False)),
    Pair("Who?", Answer("me"), Answer("you")),
    Pair("¿Qué?", Answer("¡no, no!", ended=False), Answer("sí"), 0),
]


@pytest.fixture
def session(tmp_path):
    """Opens the judgements of some pairs; one at a time."""
    opened = []

    def open_(pairs=PAIRS):
        if opened:
            opened.pop().close()
        opened.append(Judgements(tmp_path / "pairs.jsonl", pairs, {"seed": 3}))
        return opened[0]

    yield open_
    if opened:
        opened.pop().close()


def test_prompts_are_one_if_they_are_alike_in_messages_and_tools():
    def message(text):
        return {"role": "user", "content": text}

    def asked(*prompts):
        drawn = [Drawn(prompt, [Answer(f"{i}")]) for i, prompt in enumerate(prompts * 2)]
        return len(make_plan(drawn, 9, 0.0, 0).pairs)

    tools = [{"name": "clock"}], [{"name": "look"}]
    system = {"role": "system", "content": "s"}
    long = Conversation([system, message("a")])
    assert asked("a", "b") == 2
    assert asked(long, Conversation([system, message("b")]), str(long)) == 3
    assert asked("a", *(Conversation([message("a")], some) for some in tools)) == 3


def test_prompts_without_two_answers_are_counted_and_refused_if_there_are_no_others():
    lone = [Drawn(prompt, [Answer("x")]) for prompt in "ab"]
    with pytest.raises(
        ValueError, match=r"^no prompt has two answers that differ and are not empty$"
    ):
        make_plan(lone, 9, 0.5, 0)
    assert make_plan([*lone, Drawn("c", [Answer("x"), Answer("y")])], 9, 0.5, 0).notes == [
        "2 prompts not asked: without two answers that differ and that train can read"
    ]


def test_a_pair_comes_again_before_it_is_long_ago():
    plan = make_plan([Drawn(f"{i}", [Answer("x"), Answer("y")]) for i in range(400)], 1, 0.2, 0)
    again = [(i, pair.repeats) for i, pair in enumerate(plan.pairs) if pair.repeats is not None]
    assert plan.repeats == len(again) == 80
    between = [sum(p.repeats is None for p in plan.pairs[j + 1 : i]) for i, j in again]
    assert (min(between), max(between)) == (APART, 2 * APART)


def test_tools_with_dates_are_kept_as_text(session):
    tools = [{"name": "clock", "since": datetime.date(2020, 1, 2)}]  # as Parquet has them
    prompt = make_prompt({"prompt": "When?", "tools": tools})
    now = session(make_plan([Drawn(prompt, [Answer("x"), Answer("y")])], 1, 0.0, 0).pairs)
    now.judge(0, "first", 1)
    assert json.loads(now.out.read_text())["tools"] == [{"name": "clock", "since": "2020-01-02"}]


def test_both_files_hold_what_was_said_as_it_is(session):
    now = session()
    assert (now.trouble, now.torn, now.events) == ("", False, 0)
    for choice, seconds in (("second", 2), ("tie", 0), ("first", 0.5)):
        now.judge(now.events, choice, seconds)
    now.undo(3)
    now.judge(4, "second", 1)
    assert (now.trouble, now.torn, now.events) == ("", False, 5)
    one = '"prompt": "¿Qué?", "first": "sí", "second": "¡no, no!"'
    three = '"prompt": "¿Qué?", "first": "¡no, no!", "second": "sí"'
    assert now.journal.read_text("utf-8").splitlines() == [
        '{"seed": 3}',
        f'{{"pair": 0, "repeat": false, {one}, "choice": "second", "seconds": 2}}',
        '{"pair": 1, "repeat": false, "prompt": "Who?", "first": "me", "second": "you", '
        '"choice": "tie", "seconds": 0}',
        f'{{"pair": 2, "repeat": true, {three}, "choice": "first", "seconds": 0.5}}',
        '{"undo": true}',
        f'{{"pair": 2, "repeat": true, {three}, "choice": "second", "seconds": 1}}',
    ]
    assert now.out.read_text("utf-8") == (
        '{"prompt": "¿Qué?", "chosen": "¡no, no!", "rejected": "sí", "chosen_ended": false, '
        '"seconds": 2}\n'
    )
    none = "0 of 1 time (0%; 95% interval 0% to 79%)."
    assert now.habits() == [
        f"Asked again with the sides swapped, you said the same {none}",
        f"You chose the first answer, on the left, {none}",
        "You chose the longer answer 1 of 1 time (100%; 95% interval 21% to 100%).",
    ]


def test_what_cannot_be_kept_is_said_in_a_sentence(session):
    now = session()
    with pytest.raises(
        OutOfStep, match=r"^there is nothing to undo, or another window was faster$"
    ):
        now.undo(0)
    with pytest.raises(OutOfStep, match=r"^this pair was judged in another window$"):
        now.judge(1, "first", 1)
    with pytest.raises(ValueError, match=r"^seconds must be at least 0 and finite, got inf$"):
        now.judge(0, "first", float("inf"))
    with pytest.raises(
        ValueError, match=f"^another process is labeling {re.escape(str(now.out))}$"
    ):
        Judgements(now.out, PAIRS, {"seed": 3})
    now.journal.write_text("[]\n")
    with pytest.raises(ValueError, match=f"^{re.escape(str(now.journal))}, line 1 is damaged$"):
        session()


def test_a_new_journal_and_its_name_are_on_the_disk(session, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    now = session()
    assert synced == [path.stat().st_ino for path in (now.journal, now.journal.parent)]
