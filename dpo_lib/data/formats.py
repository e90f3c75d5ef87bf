"""Preference files as they are found: JSON lines, JSON or Parquet, plain text or messages.

Every row becomes a `PreferenceRecord` or a `Problem` with its place and reason; none is left out
in silence, and no text is changed or cut. Forms of a row:

- ``prompt``, ``chosen``, ``rejected`` as text (chapter 1's annotator writes this);
- messages, ``[{"role": "user", "content": "..."}, ...]``, in any of the three;
- no ``prompt``: then it is what ``chosen`` and ``rejected`` have in common at their beginning;
- a ``system`` text beside a prompt, which becomes the first message.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dpo_lib.data.records import PreferenceRecord, json_lines

Kind = Literal[
    "unreadable", "malformed", "empty", "identical", "too long", "unknown words"
]  # fmt: skip
Message = dict[str, str]
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "prompter": "user"}
_TURN = re.compile(r"\n\n(Human|Assistant): ?")  # how Anthropic's HH set writes a conversation


class Problem(NamedTuple):
    """A row that cannot be used, and why."""

    line: int  # of the file, counted from 1; in Parquet the row
    kind: Kind
    reason: str


class PreferenceFile(NamedTuple):
    """What a file holds: its records, where they stand, and its bad rows."""

    records: list[PreferenceRecord]
    lines: list[int]  # of each record
    problems: list[Problem]
    unit: str = "line"  # what is counted: "line" or "row"

    def describe_problems(self) -> str:
        """The number of bad rows of each kind, then all of them with their reasons."""
        kinds = Counter(problem.kind for problem in self.problems)
        counts = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        alike: dict[tuple[str, str], list[int]] = {}
        for line, kind, reason in sorted(self.problems):
            alike.setdefault((kind, reason), []).append(line)
        rows = [
            f"{self.unit}{'s' * (len(lines) > 1)} {_ranges(lines)}: {kind}: {reason}"
            for (kind, reason), lines in alike.items()
        ]
        bad, total = len(self.problems), len(self.records) + len(self.problems)
        return "\n".join([f"{bad} of {total} rows are bad ({counts})", *rows])


def _ranges(numbers: Sequence[int]) -> str:
    """``1-3, 7`` for 1, 2, 3, 7."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, ends)) for ends in ranges)


class Conversation(str):
    """A prompt of several messages. As text it is their transcript."""

    messages: tuple[Message, ...]

    def __new__(cls, messages: Sequence[Message]) -> Conversation:  # noqa: D102
        text = "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
        self = super().__new__(cls, text)
        self.messages = tuple({**message} for message in messages)
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.messages,)


class BadRow(ValueError):
    """A row that is no preference pair."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def read_preferences(path: str | Path, rename: Mapping[str, str] | None = None) -> PreferenceFile:
    """Read a file of preference pairs; what it is, is seen from its contents.

    Parameters
    ----------
    path : str or path
        JSON lines, a JSON list of objects, or Parquet.
    rename : mapping, optional
        The file's column names to ours: ``{"instruction": "prompt"}``.

    Returns
    -------
    PreferenceFile
        Bad rows are in ``problems``; raising is left to the caller.

    Raises
    ------
    ValueError
        If the file does not exist or holds no row.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with path.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    if parquet:
        rows = _parquet_rows(path)
    else:
        data = path.read_bytes()
        rows = _json_rows(data) if _is_one_document(data) else json_lines(data)
    records, lines, problems = [], [], []
    for line, row in rows:
        try:
            if isinstance(row, Exception):
                raise BadRow("unreadable", _reason(row))
            records.append(make_record(row, rename))
            lines.append(line)
        except BadRow as error:
            problems.append(Problem(line, error.kind, str(error)))
    if not records and not problems:
        raise ValueError(f"{path} holds no rows")
    return PreferenceFile(records, lines, problems, "row" if parquet else "line")


