"""Chapters 4, 5 and 10: log π of every token of a response, and what the next update does to it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpo_lib.logprobs import get_token_log_probs
from dpo_lib.models import load_base, load_sft
from dpo_lib.models.tiny_gpt import TinyGPT
from dpo_lib.reference import make_reference
from dpo_lib.training.step import dpo_training_step
from dpo_lib.widgets import live
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Choice, WidgetSpec, fmt
from dpo_lib.world import world_tokenizer

SHOW = ("what adds up", "which logits score which token", "what the next update changes")
UNDER = ("SFT", "base and SFT", "base, SFT and the policy")
BETAS = ("0.1", "0.3", "1", "3")
RATES = ("0.0001", "0.0002", "0.0005", "0.001")
TEXTS = {
    "prompt": "What is the capital of France?",
    "chosen": "It is Paris.",
    "rejected": "It is Lyon.",
}
LEAST = 5e-4  # nats: a smaller change is shown as 0.000, and counts as none
DIGITS = 6  # of the numbers that a page starts with: the same on every machine


def measure_tokens(
    prompt: str,
    chosen: str,
    rejected: str,
    beta: float = 1.0,
    rate: float = 2e-4,
    policy: TinyGPT | None = None,
) -> dict[str, Any]:
    """Log-probability of every token of two responses, now and after one DPO update on them.

    Parameters
    ----------
    prompt, chosen, rejected : str
        In the words of the tiny world; responses get their EOS.
    beta, rate : float
        Of the update, by `dpo_training_step` and a fresh AdamW without weight decay; the
        reference is the SFT model.
    policy : TinyGPT, optional
        What is updated (a copy of it); without it, the SFT model.

    Returns
    -------
    dict
        ``prompt`` and ``tokens`` (of both responses) as words; ``logps`` by model, ``base``,
        ``sft``, ``policy`` if given, ``after`` (the update): a list for each response, in nats.

    Raises
    ------
    ValueError
        If a text has words outside the vocabulary, the prompt is empty, or all is too long.
    """
    tokenizer = world_tokenizer()
    for name, text in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not isinstance(text, str):
            raise ValueError(f"{name} must be text, got {text!r:.60}")
    ids = [tokenizer.encode_prompt(prompt)]
    ids += [tokenizer.encode_response(text) for text in (chosen, rejected)]
    if not ids[0]:
        raise ValueError(f"prompt must not be empty, got {prompt!r}")
    asked, *responses = (torch.tensor([row]) for row in ids)
    models = _models() | ({"policy": policy} if policy is not None else {})
    models["after"] = copy.deepcopy(models.get("policy", models["sft"]))
    batch = {"prompt": asked, "chosen": responses[0], "rejected": responses[1]}
    optimizer = torch.optim.AdamW(models["after"].parameters(), lr=rate, weight_decay=0.0)
    dpo_training_step(models["after"], make_reference(models["sft"]), optimizer, batch, beta)
    words = [[tokenizer.words[i] for i in row] for row in ids]
    return {
        "prompt": words[0],
        "tokens": words[1:],
        "logps": {
            name: [_token_log_probs(model, asked, response) for response in responses]
            for name, model in models.items()
        },
    }


@torch.no_grad()
def _token_log_probs(model: TinyGPT, prompt: Tensor, response: Tensor) -> list[float]:
    return get_token_log_probs(model, prompt, response)[0].tolist()


@functools.cache
def _models() -> dict[str, TinyGPT]:
    return {"base": load_base(), "sft": load_sft()}


def first_result(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a page shows before anything is computed in it, for these texts and choices."""
    key = [values[name] for name in (*TEXTS, "beta", "rate")]
    result = measure_tokens(*key[:3], *map(float, key[3:]))
    logps = {
        name: [[round(logp, DIGITS) for logp in side] for side in sides]
        for name, sides in result["logps"].items()
    }
    return result | {"logps": logps, "key": "|".join(key), "policy": 0}


class TokenView(BookWidget):
    """Any response of the tiny world, token by token, under the base, SFT and trained model."""

    load = "near"
    parts = live.parts("engine", "model", "base")

    def __init__(self, **values: object) -> None:
        spec = self.build_spec().with_values(**values)
        super().__init__(spec, **{"result": first_result(spec.values)} | values)

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        controls = (
            Choice("show", "Show", SHOW, SHOW[0]),
            Choice("under", "Models", UNDER, UNDER[0]),
            Choice("beta", "β of the next update", BETAS, "1"),
            Choice("rate", "its learning rate", RATES, "0.0002"),
        )
        values = TEXTS | {control.name: control.value for control in controls}
        return WidgetSpec(
            kind="token_view",
            title="Token by token",
            controls=controls,
            data={"words": list(world_tokenizer().words[2:])},
            state=TEXTS | {"result": first_result(values), "note": ""},
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say what the view shows in a sentence, or what is wrong with the texts."""
        if values["note"]:
            return values["note"]
        prompt, tokens, logps = (values["result"][key] for key in ("prompt", "tokens", "logps"))
        show = SHOW.index(values["show"])
        if show == 0:
            wanted = ("policy", "sft") if values["under"] == UNDER[2] else ("sft",)
            name = next(name for name in wanted if name in logps)
            terms = logps[name][0]
            dearest = min(range(len(terms)), key=terms.__getitem__)
            under = {"sft": "SFT", "policy": "the policy"}[name]
            return (
                f"Under {under} the {len(terms)} terms add up to log π = {fmt(sum(terms), 3)} "
                f"nats. Most comes from “{tokens[0][dearest]}”: {fmt(terms[dearest], 3)}."
            )
        if show == 1:
            first, last = len(prompt), len(prompt) + len(tokens[0]) - 1
            return (
                f"The response is scored by the logits at places {first} to {last}: "
                f"one place before each of its {len(tokens[0])} tokens."
            )
        start = "policy" if "policy" in logps else "sft"
        changes = [
            [after - now for after, now in zip(*sides, strict=True)]
            for sides in zip(logps["after"], logps[start], strict=True)
        ]
        parts = []
        for side, change in zip(("chosen", "rejected"), changes, strict=True):
            up, down = (sum(sign * c >= LEAST for c in change) for sign in (1, -1))
            parts.append(f"{side} {_signed(sum(change))} (tokens: {up} up, {down} down)")
        under = {"sft": "the SFT model", "policy": "the policy"}[start]
        return f"One update of {under} would move log π: {', '.join(parts)}."


def _signed(value: float) -> str:
    text = fmt(value, 3)
    return text if text.startswith("−") or text == "0.000" else f"+{text}"
