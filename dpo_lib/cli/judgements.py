"""Which pairs are asked and in which order, and the file in which every judgement is kept at once.

The journal, ``pairs.jsonl.judgements``, is only ever appended to: a line for what was asked for,
then one for every judgement and every undoing, each on the disk before it counts. What it yields,
the rows that ``train`` reads, is written anew after each of them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpo_lib._files import replacing, writing_alone
from dpo_lib.cli.answers import as_data_row
from dpo_lib.cli.drawn import Answer, Drawn, is_readable, pair_row
from dpo_lib.data.files import json_lines
from dpo_lib.evaluation import wilson_interval

CHOICES = ("first", "second", "tie", "skip")
APART = 10  # pairs between a pair and its repetition, where there are as many


class Pair(NamedTuple):
    """What is shown: two answers to a prompt, and whether it was shown before."""

    prompt: str
    first: Answer
    second: Answer
    repeats: int | None = None  # place of its first showing, which had the sides the other way


class Plan(NamedTuple):
    """All that is asked, in its order, and what is not."""

    pairs: list[Pair]
    notes: list[str]  # what of the file is not asked, a sentence each, without a full stop

    @property
    def repeats(self) -> int:
        """How many are asked for the second time."""
        return sum(pair.repeats is not None for pair in self.pairs)


def make_plan(drawn: Sequence[Drawn], per_prompt: int, repeats: float, seed: int) -> Plan:
    """Draw the pairs of each prompt's answers, their sides and their order.

    Parameters
    ----------
    drawn : sequence of Drawn
        Rows of one prompt are taken together.
    per_prompt : int
        Pairs of a prompt: drawn at random among all pairs of its answers that differ by more
        than the white space around them, and that ``train`` can read.
    repeats : float
        Share of the pairs that is asked a second time, later and with the sides swapped.
    seed : int

    Raises
    ------
    ValueError
        If no prompt has two such answers.
    """
    prompts: dict[str, tuple[str, list[Answer]]] = {}
    for prompt, answers in ((row.prompt, row.answers) for row in drawn):
        key = json.dumps(as_data_row(prompt))  # two prompts that differ can be the same text
        prompts.setdefault(key, (prompt, []))[1].extend(answers)
    pairs, empty, twice, without = [], 0, 0, 0
    for i, (prompt, answers) in enumerate(prompts.values()):
        full = [answer for answer in answers if answer.text.strip()]
        distinct: dict[str, Answer] = {}
        for answer in full:
            distinct.setdefault(answer.text.strip(), answer)
        empty += len(answers) - len(full)
        twice += len(full) - len(distinct)
        rng = random.Random(f"{seed}: pairs of prompt {i}")
        every = [*itertools.combinations(distinct.values(), 2)]
        rng.shuffle(every)
        readable = (pair for pair in every if is_readable(prompt, *pair))
        found = [*itertools.islice(readable, per_prompt)]
        pairs += [Pair(prompt, *rng.sample(pair, 2)) for pair in found]
        without += not found
    if not pairs:
        raise ValueError("no prompt has two answers that differ and are not empty")
    notes = [
        f"{count(number, thing)} not asked: {why}"
        for number, thing, why in (
            (empty, "empty answer", "train reads no empty answers"),
            (twice, "answer", "the same text stands there already"),
            (without, "prompt", "without two answers that differ and that train can read"),
        )
        if number
    ]
    return Plan(_with_repeats(pairs, repeats, random.Random(f"{seed}: order")), notes)


def count(number: int, thing: str) -> str:
    """``2 pairs``, ``1 pair``."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _with_repeats(pairs: list[Pair], share: float, rng: random.Random) -> list[Pair]:
    """The pairs in a random order, some of them again later on, with their sides swapped."""
    rng.shuffle(pairs)
    number = min(round(share * len(pairs)), len(pairs) - 1)
    apart = min(APART, len(pairs) - number)  # so that each of them can be as far behind
    after: dict[int, list[int]] = {}  # pairs that are repeated behind a pair
    for i in sorted(rng.sample(range(len(pairs) - apart), number)):
        after.setdefault(rng.randint(i + apart, min(i + 2 * apart, len(pairs) - 1)), []).append(i)
    shown: list[Pair] = []
    place = {}
    for i, pair in enumerate(pairs):
        place[i] = len(shown)
        shown.append(pair)
        for j in after.get(i, []):
            again = pairs[j]
            shown.append(Pair(again.prompt, again.second, again.first, place[j]))
    return shown