def make_record(row: object, rename: Mapping[str, str] | None = None) -> PreferenceRecord:
    """Record of one decoded row, whichever form it has.

    Raises
    ------
    BadRow
        A ``ValueError`` with the kind of problem.
    """
    if not isinstance(row, dict):
        raise BadRow("malformed", f"a row must be an object with named values, got {row!r:.80}")
    row = _renamed(row, rename or {})
    prompt, chosen, rejected = (row.pop(name, None) for name in ("prompt", "chosen", "rejected"))
    _check_present(prompt, chosen, rejected, row)
    system = row.pop("system", None)
    chosen, rejected = _text_or_messages(chosen, "chosen"), _text_or_messages(rejected, "rejected")
    if prompt is not None:
        prompt = _text_or_messages(prompt, "prompt")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadRow("malformed", "one of chosen and rejected is text, the other messages")
    split = _split_texts if isinstance(chosen, str) else _split_messages
    prompt, chosen, rejected = split(prompt, chosen, rejected)
    if system is not None and not isinstance(system, str):
        raise BadRow("malformed", f"system must be text, got {system!r:.80}")
    if system and system.strip():
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if messages and messages[0]["role"] != "system":
            prompt = [{"role": "system", "content": system}, *messages]
    texts = {"prompt": _as_prompt(prompt), "chosen": chosen, "rejected": rejected}
    for name, text in texts.items():
        if not text.strip():
            raise BadRow("empty", f"{name} must not be empty, got {text!r}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRow("malformed", f"{name} holds half a character: {error.reason}") from error
    if chosen == rejected:
        raise BadRow("identical", f"chosen and rejected must differ, both are {chosen!r:.60}")
    return PreferenceRecord(**texts, extra=row)


def _renamed(row: dict[str, Any], rename: Mapping[str, str]) -> dict[str, Any]:
    row = {str(key): value for key, value in row.items()}
    for old, new in rename.items():
        if old not in row:
            raise BadRow("malformed", f"there is no {old!r} to use as {new}; {_columns(row)}")
        if row.get(new) is not None and new not in rename:
            raise BadRow("malformed", f"{old!r} is to be used as {new}, but there is a {new} too")
    moved = {new: row[old] for old, new in rename.items()}
    return {**{key: value for key, value in row.items() if key not in rename}, **moved}


def _check_present(prompt: object, chosen: object, rejected: object, rest: Mapping) -> None:
    missing = [n for n, v in (("chosen", chosen), ("rejected", rejected)) if v is None]
    if not missing:
        return
    given = [n for n, v in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)) if v]
    if {"completion", "label"} <= rest.keys():
        hint = "a completion with a label is not a pair"
    else:
        hint = f"{_columns([*given, *rest])}; --map THEIRS={missing[0]} renames"
    raise BadRow("malformed", f"missing {', '.join(missing)}; {hint}")


def _columns(row: Mapping | Sequence) -> str:
    return f"the row has {', '.join(sorted(map(str, row))) or 'nothing'}"


def _text_or_messages(value: object, name: str) -> str | list[Message]:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list | tuple):
        raise BadRow("malformed", f"{name} must be text or messages, got {value!r:.80}")
    if not value:
        raise BadRow("empty", f"{name} must not be empty, got {value!r}")
    return [_message(entry, name) for entry in value]


def _message(entry: object, name: str) -> Message:
    """One message, of the form role/content or from/value."""
    if not isinstance(entry, dict):
        raise BadRow("malformed", f"{name}: a message must be an object, got {entry!r:.80}")
    role = entry.get("role", entry.get("from"))
    role = _ROLES.get(role, role)
    if role not in ("system", "user", "assistant"):
        raise BadRow("malformed", f"{name}: role must be system, user or assistant, got {role!r}")
    content = entry.get("content", entry.get("value"))
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        content = "".join(str(part.get("text") or "") for part in content)
    if not isinstance(content, str):
        raise BadRow("malformed", f"{name}: content must be text, got {content!r:.80}")
    calls = entry.get("tool_calls")
    if calls:
        raise BadRow("malformed", f"{name}: tool calls cannot be used, got {calls!r:.80}")
    return {"role": role, "content": content}


