"""Preference files: every form of a row, every kind of file, and every way to be wrong."""

import copy
import json
import pickle
import re

import pytest

from dpo_lib.data import split_by_prompt
from dpo_lib.data.formats import (
    BadRow,
    Conversation,
    make_prompt,
    make_record,
    make_unpaired,
    read_feedback,
    read_preferences,
    read_unpaired,
    with_system,
)

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


@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_a_column_of_system_texts_comes_first(name):
    for make, rest in ((make_record, PAIR), (make_unpaired, {"completion": "a", "label": 1})):
        record = make({"prompt": "2+2?", name: "Be brief.", **rest})
        assert list(record.prompt.messages) == [system("Be brief."), user("2+2?")]
        assert record.extra == {}


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
    lines, rows = ([3, 8, 13], "line"), ([1, 2, 3], "row")  # in one line a line tells nothing
    assert (found.lines, found.unit) == (rows if indent is None else lines)


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


# --- what users bring ----------------------------------------------------------------------------


def read(tmp_path, rows, **options):
    return read_preferences(write(tmp_path / "rows.jsonl", rows), **options)


ALPACA = {"instruction": "Add.", "input": "2 and 2", "chosen": "4.", "rejected": "5."}
CHAT = [system("Be brief."), user("2+2?")]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        (ALPACA, "Add.\n\n2 and 2"),
        ({**ALPACA, "input": ""}, "Add."),
        ({**ALPACA, "instruction": ""}, "2 and 2"),
        (
            {**ALPACA, "history": [["Hi.", "Hello."]]},
            [user("Hi."), assistant("Hello."), user("Add.\n\n2 and 2")],
        ),
        (
            {**ALPACA, "history": '[["Hi.", "Hello."]]', "system": "Be brief."},
            [system("Be brief."), user("Hi."), assistant("Hello."), user("Add.\n\n2 and 2")],
        ),
        ({"question": "2+2?", "chosen": "4.", "rejected": "5."}, "2+2?"),
        (
            {
                "conversations": [{"from": "human", "value": "2+2?"}],
                "chosen": {"from": "gpt", "value": "4."},
                "rejected": {"from": "gpt", "value": "5."},
            },
            "2+2?",
        ),
        ({**ROW, "prompt": json.dumps(CHAT)}, CHAT),
        ({**ROW, "prompt": repr(CHAT)}, CHAT),
        ({**ROW, "prompt": repr(CHAT).replace("}, {", "}\n {")}, CHAT),  # as NumPy writes it
        ({**ROW, "prompt": json.dumps(json.dumps(CHAT))}, CHAT),
        (
            {
                "prompt": "2+2?",
                "chosen": repr(assistant("4.")),
                "rejected": json.dumps(assistant("5.")),
            },
            "2+2?",
        ),
        (
            {
                "chosen": json.dumps([*CHAT, assistant("4.")]),
                "rejected": repr([*CHAT, assistant("5.")]),
            },
            CHAT,
        ),
        (
            {
                "chosen": {"messages": [*CHAT, assistant("4.")]},
                "rejected": {"messages": [*CHAT, assistant("5.")]},
            },
            CHAT,
        ),
    ],
)
def test_prompts_in_other_forms(row, prompt):
    record = make_record(row)
    assert (record.chosen, record.rejected) == ("4.", "5.")
    if isinstance(prompt, str):
        assert record.prompt == prompt
        assert not isinstance(record.prompt, Conversation)
    else:
        assert record.prompt.messages == tuple(prompt)


HH = (
    "\n\nHuman: Is Pell far?\n\nAssistant: {}",
    "Human: Is Pell far?\n\nAssistant: {}",
    "Human: Is Pell far?\nAssistant: {}",
    "Human: Is Pell far?\r\n\r\nAssistant: {}\r\n",
    "\n\nHuman:Is Pell far? \n\n Assistant:{}\n\n",
    "User: Is Pell far?\n\nAI: {}",
    "### Human: Is Pell far?\n### Assistant: {}",
)


