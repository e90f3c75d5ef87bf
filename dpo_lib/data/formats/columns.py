"""Names that columns have, and the error of a row that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Kind = Literal[
    "unreadable", "malformed", "empty", "identical", "too long", "unknown words", "template"
]  # fmt: skip
# Of one response: a column has one of the first four, an entry of a list any of them.
RESPONSES = ("response", "completion", "answer", "output", "text", "content", "message", "value")
PROMPTS = ("question", "query", "input")
OF_PROMPTS = ("system", "system_prompt", "prompt", "instruction", "history", "tools")
CONVERSATIONS = ("conversations", "conversation", "messages")
NOTHING = ("", "nan", "none", "null", "n/a", "<noinput>")  # how an empty cell is written


class BadRow(ValueError):
    """A row that is no preference pair."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def describe_columns(row: Iterable[object]) -> str:
    """The names of a row's columns, as a sentence has them."""
    return f"the row has {', '.join(sorted(map(str, row))) or 'nothing'}"
