"""Preference files: every form of a row, every kind of file, and every way to be wrong."""

import copy
import json
import pickle

import pytest

from dpo_lib.data import split_by_prompt
from dpo_lib.data.formats import BadRow, Conversation, make_record, read_preferences

ROW = {"prompt": "2+2?", "chosen": "4.", "rejected": "5."}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def triple(record):
    return str(record.prompt), record.chosen, record.rejected


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- rows ----------------------------------------------------------------------------------------

PLAIN = ("2+2?", "4.", "5.")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (ROW, PLAIN),
        ({**ROW, "seconds": 1.5}, PLAIN),  # the annotator of chapter 1
        (
            {"prompt": [user("2+2?")], "chosen": [assistant("4.")], "rejected": [assistant("5.")]},
            PLAIN,
        ),
        ({"prompt": "2+2?", "chosen": [assistant("4.")], "rejected": [assistant("5.")]}, PLAIN),
        ({"prompt": "2+2?", "chosen": assistant("4."), "rejected": assistant("5.")}, PLAIN),
        ({"prompt": [user("2+2?")], "chosen": "4.", "rejected": "5."}, PLAIN),
        # the prompt inside both conversations, with and without a prompt of its own
        (
            {
                "chosen": [user("2+2?"), assistant("4.")],
                "rejected": [user("2+2?"), assistant("5.")],
            },
            PLAIN,
        ),
        (
            {
                "prompt": "2+2?",
                "chosen": [user("2+2?"), assistant("4.")],
                "rejected": [user("2+2?"), assistant("5.")],
            },
            PLAIN,
        ),
        (
            {
                "prompt": [user("2+2?")],
                "chosen": [user("2+2?"), assistant("4.")],
                "rejected": [user("2+2?"), assistant("5.")],
            },
            PLAIN,
        ),
        # ShareGPT's names, and content in parts
        (
            {
                "prompt": [{"from": "human", "value": "2+2?"}],
                "chosen": {"from": "gpt", "value": "4."},
                "rejected": {"from": "gpt", "value": "5."},
            },
            PLAIN,
        ),
        (
            {
                "prompt": [{"role": "user", "content": [{"type": "text", "text": "2+2?"}]}],
                "chosen": "4.",
                "rejected": "5.",
            },
            PLAIN,
        ),
        # text with the prompt in both: cut between words, the space stays with the response
        (
            {"chosen": "The sky is blue.", "rejected": "The sky is black."},
            ("The sky is", " blue.", " black."),
        ),
        # Anthropic's HH
        (
            {
                "chosen": "\n\nHuman: 2+2?\n\nAssistant: 4.",
                "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5.",
            },
            PLAIN,
        ),
    ],
)
def test_forms_of_a_row(row, expected):
    assert triple(make_record(row)) == expected


def test_conversations_keep_their_messages():
    messages = [system("Be brief."), user("Hi."), assistant("Hello."), user("2+2?")]
    rows = [
        {"prompt": messages, "chosen": [assistant("4.")], "rejected": [assistant("5.")]},
        {"chosen": [*messages, assistant("4.")], "rejected": [*messages, assistant("5.")]},
    ]
    for row in rows:
        record = make_record(row)
        assert isinstance(record.prompt, Conversation)
        assert record.prompt.messages == tuple(messages)
        assert (record.chosen, record.rejected) == ("4.", "5.")
    assert record.prompt == "system: Be brief.\n\nuser: Hi.\n\nassistant: Hello.\n\nuser: 2+2?"


def test_a_dialogue_of_hh_becomes_messages():
    beginning = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: 2+2?\n\nAssistant:"
    record = make_record({"chosen": f"{beginning} It is 4.", "rejected": f"{beginning} It is 5."})
    assert record.prompt.messages == (user("Hi."), assistant("Hello."), user("2+2?"))
    assert (record.chosen, record.rejected) == ("It is 4.", "It is 5.")


