"""The budget in the browser adds up as plain arithmetic does."""

import itertools
from fractions import Fraction

import pytest

from dpo_lib.widgets import Budget, join

GRID = [(0.05, 1, 2), (10, 500, 1000), (0.001, 0.01, 0.05), (1000, 50_000, 100_000), (0, 2, 100)]


@pytest.fixture(scope="module")
def js(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script())
    yield lambda rows: page.evaluate(
        "rows => rows.map(([gain_content, n_content, gain_common, n_common, alone]) => {"
        " const state = { gain_content, n_content, gain_common, n_common, alone };"
        " return dpoBook.widgets.budget.budget(state); })",
        rows,
    )
    page.close()


def test_totals_are_gain_times_places_without_what_is_shared(js):
    rows = [list(row) for row in itertools.product(*GRID)]
    for row, got in zip(rows, js(rows), strict=True):
        gain_content, n_content, gain_common, n_common, alone = (Fraction(str(x)) for x in row)
        assert got["content"] == pytest.approx(float(gain_content * n_content), rel=1e-12)
        left = n_common * alone / 100
        assert got["common"] == pytest.approx(float(gain_common * left), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "“Paris” gains 10.0 nats and “the” 500.0: “the” counts 50.0 times as much."),
        ({"n_common": 1000}, "“Paris” gains 10.0 nats and “the” 10.0: they draw level."),
        ({"alone": 2}, "“Paris” gains 10.0 nats and “the” 10.0: they draw level."),
        ({"alone": 0}, "“Paris” gains 10.0 nats and “the” 0.0: only “Paris” counts."),
        (
            {"alone": 1},
            "“Paris” gains 10.0 nats and “the” 5.0: “Paris” counts 2.0 times as much.",
        ),
    ],
)
def test_the_words_give_the_verdict(change, words):
    assert Budget.describe(Budget.build_spec().with_values(**change).values) == words
