"""Files of any content are read, or refused in one sentence; no row is lost, no text changed."""

import csv
import gzip
import io
import json
import math

import pyarrow
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyarrow import parquet

from dpo_lib.cli.drawn import is_readable, pair_row, read_drawn
from dpo_lib.data import PreferenceRecord, UnpairedRecord, read_jsonl, write_jsonl
from dpo_lib.data.formats import (
    PreferenceFile,
    read_feedback,
    read_preferences,
    read_unpaired,
)
from tests.properties.budget import outcome, tried
from tests.properties.values import any_text, json_values, texts, words

# Text that is no transcript, no message and nothing that stands for an empty cell.
free = words.map(lambda text: f"q{text}q".replace("\r", " ").replace("\x1c", " "))
pairs = st.tuples(free, free, free).filter(lambda row: row[1] != row[2])

NAMES = (
    "prompt", "chosen", "rejected", "instruction", "input", "history", "question", "query",
    "system", "system_prompt", "tools", "messages", "conversations", "conversation", "response",
    "responses", "completion", "completions", "output", "outputs", "answer", "answers", "text",
    "label", "labels", "score", "scores", "human_ref_A", "human_ref_B", "chosen_ended",
    "rejected_ended", "ended", "score_chosen", "score_rejected", "winner", "rank",
)  # fmt: skip
ROLES = ("user", "assistant", "system", "human", "gpt", "Human", "tool", "")
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(ROLES), "content": texts | json_values},
        optional={"from": st.sampled_from(ROLES), "value": texts, "name": json_values},
    ),
    max_size=4,
)
transcripts = st.lists(
    st.tuples(
        st.sampled_from(["Human", "Assistant", "H", "A", "USER", "system", "**Human", "### AI"]),
        st.sampled_from([":", " :", ":**", ""]),
        texts,
    ),
    max_size=4,
).map(lambda turns: "\n\n".join(f"{who}{mark} {text}" for who, mark, text in turns))
cells = st.one_of(
    texts,
    any_text,
    messages,
    transcripts,
    json_values,
    messages.map(repr),
    messages.map(json.dumps),
    st.sampled_from(["", "nan", "None", "[]", "{}", "[[", '"', "array([{'role': 'user'}])", "1"]),
    st.integers(1, 3000).map(lambda depth: "[" * depth + "]" * depth),
)
rows = st.dictionaries(st.sampled_from(NAMES) | any_text, cells, max_size=6)
options = st.fixed_dictionaries(
    {},
    optional={
        "score": st.sampled_from(["score", "scores", "score_chosen", "rank"]),
        "label": st.tuples(st.sampled_from(["label", "winner"]), st.sampled_from(["1", "a"])),
        "encoding": st.sampled_from(["utf-8", "latin-1", "utf-16", "cp037", "rot13", "nope", ""]),
        "rename": st.dictionaries(
            st.sampled_from(NAMES), st.sampled_from(NAMES), min_size=1, max_size=2
        ),
    },
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("files") / "data"


def read(path, reader=read_feedback, **arguments):
    """What a file holds, or the sentence that refuses it, which names the file or an argument."""
    found, refusal = outcome(reader, path, **arguments)
    if refusal:
        assert any(name in refusal for name in (path.name, "--label", "--score")), refusal
        return refusal
    assert isinstance(found, PreferenceFile)
    assert found.records or found.problems
    for record in found.records:
        assert isinstance(record, PreferenceRecord | UnpairedRecord)
        record.prompt.encode()
    for problem in found.problems:
        assert problem.reason.strip()
    found.describe_problems(), found.unused_columns()
    return found


def of(found):
    assert isinstance(found, PreferenceFile), found
    assert not found.problems, found.describe_problems()
    return [(record.prompt, record.chosen, record.rejected) for record in found.records]


# --- any content ---------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.sampled_from([".csv", ".json", ".tsv", "", ".gz"]), options)
@tried(40)
def test_any_bytes(file, data, suffix, more):
    path = file.with_suffix(suffix)
    path.write_bytes(data)
    read(path, read_preferences, **more)
    assert isinstance(read(path), str | PreferenceFile)


@given(st.lists(rows, min_size=1, max_size=5), st.sampled_from(["lines", "list", "gzip"]), options)
@tried(60)
def test_any_rows_of_json(file, many, form, more):
    more.pop("encoding", None)
    text = json.dumps(many) if form == "list" else "".join(json.dumps(row) + "\n" for row in many)
    file.write_bytes(gzip.compress(text.encode()) if form == "gzip" else text.encode())
    found = read(file, read_preferences, **more)
    if isinstance(found, PreferenceFile) and "score" not in more:  # which joins rows
        lone = form != "list" and len(many) == 1  # may be a file of columns
        assert lone or len(found.records) + len(found.problems) == len(many)
    thumbs = read(file, read_unpaired)
    if isinstance(thumbs, PreferenceFile) and form != "list" and len(many) > 1:
        assert len(thumbs.records) + len(thumbs.problems) == len(many)
    drawn, refusal = outcome(read_drawn, file)
    assert file.name in refusal if refusal else len(drawn) <= len(many)


@given(st.lists(st.dictionaries(st.sampled_from(NAMES), any_text, min_size=1), max_size=4), options)
@tried(40)
def test_any_table(file, many, more):
    names = sorted({name for row in many for name in row} | {"prompt"})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    try:
        writer.writerows(many)
    except csv.Error:
        assume(False)
    path = file.with_suffix(".csv")
    path.write_bytes(text.getvalue().encode(errors="surrogatepass"))
    read(path, read_preferences, **more)


# --- nothing is lost or changed ------------------------------------------------------------------


def as_lines(many):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in many).encode()


