"""Bets: the truth is hidden until one is placed; kept bets are met again, others refused."""

import json

import pytest

from dpo_lib.widgets import Bet, join
from dpo_lib.widgets.spec import fmt
from tests.widgets.conftest import write_page
from tests.widgets.looks import assert_accessible, assert_fits, colors_of

KEY = "dpo-book-bets"
NUMBER = Bet.number_spec(
    "drafts",
    "Best of 16",
    (0.0, 2.0, 0.05),
    truth=1.25,
    said="A perfect judge gets 1.77.",
    unit="sd",
)
CURVE = Bet.curve_spec(
    "reward-curve",
    "Reward over training",
    [0, 50, 100],
    (-1.0, 3.0, 0.1),
    truth=[1.0, 1.7, 0.9],
    said="It falls in the end.",
    x_label="update",
    y_label="true reward",
    start=1.0,
)
CHOICE = Bet.choice_spec(
    "bland", "Which way?", ("shorter", "longer"), truth="longer", said="Answers grew."
)
LATER = {
    "name": "statements",
    "question": "Which statements hold?",
    "options": ("true", "false"),
    "rows": ("Ruler", "Goal"),
}
ASKED = Bet.choice_spec(**LATER, truth=None, said="Kept.")
SCORED = Bet.choice_spec(
    **LATER, truth=["false", "true"], said="Both were tested.", why=("Long ones lose.", "It is.")
)


@pytest.fixture
def context(browser):
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    yield context
    context.close()


@pytest.fixture
def open_page(context, tmp_path):
    def write_and_open(*specs, before=""):
        body = "".join(spec.to_html(Bet.describe(spec.values)) for spec in specs)
        body = f"<main><h1>Test</h1>{body}</main>"
        page = context.new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda message: page.faults.append(message.text))
        page.goto(write_page(tmp_path / "page.html", body, before, join.static_script(["bet"])))
        return page

    return write_and_open


def says(page, words, i=0):
    page.wait_for_function(
        "([i, w]) => document.querySelectorAll('.dpo-status')[i].textContent === w", arg=[i, words]
    )


def kept(page):
    return json.loads(page.evaluate(f"localStorage.getItem('{KEY}')") or "null")


def press(page, name, i=0):
    page.get_by_role("button", name=name).nth(i).focus()
    page.keyboard.press("Enter")


def test_a_number_is_bet_by_keyboard_kept_met_again_and_erased(open_page):
    page = open_page(NUMBER)
    assert "1.25" not in page.locator(".dpo-widget").inner_text()
    slider = page.get_by_role("slider", name="Your bet: Best of 16")
    slider.focus()
    for _ in range(2):
        slider.press("ArrowLeft")
    press(page, "Place my bet")
    says(page, "You said 0.90 sd, it is 1.25 sd. A perfect judge gets 1.77.")
    assert page.locator(".dpo-bet-line span").all_inner_texts() == ["you 0.90 sd", "truth 1.25 sd"]
    assert slider.is_disabled()
    entry = {"title": "Your bet: Best of 16", "bet": 0.9, "truth": 1.25}
    assert kept(page) == {"version": 1, "bets": {"drafts": entry}}

    page.reload()
    says(page, "You said 0.90 sd, it is 1.25 sd. A perfect judge gets 1.77.")
    press(page, "Reset")
    says(page, Bet.describe(NUMBER.values))
    assert kept(page) is None
    assert not page.get_by_role("slider").is_disabled()
    assert page.get_by_role("slider").input_value() == "1"
    assert page.faults == []


def test_show_me_tells_the_truth_and_keeps_nothing(open_page):
    page = open_page(NUMBER)
    press(page, "Show me")
    says(page, "A perfect judge gets 1.77.")
    assert "truth 1.25 sd" in page.locator(".dpo-bet-line").inner_text()
    press(page, "Place my bet")  # too late
    page.wait_for_timeout(450)
    assert kept(page) is None


