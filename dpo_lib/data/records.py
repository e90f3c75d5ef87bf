"""Preference records: on disk as JSON lines, in memory as text, in training as padded batches."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dpo_lib._files import replacing
from dpo_lib._validation import as_number, check_whole
from dpo_lib.data.files import json_lines
from dpo_lib.logprobs import pad_rows

Batch = dict[str, Tensor]


class Tokenizer(Protocol):
    """What data needs of a tokenizer; see ``dpo_lib.models.tokenizers`` for two of them."""

    pad_id: int
    eos_id: int

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, ready to be continued."""

    def encode_response(self, text: str) -> list[int]:
        """Ids of a response, ended by EOS."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, specials left out."""


def encode_answers(
    tokenizer: Tokenizer, prompt: str, answers: Sequence[str], ended: Sequence[bool] | None = None
) -> tuple[list[int], list[list[int]]]:
    """Ids of a prompt and of each answer to it; an answer that has not ``ended`` has no end token.

    A tokenizer whose answers depend on the prompt, as chat templates can make them, has a method
    ``encode_answers`` of its own.
    """
    ended = [True] * len(answers) if ended is None else ended
    own = getattr(tokenizer, "encode_answers", None)
    if own is not None:
        return own(prompt, answers, ended)
    rows = [tokenizer.encode_response(text) for text in answers]
    whole = [ids if end else ids[:-1] for ids, end in zip(rows, ended, strict=True)]
    return tokenizer.encode_prompt(prompt), whole


