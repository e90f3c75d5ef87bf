"""The token view: any text of the tiny world, scored in the page as dpo_lib scores it."""

import pytest

from dpo_lib.widgets import TokenView, TrainItYourself
from dpo_lib.widgets.spec import fmt
from dpo_lib.widgets.token_view import BETAS, RATES, SHOW, TEXTS, UNDER, measure_tokens
from tests.widgets import conftest
from tests.widgets.looks import PHONE, assert_accessible, assert_fits


class Opened(conftest.Opened):
    """A page of these widgets, the token view first."""

    def field(self, name):
        return self.page.get_by_role("textbox", name=name, exact=True)

    def choose(self, name, option):
        self.page.get_by_role("combobox", name=name).first.select_option(option)

    def tables(self):
        """Of each table: the cells of each row, the row's head first."""
        rows = "t => [...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.textContent))"
        return [table.evaluate(rows) for table in self.page.locator(".dpo-tokens").all()]


@pytest.fixture
def open_view(browser, tmp_path):
    context = browser.new_context(viewport={"width": 900, "height": 900})
    opened = []

    def open_one(*more, **values):
        specs = [widget.spec for widget in (TokenView(**values), *more)]
        opened.append(Opened(context.new_page(), tmp_path, *specs))
        return opened[-1]

    yield open_one
    for one in opened:
        assert one.faults == []
        assert one.outside() == []
    context.close()


def columns(prompt, response, names, **settings):
    """What the first view shows: a row a token, then the sums."""
    result = measure_tokens(prompt, response, TEXTS["rejected"], **settings)
    sides = [result["logps"][name][0] for name in names]
    rows = [
        [token, *(fmt(side[t], 3) for side in sides)] for t, token in enumerate(result["tokens"][0])
    ]
    return [*rows, ["log π", *(fmt(sum(side), 3) for side in sides)]]


def updates(*texts, start="sft", **settings):
    """What the third view shows of each response: now, after the update, and the change."""
    result = measure_tokens(*texts, **settings)
    tables = []
    for i, tokens in enumerate(result["tokens"]):
        now, after = result["logps"][start][i], result["logps"]["after"][i]
        lines = [*zip(tokens, now, after, strict=True), ("log π", sum(now), sum(after))]
        tables.append([[name, fmt(a, 3), fmt(b, 3), plus(b - a)] for name, a, b in lines])
    return tables


def plus(value):
    return fmt(value, 3) if round(value, 3) <= 0 else f"+{fmt(value, 3)}"


def test_any_text_of_the_world_is_scored_as_the_library_scores_it(open_view):
    opened = open_view()
    assert opened.tables() == [columns(TEXTS["prompt"], TEXTS["chosen"], ["sft"])]
    assert opened.loaded() == []
    opened.field("Prompt").fill("My order is late.")
    opened.field("Response").fill("I am sorry. I will replace it today.")
    opened.wait_for("Under SFT the 11 terms")
    texts = ("My order is late.", "I am sorry. I will replace it today.")
    assert opened.tables() == [columns(*texts, ["sft"])]
    assert opened.loaded() == ["engine", "model"]
    opened.choose("Models", UNDER[1])
    opened.page.wait_for_function("document.querySelector('.dpo-tokens tbody td:nth-child(3)')")
    opened.page.wait_for_function(
        "!document.querySelector('.dpo-tokens').textContent.includes('–')"
    )
    assert opened.tables() == [columns(*texts, ["base", "sft"])]
    assert opened.loaded() == ["engine", "model", "base"]


def test_each_token_stands_beside_the_logits_that_score_it(open_view):
    opened = open_view(show=SHOW[1], prompt="The capital of France", chosen="is Paris.")
    logps = [row[1] for row in columns("The capital of France", "is Paris.", ["sft"])]
    words = ["The", "capital", "of", "France", "is", "Paris", ".", "<eos>"]
    (rows,) = opened.tables()
    assert [row[:2] for row in rows] == [[str(i + 1), word] for i, word in enumerate(words)]
    scored = [
        word + (" (prompt, not counted)" if i < 3 else "") for i, word in enumerate(words[1:])
    ]
    assert [row[2] for row in rows] == [*scored, "nothing: it is over"]
    assert [row[3] for row in rows] == ["–"] * 3 + logps[:-1] + ["–"]
    assert opened.status().startswith("The response is scored by the logits at places 4 to 7:")


