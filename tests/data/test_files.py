"""Files as users bring them: every kind, every encoding, and what is refused with its remedy."""

import codecs
import csv
import gzip
import io
import json
import os

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from dpo_lib.data.files import digest_files, find_files, read_rows
from dpo_lib.data.formats import read_preferences, read_unpaired
from tests.helpers import deterministic

ROWS = [
    {
        "prompt": "Où est la gare\u2028de Zürich?",
        "chosen": "Là-bas, tout\nprès.",
        "rejected": "№ 7",
    },
    {"prompt": "2+2?", "chosen": 'It is "4", I think.', "rejected": "5;\t6"},
]


def jsonl(rows=ROWS):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows=ROWS, delimiter=","):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*rows[0]], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def packed(write):
    sink = pyarrow.BufferOutputStream()
    write(pyarrow.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


def arrow(rows, sink):
    with pyarrow.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)


FILES = {
    "a.jsonl": jsonl(),
    "bom.jsonl": codecs.BOM_UTF8 + jsonl(),
    "windows.jsonl": jsonl().replace(b"\n", b"\r\n"),
    "a.json": json.dumps(ROWS, indent=1).encode(),
    "data.json": json.dumps({"version": 1, "data": ROWS}).encode(),
    "columns.json": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}).encode(),
    "pandas.json": json.dumps(
        {name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]}
    ).encode(),
    "spread.json": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "a.csv": table(),
    "bom.csv": codecs.BOM_UTF8 + table(),
    "german.csv": table(delimiter=";"),
    "a.tsv": table(delimiter="\t"),
    "excel.csv": b"sep=;\r\n" + table(delimiter=";"),
    "export.txt": table(),
    "commas.tsv": table(),
    "tabs.csv": table(delimiter="\t"),
    "more.csv": table([{**row, "a;b;c;d;e": ""} for row in ROWS]),
    "a.parquet": packed(parquet.write_table),
    "no_suffix": packed(parquet.write_table),
    "a.arrow": packed(arrow),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_holds_the_same_pairs(tmp_path, name, zipped):
    path = tmp_path / (f"{name}.gz" if zipped else name)
    path.write_bytes(gzip.compress(FILES[name]) if zipped else FILES[name])
    found = read_preferences(path)
    assert not found.problems
    assert [{n: getattr(r, n) for n in ROWS[0]} for r in found.records] == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
@pytest.mark.parametrize("data", [jsonl(ROWS[1:] * 9), table(ROWS[1:] * 9)], ids=["jsonl", "csv"])
def test_other_encodings_are_named_with_the_remedy(tmp_path, encoding, data):
    path = tmp_path / "a.txt"
    data = data.decode().replace("think", "thünk")
    path.write_bytes(data.encode(encoding))
    if encoding == "latin-1" and data.startswith("{"):
        found = read_preferences(path)
        assert not found.records
        error = found.describe_problems()
    else:
        with pytest.raises(ValueError, match=r"a\.txt") as caught:
            read_preferences(path)
        error = str(caught.value)
    name = {"latin-1": "cp1252", "utf-32": "utf-32"}.get(encoding, encoding)
    assert f"--encoding {name}" in error
    assert len(read_preferences(path, encoding=name).records) == 9
    with pytest.raises(ValueError, match=r"a\.txt cannot be read as (ascii|nonsense)"):
        read_preferences(path, encoding="nonsense" if encoding == "utf-16" else "ascii")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04rest", "Excel or zip file: save the sheet as CSV"),
        (b"BZh91AY", "bzip2"),
        (gzip.compress(jsonl())[:-9], "gzip file that is cut off or damaged"),
        (b"\x1f\x8bnonsense", "gzip file that is cut off or damaged"),
        (b"\x80\x05\x95", "a pickle"),
        (b"%PDF-1.4", "a PDF"),
        (b"<!DOCTYPE html><html>", "a web page: download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"PAR1 and no more", "not a readable Parquet file"),
        (b"{\0\0\1\2\3", "not a text file"),
        (b"prompt,chosen,chosen,rejected\n1,2,3,4\n", r"columns \['chosen'\] are there more"),
        (b"", "holds no rows"),
        (b"prompt,chosen,rejected\n", "holds no rows"),
    ],
)
def test_what_cannot_be_read_at_all(tmp_path, data, words):
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(ValueError, match=words) as error:
        read_preferences(tmp_path / "f")
    assert str(tmp_path / "f") in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_rows_of_tables_have_their_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('prompt,chosen,rejected\na,"b\nc",d\na,b\n\ne,f,g\ne,"f"x,g\n')
    found = read_preferences(path)
    assert found.lines == [2, 6]
    assert [(p.line, p.kind) for p in found.problems] == [(4, "unreadable"), (7, "unreadable")]
    assert "2 values for 3 columns" in found.problems[0].reason


def test_what_stands_behind_a_list_is_not_ignored(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS) + "\n" + json.dumps(ROWS))
    found = read_preferences(path)
    assert len(found.records) == 2
    assert "behind the list" in found.problems[0].reason


def test_a_folder_and_several_files(tmp_path):
    (tmp_path / "data" / ".cache").mkdir(parents=True)
    for name in ("b.jsonl", "a.csv.gz", "README.md", "dataset_info.json", ".cache/x.jsonl"):
        data = gzip.compress(table()) if name.endswith("gz") else jsonl()
        (tmp_path / "data" / name).write_bytes(data)
    files = find_files(tmp_path)
    assert [path.name for path in files] == ["a.csv.gz", "b.jsonl"]
    found = read_preferences([tmp_path / "data", tmp_path / "data" / "README.md"])
    assert len(found.records) == 6
    assert [f.rpartition("/")[2] for f in found.files] == ["a.csv.gz"] * 2 + ["b.jsonl"] * 2 + [
        "README.md"
    ] * 2
    (tmp_path / "data" / "b.jsonl").write_text("{}\n")
    text = read_preferences(tmp_path).describe_problems()
    assert "b.jsonl, line 1: malformed" in text
    before = digest_files(files)
    (tmp_path / "data" / "b.jsonl").write_text("{} \n")
    assert digest_files(files) != before
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no file of \.jsonl"):
        find_files(tmp_path / "empty")


