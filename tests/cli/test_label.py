"""``label``: no click is lost, no text runs, nobody else can post, `train` reads what comes out."""

import contextlib
import fnmatch
import glob
import http.client
import io
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpo_lib.cli import judgements as kept
from dpo_lib.cli import main
from dpo_lib.cli.drawn import Answer, Drawn
from dpo_lib.cli.judgements import Judgements, OutOfStep, make_plan
from dpo_lib.cli.label import HEADERS, LONGEST, Server
from dpo_lib.data.formats import Conversation, make_prompt, read_feedback, read_preferences
from dpo_lib.evaluation import wilson_interval

SETTINGS = {"sha256": "of the drawn answers", "seed": 0, "per_prompt": 1, "repeats": 0.1}


def drawn_rows(prompts=12, answers=3):
    return [
        {
            "prompt": f"Question {i}?",
            "answers": [
                {"text": f"Answer {j} to {i}.{' And more.' * j}", "ended": True, "tokens": 5}
                for j in range(answers)
            ],
        }
        for i in range(prompts)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "drawn.jsonl", drawn_rows())


def plan_of(rows, repeats=0.0, per_prompt=1, seed=0):
    drawn = [Drawn(row["prompt"], [Answer(a["text"]) for a in row["answers"]]) for row in rows]
    return make_plan(drawn, per_prompt, repeats, seed).pairs


def read_rows(out):
    return [json.loads(line) for line in out.read_bytes().splitlines()]


# --- the plan ------------------------------------------------------------------------------------


def test_each_prompt_is_asked_as_often_as_said_and_never_two_equal_texts():
    rows = drawn_rows(prompts=6, answers=4)
    for row in rows:
        row["answers"] += [{"text": row["answers"][0]["text"] + "\n"}, {"text": "  "}]
    for per_prompt, expected in ((1, 1), (4, 4), (99, 6)):  # of four texts there are six pairs
        pairs = plan_of(rows, per_prompt=per_prompt)
        for row in rows:
            asked = [{p.first.text, p.second.text} for p in pairs if p.prompt == row["prompt"]]
            assert len(asked) == expected
            assert len({frozenset(texts) for texts in asked}) == expected
            assert all(len({text.strip() for text in texts}) == 2 for texts in asked)
            assert not any(text.isspace() for texts in asked for text in texts)


def test_what_is_not_asked_is_said():
    drawn = [
        Drawn("A?", [Answer("x"), Answer("y"), Answer("x "), Answer("")]),
        Drawn("B?", [Answer("z")]),
        Drawn("A?", [Answer("y")]),  # the same prompt again
    ]
    plan = make_plan(drawn, 9, 0.0, 0)
    assert len(plan.pairs) == 1
    assert plan.notes == [
        "1 empty answer not asked: train reads no empty answers",
        "2 answers not asked: the same text stands there already",
        "1 prompt not asked: without two answers that differ and that train can read",
    ]


def test_order_and_sides_follow_from_the_seed_and_not_from_the_answers():
    rows = drawn_rows(40)
    others = [
        {**row, "answers": [{"text": a["text"][::-1]} for a in row["answers"]]} for row in rows
    ]

    def shape(rows, seed):
        place = {
            a["text"]: (i, j) for i, row in enumerate(rows) for j, a in enumerate(row["answers"])
        }
        return [(place[p.first.text], place[p.second.text]) for p in plan_of(rows, 0.2, 2, seed)]

    assert shape(rows, 0) == shape(rows, 0) == shape(others, 0) != shape(rows, 1)
    swapped = sum(first > second for first, second in shape(rows, 0))
    assert 25 <= swapped <= 71  # of 96
    prompts = [first[0] for first, _ in shape(rows, 0)]
    assert prompts != sorted(prompts)


@pytest.mark.parametrize("number", [1, 2, 3, 12, 100])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_some_pairs_come_again_later_with_their_sides_swapped(number, share):
    pairs = plan_of(drawn_rows(number), share)
    again = [(i, pair) for i, pair in enumerate(pairs) if pair.repeats is not None]
    assert len(pairs) - len(again) == number
    assert len(again) == min(round(share * number), number - 1)
    assert len({pair.repeats for _, pair in again}) == len(again)
    for i, pair in again:
        before = pairs[pair.repeats]
        assert before.repeats is None
        assert (before.prompt, before.first, before.second) == (
            pair.prompt,
            pair.second,
            pair.first,
        )
        assert i - pair.repeats > min(10, number - len(again))


def test_only_what_train_reads_as_it_stands_is_asked():
    drawn = [
        Drawn("A?", [Answer("x"), Answer("\u200b"), Answer("y\0")]),  # seen, but refused
        Drawn(make_prompt({"prompt": "B?", "system": "Be brief."}), [Answer("x"), Answer("y")]),
    ]
    (pair,) = make_plan(drawn, 9, 0.0, 0).pairs
    assert pair.prompt.messages[0]["content"] == "Be brief."


# --- what is kept --------------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path):
    """Opens the judgements of a plan, as often as asked; one at a time."""
    opened = []

    def open_(pairs=None, **other):
        while opened:
            opened.pop().close()
        plan = plan_of(drawn_rows()) if pairs is None else pairs
        opened.append(Judgements(tmp_path / "pairs.jsonl", plan, {**SETTINGS, **other}))
        return opened[0]

    yield open_
    while opened:
        opened.pop().close()


def judge(session, *choices, seconds=1.5):
    for choice in choices:
        if choice == "undo":
            session.undo(session.events)
        else:
            session.judge(session.events, choice, seconds)