@pytest.mark.parametrize("form", HH)
def test_transcripts_are_read_alike_however_they_are_written(form):
    pair = {"chosen": form.format("Ten minutes."), "rejected": form.format("No idea.")}
    expected = ("Is Pell far?", "Ten minutes.", "No idea.")
    assert triple(make_record(pair)) == expected
    assert triple(make_record({**pair, "prompt": "Is Pell far?"})) == expected
    assert triple(make_record({**pair, "prompt": form.format("")})) == expected
    apart = {
        "prompt": form.format(""),
        "chosen": " Ten minutes.",
        "rejected": "Assistant: No idea.",
    }
    assert triple(make_record(apart)) == expected
    with pytest.raises(BadRow, match="rejected must not be empty") as error:
        make_record({**pair, "rejected": form.format("")})
    assert error.value.kind == "empty"
    more = form.format("Ten minutes.").rstrip() + "\n\nHuman: By car?\n\nAssistant: Two."
    with pytest.raises(BadRow, match="further turns"):
        make_record({**pair, "chosen": more})
    with pytest.raises(BadRow, match="further turns"):
        make_record({**apart, "chosen": "Ten minutes.\n\nHuman: By car?\n\nAssistant: Two."})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "prompt": '[{"role": "user", "content": "2+2'}, "looks like messages, but cannot"),
        ({"chosen": repr(assistant("4.")), "rejected": repr(assistant("5."))}, "no prompt"),
        (
            {"topic": "the sky above", "chosen": "The sky is", "rejected": "The sea is"},
            "--map topic",
        ),
        ({**ROW, "prompt": CHAT, "system": "Be long."}, "system differs"),
        ({**ROW, "tools": "clock"}, "tools must be a list of objects"),
        ({**ALPACA, "history": [["one"]]}, r"list of \[question, answer\]"),
        (
            {
                "prompt": "a",
                "chosen": [{**assistant("b"), "reasoning_content": "c"}],
                "rejected": [assistant("d")],
            },
            "reasoning_content cannot be used",
        ),
        ({"prompt": "a", "responses": ["b", "c"]}, "order does not say which is best: --score"),
        (
            {"chosen": "Human: a\n\nAssistant: b", "rejected": "c"},
            "one of chosen and rejected is a t",
        ),
        (
            {"chosen": "Human: a\n\nAssistant: b", "rejected": "Human: c\n\nAssistant: d"},
            "further turns",
        ),
        ({**ROW, "prompt": [{"role": ["user"], "content": "a"}]}, "role must be"),
        ({**ROW, "prompt": b"\xff"}, "prompt is not UTF-8"),
    ],
)
def test_more_bad_rows(row, message):
    with pytest.raises(BadRow, match=message):
        make_record(row)


def test_tools_go_with_the_prompt():
    tools = [{"name": "clock"}]
    for value in (tools, json.dumps(tools), tools[0]):
        record = make_record({**ROW, "tools": value})
        assert record.prompt.tools == tuple(tools)
        assert record.prompt.messages == (user("2+2?"),)
    for nothing in ([], None, "", "[]"):
        assert make_record({**ROW, "tools": nothing}).prompt == "2+2?"


def test_best_against_worst(tmp_path):
    texts, scores = ["mid", "worst", "best"], [2, 1.5, "9"]
    rows = [
        {"prompt": "a", "responses": texts, "scores": scores},
        {
            "prompt": "a",
            "completions": [
                {"response": t, "scores": s} for t, s in zip(texts, scores, strict=True)
            ],
        },
        {"prompt": "a", "responses": texts[:2], "scores": [1, 1]},
        {"prompt": "a", "responses": texts, "scores": [1, 2]},
        {"prompt": "a", "responses": texts, "scores": [1, 2, "x"]},
    ]
    found = read(tmp_path, rows, score="scores")
    assert [triple(record) for record in found.records] == [("a", "best", "worst")] * 2
    assert [p.line for p in found.problems] == [3, 4, 5]
    assert [p.kind for p in found.problems] == ["identical", "malformed", "malformed"]
    assert "best response against worst by scores (of a list) in 2 rows" in found.notes
    ranked = read(tmp_path, [{"prompt": "a", "responses": texts, "rank": [2, 3, 1]}], score="rank")
    assert triple(ranked.records[0]) == ("a", "best", "worst")


