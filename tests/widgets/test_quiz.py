"""The chapters' quizzes: sound questions, numbers that the chapter has, played by keyboard."""

import json
import math
import random
import re
from pathlib import Path

import pytest
import torch

import dpo_lib
from dpo_lib.widgets import Quiz, join, quiz
from tests.widgets.conftest import write_page
from tests.widgets.looks import assert_accessible, colors_of

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?![\w⁻])")
SMALL = {str(n) for n in range(11)}  # counts, and numbers that the question chooses
CHAPTERS = pytest.mark.parametrize("chapter", quiz.CHAPTERS)


def notebook(chapter):
    (path,) = ROOT.glob(f"notebooks/{int(chapter):02}_*.ipynb")
    return json.loads(path.read_text(encoding="utf-8"))


def numbers(text):
    return {number.replace("−", "-").lstrip("-") for number in NUMBER.findall(text)}


def numbers_of(chapter):
    """The numbers in the texts and the printed outputs of a chapter."""
    found = set()
    for cell in notebook(chapter)["cells"]:
        source = "".join(cell["source"])
        if "widgets.Quiz" in source:
            continue
        found |= numbers(source)
        for output in cell.get("outputs", []):
            found |= numbers("".join(output.get("text", [])))
    return found


@CHAPTERS
def test_each_question_has_one_right_answer_and_a_word_for_each_wrong_one(chapter):
    asked = quiz.questions(chapter)
    assert 3 <= len(asked) <= 5
    for question in asked:
        assert set(question) <= {"question", "right", "wrong", "values"}
        assert len(question["wrong"]) >= 2
        for text, why in [question["right"], *question["wrong"]]:
            assert text.strip()
            assert len(why) > 25
            assert why[-1] == "."
    arranged = Quiz.spec_of(chapter).data["questions"]
    for question, shown in zip(asked, arranged, strict=True):
        assert shown["answers"][shown["right"]] == question["right"]
        texts = [text for text, _ in shown["answers"]]
        assert len(set(texts)) == len(texts)


def test_no_text_stands_twice_and_the_right_answer_has_no_place_of_its_own():
    asked = [question for chapter in quiz.CHAPTERS for question in quiz.questions(chapter)]
    texts = [question["question"] for question in asked]
    texts += [why for q in asked for _, why in [q["right"], *q["wrong"]]]
    assert len(set(texts)) == len(texts)
    places = [q["right"] for c in quiz.CHAPTERS for q in Quiz.spec_of(c).data["questions"]]
    assert max(map(places.count, set(places))) < 0.6 * len(places)
    assert set(places) == {0, 1, 2, 3}


@CHAPTERS
def test_every_number_is_one_of_the_chapter_or_computed(chapter):
    known = numbers_of(chapter) | SMALL
    names = {"math": math, "torch": torch, **{n: getattr(dpo_lib, n) for n in dpo_lib.__all__}}
    for question in quiz.questions(chapter):
        for number, expression in question.get("values", {}).items():
            digits = len(number.partition(".")[2])
            assert eval(expression, names) == pytest.approx(float(number), abs=0.5 * 10**-digits)
        computed = numbers(" ".join(sum(question.get("values", {}).items(), ())))
        said = [question["question"], *question["right"], *(why for _, why in question["wrong"])]
        for text in said:
            assert numbers(text) - known - computed == set(), text


@CHAPTERS
def test_the_chapter_shows_its_quiz_and_nothing_else_under_that_name(chapter):
    cells = notebook(chapter)["cells"]
    (shown,) = [c for c in cells if "widgets.Quiz" in "".join(c["source"])]
    assert f'widgets.Quiz.of("{chapter}")' in "".join(shown["source"])
    spec = Quiz.spec_of(chapter)
    html = "".join(shown["outputs"][0]["data"]["text/html"])
    assert html == spec.to_html(Quiz.describe(spec.values))
    texts = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert texts.count("## Check yourself") == 1


def test_an_unknown_chapter_is_named():
    with pytest.raises(ValueError, match="got '11'"):
        Quiz.of("11")


@pytest.fixture
def page(browser, tmp_path):
    spec = Quiz.spec_of("2")
    body = f"<main><h1>Test</h1>{spec.to_html(Quiz.describe(spec.values))}</main>"
    address = write_page(tmp_path / "page.html", body, join.static_script(["quiz"]))
    context = browser.new_context(viewport={"width": 360, "height": 800})
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(address)
    yield page
    assert page.faults == []
    context.close()


def says(page, words):
    page.wait_for_function(
        "words => document.querySelector('.dpo-status').textContent === words", arg=words
    )


