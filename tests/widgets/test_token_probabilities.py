"""The running products and sums in the browser are those of Python, underflow included."""

import itertools
import math

import pytest
import torch

from dpo_lib.widgets import TokenProbabilities, join
from dpo_lib.widgets.token_probabilities import LOG_UNDERFLOW, TOKENS, copies_until_underflow

ROWS = [list(row) for row in itertools.product((0.1, 0.5, 0.82, 1.0), repeat=len(TOKENS))]


@pytest.fixture(scope="module")
def js(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script())
    yield lambda function, rows: page.evaluate(
        f"rows => {{ const w = dpoBook.widgets.token_probabilities;"
        f" return rows.map({function}); }}",
        rows,
    )
    page.close()


def test_running_products_and_sums_are_those_of_torch(js):
    got = js("row => w.running(row)", ROWS)
    probabilities = torch.tensor(ROWS, dtype=torch.float64)
    for name, expected in (
        ("logps", probabilities.log()),
        ("sums", probabilities.log().cumsum(1)),
        ("products", probabilities.cumprod(1)),
    ):
        values = torch.tensor([entry[name] for entry in got], dtype=torch.float64)
        torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-14)


def test_copies_are_where_float32_rounds_to_zero(js):
    sums = [sum(map(math.log, row)) for row in ROWS]
    counts = js("row => w.copiesUntilUnderflow(row[0], row[1])", [[s, LOG_UNDERFLOW] for s in sums])
    assert counts == [copies_until_underflow(s) for s in sums]
    for total, copies in zip(sums, counts, strict=True):
        if total == 0:
            assert copies is None
            continue
        # Exact up to half a step of a slider: 2^-150 itself is rounded to 0, a little more is not.
        dead, alive = (torch.tensor(n * total, dtype=torch.float64) for n in (copies, copies - 1))
        assert (dead - 1e-9).exp().float() == 0
        assert (alive + 1e-9).exp().float() > 0


def test_one_half_dies_where_the_chapter_says():
    assert copies_until_underflow(math.log(0.5)) == 150


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"p3": 1.0, "p4": 1.0, "p5": 1.0},
            "The product is 0.6068, the sum of the logs −0.500. "
            "In float32, the product of 209 copies is 0.",
        ),
        (
            {f"p{i}": 1.0 for i in range(1, 6)},
            "The product is 1.0000, the sum of the logs 0.000. "
            "In float32, no number of copies is 0.",
        ),
        (
            {f"p{i}": 0.1 for i in range(1, 6)},
            "The product is 0.0000, the sum of the logs −11.513. "
            "In float32, the product of 10 copies is 0.",
        ),
    ],
)
def test_the_words_give_both_numbers(change, words):
    spec = TokenProbabilities.build_spec().with_values(**change)
    assert TokenProbabilities.describe(spec.values) == words
    assert len(words) <= 150
