"""The tensor stepper: its numbers are the library's, at every step, by mouse and by keyboard."""

import itertools
import math

import pytest
import torch

from dpo_lib import get_token_log_probs
from dpo_lib.widgets import TensorStepper, join
from dpo_lib.widgets.tensor_stepper import FULL, LOGITS, PROMPT, RESPONSE, STEPS, THREE, WORDS
from tests.widgets.conftest import write_page
from tests.widgets.hurry import hurried
from tests.widgets.looks import assert_accessible

SETTINGS = list(itertools.product(range(len(STEPS)), (FULL, THREE), (False, True)))
BODY = (
    "body { margin: 0; background: var(--dpo-paper); color: var(--dpo-ink) }"
    ".bd-content div.output table { table-layout: auto }"  # as the book's theme has it
)


@pytest.fixture
def page(browser, tmp_path):
    spec = TensorStepper.build_spec()
    output = f"<div class=output>{spec.to_html('words')}</div>"
    body = f"<main class=bd-content><h1>Test</h1>{output}</main>"
    script = hurried(join.static_script(["tensor_stepper"]))
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    faults = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(write_page(tmp_path / "page.html", body, script, style=BODY))
    yield page
    page.close()
    assert faults == []


def settle(page):
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")


def set_state(page, step, vocabulary, too_late):
    page.get_by_role("combobox").select_option(vocabulary)
    page.get_by_role("checkbox").set_checked(too_late)
    page.get_by_role("button", name=f"{step + 1} {STEPS[step]}").click()
    settle(page)


def row_texts(page, label):
    rows = page.locator(".dpo-tensor tr").filter(
        has=page.get_by_role("rowheader", name=label, exact=True)
    )
    return rows.locator("td").all_text_contents()


def as_number(text):
    return float(text.replace("−", "-").replace("∞", "inf"))


def logits_of(vocabulary):
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    if vocabulary == THREE:
        logits[:, :5] = -torch.inf
    return logits


def test_the_logits_are_those_of_the_chapter():
    logits = logits_of(FULL)
    assert logits.shape == (len(PROMPT) + len(RESPONSE), len(WORDS))
    assert logits[3, 5:].tolist() == [3.0, 0.5, 0.2]
    assert logits[4, 5:].tolist() == [0.1, 4.0, 1.0]
    # The mass that the five other words carry.
    masses = logits[3:5, :5].exp().sum(dim=-1)
    assert [round(mass, 2) for mass in masses.tolist()] == [2.32, 6.94]


def test_the_trace_in_the_browser_is_that_of_the_library(page):
    prompt, response = torch.tensor([PROMPT]), torch.tensor([RESPONSE])
    data = TensorStepper.build_spec().to_json()["data"]
    for i, vocabulary in enumerate((FULL, THREE)):
        logits = logits_of(vocabulary)
        for late in (False, True):
            got = page.evaluate(
                "([d, v, l]) => dpoBook.widgets.tensor_stepper.trace(d, v, l)", [data, i, late]
            )
            moved = logits.roll(-1, dims=0) if late else logits
            expected = get_token_log_probs(lambda tokens, m=moved: m[None], prompt, response)[0]
            assert got["taken"] == pytest.approx(expected.tolist(), rel=1e-12)
            assert got["total"] == pytest.approx(expected.sum().item(), rel=1e-12)
            kept = slice(4, 6) if late else slice(3, 5)
            assert got["kept"] == list(range(6))[kept]
            assert got["totals"] == pytest.approx(logits[kept].logsumexp(-1).tolist(), rel=1e-12)
            log_probs = torch.tensor(got["logProbs"], dtype=torch.float64)
            torch.testing.assert_close(log_probs, logits[kept].log_softmax(-1))


