"""An exercise as its author writes it, and the file of cases that is made of it.

``cases/<number>.json`` holds for each case what goes in, what the library returns, and what every
known mistake returns. The notebook's `check` and the page's editor read the same file.
"""

from __future__ import annotations

import inspect
import json
import math
import random
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dpo_lib._files import replacing
from dpo_lib.exercises.diagnosis import Failed, hint, observe, show

CASES = Path(__file__).parent / "cases"
FRESH = 20  # cases drawn anew at every check: an answer learned by heart does not pass

Plain = Any
"""A number, None, a string, or a list of them."""


@dataclass(frozen=True)
class Case:
    """One call of the reader's function."""

    what: str  # "a pair that moved the right way": begins a sentence
    arguments: tuple[Plain, ...]
    extreme: str = ""  # "where exp overflows": set where a plausible answer is right elsewhere


@dataclass(frozen=True)
class Mistake:
    """An answer that people give, and what it means. The words never give the solution."""

    function: Callable[..., Any]
    words: str


@dataclass(frozen=True)
class Exercise:
    """What the reader writes, and how it is judged."""

    number: str  # "9.1": chapter and place
    name: str  # of the reader's function
    arguments: tuple[str, ...]
    library: Callable[..., Any]  # shown when the reader's is right
    solution: Callable[..., Any]  # of the same arguments as the reader's
    cases: tuple[Case, ...]
    mistakes: tuple[Mistake, ...]
    fresh: Callable[[random.Random], tuple[Plain, ...]]  # arguments of one more case
    numbers: tuple[str, ...] = ()  # arguments that stay Python numbers, as beta does
    probe: Callable[[Callable[..., Any], list[Plain]], Plain] | None = None  # in place of a call
    facts: tuple[str, ...] = ()  # names of what the probe observes, where that is no value
    called: tuple[str, ...] = ()  # arguments of the reader's function, where the probe's differ
    short: str = ""  # said where every value has the right sign and is too near to 0
    gradient: bool = False  # whether gradients must flow through what is returned
    in_page: bool = False  # whether numbers and lists suffice, so that a page can run it
    tolerance: float = 1e-6
    line: str = ""  # the library's line, where it is not the whole body of `library`

    def call(self, function: Callable[..., Any], arguments: Sequence[Plain]) -> Plain:
        """What a function returns, as a plain value."""
        if self.probe:
            return self.probe(function, list(arguments))
        return plain(function(*self.tensors(arguments)))

    def tensors(self, arguments: Sequence[Plain], gradient: bool = False) -> list[Any]:
        """Arguments as a notebook has them: floats as float64, integers and bools as they are."""
        import torch

        made = []
        for name, argument in zip(self.arguments, arguments, strict=True):
            if name not in self.numbers and isinstance(argument, (list, float)):
                dtype = torch.float64 if torch.tensor(argument).is_floating_point() else None
                argument = torch.tensor(argument, dtype=dtype)
                if dtype:
                    argument.requires_grad_(gradient)
            made.append(argument)
        return made


def plain(value: Any) -> Plain:
    """A tensor, an array or a tuple as numbers and lists."""
    if hasattr(value, "detach"):
        value = value.detach()
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def path_of(number: str) -> Path:
    """The exercise's file of cases."""
    return CASES / f"{number}.json"


@cache
def sheet_numbers() -> list[str]:
    """The exercises that have a file of cases."""
    return sorted(path.stem for path in CASES.glob("*.json"))


@cache
def read_sheet(number: str) -> dict[str, Any]:
    """The content of an exercise's file."""
    return json.loads(path_of(number).read_text(encoding="utf-8"))


def make_sheet(exercise: Exercise) -> dict[str, Any]:
    """What the exercise's file must hold, computed now."""

    def values(function: Callable[..., Any]) -> list[Plain]:
        return [
            as_json(observe(function, case.arguments, exercise.call)) for case in exercise.cases
        ]

    right = values(exercise.solution)
    return {
        "number": exercise.number,
        "name": exercise.name,
        "arguments": list(exercise.arguments),
        "tolerance": exercise.tolerance,
        "line": exercise.line or body_of(exercise.library),
        "cases": [
            {"what": case.what, "arguments": list(case.arguments), "value": value}
            | ({"extreme": case.extreme} if case.extreme else {})
            for case, value in zip(exercise.cases, right, strict=True)
        ],
        "mistakes": [{"words": m.words, "values": values(m.function)} for m in exercise.mistakes],
    } | {
        key: value if isinstance(value, str) else list(value)
        for key in ("facts", "called", "short")
        if (value := getattr(exercise, key))
    }


