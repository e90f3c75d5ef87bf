"""Exercises in the page: the same words as in a notebook, from the same Python, in the browser."""

import math

import pytest

from dpo_lib.exercises.all import EXERCISES
from dpo_lib.exercises.diagnosis import NOT_YET, diagnose
from dpo_lib.exercises.sheet import read_sheet
from dpo_lib.widgets import Exercise, join, live
from dpo_lib.widgets.exercise import ASKED, stub
from tests.widgets.conftest import write_page
from tests.widgets.looks import assert_accessible, assert_fits

COUNT_ANSWERS = """
    window.answers = 0;
    window.held = null;  // else the word that Python is there, until it is given on
    window.Worker = class extends Worker {
        set onmessage(hear) {
            super.onmessage = (event) => {
                if (held && event.data.ready) return held.push(() => hear(event));
                hear(event);
                answers += !event.data.ready;
            };
        }
    };
"""
IN_PAGE = [number for number, exercise in EXERCISES.items() if exercise.in_page]
RIGHT = {
    "2.1": "return sigmoid(chosen_score - rejected_score)",
    "3.1": "return -log_sigmoid(chosen_score - rejected_score)",
    "4.1": "return sum(math.log(p) for p in token_probs)",
    "6.1": "return -log_sigmoid(chosen - rejected)",
    "8.1": "return beta * (policy_logp - ref_logp)",
    "9.1": "z = [math.log(p) + r / beta for p, r in zip(reference, rewards)]\n"
    "    w = [math.exp(x - max(z)) for x in z]\n    return [x / sum(w) for x in w]",
    "9.2": "return -log_sigmoid(beta * (chosen - ref_chosen - rejected + ref_rejected))",
}
OF_A_STUDENT = {  # who had not read the checker
    "2.1": [
        "return 1 / (1 + math.exp(rejected_score - chosen_score))",
        "return sigmoid(chosen_score + rejected_score)",
        "return 1 / (1 + 10 ** ((rejected_score - chosen_score) / 400))",
        "return sigmoid",
        "return bradley_terry_probability(chosen_score, rejected_score)",
        "p = sigmoid(chosen_score - rejected_score)",
    ],
    "3.1": [
        "return -math.log(max(sigmoid(chosen_score - rejected_score), 1e-10))",
        "return rejected_score - chosen_score",
    ],
    "4.1": [
        "total = 0\n    for p in token_probs:\n        total += math.log(p)\n        return total",
        "return sum(math.log(max(p, 1e-6)) for p in token_probs)",
        "return token_probs.log().sum()",
        "kept.append(len(token_probs))\n    return sum(kept)\nkept = []",
        "return math.log(token_probs)",
    ],
    "6.1": [
        "return -log_sigmoid(0.1 * (chosen - rejected))",
        "return -log_sigmoid(chosen / rejected)",
    ],
    "8.1": [
        "return beta * (math.exp(policy_logp) / math.exp(ref_logp))",
        "return policy_logp - ref_logp / beta",
    ],
    "9.1": [
        "return reference * math.exp(rewards / beta)",
        "w = [p * math.exp(r / beta) for p, r in zip(reference, rewards)]\n"
        "    return [x / sum(w) for x in w]",
        "return [1.0 if r == max(rewards) else 0.0 for r in rewards]",
    ],
    "9.2": [
        "return -log_sigmoid(beta * (chosen - ref_chosen - rejected - ref_rejected))",
        "return -log_sigmoid(0.1 * (chosen - ref_chosen - rejected + ref_rejected))",
        "return log_sigmoid(beta * (chosen - ref_chosen - rejected + ref_rejected)), beta",
    ],
}
WRONG = {
    "2.1": [
        "return chosen_score / (chosen_score + rejected_score)",
        "return 0.8455",
        "return None",
    ],
    "3.1": ["return -math.log(sigmoid(chosen_score - rejected_score))", "return 'small'"],
    "4.1": [
        "return sum(token_probs)",
        "return [0.5]",
        "return -sum(math.log(p) for p in token_probs)",
    ],
    "6.1": ["return chosen - rejected", "return -math.log2(sigmoid(chosen - rejected))"],
    "8.1": ["return beta * policy_logp", "return beta * (ref_logp - policy_logp) ** 2"],
    "9.1": [
        "return rewards",
        "return [p * math.exp(r / beta) for p, r in zip(reference, rewards)]",
    ],
    "9.2": ["return -log_sigmoid(beta * (chosen - rejected))", "return undefined"],
}


def code_of(number, body):
    return stub(read_sheet(number)).replace("return ...", body)


def in_notebook(number, code):
    """What CPython says of the same code."""

    def log_sigmoid(x):
        return min(x, 0.0) - math.log1p(math.exp(-abs(x)))

    space = {"math": math, "log_sigmoid": log_sigmoid}
    space["sigmoid"] = lambda x: math.exp(log_sigmoid(x))
    exec(code, space)
    sheet = read_sheet(number)
    return diagnose(space[sheet["name"]], sheet)[1]


