"""What tests of appendix F's experiments share."""

import subprocess

import pytest

from dpo_lib.cli import main
from dpo_lib.experiments import by_commands


@pytest.fixture
def tiny_commands(monkeypatch):
    """Commands run at once, in this process and with the book's own model; a list of them."""
    said = []

    def say(command, check, stdin):
        words = ["tiny" if word == "smollm2" else word for word in command[3:]]
        said.append(words)
        assert main(words) == 0

    monkeypatch.setattr(subprocess, "run", say)
    monkeypatch.setattr(by_commands, "DRAWS", 4)
    monkeypatch.setattr(by_commands, "LONGEST", 12)
    return said
