"""The quiz of appendix E: fresh data, honest questions, playable with the keyboard alone."""

import json
from pathlib import Path

import pytest

from dpo_lib.widgets import BugQuiz, bug_quiz, join
from dpo_lib.widgets.spec import fmt
from tests.widgets.conftest import write_page
from tests.widgets.looks import colors_of

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "dpo_lib" / "results" / "bug_zoo.json"
HEIGHT = "document.querySelector('.dpo-widget').getBoundingClientRect().height"
OPACITY = "button => getComputedStyle(button).opacity"
STATUS_IS = "words => document.querySelector('.dpo-status').textContent == words"


@pytest.fixture(scope="module")
def results():
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def test_the_packaged_runs_are_those_of_the_experiment(results):
    fresh = bug_quiz.to_text(bug_quiz.condense(results))
    assert bug_quiz.DATA.read_text(encoding="utf-8") == fresh
    assert len(fresh.encode()) < 20_000


def test_every_specimen_is_asked_once_and_titles_are_the_experiment_s(results):
    from dpo_lib.experiments import bug_zoo

    assert sorted(name for name, _, _ in bug_quiz.ROUNDS) == sorted(bug_quiz.TITLES)
    titles = {bug.name: bug.title for bug in bug_zoo.BUGS}
    assert {**titles, "sound": "No bug"} == bug_quiz.TITLES
    assert {row["bug"] for row in results["rows"]} == set(bug_quiz.TITLES)


def test_each_round_has_four_answers_with_the_right_one_at_any_place():
    places = []
    for name, options, why in bug_quiz.ROUNDS:
        assert len(set(options)) == 4
        assert set(options) <= set(bug_quiz.TITLES)
        assert len(why) <= 200
        places.append(options.index(name))
    assert all(places.count(place) >= 2 for place in range(4))
    assert places != sorted(places)


def test_no_two_answers_of_a_round_share_what_is_shown():
    """A missing EOS is told by the text alone; nothing else may look like another answer."""
    for name, options, _ in bug_quiz.ROUNDS:
        shown = bug_quiz.runs()["specimens"]
        for other in set(options) - {name}:
            a, b = (
                {k: shown[n][k] for k in ("curves", "first_loss", "first_logp", "reward")}
                for n in (name, other)
            )
            assert a != b, (name, other)


def test_the_words_tell_the_score():
    right = [options.index(name) for name, options, _ in bug_quiz.ROUNDS]
    say = BugQuiz.describe
    assert say({"shown": 0, "answers": []}) == "Run 1 of 11: which bug is this? Score: 0 of 0."
    words = say({"shown": 0, "answers": right[:1]})
    assert words == "Run 1 of 11: right, “Reference not frozen”. Score: 1 of 1."
    words = say({"shown": 0, "answers": [3]})
    assert words.startswith("Run 1 of 11: not “Chosen and rejected swapped” but “Reference")
    assert say({"shown": 10, "answers": right}).endswith("Score: 11 of 11.")


@pytest.fixture
def page(browser, tmp_path):
    spec = BugQuiz.build_spec()
    body, script = spec.to_html(BugQuiz.describe(spec.values)), join.static_script(["bug_quiz"])
    context = browser.new_context(viewport={"width": 1000, "height": 1100})
    page = context.new_page()
    faults = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(write_page(tmp_path / "page.html", body, script, style="body { margin: 0 }"))
    yield page
    assert faults == []
    context.close()


def settle(page):
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")


def test_the_browser_says_what_python_says(page):
    spec = BugQuiz.build_spec()
    states = [
        {"shown": shown, "answers": [place] * count}
        for shown in range(11)
        for place in range(4)
        for count in (shown, shown + 1)
    ]
    got = page.evaluate(
        """([spec, states]) => {
          const el = document.body.appendChild(document.createElement("div"));
          const model = { get: (name) => name === "shown" ? 0 : [], set() {}, save_changes() {} };
          const view = dpoBook.widgets.bug_quiz.render({ model, el, spec });
          return states.map((state) => { view.update(state); return view.describe(state); });
        }""",
        [spec.to_json(), states],
    )
    for state, words in zip(states, got, strict=True):
        assert words == BugQuiz.describe(state)
        assert len(words) <= 150


