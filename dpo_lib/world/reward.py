"""The programmed reward: what is true in the tiny world.

People's preferences have no formula. Here they do, so that a chapter can say whether training
really made the answers better, and not only whether a loss went down.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dpo_lib.world.families import (
    CAPITALS,
    CAUSES,
    COUNTS,
    MEMBERS,
    OTHER_CAUSES,
    OTHER_CITIES,
    REMEDIES,
    THINGS,
    Prompt,
    find_prompt,
)

RIGHT = 2.0  # an answer, and nothing in it is false
WRONG = -0.5  # an answer with something false in it
NO_ANSWER = 0.0
NAMES_THE_SUBJECT = 0.5  # "The capital of France is Paris." rather than "Paris."
APOLOGY = 1.0  # to a complaint
THANKS = 0.25  # to a question
FILLER = -0.25  # a sentence that neither answers nor is kind
RUDE = -1.0
REPEATED = -0.5  # each sentence said before
MALFORMED = -1.0  # the whole reward of a text that is not made of sentences, or never ends


def _any(words: object) -> str:
    return "(?:" + "|".join(map(re.escape, words)) + ")"


_city, _number = _any([*CAPITALS.values(), *OTHER_CITIES]), r"\d+"
_country, _effect, _thing = _any(CAPITALS), _any(CAUSES), _any(THINGS)
_cause = _any({*CAUSES.values(), *OTHER_CAUSES})
_item = _any([item for members in MEMBERS.values() for item in members])
_category, _action = _any(MEMBERS), _any(REMEDIES.values())

# Every sentence that counts as well-formed; the named parts are what it claims.
_GRAMMAR = [
    ("capital", rf"The capital of (?P<country>{_country}) is (?P<city>{_city})\."),
    ("capital", rf"(?P<city>{_city}) is the capital of (?P<country>{_country})\."),
    ("capital", rf"(?:It is )?(?P<city>{_city})\."),
    ("sum", rf"(?P<a>{_number}) \+ (?P<b>{_number}) is (?P<total>{_number})\."),
    ("sum", rf"(?:It is )?(?P<total>{_number})\."),
    ("cause", rf"The primary cause of (?P<effect>{_effect}) is (?P<cause>{_cause})\."),
    ("cause", rf"(?P<cause>{_cause}) causes (?P<effect>{_effect})\."),
    ("cause", rf"(?:It is )?(?P<cause>{_cause})\."),
    ("list", rf"(?:(?P<count>Two|Three) (?P<category>{_category}) are )?"
             rf"(?P<items>{_item}(?:, {_item})* and {_item})\."),
    ("support", rf"I will (?P<action>{_action}) your (?P<thing>{_thing})(?: today)?\."),
    ("apology", r"I am sorry\."),
    ("thanks", r"Thank you for asking\."),
    ("evasion", r"I do not know\.|That is an interesting question\.|Please wait\."),
    ("rude", r"That is not my problem\."),
]  # fmt: skip
_GRAMMAR = [(kind, re.compile(pattern)) for kind, pattern in _GRAMMAR]
_ANSWERS = {"capital", "sum", "cause", "list", "support"}


class Judgment(NamedTuple):
    """What the truth says of one response."""

    reward: float  # in nats: the log-odds of winning against a response of reward 0
    correct: bool  # answers, and nothing in the answer is false
    malformed: bool  # not made of well-formed sentences, or cut off
    sentences: int


def judge(prompt: str, response: str, finished: bool = True) -> Judgment:
    """Judge any response to any prompt.

    Parameters
    ----------
    prompt, response : str
        Any texts. A prompt that the world does not have has no right answer.
    finished : bool
        Whether the response came to its end-of-sequence token.

    Returns
    -------
    Judgment
        ``reward`` adds up the constants of this module.
    """
    asked = find_prompt(prompt)
    text = f"{prompt} {response}" if asked and asked.is_completion else response
    sentences = [part.strip() for part in re.findall(r"[^.?]*[.?]|[^.?]+$", text)]
    parsed = [_parse(sentence) for sentence in sentences]
    if not finished or not parsed or None in parsed:
        return Judgment(MALFORMED, False, True, len(sentences))

    answers = [part for part in parsed if part[0] in _ANSWERS]
    correct = bool(answers) and all(_is_right(asked, *answer) for answer in answers)
    reward = NO_ANSWER if not answers else RIGHT if correct else WRONG
    kinds = {kind for kind, _ in parsed}
    complaint = asked is not None and asked.family == "support"
    if correct and _names_subject(asked, answers):
        reward += NAMES_THE_SUBJECT
    if complaint and "apology" in kinds:
        reward += APOLOGY
    if not complaint and "thanks" in kinds:
        reward += THANKS
    welcome = {"apology"} if complaint else {"thanks"}
    reward += FILLER * len({s for s, (k, _) in zip(sentences, parsed, strict=True)
                            if k not in _ANSWERS | welcome | {"rude"}})  # fmt: skip
    reward += RUDE * ("rude" in kinds)
    reward += REPEATED * (len(sentences) - len(set(sentences)))
    return Judgment(reward, correct, False, len(sentences))


def true_reward(prompt: str, response: str, finished: bool = True) -> float:
    """The reward that `judge` gives."""
    return judge(prompt, response, finished).reward


def _parse(sentence: str) -> tuple[str, dict[str, str]] | None:
    for kind, pattern in _GRAMMAR:
        if match := pattern.fullmatch(sentence):
            return kind, {k: v for k, v in match.groupdict().items() if v is not None}
    return None


def _is_right(asked: Prompt | None, kind: str, claims: dict[str, str]) -> bool:
    """Whether an answer is of the kind asked for and claims only what is so."""
    if asked is None or asked.family != kind:
        return False
    if kind != "list":
        return all(asked.fact[name] == value for name, value in claims.items())
    items = re.split(", | and ", claims["items"])
    return (
        claims.get("count", asked.fact["count"]).lower() == asked.fact["count"]
        and claims.get("category", asked.fact["category"]) == asked.fact["category"]
        and len(items) == len(set(items)) == COUNTS[asked.fact["count"]]
        and set(items) <= set(MEMBERS[asked.fact["category"]])
    )


def _names_subject(asked: Prompt, answers: list[tuple[str, dict[str, str]]]) -> bool:
    return any(
        {"country", "a", "effect", "category", "thing"} & set(claims) for _, claims in answers
    )
