"""``judge``: pairs by a function, a command or a column; and judges that crash, hang or babble."""

import contextlib
import json
import math
import os
import re
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dpo_lib.cli import main
from dpo_lib.cli.drawn import Answer, Drawn, read_drawn
from dpo_lib.cli.judge import Pair, _judged, _told, make_pairs
from dpo_lib.cli.judges import (
    Case,
    _feed,
    answers_of,
    as_number,
    by_command,
    by_function,
    load_function,
    takes,
)
from dpo_lib.cli.progress import Progress, Stage
from dpo_lib.data.formats import read_preferences
from tests.models.hf import make_folder

ROWS = [
    {"prompt": "a", "answers": [("one", True, 5), ("three", False, 9), ("two", True, 6)]},
    {"prompt": "b", "answers": [("same", True, 1), ("same", True, 1)]},
    {"prompt": "c", "answers": [("six", True, 2), ("ten", True, 2), (" ", True, 1)]},
    {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "d"}],
     "answers": [("x", True, 3), ("xxxx", True, 4)]},
]  # fmt: skip
NAMES = ("text", "ended", "tokens")
CASES = [Case("p", "é", True, "line 1"), Case("q", "b\nc", False, "line 2")]


def write(path, rows=ROWS):
    rows = [
        {**row, "answers": [dict(zip(NAMES, answer, strict=True)) for answer in row["answers"]]}
        for row in rows
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def drawn(tmp_path):
    return write(tmp_path / "drawn.jsonl")


@pytest.fixture
def run(tmp_path, drawn, capsys):
    """Run ``judge``; what came of it: status, rows, stdout and stderr."""

    def judge(*words):
        out, before = tmp_path / "pairs.jsonl", drawn.read_bytes()
        out.unlink(missing_ok=True)
        status = main(["judge", str(drawn), "--out", str(out), *words])
        assert drawn.read_bytes() == before  # whatever a judge does
        rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        return (status, rows, *capsys.readouterr())

    return judge


def own(tmp_path, source):
    """A file with the judge's function."""
    path = tmp_path / "mine.py"
    path.write_text(source)
    return f"{path}:judge"


def shell(tmp_path, source):
    path = tmp_path / "mine.py"
    path.write_text(source)
    return f"{sys.executable} {path}"


def texts(rows):
    return [(row["chosen"], row["rejected"]) for row in rows]


LENGTH = "def judge(prompt, answer):\n    return len(answer)\n"
BY_LINE = (
    "import json, sys\nfor line in sys.stdin:\n"
    "    print(len(json.loads(line)['answer']), flush=True)\n"
)


def test_a_function_a_command_and_a_column_give_the_same_pairs(run, tmp_path, drawn):
    status, rows, told, _ = run("--judge", own(tmp_path, LENGTH))
    assert status == 0
    assert texts(rows) == [("three", "one"), ("xxxx", "x")]
    assert rows[0] == {
        "prompt": "a", "chosen": "three", "rejected": "one", "chosen_ended": False,
        "chosen_score": 5.0, "rejected_score": 3.0,
    }  # fmt: skip
    assert "9 answers judged, from 1 to 5, 3.33 on average" in told
    assert "2 pairs of 2 prompts; 2 prompts gave none (1 without two that differ, 1 whose" in told
    assert "chosen 6.5 tokens, 50% end; rejected 4.0 tokens, 100% end" in told
    assert "look   the chosen answers are 1.6 times as long: length may be" in told
    assert run("--command", shell(tmp_path, BY_LINE))[:3] == (status, rows, told)
    scored = [
        {**row, "stars": [len(text) for text, _, _ in row["answers"]]}
        for row in ROWS
    ]  # fmt: skip
    write(drawn, scored)
    assert run("--scores", "stars")[1] == rows


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], [("three", "two")]),
        (["--match-length"], [("one", "two")]),
        (["--pairs", "all"], [("one", "two"), ("three", "one"), ("three", "two")]),
        (["--pairs", "all", "--match-length"], [("one", "two")]),
    ],
)
def test_which_pairs(run, drawn, words, wanted):
    write(drawn, [{**ROWS[0], "stars": [2, 3, 1]}])
    assert texts(run("--scores", "stars", *words)[1]) == wanted


