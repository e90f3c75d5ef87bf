"""One decoded row as a record, or the reason why it is none."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

from dpo_lib.data.formats.columns import (
    CONVERSATIONS,
    NOTHING,
    PROMPTS,
    RESPONSES,
    BadRow,
    describe_columns,
)
from dpo_lib.data.formats.conversations import (
    Conversation,
    Message,
    as_message,
    is_transcript,
    open_transcript,
    read_if_text,
    split_pair,
    text_or_messages,
)
from dpo_lib.data.formats.verdicts import Label, Scored, as_plain, choose_pair, verdict
from dpo_lib.data.records import PreferenceRecord, UnpairedRecord


def make_record(row: object, rename: Mapping[str, str] | None = None) -> PreferenceRecord:
    """Record of one decoded row, whichever form it has.

    Raises
    ------
    BadRow
        A ``ValueError`` with the kind of problem.
    """
    return pair_of(row, rename or {}, None, None, Counter())


def make_unpaired(row: object, rename: Mapping[str, str] | None = None) -> UnpairedRecord:
    """Record of one decoded row with a verdict, see `read_unpaired`."""
    return thumb_of(row, rename or {}, Counter())


def make_prompt(row: object) -> str:
    """Prompt of one decoded row, whichever form it has; its other columns are ignored."""
    notes: Counter[str] = Counter()
    row = _renamed(row if isinstance(row, dict) else {"prompt": row}, {})
    prompt = _take_prompt(row, {}, False, notes)
    if prompt is None and {"chosen", "rejected"} <= row.keys():
        return make_record(row).prompt  # it is inside the responses
    if prompt is None:
        raise BadRow("malformed", f"missing prompt; {describe_columns(row)}")
    if isinstance(prompt, str) and is_transcript(prompt):
        prompt = open_transcript(prompt, notes)
    prompt = _finish_prompt(prompt, row)
    _check_text("prompt", prompt)
    return prompt


def looks_unpaired(value: object, rename: Mapping[str, str]) -> bool:
    """Whether a row is a response with a ``label``, not a pair."""
    if not isinstance(value, dict):
        return False
    names = {rename.get(name, name) for name in value}
    one = {*RESPONSES[:4], *CONVERSATIONS} & names or isinstance(value.get("prompt"), list)
    return "label" in names and bool(one) and not {"chosen", "rejected"} & names


def pair_of(
    row: object,
    rename: Mapping[str, str],
    score: str | None,
    label: Label | None,
    notes: Counter[str],
) -> PreferenceRecord:
    """Pair of one row; ``label`` counts the values it sees, ``notes`` what was done."""
    if isinstance(row, Scored):
        row = dict(row)
    else:
        row = _renamed(row, rename)
        choose_pair(row, rename, score, label, notes)
    chosen, rejected = row.pop("chosen", None), row.pop("rejected", None)
    _check_present(chosen, rejected, row)
    chosen = text_or_messages(chosen, "chosen", notes)
    rejected = text_or_messages(rejected, "rejected", notes)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadRow("malformed", "one of chosen and rejected is text, the other messages")
    whole = not isinstance(chosen, str) and len(chosen) > 1
    prompt = _take_prompt(row, rename, whole, notes)
    prompt, chosen, rejected = split_pair(prompt, chosen, rejected, row, notes)
    texts = {"prompt": _finish_prompt(prompt, row), "chosen": chosen, "rejected": rejected}
    for name, text in texts.items():
        _check_text(name, text)
    if chosen == rejected:
        raise BadRow("identical", f"chosen and rejected must differ, both are {chosen!r:.60}")
    ended = {name: _ended(row, name) for name in ("chosen_ended", "rejected_ended")}
    return PreferenceRecord(**texts, extra=row, **ended)


def thumb_of(row: object, rename: Mapping[str, str], notes: Counter[str]) -> UnpairedRecord:
    """Response of one row with its verdict; ``notes`` counts what was done."""
    row = _renamed(row, rename)
    if {"chosen", "rejected"} <= row.keys():
        raise BadRow("malformed", "a pair is not a completion with a label")
    if row.get("label") is None:
        raise BadRow(
            "malformed", f"missing label; {describe_columns(row)}; --map THEIRS=label renames"
        )
    desired = verdict(row.pop("label"))
    name = next((n for n in RESPONSES[:4] if row.get(n) is not None), None)
    if name is None:  # the answer is the last of the messages
        name = next((n for n in (*CONVERSATIONS, "prompt") if row.get(n) is not None), None)
        whole = None if name is None else text_or_messages(row.pop(name), name, notes)
        if not isinstance(whole, list) or len(whole) < 2:
            raise BadRow("malformed", f"missing completion; {describe_columns([*row, 'label'])}")
        prompt, answer = whole[:-1], whole[-1:]
    else:
        answer = text_or_messages(row.pop(name), name, notes)
        prompt = _take_prompt(row, rename, False, notes)
        if prompt is None:
            raise BadRow("malformed", f"missing prompt; {describe_columns([*row, name, 'label'])}")
        if isinstance(prompt, str) and is_transcript(prompt):
            prompt = open_transcript(prompt, notes)
    if isinstance(answer, list):
        if isinstance(prompt, list) and answer[: len(prompt)] == prompt:
            answer = answer[len(prompt) :]
        if [message["role"] for message in answer] != ["assistant"]:
            raise BadRow("malformed", "the completion must be one answer of the assistant")
        answer = answer[0]["content"]
    prompt = _finish_prompt(prompt, row)
    _check_text("prompt", prompt)
    _check_text(name, answer)
    ended = _ended(row, "ended")
    return UnpairedRecord(prompt, answer, desired, row, ended)


def _renamed(row: object, rename: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise BadRow("malformed", f"a row must be an object with named values, got {row!r:.80}")
    row = {str(key): None if value != value else value for key, value in row.items()}  # NaN
    for old, new in rename.items():
        if old not in row:
            raise BadRow(
                "malformed", f"there is no {old!r} to use as {new}; {describe_columns(row)}"
            )
        if row.get(new) is not None and new not in rename:
            raise BadRow("malformed", f"{old!r} is to be used as {new}, but there is a {new} too")
    moved = {new: row[old] for old, new in rename.items()}
    return {**{key: value for key, value in row.items() if key not in rename}, **moved}


def _ended(row: dict[str, Any], name: str) -> bool:
    """Whether an answer was ended by who wrote it, and not cut; without a word of it, it was."""
    value = row.pop(name, None)
    found = {"1": True, "0": False, "none": True, "": True}.get(as_plain(value))
    if found is None:
        raise BadRow("malformed", f"{name} must be true or false, got {value!r:.60}")
    return found


def _check_present(chosen: object, rejected: object, rest: Mapping) -> None:
    missing = [n for n, v in (("chosen", chosen), ("rejected", rejected)) if v is None]
    if not missing:
        return
    given = [n for n, v in (("chosen", chosen), ("rejected", rejected)) if v is not None]
    completion = any(name in rest for name in RESPONSES[:2])
    if completion and "label" in rest:
        hint = "a completion with a label is not a pair"
    elif completion and not given:
        hint = f"{describe_columns(rest)}; a completion needs a label (--map THEIRS=label renames)"
    else:
        hint = f"{describe_columns([*given, *rest])}; --map THEIRS={missing[0]} renames"
    raise BadRow("malformed", f"missing {', '.join(missing)}; {hint}")


def _check_text(name: str, text: str) -> None:
    if all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text):
        raise BadRow("empty", f"{name} must not be empty, got {text!r:.60}")
    if "\0" in text:
        raise BadRow("malformed", f"{name} holds a NUL character (\\0): is the file damaged?")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow("malformed", f"{name} holds half a character: {error.reason}") from error


# --- prompts --------------------------------------------------------------------------------------


def _take_prompt(
    row: dict[str, Any], rename: Mapping[str, str], whole: bool, notes: Counter[str]
) -> str | list[Message] | None:
    """The prompt, from whichever columns it is in; None if it is inside the responses."""
    instruction = rename.get("instruction") == "prompt"
    prompt = row.pop("prompt", None)
    if prompt is None and row.get("instruction") is not None:
        prompt, instruction = row.pop("instruction"), True
    if prompt is None and not whole:
        for name in (*PROMPTS, *CONVERSATIONS):
            if row.get(name) not in (None, "", []):
                prompt = row.pop(name)
                notes[f"{name} used as the prompt"] += 1
                break
    if prompt is None:
        return None
    prompt = text_or_messages(prompt, "prompt", notes)
    if instruction and isinstance(prompt, str):
        more = row.pop("input", None)
        if isinstance(more, int | float) and not isinstance(more, bool):
            more = str(more)
        if more is not None and not isinstance(more, str):
            raise BadRow("malformed", f"input must be text, got {more!r:.60}")
        if more and more.strip().lower() not in NOTHING:
            prompt = f"{prompt}\n\n{more}" if prompt.strip() else more
            notes["input joined to the instruction, after a blank line,"] += 1
        elif more and more.strip():
            notes[f"input {more.strip()!r} taken as empty"] += 1
        before = _history(row.pop("history", None))
        if before:
            prompt = [*before, {"role": "user", "content": prompt}]
            notes["history put before the instruction, as turns,"] += 1
    return prompt


def _history(value: object) -> list[Message]:
    """Turns before an instruction: a list of questions with their answers."""
    value = read_if_text(value)
    if not value:
        return []
    if isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        return [as_message(turn, "history", Counter()) for turn in value]
    if not isinstance(value, list) or not all(
        isinstance(turn, list | tuple)
        and len(turn) == 2
        and all(isinstance(text, str) for text in turn)
        for turn in value
    ):
        raise BadRow(
            "malformed", f"history must be a list of [question, answer], got {value!r:.60}"
        )
    roles = ("user", "assistant")
    return [
        {"role": role, "content": text}
        for turn in value
        for role, text in zip(roles, turn, strict=True)
    ]


def _finish_prompt(prompt: str | list[Message], row: dict[str, Any]) -> str:
    """The prompt with its system text and tools, as a record holds it."""
    systems = [row.pop(name, None) for name in ("system", "system_prompt")]
    for system in systems:
        if system is not None and not isinstance(system, str):
            raise BadRow("malformed", f"system must be text, got {system!r:.80}")
    system = next((s for s in systems if s and s.strip()), None)
    tools = _tools(row.pop("tools", None))
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if messages[-1]["role"] != "user":
        raise BadRow("malformed", f"the prompt must end with the user, got {messages[-1]['role']}")
    if not messages[-1]["content"].strip():
        if len(messages) == 1:
            raise BadRow("empty", f"prompt must not be empty, got {messages[-1]['content']!r}")
        raise BadRow("empty", "the prompt's last message must not be empty")
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    elif system and messages[0]["content"] != system:
        raise BadRow("malformed", "system differs from the system message in the prompt")
    if len(messages) == 1 and not tools:
        return messages[0]["content"]
    return Conversation(messages, tools)


def _tools(value: object) -> list[dict[str, Any]]:
    value = read_if_text(value)
    if not value:
        return []
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        value = [read_if_text(tool) for tool in value]
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise BadRow("malformed", f"tools must be a list of objects, got {value!r:.80}")
    return value
