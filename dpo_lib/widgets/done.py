"""The page of what the reader has done: exercises, quizzes, bets and clicks, by chapter.

The browser keeps it (``js/progress.js``, ``js/bets.js``, ``js/clicks.js``); what there is in all
comes from outside: the book's build reads it from the notebooks (``book/_ext/dpo_done.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.quiz import CHAPTERS, questions
from dpo_lib.widgets.spec import WidgetSpec

FIRST = "All of this stays in this browser. Nothing is sent anywhere."


class Done(BookWidget):
    """What the reader has done, to look at, to take along as a file, and to erase."""

    load = "near"

    @classmethod
    def of(cls, chapters: Sequence[Mapping[str, Any]]) -> Done:
        """Return the widget with this list of what there is; see `spec_of`."""
        return cls(cls.spec_of(chapters))

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget with what the library itself knows: checked exercises and quizzes."""
        from dpo_lib.exercises.all import EXERCISES

        return cls.spec_of(
            [
                {
                    "name": f"Chapter {chapter}",
                    "exercises": [
                        {"key": number, "title": f"Build it: {exercise.name.replace('_', ' ')}"}
                        for number, exercise in EXERCISES.items()
                        if number.partition(".")[0] == chapter
                    ],
                    "quiz": {"chapter": chapter, "questions": len(questions(chapter))},
                    **({"clicks": {}} if chapter == "1" else {}),
                }
                for chapter in CHAPTERS
            ]
        )

    @staticmethod
    def spec_of(chapters: Sequence[Mapping[str, Any]]) -> WidgetSpec:
        """Describe the widget.

        Parameters
        ----------
        chapters : sequence of mapping
            Each has a ``name``, and may have a ``title``, ``exercises`` (``key``, ``title``,
            ``minutes``, ``href``), a ``quiz`` (``chapter``, ``questions``, ``href``), ``bets``
            (the data of their widgets with ``title`` and ``href``) and ``clicks`` (``href``),
            where the annotator stands.

        Raises
        ------
        ValueError
            If a chapter is no mapping with a ``name``.
        """
        if not isinstance(chapters, list | tuple) or not all(
            isinstance(chapter, Mapping) and isinstance(chapter.get("name"), str)
            for chapter in chapters
        ):
            raise ValueError(f"chapters must be a list of mappings with a name, got {chapters!r}")
        return WidgetSpec(
            kind="done",
            title="What you have done",
            data={"chapters": [dict(chapter) for chapter in chapters]},
            # what was said last, and whether the question before erasing is open
            state={"note": "", "asked": False},
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say where it is kept, or what was done last."""
        return values["note"] or FIRST