def assert_shows(page, run):
    assert page.locator(".dpo-value").all_text_contents() == [
        fmt(run["first_loss"], 4),
        fmt(run["first_logp"], 1),
        " → ".join(fmt(value, 2) for value in run["reward"]),
        fmt(run["kl"], 2),
    ]
    assert page.locator(".dpo-quiz-scored").text_content().endswith(f"tokens: {run['scored']}")


def who_can_be_pressed(page):
    buttons = page.locator(".dpo-quiz-answer, .dpo-actions button").all()[:5]
    return [button.get_attribute("aria-disabled") == "false" for button in buttons]


@pytest.mark.parametrize("width", [1000, 360])
def test_the_whole_quiz_is_played_by_keyboard_and_nothing_moves(page, width):
    page.set_viewport_size({"width": width, "height": 1100})
    settle(page)
    settle(page)
    height = page.evaluate(HEIGHT)
    page.keyboard.press("Tab")
    for shown, (name, options, why) in enumerate(bug_quiz.ROUNDS):
        answers = page.locator(".dpo-quiz-answer")
        assert [t.split(maxsplit=1)[1] for t in answers.all_inner_texts()] == [
            bug_quiz.TITLES[option] for option in options
        ]
        page.keyboard.press("n")  # not before an answer
        page.keyboard.press("Control+1")  # is the browser's
        settle(page)
        assert_shows(page, bug_quiz.rounds()[shown])
        assert who_can_be_pressed(page) == [True] * 4 + [False]
        assert page.get_by_role("button", name="Reset").evaluate(OPACITY) == "1"
        assert float(page.locator(".dpo-actions [aria-disabled=true]").evaluate(OPACITY)) < 0.7
        assert (
            page.locator(".dpo-quiz-why").inner_text() == ""
        )  # the longest keeps the room, unseen
        right = (shown + 1) // 2  # of those answered
        assert page.get_by_text(f"Run {shown + 1} of 11.").count() == 1
        assert page.get_by_text(f"Right so far: {right} of {shown}.").count() == 1
        place = options.index(name) if shown % 2 == 0 else (options.index(name) + 1) % 4
        page.keyboard.press(str(place + 1))
        page.keyboard.press(str(options.index(name) + 1))  # the first answer counts
        settle(page)
        assert answers.nth(options.index(name)).get_attribute("data-verdict") == "right"
        if shown % 2:
            assert answers.nth(place).get_attribute("data-verdict") == "wrong"
        assert who_can_be_pressed(page) == [False] * 4 + [shown < 10]
        marks = {place: "✗ no", options.index(name): "✓ this one" if shown % 2 else "✓ yes"}
        told = page.locator(".dpo-quiz-mark").all_text_contents()
        assert told == [marks.get(i, "") for i in range(4)]
        color = {"✗ no": "rejected", "✓ yes": "policy", "✓ this one": "policy"}
        for mark in page.locator(".dpo-quiz-mark:not(:empty)").all():
            assert colors_of(mark)[0] == color[mark.inner_text()]
        assert page.locator(".dpo-quiz-why").inner_text() == why
        assert page.evaluate(HEIGHT) == pytest.approx(height, abs=0.5)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.keyboard.press("n")
        settle(page)
        assert page.evaluate(HEIGHT) == pytest.approx(height, abs=0.5)
    assert page.get_by_text("Right so far: 6 of 11.").count() == 1
    page.wait_for_function("document.querySelector('.dpo-status').textContent.endsWith('6 of 11.')")


def test_tab_and_enter_are_enough_and_reset_starts_again(page):
    words = page.get_by_role("status").text_content()
    button = page.get_by_role("button", name="Reference not frozen")
    button.focus()
    page.keyboard.press("Enter")
    settle(page)
    assert "✓ yes" in button.inner_text()
    page.get_by_role("button", name="Next run").focus()
    page.keyboard.press("Enter")
    settle(page)
    assert page.get_by_text("Run 2 of 11.").count() == 1
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "The run"
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function(STATUS_IS, arg=words)
