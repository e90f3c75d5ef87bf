"""The file of drawn answers: what is read of it, and what is refused with its line."""

import json
import re

import pytest

from dpo_lib.cli import main
from dpo_lib.cli.drawn import Answer, is_readable, pair_row, read_drawn
from dpo_lib.data.formats import Conversation, make_record


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_answers_are_texts_or_objects(tmp_path):
    rows = [
        {"prompt": "A?", "answers": ["yes", {"text": "no", "ended": False, "tokens": 2}]},
        {"prompt": [{"role": "user", "content": "B?"}], "answers": []},
    ]
    found = read_drawn(write(tmp_path / "d.jsonl", rows))
    assert [(row.prompt, [answer[:3] for answer in row.answers]) for row in found] == [
        ("A?", [("yes", True, None), ("no", False, 2)]),
        ("B?", []),
    ]
    assert [row.fields for row in found] == rows
    assert [answer.fields for answer in found[0].answers] == [
        {"text": "yes"},
        rows[0]["answers"][1],
    ]
    assert [row.place for row in found] == [f"{tmp_path / 'd.jsonl'}, line {i}" for i in (1, 2)]
    assert [answer.length for answer in found[0].answers] == [3, 2]


def test_drawn_answers_in_another_encoding(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "Zoé", "answers": ["é"]}\n', encoding="cp1252")
    ((prompt, (answer,), _, _),) = read_drawn(path, "cp1252")
    assert (prompt, answer.text) == ("Zoé", "é")
    with pytest.raises(ValueError, match=r"d\.jsonl"):
        read_drawn(path)


def test_a_pair_is_written_as_it_is_read():
    tools = ({"name": "clock"},)
    messages = ({"role": "system", "content": "s"}, {"role": "user", "content": "Hi"})
    for prompt in ("Hi", Conversation(messages), Conversation(messages, tools)):
        for chosen, rejected in ((True, True), (False, True), (True, False), (False, False)):
            pair = Answer("x", chosen), Answer("y", rejected)
            assert is_readable(prompt, *pair)
            row = json.loads(json.dumps(pair_row(prompt, *pair)))
            assert len(row) == 3 + (not chosen) + (not rejected) + bool(
                getattr(prompt, "tools", ())
            )
            record = make_record(row)
            assert (record.prompt, record.chosen, record.rejected) == (prompt, "x", "y")
            assert (record.chosen_ended, record.rejected_ended) == (chosen, rejected)
    for text in ("", " ", "x", "y\0"):
        assert not is_readable("Hi", Answer("x"), Answer(text))
    dialog = "\n\nHuman: Hi\n\nAssistant:"  # which is read as a conversation
    assert not is_readable(dialog, Answer("x"), Answer("y"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", r"a row must be an object, got \[1\]"),
        ('{"prompt": "A?"}', "answers must be a list; the row has prompt"),
        ('{"prompt": "A?", "answers": "x"}', "answers must be a list; got 'x'"),
        ('{"answers": ["x"]}', "missing prompt; the row has nothing"),
        ('{"prompt": " ", "answers": ["x"]}', "prompt must not be empty"),
        ('{"prompt": "A?", "answers": ["x", 3]}', "answer 2 must be text, got 3"),
        ('{"prompt": "A?", "answers": [{"text": 3}]}', "answer 1 must be text, got {'text': 3}"),
        (
            '{"prompt": "A?", "answers": [{"text": "x", "ended": 1}]}',
            "ended of answer 1 must be true or false, got 1",
        ),
        (
            '{"prompt": "A?", "answers": [{"text": "x", "tokens": true}]}',
            "tokens of answer 1 must be a number, got True",
        ),
        (
            '{"prompt": "A?", "answers": [{"text": "x", "tokens": 1.5}]}',
            "tokens of answer 1 must be a number, got 1.5",
        ),
        ("{}", "answers must be a list; the row has nothing"),
        ('{"b": 1, "a": 2}', "answers must be a list; the row has a, b"),
        ('{"prompt": "A?", "answers": ["\\ud800"]}', "answer 1 holds half a character"),
    ],
)
def test_a_bad_row_is_one_sentence_with_its_line(tmp_path, capsys, line, message):
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "A?", "answers": ["x", "y"]}\n' + line + "\n", encoding="utf-8")
    assert main(["label", str(path), "--out", str(tmp_path / "p.jsonl"), "--no-browser"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert re.match(rf"error: {re.escape(str(path))}, line 2: {message}", said)
    assert [p.name for p in tmp_path.iterdir()] == ["d.jsonl"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.jsonl", "", "d.jsonl holds no rows"),
        ("none.jsonl", "", "there is no file"),
        (".", "", "is a folder"),
        ("d.jsonl", '{"prompt": "A?", "answers": ["x", " x\\n", ""]}', "no prompt has two answers"),
    ],
)
def test_files_with_nothing_to_ask(tmp_path, capsys, name, text, message):
    (tmp_path / "d.jsonl").write_text(text)
    command = ["label", str(tmp_path / name), "--out", str(tmp_path / "p.jsonl"), "--no-browser"]
    assert main(command) == 2
    assert message in capsys.readouterr().err
