"""Chapter 4: token probabilities multiply, their logarithms add up."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dpo_lib.widgets.base import BookWidget
from dpo_lib.widgets.spec import Slider, WidgetSpec, fmt

# A response to "The capital of France": its tokens, and where their sliders start.
TOKENS = {" is": 0.82, " Paris": 0.74, " indeed": 0.12, ".": 0.90, "<eos>": 0.95}

# A number below half of float32's smallest, 2^-149, is rounded to 0; so is the half itself.
LOG_UNDERFLOW = -150 * math.log(2)


class TokenProbabilities(BookWidget):
    """A probability slider for each of five tokens; the running product and the running sum."""

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        return WidgetSpec(
            kind="token_probabilities",
            title="Five tokens: multiply the probabilities, or add their logarithms",
            controls=tuple(
                Slider(f"p{i}", f"Probability of “{token}”", 0.1, 1.0, 0.01, value, color="chosen")
                for i, (token, value) in enumerate(TOKENS.items(), start=1)
            ),
            data={"tokens": list(TOKENS), "log_underflow": LOG_UNDERFLOW},
        )

    @staticmethod
    def describe(values: Mapping[str, float]) -> str:
        """Say the product, the sum, and how many copies float32 can hold."""
        logps = [math.log(values[f"p{i}"]) for i in range(1, len(TOKENS) + 1)]
        total = sum(logps)
        copies = copies_until_underflow(total)
        end = f"the product of {copies} copies" if copies else "no number of copies"
        return (
            f"The product is {fmt(math.exp(total), 4)}, the sum of the logs {fmt(total, 3)}. "
            f"In float32, {end} is 0."
        )


def copies_until_underflow(logp: float) -> int | None:
    """How often a text must be repeated until its probability is 0 in float32; None: never."""
    if logp == 0:
        return None
    # The tolerance keeps rounding in the logarithms from adding a copy to an exact quotient.
    return math.ceil(LOG_UNDERFLOW / logp - 1e-9)
