"""Which of several responses is the better one, in every way that rows say it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dpo_lib.data.files import Row
from dpo_lib.data.formats.columns import (
    CONVERSATIONS,
    OF_PROMPTS,
    PROMPTS,
    RESPONSES,
    BadRow,
    describe_columns,
)
from dpo_lib.data.formats.conversations import decoded, read_if_text

_MANY = 8  # rows that would hardly all be decided the same way
_SAYS_WHICH = re.compile(
    r"label|prefer|winner|choice|better|vote|verdict|judg|select|pick", re.IGNORECASE
)
_LISTS = ("responses", "completions", "answers", "outputs", "output", "candidates", "generations")
_VERDICTS = {
    **dict.fromkeys(("true", "1", "1.0", "+1", "yes", "good", "up", "thumbs up", "thumb up"), True),
    **dict.fromkeys(("👍", "like", "liked", "positive", "desirable", "desired"), True),
    **dict.fromkeys(("false", "0", "0.0", "-1", "-1.0", "no", "bad", "down"), False),
    **dict.fromkeys(("thumbs down", "thumb down", "👎", "dislike", "disliked"), False),
    **dict.fromkeys(("negative", "undesirable", "undesired"), False),
}


def choose_pair(
    row: dict[str, Any],
    rename: Mapping[str, str],
    score: str | None,
    label: Label | None,
    notes: Counter[str],
) -> None:
    """Let ``chosen`` and ``rejected`` of a row be the better and the worse response it holds."""
    _take_shp(row, notes)
    _take_openai(row, notes)
    _take_label(row, rename, label, notes)
    if not _take_list(row, score, notes):
        _take_scores(row, score, notes)


def _turn_round(row: dict[str, Any]) -> None:
    """Let chosen and rejected change places, with what is known of each."""
    for first, second in (("chosen", "rejected"), ("chosen_ended", "rejected_ended")):
        if {first, second} & row.keys():
            row[first], row[second] = row.get(second), row.get(first)


def verdict(value: object) -> bool:
    """Whether a label of one response says that it is good."""
    found = _VERDICTS.get(re.sub(r"[\s_]+", " ", str(value)).strip().lower())
    if found is None:
        raise BadRow("malformed", f"label must be true or false, got {value!r:.60}")
    return found


def as_plain(value: object) -> str:
    """A value of a label, in one form: 1, 1.0, "1" and true are the same."""
    text = str(value).strip().lower()
    text = {"true": "1", "false": "0"}.get(text, text)
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


# --- columns that name the better one -------------------------------------------------------------


def _take_shp(row: dict[str, Any], notes: Counter[str]) -> None:
    """Two answers of a forum and which of them has more votes, as the SHP set has them."""
    names = ("human_ref_A", "human_ref_B", "labels")
    if "chosen" in row or "rejected" in row or not set(names) <= row.keys():
        return
    first, second, which = (row.pop(name) for name in names)
    if as_plain(which) not in ("0", "1"):
        raise BadRow("malformed", f"labels must be 1 (A is better) or 0, got {which!r:.60}")
    row["chosen"], row["rejected"] = (first, second) if as_plain(which) == "1" else (second, first)
    if "prompt" not in row and "history" in row:
        row["prompt"] = row.pop("history")
    notes["human_ref_A or human_ref_B taken as chosen, as labels says,"] += 1


def _take_openai(row: dict[str, Any], notes: Counter[str]) -> None:
    """A prompt in an object and two outputs, as OpenAI's preference fine-tuning has them."""
    better, worse = "preferred_output", "non_preferred_output"
    if "chosen" in row or "rejected" in row or not {better, worse} <= row.keys():
        return
    given = read_if_text(row.pop("input", None))
    if not isinstance(given, dict) or not given.get("messages"):
        raise BadRow("malformed", f"input must hold messages beside {better}, got {given!r:.60}")
    given = {name: value for name, value in given.items() if value not in (None, [])}
    if "prompt" in row:
        raise BadRow("malformed", "the prompt is in input, but there is a prompt too")
    if twice := sorted(given.keys() & row.keys()):
        raise BadRow("malformed", f"{twice[0]} is in input and beside it")
    row["prompt"] = given.pop("messages")
    row["chosen"], row["rejected"] = row.pop(better), row.pop(worse)
    row.update(given)  # tools, and what the request said of them
    notes["preferred_output taken as chosen, non_preferred_output as rejected,"] += 1


