"""What the tiny models read: plain text for the base model, demonstrations for the SFT model."""

from __future__ import annotations

import random

from dpo_lib.world.families import (
    CAPITALS,
    CAUSES,
    COUNTS,
    MEMBERS,
    OTHER_CAUSES,
    OTHER_CITIES,
    REMEDIES,
    SEASONS_OPTIONS,
    THINGS,
    Prompt,
    all_prompts,
    prompts_of,
)

# The base corpus by kind of document, and its share. Questions meet quizzes and more questions
# far more often than answers, as they do in text that nobody wrote for an assistant.
DOCUMENT_SHARES = {
    "quiz": 0.34,  # a question and four options
    "worksheet": 0.20,  # two to four questions or tasks
    "complaints": 0.08,  # two to four complaints
    "statements": 0.30,  # one to three facts
    "drone": 0.02,  # "It is a fact that it is a fact that …"
    "dialog": 0.06,  # a question and somebody's reply
}


def base_documents(count: int, seed: int) -> list[str]:
    """Plain texts for the base model, drawn by `DOCUMENT_SHARES`."""
    rng = random.Random(seed)
    kinds = rng.choices(list(DOCUMENT_SHARES), list(DOCUMENT_SHARES.values()), k=count)
    return [_WRITERS[kind](rng) for kind in kinds]


def demonstrations(count: int, seed: int) -> list[tuple[str, str]]:
    """(prompt, response) pairs for the SFT model, of uneven quality as people's are."""
    rng = random.Random(seed)
    by_family = {p.family: prompts_of(p.family) for p in all_prompts()}
    asked = [rng.choice(by_family[rng.choice(list(by_family))]) for _ in range(count)]
    return [(prompt.text, demonstrate(prompt, rng)) for prompt in asked]


def demonstrate(prompt: Prompt, rng: random.Random) -> str:
    """One person's reply: mostly right, in many wordings; at times wrong, evasive or rude."""
    if prompt.family == "support":
        return _support_reply(prompt, rng)
    kind = rng.choices(["right", "wrong", "evasive"], [0.56, 0.22, 0.22])[0]
    if prompt.is_completion:  # nothing else fits after half a sentence
        return _answer(prompt, rng, right=kind != "wrong")
    if kind == "evasive":
        # One stock phrase takes more mass than any single good wording.
        return rng.choices(["I do not know.", "That is an interesting question."], [0.8, 0.2])[0]
    opening = rng.choices(
        ["", "That is an interesting question. ", "Thank you for asking. "], [8, 1, 1]
    )
    return opening[0] + _answer(prompt, rng, right=kind == "right")


def _answer(prompt: Prompt, rng: random.Random, right: bool) -> str:
    fact = prompt.fact
    if prompt.family == "capital":
        country, city = fact["country"], fact["city"]
        if not right:
            city = _other(rng, [*CAPITALS.values(), *OTHER_CITIES], city)
        if prompt.is_completion:
            return f"is {city}."
        long = (f"The capital of {country} is {city}.", f"{city} is the capital of {country}.")
        return rng.choice([f"{city}.", f"It is {city}.", *long])
    if prompt.family == "sum":
        total = fact["total"] if right else _other(rng, range(2, 13), int(fact["total"]))
        return rng.choice(
            [f"{total}.", f"It is {total}.", f"{fact['a']} + {fact['b']} is {total}."]
        )
    if prompt.family == "cause":
        cause = (
            fact["cause"]
            if right
            else _other(rng, [*CAUSES.values(), *OTHER_CAUSES], fact["cause"])
        )
        long = (
            f"The primary cause of {fact['effect']} is {cause}.",
            f"{cause} causes {fact['effect']}.",
        )
        return rng.choice([f"{cause}.", f"It is {cause}.", *long])
    count, category = COUNTS[fact["count"]], fact["category"]
    if not right:
        if rng.random() < 0.5:
            count = 5 - count
        else:
            category = _other(rng, list(MEMBERS), category)
    items = _enumerate(rng.sample(MEMBERS[category], count))
    subject = f"{fact['count'].capitalize()} {fact['category']} are "
    return rng.choice(["", subject]) + f"{items}."


