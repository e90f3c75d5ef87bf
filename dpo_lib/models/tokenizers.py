"""Text to token ids and back: words for the tiny world, bytes for any text.

Both tokenizers offer the same four methods, so that data and evaluation need not know which one
they hold: ``encode_prompt``, ``encode_response`` (ends with EOS), ``decode`` and ``len``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dpo_lib._validation import check_whole

# "A)" is one token of a quiz; "Earth's" is one word; any other mark stands alone.
_TOKEN = re.compile(r"<\w+>|[A-D]\)|[A-Za-z]+(?:'[a-z]+)?|\d+|\S")
_NO_SPACE_BEFORE = re.compile(r" (?=[.,?!:](?: |$))")


class WordTokenizer:
    """One id per word or punctuation mark of a closed vocabulary.

    Parameters
    ----------
    words : iterable of str
        The vocabulary without specials. Ids 0 and 1 are the specials PAD and EOS.
    """

    PAD, EOS = "<pad>", "<eos>"

    def __init__(self, words: Iterable[str]) -> None:
        try:
            self.words = (self.PAD, self.EOS, *(_check_text(word, "words") for word in words))
        except TypeError as error:
            raise ValueError(f"words must be a sequence of strings, got {words!r}") from error
        self.ids = {word: index for index, word in enumerate(self.words)}
        if len(self.ids) != len(self.words):
            repeated = sorted({word for word in self.words if self.words.count(word) > 1})
            raise ValueError(f"words must be distinct, got these more than once: {repeated}")
        for word in self.words:
            if _TOKEN.findall(word) != [word]:
                raise ValueError(f"words must be single tokens, got {word!r}")
        self.pad_id, self.eos_id = 0, 1

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Ids of the words of a text, without EOS; ValueError names words not in the vocabulary."""
        pieces = _TOKEN.findall(_check_text(text))
        unknown = [piece for piece in pieces if piece not in self.ids]
        if unknown:
            raise ValueError(f"text has words outside the vocabulary: {unknown}")
        return [self.ids[piece] for piece in pieces]

    encode_prompt = encode

    def encode_response(self, text: str) -> list[int]:
        """Ids of a response, ended by EOS."""
        return [*self.encode(text), self.eos_id]

    def decode(self, ids: Iterable[int], keep_specials: bool = False) -> str:
        """Text of the ids, marks joined to their words; specials left out unless kept."""
        ids = _check_ids(ids)
        for i in ids:
            if not 0 <= i < len(self.words):
                raise ValueError(f"ids must lie in [0, {len(self.words)}), got {i}")
        if not keep_specials:
            ids = [i for i in ids if i not in (self.pad_id, self.eos_id)]
        return _NO_SPACE_BEFORE.sub("", " ".join(self.words[i] for i in ids))


class InstructionTokenizer:
    """UTF-8 bytes with four specials, so that any text can be a prompt or a response.

    A prompt becomes ``INST bytes RESP`` and a response ``bytes EOS``; ids 0-255 are the bytes.
    """

    INST, RESP, EOS, PAD = 256, 257, 258, 259

    def __init__(self) -> None:
        self.pad_id, self.eos_id = self.PAD, self.EOS

    def __len__(self) -> int:
        return 260

    def encode(self, text: str) -> list[int]:
        """The bytes of a text, without specials."""
        try:
            return list(_check_text(text).encode("utf-8"))
        except UnicodeEncodeError as error:
            raise ValueError(f"text holds half a character: {error.reason}") from error

    def encode_prompt(self, text: str) -> list[int]:
        """The bytes of an instruction between INST and RESP."""
        return [self.INST, *self.encode(text), self.RESP]

    def encode_response(self, text: str) -> list[int]:
        """The bytes of a response, ended by EOS."""
        return [*self.encode(text), self.EOS]

    def decode(self, ids: Iterable[int], keep_specials: bool = False) -> str:
        """Text of the ids; broken UTF-8 (as a model may write) shows as U+FFFD."""
        names = {self.INST: "<inst>", self.RESP: "<resp>", self.EOS: "<eos>", self.PAD: "<pad>"}
        text = bytearray()
        for i in _check_ids(ids):
            if not 0 <= i < len(self):
                raise ValueError(f"ids must lie in [0, {len(self)}), got {i}")
            if i < 256:
                text.append(i)
            elif keep_specials:
                text += names[i].encode()
        return text.decode("utf-8", errors="replace")


def _check_text(text: object, name: str = "text") -> str:
    if not isinstance(text, str):
        raise ValueError(f"{name} must be text, got {text!r}")
    return text


def _check_ids(ids: Iterable[int]) -> list[int]:
    try:
        return [check_whole(i, "each of ids") for i in ids]
    except TypeError as error:
        raise ValueError(f"ids must be a sequence of token ids, got {ids!r}") from error