def test_a_system_text_comes_first():
    record = make_record({**ROW, "system": "Be brief."})
    assert record.prompt.messages == (system("Be brief."), user("2+2?"))
    assert make_record({**ROW, "system": ""}).prompt == "2+2?"
    assert make_record({**ROW, "system": None}).prompt == "2+2?"


def test_a_conversation_survives_copies():
    conversation = Conversation([system("a"), user("b")])
    for other in (copy.deepcopy(conversation), pickle.loads(pickle.dumps(conversation))):
        assert other == conversation
        assert other.messages == conversation.messages
    records = [make_record({**ROW, "prompt": [system("a"), user(str(i))]}) for i in range(4)]
    train, held_out = split_by_prompt(records, 0.5)
    assert {type(record.prompt) for record in train + held_out} == {Conversation}


def test_names_are_mapped_and_other_columns_kept():
    row = {"question": "2+2?", "good": "4.", "rejected": "5.", "score": 3}
    record = make_record(row, {"question": "prompt", "good": "chosen"})
    assert triple(record) == PLAIN
    assert record.extra == {"score": 3}
    swapped = make_record(ROW, {"chosen": "rejected", "rejected": "chosen"})
    assert triple(swapped) == ("2+2?", "5.", "4.")


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ([1], "malformed", r"must be an object with named values, got \[1\]"),
        ({"instruction": "a", "chosen": "b"}, "malformed", "missing rejected; the row has"),
        ({}, "malformed", "missing chosen, rejected; the row has nothing"),
        ({"prompt": "a", "completion": "b", "label": True}, "malformed", "is not a pair"),
        ({**ROW, "chosen": None}, "malformed", "missing chosen"),
        ({**ROW, "chosen": 4}, "malformed", "chosen must be text or messages, got 4"),
        ({**ROW, "chosen": [assistant("4.")]}, "malformed", "one of chosen and rejected is text"),
        ({**ROW, "chosen": " \n"}, "empty", r"chosen must not be empty, got ' \\n'"),
        ({**ROW, "prompt": ""}, "empty", "prompt must not be empty"),
        ({**ROW, "prompt": []}, "empty", "prompt must not be empty"),
        ({**ROW, "rejected": "4."}, "identical", "both are '4.'"),
        ({**ROW, "chosen": "\ud83d"}, "malformed", "chosen holds half a character"),
        ({**ROW, "system": 1}, "malformed", "system must be text"),
        ({"chosen": "yes", "rejected": "no"}, "malformed", "no common beginning"),
        ({"chosen": "I do.", "rejected": "I do."}, "identical", "both are ' do.'"),
        (
            {"chosen": [assistant("4.")], "rejected": [assistant("5.")]},
            "malformed",
            "share no first message",
        ),
        (
            {
                "prompt": "a",
                "chosen": [user("b"), assistant("4.")],
                "rejected": [user("b"), assistant("5.")],
            },
            "malformed",
            "prompt is not the last message",
        ),
        (
            {"prompt": "a", "chosen": [assistant("4."), user("c")], "rejected": [assistant("5.")]},
            "malformed",
            r"one answer of the assistant, got \['assistant', 'user'\]",
        ),
        (
            {"prompt": [assistant("a")], "chosen": [assistant("b")], "rejected": [assistant("c")]},
            "malformed",
            "must end with the user",
        ),
        ({**ROW, "prompt": [{"role": "tool", "content": "a"}]}, "malformed", "role .*'tool'"),
        ({**ROW, "prompt": [{"role": "user"}]}, "malformed", "content must be text, got None"),
        ({**ROW, "prompt": ["hi"]}, "malformed", "a message must be an object"),
        (
            {**ROW, "prompt": [{"role": "user", "content": [{"type": "image"}]}]},
            "malformed",
            "content must be text",
        ),
        (
            {**ROW, "prompt": [user("a"), {**assistant(""), "tool_calls": [1]}, user("b")]},
            "malformed",
            "tool calls",
        ),
    ],
)  # fmt: skip
def test_bad_rows_have_a_kind_and_a_reason(row, kind, message):
    with pytest.raises(BadRow, match=message) as error:
        make_record(row)
    assert error.value.kind == kind
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"question": "prompt"}, "no 'question' to use as prompt; the row has chosen, prompt"),
        ({"chosen": "prompt"}, "there is a prompt too"),
    ],
)
def test_a_map_that_does_not_fit_is_named(rename, message):
    with pytest.raises(BadRow, match=message):
        make_record(ROW, rename)