def test_points_of_a_curve_are_moved_by_arrow_keys_and_by_the_pointer(open_page):
    page = open_page(CURVE)
    points = page.get_by_role("slider")
    assert points.count() == 3
    first = page.get_by_role("slider", name="true reward at update 0")
    first.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("PageDown")
    page.wait_for_function("document.querySelectorAll('[role=slider]')[1].ariaValueNow === '0.5'")
    assert page.get_by_role("slider", name="at update 50").evaluate(
        "node => node === document.activeElement"
    )
    box = page.locator(".dpo-bet-field").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] / 4)
    page.mouse.up()
    press(page, "Place my bet")
    says(page, "You were off by 0.8 on average. It falls in the end.")  # .1, 1.2 and 1.1
    assert kept(page)["bets"]["reward-curve"]["bet"] == [1.1, 0.5, 2]
    cells = page.locator("td").all_text_contents()
    assert cells == ["1.1", "1.0", "0.5", "1.7", "2.0", "0.9"]
    page.get_by_role("slider").first.press("ArrowUp")  # what is bet is bet
    assert page.get_by_role("slider").first.get_attribute("aria-valuenow") == "1.1"

    press(page, "Reset")
    page.evaluate(
        "() => { window.turned = 0; document.addEventListener('keydown', () => { turned++; }); }"
    )
    page.wait_for_function("document.querySelector('[role=slider]').ariaValueNow === '1'")
    now = [1.0, 1.0, 1.0]
    here = 0
    first.focus()
    for key, value, place in [
        ("PageUp", 1.5, 0), ("ArrowLeft", 1.5, 0), ("End", 3.0, 0), ("ArrowUp", 3.0, 0),
        ("ArrowRight", 1.0, 1), ("Home", -1.0, 1), ("ArrowDown", -1.0, 1), ("ArrowRight", 1.0, 2),
        ("ArrowRight", 1.0, 2), ("PageDown", 0.5, 2), ("ArrowLeft", -1.0, 1),
    ]:  # fmt: skip
        page.keyboard.press(key)
        here, now[place] = place, value
        page.wait_for_function(
            "([now, here]) => [...document.querySelectorAll('[role=slider]')].every((p, i) =>"
            "Number(p.ariaValueNow) === now[i] && p.matches(':focus') === (i === here))",
            arg=[now, here],
        )
    assert page.evaluate("turned") == 0  # pages of the book
    assert page.faults == []


def test_a_choice_needs_an_option(open_page):
    page = open_page(CHOICE)
    press(page, "Place my bet")
    page.wait_for_timeout(450)
    assert kept(page) is None
    page.get_by_role("radio", name="shorter").focus()
    page.keyboard.press("Space")
    press(page, "Place my bet")
    says(page, "You said “shorter”, it is “longer”. Answers grew.")
    assert page.locator(".dpo-bet-mark").all_text_contents() == ["", "✓"]


def test_a_bet_of_one_chapter_is_scored_in_another(open_page):
    page = open_page(ASKED)
    assert page.get_by_role("button", name="Show me").count() == 0
    for group in page.get_by_role("group", name="Ruler"), page.get_by_role("group", name="Goal"):
        group.get_by_role("radio", name="false").check()
    press(page, "Place my bet")
    says(page, "Kept.")
    assert page.locator(".dpo-bet-mark").all_text_contents() == [""] * 4
    assert kept(page)["bets"]["statements"]["truth"] is None

    page = open_page(SCORED)
    says(page, "You were right on 1 of 2. Both were tested.")
    assert page.locator(".dpo-bet-mark").all_text_contents() == ["", "✓", "✓", ""]
    assert page.locator(".dpo-bet-why").all_text_contents() == ["Long ones lose.", "It is."]
    assert kept(page)["bets"]["statements"]["truth"] == ["false", "true"]

    page = open_page(SCORED, NUMBER)
    for words in ("Place my bet", "Reset"):
        press(page, words, 1)  # of the second widget
        page.wait_for_timeout(450)
        assert kept(page)["bets"]["statements"]["bet"] == ["false", "false"]
    assert [*kept(page)["bets"]] == ["statements"]


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "null",
        "[]",
        '{"version": 2, "bets": {"drafts": {"bet": 1}}}',
        '{"version": 1, "bets": []}',
        '{"version": 1, "bets": {"drafts": 1}}',
        '{"version": 1, "bets": {"drafts": {"bet": 7}}}',
        '{"version": 1, "bets": {"drafts": {"bet": "1"}}}',
        '{"version": 1, "bets": {"bland": {"bet": ["taller"]}}}',
        '{"version": 1, "bets": {"bland": {"bet": []}}}',
        '{"version": 1, "bets": {"reward-curve": {"bet": [1, 1]}}}',
        '{"version": 1, "bets": {"reward-curve": {"bet": [1, 1, null]}}}',
    ],
)
def test_what_is_no_bet_of_ours_is_not_taken_for_one(open_page, text):
    page = open_page(NUMBER, CHOICE, CURVE, before=f"localStorage.setItem('{KEY}', {text!r})")
    for i, spec in enumerate((NUMBER, CHOICE, CURVE)):
        says(page, Bet.describe(spec.values), i)
    press(page, "Place my bet")
    says(page, "You said 1.00 sd, it is 1.25 sd. A perfect judge gets 1.77.")
    assert kept(page)["bets"]["drafts"]["bet"] == 1
    assert page.faults == []


