"""Messages and transcripts: prompts of several turns, and the answers behind them."""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_lib.data.formats.columns import CONVERSATIONS, NOTHING, BadRow, describe_columns

Message = dict[str, str]
_ROLES = {
    "human": "user",
    "prompter": "user",
    "h": "user",
    "a": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
}
_TITLES = ("Human", "User", "Assistant", "AI", "Bot", "System")
_LOWER, _UPPER = ([change(name) for name in _TITLES] for change in (str.lower, str.upper))
# A mark before a turn: the same signs and letters mark all turns of a transcript.
_FIRST_MARK = re.compile(
    rf"\s*(#{{2,3}} ?|\*\*|<(?=[^:\n]*>))?({'|'.join((*_TITLES, *_LOWER, *_UPPER))}|H|A)"
    r"([ \t]*:\*\*|\*\*[ \t]*:|>?[ \t]*:)[ \t]*"
)
_USERS, _ASSISTANTS = ("human", "user", "h"), ("assistant", "ai", "bot", "a")
_OBJECTS = re.compile(r"\s*(?:array\()?\[?\s*(?:\{|\w*Message\()")  # messages, or any JSON
_LIKE_MESSAGES = re.compile(  # of what cannot be decoded
    r"""\s*(?:array\()?\[?\s*(?:\{[^{}]*?['"](?:role|from)['"]\s*:\s*['"]|\w*Message\()"""
    r"""|\s*\[\s*\{\s*['"](?:content|value)['"]\s*:"""
)
_LENIENT = json.JSONDecoder(strict=False)  # lines may break inside strings


class Conversation(str):
    """A prompt of several messages, or with tools. As text it is their transcript."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]

    def __new__(  # noqa: D102
        cls, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
    ) -> Conversation:
        parts = [f"{message['role']}: {message['content']}" for message in messages]
        if tools:
            written = json.dumps(list(tools), ensure_ascii=False, default=str)
            parts.insert(0, f"tools: {written}")
            tools = json.loads(written)  # Parquet may hold dates, which no file of ours could
        self = super().__new__(cls, "\n\n".join(parts))
        self.messages = tuple({**message} for message in messages)
        self.tools = tuple(tools)
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.messages, self.tools


def with_system(prompt: str, system: str) -> str:
    """The prompt with a system text as its first message, unless it has one."""
    messages = getattr(prompt, "messages", ({"role": "user", "content": str(prompt)},))
    if messages[0]["role"] == "system":
        return prompt
    first = {"role": "system", "content": system}
    return Conversation([first, *messages], getattr(prompt, "tools", ()))


def split_pair(
    prompt: str | list[Message] | None,
    chosen: str | list[Message],
    rejected: str | list[Message],
    row: Mapping[str, Any],
    notes: Counter[str],
) -> tuple[str | list[Message], str, str]:
    """Prompt and two answers of a pair, whether they are apart or the prompt is inside both.

    ``chosen`` and ``rejected`` are both text, or both messages.

    Raises
    ------
    BadRow
        If they are not one prompt with one answer each.
    """
    if isinstance(chosen, str):
        return _split_texts(prompt, chosen, rejected, row, notes)
    return _split_messages(prompt, chosen, rejected, notes)


# --- messages -------------------------------------------------------------------------------------


def decoded(text: str) -> object:
    """The value that a string of JSON, or of Python, writes down; None if it is neither."""
    text = re.sub(r"\A\s*array\((.*?)(?:,\s*dtype=\w+)?\)\s*\Z", r"\1", text, flags=re.DOTALL)
    joined = re.sub(r"\}\s*\n\s*\{", "}, {", text)  # NumPy writes no commas
    for source in (text, joined if joined.lstrip().startswith("[") else f"[{joined}]"):
        for read in (_LENIENT.decode, ast.literal_eval):
            try:
                return read(source.strip())
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
    return None


def read_if_text(value: object) -> object:
    """What a string holds, or the string itself if it cannot be read; nothing of an empty one."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() in NOTHING:
        return None
    found = decoded(value)
    return value if found is None else found


