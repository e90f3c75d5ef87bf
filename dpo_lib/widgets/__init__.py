"""Widgets of the book: ``widgets.ScoreSigmoid()`` in a notebook, native sliders on a static page.

A widget is two files with one name: ``js/widgets/score_sigmoid.js`` draws, ``score_sigmoid.py``
holds its class ``ScoreSigmoid``. This module finds them by file name and imports on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dpo_lib.widgets.join import kinds

if TYPE_CHECKING:
    from dpo_lib.widgets.base import BookWidget


def class_name(kind: str) -> str:
    """Return the class name of a kind: ``score_sigmoid`` → ``ScoreSigmoid``."""
    return "".join(part.capitalize() for part in kind.split("_")).replace("Dpo", "DPO")


__all__ = sorted(map(class_name, kinds()))


def __getattr__(name: str) -> type[BookWidget]:
    for kind in kinds():
        if class_name(kind) == name:
            return getattr(importlib.import_module(f"{__name__}.{kind}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "class_name", "kinds"]
