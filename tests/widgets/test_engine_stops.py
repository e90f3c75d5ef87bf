"""An update in the page whose loss or gradient is not finite is not made."""

import pytest

from tests.widgets.test_engine import dataset, open_engine, rows, source

STEP = """([rows, loss, slope]) => {
  const policy = sft.copy();
  const reference = live.pairLogProbs(sft, rows);
  const bad = () => ({ loss, chosenSlope: slope, rejectedSlope: 0, margin: 0 });
  try { live.trainingStep(policy, new live.Adam(policy, 1), rows, reference, bad, 1); }
  catch (error) { return [error.message, policy.all.every((w, i) => w === sft.all[i])]; }
}"""


@pytest.fixture(scope="module")
def page(browser):
    page = open_engine(browser, source())
    yield page
    page.close()


@pytest.mark.parametrize(
    ("loss", "slope", "said"),
    [
        (0.5, float("nan"), "The loss is 0.5 and its gradient NaN"),
        (0.5, 1e300, "The loss is 0.5 and its gradient Infinity"),
        (float("inf"), 0.1, "The loss is Infinity and its gradient"),
    ],
)
def test_neither_may_be_infinite(page, loss, slope, said):
    words, same = page.evaluate(STEP, [rows(dataset(0, 2)), loss, slope])
    assert words.startswith(said)
    assert same