def text_or_messages(value: object, name: str, notes: Counter[str]) -> str | list[Message]:
    """What a column holds: plain text, or messages in any of their forms."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise BadRow("malformed", f"{name} is not UTF-8") from error
    if isinstance(value, str):
        found = decoded(value) if value.lstrip()[:1] == '"' else value
        found = found if isinstance(found, str) else value  # it only begins with a quotation
        inside = decoded(found) if isinstance(found, str) and _OBJECTS.match(found) else found
        if _holds_messages(inside) or (inside is None and _LIKE_MESSAGES.match(found)):
            value = inside
            if not isinstance(value, list | dict):
                raise BadRow(
                    "malformed", f"{name} looks like messages, but cannot be read: {found!r:.60}"
                )
            notes[f"{name}: messages written as a string"] += 1
        else:
            return value
    if isinstance(value, dict):
        inside = [value[key] for key in CONVERSATIONS if isinstance(value.get(key), list)]
        value = inside[0] if inside else [value]
    if not isinstance(value, list | tuple):
        raise BadRow("malformed", f"{name} must be text or messages, got {value!r:.80}")
    if not value:
        raise BadRow("empty", f"{name} must not be empty, got {value!r}")
    return [as_message(entry, name, notes) for entry in value]


def _holds_messages(value: object) -> bool:
    """Whether a decoded value is one message, a list of them, or an object around such a list."""
    if isinstance(value, dict) and (inside := [value[k] for k in CONVERSATIONS if k in value]):
        value = inside[0]
    entries = value if isinstance(value, list) else [value]
    names = ({"role", "content"}, {"from", "value"})
    return bool(entries) and all(
        isinstance(entry, dict) and any(pair <= entry.keys() for pair in names) for entry in entries
    )


def as_message(entry: object, name: str, notes: Counter[str]) -> Message:
    """One message, of the form role/content or from/value."""
    if not isinstance(entry, dict):
        raise BadRow("malformed", f"{name}: a message must be an object, got {entry!r:.80}")
    role = entry.get("role", entry.get("from"))
    if isinstance(role, str):
        role = _ROLES.get(role.strip().lower(), role.strip().lower())
    if role not in ("system", "user", "assistant"):
        raise BadRow("malformed", f"{name}: role must be system, user or assistant, got {role!r}")
    content = entry.get("content", entry.get("value"))
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        content = "".join(str(part.get("text") or "") for part in content)
    if not isinstance(content, str):
        raise BadRow("malformed", f"{name}: content must be text, got {content!r:.80}")
    for key, value in entry.items():
        if key in ("role", "from", "content", "value") or value in (None, "", [], {}):
            continue
        if key in ("tool_calls", "function_call"):
            raise BadRow("malformed", f"{name}: tool calls cannot be used, got {value!r:.80}")
        if key in ("tools", "functions"):
            raise BadRow("malformed", f"{name}: {key} of a message must be a column of the row")
        if "reason" in str(key) or "think" in str(key):
            raise BadRow(
                "malformed",
                f"{name}: {key} cannot be used: write it into content, as the model does",
            )
        notes[f"{name}: {key} of the messages not used"] += 1
    return {"role": role, "content": content}


def _split_messages(
    prompt: str | list[Message] | None,
    chosen: list[Message],
    rejected: list[Message],
    notes: Counter[str],
) -> tuple[str | list[Message], str, str]:
    """Prompt as given or as what both conversations begin with; one answer behind it."""
    if isinstance(prompt, str) and is_transcript(prompt):
        prompt = open_transcript(prompt, notes)
    if isinstance(prompt, list):
        before = len(prompt) if chosen[: len(prompt)] == prompt == rejected[: len(prompt)] else 0
    else:
        pairs = zip(chosen, rejected, strict=False)
        before = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if before is None:  # one begins with the whole other, or both are the same
            before = min(len(chosen), len(rejected)) - 1
        if (
            before
            and isinstance(prompt, str)
            and chosen[before - 1]["content"].strip() != (prompt.strip())
        ):
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


# --- texts and transcripts ------------------------------------------------------------------------


def _split_texts(
    prompt: str | list[Message] | None,
    chosen: str,
    rejected: str,
    row: Mapping[str, Any],
    notes: Counter[str],
) -> tuple[str | list[Message], str, str]:
    marked = [_begins_with_user(text) for text in (chosen, rejected)]
    if all(marked) and (
        prompt is None or isinstance(prompt, list) or any(map(_has_answer, (chosen, rejected)))
    ):
        return _split_transcripts(prompt, chosen, rejected, notes)
    if prompt is None and any(marked):
        raise BadRow("malformed", "one of chosen and rejected is a transcript, the other is not")
    if isinstance(prompt, str) and is_transcript(prompt):
        head = _FIRST_MARK.match(prompt)
        prompt = open_transcript(prompt, notes)
        return prompt, _answer("chosen", chosen, head), _answer("rejected", rejected, head)
    if prompt is not None:
        return prompt, chosen, rejected
    other = [n for n, v in row.items() if isinstance(v, str) and " " in v.strip()]
    other = [name for name in other if name not in ("system", "system_prompt", "tools")]
    if other:
        raise BadRow(
            "malformed",
            f"missing prompt; {describe_columns(row)} beside the pair; "
            f"--map {other[0]}=prompt renames",
        )
    same = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
        min(len(chosen), len(rejected)),
    )
    # Back to the last space: half a word that both begin with belongs to the responses.
    cut = max(chosen.rfind(white, 0, same) for white in " \n\t") + 1
    if not chosen[:cut].strip():
        raise BadRow("malformed", "no prompt, and chosen and rejected have no common beginning")
    prompt = chosen[:cut].rstrip(" ")  # a space before a word is part of the word's token
    notes["what chosen and rejected begin with taken as the prompt"] += 1
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _begins_with_user(text: str) -> bool:
    mark = _FIRST_MARK.match(text)
    return mark is not None and mark[2].lower() in (*_USERS, "system")


def _marks(text: str, apart: bool) -> list[re.Match[str]]:
    """The marks of a transcript's turns, written as its first one is; the name is group 1."""
    first = _FIRST_MARK.match(text)
    if first is None:
        return []
    ways = (_TITLES, _LOWER, _UPPER, ("H", "A"))
    names = next(names for names in ways if first[2] in names)
    start = re.escape(first[1]) if first[1] in ("**", "<") else "(?:#{2,3} ?)?"
    end = r"[ \t]*".join(re.escape(sign) for sign in first[3].split())
    between = r"\n[ \t]*\n\s*" if apart else r"\n\s*"
    mark = rf"(?:\A\s*|{between}){start}({'|'.join(names)})[ \t]*{end}[ \t]*"
    return [*re.finditer(mark, text)]