def test_without_storage_a_bet_lasts_as_long_as_its_page(open_page):
    blocked = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('blocked'); } });"
    )
    page = open_page(NUMBER, before=blocked)
    press(page, "Place my bet")
    says(page, "You said 1.00 sd, it is 1.25 sd. A perfect judge gets 1.77.")
    page.reload()
    says(page, Bet.describe(NUMBER.values))
    assert page.faults == []


def test_every_form_before_and_after_in_both_themes_on_a_phone(open_page):
    page = open_page(NUMBER, CURVE, CHOICE, SCORED)
    for opened in (False, True):
        if opened:
            for i in range(4):
                press(page, "Show me", i)
            knobs = page.locator(".dpo-bet-field [role=slider]").all()
            assert {colors_of(knob, "dark")[1] for knob in knobs} == {"accent"}
            assert colors_of(page.locator(".dpo-bet-tick"), "dark")[1] == "ink"
        for width in (1000, 360):
            assert_fits(page, width)
            assert_accessible(page, rules={})
    assert page.faults == []


FAR = Bet.number_spec("far", "How far?", (-1.0, 4.0, 0.25), truth=0.25, said="Near.", unit="nats")
UNEVEN = Bet.curve_spec(
    "uneven", "Which way?", [10, 20, 60], (-1.0, 3.0, 0.5), [0.5, 2.5, -0.5], "Down.", "x", "y"
)
ROWS = Bet.choice_spec(
    "rows", "Which?", ("up", "down"), ["up", "down"], "Both.", ("One", "Two"), ("Why 1.", "Why 2.")
)
LOOK = """spec => {
  const el = document.createElement("div");
  document.body.replaceChildren(el);
  const state = { ...spec.state };
  const set = (name, value) => (state[name] = value);
  const model = { get: (name) => state[name], set, save_changes() {} };
  const view = dpoBook.widgets.bet.render({ model, el, spec });
  const all = (selector, read) => [...el.querySelectorAll(selector)].map(read);
  const color = (node) => /-(accent|ink)/.exec(node.getAttribute("class"))?.[1] ?? "";
  const text = (node) => node?.textContent ?? null;
  const words = (n) => [n.ariaLabel, n.ariaValueMin, n.ariaValueMax, n.ariaValueText];
  const corners = (n) => n.getAttribute("points").split(/[ ,]/).filter(Boolean).map(Number);
  const option = (n) => [text(n), color(n), n.firstChild.checked, n.firstChild.disabled];
  const look = () => ({
    line: all(".dpo-bet-line > span", (n) => [text(n), color(n), n.style.left]),
    ticks: all(".dpo-bet-tick", (n) => [n.hidden, n.style.getPropertyValue("--at")]),
    ends: all(".dpo-bet-ends > span, .dpo-bet-side > span", text),
    said: all("[type=range], [role=slider]", (n) => [...words(n), n.disabled ?? n.ariaDisabled]),
    legend: all("p b", (n) => [text(n), color(n)]),
    drawn: all("polyline", (n) => [color(n), corners(n)]),
    points: all("[role=slider]", (n) => [n.style.left, n.style.top]),
    places: all(".dpo-bet-ticks span", (n) => [text(n), n.style.left]),
    under: all(".dpo-bet-under", text),
    table: all("caption, th, td", text),
    rows: all("fieldset", (row) => [
      text(row.querySelector("legend")), text(row.querySelector(".dpo-bet-why")),
      [...row.querySelectorAll("label")].map(option),
    ]),
    buttons: all("button", (n) => [text(n), n.ariaDisabled]),
  });
  return { look: (values) => (view.update(Object.assign(state, values)), look()) };
}"""


