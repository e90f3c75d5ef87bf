"""The facts of the tiny world, its prompts, and the 140-odd words that it speaks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from dpo_lib.models.tokenizers import WordTokenizer

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "Peru": "Lima",
    "Kenya": "Nairobi",
    "Norway": "Oslo",
    "Cuba": "Havana",
    "Canada": "Ottawa",
}
OTHER_CITIES = {"Lyon": "France", "Milan": "Italy"}  # cities that are no capital
MEMBERS = {
    "colors": ("red", "green", "blue", "yellow", "white"),
    "fruits": ("apple", "pear", "plum", "cherry", "melon"),
    "animals": ("cat", "dog", "cow", "horse", "goat"),
    "metals": ("iron", "gold", "silver", "copper", "tin"),
}
COUNTS = {"two": 2, "three": 3}
CAUSES = {
    "Earth's seasons": "axial tilt",
    "tides": "the Moon's pull",
    "day and night": "Earth's rotation",
}
SEASONS_OPTIONS = (
    "distance from the Sun",
    "axial tilt",
    "rotation speed",
    "ocean currents and winds",
)
OTHER_CAUSES = ("distance from the Sun", "rotation speed", "ocean currents and winds")
THINGS = ("order", "parcel", "phone", "lamp", "chair")
REMEDIES = {"late": "track", "lost": "replace", "broken": "repair", "wrong": "refund"}
ADDENDS = range(1, 7)

SEASONS_QUESTION = "What is the primary cause of Earth's seasons?"


@dataclass(frozen=True)
class Prompt:
    """A prompt and the facts that a right answer states."""

    text: str
    family: str  # capital, sum, list, support or cause
    facts: tuple[tuple[str, str], ...]  # such as (("country", "France"), ("city", "Paris"))

    @property
    def fact(self) -> dict[str, str]:
        """The facts by name."""
        return dict(self.facts)

    @property
    def is_completion(self) -> bool:
        """Whether the response finishes the prompt's own sentence."""
        return self.text[-1] not in ".?"


@cache
def all_prompts() -> tuple[Prompt, ...]:
    """Every prompt of the world, family by family."""
    found = []

    def add(family: str, text: str, **facts: object) -> None:
        found.append(Prompt(text, family, tuple((k, str(v)) for k, v in facts.items())))

    for country, city in CAPITALS.items():
        for form in ("What is the capital of {}?", "Name the capital of {}.", "The capital of {}"):
            add("capital", form.format(country), country=country, city=city)
    for a in ADDENDS:
        for b in ADDENDS:
            add("sum", f"What is {a} + {b}?", a=a, b=b, total=a + b)
    for count in COUNTS:
        for category in MEMBERS:
            for verb in ("List", "Name"):
                add("list", f"{verb} {count} {category}.", count=count, category=category)
    for thing in THINGS:
        for trouble, action in REMEDIES.items():
            add("support", f"My {thing} is {trouble}.", thing=thing, action=action)
    for effect, cause in CAUSES.items():
        for form in ("What is the primary cause of {}?", "What causes {}?"):
            add("cause", form.format(effect), effect=effect, cause=cause)
    return tuple(found)


def prompts_of(*families: str) -> list[Prompt]:
    """The prompts of the families named; of all when none is."""
    known = {p.family for p in all_prompts()}
    if unknown := set(families) - known:
        raise ValueError(f"families must be among {sorted(known)}, got {sorted(unknown)}")
    return [p for p in all_prompts() if not families or p.family in families]


@cache
def find_prompt(text: str) -> Prompt | None:
    """The prompt with this text, if the world has it."""
    return next((p for p in all_prompts() if p.text == text), None)


_MARKS = ". , ? + : A) B) C) D)"
_FUNCTION_WORDS = (
    "The the of is are a an and in not What Name List Two two Three three capital city Answer"
    " It it fact that That interesting question I do know am sorry will my My your today"
    " Please wait Thank you for asking problem"
)


@cache
def world_tokenizer() -> WordTokenizer:
    """The tokenizer of the world: its words in a fixed order."""
    words = (_MARKS + " " + _FUNCTION_WORDS).split()
    words += [str(n) for n in range(1, 2 * max(ADDENDS) + 1)]
    words += [*CAPITALS, *CAPITALS.values(), *OTHER_CITIES]
    words += [*MEMBERS, *(item for members in MEMBERS.values() for item in members)]
    words += [*THINGS, *REMEDIES, *REMEDIES.values(), "primary", "cause", "causes"]
    for phrase in (*CAUSES, *CAUSES.values(), *OTHER_CAUSES):
        words += phrase.split()
    return WordTokenizer(dict.fromkeys(words))
