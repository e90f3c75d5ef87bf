"""The widgets in headless Chromium, from file://, with no kernel and no network."""

import itertools
import math
import random
import re

import pytest

import dpo_lib
from dpo_lib import widgets
from dpo_lib.widgets import join
from dpo_lib.widgets.spec import (
    Button,
    Choice,
    LogSlider,
    Slider,
    Toggle,
    WidgetSpec,
    fmt,
)
from tests.widgets.conftest import write_page
from tests.widgets.hurry import hurried
from tests.widgets.looks import assert_accessible, rgb

PHONE, DESK = 360, 1000
BODY = "body { margin: 0; background: var(--dpo-paper); color: var(--dpo-ink) }"
EXTREMES = [0.0, 0.3, 1.7, 5.0, 37.0, 800.0, 1e4]
SCORES = sorted({sign * value for value in EXTREMES for sign in (-1, 1)})
LOGPS = [-0.0, -0.05, -2.3, -750.0, -1e4]


class Page:
    """An opened page that knows what it must not have done."""

    def __init__(self, page):
        self.page = page
        self.faults, self.requests = [], []
        page.on("console", lambda message: self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def settle(self):
        """Wait until the frame that shows the last change has been drawn."""
        self.page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")

    def drawing(self):
        return self.page.locator(".dpo-view").evaluate_all("views => views.map(v => v.innerHTML)")


@pytest.fixture(scope="module")
def context(browser):
    context = browser.new_context(viewport={"width": DESK, "height": 800})
    yield context
    context.close()


@pytest.fixture
def open_page(context, tmp_path):
    pages = []

    def write_and_open(body, after="", script=None):
        script = join.static_script() if script is None else script
        body = f"<main><h1>Test</h1>{body}</main>"
        file = tmp_path / f"page{len(pages)}.html"
        opened = Page(context.new_page())
        pages.append(opened.page)
        opened.file = write_page(file, body, script, after, style=BODY)
        opened.page.goto(opened.file)
        return opened

    yield write_and_open
    for page in pages:
        page.close()


def placeholder(kind):
    cls = getattr(widgets, widgets.class_name(kind))
    spec = cls.build_spec()
    return spec, cls.describe(spec.values), spec.to_html(cls.describe(spec.values))


@pytest.fixture(params=join.kinds())
def kind(request):
    return request.param


# --- the mathematics -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def js(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script())
    yield lambda expression, rows: page.evaluate(
        f"rows => {{ const m = dpoBook.math; return rows.map({expression}); }}", rows
    )
    page.close()


def test_preference_mathematics_is_that_of_the_library(js):
    pairs = [list(pair) for pair in itertools.product(SCORES, SCORES)]
    got = js("([a, b]) => [m.btProbability(a, b), m.preferenceNll(a, b)]", pairs)
    for (chosen, rejected), (probability, nll) in zip(pairs, got, strict=True):
        expected = dpo_lib.bradley_terry_probability(chosen, rejected).item()
        assert math.isclose(probability, expected, rel_tol=1e-12, abs_tol=1e-300)
        expected = dpo_lib.preference_nll(chosen, rejected).item()
        assert math.isclose(nll, expected, rel_tol=1e-12, abs_tol=1e-300)


def test_slopes_are_those_of_autograd(js):
    import torch

    got = js("x => [m.nllSlope(x), m.complementSlope(x)]", SCORES)
    for score, (nll_slope, complement_slope) in zip(SCORES, got, strict=True):
        gap = torch.tensor(score, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(dpo_lib.preference_nll(gap, 0.0), gap)
        assert math.isclose(nll_slope, slope.item(), rel_tol=1e-12, abs_tol=1e-300)
        (slope,) = torch.autograd.grad(dpo_lib.bradley_terry_probability(0.0, gap), gap)
        # Autograd's σ(1 − σ) loses digits where σ is near 1; ours does not.
        assert math.isclose(complement_slope, slope.item(), rel_tol=1e-9, abs_tol=1e-15)


def test_the_dpo_loss_is_that_of_the_library(js):
    import torch

    rows = [
        [*logps, beta, smoothing]
        for logps in itertools.product(LOGPS, repeat=4)
        for beta, smoothing in ((0.1, 0.0), (1.0, 0.2))
    ]
    got = js(
        "r => { const d = m.dpoLoss(...r);"
        " return [d.loss, d.chosenReward, d.rejectedReward, d.chosenSlope, d.rejectedSlope]; }",
        rows,
    )
    got = torch.tensor(got, dtype=torch.float64)
    table = torch.tensor(rows, dtype=torch.float64)
    for beta, smoothing in ((0.1, 0.0), (1.0, 0.2)):
        chosen_rows = (table[:, 4] == beta) & (table[:, 5] == smoothing)
        logps = table[chosen_rows, :4].clone().requires_grad_()
        expected = dpo_lib.dpo_loss(*logps.T, beta=beta, label_smoothing=smoothing)
        (slopes,) = torch.autograd.grad(expected.losses.sum(), logps)
        for column, values in enumerate([*expected, slopes[:, 0], slopes[:, 1]]):
            torch.testing.assert_close(
                got[chosen_rows, column], values.detach(), rtol=1e-10, atol=1e-14
            )


def test_distributions_are_those_of_torch(js):
    import torch

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    logits = torch.cat([logits, 1e4 * logits])
    got = torch.tensor(js("r => m.logSoftmax(r)", logits.tolist()), dtype=torch.float64)
    torch.testing.assert_close(got, logits.log_softmax(-1), rtol=1e-12, atol=1e-12)
    got = torch.tensor(js("r => m.softmax(r)", logits.tolist()), dtype=torch.float64)
    torch.testing.assert_close(got, logits.softmax(-1), rtol=1e-12, atol=1e-300)

    reference = logits[:40].softmax(-1)
    for beta in (1e-3, 0.1, 1.0, 1e4):
        rows = [[p, r] for p, r in zip(reference.tolist(), logits[40:].tolist(), strict=True)]
        got = torch.tensor(js(f"([p, r]) => m.piStar(p, r, {beta})", rows), dtype=torch.float64)
        expected = (reference.log() + logits[40:] / beta).softmax(-1)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-300)
        kl = torch.tensor(js(f"([p, r]) => m.klDivergence(m.piStar(p, r, {beta}), p)", rows))
        expected_kl = torch.special.xlogy(expected, expected / reference).sum(-1)
        torch.testing.assert_close(kl.double(), expected_kl, rtol=1e-6, atol=1e-9)
    assert js("r => m.logSumExp(r)", [[-1e4, -1e4]]) == [-1e4 + math.log(2)]


NO_CHAIN = "wins => dpoBook.modules.module_bradley_terry.noChain(wins)"


def test_chains_of_wins_are_found_however_long_they_are(js):
    import torch

    rng = random.Random(0)
    rows = [[[int(rng.random() < 0.4) for _ in range(5)] for _ in range(5)] for _ in range(200)]
    rows += [[[int(j in ((i + 2) % 5, i)) for j in range(5)] for i in range(5)]]  # one round
    for wins, missing in zip(rows, js(NO_CHAIN, rows), strict=True):
        reached = torch.tensor(wins, dtype=torch.float64) + torch.eye(5, dtype=torch.float64)
        there = torch.linalg.matrix_power(reached, 4) > 0
        assert (missing is None) == bool(there.all())
        if missing is not None:
            assert not there[tuple(missing)]


FIT = """wins => {
  const { log } = Math;
  let asked = 0;
  Math.log = (value) => (asked++, log(value));
  const scores = dpoBook.modules.module_bradley_terry.fitBradleyTerry(wins);
  Math.log = log;
  return [scores, asked / wins.length];
}"""


def test_scores_come_to_rest_or_are_left_after_100_000_rounds(js):
    far = 10**9  # two pairs that hardly met
    rows = [
        [[0, 3], [1, 0]],
        [[0, 3, 1], [2, 0, 4], [1, 1, 0]],
        [[0, far, 1, 0], [far, 0, 0, 0], [0, 3, 0, far], [0, 0, far, 0]],
    ]
    (*quick, slow), (*few, many) = zip(*js(FIT, rows), strict=True)
    for wins, scores in zip(rows, quick, strict=False):
        games = [(i, j) for i, row in enumerate(wins) for j, n in enumerate(row) for _ in range(n)]
        winners, losers = zip(*games, strict=True)
        expected = dpo_lib.fit_bradley_terry([*winners], [*losers], n_items=len(wins))
        assert scores == pytest.approx(expected.tolist(), abs=1e-12)
    assert max(few) < 200
    assert many == 100_000
    assert math.fsum(slow) == pytest.approx(0, abs=1e-12)


def test_numbers_are_written_as_in_python(js):
    numbers = [-1234.5678, -0.7, -0.25, -0.0049, -0.0, 0.0, 0.0049, 0.051, 1.006, 12.3, 971.25]
    rows = [[number, digits] for number in numbers for digits in range(1, 5)]
    got = js("row => dpoBook.modules.module_ui.fmt(...row)", rows)
    assert got == [fmt(*row) for row in rows]


# --- every widget on a static page -----------------------------------------------------------


STATUS_IS = "words => document.querySelector('.dpo-status').textContent == words"
STATUS_IS_NOT = "words => document.querySelector('.dpo-status').textContent != words"


def test_each_slider_has_a_name_and_the_arrow_keys_move_the_drawing(open_page, kind):
    spec, words, body = placeholder(kind)
    opened = open_page(body, script=hurried(join.static_script()))
    status = opened.page.get_by_role("status")
    assert status.text_content() == words  # the browser says what Python said
    assert opened.page.locator(".dpo-fallback").count() == 0
    assert opened.page.locator(".dpo-widget").get_attribute("aria-label") == spec.title
    sliders = [control for control in spec.controls if isinstance(control, (Slider, LogSlider))]
    assert opened.page.get_by_role("slider").count() == len(sliders)
    for control in sliders:
        name = re.sub(r"_\{?(\w+)\}?", r"\1", control.label)
        slider = opened.page.get_by_role("slider", name=name, exact=True)
        assert slider.count() == 1
        for key in ("min", "max", "step"):
            assert float(slider.get_attribute(key)) == getattr(control, key)
        before = opened.drawing(), slider.input_value(), slider.get_attribute("aria-valuetext")
        slider.focus()
        slider.press("ArrowLeft")
        opened.settle()
        after = opened.drawing(), slider.input_value(), slider.get_attribute("aria-valuetext")
        assert all(old != new for old, new in zip(before, after, strict=True)), control.name
        seen = slider.evaluate("node => document.querySelector(`output[for=${node.id}]`).value")
        assert after[-1] == seen  # who hears the value hears the one that is shown
        outline = slider.evaluate("node => getComputedStyle(node).outlineWidth")
        assert float(outline.removesuffix("px")) >= 2  # the focus is seen
    if sliders:
        opened.page.wait_for_function(STATUS_IS_NOT, arg=words)
        opened.page.get_by_role("button", name="Reset").click()
        opened.page.wait_for_function(STATUS_IS, arg=words)
    assert opened.faults == []
    assert opened.requests == [opened.file, opened.file.replace(".html", "-0.js")]


ONE_MORE_STEP = """() => {
  const slider = document.querySelector("input[type=range]");
  if (slider.value === slider.max) slider.value = slider.min;
  else slider.stepUp();
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  return document.querySelector(".dpo-status").textContent;
}"""


def test_words_come_at_intervals_where_changes_leave_no_rest(open_page):
    page = open_page(placeholder("score_sigmoid")[2]).page
    page.clock.install()
    page.reload()
    said = []
    for _ in range(100):  # a drag of six seconds
        said.append(page.evaluate(ONE_MORE_STEP))
        page.clock.run_for(60)
    assert sum(before != after for before, after in itertools.pairwise(said)) == 2  # each 2.5 s


# SVG text may reach over the edge of its drawing without making the page scroll: look there too.
CUT_OFF = """() => [...document.querySelectorAll(".dpo-view :is(text, td, .dpo-value)")]
  .filter((node) => {
    const box = node.getBoundingClientRect();
    return box.width && (box.left < 0 || box.right > innerWidth);
  })
  .map((node) => node.textContent)"""
WITHOUT_A_NUMBER = """() => [...document.querySelectorAll("svg.dpo-plot")].flatMap((svg) => {
  const heights = [...svg.querySelectorAll(".tick")].map((t) => t.transform.baseVal[0].matrix.f);
  const lines = [...svg.querySelectorAll(".dpo-grid line")].map((l) => l.y1.baseVal.value);
  return lines.filter((y) => !heights.some((height) => height > 1 && Math.abs(height - y) < 1));
}).length"""  # lines of a grid
HEIGHT = "document.querySelector('.dpo-widget').getBoundingClientRect().height"


def test_numbers_move_nothing_and_nothing_scrolls_sideways(open_page, kind):
    _, _, body = placeholder(kind)
    opened = open_page(body, script=hurried(join.static_script()))
    for width in (DESK, PHONE):
        opened.page.set_viewport_size({"width": width, "height": 800})
        opened.settle()
        opened.settle()  # the width is seen in one frame and drawn in the next
        height = opened.page.evaluate(HEIGHT)
        for key in ("Home", "PageUp", "End", "PageDown"):
            for slider in opened.page.get_by_role("slider").all():
                slider.press(key)
            opened.settle()
            assert opened.page.evaluate(HEIGHT) == pytest.approx(height, abs=0.5)
            assert opened.page.evaluate(CUT_OFF) == []
            assert opened.page.evaluate(WITHOUT_A_NUMBER) == 0
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        drawn = opened.page.locator("svg.dpo-plot").evaluate_all(
            "all => all.map(svg => svg.viewBox.baseVal.width / svg.getBoundingClientRect().width)"
        )
        assert drawn == pytest.approx([1] * len(drawn))  # laid out again, not shrunk
    assert opened.faults == []


def test_both_themes_pass_the_accessibility_rules(open_page):
    opened = open_page("".join(placeholder(kind)[2] for kind in join.kinds()))
    boxes = opened.page.locator(".dpo-widget")
    assert boxes.count() == len(join.kinds())
    assert_accessible(opened.page, rules={})
    for theme in ("light", "dark"):
        opened.page.evaluate("t => { document.documentElement.dataset.theme = t; }", theme)
        grounds = boxes.evaluate_all("all => all.map((n) => getComputedStyle(n).backgroundColor)")
        assert set(grounds) == {rgb(join.palette(theme)["paper"])}
    heard = opened.page.locator(".dpo-hidden:not(:empty)").evaluate_all(
        "all => all.map((n) => [n.checkVisibility({ visibilityProperty: true }),"
        " n.getBoundingClientRect().width <= 1])"
    )
    assert heard == [[True, True]] * len(heard)  # and not seen
    assert opened.faults == []


# --- the two widgets' own behavior -----------------------------------------------------------


def test_without_script_the_words_are_read(browser, tmp_path):
    _, words, body = placeholder("score_sigmoid")
    (tmp_path / "page.html").write_text(f'<meta charset="utf-8">{body}', encoding="utf-8")
    page = browser.new_page(java_script_enabled=False)
    page.goto((tmp_path / "page.html").as_uri())
    assert page.get_by_text(words).is_visible()
    page.close()


def test_shifting_both_scores_leaves_the_probability_alone(open_page):
    opened = open_page(placeholder("score_sigmoid")[2])
    numbers = opened.page.locator(".dpo-value")
    assert numbers.all_text_contents() == ["2.50 − 0.80 = 1.70", "0.8455", "0.1545"]
    for key, expected in (("Home", "−0.50 − (−2.20) = 1.70"), ("End", "5.50 − 3.80 = 1.70")):
        opened.page.get_by_role("slider", name="Shift both").press(key)
        opened.settle()
        assert numbers.all_text_contents() == [expected, "0.8455", "0.1545"]


def test_dragging_in_the_drawing_moves_the_slider(open_page):
    opened = open_page(placeholder("loss_and_gradient")[2])
    box = opened.page.locator("svg.dpo-plot").first.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] - 50, box["y"] + 100)
    opened.page.mouse.up()
    opened.settle()
    slider = opened.page.get_by_role("slider")
    assert slider.input_value() == "-8"
    cells = opened.page.locator(".dpo-table td").all_text_contents()
    assert cells == ["8.0003", "−0.9997", "0.9997", "−0.0003"]
    dots = opened.page.locator(".dpo-dot")
    for plot, share in zip(opened.page.locator("svg.dpo-plot").all(), (0.43, 0.61), strict=True):
        box = plot.bounding_box()
        x = round(box["x"] + share * box["width"])
        opened.page.mouse.click(x, box["y"] + 100)
        opened.settle()
        dot = dots.nth(0 if box["x"] < DESK / 3 else 2).bounding_box()
        step = box["width"] / 160  # of the slider, and a little more
        assert abs(dot["x"] + dot["width"] / 2 - x) <= 0.5 * step + 0.5
    before = slider.input_value()
    opened.page.mouse.click(x + 99, box["y"] + 100, button="right")
    assert slider.input_value() == before


