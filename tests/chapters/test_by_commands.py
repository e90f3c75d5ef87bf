"""What appendix F's experiments share: prompts, sentences, commands that are not said twice."""

import json
import subprocess

import pytest

from dpo_lib.data import read_jsonl
from dpo_lib.experiments import by_commands
from dpo_lib.experiments.by_commands import (
    Work,
    flip,
    sentences,
    split_prompts,
    work_from_arguments,
)


def test_the_questions_are_those_of_the_data_asked_in_another_way():
    found = split_prompts(" How?")
    questions = {
        row.prompt.removesuffix(by_commands.IN_TWO) for row in read_jsonl(by_commands.DATA)
    }
    asked = [prompt.removesuffix(" How?") for prompts in found.values() for prompt in prompts]
    assert {*asked} < questions
    assert len({*asked}) == len(asked) == 120 + 24 + 60


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("A cat. It purrs!", ["A cat.", "It purrs!"]),
        (' It is "a cat." "A cat" purrs. ', ['It is "a cat."', '"A cat" purrs.']),
        ("It is 3.5 m, e.g. a car.", ["It is 3.5 m, e.g. a car."]),
        ("A cat. It purrs", []),
        ("", []),
    ],
)
def test_sentences(answer, found):
    assert sentences(answer) == found


def test_flipped_labels_take_their_ends_along(tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    row = {"prompt": "a?", "chosen": "A.", "rejected": "B", "rejected_ended": False}
    pairs.write_text(json.dumps(row) + "\n")
    (turned,) = map(json.loads, flip(pairs).read_text().splitlines())
    assert turned == {"prompt": "a?", "rejected": "A.", "chosen": "B", "chosen_ended": False}


def test_a_command_is_not_said_again(tmp_path, monkeypatch):
    said = []

    def say(command, check, stdin):
        said.append(command)
        if len(said) > 1:
            (tmp_path / "made").touch()
        else:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", say)
    work = Work(tmp_path, {})
    with pytest.raises(subprocess.CalledProcessError):
        work.command(tmp_path / "made", "draw")
    for _ in range(2):
        work.command(tmp_path / "made", "draw", "--seed", 1)
    assert [command[1:] for command in said] == [
        ["-m", "dpo_lib", "draw"],
        ["-m", "dpo_lib", "draw", "--seed", "1"],
    ]
    assert work.seconds().keys() == {"made"}


def test_a_folder_is_named_or_has_the_name_of_the_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["script", "--threads", "2"])
    work = work_from_arguments("What it does.", "a", {"train": ["b?", "c?"]})
    assert (work.folder, work.threads) == (tmp_path / "runs" / "a", 2)
    assert (work.folder / "train.txt").read_text() == "b?\nc?\n"
    monkeypatch.setattr("sys.argv", ["script", "other"])
    assert work_from_arguments("What it does.", "a", {}).folder == tmp_path / "other"