def test_choices_become_rows_and_ties_and_skips_stay_what_they_are(session):
    now = session()
    judge(now, "first", "tie", "second", "skip")
    one, _, three, _ = now.plan[:4]
    assert read_rows(now.out) == [
        {
            "prompt": pair.prompt,
            "chosen": chosen.text,
            "rejected": rejected.text,
            "seconds": 1.5,
        }
        for pair, chosen, rejected in (
            (one, one.first, one.second),
            (three, three.second, three.first),
        )
    ]
    assert (now.rows, now.number("tie"), now.number("skip"), now.left) == (2, 1, 1, 8)
    lines = [json.loads(line) for line in now.journal.read_text().splitlines()]
    assert lines[0] == SETTINGS
    assert [line["choice"] for line in lines[1:]] == ["first", "tie", "second", "skip"]
    assert lines[2]["prompt"] == now.plan[1].prompt
    judge(now, "undo", "undo", "first")
    assert [row["chosen"] for row in read_rows(now.out)] == [one.first.text, three.first.text]
    before = now.judged
    again = session()
    assert (again.judged, again.events, again.place) == (before, 7, 3)


def test_train_reads_the_rows_also_of_conversations(session):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?\u2028Human: <b>"},
    ]
    tools = [{"type": "function", "function": {"name": "look"}}]
    nasty = ["</script>\u2028\u2029\r\n<img src=x onerror=alert(1)>", "שלום\n\nHuman: hello"]
    drawn = [Drawn(Conversation(messages, tools), [Answer(text) for text in nasty])]
    now = session(make_plan(drawn, 1, 0.0, 0).pairs)
    judge(now, "first")
    (record,) = read_feedback(now.out).records
    assert record.prompt == drawn[0].prompt
    assert record.prompt.messages == tuple(messages)
    assert record.prompt.tools == tuple(tools)
    assert {record.chosen, record.rejected} == set(nasty)
    assert record.chosen == now.plan[0].first.text
    assert record.extra == {"seconds": 1.5}
    session(now.plan)  # and label recognizes them


def test_a_repetition_of_what_was_skipped_is_not_asked(session):
    now = session(plan_of(drawn_rows(), repeats=0.5))
    assert now.left == 18
    judge(now, *["skip"] * 12)
    assert now.left == 0
    assert now.place == 18
    judge(now, "undo", "tie")
    assert now.left == 1 - (now.judged[-1].place not in {p.repeats for p in now.plan})


def test_a_skip_taken_back_brings_its_repetition_back(session):
    now = session(plan_of(drawn_rows(), repeats=0.5))
    place = min(pair.repeats for pair in now.plan if pair.repeats is not None)
    judge(now, *["tie"] * place)
    left = now.left
    for choice, lost in [("skip", 2), ("undo", 0), ("first", 1), ("undo", 0), ("skip", 2)]:
        judge(now, choice)
        assert now.left == left - lost


def test_what_is_left_and_how_long_it_takes_know_of_skips(session, served):
    now = session(plan_of(drawn_rows(), repeats=0.5))
    assert {0, 1, 2} <= {pair.repeats for pair in now.plan}
    server = served(now)
    for event in range(3):
        now.judge(event, "skip", 60.0)
    state = server.state()
    assert [state[name] for name in ("seen", "skipped", "left")] == [3, 3, 18 - 3 - 3]
    assert state["median"] is None
    now.judge(3, "tie", 2.0)
    assert server.state()["median"] == 2.0


def test_judgements_of_something_else_and_nonsense_are_refused(session):
    now = session()
    with pytest.raises(OutOfStep):
        now.undo(0)
    judge(now, "first")
    for event in (0, 2, None):
        with pytest.raises(OutOfStep):
            now.judge(event, "first", 1.0)
        with pytest.raises(OutOfStep):
            now.undo(event)
    for choice, seconds, message in (
        ("third", 1.0, "choice must be one of first, second, tie, skip, got 'third'"),
        ("tie", -1.0, "seconds must be at least 0"),
        ("tie", float("nan"), "seconds must be at least 0"),
        ("tie", "1", "seconds must be a number"),
        ("tie", True, "seconds must be a number"),
    ):
        with pytest.raises(ValueError, match=message):
            now.judge(1, choice, seconds)
    judge(now, *["tie"] * 11)
    with pytest.raises(OutOfStep):
        judge(now, "tie")
    assert len(now.judged) == 12
    assert len(now.journal.read_text().splitlines()) == 13


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"sha256": "x"}, "begun with other drawn answers: give --out another name"),
        ({"seed": 3}, "begun with --seed 0, not 3: give the same"),
        ({"per_prompt": 2}, "begun with --per-prompt 1, not 2"),
        ({"repeats": 0.5}, r"begun with --repeats 0.1, not 0.5"),
    ],
)
def test_a_file_is_not_continued_with_something_else(session, other, message):
    judge(session(), "first")
    with pytest.raises(ValueError, match=message):
        session(**other)
    assert session().rows == 1


def test_rows_of_others_and_changed_ones_are_left_alone(session, tmp_path):
    out = tmp_path / "pairs.jsonl"
    out.write_text("mine\n")
    with pytest.raises(ValueError, match="is there already, and label did not write it"):
        session()
    assert out.read_text() == "mine\n"
    out.unlink()
    judge(session(), "first", "second")
    lines = out.read_bytes()
    out.write_bytes(lines.replace(b"Question", b"Riddle"))
    with pytest.raises(ValueError, match=r"was changed since: move it away"):
        session()
    out.unlink()
    session()
    assert out.read_bytes() == lines


def test_a_journal_torn_anywhere_keeps_what_had_counted(session):
    now = session()
    judge(now, "first", "tie", "undo", "skip", "second")
    data, plan = now.journal.read_bytes(), now.plan
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    out, journal = now.out, now.journal
    for size in range(0, len(data) + 1, 3):
        session(plan).close()
        out.unlink(missing_ok=True)
        journal.write_bytes(data[:size])
        again = session(plan)
        whole = sum(end <= size for end in ends)
        assert again.events == max(0, whole - 1)
        assert again.torn == (size not in (0, *ends))
        judge(again, "tie")
        assert session(plan).events == again.events
        assert not session(plan).torn


