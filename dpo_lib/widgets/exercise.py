"""Every chapter: an exercise that is written and checked in the page, in Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpo_lib.exercises import diagnosis
from dpo_lib.exercises.sheet import read_sheet, sheet_numbers
from dpo_lib.widgets import live
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import WidgetSpec

ASKED = "Put your own line in place of the dots, then press Check."


class Exercise(BookWidget):
    """An editor with the stub of an exercise; its checker answers in words. Made by `of`."""

    load = "near"
    parts = live.parts("exercises", "python")

    @classmethod
    def of(cls, number: str) -> Exercise:
        """Return the editor of an exercise, such as ``"2.1"``, that needs no tensors."""
        return cls(cls.spec_of(number))

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the first exercise of chapter 2."""
        return cls.spec_of("2.1")

    @staticmethod
    def spec_of(number: str) -> WidgetSpec:
        """Describe the editor of one exercise; `ValueError` if it has none."""
        if not isinstance(number, str) or number not in sheet_numbers():
            raise ValueError(f"number must be one of {', '.join(sheet_numbers())}, got {number!r}")
        sheet = read_sheet(number)
        return WidgetSpec(
            kind="exercise",
            title=f"Build it here: {sheet['name'].replace('_', ' ')}",
            data={"number": number, "name": sheet["name"], "line": sheet["line"], "asked": ASKED},
            state={"code": stub(sheet), "note": ""},
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say what the checker found, or what is to do."""
        return values["note"] or ASKED


def stub(sheet: Mapping[str, Any]) -> str:
    """What stands in the editor at first: the signature, and what two cases should give."""
    name = sheet["name"]
    examples = [
        f"    # {name}({', '.join(map(plainly, case['arguments']))}) is {plainly(case['value'])}"
        for case in sheet["cases"][:2]
    ]
    lines = [f"def {name}({', '.join(sheet['arguments'])}):", *examples, "    return ...", ""]
    return "\n".join(lines)


def plainly(value: Any) -> str:
    """A value as it is typed in Python, four digits of each number."""
    return diagnosis.show(value).replace("−", "-")