def _has_answer(text: str) -> bool:
    return any(mark[1].lower() in _ASSISTANTS for mark in _marks(_lines(text), False))


def is_transcript(text: str) -> bool:
    """Whether a prompt is written as turns: the user's, or several that name the assistant."""
    mark = _FIRST_MARK.match(text)
    alone = mark is not None and (
        mark[2].lower() == "human" or (mark[2].lower() == "user" and "\n" in mark[0])
    )
    return alone or (_begins_with_user(text) and _has_answer(text))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _own(text: str) -> str:
    """A turn's text without the blank lines around it; what its first line begins with stays."""
    return re.sub(r"\A(?:[ \t]*\n)+", "", text).rstrip()


def _turns(text: str) -> list[Message]:
    """The turns of a transcript, without white space around them."""
    text = _lines(text)
    found: list[list[Message]] = []
    for apart in (True, False):  # a turn may hold "\nHuman:" where turns stand apart
        marks = _marks(text, apart)
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        turns = [
            {
                "role": _ROLES.get(mark[1].lower(), mark[1].lower()),
                "content": _own(text[mark.end() : end]),
            }
            for mark, end in zip(marks, ends, strict=True)
        ]
        roles = [turn["role"] for turn in turns if turn["role"] != "system"]
        if len(roles) > 1 and all(a != b for a, b in itertools.pairwise(roles)):
            return turns
        found.append(turns)
    return found[0] if len(found[0]) > 1 else found[1]


def open_transcript(prompt: str, notes: Counter[str]) -> list[Message]:
    """The turns of a prompt; the empty one of the assistant at its end is the answer's place."""
    turns = _turns(prompt)
    if turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns = turns[:-1]
    notes["a transcript read as turns"] += 1
    return turns


def _split_transcripts(
    prompt: str | list[Message] | None, chosen: str, rejected: str, notes: Counter[str]
) -> tuple[list[Message], str, str]:
    turns = {"chosen": _turns(chosen), "rejected": _turns(rejected)}
    common = 0
    for a, b in zip(*turns.values(), strict=False):
        if a != b:
            break
        common += 1
    shorter = min(map(len, turns.values()))
    for name, found in turns.items():
        if found[-1]["role"] != "assistant":
            raise BadRow("malformed", f"{name} must end with the assistant's answer")
        if len(found) > shorter or common < len(found) - 1:
            raise BadRow(
                "malformed",
                f"{name} holds further turns behind turn {common}, where the two differ; "
                "one answer each can be compared",
            )
        if not found[-1]["content"]:
            raise BadRow("empty", f"{name} must not be empty: the transcript's last answer is")
    before = turns["chosen"][:-1]
    given = prompt
    if isinstance(prompt, str):
        given = open_transcript(prompt, Counter()) if is_transcript(prompt) else None
        if given is None and before[-1]["content"] != prompt.strip():
            raise BadRow("malformed", "prompt is not the last turn before the answers")
    if isinstance(given, list) and [m["content"].strip() for m in given] != [
        m["content"] for m in before
    ]:
        raise BadRow("malformed", "prompt is not what stands before the answers")
    notes["a transcript read as turns"] += 1
    return before, turns["chosen"][-1]["content"], turns["rejected"][-1]["content"]


def _answer(name: str, text: str, head: re.Match[str]) -> str:
    """The one answer to a transcript, without white space around it and its mark."""
    text = _lines(text)
    mark = _FIRST_MARK.match(text)
    if mark and mark[2].lower() in _ASSISTANTS and (mark[2] != "A" or head[2] == "H"):
        text = text[mark.end() :]
    text = _own(re.sub(r"\A (?! )", "", text))  # the space behind the mark, not an indentation
    if len(_marks(f"{head[0]}x\n{text}", True)) > 1:
        raise BadRow("malformed", f"{name} holds further turns; one answer each can be compared")
    return text