def test_train_reads_the_pairs(run, tmp_path):
    run("--judge", own(tmp_path, LENGTH))
    found = read_preferences(tmp_path / "pairs.jsonl")
    assert not found.problems
    assert [(r.chosen_ended, r.rejected_ended) for r in found.records] == [
        (False, True), (True, True)
    ]  # fmt: skip
    assert found.records[1].prompt.messages[0]["content"] == "s"
    assert found.unused_columns() == {"chosen_score": 2, "rejected_score": 2}


def test_lengths_that_are_near_are_not_worth_a_word(run, drawn):
    write(drawn, [{**ROWS[0], "stars": [1, 0, 2]}, {**ROWS[0], "stars": [2, 3, 1]}])
    told = run("--scores", "stars", "--match-length")[2]
    assert "chosen 5.5 tokens, 100% end; rejected 5.5 tokens, 100% end" in told
    assert "look" not in told


@pytest.mark.parametrize("name", ["my_rank", "Rank", "ranking"])
def test_of_ranks_the_lowest_is_the_best(run, drawn, name):
    write(drawn, [{**ROWS[0], name: [2, 1, 3]}])
    assert texts(run("--scores", name)[1]) == [("three", "two")]


def test_scores_may_stand_in_the_answers(run, drawn):
    answers = [{"text": "a", "stars": 1}, {"text": "b", "stars": 2.5}]
    drawn.write_text(json.dumps({"prompt": "p", "answers": answers}))
    _, rows, told, _ = run("--scores", "stars")
    assert texts(rows) == [("b", "a")]
    assert "chosen 1.0 characters" in told


def test_a_function_can_know_what_was_cut(run, tmp_path):
    source = "def judge(prompt, answer, *, ended):\n    return ended\n"
    assert texts(run("--judge", own(tmp_path, source))[1]) == [("one", "three")]


def test_a_function_gets_prompt_and_answer_once_each(run, tmp_path, monkeypatch):
    seen = []
    module = type(sys)("my_judges")
    module.judge = lambda prompt, answer: seen.append((str(prompt), answer)) or len(seen)
    monkeypatch.setitem(sys.modules, "my_judges", module)
    assert run("--judge", "my_judges:judge")[0] == 0
    assert seen[:5] == [("a", "one"), ("a", "three"), ("a", "two"), ("b", "same"), ("c", "six")]
    assert len(seen) == 8  # of two that are the same it is asked once, of an empty one never


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (None, ""),
        ({"model": "runs/a b", "chat": False}, "--model 'runs/a b' --plain "),
        ({"model": "smollm2", "chat": None}, "--model smollm2 "),
        (
            {"model": "a", "chat": None, "answer_prefix": "So: ", "template": {"think": False}},
            "--model a '--answer-prefix=So: ' --template=think=false ",
        ),
    ],
)
def test_the_next_command_is_told(run, tmp_path, drawn, settings, words):
    write(drawn, [{**ROWS[0], "stars": [1, 2, 3]}])
    if settings:
        (tmp_path / "drawn.jsonl.settings").write_text(json.dumps(settings))
    told = run("--scores", "stars")[2].splitlines()[-1]
    command = f"next   python -m dpo_lib train --data {tmp_path / 'pairs.jsonl'} {words}"
    assert told == f"{command}--out runs/mine"