class Judgement(NamedTuple):
    """What was said of a pair."""

    place: int  # in the plan
    choice: str
    seconds: float


class OutOfStep(ValueError):
    """A judgement of something else than what is asked now: another window was faster."""


class Judgements:
    """What was judged so far and what comes next; the file of rows follows every change.

    Parameters
    ----------
    out : path
        The rows that ``train`` reads; the journal stands beside it.
    plan : list of Pair
    settings : mapping
        What the plan follows from; a journal that was begun with others is refused.

    Raises
    ------
    ValueError
        If another process has it open, the journal is damaged or belongs to something else, or
        there are rows in ``out`` that it does not yield.
    """

    def __init__(self, out: Path, plan: Sequence[Pair], settings: Mapping[str, Any]) -> None:
        self.out, self.plan = out, plan
        self.journal = out.with_name(f"{out.name}.judgements")
        self.judged: list[Judgement] = []
        self._lines: list[bytes] = []  # of the rows
        self._skipped: set[int] = set()  # their places
        self.events = 0  # judgements and undoings
        self.trouble = ""  # why the rows are behind the journal
        with contextlib.ExitStack() as held:
            held.enter_context(writing_alone(out, f"labeling {out}"))
            self._read(dict(settings))
            self._held = held.pop_all()  # until close()

    # --- the journal ---

    def _read(self, settings: dict[str, Any]) -> None:
        old = self.out.read_bytes().splitlines() if self.out.exists() else []
        data = self.journal.read_bytes() if self.journal.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self.torn = whole != data  # whether a line without its end is dropped: it had not counted
        lines = json_lines(whole)
        head = next(lines, None)
        if head is None and old:
            raise ValueError(f"{self.out} is there already, and label did not write it")
        if head is not None:
            self._check_settings(head[1], settings)
        known = not old  # whether the rows are what the journal yields, or did yield once
        for line, event in lines:
            try:
                self._take(event)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise ValueError(f"{self.journal}, line {line} is damaged ({error})") from error
            self.events += 1
            known = known or old == self._lines
        if not known:
            raise ValueError(
                f"{self.out} was changed since: move it away, and it is written anew from "
                f"{self.journal}"
            )
        self._file = self.journal.open("ab", buffering=0)
        if self.torn:
            self._file.truncate(len(whole))
        if head is None:
            self._append(settings)
            self._to_disk(self.journal.parent)
        if old != self._lines:
            self._export()

    def _check_settings(self, found: object, settings: dict[str, Any]) -> None:
        if not isinstance(found, dict):
            raise ValueError(f"{self.journal}, line 1 is damaged")
        for name, value in settings.items():
            if found.get(name) == value:
                continue
            if name == "sha256":
                raise ValueError(
                    f"{self.out} was begun with other drawn answers: give --out another name"
                )
            raise ValueError(
                f"{self.out} was begun with --{name.replace('_', '-')} {found.get(name)}, not "
                f"{value}: give the same, or --out another name"
            )

    def _take(self, event: object) -> None:
        """Replay a line of the journal."""
        if isinstance(event, Exception):
            raise event
        if event == {"undo": True}:
            self._pop()
            return
        place, pair = self.place, self.plan[self.place]
        same = (event["pair"], event["first"], event["second"])
        if same != (place, pair.first.text, pair.second.text):
            raise ValueError(f"pair {event['pair']} is not what is asked there")
        self._push(_judgement(place, event["choice"], event["seconds"]))

    def _push(self, one: Judgement) -> None:
        self.judged.append(one)
        if one.choice == "skip":
            self._skipped.add(one.place)
        if self._is_row(one):
            self._lines.append(json.dumps(self._row(one), ensure_ascii=False).encode())

    def _pop(self) -> None:
        one = self.judged.pop()
        self._skipped.discard(one.place)
        if self._is_row(one):
            self._lines.pop()

    def _append(self, event: Mapping[str, Any]) -> None:
        """Put a line on the disk, or leave the file as it was."""
        size = self._file.seek(0, os.SEEK_END)
        data = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(size)
            raise

    @staticmethod
    def _to_disk(folder: Path) -> None:
        """Let a new name in a folder outlast a loss of power."""
        if os.name == "posix":
            number = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)

    # --- judging ---

    @property
    def place(self) -> int:
        """Where the plan goes on; what was skipped is not asked again."""
        place = self.judged[-1].place + 1 if self.judged else 0
        while place < len(self.plan) and self.plan[place].repeats in self._skipped:
            place += 1
        return place

    @property
    def left(self) -> int:
        """How many are still to be asked."""
        return sum(pair.repeats not in self._skipped for pair in self.plan[self.place :])

    @property
    def rows(self) -> int:
        """How many rows there are for ``train``: ties, skips and repetitions are none."""
        return len(self._lines)

    def number(self, choice: str) -> int:
        """How many pairs have this judgement, repetitions left out."""
        return sum(one.choice == choice for one in self._first_time())

    def judge(self, event: int, choice: str, seconds: float) -> None:
        """Keep a judgement of the pair that is asked.

        Parameters
        ----------
        event : int
            Number of events when the pair was shown.
        choice : str
            One of `CHOICES`.
        seconds : float
            For how long the pair was looked at.

        Raises
        ------
        OutOfStep
            If something was judged, or undone, since.
        OSError
            If it cannot be kept; then nothing has changed.
        """
        one = _judgement(self.place, choice, seconds)
        if event != self.events or one.place >= len(self.plan):
            raise OutOfStep("this pair was judged in another window")
        pair = self.plan[one.place]
        self._append(
            {
                "pair": one.place,
                "repeat": pair.repeats is not None,
                "prompt": pair.prompt,
                "first": pair.first.text,
                "second": pair.second.text,
                "choice": choice,
                "seconds": seconds,
            }
        )
        self._push(one)
        self._count_and_export()

    def undo(self, event: int) -> None:
        """Take the last judgement back; see `judge` for the errors."""
        if event != self.events or not self.judged:
            raise OutOfStep("there is nothing to undo, or another window was faster")
        self._append({"undo": True})
        self._pop()
        self._count_and_export()

    def _count_and_export(self) -> None:
        self.events += 1
        self._export()

    def close(self) -> None:
        """Write what is still behind, and let others in."""
        if self.trouble:
            self._export()
        self._file.close()
        self._held.close()

    # --- what came of it ---

    def _first_time(self) -> Iterator[Judgement]:
        return (one for one in self.judged if self.plan[one.place].repeats is None)

    def _is_row(self, one: Judgement) -> bool:
        return one.choice in ("first", "second") and self.plan[one.place].repeats is None

    def _row(self, one: Judgement) -> dict[str, Any]:
        prompt, first, second, _ = self.plan[one.place]
        sides = (first, second) if one.choice == "first" else (second, first)
        return {**pair_row(prompt, *sides), "seconds": one.seconds}

    def _export(self) -> None:
        try:
            with replacing(self.out) as file:
                file.writelines(line + b"\n" for line in self._lines)
        except OSError as error:
            self.trouble = (
                f"{self.out} cannot be written ({error.strerror}); {self.journal} has all"
            )
        else:
            self.trouble = ""

    def median_seconds(self) -> float | None:
        """Half of the judgements took at most as long; None without one."""
        seconds = [one.seconds for one in self.judged if one.choice != "skip"]
        return statistics.median_low(seconds) if seconds else None

    def habits(self) -> list[str]:
        """How far one agrees with oneself, and what one leans to; a sentence each."""
        choices = {one.place: one.choice for one in self.judged}
        swapped = {"first": "second", "second": "first", "tie": "tie"}
        again = [
            swapped[choice] == choices[pair.repeats]
            for place, choice in choices.items()
            if choice != "skip" and (pair := self.plan[place]).repeats is not None
        ]
        first, longer = [], []
        for one in filter(self._is_row, self.judged):
            pair = self.plan[one.place]
            first.append(one.choice == "first")
            lengths = len(pair.first.text), len(pair.second.text)
            if lengths[0] != lengths[1]:
                longer.append(first[-1] == (lengths[0] > lengths[1]))
        return [
            f"{what} {_share(found)}."
            for what, found in (
                ("Asked again with the sides swapped, you said the same", again),
                ("You chose the first answer, on the left,", first),
                ("You chose the longer answer", longer),
            )
            if found
        ]


def _share(found: Sequence[bool]) -> str:
    low, high = wilson_interval(sum(found), len(found))
    return (
        f"{sum(found)} of {count(len(found), 'time')} ({sum(found) / len(found):.0%}; 95% "
        f"interval {low:.0%} to {high:.0%})"
    )


def _judgement(place: int, choice: object, seconds: object) -> Judgement:
    if choice not in CHOICES:
        raise ValueError(f"choice must be one of {', '.join(CHOICES)}, got {choice!r:.40}")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(f"seconds must be a number, got {seconds!r:.40}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be at least 0 and finite, got {seconds}")
    return Judgement(place, str(choice), seconds)