class Label:
    """A column that says which of two is better, by one of its two values."""

    def __init__(self, column: str, value: str) -> None:
        self.column, self.value = column, value
        self.seen: Counter[str] = Counter()

    def check(self) -> None:
        """Refuse what would turn pairs round that it says nothing of."""
        names = ", ".join(repr(value) for value, _ in self.seen.most_common(5))
        if len(self.seen) > 2:
            raise ValueError(
                f"{self.column} has {len(self.seen):,} values ({names}): which response is better "
                "can be read from two alone (--label)"
            )
        few = len(self.seen) == 1 and self.seen.total() < _MANY  # all may be the other one
        if as_plain(self.value) not in self.seen and not few:
            raise ValueError(
                f"{self.column} is never {self.value!r} (--label), it has the values {names}"
            )


def _take_label(
    row: dict[str, Any],
    rename: Mapping[str, str],
    label: Label | None,
    notes: Counter[str],
) -> None:
    """Turn a pair round if the column that says which is better says so."""
    if label is not None:
        name = label.column
        if name not in row:
            raise BadRow("malformed", f"there is no {name!r} (--label); {describe_columns(row)}")
        value = row.pop(name)
        plain = as_plain(value)
        if not plain or value is None or re.search(r"tie|both|draw|neither", plain, re.IGNORECASE):
            raise BadRow("malformed", f"{name} is {value!r:.60}: neither is better")
        label.seen[plain] += 1
        if plain != as_plain(label.value):
            _turn_round(row)
            notes[f"chosen and rejected turned round, as {name} is {plain!r:.20},"] += 1
        return
    if {"chosen", "rejected"} & {*rename.values()}:
        says = [name for name in row if _SAYS_WHICH.search(name) and row[name] is not None]
        if says:
            raise BadRow(
                "malformed",
                f"the column {says[0]!r} may say which response is better, and it is not used: "
                f"--label {says[0]}=VALUE names the value at which chosen, as mapped, is better",
            )


# --- scores ---------------------------------------------------------------------------------------


class Scored(dict):
    """A row whose pair was made by scores, of columns under our names."""


def pair_up(
    rows: Iterable[Row], rename: Mapping[str, str], score: str, notes: Counter[str]
) -> Iterator[Row]:
    """Rows of one response each, joined by their prompt: the best and the worst of each."""
    groups: dict[str, list[tuple[float, Row, dict[str, Any], str]]] = {}
    for row in rows:
        value = row.value
        columns = value if isinstance(value, dict) else {}
        columns = {rename.get(name, name): v for name, v in columns.items()}
        name = next((n for n in RESPONSES[:4] if isinstance(columns.get(n), str)), None)
        if name is None or "chosen" in columns or score not in columns:
            yield row
            continue
        try:
            number = _number(columns[score], score)
        except BadRow as error:
            yield row._replace(value=error)
            continue
        prompt = {n: columns.get(n) for n in (*OF_PROMPTS, *PROMPTS, *CONVERSATIONS)}
        key = json.dumps(prompt, default=str, sort_keys=True)
        groups.setdefault(key, []).append((number, row, columns, name))
    for group in groups.values():
        group.sort(key=lambda entry: entry[0] if "rank" in score.lower() else -entry[0])
        first, (best, row, columns, name) = min(e[1].line for e in group), group[0]
        worst, _, others, other = group[-1]
        row = row._replace(line=first)
        if len(group) == 1:
            yield row._replace(value=BadRow("malformed", "only one response to its prompt"))
        elif best == worst:
            yield row._replace(value=BadRow("identical", f"all {score} are equal ({best:g})"))
        else:
            notes[f"best response against worst by {score} (of several rows with one prompt)"] += 1
            kept = {n: v for n, v in columns.items() if n not in (name, score, "ended")}
            pair = {"chosen": columns[name], "rejected": others[other]}
            pair |= {"chosen_ended": columns.get("ended"), "rejected_ended": others.get("ended")}
            yield row._replace(value=Scored({**kept, **pair}))