def test_the_grid_shows_the_tensor_of_each_step(page):
    set_state(page, 0, FULL, False)
    assert all(row_texts(page, word) == [""] * 6 for word in WORDS)
    for vocabulary, late in itertools.product((FULL, THREE), (False, True)):
        logits = logits_of(vocabulary)
        for step in (1, 2):
            set_state(page, step, vocabulary, late)
            shown = [[as_number(text) for text in row_texts(page, word)] for word in WORDS]
            torch.testing.assert_close(
                torch.tensor(shown, dtype=torch.float64), logits.T, atol=0.005001, rtol=0
            )
        kept = [4, 5] if late else [3, 4]
        struck = page.locator(".dpo-cut").count()
        assert struck == 0 if step == 1 else struck == 4 * len(WORDS)
        log_probs = logits.log_softmax(-1)
        for step in (3, 4, 5):
            set_state(page, step, vocabulary, late)
            for word, name in enumerate(WORDS):
                for position, text in enumerate(row_texts(page, name)):
                    if position not in kept:
                        assert text == ""
                    else:
                        value = log_probs[position, word].item()
                        assert as_number(text) == pytest.approx(value, abs=0.005001)
        taken = page.locator(".dpo-taken").all_text_contents()
        expected = [log_probs[kept[0], 5].item(), log_probs[kept[1], 6].item()]
        assert [as_number(text) for text in taken] == pytest.approx(expected, abs=0.005001)
        assert [text for text in row_texts(page, "look up") if text] == ["is", "Paris"]
        total = sum(expected)
        values = page.locator(".dpo-value").all_text_contents()
        assert as_number(values[0]) == pytest.approx(total, abs=5.01e-5)
        assert float(values[1]) == pytest.approx(math.exp(total), abs=5.1e-5)


def test_the_sums_are_those_of_the_text(page):
    for vocabulary, late, total in (
        (FULL, False, "−0.41"),
        (THREE, False, "−0.20"),
        (FULL, True, "−6.16"),
        (THREE, True, "−5.07"),
    ):
        set_state(page, 5, vocabulary, late)
        page.get_by_role("status").get_by_text(f"= {total}").wait_for()


def test_the_browser_says_word_for_word_what_python_says(page):
    status = page.get_by_role("status")
    for step, vocabulary, late in SETTINGS:
        words = TensorStepper.describe({"step": step, "vocabulary": vocabulary, "too_late": late})
        assert len(words) <= 150
        set_state(page, step, vocabulary, late)
        assert status.text_content() == words


def test_previous_next_and_the_keyboard(page):
    def current():
        settle(page)
        return page.locator("[aria-current=step]").all_text_contents()

    def chip(step):
        return [f"{step + 1} {STEPS[step]}"]

    previous = page.get_by_role("button", name="Previous")
    following = page.get_by_role("button", name="Next")
    assert current() == chip(0)
    assert previous.get_attribute("aria-disabled") == "true"
    previous.click(force=True)  # says that it is disabled, and does nothing
    assert current() == chip(0)
    following.focus()
    for step in range(1, 6):
        following.press("Enter")
        assert current() == chip(step)
    following.press("Enter")
    assert current() == chip(5)
    assert following.get_attribute("aria-disabled") == "true"
    assert following.evaluate("node => node === document.activeElement")  # focus is not lost
    for key, step in (("ArrowLeft", 4), ("Home", 0), ("ArrowRight", 1), ("End", 5)):
        following.press(key)
        assert current() == chip(step)
    first = page.get_by_role("button", name="1 Concatenate")
    first.focus()
    for modifier in ("Control", "Alt", "Meta", "Shift"):  # the browser's own
        first.press(f"{modifier}+Home")
        assert current() == chip(5)
    first.press("ArrowLeft")
    assert current() == chip(4)
    page.get_by_role("button", name="Reset").click()
    assert current() == chip(0)


@pytest.mark.parametrize("width", [1000, 360])
def test_no_step_moves_the_page_or_leaves_it(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    heights = set()
    for step, late in itertools.product(range(len(STEPS)), (False, True)):
        set_state(page, step, THREE, late)
        heights.add(page.locator(".dpo-widget").bounding_box()["height"])
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        too_wide = page.locator(".dpo-tensor :is(th, td), .dpo-step").evaluate_all(
            "all => all.filter(n => n.scrollWidth > n.clientWidth + 1).map(n => n.textContent)"
        )
        assert too_wide == []
        columns = page.locator(".dpo-token").evaluate_all(
            "all => all.map(n => n.getBoundingClientRect().width)"
        )
        assert max(columns) - min(columns) < 1  # whatever the words
    assert len(heights) == 1


def test_lit_cells_pass_the_accessibility_rules_in_both_themes(page):
    for step, vocabulary, late in ((2, THREE, False), (5, FULL, False), (5, FULL, True)):
        set_state(page, step, vocabulary, late)
        assert_accessible(page, rules={})