def test_pairs_are_written_into_a_folder_of_their_own_as_they_are(tmp_path, drawn, capsys):
    answers = [("é", True, 1), ("è", True, 2), (" ", True, 1)]
    write(drawn, [{"prompt": "Zoé", "answers": answers, "stars": [1, 2.5, 9]}])
    out = tmp_path / "a" / "b" / "pairs.jsonl"
    assert main(["judge", str(drawn), "--out", str(out), "--scores", "stars"]) == 0
    row = '{"prompt": "Zoé", "chosen": "è", "rejected": "é", "chosen_score": 2.5, '
    assert out.read_text("utf-8") == row + '"rejected_score": 1.0}\n'
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{drawn}: 2 answers judged, from 1 to 2.5, 1.75 on average"
    assert told[1] == f"{out}: 1 pairs of 1 prompts"
    write(drawn, [{"prompt": "p", "answers": answers, "stars": [1, 1, 9]}])
    assert main(["judge", str(drawn), "--out", str(tmp_path / "c"), "--scores", "stars"]) == 2
    why = "no prompt gives a pair (1 whose answers score alike); nothing is written"
    assert f"{drawn}: {why}\n" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_scores_that_are_no_numbers_name_their_place(run, drawn):
    write(drawn, [{**ROWS[0], "stars": [1, 2, 3]}, {**ROWS[1], "stars": [1]}])
    message = "line 2: stars must be 2 numbers, one for each answer, got [1]"
    assert f"{drawn}, {message}\n" in run("--scores", "stars")[3]
    write(drawn, [{**ROWS[0], "stars": [1, "x", 3]}])
    assert (
        f"--scores stars must give a finite number, gives 'x' at {drawn}, line 1, answer 2"
        in (run("--scores", "stars")[3])
    )


def test_answers_that_are_alike_are_asked_once_unless_one_was_cut(drawn, tmp_path):
    answers = [("a", True, 1), ("a", True, 1), ("a", False, 1), (" ", True, 1), ("b", True, 1)]
    write(drawn, [{"prompt": "p", "answers": answers}, {"prompt": "q", "answers": answers[:1]}])
    name = own(tmp_path, "asked = []\ndef judge(p, a):\n    asked.append((p, a))\n"
               "    return len(asked)\n")  # fmt: skip
    args = SimpleNamespace(judge=name, timeout=9.0, progress=Progress(False))
    found = _judged(args, read_drawn(drawn))
    assert found == [{0: 1.0, 1: 1.0, 2: 2.0, 4: 3.0}, {0: 4.0}]


@pytest.mark.parametrize("words", [{"judge": None, "shell": "wc"}, {"judge": "math:hypot"}])
def test_all_that_a_judge_needs_reaches_it(drawn, monkeypatch, words):
    write(drawn, [{"prompt": "p", "answers": [("a", False, 1), ("b", True, 1)]}])
    stages, asked = [], []

    @contextlib.contextmanager
    def stage(*what):
        stages.append(what)
        yield "the stage"

    def judge(*what):
        asked.append(what)
        return [2.0, 1.0]

    for name in ("by_command", "by_function"):
        monkeypatch.setattr(f"dpo_lib.cli.judge.{name}", judge)
    args = SimpleNamespace(**words, timeout=9.0, progress=SimpleNamespace(stage=stage))
    assert _judged(args, read_drawn(drawn)) == [{0: 2.0, 1: 1.0}]
    assert stages == [("judging", 2, "answers")]
    who = (math.hypot, "math:hypot") if words["judge"] else ("wc",)
    cases = [
        Case("p", "a", False, f"{drawn}, line 1, answer 1"),
        Case("p", "b", True, f"{drawn}, line 1, answer 2"),
    ]
    assert asked == [(*who, cases, 9.0, "the stage")]


def test_a_command_reads_a_line_for_each_answer(tmp_path):
    stage = Stage("judging", 2, "answers")
    numbers = by_command(f"tee {tmp_path / 'read'} | sed 's/.*/1.5/'", CASES, 9.0, stage)
    assert (numbers, stage.done) == ([1.5, 1.5], 2)
    assert [json.loads(line) for line in (tmp_path / "read").read_text().splitlines()] == [
        {"prompt": "p", "answer": "é", "ended": True},
        {"prompt": "q", "answer": "b\nc", "ended": False},
    ]