def test_rows_of_one_response_are_paired_by_prompt(tmp_path):
    rows = [
        {"prompt": p, "response": f"{p}{s}", "stars": s, "id": s} for p in "ab" for s in (3, 1, 5)
    ]
    found = read(tmp_path, [*rows, {"prompt": "c", "response": "d", "stars": 1}], score="stars")
    assert [triple(r) for r in found.records] == [("a", "a5", "a1"), ("b", "b5", "b1")]
    assert (found.lines, [p.line for p in found.problems]) == ([1, 4], [7])
    assert "only one response to its prompt" in found.problems[0].reason


def test_two_scores_turn_a_pair_round(tmp_path):
    rows = [{**ROW, "chosen_score": a, "rejected_score": b} for a, b in ((2, 1), (1, 2), (1, 1))]
    assert [r.chosen for r in read(tmp_path, rows, score="rejected_score").records] == ["4.", "5."]
    found = read(tmp_path, rows, score="chosen_score")
    assert [r.chosen for r in found.records] == ["4.", "5."]
    assert found.problems[0].reason == "chosen_score and rejected_score are equal (1)"
    assert (
        "chosen and rejected turned round by chosen_score and rejected_score in 1 rows"
        in found.notes
    )
    assert read(tmp_path, [ROW], score="chosen_score").problems[0].kind == "malformed"


def test_a_column_that_says_which_is_better_is_not_left_out(tmp_path):
    rows = [
        {"history": f"{i}?", "human_ref_A": "4.", "human_ref_B": "5.", "labels": i % 2}
        for i in range(4)
    ]
    rename = {"history": "prompt", "human_ref_A": "chosen", "human_ref_B": "rejected"}
    refused = read(tmp_path, rows, rename=rename)
    assert len(refused.problems) == 4
    assert "--label labels=VALUE" in refused.problems[0].reason
    expected = ["5.", "4.", "5.", "4."]
    assert [
        r.chosen for r in read(tmp_path, rows, rename=rename, label=("labels", "1")).records
    ] == expected
    assert [r.chosen for r in read(tmp_path, rows).records] == expected  # SHP's own names
    for word in ("tie", "Tie (both bad)", "both", "a draw", "neither", "", None):
        tied = read(tmp_path, [{**ROW, "winner": word}], label=("winner", "a"))
        assert "neither is better" in tied.problems[0].reason, word


OPENAI = {
    "input": {"messages": [user("2+2?")], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [assistant("4.")],
    "non_preferred_output": [assistant("5.")],
}


def test_openai_s_preference_files(tmp_path):
    with_system = {**OPENAI, "input": {"messages": [system("Be brief."), user("2+2?")]}}
    found = read(tmp_path, [OPENAI, with_system])
    assert triple(found.records[0]) == PLAIN
    assert found.records[0].extra == {"parallel_tool_calls": True}
    assert [*found.records[1].prompt.messages] == with_system["input"]["messages"]
    assert found.problems == []
    assert "preferred_output taken as chosen" in found.notes[0]
    kept = {"preferred_output": "prompt"}  # whoever renames says what is meant
    assert "missing chosen" in read(tmp_path, [OPENAI], rename=kept).problems[0].reason


def test_a_system_text_comes_first_and_takes_nothing_away():
    tools = ({"type": "function", "function": {"name": "add"}},)
    prompt = with_system(Conversation([user("2+2?")], tools), "Be brief.")
    assert [*prompt.messages] == [system("Be brief."), user("2+2?")]
    assert prompt.tools == tools
    assert with_system(prompt, "Be long.") is prompt
    assert [*with_system("2+2?", "Be brief.").messages] == [*prompt.messages]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": "2+2?"}, "input must hold messages beside preferred_output, got '2+2?'"),
        ({"input": {}}, "input must hold messages"),
        ({"prompt": "2+2?"}, "the prompt is in input, but there is a prompt too"),
        (
            {"input": {"messages": [user("2+2?")], "tools": [1]}, "tools": [2]},
            "tools is in input and beside it",
        ),
        ({"preferred_output": []}, "chosen must not be empty"),
        ({"non_preferred_output": [assistant("4.")]}, "chosen and rejected must differ"),
    ],
)
def test_bad_rows_of_openai_s_files(change, message):
    with pytest.raises(BadRow, match=re.escape(message)):
        make_record({**OPENAI, **change})


