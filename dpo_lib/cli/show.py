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

    def text_of(part: Sequence[int]) -> str:
        if not marked:  # together: a character may be several tokens, a space may need two
            return tokenizer.decode(part, keep_specials=True)
        words = (tokenizer.decode([i], keep_specials=True) for i in part)
        return "".join(f"‹{word}›" for word in words).replace("\n", "⏎")

    text = text_of(ids)
    if len(ids) > LONGEST:
        half = LONGEST // 2
        gap = f" [... {len(ids) - LONGEST:,} more tokens ...] "
        text = f"{text_of(ids[:half])}{gap}{text_of(ids[-half:])}"
    lines = [
        part
        for line in text.replace("\n", "⏎\n").split("\n")
        for part in textwrap.wrap(line, WIDTH, drop_whitespace=False, break_on_hyphens=False)
    ]
    return "\n".join([f"  {what}: {len(ids):,} tokens", *(f"    {line}" for line in lines)])
