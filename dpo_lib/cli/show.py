"""The command ``show``: pairs, or thumbs, as the model will read them, and what to know of them."""

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
        one = "thumb" if read.file.unpaired else "pair"
        print(f"\n{one} {i + 1} ({read.file.unit} {pairs.lines[i]})")
        print(_shown("prompt, not scored", row["prompt"], opened.tokenizer))
        names = {"chosen": "chosen", "rejected": "rejected"}
        if read.file.unpaired:
            names = {"response": f"response, thumb {'up' if row['desirable'] else 'down'}"}
        for name, what in names.items():
            print(_shown(f"{what}, scored", row[name], opened.tokenizer, marked=True))
    print(f"\n{pairs.introduce()}")
    if read.file.unpaired and (about := data.about_thumbs(pairs.records)):
        print(f"look   {about}")
    return 0


def _shown(what: str, ids: Sequence[int], tokenizer: Any, marked: bool = False) -> str:
    """Token ids as text; where they are scored each token stands between marks."""
    words = [tokenizer.decode([i], keep_specials=True) for i in ids]
    if len(words) > LONGEST:
        half = LONGEST // 2
        words[half:-half] = [f" [... {len(words) - LONGEST:,} more tokens ...] "]
    if marked:
        text = "".join(f"‹{word}›" for word in words).replace("\n", "⏎")
    else:  # several tokens may be one character; the tiny model's are words without spaces
        text = "".join(words)
        apart = "\ufffd" in text or not hasattr(tokenizer, "backend")
        if apart and len(ids) <= LONGEST:
            text = tokenizer.decode(list(ids), keep_specials=True)
    lines = [
        part
        for line in text.replace("\n", "⏎\n").split("\n")
        for part in textwrap.wrap(line, WIDTH, drop_whitespace=False, break_on_hyphens=False)
        if part
    ]
    return "\n".join([f"  {what}: {len(ids):,} tokens", *(f"    {line}" for line in lines)])
