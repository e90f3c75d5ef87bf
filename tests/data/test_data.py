"""Preference records: files, splits and padded batches."""

import json
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpo_lib.data import (
    PreferenceDataset,
    PreferenceRecord,
    UnpairedRecord,
    make_preferences,
    pad,
    read_jsonl,
    split_by_prompt,
    write_jsonl,
)
from dpo_lib.data.records import encode_record
from dpo_lib.models import InstructionTokenizer
from dpo_lib.world import world_tokenizer
from tests.helpers import deterministic

RECORDS = [
    PreferenceRecord("What is the capital of France?", "Paris.", "I do not know."),
    PreferenceRecord("My order is late.", "I am sorry. Please wait.", "Please wait."),
    PreferenceRecord("What is 2 + 2?", "4.", "It is 5."),
]

text = st.text(min_size=1).filter(str.strip)


class TestRecord:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (
                {"prompt": "a", "chosen": "b"},
                r"missing rejected; the row has \['chosen', 'prompt'\]",
            ),
            ({"prompt": "a", "chosen": "b", "rejected": "b"}, "must differ, both are 'b'"),
            ({"prompt": " ", "chosen": "b", "rejected": "c"}, "prompt must not be empty"),
            ({"prompt": "a", "chosen": "", "rejected": "c"}, "chosen must not be empty"),
            ({"prompt": "a", "chosen": "b", "rejected": 3}, "rejected must be text, got 3"),
            (["a", "b", "c"], "must be a JSON object"),
        ],
    )
    def test_bad_rows_are_named(self, row, message):
        with pytest.raises(ValueError, match=message):
            PreferenceRecord.from_row(row)

    def test_other_keys_are_kept(self):
        row = {"prompt": "a", "chosen": "b", "rejected": "c", "seconds": 1.5}
        record = PreferenceRecord.from_row(row)
        assert record.extra == {"seconds": 1.5}
        assert record.to_row() == row
        assert len({record, record}) == 1


class TestJsonl:
    @deterministic
    @given(rows=st.lists(st.tuples(text, text, text).filter(lambda r: r[1] != r[2]), max_size=5))
    def test_any_text_survives(self, tmp_path_factory, rows):
        path = tmp_path_factory.mktemp("jsonl") / "pairs.jsonl"
        records = [PreferenceRecord(*row, {"seconds": 0.5}) for row in rows]
        write_jsonl(path, records)
        assert read_jsonl(path) == records

    def test_every_bad_line_is_named_by_number(self, tmp_path):
        good = json.dumps(RECORDS[0].to_row()).encode()
        lines = [good, b"", b"{oops", good, b'{"prompt": "a"}', b'"\xff"', b"[]"]
        path = tmp_path / "bad.jsonl"
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(ValueError, match=r"bad\.jsonl has 4 bad lines") as error:
            read_jsonl(path)
        found = [line.split(":")[0] for line in str(error.value).splitlines()[1:]]
        assert found == ["line 3", "line 5", "line 6", "line 7"]

    def test_a_line_nested_too_deep_is_a_bad_line(self, tmp_path):
        path = tmp_path / "deep.jsonl"
        path.write_text("[" * 100_000)
        with pytest.raises(ValueError, match=r"line 1: .*nested too deep"):
            read_jsonl(path)

    def test_blank_lines_windows_ends_and_byte_order_mark(self, tmp_path):
        lines = [json.dumps(record.to_row()) for record in RECORDS]
        path = tmp_path / "w.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines).encode())
        assert read_jsonl(path) == RECORDS

    def test_line_separators_inside_text_do_not_split_lines(self, tmp_path):
        record = PreferenceRecord("a\u2028b\nc", "b", "c")
        write_jsonl(tmp_path / "s.jsonl", [record])
        assert read_jsonl(tmp_path / "s.jsonl") == [record]

    def test_interrupted_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "pairs.jsonl"
        write_jsonl(path, RECORDS)
        before = path.read_bytes()

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            write_jsonl(path, RECORDS[:1])
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


class TestPad:
    def test_sides(self):
        tokens, mask = pad([[1, 2, 3], [4]], 9, "left")
        assert tokens.tolist() == [[1, 2, 3], [9, 9, 4]]
        assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
        tokens, mask = pad([[1, 2, 3], [4]], 9, "right")
        assert tokens.tolist() == [[1, 2, 3], [4, 9, 9]]
        assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]

    @pytest.mark.parametrize(
        ("rows", "side", "message"),
        [([], "left", "got lengths"), ([[1], []], "left", r"\[1, 0\]"), ([[1]], "up", "got 'up'")],
    )
    def test_bad_input_is_named(self, rows, side, message):
        with pytest.raises(ValueError, match=message):
            pad(rows, 0, side)


