"""Chapter 5: from token ids to one log-probability, an operation at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dpo_lib.logprobs import get_token_log_probs
from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Choice, Toggle, WidgetSpec, fmt

WORDS = ("<pad>", "The", "capital", "of", "France", "is", "Paris", "Lyon")  # ids 0 to 7
PROMPT, RESPONSE = (1, 2, 3, 4), (5, 6)
STEPS = ("Concatenate", "Forward", "Slice", "Log-softmax", "Gather", "Sum")
FULL, THREE = "all eight words", "is, Paris, Lyon only"
RULED_OUT = 5  # under THREE, the ids below this one get a logit of −∞
# One row a position, one column a word. The last row predicts beyond the response.
LOGITS = (
    (0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0),
    (-0.766, -0.766, -0.766, -0.766, -0.766, 3.0, 0.5, 0.2),
    (0.328, 0.328, 0.328, 0.328, 0.328, 0.1, 4.0, 1.0),
    (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
)


class TensorStepper(BookWidget):
    """Six operations on the trace "The capital of France" + "is Paris", drawn as a grid."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="tensor_stepper",
            title="Six operations, from token ids to one number",
            controls=(
                Choice("vocabulary", "The model may say", (FULL, THREE), FULL),
                Toggle("too_late", "Break it: slice one position too late"),
            ),
            data={
                "words": list(WORDS),
                "prompt": list(PROMPT),
                "response": list(RESPONSE),
                "logits": [list(row) for row in LOGITS],
                "ruledOut": RULED_OUT,
                "steps": list(STEPS),
            },
            state={"step": 0},
        )

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say what the present operation does."""
        step, late = values["step"], values["too_late"]
        logits = _logits(values["vocabulary"])
        first = len(PROMPT) - 1 + late  # the first column that the slice keeps
        tokens = [*PROMPT, *RESPONSE]
        before = [f"“{WORDS[tokens[first + t]]}”" for t in range(len(RESPONSE))]
        if step == 0:
            return "Four prompt tokens and two response tokens become one row of six."
        if step == 1:
            ending = "" if values["vocabulary"] == FULL else "; −∞ rules a word out"
            return f"One pass gives, after each of the six tokens, a score for every word{ending}."
        if step == 2 and late:
            return f"Too late: the kept columns stand at {' and '.join(before)}, not before them."
        if step == 2:
            return f"Kept: the two columns that predict the response, at {' and '.join(before)}."
        if step == 3:
            totals = logits.logsumexp(dim=-1)[first : first + len(RESPONSE)].tolist()
            said = " and ".join(fmt(total, 2) for total in totals)
            return (
                f"Each kept column minus its logsumexp, {said}. "
                "Its probabilities (shading) now sum to 1."
            )
        right = _token_log_probs(logits)
        taken = _token_log_probs(logits.roll(-1, dims=0)) if late else right
        numbers = [fmt(value, 2) for value in taken]
        if step == 4:
            pairs = [
                f"at {place} look up “{WORDS[token]}”, {number}"
                for place, token, number in zip(before, RESPONSE, numbers, strict=True)
            ]
            return f"In the column {'; '.join(pairs)}." + (" Wrong columns." if late else "")
        total = fmt(sum(taken), 2)
        ending = f" It should be {fmt(sum(right), 2)}." if late else ""
        answer = " ".join(WORDS[token] for token in RESPONSE)
        return (
            f"{numbers[0]} + ({numbers[1]}) = {total}, "
            f"{'taken for ' if late else ''}the log-probability of “{answer}”.{ending}"
        )


def _logits(vocabulary: str) -> Tensor:
    """The trace's logits, shape (positions, words)."""
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    if vocabulary == THREE:
        logits[:, :RULED_OUT] = -torch.inf
    return logits


def _token_log_probs(logits: Tensor) -> list[float]:
    """What the library reads off these logits; moved up by a row, it reads a row too late."""
    prompt, response = torch.tensor([PROMPT]), torch.tensor([RESPONSE])
    return get_token_log_probs(lambda tokens: logits[None], prompt, response)[0].tolist()