@pytest.fixture
def look(open_page):
    """What a bet shows in a state, come to by others."""
    page = open_page()

    def look(spec, *before, **values):
        states = [{**spec.values, **one} for one in (*before, values)]
        found = page.evaluate(
            f"([spec, states]) => states.map(({LOOK})(spec).look).at(-1)", [spec.to_json(), states]
        )
        assert page.faults == []
        return found

    return look


def percent(value, low, high):
    return f"{100 * (value - low) / (high - low):g}%"


def test_each_bet_and_each_truth_stands_in_its_place_and_color(look):
    before, after = look(FAR, guess=2.75), look(FAR, guess=2.75, bet=2.75)
    you = ["you 2.75 nats", "accent", percent(2.75, -1, 4)]
    assert before["line"] == [you, ["", "ink", ""]]
    assert after["line"] == [you, ["truth 0.25 nats", "ink", percent(0.25, -1, 4)]]
    assert before["ticks"][0][0]
    assert after["ticks"] == [[False, "0.25"]]
    assert before["ends"] == ["−1.00", "4.00"]
    assert before["said"] == [["Your bet: How far?", None, None, "2.75 nats", False]]

    guess, (low, high) = [1.0, -1.0, 3.0], (-1, 3)
    before, after = look(UNEVEN, guess=guess), look(UNEVEN, guess=guess, bet=guess)
    colors = dict(after["legend"])
    assert colors == {"your bet": "accent", "the truth": "ink"}  # as on the line
    across = [0.0, 20.0, 100.0]
    for found, truth in ((before, []), (after, UNEVEN.data["truth"])):
        drawn = dict(found["drawn"])
        for name, values in (("your bet", guess), ("the truth", truth)):
            corners = [
                place
                for x, y in zip(across, values, strict=False)
                for place in (x, 100 * (high - y) / (high - low))
            ]
            assert drawn[colors[name]] == pytest.approx(corners)
        down = [percent(high - y, 0, high - low) for y in guess]
        assert found["points"] == [[f"{x:g}%", y] for x, y in zip(across, down, strict=True)]
        assert found["said"] == [
            [f"y at x {x}", "-1", "3", fmt(y, 1), str(bool(truth)).lower()]
            for x, y in zip((10, 20, 60), guess, strict=True)
        ]
        cells = [[fmt(y, 1) for y in guess], [fmt(y, 1) for y in truth] or ["–"] * 3]
        rows = [cell for row in zip(("10", "20", "60"), *cells, strict=True) for cell in row]
        assert found["table"] == ["y", "x", "your bet", "truth", *rows]
    assert after["ends"] == ["3.0", "−1.0"]  # from above
    assert after["places"] == [["10", "0%"], ["20", "20%"], ["60", "100%"]]
    assert after["under"] == ["x"]


def test_a_choice_shows_what_was_bet_what_is_true_and_what_can_be_done(look):
    def rows(found):
        return [[name, why, [tuple(o) for o in options]] for name, why, options in found["rows"]]

    place, peek = "Place my bet", "Show me"
    half = look(ROWS, guess=["", "up"])
    assert half["buttons"] == [[place, "true"], [peek, "false"]]
    whole = look(ROWS, guess=["up", "up"])
    assert whole["buttons"] == [[place, "false"], [peek, "false"]]
    up = [("up", "", True, False), ("down", "", False, False)]
    assert rows(whole) == [["One", "", up], ["Two", "", up]]
    placed = look(ROWS, guess=["up", "up"], bet=["up", "up"])
    assert placed["buttons"] == [[place, "true"], [peek, "true"]]
    assert rows(placed) == [
        ["One", "Why 1.", [("up✓", "accent", True, True), ("down", "", False, True)]],
        ["Two", "Why 2.", [("up", "accent", True, True), ("down✓", "", False, True)]],
    ]
    assert rows(look(CHOICE))[0][0] == "Your bet: Which way?"  # heard, where a row has no name