# --- the machinery ---------------------------------------------------------------------------

EVERY_CONTROL = WidgetSpec(
    "every_control",
    "Every control",
    (
        Slider("score", "Score", -1.0, 1.0, 0.1, 0.3, digits=1, unit="nats"),
        LogSlider("beta", "β", -2.0, 1.0, 0.5, 0.1),
        Choice("loss", "Loss", ("dpo", "ipo"), "dpo"),
        Toggle("smooth", "Smooth"),
        Button("next_step", "Next"),
    ),
    state={"rows": []},
)
EVERY_MODULE = """
dpoBook.widgets.every_control = { render({ model, el, spec }) {
  el.append(Object.assign(document.createElement("button"), { textContent: "Add", onclick() {
    model.set("rows", [...model.get("rows"), "row"]); model.save_changes(); } }));
  const shown = el.appendChild(document.createElement("pre"));
  const update = (state) => { shown.textContent = JSON.stringify(state); };
  return { update, describe: ({ score }) => `${score}` };
} };
"""


# Every position of every slider: its value for the module, what is seen and what is heard.
POSITIONS = """() => [...document.querySelectorAll("input[type=range]")].map((slider) => {
  const [, rows] = [(slider.value = slider.min), []];
  for (let left = 1000; left; left--) {
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    const seen = document.querySelector(`output[for=${slider.id}]`).textContent;
    rows.push([Number(slider.value), seen, slider.getAttribute("aria-valuetext")]);
    if (Number(slider.value) >= Number(slider.max)) break;
    slider.stepUp();
  }
  return rows;
})"""