def test_words_outside_the_world_are_named_and_words_of_it_are_offered(open_view):
    opened = open_view()
    opened.field("Response").fill("It is nice in Paris_")
    opened.wait_for("Not among this model’s")
    assert opened.status().endswith("“nice”, “_”.")
    group = opened.page.get_by_role("group", name="Words that the tiny world knows")
    opened.field("Response").fill("It is T")
    fitting = [w for w in TokenView.build_spec().data["words"] if w.lower().startswith("t")]
    assert group.get_by_role("button").all_text_contents() == fitting[:8] != fitting
    opened.field("Response").fill("It is Pa")
    offered = group.get_by_role("button").all_text_contents()
    assert "Paris" in offered
    assert all(word.lower().startswith("pa") for word in offered)
    opened.page.keyboard.press("Tab")
    while opened.page.evaluate("document.activeElement.textContent") != "Paris":
        opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Enter")
    assert opened.field("Response").input_value() == "It is Paris "
    opened.wait_for("Under SFT the 4 terms")
    opened.field("Prompt").fill(" ")
    opened.wait_for("The prompt is empty")
    opened.field("Prompt").fill("France " * 50)
    opened.wait_for("A text is longer than 48 tokens.")
    opened.page.get_by_role("button", name="Reset").click()
    opened.wait_for("Under SFT the 5 terms")


@pytest.mark.parametrize("rate", [RATES[0], RATES[-1]])
def test_the_next_update_is_that_of_the_training_step(open_view, rate):
    opened = open_view(show=SHOW[2])
    first = opened.tables()
    opened.choose("its learning rate", rate)
    opened.choose("β of the next update", BETAS[0])
    opened.page.wait_for_function(
        "old => document.querySelector('.dpo-tokens').textContent != old",
        arg=opened.page.locator(".dpo-tokens").first.text_content(),
    )
    opened.page.wait_for_function("!document.querySelector('.dpo-token-old')")
    result = measure_tokens(*TEXTS.values(), float(BETAS[0]), float(rate))
    assert opened.tables() != first
    assert opened.tables() == updates(*TEXTS.values(), beta=float(BETAS[0]), rate=float(rate))
    captions = opened.page.locator(".dpo-tokens caption").all_text_contents()
    assert [text.split(":")[0] for text in captions] == ["chosen", "rejected"]
    opened.page.wait_for_timeout(500)
    values = TokenView.build_spec().values | {"show": SHOW[2], "result": result}
    assert opened.status() == TokenView.describe(values)


def test_the_policy_is_the_one_trained_last_on_the_page(open_view):
    opened = open_view(TrainItYourself(), show=SHOW[2], under=UNDER[2])
    about = opened.page.locator(".dpo-token-about")
    assert about.text_content().startswith("No policy has been trained on this page yet.")
    opened.page.get_by_role("button", name="Train one here").click()
    opened.wait_for("One update of the policy would move")
    assert "with DPO, β = 1, 40 updates" in about.text_content()
    settings = {"beta": 1.0, "rate": 2e-4, "start": "policy"}
    assert opened.tables() == updates(*TEXTS.values(), **settings, policy=opened.policy())
    opened.page.get_by_role("button", name="Step").click()
    opened.page.wait_for_function(
        "document.querySelector('.dpo-token-about').textContent.includes(', 1 updates')"
    )
    opened.choose("Show", SHOW[0])
    expected = columns(
        TEXTS["prompt"], TEXTS["chosen"], ["base", "sft", "policy"], policy=opened.policy()
    )
    opened.page.wait_for_function(
        "text => document.querySelector('.dpo-tokens tbody').textContent == text",
        arg="".join(map("".join, expected)),
        timeout=8000,
    )
    (rows,) = opened.tables()
    assert rows == expected
    assert opened.status().startswith("Under the policy the 5 terms")
    assert rows[0][2] != rows[0][3]
    opened.page.get_by_role("button", name="Reset").first.click()
    opened.page.wait_for_function("document.querySelectorAll('.dpo-tokens').length == 2")
    opened.page.wait_for_function("!document.querySelector('.dpo-token-old')")
    assert ", 1 updates" in about.text_content()  # the policy stays


def test_every_view_is_accessible_and_fits_a_phone(open_view):
    opened = open_view(under=UNDER[2], chosen="That is an interesting question. Paris.")
    for show in SHOW:
        opened.page.set_viewport_size({"width": 900, "height": 900})
        opened.choose("Show", show)
        assert_accessible(opened.page)
        assert_fits(opened.page)
        right = "cells => Math.max(...cells.map(cell => cell.getBoundingClientRect().right))"
        assert opened.page.locator(".dpo-tokens :is(th, td)").evaluate_all(right) <= PHONE


def test_python_refuses_what_the_page_refuses():
    with pytest.raises(ValueError, match="nice"):
        measure_tokens("My order is late.", "It is nice.", "No.")
    with pytest.raises(ValueError, match="prompt must not be empty"):
        measure_tokens("", "It is Paris.", "It is Lyon.")
    widget = TokenView(chosen="It is Rome.")
    assert widget.values["result"]["tokens"][0] == ["It", "is", "Rome", ".", "<eos>"]
