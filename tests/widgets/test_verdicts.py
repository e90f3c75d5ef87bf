"""The two verdicts in the browser are those of the library, over a grid and at the extremes."""

import itertools
import math

import pytest

from dpo_lib import bradley_terry_probability, dpo_reward, naive_reward
from dpo_lib.widgets import Verdicts, join
from dpo_lib.widgets.verdicts import EXAMPLES, verdict

LOGPS, BETAS = [-1e4, -1.2, -0.7350, -0.2, 0.0], [0.05, 0.1, 1.0]
NAMES = ("policy_w", "policy_l", "reference_w", "reference_l")


@pytest.fixture(scope="module")
def js(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script())
    yield lambda rows: page.evaluate(
        """rows => rows.map((row) => {
          const { rewards, verdict } = dpoBook.widgets.verdicts;
          const now = rewards(row);
          return { ...now, naiveVerdict: verdict(now.naive), dpoVerdict: verdict(now.dpo) };
        })""",
        rows,
    )
    page.close()


def test_rewards_and_verdicts_are_the_library_s(js):
    grid = itertools.product(LOGPS, LOGPS, LOGPS, LOGPS, BETAS)
    rows = [dict(zip((*NAMES, "beta"), values, strict=True)) for values in grid]
    for row, got in zip(rows, js(rows), strict=True):
        naive = [naive_reward(row[f"policy_{side}"]).item() for side in "wl"]
        dpo = [
            dpo_reward(row[f"policy_{side}"], row[f"reference_{side}"], row["beta"]).item()
            for side in "wl"
        ]
        assert got["naive"] == naive
        assert got["dpo"] == pytest.approx(dpo, rel=1e-12, abs=1e-15)
        assert got["naiveVerdict"] == verdict(naive[0] - naive[1])
        assert got["dpoVerdict"] == verdict(dpo[0] - dpo[1])
        probability = bradley_terry_probability(*dpo).item()
        assert math.isclose(got["probability"], probability, rel_tol=1e-9, abs_tol=1e-300)


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ("Length", "log π prefers the loser. The DPO reward prefers the winner: 0.0015 against"),
        ("Same policy", "The DPO reward ties: 0.0000 against 0.0000, P = 0.5000."),
        ("“Paris” and “the”", "prefers the winner: 0.0811 against 0.0010"),
    ],
)
def test_the_words_give_both_verdicts(example, words):
    values = dict(zip(NAMES, EXAMPLES[example], strict=True))
    assert words in Verdicts.describe(Verdicts.build_spec().with_values(**values).values)


def test_an_example_button_moves_the_sliders(browser):
    page = browser.new_page()
    html = Verdicts()._repr_mimebundle_()
    data = html[0] if isinstance(html, tuple) else html
    page.set_content(data["text/html"])
    page.add_script_tag(content=join.static_script())
    page.get_by_role("button", name="Same policy").click()
    page.wait_for_function("document.querySelector('input[type=range]').value == '-0.75'")
    page.get_by_text("neither", exact=True).wait_for()  # drawn in the next frame
    page.close()
