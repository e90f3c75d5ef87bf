"""What the book and the library consist of, for the extensions and the tests alike.

Pages are listed in ``_toc.yml``; the rooms of the library stand in ``pyproject.toml``, in the order
of the derivation. A new page or module is named there, and nowhere else.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def _files(node: dict[str, Any]) -> Iterator[str]:
    """Yield every page named in a part of the table of contents."""
    for key in ("root", "file"):
        if key in node:
            yield node[key]
    for key in ("parts", "chapters", "sections"):
        for child in node.get(key, []):
            yield from _files(child)


PAGES = list(_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))))
CHAPTERS = {int(m[1]): page for page in PAGES if (m := re.match(r"notebooks/(\d+)_", page))}
APPENDICES = {m[1]: page for page in PAGES if (m := re.match(r"book/appendices/([a-z])_", page))}
NOTEBOOKS = [page for page in PAGES if (ROOT / f"{page}.ipynb").is_file()]

_SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS: list[list[str]] = _SETTINGS["tool"]["dpo-lib"]["rooms"]


def appendix(name: str) -> str:
    """Return the page of an appendix whatever its letter is: ``glossary``."""
    (page,) = (page for page in APPENDICES.values() if page.partition("_")[2] == name)
    return page