def as_table(many):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*many[0]], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(many)
    return text.getvalue().encode()


def as_parquet(many):
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(many), sink)
    return sink.getvalue().to_pybytes()


FORMS = {
    "lines": as_lines,
    "zipped": lambda many: gzip.compress(as_lines(many)),
    "list": lambda many: json.dumps(many, indent=1).encode(),
    "columns": lambda many: json.dumps(
        {name: [row[name] for row in many] for name in many[0]}
    ).encode(),
    "table": as_table,
    "parquet": as_parquet,
}


@given(st.lists(pairs, min_size=1, max_size=4), st.sampled_from([*FORMS]))
@tried(60)
def test_pairs_come_back_as_they_were_written_in_every_form(file, many, form):
    named = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in many]
    path = file.with_suffix(".csv" if form == "table" else ".x")
    path.write_bytes(FORMS[form](named))
    assert of(read(path)) == many


@given(st.lists(pairs, min_size=1, max_size=4), st.sampled_from(["utf-16", "utf-32", "utf-8-sig"]))
@tried(20)
def test_pairs_come_back_in_other_encodings(file, many, encoding):
    named = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in many]
    file.write_bytes(as_lines(named).decode().encode(encoding))
    assert of(read(file, encoding=encoding)) == many
    said = read(file)
    assert of(said) == many if encoding == "utf-8-sig" else f"--encoding {encoding}" in said


finite = json_values.filter(lambda value: "Infinity" not in json.dumps(value))


@given(
    st.tuples(words, words, words).filter(lambda row: row[1] != row[2]),
    st.dictionaries(any_text, finite, max_size=3),
    st.booleans(),
)
@tried(40)
def test_records_that_are_written_are_read_again(file, row, extra, ended):
    record = PreferenceRecord(*row, extra, chosen_ended=ended)
    _, refusal = outcome(write_jsonl, file, [record])
    if refusal:
        assert refusal.startswith("record 1 cannot be written")
        assert any("\ud800" <= c <= "\udfff" for c in json.dumps(extra, ensure_ascii=False))
        return
    (again,) = read_jsonl(file)
    assert same(again.to_row(), record.to_row())


def same(a, b):
    """Equality that takes NaN for NaN."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(words, words, words)
@tried(40)
def test_a_drawn_pair_is_asked_only_if_train_reads_it_unchanged(file, prompt, first, second):
    file.write_text(json.dumps({"prompt": prompt, "answers": [first, second]}), encoding="utf-8")
    found, refusal = outcome(read_drawn, file)
    if refusal:
        assert file.name in refusal
        return
    (drawn,) = found
    if not is_readable(drawn.prompt, *drawn.answers):
        return
    file.write_bytes(as_lines([pair_row(drawn.prompt, *drawn.answers)] * 2))
    assert of(read(file)) == [(drawn.prompt, first, second)] * 2