def test_a_pipe_is_not_called_missing(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match=r"a\.jsonl is a pipe or a device: write the rows"):
        find_files(tmp_path / "a.jsonl")


def test_of_two_values_under_one_name_none_is_taken(tmp_path):
    path = tmp_path / "a.jsonl"
    twice = b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen": "z"}\n'
    path.write_bytes(jsonl() + twice)
    found = read_preferences(path)
    assert len(found.records) == 2
    assert [(p.line, p.kind) for p in found.problems] == [(3, "unreadable")]
    assert "'chosen' is there more than once in one object" in found.problems[0].reason


def test_a_null_byte_is_a_bad_row_and_not_the_end(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl() + b'{"prompt": "a\0", "chosen": "b", "rejected": "c"}\n')
    found = read_preferences(path)
    assert [(p.line, p.kind) for p in found.problems] == [(3, "unreadable")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_text_without_a_mark_and_hardly_any_ascii(tmp_path, encoding):
    path = tmp_path / "a.jsonl"
    row = {"prompt": "天空是什么颜色" * 40, "chosen": "蓝", "rejected": "红"}
    path.write_bytes(json.dumps(row, ensure_ascii=False).encode(encoding))
    with pytest.raises(ValueError, match=f"--encoding {encoding}"):
        read_preferences(path)
    assert read_preferences(path, encoding=encoding).records[0].prompt == row["prompt"]


def test_tables_as_programs_write_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('prompt, chosen, rejected\na, "b, c", d\n')  # a space behind each comma
    assert [(r.prompt, r.chosen) for r in read_preferences(path).records] == [("a", "b, c")]
    path.write_text("prompt,chosen,rejected,,\na,b,c,,\na,c,b,,x\n")  # columns without a name
    found = read_preferences(path)
    assert len(found.records) == 2
    assert found.unused_columns() == {"column 5": 1}
    path.write_text("sep=;\nprompt;chosen;rejected\na;b;c\na;b\n")
    assert [p.line for p in read_preferences(path).problems] == [4]


def test_packed_twice(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.compress(jsonl())))
    assert len(read_preferences(path).records) == 2


# --- anything at all -----------------------------------------------------------------------------

STARTS = [b"", b"{", b"[", b"[{", b'{"a":[', b"PAR1", b"\x1f\x8b", b"\xff\xfe", b"a,b\n", b"ARROW1"]


@deterministic
@given(start=st.sampled_from(STARTS), data=st.binary(max_size=200), name=st.sampled_from([*FILES]))
def test_random_bytes_give_rows_or_one_sentence(tmp_path_factory, start, data, name):
    path = tmp_path_factory.mktemp("random") / name
    path.write_bytes(start + data)
    try:
        rows = list(read_rows(path))
        read_preferences(path).describe_problems()
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert rows


@deterministic
@given(name=st.sampled_from([*FILES]), at=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_file_gives_rows_or_one_sentence(tmp_path_factory, name, at, byte):
    data = bytearray(FILES[name])
    data[at % len(data)] = byte
    path = tmp_path_factory.mktemp("random") / name
    path.write_bytes(data)
    try:
        found = read_preferences(path)
        assert found.records or found.problems
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017


ROLES = st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool", None, 3, ["user"]])
WORDS = st.sampled_from([
    *("", " ", "Hi.", "nan", "None", "[]", "{}", "\0", "\u200b", "[{'role':", "[Message(role=1"),
    *("Human: a\n\nAssistant: b", "\n\nHuman: ", "H: a\nA: b", "**AI:** a", "<human>: a\n<bot>: b"),
    *("\r\rHuman: \rAssistant:", "System: a\n\nUser: b\n\nBot: c", "### User: a\n### AI:", "A: x"),
    *('array([{"role":"user"}])', '[{"name": 1, "role": "user"', '{"messages": 3}'),
    *('{"conversations": [{"from": 1, "value": 2}]}', '[{"role": "user", "content": "a"}]'),
])  # fmt: skip
MESSAGE = st.dictionaries(st.sampled_from(["role", "content", "from", "value", "x"]), ROLES | WORDS)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=9) | MESSAGE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
COLUMNS = st.sampled_from([
    *("prompt", "chosen", "rejected", "instruction", "input", "history", "system", "tools"),
    *("messages", "conversations", "question", "responses", "scores", "output", "label"),
    *("completion", "labels", "human_ref_A", "human_ref_B", "chosen_score", "rejected_score"),
])  # fmt: skip


@deterministic
@given(
    row=st.dictionaries(COLUMNS, VALUES, max_size=7) | VALUES.filter(lambda v: v != []),
    as_text=st.booleans(),
    score=st.sampled_from([None, "scores", "chosen_score"]),
    label=st.sampled_from([None, ("label", "1")]),
)
def test_random_rows_are_read_or_refused(tmp_path_factory, row, as_text, score, label):
    if as_text and isinstance(row, dict):
        row = {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
    path = tmp_path_factory.mktemp("random") / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    for read in (
        lambda: read_preferences(path, score=score, label=label),
        lambda: read_unpaired(path),
    ):
        found = read()  # no exception, whatever the row is
        assert found.records or found.problems
        for record in found.records:
            assert record.prompt.strip()
        found.unused_columns()
        found.describe_problems()