SHOWN = {**ROW, "prompt": "2+2?"}


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", True, "true", " True "])
@pytest.mark.parametrize("wanted", ["1", "1.0", "true"])
def test_a_label_is_the_same_however_it_is_written(tmp_path, value, wanted):
    rows = [{**SHOWN, "label": value}, {**SHOWN, "label": 0}, {**SHOWN, "label": "false"}]
    found = read(tmp_path, rows, label=("label", wanted))
    assert [r.chosen for r in found.records] == ["4.", "5.", "5."]


@pytest.mark.parametrize(
    ("values", "wanted", "words"),
    [
        ("aba", "z", "label is never 'z' .*it has the values 'a', 'b'"),
        ("bbbbbbbb", "a", "label is never 'a'"),
        ("abc", "a", r"label has 3 values \('a', 'b', 'c'\)"),
        ([-1, 0, 1], "1", "label has 3 values"),
    ],
)
def test_a_label_that_does_not_say_which_is_better_turns_nothing_round(
    tmp_path, values, wanted, words
):
    with pytest.raises(ValueError, match=words):
        read(tmp_path, [{**SHOWN, "label": v} for v in values], label=("label", wanted))


def test_a_few_rows_may_all_be_decided_the_other_way(tmp_path):
    found = read(tmp_path, [{**SHOWN, "winner": "model_b"}], label=("winner", "model_a"))
    assert [(r.chosen, r.rejected) for r in found.records] == [("5.", "4.")]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("conversations", [[{"from": "human", "value": "a?"}], [{"from": "human", "value": "b?"}]]),
        ("messages", [[user("a?")], [user("b?")]]),
        ("history", [[["q", "r"]], []]),
        ("system_prompt", ["a", "b"]),
        ("tools", [[{"name": "t"}], []]),
        ("input", ["a", "b"]),
    ],
)
def test_responses_to_prompts_that_differ_in_any_part_are_no_pair(tmp_path, column, values):
    rows = [
        {"response": "x", "score": 1, column: values[0]},
        {"response": "y", "score": 2, column: values[1]},
    ]
    if column not in ("conversations", "messages"):
        rows = [{**row, "instruction": "Do."} for row in rows]
    found = read(tmp_path, rows, score="score")
    assert found.records == []
    assert {(p.kind, p.reason) for p in found.problems} == {
        ("malformed", "only one response to its prompt")
    }
    again = read(tmp_path, [*rows, {**rows[0], "response": "z", "score": 0}], score="score")
    assert [(r.chosen, r.rejected) for r in again.records] == [("x", "z")]


def test_unused_columns_are_counted(tmp_path):
    found = read(tmp_path, [{**ROW, "id": i, "note": "x" * (i > 1)} for i in range(3)])
    assert found.unused_columns() == {"id": 3, "note": 1}


def test_many_bad_rows_are_a_few_lines(tmp_path):
    found = read(tmp_path, [ROW] + [{f"a{i % 100}": 1} if i % 2 else {"b": 1} for i in range(999)])
    text = found.describe_problems()
    first, *groups, last = text.splitlines()
    assert first.startswith("999 of 1000 rows are bad")
    assert len(groups) == 20
    assert len(text) < 5000
    named, more = 0, re.fullmatch(r"and (\d+) more", last)
    for group in groups:
        places, _, rest = group.split(":")[0].partition(" and ")
        named += len(re.findall(r"\d+", places)) + int(rest.removesuffix(" more") or 0)
    assert named + int(more[1]) == 999


def test_responses_with_a_verdict_each(tmp_path):
    rows = [
        {"prompt": "2+2?", "completion": "4.", "label": True, "id": 7},
        {"prompt": [user("2+2?")], "completion": [assistant("5.")], "label": 0},
        {"messages": [*CHAT, assistant("4.")], "label": "good"},
        {"instruction": "Add.", "input": "2 and 2", "output": "4.", "label": "1"},
        {"prompt": "\n\nHuman: 2+2?\n\nAssistant:", "response": "5.", "label": "thumbs_down"},
        {"prompt": "a", "completion": "b", "label": "perhaps"},
        {"prompt": "a", "completion": "b"},
        {"prompt": "a", "completion": " ", "label": True},
        {"completion": "b", "label": True},
    ]
    found = read_unpaired(write(tmp_path / "a.jsonl", rows))
    assert [(str(r.prompt)[-4:], r.response, r.desired) for r in found.records] == [
        ("2+2?", "4.", True),
        ("2+2?", "5.", False),
        ("2+2?", "4.", True),
        ("nd 2", "4.", True),
        ("2+2?", "5.", False),
    ]
    assert found.records[2].prompt.messages == tuple(CHAT)
    assert found.unused_columns() == {"id": 1}
    assert [p.line for p in found.problems] == [6, 7, 8, 9]
    assert "is not a pair" in read(tmp_path, rows[:1]).problems[0].reason


