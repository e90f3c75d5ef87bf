"""From the user's files to token ids of pairs or thumbs: what is bad, what was done to them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from dpo_lib.cli.models import DEFAULT_LENGTH, OpenModel, open_model
from dpo_lib.cli.progress import Progress
from dpo_lib.data import PreferenceDataset, PreferenceRecord, UnpairedDataset, UnpairedRecord
from dpo_lib.data.audit import about_weights, audit_pairs, audit_thumbs
from dpo_lib.data.files import digest_files
from dpo_lib.data.formats import BadRow, PreferenceFile, Problem, read_feedback, with_system
from dpo_lib.data.records import encode_record
from dpo_lib.logprobs import responses_of

Record = PreferenceRecord | UnpairedRecord


@dataclass(frozen=True)
class DataSettings:
    """Which pairs are read, and how they become text and tokens; as typed."""

    data: tuple[str, ...]  # files or folders
    map: tuple[tuple[str, str], ...] = ()  # columns under other names: theirs, ours
    encoding: str | None = None  # of text files
    score: str | None = None  # column of scores: the best against the worst
    label: tuple[str, str] | None = None  # column, and its value where chosen is better
    system: str | None = None  # system text of prompts that have none
    skip_bad: bool = False  # leave bad rows out instead of stopping
    max_length: int | None = None  # tokens of a prompt with a response
    plain: bool = False  # no chat template
    control_tokens: bool = False  # control strings in the data are control tokens
    answer_prefix: str = ""  # put before every answer
    template: tuple[tuple[str, Any], ...] = ()  # variables of the chat template

    @classmethod
    def of(cls, source: object) -> DataSettings:
        """The settings among the attributes, or the items, of anything that has them."""
        values = source if isinstance(source, Mapping) else vars(source)
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        known["data"] = _many(known["data"])
        for name in ("map", "template"):
            known[name] = tuple(map(tuple, known.get(name) or ()))
        known["label"] = tuple(known["label"]) if known.get("label") else None
        return cls(**{**known, "answer_prefix": known.get("answer_prefix") or ""})

    @property
    def name(self) -> str:
        """The files, as they were typed."""
        return ", ".join(self.data)

    def tokenizer(self) -> dict[str, Any]:
        """What `open_model` needs to know."""
        return tokenizer_options(vars(self))

    def digest(self) -> str:
        """SHA-256 of the files' contents."""
        return digest_files(self.data)


class ReadPairs(NamedTuple):
    """What `read_pairs` found."""

    file: PreferenceFile
    skipped: dict[str, int]  # bad rows that were left out, by kind
    settings: DataSettings