@pytest.mark.parametrize(
    ("spec", "guess"), [(FAR, 2.75), (UNEVEN, [1.0, -1.0, 3.0]), (ROWS, ["down", "down"])]
)
def test_reset_takes_back_all_that_a_bet_has_shown(look, spec, guess):
    def seen(found):
        line = [one if one[0] else one[:2] for one in found["line"]]  # a text's place, if any
        return found | {"line": line, "ticks": [hidden or at for hidden, at in found["ticks"]]}

    first, placed = {}, {"guess": guess, "bet": guess}
    for after in (placed, {"shown": True}):
        assert seen(look(spec, first, after)) == seen(look(spec))
    assert seen(look(spec, **placed)) != seen(look(spec))


@pytest.mark.parametrize(
    "axis", [(0, 2, 0.05), (-1, 1, 0.25), (0, 9, 0.5), (0.5, 4.5, 1), (0, 500, 50), (0, 0.1, 0.025)]
)
def test_every_place_of_an_axis_is_told_exactly_and_the_first_is_its_middle(axis):
    low, high, step = axis
    number = Bet.number_spec("n", "Q", axis, truth=low, said="S.")
    curve = Bet.curve_spec("c", "Q", [0, 1], axis, [low, low], "S.", "x", "y")
    for i in range(round((high - low) / step) + 1):
        value = low + i * step
        assert float(fmt(value, number.data["digits"]).replace("−", "-")) == pytest.approx(value)
    assert number.data["digits"] == curve.data["digits"]
    assert abs(number.values["guess"] - (low + high) / 2) <= step / 2 + 1e-9
    assert curve.values["guess"] == [number.values["guess"]] * 2


def test_an_axis_of_thirds_is_told_to_hundredths():
    spec = Bet.number_spec("n", "Q", (0, 1, 1 / 3), truth=0.5, said="S.")
    assert spec.data["digits"] == 2


def test_placing_a_bet_moves_nothing(open_page):
    page = open_page(NUMBER, CURVE, CHOICE, SCORED)
    height = "document.body.getBoundingClientRect().height"
    before = page.evaluate(height)
    for i in range(4):
        press(page, "Show me", i)
    page.wait_for_timeout(450)
    assert page.evaluate(height) == pytest.approx(before, abs=0.5)


@pytest.mark.parametrize(
    ("make", "change", "said"),
    [
        (Bet.number_spec, {"truth": 2.5}, r"truth 2.5 is outside \[0.0, 2.0\]"),
        (Bet.number_spec, {"truth": float("nan")}, "truth nan"),
        (Bet.number_spec, {"axis": (0.0, 2.0, 0.3)}, "axis"),
        (Bet.number_spec, {"axis": (2.0, 0.0, 0.1)}, "axis"),
        (Bet.number_spec, {"axis": (0.0, 2.0, 0.0)}, "axis"),
        (Bet.number_spec, {"name": "Best of"}, "name"),
        (Bet.curve_spec, {"truth": [1.0]}, "got 1 for 2"),
        (Bet.curve_spec, {"truth": [1.0, 9.0]}, "truth 9.0"),
        (Bet.curve_spec, {"start": -1.0}, "start -1.0"),
        (Bet.choice_spec, {"truth": "c"}, "truth 'c'"),
        (Bet.choice_spec, {"truth": ["a", "a"]}, "2 truths for 1 rows"),
        (Bet.choice_spec, {"options": ("a", "a")}, "options"),
        (Bet.choice_spec, {"why": ("x", "y")}, "2 sentences for 1 rows"),
    ],
)
def test_a_bet_names_what_is_wrong(make, change, said):
    good = {"name": "best", "question": "Q", "said": "S."} | {
        Bet.number_spec: {"axis": (0.0, 2.0, 0.1), "truth": 1.0},
        Bet.curve_spec: {
            "x": [0, 1],
            "axis": (0.0, 2.0, 0.1),
            "truth": [1.0, 2.0],
            "x_label": "x",
            "y_label": "y",
        },
        Bet.choice_spec: {"options": ("a", "b"), "truth": "a"},
    }[make]
    make(**good)
    with pytest.raises(ValueError, match=said):
        make(**good | change)


def test_a_notebook_gets_the_same_bet(open_page):
    bet = Bet.number("drafts", "Best of 16", (0.0, 2.0, 0.05), truth=1.25, said="S.")
    assert bet.values == {"guess": 1.0, "bet": None, "shown": False, "later": False}
    html = bet._repr_mimebundle_()["text/html"]
    assert 'data-dpo-widget="bet"' in html
    assert repr(bet) == "Bet: Your bet: Best of 16"