def test_a_slider_shows_and_speaks_its_value_at_every_position(open_page):
    scores, betas = open_page(EVERY_CONTROL.to_html("words"), after=EVERY_MODULE).page.evaluate(
        POSITIONS
    )
    assert [position for position, *_ in scores] == [step / 10 for step in range(-10, 11)]
    assert [position for position, *_ in betas] == [step / 2 for step in range(-4, 3)]
    for position, seen, heard in scores:
        assert seen == heard == f"{fmt(position, 1)} nats"
    for position, seen, heard in betas:
        assert seen == heard == f"{10**position:.2g}"


def test_every_type_of_control_reaches_the_module(open_page):
    opened = open_page(EVERY_CONTROL.to_html("words"), after=EVERY_MODULE)
    page = opened.page

    def state():
        opened.settle()
        return page.evaluate("JSON.parse(document.querySelector('pre').textContent)")

    first = {"score": 0.3, "beta": 0.1, "loss": 0, "smooth": False, "next_step": 0, "rows": []}
    assert state() == first
    page.get_by_role("slider", name="Score").press("ArrowRight")
    page.get_by_role("slider", name="β").press("End")
    page.get_by_role("combobox", name="Loss").select_option("ipo")
    page.get_by_role("checkbox", name="Smooth").check()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Add").click()
    assert state() == {
        "score": 0.4, "beta": 10, "loss": 1, "smooth": True, "next_step": 1, "rows": ["row"]
    }  # fmt: skip
    assert page.locator("output").all_text_contents() == ["0.4 nats", "10"]
    chosen = page.get_by_role("combobox").locator("option:checked")
    assert chosen.text_content() == "ipo"
    page.get_by_role("button", name="Reset").click()
    assert state() == first
    assert page.locator("output").all_text_contents() == ["0.3 nats", "0.1"]
    assert chosen.text_content() == "dpo"
    assert page.get_by_role("slider", name="Score").input_value() == "0.3"
    assert not page.get_by_role("checkbox").is_checked()
    assert opened.faults == []


