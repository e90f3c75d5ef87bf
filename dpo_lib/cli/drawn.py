"""The file that ``draw`` writes: several answers to each prompt; and the pairs made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dpo_lib.cli.answers import as_data_row
from dpo_lib.data.files import Row, find_files, read_rows, reason
from dpo_lib.data.formats import BadRow, make_prompt, make_record


class Answer(NamedTuple):
    """One answer."""

    text: str
    ended: bool = True  # whether the model ended it itself; False: it was cut
    tokens: int | None = None  # how long it is, if that is known
    fields: Mapping[str, Any] = {}  # all that stands in the file of it

    @property
    def length(self) -> int:
        """Tokens or, where they are not known, characters."""
        return len(self.text) if self.tokens is None else self.tokens


class Drawn(NamedTuple):
    """A prompt with its answers, as they stand in the file."""

    prompt: str  # may be a `Conversation`
    answers: list[Answer]
    place: str = ""  # file and line
    fields: Mapping[str, Any] = {}  # all that stands in the row


def read_drawn(path: str | Path, encoding: str | None = None) -> list[Drawn]:
    """Read prompts with their answers: rows of ``prompt`` (in any form) and ``answers``.

    An answer is text, or an object with ``text`` and, if it was cut, ``"ended": false``.

    Raises
    ------
    ValueError
        If there is no such file, or no row in it, or a row is no prompt with answers: with its
        line.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder, not a file of drawn answers")
    (file,) = find_files(path)
    found = []
    for row in read_rows(file, encoding):
        try:
            found.append(_drawn(row.value)._replace(place=_place(row)))
        except ValueError as error:
            raise ValueError(f"{_place(row)}: {error}") from error
    if not found:
        raise ValueError(f"{path} holds no rows")
    return found


def _place(row: Row) -> str:
    return f"{row.file}, {row.unit} {row.line}"


def _drawn(value: object) -> Drawn:
    if isinstance(value, Exception):
        raise ValueError(reason(value))
    if not isinstance(value, dict):
        raise ValueError(f"a row must be an object, got {value!r:.60}")
    answers = value.get("answers")
    if not isinstance(answers, list):
        has = ", ".join(sorted(map(str, value))) or "nothing"
        what = f"got {answers!r:.60}" if "answers" in value else f"the row has {has}"
        raise ValueError(f"answers must be a list; {what}")
    prompt = make_prompt({name: v for name, v in value.items() if name != "answers"})
    found = [_answer(entry, i) for i, entry in enumerate(answers, start=1)]
    return Drawn(prompt, found, fields=value)


def _answer(entry: object, number: int) -> Answer:
    fields = {"text": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        raise ValueError(f"answer {number} must be text, got {entry!r:.60}")
    text, ended, tokens = fields["text"], fields.get("ended", True), fields.get("tokens")
    if not isinstance(ended, bool):
        raise ValueError(f"ended of answer {number} must be true or false, got {ended!r}")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool)):
        raise ValueError(f"tokens of answer {number} must be a number, got {tokens!r:.60}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"answer {number} holds half a character") from error
    return Answer(text, ended, tokens, fields)


def pair_row(prompt: str, chosen: Answer, rejected: Answer) -> dict[str, Any]:
    """A pair as ``train`` reads it; an answer that was cut is scored without an end token."""
    row = {**as_data_row(prompt), "chosen": chosen.text, "rejected": rejected.text}
    for side, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer.ended:
            row[f"{side}_ended"] = False
    return row


def is_readable(prompt: str, chosen: Answer, rejected: Answer) -> bool:
    """Whether ``train`` reads the row of this pair as it stands: not if one is empty, say."""
    try:
        record = make_record(pair_row(prompt, chosen, rejected))
    except BadRow:
        return False
    return (
        (record.prompt, record.chosen, record.rejected) == (prompt, chosen.text, rejected.text)
        and getattr(record.prompt, "messages", None) == getattr(prompt, "messages", None)
        and getattr(record.prompt, "tools", None) == getattr(prompt, "tools", None)
    )