def as_json(value: Plain) -> Plain:
    """A value as a file holds it: errors by their kind, and the names of ∞ and NaN."""
    if isinstance(value, Failed):
        return {"error": type(value.error).__name__}
    if isinstance(value, list):
        return [as_json(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_sheet(exercise: Exercise) -> None:
    """Write the exercise's file."""
    with replacing(path_of(exercise.number)) as file:
        file.write(
            json.dumps(make_sheet(exercise), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        )


def body_of(function: Callable[..., Any]) -> str:
    """Source of a function, without its docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    if function.__doc__ is None:
        return source.rstrip()
    head, _, rest = source.partition('"""')
    return head.rstrip().removesuffix("r").rstrip() + rest.partition('"""')[2].rstrip()


def fresh_lists(number: int, draw: Callable[[], float]) -> tuple[list[float], ...]:
    """Arguments of a fresh case: lists of five numbers each."""
    return tuple([draw() for _ in range(5)] for _ in range(number))


def fresh_sheet(exercise: Exercise, seed: int | None = None) -> dict[str, Any]:
    """Cases that nobody has seen, with the library's values."""
    rng = random.Random(seed)
    cases = []
    for _ in range(FRESH):
        arguments = exercise.fresh(rng)
        value = observe(exercise.solution, arguments, exercise.call)
        if isinstance(value, Failed):
            raise value.error
        cases.append({"what": "a fresh case", "arguments": list(arguments), "value": value})
    return read_sheet(exercise.number) | {"cases": cases, "mistakes": []}


def is_single(sheet: dict[str, Any]) -> bool:
    """Whether the cases of a sheet hold single numbers, not lists of them."""
    return not any(isinstance(x, list) for case in sheet["cases"] for x in case["arguments"])


def gradient_words(exercise: Exercise, function: Callable[..., Any]) -> str:
    """What is wrong with the gradients of a function whose values are right, or ""."""
    import torch

    if not exercise.gradient:
        return ""
    sheet = read_sheet(exercise.number)
    for case in exercise.cases:
        if case.extreme:
            continue
        slopes = []
        for one in (function, exercise.solution):
            given = exercise.tensors(case.arguments, gradient=True)
            leaves = [x for x in given if torch.is_tensor(x) and x.requires_grad]
            try:
                out = one(*given)
                flows = torch.is_tensor(out) and out.requires_grad
                if flows:
                    slopes.append(torch.autograd.grad(out.sum(), leaves, allow_unused=True))
            except Exception as error:
                said = f"{hint(error, one, sheet)} It raises {Failed(error)}".strip().rstrip(".")
                return f"The values are right, but your code stops where gradients flow. {said}."
            if not flows:
                return (
                    "The values are right, but no gradient flows back through them, and training "
                    "needs it: .item(), float(), .detach(), NumPy, torch.tensor(...) and no_grad "
                    "cut it."
                )
        for mine, right, leaf in zip(*slopes, leaves, strict=True):
            mine, right = (0.0 * leaf if x is None else x for x in (mine, right))
            if not torch.allclose(mine, right, rtol=1e-5, atol=1e-8):
                which = exercise.arguments[[x is leaf for x in given].index(True)]
                return (
                    f"The values are right and the gradients are not ({case.what}): that of "
                    f"{which} is {show(plain(mine))}, it should be {show(plain(right))}. Is a part "
                    "detached, or does a clamp, a max or an abs make a kink there?"
                )
    return ""


def changed_words(exercise: Exercise, function: Callable[..., Any]) -> str:
    """Which argument a function changes in place though its values are right, or ""."""
    if exercise.probe:
        return ""
    for case in exercise.cases:
        given, kept = exercise.tensors(case.arguments), exercise.tensors(case.arguments)
        observe(function, given)  # what it returns is judged already
        for name, mine, was in zip(exercise.arguments, given, kept, strict=True):
            if plain(mine) != plain(was):
                return (
                    f"The values are right, but your function changes {name} itself: who calls it "
                    "still needs it as it was. Work on a new tensor."
                )
    return ""