def test_a_wrong_and_a_right_answer_by_keyboard(page):
    question = Quiz.spec_of("2").data["questions"][0]
    right = question["right"]
    wrong = (right + 1) % len(question["answers"])
    height = page.evaluate("document.body.getBoundingClientRect().height")
    group = page.get_by_role("group").filter(has_text=question["question"]).last
    explained = group.locator("[aria-live]")
    check = group.get_by_role("button", name="Check question 1")
    assert check.get_attribute("aria-disabled") == "true"

    group.get_by_role("radio").nth(0).focus()
    page.keyboard.press("Space")
    for _ in range(wrong):
        page.keyboard.press("ArrowDown")
    assert explained.inner_text() == ""  # moving through the answers tells nothing
    page.keyboard.press("Enter")
    says(page, "1 of 4 answered, 0 right.")
    assert explained.inner_text() == "Not quite. " + question["answers"][wrong][1]
    assert colors_of(explained.locator("b"))[0] == "rejected"
    whys = [why for q in Quiz.spec_of("2").data["questions"] for _, why in q["answers"]]
    seen = page.locator("main").inner_text()  # the others keep their room, unseen
    assert [why for why in whys if why in seen] == [question["answers"][wrong][1]]

    group.get_by_role("radio").nth(right).focus()
    page.keyboard.press("Space")
    says(page, Quiz.describe(Quiz.spec_of("2").values))
    check.focus()
    page.keyboard.press("Enter")
    says(page, "1 of 4 answered, 1 right.")
    assert explained.inner_text() == "Right. " + question["answers"][right][1]
    assert colors_of(explained.locator("b"))[0] == "policy"
    assert list(json.loads(page.evaluate("localStorage.getItem('dpo-book-done')"))) == ["quiz 2.1"]
    assert page.evaluate("document.body.getBoundingClientRect().height") == pytest.approx(height)

    first = "{'quiz 2.1': '2020-02-20'}"  # the day of the first time stays
    page.evaluate(f"localStorage.setItem('dpo-book-done', JSON.stringify({first}))")
    page.reload()
    legends = page.locator("legend").all_text_contents()
    assert ["(answered before)" in text for text in legends] == [True, False, False, False]
    group.get_by_role("radio").nth(right).check()
    check.click()
    says(page, "1 of 4 answered, 1 right.")
    kept = json.loads(page.evaluate("localStorage.getItem('dpo-book-done')"))
    assert kept == {"quiz 2.1": "2020-02-20"}


WALK = """([spec, steps]) => {
  const el = document.body.appendChild(document.createElement("div"));
  const state = structuredClone(spec.state);
  const set = (name, value) => (state[name] = value);
  const model = { get: (name) => state[name], set, save_changes() {} };
  const view = dpoBook.widgets.quiz.render({ model, el, spec });
  return steps.map(([question, place]) => {
    const row = el.querySelectorAll("fieldset")[question];
    (place === null ? row.querySelector("button") : row.querySelectorAll("input")[place]).click();
    view.update(state);
    const shown = [...el.querySelectorAll("fieldset")].map((one) => [
      one.querySelector("legend").textContent.split(".")[0],
      [...one.querySelectorAll("input")].findIndex((input) => input.checked),
      one.querySelector("button").ariaDisabled,
      one.querySelector("[aria-live]").textContent,
      one.querySelector(".dpo-check-why").dataset.verdict,
    ]);
    const kept = Object.keys(dpoBook.modules.module_progress.done());
    return [shown, view.describe(state), kept.sort()];
  });
}"""


def test_each_question_keeps_its_own_answer_and_verdict(page):
    spec = Quiz.spec_of("2")
    asked = spec.data["questions"]
    draws = random.Random(0)
    steps = [
        (i, draws.choice([None, *range(len(asked[i]["answers"]))]))
        for i in draws.choices(range(len(asked)), k=60)
    ]
    picked, verdicts, kept = [-1] * len(asked), [""] * len(asked), set()
    found = page.evaluate(WALK, [spec.to_json(), steps])
    for (i, place), (shown, words, done) in zip(steps, found, strict=True):
        if place is not None and place != picked[i]:
            picked[i], verdicts[i] = place, ""
        elif place is None and picked[i] >= 0:
            verdicts[i] = "right" if picked[i] == asked[i]["right"] else "wrong"
            kept.add(f"quiz 2.{i + 1}")
        for q, (number, checked, disabled, said, verdict) in enumerate(shown):
            assert (number, checked, verdict) == (str(q + 1), picked[q], verdicts[q])
            assert disabled == str(picked[q] < 0).lower()
            why = asked[q]["answers"][picked[q]][1]
            begin = {"": "", "right": f"Right. {why}", "wrong": f"Not quite. {why}"}
            assert said == begin[verdicts[q]]
        assert words == Quiz.describe({"verdicts": verdicts})
        assert done == sorted(kept)
    assert len(kept) == len(asked)


def test_both_themes_on_a_phone(page):
    for radio in page.get_by_role("radio").all()[::4]:
        radio.check()
        radio.press("Enter")
    page.wait_for_timeout(450)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert_accessible(page, rules={})
