"""Rows of preference files, in every form that users bring, as records.

Every row becomes a `PreferenceRecord` or a `Problem` with its place and reason; none is left out
in silence, no text is cut, and what is done beyond reading is counted in ``notes``. Forms of a row:

- ``prompt``, ``chosen``, ``rejected`` as text (chapter 1's annotator writes this);
- messages, ``[{"role": "user", "content": "..."}, ...]``, in any of the three, also of ShareGPT's
  names (``from``, ``value``) and written as a string of JSON or Python; ``tools`` beside them;
- Alpaca: ``instruction``, ``input``, ``history``; ``question`` and ``query`` are prompts too;
- transcripts, ``Human: ... Assistant: ...`` (Anthropic's HH), with or without a ``prompt``;
- no prompt: then it is what ``chosen`` and ``rejected`` have in common at their beginning;
- lists of responses, or a response a row, with scores: the best against the worst (``score``);
- two responses and a column that says which is better (``label``; SHP's by itself);
- ``input`` with its ``messages``, ``preferred_output``, ``non_preferred_output`` (OpenAI's files);
- a ``system`` text, which becomes the first message;
- ``chosen_ended``, ``rejected_ended`` and, of one response, ``ended``: false where it was cut.

A response with a verdict of its own, not a pair, is an `UnpairedRecord` (`read_unpaired`);
`read_feedback` reads either.
"""

from dpo_lib.data.formats.columns import BadRow
from dpo_lib.data.formats.conversations import Conversation, with_system
from dpo_lib.data.formats.reading import (
    PreferenceFile,
    Problem,
    read_feedback,
    read_preferences,
    read_unpaired,
)
from dpo_lib.data.formats.rows import make_prompt, make_record, make_unpaired

__all__ = [
    "BadRow",
    "Conversation",
    "PreferenceFile",
    "Problem",
    "make_prompt",
    "make_record",
    "make_unpaired",
    "read_feedback",
    "read_preferences",
    "read_unpaired",
    "with_system",
]