# --- kinds that went wrong in silence, each by other inputs --------------------------------------

PAIR = {"chosen": "Yes.", "rejected": "No."}


@pytest.mark.parametrize(
    "form",
    [
        "human: Is Pell far?\n\nassistant: {}",
        "USER: Is Pell far?\nASSISTANT: {}",
        "**Human:** Is Pell far?\n\n**Assistant:** {}",
        "**User**: Is Pell far?\n\n**AI**: {}",
        "<human>: Is Pell far?\n<bot>: {}",
        "\n\nH: Is Pell far?\n\nA: {}",
        "### Human:\nIs Pell far?\n\n### Assistant:\n{}",
        "Human: Is Pell far?\r\rAssistant: {}",
        "\n\n\n\nHuman: Is Pell far?\n \n\nAssistant: {}\n\n\n",
    ],
)
def test_transcripts_with_other_marks(form):
    pair = {"chosen": form.format("Ten minutes."), "rejected": form.format("No.")}
    expected = ("Is Pell far?", "Ten minutes.", "No.")
    assert triple(make_record(pair)) == expected
    assert triple(make_record({**pair, "prompt": form.format("")})) == expected
    apart = {"prompt": form.format(""), "chosen": " Ten minutes.", "rejected": " No."}
    assert triple(make_record(apart)) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("\n\nHuman: Is Pell far?", "Is Pell far?"),
        ("Human: Is Pell far?", "Is Pell far?"),
        ("\n\nUser: Is Pell far?\n", "Is Pell far?"),
        ("User: what does 'Assistant: hi' mean?", "User: what does 'Assistant: hi' mean?"),
        ("A: or B?", "A: or B?"),
        ("Role: system", "Role: system"),
    ],
)
def test_a_prompt_that_is_one_turn(prompt, expected):
    assert make_record({**PAIR, "prompt": prompt}).prompt == expected


def test_the_prompt_of_a_pair_that_holds_it_in_its_responses():
    form = "\n\nHuman: Is Pell far?\n\nAssistant: {}"
    pair = {"chosen": form.format("Ten minutes."), "rejected": form.format("No.")}
    assert make_prompt(pair) == "Is Pell far?"
    whole = {"chosen": [*CHAT, assistant("4.")], "rejected": [*CHAT, assistant("5.")]}
    assert make_prompt(whole).messages == tuple(CHAT)
    with pytest.raises(BadRow, match="missing prompt; the row has q"):
        make_prompt({"q": "a?"})


def test_marks_of_another_kind_inside_an_answer_are_text():
    text = "A play:\n\nhuman: hello\n\nbot: hi\n\n**Human:** no"
    form = "\n\nHuman: Write.\n\nAssistant: {}"
    pair = {"chosen": form.format(text), "rejected": form.format("No.")}
    assert triple(make_record(pair)) == ("Write.", text, "No.")
    apart = {"prompt": form.format(""), "chosen": text, "rejected": "No."}
    assert triple(make_record(apart)) == ("Write.", text, "No.")


def test_the_indentation_of_an_answer_stays():
    code = "    def f():\n        pass"
    form = "\n\nHuman: Code?\n\nAssistant:\n{}\n"
    pair = {"chosen": form.format(code), "rejected": form.format("No.")}
    assert triple(make_record(pair)) == ("Code?", code, "No.")
    apart = {"prompt": form.format("").rstrip(), "chosen": code, "rejected": " No."}
    assert triple(make_record(apart)) == ("Code?", code, "No.")