def test_a_damaged_line_is_named(session):
    now = session()
    judge(now, "first", "first")
    text = now.journal.read_text()
    for bad in ('{"undo": 3}', "{", '{"pair": 0}', "[]"):
        now.journal.write_text(text + bad + "\n")
        with pytest.raises(ValueError, match=r"judgements, line 4 is damaged"):
            session()
    now.journal.write_text(text.replace("Answer", "Word"))
    with pytest.raises(ValueError, match=r"line 2 is damaged \(pair 0 is not what is asked"):
        session()


class Full:
    """A disk that takes half of a line."""

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return self.file.write(data[: len(data) // 2])


def test_a_full_disk_leaves_everything_as_it_was(session):
    now = session()
    judge(now, "first")
    data = now.journal.read_bytes()
    file, now._file = now._file, Full(now._file)
    with pytest.raises(OSError, match="No space"):
        judge(now, "second")
    now._file = file
    assert now.journal.read_bytes() == data
    assert (now.events, len(now.judged)) == (1, 1)
    judge(now, "tie")
    assert session().events == 2


def no_space(path):
    raise OSError(28, "No space left on device")


def test_rows_that_cannot_be_written_are_behind_and_said_to_be(session, monkeypatch):
    now = session()
    judge(now, "first")
    monkeypatch.setattr(kept, "replacing", no_space)
    judge(now, "second", "undo", "tie", "first")
    assert "pairs.jsonl cannot be written (No space left on device)" in now.trouble
    assert len(read_rows(now.out)) == 1
    monkeypatch.undo()
    again = session()  # the rows are older by several judgements, and known all the same
    assert again.rows == len(read_rows(again.out)) == 2


# --- what came of it -----------------------------------------------------------------------------


def test_habits_are_counted_with_their_intervals(session):
    now = session(plan_of(drawn_rows(40, answers=2), repeats=0.2))
    assert now.habits() == []
    seen = {}
    while now.place < len(now.plan):
        pair = now.plan[now.place]
        longer = "first" if len(pair.first.text) > len(pair.second.text) else "second"
        if pair.repeats is None:
            seen[now.place] = len(seen)
            choice = "tie" if len(seen) % 10 == 0 else longer if len(seen) % 4 else "first"
        else:
            before = now.judged[[one.place for one in now.judged].index(pair.repeats)].choice
            choice = {"first": "second", "second": "first", "tie": "tie"}[before]
            if pair.repeats == min(p.repeats for p in now.plan if p.repeats is not None):
                choice = "skip"
        judge(now, choice)
    firsts = [one for one in now.judged if now.plan[one.place].repeats is None]
    chosen = [one for one in firsts if one.choice != "tie"]
    left = sum(one.choice == "first" for one in chosen)
    long = 0
    for one in chosen:
        pair = now.plan[one.place]
        sides = {"first": pair.first.text, "second": pair.second.text}
        long += sides.pop(one.choice) > sides.popitem()[1]
    same, first, longer = now.habits()
    assert same.startswith("Asked again with the sides swapped, you said the same 7 of 7 times")
    assert same.endswith(f"(100%; 95% interval {wilson_interval(7, 7)[0]:.0%} to 100%).")
    low, high = wilson_interval(left, 36)
    assert first == (
        f"You chose the first answer, on the left, {left} of 36 times ({left / 36:.0%}; 95% "
        f"interval {low:.0%} to {high:.0%})."
    )
    assert f"longer answer {sum_longer(now)} of 36 times" in longer
    assert now.median_seconds() == 1.5


def sum_longer(now):
    rows = read_rows(now.out)
    return sum(len(row["chosen"]) > len(row["rejected"]) for row in rows)


def test_a_repetition_judged_otherwise_counts_against_you_and_not_as_a_row(session):
    now = session(plan_of(drawn_rows(2), repeats=0.5))
    judge(now, "first", "first")
    rows = read_rows(now.out)
    judge(now, "first")  # the sides are swapped: now the other answer
    assert now.habits()[0].startswith(
        "Asked again with the sides swapped, you said the same 0 of 1"
    )
    assert read_rows(now.out) == rows
    judge(now, "undo", "second")
    assert "the same 1 of 1 time (100%; 95% interval 21% to 100%)" in now.habits()[0]


# --- the server ----------------------------------------------------------------------------------


@pytest.fixture
def served():
    """Starts a server of these judgements."""
    with contextlib.ExitStack() as stack:

        def served(judgements):
            server = Server(judgements)
            thread = threading.Thread(target=server.serve_forever, args=[0.01])
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield served


@pytest.fixture
def server(session, served):
    return served(session())


def ask(server, method="GET", name="state", body=None, token=None, **headers):
    port, token = server.server_port, server.token if token is None else token
    own = {"Host": f"127.0.0.1:{port}"}
    if method == "POST":
        own |= {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    own |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        data = body if isinstance(body, str) or body is None else json.dumps(body)
        connection.putrequest(method, f"/{token}/{name}", skip_host=True)
        for header, value in {"Content-Length": str(len(data or "")), **own}.items():
            if value is not None:
                connection.putheader(header, value)
        connection.endheaders(data.encode() if data else None)
        answer = connection.getresponse()
        text = answer.read().decode()
        kind = answer.headers.get_content_type()
        return answer, json.loads(text) if kind == "application/json" else text
    finally:
        connection.close()


def test_a_judgement_by_http(server):
    answer, state = ask(server)
    assert answer.status == 200
    pair = server.judgements.plan[0]
    assert state == {
        "event": 0,
        "seen": 0,
        "left": 12,
        "rows": 0,
        "ties": 0,
        "skipped": 0,
        "median": None,
        "out": str(server.judgements.out),
        "trouble": "",
        "pair": {
            "prompt": pair.prompt,
            "first": {"text": pair.first.text, "ended": True},
            "second": {"text": pair.second.text, "ended": True},
        },
    }
    answer, state = ask(server, "POST", "judge", {"event": 0, "choice": "second", "seconds": 2})
    assert (answer.status, state["event"], state["rows"], state["median"]) == (200, 1, 1, 2)
    assert read_rows(server.judgements.out)[0]["chosen"] == pair.second.text
    late, state = ask(server, "POST", "judge", {"event": 0, "choice": "first", "seconds": 2})
    assert (late.status, state["event"]) == (409, 1)
    answer, state = ask(server, "POST", "undo", {"event": 1})
    assert (answer.status, state["event"], state["rows"]) == (200, 2, 0)
    for event in range(2, 14):
        choice = "tie" if event < 13 else "first"
        _, state = ask(server, "POST", "judge", {"event": event, "choice": choice, "seconds": 2})
    out = server.judgements.out
    end = {"pair": None, "summary": server.judgements.habits()}
    command = f"python -m dpo_lib train --data {out} --out runs/mine"
    counts = {"seen": 12, "left": 0, "skipped": 0, "median": 2, "out": str(out), "trouble": ""}
    assert len(state["summary"]) == 2
    assert state == {"event": 14, "rows": 1, "ties": 11, **counts, **end, "next": command}
    ask(server, "POST", "undo", {"event": 14})
    server.judgements.trouble = "The disk is full"
    _, state = ask(server, "POST", "judge", {"event": 15, "choice": "tie", "seconds": 2})
    assert (state["rows"], state["summary"], state["next"]) == (0, [], "")
    server.judgements.trouble = "The disk is full"
    assert ask(server)[1]["trouble"] == "The disk is full"


GOOD = {"event": 0, "choice": "first", "seconds": 1}


HIDDEN = "not without the token that the terminal shows"
NAMES = "choice must be one of first, second, tie, skip"


@pytest.mark.parametrize(
    ("change", "status", "why"),
    [
        ({"token": "no"}, 404, HIDDEN),
        ({"token": ""}, 404, HIDDEN),
        ({"Host": "evil.example"}, 403, "not by this name"),
        ({"Host": "127.0.0.1"}, 403, "not by this name"),
        ({"Host": None}, 403, "not by this name"),
        ({"Origin": "http://evil.example"}, 403, "not from another page"),
        ({"Origin": "null"}, 403, "not from another page"),
        ({"Origin": None}, 403, "not from another page"),
        ({"Sec_Fetch_Site": "cross-site"}, 403, "not from another page"),
        ({"Sec_Fetch_Site": "same-site"}, 403, "not from another page"),
        ({"Content_Type": "text/plain"}, 415, "only JSON"),
        ({"name": "state"}, 404, "there is no such page"),
        ({"body": " " * (LONGEST + 1)}, 413, "at most 1000 bytes"),
        ({"Content_Length": None}, 413, "at most 1000 bytes"),
        ({"Content_Length": "-1"}, 413, "at most 1000 bytes"),
        ({"body": "{"}, 400, "not JSON: Expecting property name enclosed in double quotes: *"),
        ({"body": "[" * 900}, 400, "not JSON: *"),
        ({"body": "[]"}, 400, "not an object"),
        ({"body": {"event": 0}}, 400, "not a judgment: 'choice'"),
        ({"body": {**GOOD, "choice": "<b>"}}, 400, f"not a judgment: {NAMES}, got '<b>'"),
        ({"body": {**GOOD, "seconds": "1"}}, 400, "not a judgment: seconds must be a *, got '1'"),
        ({"method": "PUT"}, 501, "Unsupported method ('PUT')"),
        ({"method": "OPTIONS"}, 501, "Unsupported method ('OPTIONS')"),
    ],
)
def test_nobody_else_can_post(server, change, status, why):
    answer, said = ask(server, **{"method": "POST", "name": "judge", "body": GOOD, **change})
    assert answer.status == status
    assert fnmatch.fnmatchcase(said, glob.escape(why).replace("[*]", "*") + "\n")
    assert len(said.splitlines()) == 1
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert server.judgements.events == 0
    assert ask(server, "POST", "judge", GOOD)[0].status == 200


@pytest.mark.parametrize(
    ("change", "status", "why"),
    [
        ({"token": "x"}, 404, HIDDEN),
        ({"Host": "evil.example"}, 403, "not by this name"),
        ({"name": "no"}, 404, "there is no such page"),
        ({"name": "no/state"}, 404, "there is no such page"),
    ],
)
def test_nobody_else_can_read(server, change, status, why):
    answer, said = ask(server, **change)
    assert (answer.status, said) == (status, f"{why}\n")


def test_the_page_may_ask_by_either_name_and_send_as_much_as_is_read(server):
    host = f"localhost:{server.server_port}"
    own = {"Host": host, "Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}
    body = json.dumps(GOOD).ljust(LONGEST)
    assert ask(server, "POST", "judge", body, **own)[1]["event"] == 1
    assert ask(server, Sec_Fetch_Site="none")[1]["event"] == 1


def test_what_a_refused_request_brings_along_is_not_the_next_one(server):
    inner = f"GET /{server.token}/state HTTP/1.1\r\nHost: {server.hosts[0]}\r\n"
    inner += "Connection: close\r\n\r\n"
    length = f"Content-Length: {len(inner)}"
    outer = f"POST /no/judge HTTP/1.1\r\nHost: {server.hosts[0]}\r\n{length}\r\n\r\n"
    with socket.create_connection(server.server_address, timeout=30) as connection:
        connection.sendall((outer + inner).encode())
        with connection.makefile("rb") as answers:
            said = answers.read()
    assert said.startswith(b"HTTP/1.1 404")
    assert said.count(b"HTTP/1.1") == 1


def test_a_browser_that_stops_halfway_gets_no_answer(server, monkeypatch, capsys):
    monkeypatch.setattr(server.RequestHandlerClass, "timeout", 0.1)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server, "POST", "judge", GOOD, Content_Length="900")
    assert ask(server)[1]["event"] == 0
    assert capsys.readouterr().err == ""


def test_a_browser_that_hung_up_is_no_news_and_a_fault_of_ours_is(server, capsys):
    for error in (BrokenPipeError(), ConnectionResetError(), TimeoutError(), KeyError("ours")):
        assert capsys.readouterr().err == ""
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 4321))
    err = capsys.readouterr().err
    assert "('127.0.0.1', 4321)" in err
    assert err.splitlines()[-2] == "KeyError: 'ours'"


def test_the_page_asks_for_nothing_outside(server):
    assert server.server_address[0] == "127.0.0.1"
    kinds = {"": "html", "label.css": "css", "label.js": "javascript", "state": "json"}
    for name, kind in kinds.items():
        answer, text = ask(server, name=name)
        data = json.dumps(text) if name == "state" else text
        assert not re.search(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]+|@import|url\(", data)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        found = dict(answer.headers.items())
        assert found.pop("Date")
        assert found.pop("Server").strip() == "dpo_lib"
        assert found == {
            **HEADERS,
            "Content-Type": f"{'application' if kind == 'json' else 'text'}/{kind}; charset=utf-8",
            "Content-Length": str(len(data.encode())),
        }
    assert re.findall(r'(?:src|href)="([^"]*)"', ask(server, name="")[1]) == [
        "data:,",
        "label.css",
        "label.js",
    ]
    assert ask(server, name="label.js")[1].endswith("\nmodule_label.start();\n})();\n")


def test_what_cannot_be_kept_is_said_and_does_not_count(server, monkeypatch):
    monkeypatch.setattr(server.judgements, "_file", Full(server.judgements._file))
    answer, said = ask(server, "POST", "judge", GOOD)
    assert answer.status == 507
    assert said == "The judgment cannot be kept: No space left on device.\n"
    monkeypatch.undo()
    assert ask(server)[1]["event"] == 0


def test_many_windows_at_once_count_each_pair_once(server):
    def click(results, number):
        for event in range(12):
            results.append(ask(server, "POST", "judge", {**GOOD, "event": event})[0].status)

    results = []
    threads = [threading.Thread(target=click, args=[results, i]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(200) == 12
    assert set(results) == {200, 409}
    assert len(server.judgements.judged) == 12


# --- killed at any moment ------------------------------------------------------------------------


def serve(out, pairs, ready):
    """What a process does that will be killed."""
    server = Server(Judgements(out, pairs, SETTINGS))
    ready.send((server.server_port, server.token))
    server.serve_forever()


class Address:
    def __init__(self, port, token):
        self.server_port, self.token = port, token


def test_fifty_kills_lose_no_click_and_tear_no_line(tmp_path):
    out, pairs = tmp_path / "pairs.jsonl", plan_of(drawn_rows(3000), repeats=0.1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # each process is there at once
    rng, said, asked = random.Random(0), [], ""
    for _ in range(50):
        ready, theirs = context.Pipe()
        process = context.Process(target=serve, args=[out, pairs, theirs], daemon=True)
        process.start()
        server = Address(*ready.recv())
        said += [asked] * (
            ask(server)[1]["event"] - len(said)
        )  # kept, and killed before it said so
        killer = threading.Timer(rng.uniform(0, 0.06), os.kill, [process.pid, signal.SIGKILL])
        killer.start()
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                undo = said and said[-1] != "undo" and rng.random() < 0.2
                asked = "undo" if undo else rng.choice(["first", "second", "tie", "skip"])
                body = {"event": len(said), "choice": asked, "seconds": 1}
                answer, state = ask(server, "POST", "undo" if undo else "judge", body)
                assert (answer.status, state["event"]) == (200, len(said) + 1)
                said.append(asked)
        killer.join()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if out.exists() and out.stat().st_size:
            assert not read_preferences(out).problems
    now = Judgements(out, pairs, SETTINGS)
    said += [asked] * (now.events - len(said))
    stack = []
    for what in said:
        if what == "undo":
            stack.pop()
        else:
            stack.append(what)
    assert [one.choice for one in now.judged] == stack
    assert len(said) == now.events > 50
    assert len(read_rows(out)) == now.rows
    now.close()


# --- the command ---------------------------------------------------------------------------------


class Command:
    """``label`` in a process of its own."""

    def __init__(self, file, out, *more):
        command = [sys.executable, "-m", "dpo_lib", "label", str(file), "--out", str(out)]
        self.process = subprocess.Popen(
            [*command, "--no-browser", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", line):
                self.address = found[0]
                break

    def end(self, how=signal.SIGINT):
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out.splitlines(), err


@pytest.fixture
def run():
    """Starts commands; none outlives the test."""
    with contextlib.ExitStack() as stack:

        def run(*words):
            command = Command(*words)
            stack.callback(command.end, signal.SIGKILL)
            return command

        yield run


def test_ctrl_c_ends_with_a_summary_and_two_of_them_are_one_too_many(run, file, tmp_path):
    out = tmp_path / "my pairs.jsonl"
    command = run(file, out, "--repeats", "0.25")
    assert command.lines[0] == "12 pairs, 3 of them asked twice"
    second = run(file, out, "--repeats", "0.25")
    code, said, err = second.end()
    assert (code, said) == (2, [])
    assert err.splitlines()[-1] == f"error: another process is labeling {out}"
    server = Address(int(re.search(r":(\d+)/", command.address)[1]), command.address.split("/")[3])
    for event, choice in enumerate(["first", "tie", "skip", "second"]):
        ask(server, "POST", "judge", {"event": event, "choice": choice, "seconds": 3.14})
    code, said, err = command.end()
    assert code == 0
    assert "Traceback" not in err
    assert said[1].startswith("4 judgments: 2 preferences, 1 tie, 1 skipped, ")


@pytest.fixture
def label(file, tmp_path, monkeypatch, capsys):
    """The command, here: it judges as told, then comes Ctrl-C; what was said before and after."""

    def label(*options, choices=(), full=False):
        stdout = io.TextIOWrapper(io.BytesIO())

        def lines():  # that a reader has by now
            return stdout.buffer.getvalue().decode().splitlines()

        def serve(server):
            for thread in threading.enumerate():
                if "(browser)" in thread.name:
                    thread.join()
            opening.extend(line.replace(server.address, "ADDRESS") for line in lines())
            if full:
                patch.setattr(kept, "replacing", no_space)
            judge(server.judgements, *choices, seconds=3.14)
            raise KeyboardInterrupt

        opening = []
        with monkeypatch.context() as patch:
            patch.setattr(Server, "serve_forever", serve)
            patch.setattr(sys, "stdout", stdout)
            code = main(["label", str(file), "--out", str(tmp_path / "my pairs.jsonl"), *options])
            stdout.flush()
        return opening, lines()[len(opening) :], code, capsys.readouterr().err

    return label


def test_what_is_asked_and_what_is_said_before_and_after(label, file, tmp_path):
    rows = [{"prompt": f"{i}?", "answers": ["yes", "not"]} for i in range(3)]
    write(file, [*rows, {"prompt": "alone?", "answers": ["x"]}])
    out, journal = (tmp_path / f"my pairs.jsonl{end}" for end in ("", ".judgements"))
    options = ["--repeats", "0.4", "--no-browser"]
    note = "note   1 prompt not asked: without two answers that differ and that train can read"
    first = "You chose the first answer, on the left,"
    again = "The same command goes on where you stopped."
    then = f"Next: python -m dpo_lib train --data '{out}' --out runs/mine"
    fast = "Half of them took at most 3.1 seconds."

    told = ["label them at ADDRESS (this machine only); Ctrl-C ends"]

    assert label(*options) == (
        [note, "3 pairs, 1 of them asked twice", *told],
        ["", "0 judgments: 0 preferences, 0 ties, 0 skipped, 4 left.", again],
        0,
        "",
    )
    assert label(*options, choices=["first"])[1:] == (
        [
            "",
            "1 judgment: 1 preference, 0 ties, 0 skipped, 3 left.",
            fast,
            f"{first} 1 of 1 time (100%; 95% interval 21% to 100%).",
            again,
            then,
        ],
        0,
        "",
    )
    with journal.open("a") as file:
        file.write('{"pair"')
    torn = "note   a judgment that was being written when the last run was killed is asked again"
    opening, said, code, err = label(*options, choices=["tie", "skip"], full=True)
    assert opening == [note, torn, "1 judged before, 3 left", *told]
    assert said[1] == "3 judgments: 1 preference, 1 tie, 1 skipped, 1 left."
    assert (code, err) == (
        1,
        f"error: cannot read or write: {out} cannot be written (No space left on device); "
        f"{journal} has all\n",
    )
    assert label(*options, choices=["undo", "first", "tie"])[1:] == (
        [
            "",
            "4 judgments: 2 preferences, 1 tie, 0 skipped, 0 left.",
            fast,
            "Asked again with the sides swapped, you said the same 0 of 1 time (0%; 95% interval "
            "0% to 79%).",
            f"{first} 2 of 2 times (100%; 95% interval 34% to 100%).",
            then,
        ],
        0,
        "",
    )


@pytest.mark.parametrize(
    ("platform", "environment", "options", "opens"),
    [
        ("linux", {"DISPLAY": ":0"}, [], True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, [], True),
        ("linux", {"DISPLAY": ""}, [], False),
        ("linux", {"DISPLAY": ":0"}, ["--no-browser"], False),
        ("darwin", {}, [], True),
        ("win32", {}, [], True),
    ],
)
def test_a_browser_with_a_window_opens_and_nothing_waits_for_it(
    label, monkeypatch, platform, environment, options, opens
):
    def browser(address):
        opened.append(re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32,}/", address))
        opened.append(threading.current_thread().daemon)

    opened = []
    monkeypatch.setattr(webbrowser, "open", browser)
    monkeypatch.setattr("dpo_lib.cli.label.sys", SimpleNamespace(platform=platform))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    label(*options)
    assert [bool(one) for one in opened] == [True, True] * opens


def test_ctrl_c_as_soon_as_the_address_is_read_ends_well(file, tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def write(self, text):
            super().write(text)
            if "label them at" in text:
                raise KeyboardInterrupt
            return len(text)

    monkeypatch.setattr(sys, "stdout", Terminal())
    out = tmp_path / "p.jsonl"
    for _ in range(2):  # the second time nothing may still hold the file
        assert main(["label", str(file), "--out", str(out), "--no-browser"]) == 0
    assert "interrupted" not in capsys.readouterr().err


def test_a_taken_port_is_one_sentence(file, tmp_path, session, monkeypatch, capsys):
    server = Server(session())
    command = ["label", str(file), "--out", str(tmp_path / "p.jsonl"), "--no-browser"]
    assert main([*command, "--port", str(server.server_port)]) == 2
    assert capsys.readouterr().err == (
        f"error: --port {server.server_port} is taken; without --port a free one is used\n"
    )
    with contextlib.closing(Server(server.judgements).socket) as another:
        assert another.getsockname()[1] != server.server_port
    server.server_close()

    def bind(server):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Server, "server_bind", bind)
    assert main([*command, "--port", "80"]) == 2
    assert capsys.readouterr().err == (
        "error: --port 80 (Permission denied); without --port a free one is used\n"
    )
    with pytest.raises(SystemExit):
        main([*command, "--port", "70000"])
    assert "must be between 0 and 65535, got 70000" in capsys.readouterr().err


# --- the page ------------------------------------------------------------------------------------

# A clock of the test's own: a judgement takes as long as the test says, and no longer.
CLOCK = "window.now = 0; performance.now = () => window.now"
TEXT = ".dpo-ann-text > :first-child"
NASTY = [
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    "</script></span><b onclick='window.ran = 1'>bold</b><!--",
    "w" * 3000,
    "שלום עולם, 3 < 5",
    "\u202eright to left\n\n  two spaces  and\ta tab",
    "<svg/onload=window.ran=1> &lt;amp&gt; ${1} {{2}} \u2028",
    "javascript:window.ran=1",
]


@pytest.fixture
def visit(browser):
    """Opens a page by its address; nothing may go wrong in it, or be asked for elsewhere."""
    contexts, faults = [], []

    def visit(address, faulty=(), **options):
        options = {"viewport": {"width": 1000, "height": 800}, **options}
        context = browser.new_context(**options)
        contexts.append(context)
        context.add_init_script(CLOCK)
        page = context.new_page()
        origin = address.split("/")[2]

        def check(text):
            if not any(word in text for word in faulty):
                faults.append(text)

        page.on("console", lambda message: check(message.text))
        page.on("pageerror", lambda error: check(str(error)))
        page.on("dialog", lambda dialog: check(dialog.message))
        page.on(
            "request",
            lambda request: request.url.split("/")[2] == origin or check(request.url),
        )
        page.goto(address)
        settle(page)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert faults == []


def wait(page, seconds=1.5):
    page.evaluate("s => { window.now += 1000 * s; }", seconds)


def settle(page):
    page.locator("main[aria-busy=false]").wait_for()


def press(page, *keys, after=1.5):
    for key in keys:
        wait(page, after)
        with page.expect_response(lambda answer: answer.request.method == "POST"):
            page.keyboard.press(key)
        settle(page)


def tiles(page):
    values = page.locator(".dpo-tile .dpo-value").all_text_contents()
    return dict(zip(page.locator(".dpo-tile .dpo-name").all_text_contents(), values, strict=True))


def shown(page):
    """Prompt, first and second answer, as they are read."""
    texts = page.locator(".dpo-ann-text > :first-child").evaluate_all(
        "n => n.map(x => x.textContent)"
    )
    return page.locator(".dpo-ann-prompt").text_content(), *texts


def as_shown(pair):
    return pair.prompt, pair.first.text, pair.second.text


def test_twelve_pairs_by_keyboard_killed_and_taken_up_again(run, file, tmp_path, visit):
    out = tmp_path / "pairs.jsonl"
    pairs = plan_of(drawn_rows(), repeats=0.1)
    keys = ["ArrowLeft", "2", "T", "s", "u", "ArrowRight"]
    choices = ["first", "second", "tie", "second"]
    command = run(file, out)
    page = visit(command.address, faulty=["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET"])
    press(page, *keys[:4])
    assert list(tiles(page).items())[1:4] == [("ties", "1"), ("skipped", "1"), ("left", "9")]
    press(page, *keys[4:])
    assert list(tiles(page).values())[:4] == ["3", "1", "0", "9"]
    assert page.get_by_text("Pair 5 of 13", exact=True).is_visible()
    bar = page.get_by_role("progressbar")
    assert bar.evaluate("n => [n.value, n.max]") == [4, 13]
    assert shown(page) == as_shown(pairs[4])
    command.end(signal.SIGKILL)
    wait(page)
    page.keyboard.press("1")
    page.get_by_role("alert").filter(has_text="This was not kept").wait_for()
    assert shown(page) == as_shown(pairs[4])

    command = run(file, out)
    assert command.lines[0] == "4 judged before, 9 left"
    page = visit(command.address)
    assert page.get_by_text("Pair 5 of 13", exact=True).is_visible()
    assert shown(page) == as_shown(pairs[4])
    press(page, "u", "1", *["1", "2", "ArrowLeft"] * 3)
    assert page.get_by_text("That was the last pair.").first.is_visible()
    choices = [*choices[:3], "first", *["first", "second", "first"] * 3]
    expected = [
        [pair.prompt, *(sides if choice == "first" else sides[::-1])]
        for pair, choice in zip(pairs, choices, strict=True)
        if choice != "tie" and pair.repeats is None
        for sides in [(pair.first.text, pair.second.text)]
    ]
    rows = read_rows(out)
    assert [[row[name] for name in ("prompt", "chosen", "rejected")] for row in rows] == expected
    assert {row["seconds"] for row in rows} == {1.5}
    assert len(read_preferences(out).records) == 11
    assert "python -m dpo_lib train --data" in page.locator("pre").text_content()
    for start in ("Asked again", "You chose the first", "You chose the longer"):
        assert page.get_by_text(start).first.is_visible()
    code, said, _ = command.end()
    assert code == 0
    assert said[1] == "13 judgments: 11 preferences, 1 tie, 0 skipped, 0 left."


def test_texts_are_shown_as_they_are_and_never_run(session, served, visit):
    rows = [
        {"prompt": f"{one} ?", "answers": [{"text": one}, {"text": f"{other} too"}]}
        for one, other in zip(NASTY, NASTY[1:] + NASTY[:1], strict=True)
    ]
    server = served(session(plan_of(rows)))
    page = visit(server.address, viewport={"width": 360, "height": 700})
    for pair in server.judgements.plan:
        assert shown(page) == as_shown(pair)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("main :is(script, img, svg, b, iframe)").count() == 0
        press(page, "1")
    assert page.evaluate("window.ran") is None
    assert [row["chosen"] for row in read_rows(server.judgements.out)] == [
        pair.first.text for pair in server.judgements.plan
    ]


def test_lines_stay_apart_and_hebrew_begins_on_the_right(session, served, visit):
    texts = ["שלום עולם", "one\n\nthree"]
    drawn = [Drawn("Hello?", [Answer(texts[0]), Answer(texts[1], ended=False)])]
    page = visit(served(session(make_plan(drawn, 1, 0.0, 0).pairs)).address)
    hebrew, lines = (page.locator(TEXT, has_text=text[:3]) for text in texts)
    height = """node => {
        const range = document.createRange();
        range.selectNodeContents(node);
        return range.getBoundingClientRect().height;
    }"""
    assert 2.5 < lines.evaluate(height) / hebrew.evaluate(height) < 4
    assert [node.evaluate("n => getComputedStyle(n).direction") for node in (hebrew, lines)] == [
        "rtl",
        "ltr",
    ]
    (card,) = page.get_by_text("Cut off: it did not end.").all()
    assert "three" in card.locator("..").text_content()


def test_double_clicks_held_keys_and_keys_of_the_browser_judge_nothing(session, served, visit):
    server = served(session())
    page = visit(server.address)
    wait(page, 0.1)  # too fast to have read anything
    page.keyboard.press("1")
    wait(page)
    for key in ("Control+1", "Meta+1", "Alt+ArrowLeft", "3", "u"):
        page.keyboard.press(key)
    settle(page)
    assert shown(page) == as_shown(server.judgements.plan[0])
    assert server.judgements.events == 0
    with page.expect_response("**/judge"):
        page.keyboard.down("1")
    settle(page)
    wait(page)
    page.keyboard.down("1")  # a repeat
    page.keyboard.up("1")
    assert server.judgements.events == 1
    page.get_by_role("button", name="Response 2").focus()
    press(page, "Enter")
    press(page, "t", "u")
    wait(page)
    with page.expect_response("**/judge"):
        page.get_by_role("button", name="Skip").click()
    settle(page)
    with page.expect_response("**/undo"):
        page.get_by_role("button", name="Undo").click()
    settle(page)
    assert [one.choice for one in server.judgements.judged] == ["first", "second"]
    assert list(tiles(page).values()) == ["2", "0", "0", "10", "1.6 s"]


def test_time_away_from_the_page_does_not_count(session, served, visit):
    server = served(session())
    page = visit(server.address)
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    wait(page, 2)
    page.evaluate(hide, True)
    wait(page, 100)
    page.evaluate(hide, False)
    press(page, "1", after=1)
    press(page, "2", after=1.5)
    assert [one.seconds for one in server.judgements.judged] == [3, 1.5]


def test_two_windows_do_not_judge_a_pair_twice(session, served, visit):
    server = served(session())
    pages = [visit(server.address, faulty=["409"]) for _ in range(2)]
    press(pages[0], "1")
    press(pages[1], "2")
    assert [one.choice for one in server.judgements.judged] == ["first"]
    assert pages[1].get_by_role("alert").first.text_content().startswith("Another window")
    assert shown(pages[1]) == as_shown(server.judgements.plan[1])
    press(pages[1], "2")
    assert pages[1].get_by_role("alert").first.text_content() == ""


def test_another_page_of_the_browser_cannot_judge(session, served, browser, tmp_path):
    theirs = Judgements(tmp_path / "theirs.jsonl", plan_of(drawn_rows()), SETTINGS)
    server, other = served(session()), served(theirs)
    page = browser.new_page()
    page.goto(other.address)
    sent = page.evaluate(
        """async (address) => {
            const body = JSON.stringify({ event: 0, choice: "first", seconds: 1 });
            const said = [];
            for (const mode of ["cors", "no-cors"])
                said.push(await fetch(`${address}judge`, { method: "POST", body, mode }).then(
                    () => "sent", () => "refused"));
            return said;
        }""",
        server.address,
    )
    page.close()
    theirs.close()
    assert sent[0] == "refused"
    assert server.judgements.events == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_the_page_passes_the_accessibility_rules(session, served, visit, theme, width):
    from axe_playwright_python.sync_playwright import Axe

    server = served(session(plan_of(drawn_rows(2), repeats=0.5)))
    page = visit(server.address, color_scheme=theme, viewport={"width": width, "height": 700})
    for _ in range(4):
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if server.judgements.left:
            press(page, "2")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.get_by_text("That was the last pair.").first.is_visible()


def test_words_for_those_who_do_not_see_the_page_and_a_focus_for_those_who_do(
    session, served, visit
):
    drawn = [
        Drawn("A?", [Answer("x", ended=False), Answer("y", ended=False)]),
        Drawn("B?", [Answer("x"), Answer("y")]),
    ]
    server = served(session(make_plan(drawn, 1, 0.0, 0).pairs))
    page = visit(server.address)
    first, second = server.judgements.plan
    words = page.get_by_role("status")
    assert words.text_content() == f"Pair 1 of 2. {first.prompt}"
    named = page.get_by_role("button", name="Response 1").first
    assert named.evaluate("n => n.innerText").startswith("Response 1")
    order = []
    for _ in range(5):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.innerText.split('\\n')[0]"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    assert order == ["Response 1", "Response 2", "Tie", "Skip", "Undo"]

    def unusable():
        return page.locator("[aria-disabled=true]").all_text_contents()

    def cut_off():
        notes = page.locator(".dpo-ann-card > :last-child").all_text_contents()
        return ["Cut off" in note for note in notes]

    assert (unusable(), cut_off()) == (["Undo"], [not a.ended for a in (first.first, first.second)])
    press(page, "1")
    assert (unusable(), cut_off()) == ([], [not a.ended for a in (second.first, second.second)])
    assert words.text_content() == f"Pair 2 of 2. {second.prompt}"
    press(page, "2")
    assert words.text_content() == "That was the last pair."
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "What came of it"
    assert unusable() == ["Tie", "Skip"]
    assert not page.get_by_role("group", name="The pair to judge").is_visible()
    press(page, "u")
    assert words.text_content() == f"Pair 2 of 2. {second.prompt}"
    assert unusable() == []
    assert not page.get_by_role("group", name="What came of it").is_visible()
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == "The pair to judge"
    press(page, "u")
    assert (unusable(), cut_off()) == (["Undo"], [not a.ended for a in (first.first, first.second)])
