"""Rows of files as users bring them: JSON lines, JSON, Parquet, Arrow, CSV, TSV, each also gzipped.

What a file is, is seen from its contents. A row that cannot be read comes out as the exception that
says why; a file that cannot be read at all is a ``ValueError`` with its name and the remedy.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".csv", ".tsv")
_ABOUT = re.compile(r"dataset_(infos?|dict)|state|metadata|config", re.IGNORECASE)  # not rows
_WIDE = [  # byte-order marks; that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]
_OTHERS = {  # what is refused by its first bytes
    b"PK\x03\x04": "an Excel or zip file: save the sheet as CSV (UTF-8), or unpack it",
    b"\xd0\xcf\x11\xe0": "an Excel file: save the sheet as CSV (UTF-8)",
    b"BZh": "compressed by bzip2: unpack it, or use gzip",
    b"\xfd7zXZ": "compressed by xz: unpack it, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it, or use gzip",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
    **dict.fromkeys(
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a pickle: save the data as JSON lines or Parquet",
    ),
    b"\x89HDF": "an HDF5 file: save the data as JSON lines or Parquet",
    b"Obj\x01": "an Avro file: save the data as JSON lines or Parquet",
    b"FEA1": "an old Feather file: save the data as Parquet",
    b"%PDF": "a PDF: save the data as JSON lines or CSV",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself (git lfs pull)",
    b"<!DOCTYPE": "a web page: download the file itself",
    b"<!doctype": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
}


class Row(NamedTuple):
    """A row, and where it stands."""

    value: object  # decoded, or the exception
    line: int  # where it begins, counted from 1; without lines (Parquet, Arrow, a list) the row
    file: str
    unit: str = "line"  # what is counted: "line" or "row"


def find_files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that are meant: each path itself, or the data files in it if it is a folder.

    Raises
    ------
    ValueError
        If a path does not exist or is a pipe or a device, or a folder holds no data file.
    """
    paths = [paths] if isinstance(paths, str | Path) else paths
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _holds_rows(p, path))
            if not inside:
                raise ValueError(f"the folder {path} holds no file of {', '.join(SUFFIXES)}")
            found += inside
        elif path.is_file():
            found.append(path)
        elif path.exists():  # its rows are read more than once
            raise ValueError(f"{path} is a pipe or a device: write the rows to a file first")
        else:
            raise ValueError(f"there is no file {path}")
    if not found:
        raise ValueError("paths must name at least one file, got none")
    return list(dict.fromkeys(found))