# --- judges that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def judge(p, a):\n    1 / 0\n", "line 1, answer 1: ZeroDivisionError: division by zero"),
        ("def judge(p, a):\n    raise SystemExit(3)\n", "answer 1: SystemExit: 3"),
        ("def judge(p, a):\n    return None\n", "must give a finite number, gives None at"),
        ("def judge(p, a):\n    return 'good'\n", "gives 'good' at"),
        ("def judge(p, a):\n    return '1'\n", "gives '1' at"),
        ("nan = float('nan')\ndef judge(p, a):\n    return 1 if a != 'two' else nan\n",
         "gives nan at DRAWN, line 1, answer 3"),
        ("def judge(p, a):\n    return float('inf')\n", "gives inf at"),
        ("def judge(p):\n    return 1\n", "TypeError: judge() takes 1 positional argument"),
        ("import nothing_of_the_kind\n", "cannot be loaded: ModuleNotFoundError"),
        ("def judge(:\n", "cannot be loaded: SyntaxError"),
        ("judge = 3\n", "has no function 'judge'"),
        ("import time\ndef judge(p, a):\n    time.sleep(60 if p == 'c' else 0)\n    return 1\n",
         "is silent for 0.3 s at DRAWN, line 3, answer 1 (--timeout)"),
        ("def judge(p, a):\n    return 1\n", "no prompt gives a pair"),
    ],
)  # fmt: skip
def test_a_function_that_fails_is_told_in_a_sentence(run, tmp_path, drawn, source, message):
    started = time.monotonic()
    status, rows, _, error = run("--judge", own(tmp_path, source), "--timeout", "0.3")
    assert (status, rows) == (2, [])
    assert message.replace("DRAWN", str(drawn)) in error
    assert error.count("\n") == 1
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("judge", "--judge must be module:function or file.py:function, got 'judge'"),
        ("nothing_there:judge", "--judge nothing_there:judge: nothing_there cannot be loaded: "
         "ModuleNotFoundError: No module named 'nothing_there'"),
        ("no.py:judge", "--judge no.py:judge: no.py cannot be loaded: "
         "ValueError: there is no such file"),
        ("json:nothing", "--judge json:nothing: json has no function 'nothing'"),
    ],
)  # fmt: skip
def test_a_name_that_is_none_is_told_in_a_sentence(run, name, message):
    assert run("--judge", name) == (2, [], "", f"error: {message}\n")


def says_nothing(prompt, answer):
    raise AssertionError


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (lambda prompt, answer: {}["a"], "my:judge fails at line 1: KeyError: 'a'"),
        (says_nothing, "my:judge fails at line 1: AssertionError"),
        (lambda prompt, answer: len(answer) if prompt == "p" else answer,
         r"my:judge must give a finite number, gives 'b\nc' at line 2"),
    ],
)  # fmt: skip
def test_a_function_that_fails_is_called_by_its_name(judge, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        by_function(judge, "my:judge", CASES, 9.0, Stage("judging", 2, "answers"))


@pytest.mark.parametrize(
    "value", [torch.zeros(2), torch.tensor(1j), 10**400, object(), "1", b"1", [1.0], 1j]
)
def test_what_is_no_finite_number_is_refused_by_the_judge_s_name(value):
    with pytest.raises(ValueError, match=r"^my:judge must give a finite number, .* at line 3$"):
        as_number(value, "my:judge", "line 3")
    assert as_number(torch.tensor(0.5), "my:judge", "line 3") == 0.5


def test_a_judge_is_asked_for_ended_only_if_it_names_it():
    assert takes(lambda prompt, answer, ended: 0.0, "ended")
    assert not takes(lambda prompt, answer: 0.0, "ended")
    assert not takes(min, "ended")  # written in C: nobody knows
    assert not takes(3, "ended")


def test_a_path_may_have_a_colon_and_a_judge_that_hangs_is_left_behind(tmp_path):
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "j.py").write_text("import threading\ndef judge():\n    threading.Event().wait()\n")
    judge = load_function(f"{folder / 'j.py'}:judge", "--judge")
    before = {*threading.enumerate()}
    silent = r"^my:judge is silent for 0.01 s at line 3 \(--timeout\)$"
    with pytest.raises(ValueError, match=silent):
        list(answers_of(judge, "my:judge", [((), {}, "line 3")], 0.01, SimpleNamespace()))
    hanging = {*threading.enumerate()} - before
    assert [thread.daemon for thread in hanging] == [True]  # the program can end


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import sys\nprint(1)\nprint('much', file=sys.stderr)\nsys.exit('too hot')\n",
         "ends with status 1 after 1 of 8 numbers: too hot"),
        ("print(1)\n", "ends with status 0 after 1 of 8 numbers"),
        ("print('\\n'.join('123'))\nprint('good')\n",
         "prints 'good' in line 4, for DRAWN, line 2, answer 1"),
        ("print('nan')\n", "must print a finite number a line, prints 'nan' in line 1"),
        ("print()\n", "prints '' in line 1"),
        ("import sys\nsys.stdout.buffer.write(b'\\xff\\n')\n", "in line 1"),
        ("for i in range(9): print(i)\n", "prints more than 8 lines: '8'"),
        ("import os\nos.kill(os.getpid(), 9)\n", "after 0 of 8 numbers"),
    ],
)  # fmt: skip
def test_a_command_that_fails_is_told_in_a_sentence(run, tmp_path, drawn, source, message):
    started = time.monotonic()
    status, rows, _, error = run("--command", shell(tmp_path, source), "--timeout", "1")
    assert (status, rows) == (2, [])
    assert message.replace("DRAWN", str(drawn)) in error
    assert error.count("\n") == 1
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("command", "cases", "timeout", "message"),
    [
        ("echo 1", CASES, 9.0, "ends with status 0 after 1 of 2 numbers"),
        (r"printf '\377t is hot' >&2; echo 1; exit 3", CASES, 9.0,
         "ends with status 3 after 1 of 2 numbers: \ufffdt is hot"),
        (r"printf '1\n2\n\377 \n'", CASES, 9.0, "prints more than 2 lines: '\ufffd'"),
        ("echo 1; echo inf", CASES, 9.0,
         "must print a finite number a line, prints 'inf' in line 2, for line 2"),
        ("sleep 9", CASES, 0.05, "is silent for 0.05 s at line 1 (--timeout)"),
        ("echo 1; sleep 9", CASES, 0.5, "is silent for 0.5 s at line 2 (--timeout)"),
        ("sleep 9", [], 0.05, "is silent for 0.05 s after its last number (--timeout)"),
        ("exec >&-; sleep 9", [], 0.5, "does not end for 0.5 s (--timeout)"),
    ],
)  # fmt: skip
def test_what_a_command_does_wrong_is_said(command, cases, timeout, message):
    with pytest.raises(ValueError, match=f"^the command {re.escape(message)}$"):
        by_command(command, cases, timeout, Stage("judging", len(cases), "answers"))