class Opened:
    def __init__(self, page, folder, number):
        self.page, self.faults = page, []
        page.on("console", lambda message: self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        spec = Exercise.spec_of(number)
        for name in Exercise.parts:
            script = folder / live.part_file(name)
            script.write_text(live.part_script(name), encoding="utf-8")
        body = f"<h1>t</h1><main>{spec.to_html(Exercise.describe(spec.values))}</main>"
        script = join.static_script([spec.kind])
        page.clock.install()  # a rest of the page passes at once, an answer is waited for
        page.add_init_script(COUNT_ANSWERS)
        page.goto(write_page(folder / "page.html", body, script, style="body { margin: 0 }"))
        self.field = page.get_by_role("textbox")

    def said(self):
        """The page's words once it has rested."""
        self.page.clock.run_for(500)
        return self.page.locator(".dpo-status").text_content()

    def start(self, code):
        self.field.fill(code)
        assert self.said() == ASKED
        self.field.press("Control+Enter")

    def check(self, code):
        before = self.page.evaluate("answers")
        self.start(code)
        self.page.wait_for_function("before => answers > before", arg=before)
        return self.said()


@pytest.fixture
def open_exercise(browser, tmp_path):
    context = browser.new_context(viewport={"width": 360, "height": 800})
    opened = []

    def open_one(number):
        opened.append(Opened(context.new_page(), tmp_path, number))
        return opened[-1]

    yield open_one
    for one in opened:
        assert one.faults == []
    context.close()


@pytest.mark.parametrize("number", IN_PAGE)
def test_the_page_says_what_a_notebook_says(open_exercise, number):
    opened = open_exercise(number)
    assert opened.check(stub(read_sheet(number))) == NOT_YET
    for body in WRONG[number] + OF_A_STUDENT[number]:
        code = code_of(number, body)
        said = in_notebook(number, code)
        found = opened.check(code)
        # Error messages are the interpreter's own, with the line here.
        assert found.split("your code raises")[0] == said.split("your code raises")[0] != ""
    assert not opened.page.locator(".dpo-library").is_visible()
    assert opened.page.evaluate("localStorage.getItem('dpo-book-done')") is None
    assert opened.check(code_of(number, RIGHT[number])).startswith("Right in every case")
    assert opened.page.locator(".dpo-library").text_content() == read_sheet(number)["line"]
    kept = opened.page.evaluate("JSON.parse(localStorage.getItem('dpo-book-done'))")
    assert f"exercise {number}" in kept


def test_faults_of_the_code_are_named_with_their_line(open_exercise):
    opened = open_exercise("2.1")
    head = "def bradley_terry_probability(chosen_score, rejected_score):\n"
    assert opened.check(head + "    return (1").startswith("Line ")
    assert "NameError" in (said := opened.check(head + "    x = 1\n    return x + y"))
    assert "(line 3)" in said
    assert opened.check("x = 1") == "There is no function bradley_terry_probability in the code."


def test_code_without_end_is_ended_and_the_next_runs(open_exercise):
    opened = open_exercise("2.1")
    opened.page.evaluate("held = []")
    opened.start(code_of("2.1", "while True: pass"))
    opened.page.wait_for_function("held.length")
    opened.page.clock.run_for(20000)  # a slow computer: the time is not the code's
    assert opened.said().startswith("Running")
    opened.page.evaluate("held[0]()")
    opened.page.evaluate("held = null")
    opened.page.clock.run_for(7000)
    assert opened.said().startswith("Running")
    opened.page.clock.run_for(2000)
    assert "did not end" in opened.said()
    assert opened.check(code_of("2.1", RIGHT["2.1"])).startswith("Right")
    opened.start(code_of("2.1", "while True: pass"))  # where Python is there already
    opened.page.clock.run_for(9000)
    assert "did not end" in opened.said()


def test_it_is_used_by_keyboard_and_reset_brings_the_stub_back(open_exercise):
    opened = open_exercise("2.1")
    page = opened.page
    page.keyboard.press("Tab")
    assert opened.field.evaluate("node => node === document.activeElement")
    assert page.get_by_role("textbox", name="bradley_terry_probability, in Python").count() == 1
    page.evaluate("document.addEventListener('keydown', () => { window.turned = true; })")
    for key in ("ArrowLeft", "Enter"):  # which turn pages, and check nothing
        page.keyboard.press(key)
    assert opened.said() == ASKED
    assert page.evaluate("window.turned") is None
    opened.field.fill(code_of("2.1", RIGHT["2.1"]))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("answers === 1")
    assert opened.said().startswith("Right")
    page.get_by_role("button", name="Reset").press("Enter")
    assert opened.said() == ASKED
    assert opened.field.input_value() == stub(read_sheet("2.1"))
    assert not page.locator(".dpo-library").is_visible()


def test_it_meets_the_accessibility_rules_and_fits_a_phone(open_exercise):
    opened = open_exercise("9.2")
    opened.check(code_of("9.2", RIGHT["9.2"]))
    assert_accessible(opened.page)
    assert_fits(opened.page)


def test_a_stub_tells_what_two_cases_give_and_holds_no_solution():
    text = stub(read_sheet("2.1"))
    assert "bradley_terry_probability(2.5, 0.8) is 0.8455" in text
    assert "sigmoid" not in text