def digest_files(paths: str | Path | Sequence[str | Path]) -> str:
    """SHA-256 of the contents of the files, in their order; of one file that of the file."""
    digest = hashlib.sha256()
    for path in find_files(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_rows(
    paths: str | Path | Sequence[str | Path], encoding: str | None = None
) -> Iterator[Row]:
    """Every row of the files, in their order.

    Parameters
    ----------
    paths : path or sequence of paths
        Files or folders.
    encoding : str, optional
        Of the text files; without, they must be UTF-8, with or without a byte-order mark.

    Raises
    ------
    ValueError
        If there is no such file, or one cannot be read as a whole; with its name and the remedy.
    """
    for path in find_files(paths):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from error
        yield from _rows(unpack(data, path), path, encoding)


def unpack(data: bytes, path: str | Path) -> bytes:
    """The bytes of a file, unpacked if they are gzipped."""
    try:
        while data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a gzip file that is cut off or damaged: {error}") from error
    return data


def to_utf8(data: bytes, path: str | Path, encoding: str | None = None) -> bytes:
    """The bytes in UTF-8 without a byte-order mark; single bytes may still be wrong.

    Raises
    ------
    ValueError
        If this is UTF-16 or UTF-32 and ``encoding`` does not say so, or ``encoding`` is unknown
        or does not fit; with the name of the file.
    """
    if encoding is not None:
        try:
            text = data.decode(encoding)
        except (LookupError, UnicodeError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as {encoding}: {error}") from error
        try:
            return text.removeprefix("\ufeff").encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{path} cannot be read as {encoding}: {error.reason}") from error
    wide = next((name for mark, name in _WIDE if data.startswith(mark)), None) or _unmarked(data)
    if wide:
        raise ValueError(
            f"{path} is text in {wide.upper()}, not in UTF-8: save it as UTF-8, or give "
            f"--encoding {wide}"
        )
    return data.removeprefix(codecs.BOM_UTF8)


def not_utf8(data: bytes) -> str:
    """What to say of bytes that are not UTF-8: what they seem to be, and the remedy."""
    try:
        data.decode("cp1252")
        looks = all(byte >= 0x80 or byte >= 0x20 or byte in b"\t\r\n" for byte in data)
    except UnicodeDecodeError:
        looks = False
    if looks:
        return (
            "not UTF-8 but, it seems, Latin-1 (Windows-1252): save the file as UTF-8, "
            "or give --encoding cp1252"
        )
    return "not UTF-8: save the file as UTF-8, or name its encoding (--encoding)"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's values; of two of one name JSON would silently keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there more than once in one object")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_once)


def json_lines(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each line that is not blank; of one that cannot be read, the error."""
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield number, ValueError(not_utf8(line))
            continue
        try:
            if text.strip():
                yield number, DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            yield number, ValueError(reason(error))


def reason(error: Exception) -> str:
    """An error of a decoder in one line."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    if "int_max_str_digits" in str(error):
        return "not JSON that can be read: a number has more than 4,300 digits"
    if isinstance(error, RecursionError):
        return "not JSON that can be read: nested too deep (maximum recursion depth exceeded)"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _holds_rows(path: Path, folder: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    about = name.endswith(".json") and _ABOUT.fullmatch(Path(name).stem)
    return name.endswith(SUFFIXES) and not hidden and not about


def _unmarked(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, by the zeros in what is ASCII, as a file's beginning is."""
    for start in (data[:8], data[:400]):
        for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
            zeros, others = start[first::2], start[1 - first :: 2]
            if len(zeros) >= 2 and zeros.count(0) > 0.7 * len(zeros) and others.count(0) == 0:
                return name
    for name, zeros in (("utf-32-le", (1, 2, 3)), ("utf-32-be", (0, 1, 2))):
        if len(data) >= 8 and not any(data[i + j] for i in (0, 4) for j in zeros):
            return name
    return None


def _rows(data: bytes, path: Path, encoding: str | None) -> Iterator[Row]:
    file = str(path)
    if data.startswith(b"PAR1"):
        yield from (Row(value, i, file, "row") for i, value in _table_rows(data, path, "Parquet"))
        return
    if data.startswith(b"ARROW1") or (data[:4] == b"\xff" * 4):
        yield from (Row(value, i, file, "row") for i, value in _table_rows(data, path, "Arrow"))
        return
    for start, what in _OTHERS.items():
        if data.startswith(start):
            raise ValueError(f"{path} is {what}")
    data = to_utf8(data, path, encoding)
    if data[:4096].count(0) > len(data[:4096]) / 20:  # a few are rows of their own that are bad
        raise ValueError(
            f"{path} is not a text file: JSON lines, JSON, Parquet, CSV and TSV are read"
        )
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv")) or _is_table(data):
        rows: Iterator[tuple[int, object]] = _csv_rows(data, path, name.endswith(".tsv"))
    elif _is_lines(data):
        rows = json_lines(data)
    elif b"\n" not in data.strip():  # all rows in one line
        values = (value for _, value in _json_rows(data))
        yield from (Row(value, i, file, "row") for i, value in enumerate(values, start=1))
        return
    else:
        rows = _json_rows(data)
    yield from (Row(value, line, file) for line, value in rows)


# --- JSON ----------------------------------------------------------------------------------------


def _is_lines(data: bytes) -> bool:
    """Whether each line stands for itself, as in JSON lines; otherwise a value spans several."""
    lines = data.strip().splitlines()
    if not lines:
        return True
    first = lines[0].strip()
    if first.startswith(b"["):
        return False
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return not first.endswith((b"{", b"[", b","))
    return len(lines) > 1 or not _columns_of(value)


def _columns_of(value: object) -> bool:
    """Whether an object holds rows (one list of objects) or columns of equal length."""
    if not isinstance(value, dict) or not value:
        return False
    if {"role", "from"} & _keys_inside(value):  # messages: a row
        return False
    lists = [v for v in value.values() if isinstance(v, list)]
    if len(lists) == 1 and lists[0] and all(isinstance(v, dict) for v in lists[0]):
        return not {"prompt", "chosen", "rejected", "instruction"} & value.keys()
    columns = [*value.values()]
    return {"chosen", "rejected"} <= value.keys() and (
        all(isinstance(v, list) for v in columns)
        or all(isinstance(v, dict) and all(map(str.isdecimal, v)) for v in columns)
    )


def _keys_inside(value: dict[str, Any]) -> set[str]:
    inside = [v[0] if isinstance(v, list) and v else v for v in value.values()]
    return {str(key) for v in inside if isinstance(v, dict) for key in v}


def _json_rows(data: bytes) -> Iterator[tuple[int, object]]:
    """Rows of one JSON value, or of several behind each other, each with the line it begins on."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n")
        yield line + 1, ValueError(not_utf8(data.splitlines()[line]))
        return
    opening = re.match(r'\s*(\{\s*"[^"]*"\s*:\s*)?\[(?=\s*[\]{])', text)
    if opening and (not opening[1] or _holds_one_list(text)):
        yield from _values(text, opening.end(), inside=True)
        return
    if not text.lstrip().startswith(("{", "[")):
        yield 1, ValueError("a JSON file must hold a list of objects")
        return
    for line, value in _values(text, 0, inside=False):
        if _columns_of(value):
            yield from ((line, row) for row in _rows_of_columns(value))
        elif isinstance(value, list):
            yield from ((line, row) for row in value)
        else:
            yield line, value


def _holds_one_list(text: str) -> bool:
    try:
        value, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):  # cut off: what can be read of it is read
        return re.match(r'\s*\{\s*"(prompt|chosen|rejected|messages|conversations)"', text) is None
    return _columns_of(value) and not {"chosen", "rejected"} <= value.keys()


def _rows_of_columns(value: dict[str, Any]) -> Iterator[object]:
    if not {"chosen", "rejected"} <= value.keys():
        yield from next(v for v in value.values() if isinstance(v, list))
        return
    columns = {k: v if isinstance(v, list) else [*v.values()] for k, v in value.items()}
    sizes = {k: len(v) for k, v in columns.items()}
    if len(set(sizes.values())) > 1:
        yield ValueError(f"the columns differ in length: {sizes}")
        return
    yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _values(text: str, place: int, inside: bool) -> Iterator[tuple[int, object]]:
    """JSON values behind each other; an error where one ends them."""
    line, seen = 1, 0
    skip = re.compile(r"[\s,]*")
    while True:
        place = skip.match(text, place).end()
        line, seen = line + text.count("\n", seen, place), place
        if inside and text[place : place + 1] == "]":
            if text[place + 1 :].strip() not in ("", "}") and text.lstrip().startswith("["):
                yield line, ValueError("what stands behind the list was not read")
            return
        if place == len(text) and not inside:
            return
        try:
            row, place = DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            yield line, ValueError(f"{reason(error)}; nothing behind it was read")
            return
        yield line, row


# --- tables --------------------------------------------------------------------------------------


def _is_table(data: bytes) -> bool:
    """Whether this is CSV under another name: its first line names the columns."""
    header = data.lstrip()[:2000].splitlines()[:1]
    if not header or header[0][:1] in (b"{", b"["):
        return False
    names = {name.strip(b" \"'").lower() for name in re.split(rb"[,;\t]", header[0])}
    return {b"chosen", b"rejected"} <= names


def _csv_rows(data: bytes, path: Path, tabs: bool) -> Iterator[tuple[int, object]]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n")
        raise ValueError(f"{path}, line {line + 1}: {not_utf8(data.splitlines()[line])}") from error
    before = 0
    if re.match(r"sep=.\r?\n", text):  # Excel's own first line
        text, before = text.split("\n", 1)[1], 1
    header = text.lstrip().splitlines()[:1]
    delimiter, skip = _delimiter(header[0] if header else "", tabs)
    limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=skip, strict=True
        )
        names: list[str] = []
        first = before
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield before + 1, ValueError(f"not CSV: {error}; nothing behind it was read")
                return
            line, before = before + 1, first + reader.line_num
            if not any(value.strip() for value in values):
                continue
            if not names:
                names = [v.strip() or f"column {i}" for i, v in enumerate(values, start=1)]
                twice = sorted({name for name in names if names.count(name) > 1})
                if twice:
                    raise ValueError(f"{path}: the columns {twice} are there more than once")
                continue
            if len(values) != len(names):
                yield line, ValueError(f"{len(values)} values for {len(names)} columns {names}")
                continue
            yield line, dict(zip(names, values, strict=True))
    finally:
        csv.field_size_limit(limit)


def _delimiter(header: str, tabs: bool) -> tuple[str, bool]:
    """The sign between columns, by the names it yields; whether a space follows it each time."""

    def fits(sign: str) -> tuple[int, bool, int]:
        names = {name.strip(" \"'").lower() for name in header.split(sign)}
        known = len(names & {"prompt", "chosen", "rejected", "instruction"})
        return known, tabs and sign == "\t" and sign in header, header.count(sign)

    sign = max(",;\t|", key=fits)
    rest = header.split(sign)[1:]
    return sign, bool(rest) and all(name.startswith(" ") for name in rest)


def _table_rows(data: bytes, path: Path, kind: str) -> Iterator[tuple[int, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        source = pyarrow.BufferReader(data)
        if kind == "Parquet":
            table = pyarrow.parquet.read_table(source)
        elif data.startswith(b"ARROW1"):
            table = pyarrow.ipc.open_file(source).read_all()
        else:
            table = pyarrow.ipc.open_stream(source).read_all()
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not a readable {kind} file: {reason(error)}") from error
    yield from enumerate(rows, start=1)