def test_a_command_that_reads_no_further_is_no_fault():
    read, write = os.pipe()
    os.close(read)
    pipe = os.fdopen(write, "wb")
    _feed(pipe, ["a line"])
    assert pipe.closed


def test_a_command_that_is_given_up_leaves_nothing_running():
    with pytest.raises(ValueError, match=r"prints 'process \d+' in line 1") as refused:
        by_command("sleep 60 & echo process $!; wait", CASES, 9.0, Stage("judging", 2, "answers"))
    process = re.search(r"\d+", str(refused.value)).group()
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            break
        if state == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("it still runs")


def test_there_is_no_such_command(run):
    status, _, _, error = run("--command", "nothing-of-the-kind")
    assert status == 2
    assert "ends with status 127 after 0 of 8 numbers" in error


def test_many_answers_do_not_block_a_command(tmp_path, capsys):
    """More than a pipe holds goes in before a word comes out."""
    row = {"prompt": "p" * 3000, "answers": [("x" * i, True, i) for i in range(1, 90)]}
    drawn, out = write(tmp_path / "drawn.jsonl", [row]), tmp_path / "out.jsonl"
    words = ["--command", shell(tmp_path, BY_LINE), "--out", str(out)]
    assert main(["judge", str(drawn), *words]) == 0
    last = "import sys\nlines = sys.stdin.readlines()\nfor i in range(len(lines)): print(i)\n"
    assert main(["judge", str(drawn), *words[2:], "--command", shell(tmp_path, last)]) == 0


def test_ctrl_c_ends_the_command_too(run, tmp_path, monkeypatch):
    before, working = {*threading.enumerate()}, set()

    def stop(*_):
        working.update({*threading.enumerate()} - before)
        raise KeyboardInterrupt

    monkeypatch.setattr("dpo_lib.cli.judges._next", stop)
    assert run("--command", "sleep 60") == (130, [], "", "interrupted\n")
    assert {thread.daemon for thread in working} == {True}  # the program can end


