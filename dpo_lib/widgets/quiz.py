"""Every chapter: a few questions at its end, each wrong answer with a word of its own.

The questions of a chapter are ``data/quiz/N.json``: a list of ``{"question", "right", "wrong"}``,
where an answer is ``[text, why]``. Numbers that stand in no other part of the chapter come with
what yields them, ``"values": {"0.941": "expression"}``; the tests hold them to it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import WidgetSpec

FOLDER = Path(__file__).parent / "data" / "quiz"
CHAPTERS = [str(n) for n in range(1, 11)]


class Quiz(BookWidget):
    """Questions with one right answer, checked one by one. Made by `of`."""

    load = "near"

    @classmethod
    def of(cls, chapter: str) -> Quiz:
        """Return the quiz of a chapter, such as ``"2"``."""
        return cls(cls.spec_of(chapter))

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the quiz of chapter 2."""
        return cls.spec_of("2")

    @staticmethod
    def spec_of(chapter: str) -> WidgetSpec:
        """Describe the quiz of a chapter; `ValueError` if there is none."""
        asked = questions(chapter)
        return WidgetSpec(
            kind="quiz",
            title=f"Check yourself: chapter {chapter}",
            data={"chapter": chapter, "questions": [_arrange(question) for question in asked]},
            # the option picked in each question (−1: none), and what Check said of it
            state={"picked": [-1] * len(asked), "verdicts": [""] * len(asked)},
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say how many questions were checked, and how many of them are right."""
        verdicts = list(values["verdicts"])
        given, right = sum(map(bool, verdicts)), verdicts.count("right")
        if not given:
            return f"{len(verdicts)} questions. Pick an answer, then press Check."
        return f"{given} of {len(verdicts)} answered, {right} right."


def questions(chapter: str) -> list[dict[str, Any]]:
    """Return the questions of a chapter as they stand in its file."""
    if not isinstance(chapter, str) or chapter not in CHAPTERS:
        raise ValueError(f"chapter must be one of {', '.join(CHAPTERS)}, got {chapter!r}")
    return _read(chapter)


@functools.cache
def _read(chapter: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{chapter}.json").read_text(encoding="utf-8"))


def _arrange(question: Mapping[str, Any]) -> dict[str, Any]:
    """The question as the browser reads it: answers by alphabet, so that none stands out."""
    answers = sorted([question["right"], *question["wrong"]])
    return {
        "question": question["question"],
        "answers": answers,
        "right": answers.index(question["right"]),
    }