THREE = [user("a?"), assistant("b."), user("c?")]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ('[{"name": "x", "role": "user", "content": "a?"}]', [user("a?")]),
        ('[{"content": "in {x}: a?", "role": "user"}]', [user("in {x}: a?")]),
        ('[{"role": "user", "content": "a\n?"}]', [user("a\n?")]),  # JSON forbids the line break
        ("array([{'content': 'a?', 'role': 'user'}], dtype=object)", [user("a?")]),
        ('{"messages": [{"role": "user", "content": "a?"}]}', [user("a?")]),
        ('{"conversations": [{"from": "human", "value": "a?"}]}', [user("a?")]),
        ("\n".join(map(json.dumps, THREE)), THREE),
        ("\n ".join(map(repr, THREE)), THREE),
    ],
)
def test_messages_in_more_kinds_of_string(text, messages):
    prompt = make_record({**PAIR, "prompt": text}).prompt
    assert getattr(prompt, "messages", (user(str(prompt)),)) == tuple(messages)


@pytest.mark.parametrize(
    "answer",
    [
        '{"role": "admin", "name": "x"}',
        '[{"value": 1}, {"value": 2}]',
        '{"content": "x"}',
        "{'value': x}",
        "{ broken",
        '"quoted"',
        '"Yes", he said.',
        '"one", "two"',
        '"',
    ],
)
def test_answers_that_are_json_stay_text(answer):
    assert make_record({"prompt": "a?", "chosen": answer, "rejected": "No."}).chosen == answer


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"instruction": "Double.", "input": 4}, "Double.\n\n4"),
        ({"instruction": "a?", "input": float("nan")}, "a?"),
        ({"instruction": "a?", "input": "<noinput>"}, "a?"),
        ({"instruction": "a?", "input": "NaN"}, "a?"),
        ({"instruction": "a?", "history": float("nan"), "system": float("nan")}, "a?"),
        ({"instruction": "c?", "history": THREE[:2]}, THREE),
        ({"system": "", "input": "a?"}, "a?"),
        ({"prompt": "a?", "tools": "null"}, "a?"),
        ({"prompt": "a?", "tools": "None"}, "a?"),
        ({"prompt": "a?", "tools": float("nan")}, "a?"),
    ],
)
def test_empty_cells_and_other_inputs(row, prompt):
    found = make_record({**PAIR, **row}).prompt
    assert list(getattr(found, "messages", ())) == (prompt if isinstance(prompt, list) else [])
    assert isinstance(prompt, list) or found == prompt


def test_what_was_taken_as_empty_is_said(tmp_path):
    row = {"instruction": "a?", "input": "nan", **PAIR}
    assert read(tmp_path, [row]).notes == ("input 'nan' taken as empty in 1 rows",)


def test_tools_written_as_strings_in_a_list():
    assert make_record({**PAIR, "prompt": "a?", "tools": ['{"name": "x"}']}).prompt.tools == (
        {"name": "x"},
    )


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"instruction": "Sort.", "input": ["b"]}, "malformed", "input must be text"),
        ({"prompt": "\u200b\ufeff "}, "empty", "prompt must not be empty"),
        ({"prompt": "a?", "chosen": "\u200b"}, "empty", "chosen must not be empty"),
        ({"prompt": "a\0?"}, "malformed", "prompt holds a NUL character"),
        ({"prompt": "a?", "chosen": float("nan")}, "malformed", "missing chosen"),
        ({"prompt": "[Message(role='user', content='a?')]"}, "malformed", "looks like messages"),
        (
            {"prompt": [{"role": "system", "content": "s", "tools": [{}]}, user("a?")]},
            "malformed",
            "must be a column",
        ),
    ],
)
def test_still_more_bad_rows(row, kind, message):
    with pytest.raises(BadRow, match=message) as error:
        make_record({**PAIR, **row})
    assert error.value.kind == kind


def test_white_space_around_a_repeated_prompt_is_no_difference():
    row = {"prompt": "a?", "chosen": [user("a? "), assistant("Yes.")]}
    row["rejected"] = [user("a? "), assistant("No.")]
    assert triple(make_record(row)) == ("a? ", "Yes.", "No.")


LABELS = [(True, "1", 1.0, "+1", "Thumbs Up", "👍", "liked"), (False, 0, "-1", "👎", "thumb_down")]


@pytest.mark.parametrize(("words", "desired"), [(LABELS[0], True), (LABELS[1], False)])
def test_words_for_a_thumb(tmp_path, words, desired):
    rows = [{"prompt": "a", "completion": "b", "label": word} for word in words]
    found = read_unpaired(write(tmp_path / "a.jsonl", rows))
    assert [record.desired for record in found.records] == [desired] * len(words)