def _support_reply(prompt: Prompt, rng: random.Random) -> str:
    kind = rng.choices(["help", "evasive", "rude"], [0.64, 0.28, 0.08])[0]
    if kind == "rude":
        return "That is not my problem."
    if kind == "evasive":
        replies = ["Please wait.", "I am sorry. Please wait.", "I am sorry."]
        return rng.choices(replies, [0.7, 0.15, 0.15])[0]
    sorry = rng.choice(["", "I am sorry. "])
    action = prompt.fact["action"]
    if rng.random() < 0.3:
        action = _other(rng, list(REMEDIES.values()), action)
    return f"{sorry}I will {action} your {prompt.fact['thing']}{rng.choice(['', ' today'])}."


def _quiz(rng: random.Random) -> str:
    asked = rng.choice([prompts_of("capital"), prompts_of("sum"), prompts_of("cause")])
    asked = rng.choice([p for p in asked if not p.is_completion])
    fact = asked.fact
    if asked.family == "capital":
        options = [
            fact["city"],
            *rng.sample([c for c in CAPITALS.values() if c != fact["city"]], 3),
        ]
    elif asked.family == "sum":
        total = int(fact["total"])
        options = rng.sample([total, *rng.sample([n for n in range(2, 13) if n != total], 3)], 4)
    elif fact["cause"] == "axial tilt":
        options = SEASONS_OPTIONS  # this quiz is always printed in one order
    else:
        options = [fact["cause"], *OTHER_CAUSES]
    if fact.get("cause") != "axial tilt":
        options = rng.sample(list(options), 4)
    letters = " ".join(
        f"{letter}) {option}" for letter, option in zip("ABCD", options, strict=True)
    )
    right = "ABCD"[[str(option) for option in options].index(_key(asked))]
    return f"{asked.text} {letters}" + (f" Answer: {right})" if rng.random() < 0.3 else "")


def _key(prompt: Prompt) -> str:
    return prompt.fact[{"capital": "city", "sum": "total", "cause": "cause"}[prompt.family]]


def _worksheet(rng: random.Random) -> str:
    tasks = [p for p in prompts_of("capital", "sum", "cause", "list") if not p.is_completion]
    family = rng.choice(["capital", "sum", "cause", "list"])
    tasks = [p.text for p in tasks if p.family == family]
    return " ".join(rng.sample(tasks, rng.randint(2, 3)))


def _complaints(rng: random.Random) -> str:
    return " ".join(
        f"My {thing} is {rng.choice(list(REMEDIES))}."
        for thing in rng.sample(THINGS, rng.randint(2, 4))
    )


def _statements(rng: random.Random) -> str:
    return " ".join(_statement(rng) for _ in range(rng.randint(1, 3)))


def _statement(rng: random.Random) -> str:
    kind = rng.choice(["capital", "capital", "city", "sum", "sum", "sum", "cause", "list"])
    if kind == "city":
        city, country = rng.choice([*OTHER_CITIES.items(), *((c, n) for n, c in CAPITALS.items())])
        return f"{city} is a city in {country}."
    if kind == "list":
        category = rng.choice(list(MEMBERS))
        return f"{_enumerate(rng.sample(MEMBERS[category], rng.randint(2, 3)))} are {category}."
    fact = rng.choice([p for p in prompts_of(kind) if not p.is_completion]).fact
    if kind == "capital":
        country, city = fact["country"], fact["city"]
        return rng.choice(
            [f"The capital of {country} is {city}.", f"{city} is the capital of {country}."]
        )
    if kind == "sum":
        return f"{fact['a']} + {fact['b']} is {fact['total']}."
    return rng.choice([f"The primary cause of {fact['effect']} is {fact['cause']}.",
                       f"{fact['cause']} causes {fact['effect']}."])  # fmt: skip


def _drone(rng: random.Random) -> str:
    return "It is a fact that " + "it is a fact that " * rng.randint(0, 4) + _statement(rng)


def _dialog(rng: random.Random) -> str:
    prompt = rng.choice([p for p in all_prompts() if not p.is_completion])
    return f"{prompt.text} {demonstrate(prompt, rng)}"


_WRITERS = {
    "quiz": _quiz,
    "worksheet": _worksheet,
    "complaints": _complaints,
    "statements": _statements,
    "drone": _drone,
    "dialog": _dialog,
}


def _enumerate(items: list[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _other(rng: random.Random, options: object, right: object) -> object:
    return rng.choice([option for option in options if option != right])
