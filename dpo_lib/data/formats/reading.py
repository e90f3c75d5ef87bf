"""Files of preferences: their records, and their bad rows with place and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpo_lib.data.files import Row, read_rows, reason
from dpo_lib.data.formats.columns import BadRow, Kind
from dpo_lib.data.formats.rows import looks_unpaired, pair_of, thumb_of
from dpo_lib.data.formats.verdicts import Label, pair_up
from dpo_lib.data.records import UnpairedRecord

_SHOWN = 20  # ranges of lines in a message, and messages


class Problem(NamedTuple):
    """A row that cannot be used, and why."""

    line: int  # of the file, counted from 1; in Parquet the row
    kind: Kind
    reason: str
    file: str = ""  # where there are several


class PreferenceFile(NamedTuple):
    """What files hold: their records, where they stand, their bad rows, and what was done."""

    records: list[Any]  # PreferenceRecord, or UnpairedRecord
    lines: list[int]  # of each record
    problems: list[Problem]
    unit: str = "line"  # what is counted: "line" or "row"
    files: tuple[str, ...] = ()  # of each record, where there are several
    notes: tuple[str, ...] = ()  # what the reader did beyond reading, a sentence each

    def describe_problems(self) -> str:
        """The number of bad rows of each kind, then all of them with their reasons."""
        kinds = Counter(problem.kind for problem in self.problems)
        counts = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        alike: dict[tuple[str, str, str], list[int]] = {}
        for line, kind, why, file in sorted(self.problems, key=lambda p: (p.file, p.line)):
            alike.setdefault((file, kind, why), []).append(line)
        rows = [
            f"{file and f'{file}, '}{self.unit}{'s' * (len(lines) > 1)} {_ranges(lines)}: "
            f"{kind}: {why}"
            for (file, kind, why), lines in alike.items()
        ]
        if len(rows) > _SHOWN:
            left = sum(map(len, [*alike.values()][_SHOWN:]))
            rows[_SHOWN:] = [f"and {left} more"]
        bad, total = len(self.problems), len(self.records) + len(self.problems)
        return "\n".join([f"{bad} of {total} rows are bad ({counts})", *rows])

    @property
    def unpaired(self) -> bool:
        """Whether the records are thumbs, not pairs."""
        return bool(self.records) and isinstance(self.records[0], UnpairedRecord)

    def unused_columns(self) -> dict[str, int]:
        """Columns that nothing was read from, with the number of rows that have them."""
        return dict(
            Counter(
                name
                for record in self.records
                for name, value in record.extra.items()
                if value not in (None, "", [], {})
            ).most_common()
        )


def _ranges(numbers: Sequence[int]) -> str:
    """``1-3, 7`` for 1, 2, 3, 7."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    shown = ", ".join("-".join(map(str, ends)) for ends in ranges[:_SHOWN])
    left = sum(ends[-1] - ends[0] + 1 for ends in ranges[_SHOWN:])
    return f"{shown} and {left} more" if left else shown


def read_preferences(
    paths: str | Path | Sequence[str | Path],
    rename: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
    score: str | None = None,
    label: tuple[str, str] | None = None,
) -> PreferenceFile:
    """Read preference pairs; what a file is, is seen from its contents.

    Parameters
    ----------
    paths : path or sequence of paths
        Files (JSON lines, JSON, Parquet, Arrow, CSV, TSV; gzipped or not), or folders of them.
    rename : mapping, optional
        The file's column names to ours: ``{"instruction": "prompt"}``.
    encoding : str, optional
        Of text files; UTF-8 by default.
    score : str, optional
        Column of scores: the best response is taken against the worst.
    label : (column, value), optional
        ``chosen`` is the better one where the column has this value, ``rejected`` elsewhere.

    Returns
    -------
    PreferenceFile
        Bad rows are in ``problems``; raising is left to the caller.

    Raises
    ------
    ValueError
        If a file does not exist or cannot be read at all, there is no row, or the label's column
        holds no such value, or more than two.
    """
    rows = read_rows(paths, encoding)
    return _collect_pairs(rows, paths, rename or {}, score, label)


def read_feedback(
    paths: str | Path | Sequence[str | Path],
    rename: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
    score: str | None = None,
    label: tuple[str, str] | None = None,
) -> PreferenceFile:
    """Read pairs or, where most rows are a response with a ``label``, thumbs.

    The arguments are those of `read_preferences`; with ``score`` or ``label`` the rows are pairs.
    """
    rows, rename = [*read_rows(paths, encoding)], rename or {}
    thumbs = sum(looks_unpaired(row.value, rename) for row in rows)
    if score is None and label is None and 2 * thumbs > len(rows):
        return _collect_thumbs(rows, paths, rename)
    return _collect_pairs(rows, paths, rename, score, label)


def read_unpaired(
    paths: str | Path | Sequence[str | Path],
    rename: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
) -> PreferenceFile:
    """Read responses with a verdict each, as for KTO; see `read_preferences`.

    A row has a prompt in any of its forms, a ``completion`` (or ``response``, ``answer``,
    ``output``) and a ``label``: true or false, 1 or 0, or words such as "good" and "bad".
    Messages that end with the answer may stand in place of both texts.
    """
    return _collect_thumbs(read_rows(paths, encoding), paths, rename or {})


def _collect_pairs(
    rows: Iterable[Row],
    paths: object,
    rename: Mapping[str, str],
    score: str | None,
    label: tuple[str, str] | None,
) -> PreferenceFile:
    notes: Counter[str] = Counter()
    if score is not None:
        rows = pair_up(rows, rename, score, notes)
    seen = Label(*label) if label is not None else None
    found = _collect(rows, paths, notes, lambda row: pair_of(row, rename, score, seen, notes))
    if seen is not None and found.records:
        seen.check()
    return found


def _collect_thumbs(
    rows: Iterable[Row], paths: object, rename: Mapping[str, str]
) -> PreferenceFile:
    notes: Counter[str] = Counter()
    return _collect(rows, paths, notes, lambda row: thumb_of(row, rename, notes))


def _collect(
    rows: Iterable[Row],
    paths: object,
    notes: Counter[str],
    make: Any,
) -> PreferenceFile:
    records, lines, files, problems, unit, names = [], [], [], [], "line", {}
    for value, line, file, unit in rows:  # noqa: B007
        names[file] = None
        try:
            if isinstance(value, BadRow):
                raise value
            if isinstance(value, Exception):
                raise BadRow("unreadable", reason(value))
            records.append(make(value))
            lines.append(line)
            files.append(file)
        except BadRow as error:
            problems.append(Problem(line, error.kind, str(error), file))
        except RecursionError:
            problems.append(Problem(line, "malformed", "the row is nested too deep", file))
    if not records and not problems:
        name = paths if isinstance(paths, str | Path) else ", ".join(map(str, paths))
        raise ValueError(f"{name} holds no rows")
    if len(names) == 1:
        problems = [problem._replace(file="") for problem in problems]
        files = []
    told = tuple(f"{what} in {number:,} rows" for what, number in notes.items())
    return PreferenceFile(records, lines, problems, unit, tuple(files), told)