# --- files ---------------------------------------------------------------------------------------

ROWS = [{**ROW, "prompt": f"{i}?"} for i in range(3)]


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\ufeff" + "\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    found = read_preferences(path)
    assert [r.prompt for r in found.records] == ["0?", "1?", "2?"]
    assert (found.lines, found.problems, found.unit) == ([1, 2, 3], [], "line")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("inside", ["{}", '{{"data": {}}}'])
def test_json_lists_know_their_lines(tmp_path, indent, inside):
    path = tmp_path / "a.json"
    path.write_text("\n" + inside.format(json.dumps(ROWS, indent=indent)), encoding="utf-8")
    if indent is None and inside != "{}":
        return  # one object on one line is a row of JSON lines
    found = read_preferences(path)
    assert [r.prompt for r in found.records] == ["0?", "1?", "2?"]
    assert found.lines == ([2, 2, 2] if indent is None else [3, 8, 13])


def test_parquet_with_messages(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [
        {"prompt": [user("2+2?")], "chosen": [assistant("4.")], "rejected": [assistant("5.")]},
        {"prompt": [user("3+3?")], "chosen": [assistant("6.")], "rejected": [assistant("6.")]},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data")
    found = read_preferences(tmp_path / "data")
    assert [triple(record) for record in found.records] == [PLAIN]
    assert [(p.line, p.kind) for p in found.problems] == [(2, "identical")]
    assert "row 2: identical" in found.describe_problems()
    (tmp_path / "broken").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        read_preferences(tmp_path / "broken")


def test_every_bad_line_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps(ROW).encode()
    lines = [good, b"{broken", good, b'{"prompt": "\xff"}', b'{"prompt": "a", "chosen": ""}', b"3"]
    path.write_bytes(b"\n".join([*lines, good.replace(b"5.", b"4."), b"[" * 100_000, good]))
    found = read_preferences(path)
    assert found.lines == [1, 3, 9]
    assert [(p.line, p.kind) for p in found.problems] == [
        (2, "unreadable"),
        (4, "unreadable"),
        (5, "malformed"),
        (6, "malformed"),
        (7, "identical"),
        (8, "unreadable"),
    ]
    text = found.describe_problems().splitlines()
    assert text[0] == "6 of 9 rows are bad (3 unreadable, 2 malformed, 1 identical)"
    assert [line.split(":")[0] for line in text[1:]] == [f"line {n}" for n in (2, 4, 5, 6, 7, 8)]
    assert text[1].startswith("line 2: unreadable: not JSON: Expecting property name")
    assert text[1].endswith("at column 2")
    assert text[2].startswith("line 4: unreadable: not UTF-8 but, it seems, Latin-1")


def test_lines_with_one_reason_are_named_together(tmp_path):
    found = read_preferences(write(tmp_path / "a.jsonl", [{}, {}, {}, ROW, {}, {"id": 1}, {}, {}]))
    _, *groups = found.describe_problems().splitlines()
    assert [group.split(":")[0] for group in groups] == ["lines 1-3, 5, 7-8", "line 6"]


def test_a_broken_json_list_says_where_it_ends(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS, indent=1)[:-20], encoding="utf-8")
    found = read_preferences(path)
    assert found.lines == [2, 7]
    ((line, kind, reason, _),) = found.problems
    assert (line, kind) == (12, "unreadable")
    assert "nothing behind it was read" in reason


@pytest.mark.parametrize("content", ["", "\n \n", "[]"])
def test_an_empty_file_is_an_error(tmp_path, content):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(ValueError, match="holds no rows"):
        read_preferences(tmp_path / "a.jsonl")


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        read_preferences(tmp_path / "no.jsonl")
