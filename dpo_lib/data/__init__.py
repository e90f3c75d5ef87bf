"""Preference records: on disk as they are found, in memory as text, in training as batches."""

from dpo_lib.data.files import json_lines
from dpo_lib.data.records import (
    Batch,
    PreferenceDataset,
    PreferenceRecord,
    Tokenizer,
    UnpairedDataset,
    UnpairedRecord,
    encode_answers,
    encode_record,
    make_preferences,
    read_jsonl,
    split_by_prompt,
    write_jsonl,
)
from dpo_lib.logprobs import pad as pad  # its place is beside what reads the masks

__all__ = [
    "Batch",
    "PreferenceDataset",
    "PreferenceRecord",
    "Tokenizer",
    "UnpairedDataset",
    "UnpairedRecord",
    "encode_answers",
    "encode_record",
    "json_lines",
    "make_preferences",
    "read_jsonl",
    "split_by_prompt",
    "write_jsonl",
]
