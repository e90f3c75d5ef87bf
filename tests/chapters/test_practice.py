"""The pages of practice: their commands are ones that the command line takes, their code runs."""

import re
import shlex
from pathlib import Path

import pytest

from dpo_lib.cli.parser import make_parser

BOOK = Path(__file__).resolve().parents[2] / "book"
PAGES = ("first_run", "symptoms")
COMMAND = re.compile(r"python -m dpo_lib ((?:[^\n`\\]|\\\n)+)")


def text_of(page):
    return (BOOK / f"{page}.md").read_text(encoding="utf-8")


def commands(text):
    """What stands behind ``python -m dpo_lib``, lines that go on joined."""
    return [
        shlex.split(found.split(" > ")[0].replace("\\\n", " ")) for found in COMMAND.findall(text)
    ]


def unknown(text):
    """Commands that are refused, and options that no command has."""
    parser, bad = make_parser(), []
    for words in commands(text):
        try:
            parser.parse_args(words)
        except SystemExit:
            bad.append(words)
    subparsers = next(a for a in parser._actions if a.choices and "train" in a.choices)
    options = {o for sub in subparsers.choices.values() for o in sub._option_string_actions}
    return [*bad, *({*re.findall(r"`(--[a-z-]+)", text)} - options)]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_exist(page):
    assert commands(text_of(page))
    assert unknown(text_of(page)) == []


@pytest.mark.parametrize(
    ("right", "wrong"), [("--judge mine", "--jury mine"), ("show --d", "look --d")]
)
def test_a_wrong_command_is_noticed(right, wrong):
    text = text_of("first_run")
    assert right in text
    assert unknown(text.replace(right, wrong)) != []


def test_a_wrong_option_is_noticed():
    assert unknown(text_of("symptoms").replace("`--accumulate`", "`--accumulated`")) == [
        "--accumulated"
    ]


def test_the_numbers_of_bfloat16_are_as_printed(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", text_of("first_run"), re.DOTALL)
    exec("\n".join(line.strip() for line in code.splitlines()))
    said = re.findall(r"# (True|False)", code)
    assert capsys.readouterr().out.split() == said == ["True", "False"]


def test_scores_become_the_pairs_that_the_page_promises(tmp_path):
    from dpo_lib.data.formats import read_feedback

    file = tmp_path / "scored.jsonl"
    rows = [("Four.", 0.9), ("I do not know.", 0.1), ("Perhaps four.", 0.5)]
    lines = [f'{{"prompt": "2 + 2?", "response": "{text}", "score": {s}}}' for text, s in rows]
    file.write_text("\n".join(lines), encoding="utf-8")
    (pair,) = read_feedback(file, score="score").records
    assert (pair.chosen, pair.rejected) == ("Four.", "I do not know.")