@dataclass(frozen=True)
class PreferenceRecord:
    """Two responses to one prompt, and which of them was preferred.

    Raises
    ------
    ValueError
        If a text is missing or blank, or the two responses are the same.
    """

    prompt: str
    chosen: str
    rejected: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)  # the row's other keys
    chosen_ended: bool = True  # False: the answer was cut, and is scored without an end token
    rejected_ended: bool = True

    def __post_init__(self) -> None:
        for name in ("prompt", "chosen", "rejected"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ValueError(f"{name} must be text, got {value!r}")
            if not value.strip():
                raise ValueError(f"{name} must not be empty, got {value!r}")
        if self.chosen == self.rejected:
            raise ValueError(f"chosen and rejected must differ, both are {self.chosen!r}")
        for name in ("chosen_ended", "rejected_ended"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")

    @classmethod
    def from_row(cls, row: object) -> PreferenceRecord:
        """Record of a decoded JSON object; keys beyond the three go to ``extra``."""
        if not isinstance(row, dict):
            raise ValueError(f"a row must be a JSON object, got {row!r}")
        missing = [name for name in ("prompt", "chosen", "rejected") if name not in row]
        if missing:
            raise ValueError(f"missing {', '.join(missing)}; the row has {sorted(map(str, row))}")
        row = dict(row)
        ended = {name: row.pop(name) for name in ("chosen_ended", "rejected_ended") if name in row}
        return cls(row.pop("prompt"), row.pop("chosen"), row.pop("rejected"), row, **ended)

    def to_row(self) -> dict[str, Any]:
        """The JSON object of this record."""
        own: dict[str, Any] = {
            name: getattr(self, name) for name in ("prompt", "chosen", "rejected")
        }
        for name in ("chosen_ended", "rejected_ended"):
            if not getattr(self, name):
                own[name] = False
        return {**own, **{k: v for k, v in self.extra.items() if k not in own}}


@dataclass(frozen=True)
class UnpairedRecord:
    """One response to a prompt, and whether it was liked (a thumb up or down).

    Raises
    ------
    ValueError
        If a text is missing or blank, or ``desired`` is neither True nor False.
    """

    prompt: str
    response: str
    desired: bool
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)  # the row's other keys
    ended: bool = True  # False: the response was cut, and is scored without an end token

    def __post_init__(self) -> None:
        for name in ("prompt", "response"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{name} must be text and not empty, got {value!r}")
        if not isinstance(self.desired, bool):
            raise ValueError(f"desired must be True or False, got {self.desired!r}")
        if not isinstance(self.ended, bool):
            raise ValueError(f"ended must be True or False, got {self.ended!r}")


def read_jsonl(path: str | Path) -> list[PreferenceRecord]:
    """Read preference records, one JSON object a line; blank lines are skipped.

    Raises
    ------
    ValueError
        Naming every bad line by number and reason. Nothing is silently dropped.
    """
    records, problems = [], []
    for number, row in json_lines(Path(path).read_bytes()):
        try:
            if isinstance(row, Exception):
                raise row
            records.append(PreferenceRecord.from_row(row))
        except (ValueError, RecursionError) as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise ValueError(
            f"{Path(path).name} has {len(problems)} bad lines:\n" + "\n".join(problems)
        )
    return records


def write_jsonl(path: str | Path, records: Iterable[PreferenceRecord]) -> None:
    """Write records so that the file is either the old one or the new one, never half of it.

    Raises
    ------
    ValueError
        If JSON cannot hold a record, with its number; the old file stays.
    """
    with replacing(Path(path)) as file:
        for number, record in enumerate(records, start=1):
            try:
                line = json.dumps(record.to_row(), ensure_ascii=False) + "\n"
                file.write(line.encode())
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"record {number} cannot be written: {error}") from error


def _check_each(values: object, name: str, kinds: tuple[type, ...]) -> list[Any]:
    with contextlib.suppress(TypeError):  # what cannot be gone through
        found = list(values)
        if all(isinstance(value, kinds) for value in found):
            return found
    wanted = " or ".join(kind.__name__ for kind in kinds)
    raise ValueError(f"{name} must be a sequence of {wanted}, got {values!r:.60}")


def _check_records(records: object) -> list[Any]:
    return _check_each(records, "records", (PreferenceRecord, UnpairedRecord))


def _check_rows(rows: object, number: int) -> list[EncodedRow]:
    found = _check_each(rows, "rows", (Mapping,))
    if len(found) != number:
        raise ValueError(f"rows must be one for each of {number} records, got {len(found)}")
    return found


def _check_indices(indices: object, number: int) -> list[int]:
    try:
        some = [check_whole(i, "each of indices", -number) for i in indices]
    except TypeError as error:
        raise ValueError(f"indices must be a sequence of numbers, got {indices!r:.60}") from error
    if not some or max(some) >= number:
        raise ValueError(f"indices must name at least one of {number} rows, got {some[:3]}")
    return some


EncodedRow = dict[str, Any]  # ids of a prompt and of responses, and what else is known of them


def encode_record(record: PreferenceRecord | UnpairedRecord, tokenizer: Tokenizer) -> EncodedRow:
    """Ids of a pair: ``prompt``, ``chosen`` and ``rejected``; of a thumb: ``response``.

    The row of a thumb also says whether it is ``desirable``.
    """
    if isinstance(record, UnpairedRecord):
        prompt, answers = encode_answers(
            tokenizer, record.prompt, (record.response,), (record.ended,)
        )
        return {"prompt": prompt, "response": answers[0], "desirable": record.desired}
    texts, ended = (record.chosen, record.rejected), (record.chosen_ended, record.rejected_ended)
    prompt, answers = encode_answers(tokenizer, record.prompt, texts, ended)
    return {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}


class PreferenceDataset(Dataset):
    """Tokenized preference records.

    Parameters
    ----------
    records : sequence of PreferenceRecord
    tokenizer : Tokenizer
        Its ``encode_response`` ends each response with EOS, so that the end is scored too; of a
        response that was cut, EOS is left out.
    rows : sequence of dict, optional
        The ids of each record, where they are known already.

    Notes
    -----
    ``dataset[i]`` is a dict of id lists. `batch` pads prompts on the left and responses on the
    right, so that every response starts in the same column.
    """

    unit = "pairs"  # what a row is, in words

    def __init__(
        self,
        records: Sequence[PreferenceRecord],
        tokenizer: Tokenizer,
        rows: Sequence[EncodedRow] | None = None,
    ) -> None:
        self.records, self.tokenizer = _check_records(records), tokenizer
        if not self.records:
            raise ValueError("records must hold at least one record, got none")
        if rows is not None:
            rows = _check_rows(rows, len(self.records))
        self.rows = (
            [encode_record(record, tokenizer) for record in self.records] if rows is None else rows
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> EncodedRow:
        return self.rows[index]

    def take(self, indices: Iterable[int]) -> PreferenceDataset:
        """The data set of these rows, in this order; nothing is encoded again."""
        some = _check_indices(indices, len(self))
        return type(self)(
            [self.records[i] for i in some], self.tokenizer, [self.rows[i] for i in some]
        )

    def split(
        self, held_out_share: float, seed: int = 0
    ) -> tuple[PreferenceDataset, PreferenceDataset]:
        """Split as `split_by_prompt` does; nothing is encoded again."""
        sides = split_indices(self.records, held_out_share, seed)
        return self.take(sides[0]), self.take(sides[1])

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """Pad rows into one batch; usable as ``collate_fn`` of a DataLoader."""
        return pad_rows(rows, self.tokenizer.pad_id)

    def batch(self, indices: Iterable[int] | None = None) -> Batch:
        """The rows at ``indices``, or all of them, as one batch."""
        chosen = range(len(self)) if indices is None else _check_indices(indices, len(self))
        return self.collate([self.rows[i] for i in chosen])

    def pairs_of_step(self, step: int, batch_size: int, seed: int) -> Tensor:
        """Which rows update number ``step`` of `train_dpo` takes: indices, shape (batch_size,).

        A function of its arguments alone, so that a resumed run goes on in the same order. Every
        row is used once before any is used again.
        """
        step, batch_size = check_whole(step, "step", 0), check_whole(batch_size, "batch_size", 1)
        if (step + 1) * batch_size >= 2**63:
            raise ValueError(f"step must be below 2**63 / batch_size, got {step}")
        places = torch.arange(step * batch_size, (step + 1) * batch_size)  # (B,)
        epochs = places // len(self)
        order = {epoch: self._order(epoch, seed) for epoch in epochs.unique().tolist()}
        return torch.stack(
            [
                order[epoch][place % len(self)]
                for epoch, place in zip(epochs.tolist(), places, strict=True)
            ]
        )

    def _order(self, epoch: int, seed: int) -> Tensor:
        digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        return torch.randperm(len(self), generator=generator)

    def batches(self, batch_size: int, steps: int, seed: int) -> Iterator[Batch]:
        """``steps`` batches, the records reshuffled whenever they run out.

        For a loop of one's own; its order is not that of `pairs_of_step`.
        """
        batch_size, steps = check_whole(batch_size, "batch_size", 1), check_whole(steps, "steps", 0)
        generator = torch.Generator().manual_seed(seed)
        waiting: list[int] = []
        for _ in range(steps):
            while len(waiting) < batch_size:
                waiting += torch.randperm(len(self), generator=generator).tolist()
            yield self.batch(waiting[:batch_size])
            waiting = waiting[batch_size:]


class UnpairedDataset(PreferenceDataset):
    """Tokenized thumbs: responses on their own, each liked or not (`UnpairedRecord`).

    Parameters
    ----------
    records : sequence of UnpairedRecord
    tokenizer, rows
        As in `PreferenceDataset`.

    Notes
    -----
    A row has ``prompt``, ``response``, ``desirable``, and ``mismatched``: the response of another
    row, drawn once, whose prompt is another one. KTO measures by it how far the policy has moved
    at all (see `unpaired_kto_loss`). It is a whole response where one drawn at random fits into
    the longest row of the set, else the beginning of the shortest one. Where all rows have one
    prompt there is no such response, and the rows go without.
    """

    unit = "thumbs"

    def __init__(
        self,
        records: Sequence[UnpairedRecord],
        tokenizer: Tokenizer,
        rows: Sequence[EncodedRow] | None = None,
    ) -> None:
        super().__init__(records, tokenizer, rows)
        if not all("mismatched" in row for row in self.rows):
            self.rows = _with_mismatched(self.rows)


_DRAWS = 32  # of a mismatched response, before the shortest one is taken


def _with_mismatched(rows: Sequence[EncodedRow]) -> list[EncodedRow]:
    """The rows, each with a response to another prompt, as `UnpairedDataset` says."""
    shortest: dict[tuple[int, ...], list[int]] = {}  # response to each prompt
    for row in sorted(rows, key=lambda row: len(row["response"])):
        shortest.setdefault(tuple(row["prompt"]), row["response"])
    if len(shortest) == 1:
        return list(rows)
    two = list(itertools.islice(shortest.items(), 2))
    longest = max(len(row["prompt"]) + len(row["response"]) for row in rows)
    draw, found = random.Random(0), []
    for row in rows:
        room = longest - len(row["prompt"])
        for _ in range(_DRAWS):
            other = rows[draw.randrange(len(rows))]
            if other["prompt"] != row["prompt"] and len(other["response"]) <= room:
                response = other["response"]
                break
        else:
            response = next(y for x, y in two if x != tuple(row["prompt"]))[:room]
        found.append({**row, "mismatched": response})
    return found


def normalize_prompt(prompt: str) -> str:
    """A prompt without what hardly makes it another one: case, white space, its last marks."""
    text = unicodedata.normalize("NFKC", prompt).casefold()
    return re.sub(r"\s+", " ", text).strip(" .,;:!?…\"'“”‘’")


def split_indices(
    records: Sequence[PreferenceRecord], held_out_share: float, seed: int = 0
) -> tuple[list[int], list[int]]:
    """The indices of `split_by_prompt`'s two sides."""
    records = _check_records(records)
    held_out_share = as_number(held_out_share, "held_out_share")
    if not 0 < held_out_share < 1:
        raise ValueError(f"held_out_share must lie in (0, 1), got {held_out_share}")
    keys = [normalize_prompt(record.prompt) for record in records]
    prompts: dict[str, str] = {}  # by key, the first in order: the split is that of the prompts
    for key, record in zip(keys, records, strict=True):
        prompts[key] = min(prompts.get(key, record.prompt), record.prompt)
    order = sorted(prompts, key=prompts.__getitem__)
    random.Random(check_whole(seed, "seed")).shuffle(order)
    held_out = set(order[: round(held_out_share * len(order))])
    if not 0 < len(held_out) < len(order):
        raise ValueError(
            f"held_out_share {held_out_share} of the {len(order)} prompts of records empties a side"
        )
    sides: tuple[list[int], list[int]] = ([], [])
    for i, key in enumerate(keys):
        sides[key in held_out].append(i)
    return sides


def split_by_prompt(
    records: Sequence[PreferenceRecord], held_out_share: float, seed: int = 0
) -> tuple[list[PreferenceRecord], list[PreferenceRecord]]:
    """Split into (train, held out) so that no prompt is in both.

    Prompts that differ in case, white space or their last marks alone count as one
    (`normalize_prompt`).

    Raises
    ------
    ValueError
        If the share is not inside (0, 1) or leaves one side without a prompt.
    """
    records = _check_records(records)
    train, held_out = split_indices(records, held_out_share, seed)
    return [records[i] for i in train], [records[i] for i in held_out]


# (prompt, short and right, long and right, short and bad, long and bad)
_TWELVE = [
    ("Capital of France?", "Paris.", "The capital of France is Paris.",
     "Look it up.", "It is nice to talk about France."),
    ("Capital of Japan?", "Tokyo.", "The capital of Japan is Tokyo.",
     "Who cares?", "Many people ask about Japan."),
    ("Capital of Kenya?", "Nairobi.", "The capital of Kenya is Nairobi.",
     "No idea.", "There is much to say about Kenya."),
    ("Capital of Peru?", "Lima.", "The capital of Peru is Lima.",
     "Cusco.", "It may well be Cusco, or not."),
    ("What is 2+2?", "4.", "The sum of 2 and 2 is 4.",
     "Look it up.", "It is nice to talk about sums."),
    ("What is 3+5?", "8.", "The sum of 3 and 5 is 8.",
     "Who cares?", "Many people ask about sums."),
    ("What is 4+3?", "7.", "The sum of 4 and 3 is 7.",
     "No idea.", "There is much to say about sums."),
    ("What is 1+5?", "6.", "The sum of 1 and 5 is 6.",
     "9.", "It may well be 9, or not."),
    ("List two colors.", "Red, blue.", "Two colors are red and blue.",
     "Look it up.", "It is nice to talk about colors."),
    ("List two animals.", "Cat, dog.", "Two animals are cat and dog.",
     "Who cares?", "Many people ask about animals."),
    ("List two fruits.", "Fig, plum.", "Two fruits are fig and plum.",
     "No idea.", "There is much to say about fruits."),
    ("List two metals.", "Iron, gold.", "Two metals are iron and gold.",
     "H2O.", "It may well be H2O, or not."),
]  # fmt: skip


def make_preferences(winners: Literal["shorter", "longer"] = "shorter") -> list[PreferenceRecord]:
    """Twelve preferences over capitals, arithmetic and lists.

    Parameters
    ----------
    winners : {"shorter", "longer"}
        In the first set the winner is short and precise and the loser wordy, off the topic or
        wrong. In the second the lengths are reversed. A model trained on one set alone may learn
        the length; on both it cannot.

    Returns
    -------
    list of PreferenceRecord
        In a fixed order, four of each family. The losers of a family's first three prompts evade
        the question, in the same ways in every family; that of the fourth is wrong.
    """
    if not isinstance(winners, str) or winners not in ("shorter", "longer"):
        raise ValueError(f"winners must be 'shorter' or 'longer', got {winners!r}")
    if winners == "shorter":
        return [PreferenceRecord(x, short, wordy) for x, short, _, _, wordy in _TWELVE]
    return [PreferenceRecord(x, full, curt) for x, _, full, curt, _ in _TWELVE]
