"""Preference records: on disk as they are found, in memory as text, in training as batches."""

from dpo_lib.data.records import (
    Batch,
    PreferenceDataset,
    PreferenceRecord,
    Tokenizer,
    json_lines,
    make_preferences,
    pad,
    read_jsonl,
    split_by_prompt,
    write_jsonl,
)

__all__ = [
    "Batch",
    "PreferenceDataset",
    "PreferenceRecord",
    "Tokenizer",
    "json_lines",
    "make_preferences",
    "pad",
    "read_jsonl",
    "split_by_prompt",
    "write_jsonl",
]
