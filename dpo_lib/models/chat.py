"""From prompts and answers to token ids: transformers' tokenizers and their chat templates.

Rules, each held by a test against templates in the style of the families in use:

- what the template writes is control, what the data hold is text: a control string inside a prompt
  or an answer stays text, unless ``control_tokens`` is set;
- an answer is what stands behind the generation prompt in the rendered conversation, with all that
  the template puts before it (an empty think block, say); it is scored as a whole;
- it ends with the first special token behind the answer's own text, else with EOS, and with one;
  an answer that was cut ends with its own text;
- a prompt that is written in the template already is taken as it is.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION, _ANSWER = "qxqx", "zyzy"  # of the probe; no template holds them
_PLACES = 0x10F000  # private characters that stand for control strings of the data
_WORDS = r"\w*(?:think|thought|reason|analysis|scratchpad)\w*"
_THOUGHT = re.compile(rf"[<\[]({_WORDS})[>\]]\s*\Z", re.I)
_CLOSED = re.compile(rf"[<\[]/{_WORDS}[>\]]", re.I)
_THINKS = re.compile(rf"\s*[<\[]{_WORDS}[>\]]", re.I)
_EMPTY = re.compile(rf"(?:{_THINKS.pattern})?\s*{_CLOSED.pattern}\s*", re.I)
_OPEN = re.compile(r"[<\[]([^<>\[\]/|]+)[>\]]\s*\Z")


class _Turn(NamedTuple):
    """What a template puts around a question and its answer."""

    before: str  # the question
    between: str  # question and answer, the generation prompt at its end
    generation: str  # that prompt alone
    opening: str  # what a template without a generation prompt puts before answers
    block: str  # between the generation prompt and the answer
    tail: str  # between the answer and its end


class PretrainedTokenizer:
    """A tokenizer of transformers behind the methods that data and sampling use.

    Parameters
    ----------
    backend : PreTrainedTokenizerBase
        Any tokenizer of transformers. Used as it is, never changed.
    chat : bool, optional
        Put a prompt into the chat template as the user's message; by default if there is one.
        Without, a prompt is plain text to be continued.
    control_tokens : bool, optional
        Read control strings such as ``<|im_end|>`` inside prompts and answers as control tokens;
        by default they are text.
    answer_prefix : str, optional
        Put before every answer and scored with it, its control strings as control tokens.
    template : mapping, optional
        Variables of the chat template, such as ``{"enable_thinking": False}``.
    vocab_size : int, optional
        Ids that the model can embed; a pad token beyond them is replaced.

    Attributes
    ----------
    notes : Counter
        What was done to texts so far beyond encoding them, and how often.

    Raises
    ------
    ValueError
        If ``chat`` is asked for and there is no template or it cannot be used, or no token can
        end a response.
    """

    def __init__(
        self,
        backend: PreTrainedTokenizerBase,
        chat: bool | None = None,
        *,
        control_tokens: bool = False,
        answer_prefix: str = "",
        template: Mapping[str, Any] | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self.backend = backend
        self.chat = bool(backend.chat_template) if chat is None else chat
        self.control_tokens, self.answer_prefix = control_tokens, answer_prefix
        self.template = dict(template or {})
        self.notes: Counter[str] = Counter()
        if self.chat and not backend.chat_template:
            raise ValueError("chat is asked for, but the tokenizer has no chat template")
        special = {*backend.all_special_tokens, *backend.get_added_vocab()}
        self._special = _any_of(special)
        self._shielded: Any = None
        self._seams: dict[tuple[int, int], bool] = {}
        self._controls: tuple[str, ...] = ()
        self._control = None
        end = backend.eos_token_id
        if self.chat:
            self._turn, mark = self._probe()
            end = end if mark is None else backend.convert_tokens_to_ids(mark)
        if end is None:
            raise ValueError("the tokenizer has neither an end-of-turn token nor an eos_token")
        self.eos_id: int = end
        self.end: str = backend.convert_ids_to_tokens(end)
        self.pad_id: int = end if backend.pad_token_id is None else backend.pad_token_id
        if vocab_size is not None:
            if not 0 <= end < vocab_size:
                raise ValueError(
                    f"the end token {self.end!r} has the id {end}, the model embeds {vocab_size}"
                )
            if not 0 <= self.pad_id < vocab_size:
                self.pad_id = end  # pads are masked: any id that can be embedded will do
        marks = {*backend.all_special_tokens, self.end} | (
            self._turn_marks() if self.chat else set()
        )
        self._controls = tuple(sorted(marks, key=lambda mark: (-len(mark), mark)))
        self._control = _any_of(self._controls)
        ends = "|".join(re.escape(mark) for mark in {self.end, backend.eos_token or self.end})
        self._ends = re.compile(rf"(?:(?:{ends})\s*)+\Z")
        self._prefix = [] if self.chat else self._put_first()

    def __len__(self) -> int:
        return len(self.backend)

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, ready to be continued; a `Conversation` keeps its messages.

        Raises
        ------
        ValueError
            If the chat template refuses it, with the template's own message.
        """
        return self._encode(self._prompt(text)[0]) if self.chat else self._plain(text)

    def encode_response(self, text: str) -> list[int]:
        """Ids of a response to a single question, ended by the end-of-turn token."""
        text = self._own_text(text)
        if not self.chat:
            return self._end(self.answer_prefix + self._mark(text))
        turn = self._turn
        return self._end(f"{turn.block}{self.answer_prefix}{self._mark(text)}{turn.tail}")

    def encode_answers(
        self, prompt: str, answers: Sequence[str], ended: Sequence[bool] | None = None
    ) -> tuple[list[int], list[list[int]]]:
        """Ids of a prompt, and of each answer as the template writes it behind this prompt.

        An answer that has not ``ended`` has no end token, nor what the template puts before it.
        """
        ended = [True] * len(answers) if ended is None else ended
        if not self.chat:
            rows = [self.encode_response(text) for text in answers]
            cut = [ids if end else ids[:-1] for ids, end in zip(rows, ended, strict=True)]
            return self._plain(prompt), cut
        rendered, messages, tools = self._prompt(prompt)
        texts = [self._answer(rendered, messages, tools, text) for text in answers]
        tail = self._turn.tail
        return self._encode(rendered), [
            self._end(text) if end else self._encode(text.removesuffix(tail))
            for text, end in zip(texts, ended, strict=True)
        ]

    def decode(self, ids: Iterable[int], keep_specials: bool = False) -> str:
        """Text of the ids; specials left out unless kept."""
        return self.backend.decode(list(ids), skip_special_tokens=not keep_specials)

    def save(self, folder: str | Path) -> None:
        """Write the files that ``AutoTokenizer.from_pretrained`` reads."""
        self.backend.save_pretrained(folder)

    @property
    def controls(self) -> tuple[str, ...]:
        """Control strings: special tokens, and the marks that the template puts around turns."""
        return self._controls

    def is_templated(self, prompt: str) -> bool:
        """Whether a prompt is written in the chat template already."""
        return (
            self.chat
            and getattr(prompt, "messages", None) is None
            and (self._templated(str(prompt)) is not None)
        )

    def joins(self, prompt: Sequence[int], response: Sequence[int]) -> bool:
        """Whether prompt and response, as one text, would be the same tokens at their seam."""
        return self._joins(prompt[-1], response[0])

    def describe(self) -> str:
        """How a pair is put together, in a sentence."""
        end = f"{self.end!r} ends each response"
        if not self.chat:
            return f"no chat template: prompts are continued; {end}"
        turn = self._turn
        parts = ["prompts are put into the chat template"]
        if turn.opening:
            parts.append(
                f"it has no generation prompt: {turn.opening!r} ends the prompt, not scored"
            )
        if turn.block + self.answer_prefix:
            block = turn.block + self.answer_prefix
            parts.append(f"{block!r} stands before each answer and is scored")
        return "; ".join([*parts, end])

    # --- prompts ---------------------------------------------------------------------------------

    def _plain(self, text: str) -> list[int]:
        """A prompt without a template."""
        if getattr(text, "messages", None) is not None:
            raise ValueError("a prompt of several messages needs a chat template")
        bos = self.backend.bos_token
        if bos and self._prefix == [self.backend.bos_token_id] and text.startswith(bos):
            text = text[len(bos) :]
            self.notes[f"{bos} was there already, not put first twice,"] += 1
        return [*self._prefix, *self._encode(self._mark(text))]

    def _prompt(self, text: str) -> tuple[str, list[dict[str, str]] | None, list[Any]]:
        """A prompt in the template (control strings of the data marked), messages and tools."""
        messages = getattr(text, "messages", None)
        if messages is None:
            done = self._templated(str(text))
            if done is not None:
                self.notes["a prompt written in the chat template already taken as it is"] += 1
                return done, None, []
            messages = [{"role": "user", "content": str(text)}]
        elif any(self._templated(message["content"]) is not None for message in messages):
            raise ValueError("a message is written in the chat template already")
        messages = [
            {"role": message["role"], "content": self._mark(message["content"])}
            for message in messages
        ]
        tools = list(getattr(text, "tools", ()))
        rendered = self._render(messages, True, tools)
        if tools and rendered == self._render(messages, True):
            raise ValueError("the chat template has no place for tools")
        for message in messages:
            if message["content"].strip() not in rendered:
                self._note_left_out(message, rendered)
        return rendered + self._turn.opening, messages, tools

    def _note_left_out(self, message: Mapping[str, str], rendered: str) -> None:
        """A thought may be left out of an earlier answer, as thinking models do; nothing else."""
        rest = _CLOSED.split(message["content"])[-1].strip()
        if message["role"] != "assistant" or rest not in rendered:
            raise ValueError(
                f"the chat template leaves out the {message['role']}'s message "
                f"{message['content'].strip()!r:.50}, or a part of it"
            )
        self.notes["the thought of an earlier answer left out by the template"] += 1

    def _templated(self, text: str) -> str | None:
        """The text of a prompt that is written in the template already; otherwise None."""
        turn, bos = self._turn, self.backend.bos_token or ""
        first = turn.before.removeprefix(bos).lstrip()
        found = self._special.match(first) if self._special else None
        mark = found[0] if found else first.split()[0] if first.split() else ""
        bare = text.lstrip()
        bare = (bare.removeprefix(bos) if bos else bare).lstrip()
        closing = turn.between.removesuffix(turn.generation) if turn.generation else turn.between
        inside = closing.strip() or turn.between.strip()
        if not mark or not inside or not bare.startswith(mark) or inside not in bare:
            return None
        start = bos if bos and turn.before.startswith(bos) else ""
        end = bare.rstrip()
        for ending in (turn.between, turn.between.removesuffix(self._unclosed)):
            if ending.strip() and end.endswith(ending.rstrip()):
                return start + end + ending[len(ending.rstrip()) :]
        if turn.generation and end.endswith(closing.rstrip()):
            self.notes[f"the generation prompt {turn.generation!r} appended to a prompt"] += 1
            return start + end + closing[len(closing.rstrip()) :] + turn.generation
        if not found:
            return None
        raise ValueError(
            f"the prompt is written in the chat template already, but does not end with "
            f"{turn.between!r}"
        )

    # --- answers ---------------------------------------------------------------------------------

    def _own_text(self, text: str) -> str:
        """An answer without the end token, and without the assistant's header, if it has them."""
        own = self._ends.sub("", text)
        if own != text:
            self.notes[f"an end token ({text[len(own) :].strip()}) was there already"] += 1
        header = self._turn.generation.strip() if self.chat else ""
        if header and self._special.search(header) and own.lstrip().startswith(header):
            own = own.lstrip()[len(header) :].lstrip("\n")
            self.notes[f"{header!r} left out at the beginning of an answer"] += 1
        if not own.strip():
            raise ValueError("an answer holds no text beside its end token")
        return own

    def _answer(
        self,
        prompt: str,
        messages: list[dict[str, str]] | None,
        tools: list[Any],
        text: str,
    ) -> str:
        """An answer with all that the template puts before it and before its end."""
        own = self._mark(self._own_text(text))
        turn = self._turn
        block = ""
        if messages is not None:
            whole = self._render([*messages, {"role": "assistant", "content": own}], False, tools)
            if whole.startswith(prompt):
                rest = whole[len(prompt) :]
                place = rest.find(own)
                if place < 0:
                    place = rest.find(own.strip())
                    if place >= 0:
                        own = own.strip()
                        self.notes["white space around an answer left out by the template"] += 1
                if place < 0:
                    last = rest.rfind(self.end)
                    self.notes["an answer written anew by the template"] += 1
                    place, own = 0, rest[:last] if last > 0 else rest
                    own = own.removesuffix(turn.tail) if turn.tail else own
                block = rest[:place]
        opened = _THOUGHT.search(prompt) or (self._unclosed and _OPEN.search(prompt))
        if _EMPTY.fullmatch(block) and (_THINKS.match(own) or (opened and _CLOSED.search(own))):
            block = ""  # the answer's own thought takes the place of the template's empty one
        written = f"{block}{self.answer_prefix}"
        if opened:
            own = own.removeprefix(opened[0].strip()) if own.startswith(opened[0].strip()) else own
            closing = f"{opened[0].strip()[0]}/{opened[0].strip()[1:]}"
            if closing not in written + own:
                raise ValueError(
                    f"the generation prompt ends with {opened[0].strip()}, which the answer does "
                    f"not close: write the thought and {closing} before it, or give "
                    f"--answer-prefix {closing}"
                )
        return f"{written}{own}{turn.tail}"

    def _end(self, text: str) -> list[int]:
        return [*self._encode(text), self.eos_id]

    def _joins(self, last: int, first: int) -> bool:
        seam = (last, first)
        if seam not in self._seams:
            texts = [self.backend.decode([i], skip_special_tokens=False) for i in seam]
            alone = [self.backend.encode(text, add_special_tokens=False) for text in texts]
            if alone == [[last], [first]]:  # otherwise a token does not stand for itself as text
                both = self.backend.encode("".join(texts), add_special_tokens=False)
                self._seams[seam] = both == [last, first]
            else:
                self._seams[seam] = True
        return self._seams[seam]

    # --- the template ----------------------------------------------------------------------------

    def _render(
        self, messages: Sequence[Mapping[str, str]], answer_next: bool, tools: Sequence[Any] = ()
    ) -> str:
        try:
            text = self.backend.apply_chat_template(
                [dict(message) for message in messages],
                tools=list(tools) or None,
                add_generation_prompt=answer_next,
                tokenize=False,
                **self.template,
            )
        except Exception as error:  # a template is a program: it may raise anything
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"the chat template refuses this: {said}") from error
        if not isinstance(text, str):
            raise ValueError(f"the chat template gives no text, but {type(text).__name__}")
        return text

    def _probe(self) -> tuple[_Turn, str | None]:
        """What the template puts around a question and an answer, and the answer's end token."""
        question = {"role": "user", "content": _QUESTION}
        prompt = self._render([question], True)
        asked = self._render([question], False)
        whole = self._render([question, {"role": "assistant", "content": _ANSWER}], False)
        at, start = whole.rfind(_ANSWER), prompt.find(_QUESTION)
        if at < 0 or start < 0:
            raise ValueError("the chat template leaves out the question or the answer")
        behind = whole[at + len(_ANSWER) :]
        mark = self._special.search(behind) if self._special else None
        tail = behind[: mark.start()] if mark else ""
        opening = block = self._unclosed = ""
        if prompt == asked and whole.startswith(prompt):
            between = whole[len(prompt) : at]
            opening, block = (between, "") if between.strip() else ("", between)
        elif whole.startswith(prompt):
            block = whole[len(prompt) : at]
        else:
            shared = next(
                (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), 0
            )
            extra = prompt[shared:]
            self._unclosed = extra if _OPEN.search(extra) else ""
        between = prompt[start + len(_QUESTION) :] + opening
        generation = prompt[len(asked) :] if prompt.startswith(asked) else ""
        turn = _Turn(prompt[:start], between, generation + opening, opening, block, tail)
        return turn, mark and mark[0]

    def _turn_marks(self) -> set[str]:
        """Added tokens that the template writes around the turns of a user, special or not."""
        text = self._turn.before + self._turn.between.removesuffix(self._turn.generation)
        return {*(self._special.findall(text) if self._special else ())}

    # --- ids -------------------------------------------------------------------------------------

    def _put_first(self) -> list[int]:
        """What the tokenizer puts before any text (BOS, in some)."""
        bare, whole = (self.backend.encode("x", add_special_tokens=s) for s in (False, True))
        for i in range(len(whole) - len(bare) + 1):
            if whole[i : i + len(bare)] == bare:
                return whole[:i]
        return []

    def _mark(self, text: str) -> str:
        """The text with a private character in place of each control string."""
        if self.control_tokens or self._control is None:
            return text
        held = {*self._control.findall(text)}
        if not held:
            return text
        taken = [c for c in text if _PLACES <= ord(c) < _PLACES + len(self._controls)]
        if taken:
            raise ValueError(f"a text holds both {held} and the private character {taken[0]!r}")
        self.notes[f"{', '.join(sorted(held))} inside a text kept as text"] += 1
        return self._control.sub(lambda m: chr(_PLACES + self._controls.index(m[0])), text)

    def _encode(self, text: str) -> list[int]:
        """Ids of a text of template and data; marked control strings are those of the data."""
        places = range(_PLACES, _PLACES + len(self._controls))
        if not any(ord(c) in places for c in text if c > "\U0010efff"):
            return self.backend.encode(text, add_special_tokens=False)
        if self._shielded is None:
            self._shielded = self._shield()
        swap = {mark: chr(_PLACES + i) for i, mark in enumerate(self._controls)}
        swap |= {char: mark for mark, char in swap.items()}
        text = _any_of(swap).sub(lambda m: swap[m[0]], text)
        return self._shielded.encode(text, add_special_tokens=False).ids

    def _shield(self) -> Any:
        """The tokenizer with private characters in place of its control strings."""
        from tokenizers import Tokenizer

        fast = getattr(self.backend, "backend_tokenizer", None)
        if fast is None:
            raise ValueError("control strings cannot be kept as text with a slow tokenizer")
        parts = json.loads(fast.to_str())
        names = {mark: chr(_PLACES + i) for i, mark in enumerate(self._controls)}
        for token in parts["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        vocab = parts["model"]["vocab"]
        if isinstance(vocab, dict):
            parts["model"]["vocab"] = {names.get(k, k): v for k, v in vocab.items()}
        else:  # of a unigram model
            parts["model"]["vocab"] = [[names.get(k, k), score] for k, score in vocab]
        unknown = parts["model"].get("unk_token")
        if isinstance(unknown, str):
            parts["model"]["unk_token"] = names.get(unknown, unknown)
        parts |= {"post_processor": None, "truncation": None, "padding": None}
        shielded = Tokenizer.from_str(json.dumps(parts))
        for mark, name in names.items():
            if shielded.token_to_id(name) != self.backend.convert_tokens_to_ids(mark):
                raise ValueError(f"{mark} cannot be kept as text with this tokenizer")
        return shielded


def _any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern of any of the texts, the longest first; None if there is none."""
    ordered = sorted({text for text in texts if text}, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None