def test_words_wait_for_the_reader_to_rest(open_page):
    opened = open_page(EVERY_CONTROL.to_html("words"), after=EVERY_MODULE)
    opened.page.evaluate("""() => {
        window.said = [];
        const status = document.querySelector(".dpo-status");
        new MutationObserver(() => said.push(status.textContent))
            .observe(status, { childList: true, subtree: true });
    }""")
    for _ in range(5):
        opened.page.get_by_role("slider", name="Score").press("ArrowRight")
    opened.page.wait_for_function("said.length > 0")
    assert opened.page.evaluate("said") == ["0.8"]


def test_a_widget_that_fails_leaves_its_words_and_the_others(open_page):
    _, words, body = placeholder("score_sigmoid")
    broken = WidgetSpec("loss_and_gradient", "Without its slider").to_html("kept")
    opened = open_page(broken + body + body)
    assert opened.page.get_by_text("kept").is_visible()
    first, second = opened.page.get_by_role("status").all()
    assert first.text_content() == second.text_content() == words
    opened.page.get_by_text("Shift both").last.click()
    opened.page.keyboard.press("End")
    opened.settle()
    tiles = opened.page.locator(".dpo-wide .dpo-value").all_text_contents()
    assert tiles == ["2.50 − 0.80 = 1.70", "5.50 − 3.80 = 1.70"]  # each moves its own
    assert len(opened.faults) == 1
    assert "loss_and_gradient" in opened.faults[0]