def test_words_that_say_the_opposite_are_opposite_thumbs():
    opposites = "true/false yes/no good/bad up/down like/dislike liked/disliked 👍/👎 1/0 1.0/-1.0 "
    opposites += "thumbs_up/thumbs_down thumb_up/thumb_down positive/negative +1/-1 "
    opposites += "desirable/undesirable desired/undesired"
    for words in (opposites + " " + opposites.upper()).split():
        labels = words.split("/")
        records = [make_unpaired({"prompt": "a", "answer": "b", "label": w}) for w in labels]
        assert [record.desired for record in records] == [True, False], words


THUMB = {"prompt": "2+2?", "completion": "4.", "label": True}


def test_a_file_of_thumbs_is_told_from_one_of_pairs(tmp_path):
    broken = [{"prompt": "a"}, "text", {"completion": "b", "prompt": "a"}]
    forms = [
        [THUMB, THUMB],
        [broken[0], THUMB, THUMB, THUMB, broken[2]],  # whatever the first row is
        [{"messages": [user("2+2?"), assistant("4.")], "label": False}],
        [{"prompt": [user("2+2?"), assistant("4.")], "label": False}],
    ]
    for rows in forms:
        assert read_feedback(write(tmp_path / "a.jsonl", rows)).unpaired, rows
    named = write(tmp_path / "a.jsonl", [{"prompt": "a", "said": "b", "ok": "yes"}])
    assert read_feedback(named, {"said": "completion", "ok": "label"}).unpaired
    others = [[ROW, ROW], [{**ROW, "label": 1}], [ROW, ROW, THUMB], [ROW, *broken]]
    for rows in others:
        found = read_feedback(write(tmp_path / "a.jsonl", rows))
        assert found.records
        assert not found.unpaired, rows
    (mixed,) = read_feedback(write(tmp_path / "a.jsonl", [ROW, ROW, THUMB])).problems
    assert (mixed.line, mixed.reason.split("; ")[-1]) == (
        3,
        "a completion with a label is not a pair",
    )
    scored = [{"prompt": "a", "completion": y, "label": i} for i, y in enumerate("bc")]
    assert not read_feedback(write(tmp_path / "a.jsonl", scored), score="label").unpaired


# --- answers that were cut -----------------------------------------------------------------------


def ended(found):
    return [(r.chosen, r.chosen_ended, r.rejected_ended) for r in found.records]


def test_answers_that_were_cut_are_known_as_such(tmp_path):
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    rows = [row, {**row, "rejected_ended": False}, {**row, "chosen_ended": "False"}]
    found = read(tmp_path, [*rows, {**row, "chosen_ended": True, "rejected_ended": None}])
    assert [both[1:] for both in ended(found)] == [
        (True, True), (True, False), (False, True), (True, True)
    ]  # fmt: skip
    assert found.unused_columns() == {}
    with pytest.raises(BadRow, match="chosen_ended must be true or false, got 'perhaps'"):
        make_record({**row, "chosen_ended": "perhaps"})


def test_what_was_cut_stays_with_its_answer(tmp_path):
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "rejected_ended": False}
    turned = [{**row, "score_chosen": 0, "score_rejected": 1}]
    assert ended(read(tmp_path, turned, score="score_chosen")) == [("c", False, True)]
    labelled = [{**row, "pick": i % 2} for i in range(2)]
    assert ended(read(tmp_path, labelled, label=("pick", "0"))) == [
        ("b", True, False), ("c", False, True)
    ]  # fmt: skip
    drawn = {"prompt": "a", "answers": [{"text": "b", "ended": False}, {"text": "c"}]}
    listed = [{**drawn, "score": [0, 1]}]
    assert ended(read(tmp_path, listed, score="score")) == [("c", True, False)]
    one = [{"prompt": "a", "response": x, "ended": x == "b", "score": ord(x)} for x in "bcd"]
    assert ended(read(tmp_path, one, score="score")) == [("d", False, True)]
    thumbs = [{"prompt": "a", "response": "b", "label": True, "ended": False}]
    (thumb,) = read_unpaired(write(tmp_path / "thumbs.jsonl", thumbs)).records
    assert (thumb.desired, thumb.ended, thumb.extra) == (True, False, {})