def _take_list(row: dict[str, Any], score: str | None, notes: Counter[str]) -> bool:
    """The best and the worst of a list of responses; whether there is one."""
    if row.get("chosen") is not None or row.get("rejected") is not None:
        return False
    lists = {n: _as_list(row[n]) for n in _LISTS if n in row}
    name = next((n for n, value in lists.items() if value), None)
    if name is None:
        return False
    entries = lists[name]
    if score is None:
        raise BadRow(
            "malformed",
            f"{name} is a list of {len(entries)} responses whose order does not say which is "
            "best: --score COLUMN names their scores",
        )
    numbers = _as_list(row.get(score))
    if not numbers:
        numbers = [entry.get(score) if isinstance(entry, dict) else None for entry in entries]
    if len(numbers) != len(entries) or len(entries) < 2:
        raise BadRow("malformed", f"{len(entries)} responses in {name}, {len(numbers)} in {score}")
    values = [_number(number, score) for number in numbers]
    if "rank" in score.lower():
        values = [-value for value in values]
    best, worst = values.index(max(values)), values.index(min(values))
    if best == worst or values[best] == values[worst]:
        raise BadRow("identical", f"all {score} are equal ({numbers[0]})")
    row.pop(name)
    row.pop(score, None)
    for side, i in (("chosen", best), ("rejected", worst)):
        row[side] = _text_of(entries[i], name)
        if isinstance(entries[i], dict):
            row[f"{side}_ended"] = entries[i].get("ended")
    notes[f"best response against worst by {score} (of a list)"] += 1
    return True


def _take_scores(row: dict[str, Any], score: str | None, notes: Counter[str]) -> None:
    """Check, or turn round, a pair by its two scores."""
    if score is None or row.get("chosen") is None or row.get("rejected") is None:
        return
    if score not in row:
        raise BadRow("malformed", f"there is no {score!r} (--score); {describe_columns(row)}")
    other = score.replace("chosen", "\0").replace("rejected", "chosen").replace("\0", "rejected")
    if other == score or other not in row:
        raise BadRow(
            "malformed", f"{score} has no counterpart to compare with; {describe_columns(row)}"
        )
    mine, theirs = _number(row.pop(score), score), _number(row.pop(other), other)
    if "rejected" in score:
        mine, theirs = theirs, mine
    if "rank" in score.lower():
        mine, theirs = -mine, -theirs
    if mine == theirs:
        raise BadRow("identical", f"{score} and {other} are equal ({abs(mine):g})")
    if mine < theirs:
        _turn_round(row)
        notes[f"chosen and rejected turned round by {score} and {other}"] += 1


def _number(value: object, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if number != number:
        raise BadRow("malformed", f"{name} must be a number, got {value!r:.60}")
    return number


def _as_list(value: object) -> list[Any]:
    """A list, also one that is written as a string; otherwise nothing."""
    if isinstance(value, str) and value.strip().startswith("["):
        value = decoded(value)
    return list(value) if isinstance(value, list | tuple) else []


def _text_of(entry: object, name: str) -> object:
    """The text of one of several responses."""
    if isinstance(entry, dict) and not {"role", "from"} & entry.keys():
        found = [key for key in RESPONSES if isinstance(entry.get(key), str)]
        if not found:
            raise BadRow("malformed", f"{name}: there is no text in {entry!r:.80}")
        return entry[found[0]]
    return entry
