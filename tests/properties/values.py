"""What readers and programs put into files and arguments: of any kind, size and nesting."""

import math

import numpy as np
import torch
from hypothesis import strategies as st

# Half a character, a NUL, marks that turn text round, line ends that only some programs know.
SIGNS = "\ud800\0\u202e\u200b\ufeff\x85\u2028\u2029\x0b\x0c\x1c\r\n\t"
characters = st.characters(codec="utf-8", exclude_characters="\0")
texts = st.text(characters, max_size=40)
words = st.text(characters, min_size=1, max_size=40).filter(str.strip)
any_text = st.text(st.characters() | st.sampled_from(SIGNS), max_size=40)

whole = st.integers(-3, 5) | st.sampled_from([2**31, 2**53 + 1, 2**63, -(2**64), 10**30, 10**400])
floats = st.floats() | st.sampled_from([0.1, 0.5, 1.0, -1.0, 1e-320, 1e300, math.inf, math.nan])
plain = st.none() | st.booleans() | whole | floats | any_text

json_values = st.recursive(
    plain,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(any_text, inside, max_size=4),
    max_leaves=8,
)

DTYPES = (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64,
          torch.complex64)  # fmt: skip


@st.composite
def tensors(draw):
    """A tensor of any shape and type, empty, infinite and negative ones too."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    kind = draw(st.sampled_from(["ones", "minus", "mixed", "not finite"]))
    tensor = torch.ones(shape)
    if kind != "ones":
        tensor = -tensor
    if kind == "mixed" and tensor.numel():
        tensor = torch.arange(tensor.numel()).reshape(shape) - 1.5
    if kind == "not finite" and dtype.is_floating_point:
        tensor = tensor * draw(st.sampled_from([math.inf, math.nan]))
    return tensor.to(dtype)


class Odd:
    """An object that stands for nothing."""

    def __repr__(self):
        return "Odd()"


junk = st.one_of(
    plain,
    json_values,
    tensors(),
    st.binary(max_size=8),
    st.sampled_from(
        [
            Odd(),
            Odd,
            print,
            ...,
            np.float64(0.5),
            np.array([1, 2]),
            {1, 2},
            (1, "a"),
            complex(1, 1),
            b"\xff",
            range(3),
            torch.nn.Linear(2, 2),
        ]
    ),
)