class TestDataset:
    @pytest.mark.parametrize("tokenizer", [world_tokenizer(), InstructionTokenizer()])
    def test_masks_select_the_texts_and_eos(self, tokenizer):
        batch = PreferenceDataset(RECORDS, tokenizer).batch()
        assert sorted(batch) == sorted(
            [*("prompt", "chosen", "rejected"), *("prompt_mask", "chosen_mask", "rejected_mask")]
        )
        for i, record in enumerate(RECORDS):
            for name in ("prompt", "chosen", "rejected"):
                ids = batch[name][i][batch[f"{name}_mask"][i].bool()]
                assert tokenizer.decode(ids) == getattr(record, name)
                assert (ids[-1] == tokenizer.eos_id) == (name != "prompt")
        assert batch["prompt_mask"][:, -1].all()  # prompts end together …
        assert batch["chosen_mask"][:, 0].all()  # … so that responses start together

    def test_batches_visit_every_record_before_any_twice(self):
        dataset = PreferenceDataset(make_preferences(), InstructionTokenizer())
        seen = [tuple(row) for b in dataset.batches(4, 3, seed=0) for row in b["prompt"].tolist()]
        assert len({tuple(t for t in row if t != 259) for row in seen}) == 12
        again = list(dataset.batches(4, 3, seed=0))
        assert torch.equal(again[0]["prompt"], next(dataset.batches(4, 1, seed=0))["prompt"])
        other = next(dataset.batches(12, 1, seed=1))["prompt"]
        assert not torch.equal(other, next(dataset.batches(12, 1, seed=0))["prompt"])

    def test_batch_may_be_larger_than_the_data(self):
        dataset = PreferenceDataset(RECORDS, world_tokenizer())
        assert next(dataset.batches(8, 1, seed=0))["prompt"].shape[0] == 8

    def test_works_as_a_collate_function(self):
        dataset = PreferenceDataset(RECORDS, world_tokenizer())
        loader = torch.utils.data.DataLoader(dataset, 3, collate_fn=dataset.collate)
        assert torch.equal(next(iter(loader))["chosen"], dataset.batch()["chosen"])

    def test_bad_input_is_named(self):
        with pytest.raises(ValueError, match="records must hold at least one"):
            PreferenceDataset([], world_tokenizer())
        with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
            next(PreferenceDataset(RECORDS, world_tokenizer()).batches(0, 1, seed=0))
        with pytest.raises(ValueError, match=r"outside the vocabulary: \['hello'\]"):
            PreferenceDataset([PreferenceRecord("hello", "The", "the")], world_tokenizer())


class TestSplit:
    records = tuple(PreferenceRecord(f"p{i % 10}", f"a{i}", f"b{i}") for i in range(100))

    def test_no_prompt_on_both_sides(self):
        train, held_out = split_by_prompt(self.records, 0.2)
        assert len(train) + len(held_out) == 100
        assert len({r.prompt for r in held_out}) == 2
        assert not {r.prompt for r in train} & {r.prompt for r in held_out}
        assert (train, held_out) == split_by_prompt(self.records, 0.2)
        assert held_out != split_by_prompt(self.records, 0.2, seed=1)[1]

    def test_forms_of_one_prompt_stay_together_in_whatever_order_they_come(self):
        forms = [(f"P{i}", f"p{i}?")[:: (-1) ** i] for i in range(10)]
        records = [PreferenceRecord(form, "a", "b") for both in forms for form in both]
        train, held_out = split_by_prompt(records, 0.3)
        assert len({r.prompt.strip("?").lower() for r in held_out}) == 3
        assert (len(train), len(held_out)) == (14, 6)
        again = split_by_prompt(records[::-1], 0.3)
        assert [{r.prompt for r in side} for side in again] == [
            {r.prompt for r in side} for side in (train, held_out)
        ]

    @pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 0.01, 0.99])
    def test_bad_shares_are_named(self, share):
        with pytest.raises(ValueError, match=f"held_out_share.*{share}"):
            split_by_prompt(self.records, share)


class TestTwelve:
    def test_lengths_are_reversed_in_the_second_set(self):
        for winners, sign in (("shorter", -1), ("longer", 1)):
            records = make_preferences(winners)
            assert len(records) == len({r.prompt for r in records}) == 12
            assert all((len(r.chosen) - len(r.rejected)) * sign > 0 for r in records)

    def test_both_sets_share_prompts_but_no_pair(self):
        shorter, longer = make_preferences("shorter"), make_preferences("longer")
        assert [r.prompt for r in shorter] == [r.prompt for r in longer]
        for a, b in zip(shorter, longer, strict=True):
            assert len({a.chosen, a.rejected, b.chosen, b.rejected}) == 4

    def test_bad_choice_is_named(self):
        with pytest.raises(ValueError, match="got 'best'"):
            make_preferences("best")


def test_an_answer_that_was_cut_has_no_end_token():
    tokenizer = InstructionTokenizer()
    pair = PreferenceRecord("a", "b", "c", rejected_ended=False)
    row = encode_record(pair, tokenizer)
    assert row["chosen"] == [98, tokenizer.EOS]
    assert row["rejected"] == [99]
    assert encode_record(UnpairedRecord("a", "b", True, ended=False), tokenizer)["response"] == [98]
    assert PreferenceRecord.from_row(pair.to_row()) == pair
    assert pair.to_row() == {"prompt": "a", "chosen": "b", "rejected": "c", "rejected_ended": False}
    for make in (
        lambda: PreferenceRecord("a", "b", "c", chosen_ended=1),
        lambda: UnpairedRecord("a", "b", True, ended=None),
    ):
        with pytest.raises(ValueError, match="ended must be True or False, got"):
            make()