def test_what_was_made_by_hand_is_not_overwritten(run, tmp_path, drawn, capsys):
    (tmp_path / "pairs.jsonl.judgements").write_text("")
    assert "holds pairs that `label` made" in run("--scores", "stars")[3]
    assert main(["judge", str(drawn), "--out", str(drawn), "--scores", "stars"]) == 2
    assert "is what was drawn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a"}, "line 1: answers must be a list; the row has prompt"),
        ({"prompt": "a", "answers": [{"text": 3}]}, "line 1: answer 1 must be text"),
        ({"answers": []}, "line 1: missing prompt"),
        ({"prompt": "a", "answers": [{"text": "b", "tokens": "c"}]}, "tokens of answer 1"),
        ({"prompt": "a", "answers": ["b", "c"]}, "stars must be 2 numbers|must give a finite"),
        ({"prompt": "a", "answers": ["b", "c"], "stars": [1]}, "stars must be 2 numbers"),
        ({"prompt": "a", "answers": ["b", "c"], "stars": [1, "x"]}, "gives 'x' at"),
    ],
)
def test_what_is_no_drawn_file(run, drawn, row, message):
    drawn.write_text(json.dumps(row))
    status, rows, _, error = run("--scores", "stars")
    assert (status, rows) == (2, [])
    assert any(part in error for part in message.split("|"))


# --- pairs ---------------------------------------------------------------------------------------


def row_of(*lengths):
    return Drawn("p", [Answer(f"{i}", True, n) for i, n in enumerate(lengths)])


def lengths(pairs):
    return [(pair.chosen.tokens, pair.rejected.tokens) for pair in pairs]


def pairs_of(rows, scores, which="best-worst", match_length=False):
    known = [dict(enumerate(one)) for one in scores]
    return make_pairs(rows, known, which, match_length)


def test_best_against_worst_of_equals_the_first():
    pairs, without = pairs_of([row_of(9, 4, 7, 3, 8)], [[2, 3, 3, 1, 1]])
    assert lengths(pairs) == [(4, 3)]
    assert without == {}


def test_all_that_differ_in_score():
    pairs, _ = pairs_of([row_of(9, 4, 7)], [[1, 2, 1]], "all")
    assert lengths(pairs) == [(4, 9), (4, 7)]
    assert {(p.chosen_score, p.rejected_score) for p in pairs} == {(2, 1)}


def test_lengths_are_matched_within_a_prompt():
    pairs, _ = pairs_of([row_of(9, 4, 30, 33)], [[5, 1, 3, 2]], match_length=True)
    assert lengths(pairs) == [(30, 33)]


def test_of_equally_near_ones_the_sums_decide():
    rows, scores = [row_of(10, 12, 8)] * 4, [[2, 1, 1]] * 4
    pairs, _ = pairs_of(rows, scores, match_length=True)
    assert lengths(pairs) == [(10, 12), (10, 8)] * 2
    assert sum(pair.difference for pair in pairs) == 0


def test_all_with_lengths_matched_takes_each_answer_once():
    pairs, _ = pairs_of([row_of(5, 6, 9, 20, 21)], [[1, 0, 1, 0, 1]], "all", True)
    assert lengths(pairs) in ([(5, 6), (21, 20)], [(21, 20), (5, 6)])


def test_prompts_are_counted_and_all_their_pairs_kept():
    assert pairs_of([row_of(1), row_of(2)], [[1], [1]]) == ([], {"without two that differ": 2})
    pairs, _ = pairs_of([row_of(1, 2), row_of(3, 4)], [[1, 2]] * 2, "all")
    assert lengths(pairs) == [(2, 1), (4, 3)]


def test_the_sum_of_lengths_goes_over_all_prompts():
    pairs, _ = pairs_of([row_of(10, 8, 12)], [[2, 1, 1]], match_length=True)
    assert lengths(pairs) == [(10, 8)]  # of equals the first
    rows = [row_of(12, 10), row_of(9, 10), row_of(10, 13, 7)]  # by 2, by -1: the sum is 1
    pairs, _ = pairs_of(rows, [[2, 1], [2, 1], [2, 1, 1]], match_length=True)
    assert lengths(pairs) == [(12, 10), (9, 10), (10, 13)]