@dataclass
class Pairs:
    """Pairs, or thumbs, that a model can read, and what there is to say about them."""

    dataset: PreferenceDataset | UnpairedDataset
    lines: list[int]  # of each pair
    skipped: dict[str, int]  # bad rows that were left out, by kind
    how: str  # how a pair is put together
    notes: list[str] = field(default_factory=list)  # what was done to texts
    unused: dict[str, int] = field(default_factory=dict)  # columns, and in how many rows they are
    warnings: list[str] = field(default_factory=list)  # what the audit found

    @property
    def records(self) -> list[Record]:
        """The pairs as text."""
        return self.dataset.records

    def introduce(self) -> str:
        """How pairs become tokens and what nothing was read from, in two lines; then warnings."""
        rows = self.dataset.rows
        names = ("prompt", *(n for n in responses_of(rows[0]) if n != "mismatched"))
        sizes = {name: [len(row[name]) for row in rows] for name in names}
        longest = ", ".join(f"{n} up to {max(s):,}" for n, s in sizes.items())
        lines = [f"tokens {longest}; {self.how}", f"       {self.about_columns()}"]
        lines += [f"note   {note}" for note in self.notes]
        lines += [f"look   {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def about_columns(self) -> str:
        """The columns that nothing was read from."""
        if not self.unused:
            return "every column is used"
        names = ", ".join(f"{name} ({number:,})" for name, number in self.unused.items())
        return f"not used: {names} (rows)"


def read_pairs(settings: DataSettings) -> ReadPairs:
    """Read the files; what is bad stops with an error, or is counted and left out."""
    file = read_feedback(
        settings.data,
        dict(settings.map),
        encoding=settings.encoding,
        score=settings.score,
        label=settings.label,
    )
    return ReadPairs(file, _skipped(file, settings), settings)


def fit_to_model(read: ReadPairs, opened: OpenModel) -> Pairs:
    """Encode each pair, once; those that the model cannot read whole are bad rows too."""
    file, settings, tokenizer = read.file, read.settings, opened.tokenizer
    context, size = opened.context, opened.vocab_size
    limit = min(settings.max_length or DEFAULT_LENGTH, context)
    if settings.max_length is not None and settings.max_length > context:
        raise ValueError(
            f"--max-length {settings.max_length} is above what the model can read ({context})"
        )
    noted = getattr(tokenizer, "notes", Counter())
    noted.clear()
    records, rows, lines, problems, long = [], [], [], [], []
    given = file.files or ("",) * len(file.records)
    for record, line, name in zip(file.records, file.lines, given, strict=True):
        try:
            if settings.system:
                record = _with_system(record, settings.system, tokenizer)
            row = encode_record(record, tokenizer)
            sides = responses_of(row)
            if "chosen" in row and row["chosen"] == row["rejected"]:
                raise BadRow("identical", "chosen and rejected become the same tokens")
            most = max(max(row[name]) for name in ("prompt", *sides))
            if most >= size:
                raise BadRow("unknown words", f"a token has the id {most}, the model knows {size}")
        except ValueError as error:  # a template that refuses, words that the model does not know
            kind = "template" if hasattr(tokenizer, "backend") else "unknown words"
            problems.append(Problem(line, getattr(error, "kind", kind), str(error), name))
            continue
        length = len(row["prompt"]) + max(len(row[side]) for side in sides)
        if length > limit:
            long.append((length, line, name))
            continue
        records.append(record)
        rows.append(row)
        lines.append(line)
    if long:
        lengths = [length for length, *_ in long]
        up_to = f"up to {max(lengths):,}" if len(long) > 1 else f"{lengths[0]:,}"
        why = f"prompt and response have {up_to} tokens, above {limit} (--max-length)"
        problems += [Problem(line, "too long", why, name) for _, line, name in long]
    fitting = file._replace(records=records, problems=problems)
    skipped = _skipped(fitting, settings)
    notes = [*file.notes, *(f"{what} in {number:,} texts" for what, number in noted.items())]
    notes += _about_cut(records) + _about_joints(tokenizer, rows)
    controls = getattr(tokenizer, "controls", ())
    dataset = (UnpairedDataset if file.unpaired else PreferenceDataset)(records, tokenizer, rows)
    return Pairs(
        dataset,
        lines,
        dict(Counter(read.skipped) + Counter(skipped)),
        tokenizer.describe() if hasattr(tokenizer, "describe") else "no chat template",
        notes,
        fitting.unused_columns(),
        (audit_thumbs if file.unpaired else audit_pairs)(records, rows, controls),
    )


def open_pairs(
    settings: DataSettings, model: str, progress: Progress
) -> tuple[ReadPairs, OpenModel, Pairs]:
    """Read the files, load the model, and encode the pairs, showing which is going on."""
    with progress.stage(f"reading {settings.name}"):
        read = read_pairs(settings)
    with progress.loading(model):
        opened = open_model(model, settings.tokenizer())
    with progress.stage("encoding the pairs"):
        return read, opened, fit_to_model(read, opened)


def tokenizer_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a `PretrainedTokenizer` among those of a run; `open_model` takes them."""
    return {
        "chat": False if settings.get("plain") else None,
        "control_tokens": bool(settings.get("control_tokens")),
        "answer_prefix": settings.get("answer_prefix") or "",
        "template": dict(map(tuple, settings.get("template") or ())),
    }


def describe(records: Sequence[Record], skipped: Mapping[str, int]) -> str:
    """Counts of what is used and what is not, in a line."""
    prompts = len({record.prompt for record in records})
    if isinstance(records[0], UnpairedRecord):
        up = {record.prompt for record in records if record.desired}
        down = {record.prompt for record in records if not record.desired}
        share = sum(record.desired for record in records) / len(records)
        what = f"{len(records)} thumbs ({share:.0%} up), {prompts} prompts"
        parts = [f"{what} ({len(up & down)} with both kinds)"]
        same = Counter((record.prompt, record.response, record.desired) for record in records)
    else:
        parts = [f"{len(records)} pairs, {prompts} prompts"]
        same = Counter((record.prompt, record.chosen, record.rejected) for record in records)
    repeated = sum(number - 1 for number in same.values())
    if repeated:
        parts.append(f"{repeated} of them repeat another one (kept)")
    if skipped:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(skipped.items()))
        parts.append(f"skipped: {kinds}")
    return "; ".join(parts)


def about_thumbs(
    records: Sequence[UnpairedRecord], option: Mapping[str, float] | None = None
) -> str:
    """What there is to say about the weights of thumbs up and down, if anything is."""
    option, up = option or {}, sum(record.desired for record in records)
    names = ("desirable_weight", "undesirable_weight")
    return about_weights(up, len(records) - up, *(option.get(name, 1.0) for name in names))


def _many(paths: str | Sequence[str]) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else tuple(map(str, paths))


def _with_system(record: Record, system: str, tokenizer: Any) -> Record:
    is_templated = getattr(tokenizer, "is_templated", None)
    if is_templated is not None and is_templated(record.prompt):
        raise ValueError(
            "--system cannot be put into a prompt that is written in the chat template already"
        )
    return replace(record, prompt=with_system(record.prompt, system))


def _about_cut(records: Sequence[Record]) -> list[str]:
    """How many answers were cut before their end."""
    ends = ("chosen_ended", "rejected_ended", "ended")
    cut = sum(not getattr(record, name, True) for record in records for name in ends)
    return [f"{cut:,} answers were cut: they are scored without an end token"] if cut else []


def _about_joints(tokenizer: Any, rows: Sequence[dict[str, list[int]]]) -> list[str]:
    """Whether prompt and response would be other tokens if they were one text."""
    joins = getattr(tokenizer, "joins", None)
    if joins is None:
        return []
    apart = sum(
        not all(joins(row["prompt"], row[name]) for name in responses_of(row)) for row in rows
    )
    if not apart:
        return []
    return [
        f"in {apart:,} rows prompt and response as one text would be other tokens; they are "
        "encoded apart, as the model writes behind the prompt"
    ]


def _skipped(file: PreferenceFile, settings: DataSettings) -> dict[str, int]:
    """Bad rows by kind; they are told, and stop with an error if they must not be skipped."""
    if not file.problems:
        return {}
    text = f"{settings.name}: {file.describe_problems()}"
    if not file.records:
        raise ValueError(f"{text}\nno row is left")
    if not settings.skip_bad:
        raise ValueError(f"{text}\n--skip-bad leaves them out")
    print(f"{text}\nskipped (--skip-bad)", file=sys.stderr)
    return dict(Counter(p.kind for p in file.problems))
