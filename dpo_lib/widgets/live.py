"""What a page loads when its reader starts the model in it: weights, the tiny world, the engine.

The engine is the JavaScript in ``js/live``; it knows no word, fact or weight by itself. All of
them are exported here from ``dpo_lib``, so that the page and the library cannot drift apart.
"""

from __future__ import annotations

import base64
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from dpo_lib.widgets import join
from dpo_lib.widgets.clicks import annotator_rows

MICROPYTHON = join.JS_DIR / "vendor" / "micropython"


@functools.cache
def model() -> dict[str, Any]:
    """The SFT model: sizes, shapes in the order of its weights, the weights."""
    from dpo_lib.models.checkpoints import load_sft, training_record

    stored = load_sft().state_dict()
    return {
        "config": training_record()["config"],
        "shapes": [[name, *weight.shape] for name, weight in stored.items()],
        "weights": _as_text(stored),
    }


@functools.cache
def base() -> dict[str, str]:
    """The weights of the base model, of the shapes of `model`."""
    from dpo_lib.models.checkpoints import load_base

    return {"weights": _as_text(load_base().state_dict())}


def _as_text(stored: Mapping[str, Any]) -> str:
    """Float32, as they are stored, little-endian, base64."""
    content = b"".join(weight.numpy().astype("<f4").tobytes() for weight in stored.values())
    return base64.b64encode(content).decode("ascii")


@functools.cache
def world() -> dict[str, Any]:
    """The tiny world: its words, prompts and facts, and the judge's grammar and points."""
    from dpo_lib.world import all_prompts, families, preference_prompts, reward, world_tokenizer

    points = {
        name: value
        for name, value in vars(reward).items()
        if name.isupper() and isinstance(value, float)
    }
    return {
        "words": list(world_tokenizer().words),
        "prompts": {prompt.text: [prompt.family, prompt.fact] for prompt in all_prompts()},
        "asked": preference_prompts(),
        "grammar": [
            [kind, pattern.pattern.replace("(?P<", "(?<")] for kind, pattern in reward._GRAMMAR
        ],
        "members": families.MEMBERS,
        "counts": families.COUNTS,
        "points": points,
        "annotator": annotator_rows(),
    }


@functools.cache
def engine() -> str:
    """The source of the worker: the modules of ``js/live``, with the tiny world in them."""
    data = json.dumps(world(), ensure_ascii=False, separators=(",", ":"))
    return join.classic("live/worker.js", f"module_live_worker.start(self, {data});")


@functools.cache
def python() -> dict[str, str]:
    """MicroPython: its module as text and its WebAssembly as base64."""
    wasm = base64.b64encode((MICROPYTHON / "micropython.wasm").read_bytes())
    source = (MICROPYTHON / "micropython.mjs").read_text(encoding="utf-8")
    return {"source": source, "wasm": wasm.decode("ascii")}


@functools.cache
def exercises() -> dict[str, Any]:
    """The checker's worker, its diagnosis in Python, and the cases of what a page can check."""
    from dpo_lib.exercises import diagnosis
    from dpo_lib.exercises.all import EXERCISES
    from dpo_lib.exercises.sheet import read_sheet

    return {
        "engine": join.classic("live/checker.js", "module_live_checker.start(self);"),
        "diagnosis": inspect.getsource(diagnosis),
        "sheets": {e.number: read_sheet(e.number) for e in EXERCISES.values() if e.in_page},
    }


PARTS = {
    "engine": engine,
    "model": model,
    "base": base,
    "python": python,
    "exercises": exercises,
}
"""What a live widget loads by name: a notebook's widget carries it, a page loads a file."""


def parts(*names: str) -> dict[str, Callable[[], Any]]:
    """Those of `PARTS` that a widget's class names as its own."""
    return {name: PARTS[name] for name in names}


def part_file(name: str) -> str:
    """Name of the book's file that `part_script` gives."""
    return f"dpo-live-{name}.js"


def part_script(name: str) -> str:
    """The classic script by which a page of the book loads one of the `PARTS`."""
    content = json.dumps(PARTS[name](), separators=(",", ":"))
    return f"(dpoBook.parts ??= {{}}).{name} = {content};\n"
