"""The length race in the browser says what the library says, over its whole grid."""

import itertools
import math

import pytest

from dpo_lib import naive_reward
from dpo_lib.widgets import LengthRace, join

TOKENS, PROBABILITIES = range(13), [0.8, 0.89, 0.9, 0.97, 0.99]


@pytest.fixture(scope="module")
def js(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script())
    yield lambda rows: page.evaluate(
        "rows => rows.map(([n_w, p_w, n_l, p_l]) =>"
        " dpoBook.widgets.length_race.race({ n_w, p_w, n_l, p_l }))",
        rows,
    )
    page.close()


def test_scores_are_sums_of_token_log_probabilities(js):
    rows = [list(r) for r in itertools.product(TOKENS, PROBABILITIES, (0, 2, 12), PROBABILITIES)]
    for (n_w, p_w, n_l, p_l), got in zip(rows, js(rows), strict=True):
        winner = naive_reward(sum([math.log(p_w)] * n_w)).item()
        loser = naive_reward(sum([math.log(p_l)] * n_l)).item()
        assert math.isclose(got["winner"], winner, rel_tol=1e-12, abs_tol=1e-15)
        assert math.isclose(got["loser"], loser, rel_tol=1e-12, abs_tol=1e-15)
        # With as many tokens as the break-even says, the winner scores what the loser scores.
        assert math.isclose(got["flip"] * math.log(p_w), loser, rel_tol=1e-12, abs_tol=1e-15)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "prefers the loser"),
        ({"n_w": 1}, "prefers the winner"),
        ({"n_w": 2}, "cannot tell them apart"),
        ({"n_l": 0}, "and the loser 0.000, so log π prefers the loser"),
        ({"n_w": 6, "p_w": 0.97}, "prefers the winner"),
        ({"n_w": 7, "p_w": 0.97}, "prefers the loser"),
    ],
)
def test_the_words_give_the_verdict(change, words):
    assert words in LengthRace.describe(LengthRace.build_spec().with_values(**change).values)


def test_the_chapter_s_numbers_are_where_it_starts():
    words = LengthRace.describe(LengthRace.build_spec().values)
    assert words.startswith("The winner scores −0.738 and the loser −0.211")
    assert words.endswith("equal at a winner of 2.00 tokens.")