def test_the_sum_of_lengths_goes_over_all_pairs_of_a_prompt():
    many, scores = row_of(10, 11, 20, 23, 17), [4, 3, 2, 1, 1]
    pairs, _ = pairs_of([many], [scores], "all", True)
    assert lengths(pairs) == [(10, 11), (20, 17)]
    pairs, _ = pairs_of([row_of(12, 10), many], [[2, 1], scores], "all", True)
    assert lengths(pairs) == [(12, 10), (10, 11), (20, 23)]
    pairs, _ = pairs_of([row_of(10, 11, 13)], [[2, 1, 1]], "all", True)
    assert lengths(pairs) == [(10, 11)]  # the chosen one is used


def test_of_equally_near_ones_with_equal_sums_the_scores_decide():
    pairs, _ = pairs_of([row_of(10, 10, 10)], [[2, 5, 1]], match_length=True)
    assert [(p.chosen_score, p.rejected_score) for p in pairs] == [(5, 1)]


def test_worst_and_best_are_told_apart_by_both_scores():
    pairs, without = pairs_of([row_of(1, 2, 3), row_of(1), row_of(5, 6)], [[5, 3, 1], [1], [2, 2]])
    assert [(p.chosen_score, p.rejected_score) for p in pairs] == [(5, 1)]
    assert without == {"without two that differ": 1, "whose answers score alike": 1}


def told_of(*sizes, tokens=True, **more):
    """What is said of pairs of a chosen and a rejected answer of these sizes."""
    answers = [[Answer("x" * n, True, n if tokens else None) for n in pair] for pair in sizes]
    pairs = [Pair("p", *pair, 1.0, 0.0) for pair in answers]
    return _told("out", pairs, len(pairs), more).splitlines()


def test_what_is_told_of_lengths():
    assert told_of((5, 4), (5, 4)) == [
        "out: 2 pairs of 2 prompts",
        "chosen 5.0 tokens, 100% end; rejected 4.0 tokens, 100% end",
    ]  # just 1.25 times as long
    last = told_of((6, 4), tokens=False)
    assert last[1].startswith("chosen 6.0 characters, 100% end; rejected 4.0 characters")
    assert last[2].startswith("look   the chosen answers are 1.5 times as long: length may be all")
    assert told_of((4, 8))[2].startswith("look   the rejected answers are 2.0 times as long")
    known, unknown = Answer("x", False, 1), Answer("xxx")
    mixed = [Pair("p", known, unknown, 1.0, 0.0)]
    assert _told("out", mixed, 3, {"a": 1, "b": 1}).splitlines()[:2] == [
        "out: 1 pairs of 1 prompts; 2 prompts gave none (1 a, 1 b)",
        "chosen 1.0 characters, 0% end; rejected 3.0 characters, 100% end",
    ]
    mixed = [Pair("p", unknown, known, 1.0, 0.0)]
    assert _told("out", mixed, 1, {}).splitlines()[1].startswith("chosen 3.0 characters")


def test_a_text_that_ended_is_no_pair_with_itself_cut():
    row = Drawn("p", [Answer("x", True, 3), Answer("x", False, 2), Answer("y\0", True, 3)])
    pairs, without = pairs_of([row], [[3, 2, 1]])
    assert (pairs, without) == ([], {"without two that differ": 1})


def test_reading_keeps_what_the_file_says(drawn):
    first = read_drawn(drawn)[0]
    assert first.answers[1][:3] == ("three", False, 9)
    assert first.place == f"{drawn}, line 1"


def test_show_tells_of_answers_that_were_cut(run, tmp_path, capsys):
    run("--judge", own(tmp_path, LENGTH))
    folder = make_folder(tmp_path / "llama")
    capsys.readouterr()
    assert main(["show", "--model", str(folder), "--data", str(tmp_path / "pairs.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "note   1 answers were cut: they are scored without an end token" in told
    assert "‹t›‹h›‹r›‹e›‹e›\n" in told
    assert "‹o›‹n›‹e›‹<|end|>›\n" in told