def _split_texts(
    prompt: str | list[Message] | None, chosen: str, rejected: str
) -> tuple[str | list[Message], str, str]:
    if prompt is not None:
        return prompt, chosen, rejected
    same = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
        min(len(chosen), len(rejected)),
    )
    turns = [turn for turn in _TURN.finditer(chosen) if turn.end() <= same]
    if turns and turns[0].start() == 0 and turns[-1][1] == "Assistant":
        cut = turns[-1].end()
        ends = [turn.start() for turn in turns[1:]]
        messages = [
            {"role": "user" if t[1] == "Human" else "assistant", "content": chosen[t.end() : end]}
            for t, end in zip(turns, ends, strict=False)
        ]
        return messages, chosen[cut:].strip(), rejected[cut:].strip()
    # Back to the last space: half a word that both begin with belongs to the responses.
    cut = max(chosen.rfind(white, 0, same) for white in " \n\t") + 1
    if not chosen[:cut].strip():
        raise BadRow("malformed", "no prompt, and chosen and rejected have no common beginning")
    prompt = chosen[:cut].rstrip(" ")  # a space before a word is part of the word's token
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _split_messages(
    prompt: str | list[Message] | None, chosen: list[Message], rejected: list[Message]
) -> tuple[str | list[Message], str, str]:
    """Prompt as given or as what both conversations begin with; one answer behind it."""
    if isinstance(prompt, list):
        before = len(prompt) if chosen[: len(prompt)] == prompt == rejected[: len(prompt)] else 0
    else:
        pairs = zip(chosen, rejected, strict=False)
        before = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if before is None:  # one begins with the whole other, or both are the same
            before = min(len(chosen), len(rejected)) - 1
        if before and isinstance(prompt, str) and chosen[before - 1]["content"] != prompt:
            raise BadRow("malformed", "prompt is not the last message before the answers")
        if before:
            prompt = chosen[:before]
        elif prompt is None:
            raise BadRow("malformed", "no prompt, and chosen and rejected share no first message")
    for name, rest in (("chosen", chosen[before:]), ("rejected", rejected[before:])):
        roles = [message["role"] for message in rest]
        if roles != ["assistant"]:
            raise BadRow("malformed", f"{name} must be one answer of the assistant, got {roles}")
    return prompt, chosen[-1]["content"], rejected[-1]["content"]


def _as_prompt(prompt: str | list[Message]) -> str:
    if isinstance(prompt, str):
        return prompt
    if prompt[-1]["role"] != "user":
        raise BadRow("malformed", f"the prompt must end with the user, got {prompt[-1]['role']}")
    if not prompt[-1]["content"].strip():
        raise BadRow("empty", "the prompt's last message must not be empty")
    return prompt[0]["content"] if len(prompt) == 1 else Conversation(prompt)


# --- rows of a file ------------------------------------------------------------------------------


def _is_one_document(data: bytes) -> bool:
    """Whether this is one JSON value: a list, or an object over several lines."""
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"[":
        return True
    if start[:1] != b"{":
        return False
    try:
        json.loads(start.split(b"\n", 1)[0])
        return False  # a line that stands for itself
    except ValueError:
        return re.match(rb'\{\s*"\w+"\s*:\s*\[', start) is not None


def _json_rows(data: bytes) -> Iterator[tuple[int, object]]:
    """Rows of a JSON list, each with the line on which it begins; an error where one ends it."""
    try:
        text = data.decode("utf-8-sig")
    except ValueError as error:
        yield data[: getattr(error, "start", 0)].count(b"\n") + 1, error
        return
    opening = re.match(r'\s*(\{\s*"\w+"\s*:\s*)?\[', text)
    if not opening:
        yield 1, ValueError("a JSON file must hold a list of objects")
        return
    decoder, place, line, seen = json.JSONDecoder(), opening.end(), 1, 0
    skip = re.compile(r"[\s,]*")
    while True:
        place = skip.match(text, place).end()
        line, seen = line + text.count("\n", seen, place), place
        if text[place : place + 1] == "]":
            return
        try:
            row, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            yield line, ValueError(f"{_reason(error)}; nothing behind it was read")
            return
        yield line, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, object]]:
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}") from error
    yield from enumerate(rows, start=1)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    return str(error)
