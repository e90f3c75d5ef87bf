"""The command ``show``: pairs as the model will read them, and what to know about the data."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any

from dpo_lib.cli import data

WIDTH = 98
LONGEST = 400  # tokens of a text that are shown


def run_show(args: argparse.Namespace) -> int:
    """Print some pairs with their control tokens, how they were made, and the audit."""
    settings = data.DataSettings.of(args)
    read, opened, pairs = data.open_pairs(settings, args.model, args.progress)
    print(f"{settings.name}: {data.describe(pairs.records, pairs.skipped)}")
    for i, row in enumerate(pairs.dataset.rows[: args.rows]):
        print(f"\npair {i + 1} ({read.file.unit} {pairs.lines[i]})")
        print(_shown("prompt, not scored", row["prompt"], opened.tokenizer))
        for name in ("chosen", "rejected"):
            print(_shown(f"{name}, scored", row[name], opened.tokenizer, marked=True))
    print(f"\n{pairs.introduce()}")
    return 0


def _shown(what: str, ids: Sequence[int], tokenizer: Any, marked: bool = False) -> str:
    """Token ids as text; where they are scored each token stands between marks."""
    words = [tokenizer.decode([i], keep_specials=True) for i in ids]
    if len(words) > LONGEST:
        half = LONGEST // 2
        words[half:-half] = [f" [... {len(words) - LONGEST:,} more tokens ...] "]
    if marked:
        text = "".join(f"‹{word}›" for word in words).replace("\n", "⏎")
    else:  # several tokens may be one character
        text = "".join(words)
        if "\ufffd" in text and len(ids) <= LONGEST:
            text = tokenizer.decode(list(ids), keep_specials=True)
    lines = [
        part
        for line in text.replace("\n", "⏎\n").split("\n")
        for part in textwrap.wrap(line, WIDTH, drop_whitespace=False, break_on_hyphens=False)
        if part
    ]
    return "\n".join([f"  {what}: {len(ids):,} tokens", *(f"    {line}" for line in lines)])
