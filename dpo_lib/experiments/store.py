"""How the experiments store their results: a sum over them, settings, and one row a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dpo_lib._files import replacing

RESULTS = Path(__file__).parents[1] / "results"  # where installed notebooks find them


def store(
    name: str,
    settings: Mapping[str, Any],
    rows: Iterable[Mapping[str, Any]],
    folder: Path = RESULTS,
) -> Path:
    """Write ``folder/NAME.json``, numbers rounded to six digits; the old file stays until then.

    The file begins with the SHA-256 of the lines below it: a result is measured, never edited.
    """
    lines = ",\n  ".join(_line(row) for row in rows)
    text = f' "settings": {_line(settings)},\n "rows": [\n  {lines}\n ]\n}}\n'
    text = f'{{\n "sha256": "{hashlib.sha256(text.encode()).hexdigest()}",\n{text}'
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    with replacing(path) as file:
        file.write(text.encode())
    return path


def _line(value: object) -> str:
    return json.dumps(_rounded(value), ensure_ascii=False, allow_nan=False)


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple | range):
        return [_rounded(part) for part in value]
    return value