def test_the_only_global_is_the_namespace(open_page):
    body = placeholder("score_sigmoid")[2]
    count = "Object.getOwnPropertyNames(window).filter(n => !n.startsWith('dpo-'))"
    without = set(open_page(body, script="").page.evaluate(count))
    assert set(open_page(body).page.evaluate(count)) - without == {"dpoBook"}


# --- the live form: the module that a notebook runs ------------------------------------------

LIVE_PAGE = """async ([source, state]) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  const listeners = {};
  const model = window.model = {
    state, saved: 0, listeners,
    get: (name) => model.state[name],
    set(name, value) {
      model.state[name] = value;
      for (const f of listeners[`change:${name}`] ?? []) f();
    },
    on(events, f) { for (const e of events.split(" ")) (listeners[e] ??= []).push(f); },
    off(events, f) {
      for (const e of events.split(" ")) listeners[e] = listeners[e].filter((g) => g !== f);
    },
    save_changes() { model.saved += 1; },
  };
  const el = document.body.appendChild(document.createElement("div"));
  window.stop = await widget.render({ model, el });
}"""


def test_the_module_runs_in_a_notebook(open_page, kind):
    spec, words, _ = placeholder(kind)
    opened = open_page("", script="")
    values = {c["name"]: c["value"] for c in spec.to_json()["controls"]} | dict(spec.state)
    opened.page.evaluate(LIVE_PAGE, [join.esm(kind), {"spec": spec.to_json(), **values}])
    opened.page.add_style_tag(content=join.static_css())
    assert opened.page.get_by_role("status").text_content() == words
    assert opened.page.get_by_role("slider").count() == 0  # the notebook brings its own
    assert opened.page.locator(".dpo-widget").get_attribute("aria-label") == spec.title
    for control in spec.controls:
        if isinstance(control, Slider):
            before = opened.drawing()
            opened.page.evaluate(
                "([n, v]) => model.set(n, v)", [control.name, control.min + control.step]
            )
            opened.settle()
            assert opened.drawing() != before, control.name
    opened.page.get_by_role("button", name="Reset").click()
    assert opened.page.evaluate("model.saved") >= 1
    for name, value in values.items():
        assert opened.page.evaluate("name => model.get(name)", name) == value
    opened.page.evaluate("stop()")
    assert opened.page.evaluate("Object.values(model.listeners).every(l => l.length === 0)")
    assert opened.faults == []
