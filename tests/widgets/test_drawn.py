"""What `update()` puts on the screen, in the units of the axes, is what the library says.

The functions that the modules export have tests of their own: these look at dots, lines, bars,
tiles and cells.
"""

import itertools
import math
import random
import re

import pytest
import torch

from dpo_lib import bradley_terry_probability, dpo_loss, preference_nll
from dpo_lib.widgets import (
    Annotator,
    Budget,
    BugQuiz,
    DPOCalculator,
    LengthRace,
    LossAndGradient,
    LossFamily,
    Objective,
    OptimalPolicy,
    ScoreSigmoid,
    TensorStepper,
    TokenProbabilities,
    TokenView,
    TrainingReplay,
    Triangle,
    Verdicts,
    join,
    objective,
    triangle,
)
from dpo_lib.widgets import tensor_stepper as stepper
from dpo_lib.widgets.loss_family import FAMILIES
from dpo_lib.widgets.optimal_policy import OptimalPolicyRewards
from dpo_lib.widgets.spec import Button, Choice, LogSlider, Toggle, fmt
from dpo_lib.widgets.token_probabilities import TOKENS, copies_until_underflow
from tests.widgets.looks import rgb

READ = """
const valuesOf = ({ controls, state }) => ({
  ...Object.fromEntries(controls.map(({ name, value }) => [name, value])),
  ...state,
});
function open(spec, state, width = "800px") {
  const el = document.createElement("div");
  el.className = "dpo-widget";
  el.style.width = width;
  document.body.append(el);
  const model = { get: (name) => state[name], set() {}, save_changes() {}, on() {} };
  return { el, view: dpoBook.widgets[spec.kind].render({ model, el, spec }) };
}
function read(el) {
  const number = (node, name) => Number(node.getAttribute(name));
  const kind = (node) => node.getAttribute("class");
  const all = (root, selector, read) => [...root.querySelectorAll(selector)].map(read);
  const ticks = (axis, c) => all(axis, ".tick", (tick) => [
    tick.textContent.replace("−", "-"),
    Number(tick.getAttribute("transform").match(/[-\\d.]+/g)[c]) - 0.5, // d3 puts lines on whole pixels
  ]);
  const plots = all(el, "svg.dpo-plot", (svg) => {
    const axes = [...svg.querySelectorAll(".dpo-axis")];
    return {
      label: svg.getAttribute("aria-label"),
      title: svg.querySelectorAll(".dpo-axis-title")[1]?.textContent,
      inner: svg.querySelector(".dpo-clip").getAttribute("viewBox").split(" ").map(Number),
      titles: all(svg, ".dpo-axis-title", (n) => [n.textContent, number(n, "y")]),
      room: ["y", "height"].map((c) => number(svg.querySelector(".dpo-clip"), c)),
      x: axes.length ? ticks(axes[0], 0) : [],
      y: axes.length ? ticks(axes[1], 1) : [],
      dots: all(svg, "circle", (n) => [kind(n), number(n, "cx"), number(n, "cy")]),
      lines: all(svg, "line.dpo-segment", (n) => [kind(n), ...["x1", "y1", "x2", "y2"].map((c) => number(n, c))]),
      bars: all(svg, "rect", (n) => [kind(n), ...["x", "y", "width", "height"].map((c) => number(n, c))]),
      curves: all(svg, "path.dpo-curve", (n) => [kind(n), (n.getAttribute("d") ?? "").match(/-?[\\d.]+(e-?\\d+)?/g)?.map(Number) ?? []]),
      texts: all(svg, "text.dpo-label", (n) => [kind(n), n.textContent, number(n, "x"), number(n, "y")]),
    };
  });
  return {
    plots,
    tiles: all(el, ".dpo-tile", (tile) => [...tile.children].map((n) => n.textContent)),
    table: all(el, ".dpo-table tr", (row) => all(row, "th, td", (n) => n.textContent)),
    cells: all(el, ".dpo-tensor td, .dpo-tokens td", (n) => [kind(n) ?? "", n.textContent, n.style.getPropertyValue("--share"), all(n, ".dpo-token-bar", kind)]),
  };
}
function draw(specs, values) {
  document.body.replaceChildren();
  const states = specs.map((spec) => ({ ...valuesOf(spec), ...values }));
  const { el, view } = open(specs[0], states[0]);
  for (const state of states) view.update(state);
  return read(el);
}
// What a widget says on a way of states, and those that it draws otherwise than where it begins with them.
function walk(specs) {
  document.body.replaceChildren();
  const { el, view } = open(specs[0], valuesOf(specs[0]));
  const [firsts, other] = [{}, []];
  const first = (state) => {
    const { el, view } = open(specs[0], state);
    view.update(state);
    const drawn = el.innerHTML;
    view.destroy?.();
    el.remove();
    return drawn;
  };
  const said = specs.map(valuesOf).map((state) => {
    view.update(state);
    const now = el.innerHTML;
    if (now !== (firsts[JSON.stringify(state)] ??= first(state))) other.push(state);
    return view.describe(state);
  });
  view.destroy?.();
  return { said, other };
}"""
DRAW = "([specs, values]) => draw(specs, values)"


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    page.add_style_tag(content=join.static_css())
    page.add_script_tag(content=join.static_script())
    page.add_script_tag(content=READ)
    yield page
    page.close()


class Plot:
    """A drawing in the units of its axes."""

    def __init__(self, found):
        self.found = found
        self.to_x, self.to_y = self._scale("x"), self._scale("y")

    def _scale(self, axis):
        try:
            (a, p), *_, (b, q) = [(float(text), place) for text, place in self.found[axis]]
        except ValueError:  # no axis, or one of words
            return float
        assert (q - p) * (b - a) * (1 if axis == "x" else -1) > 0, "an axis is the wrong way round"
        return lambda place: a + (place - p) * (b - a) / (q - p)

    def some(self, what, *words):
        return [one[1:] for one in self.found[what] if {*words} <= {*one[0].split()}]

    def dots(self, color):
        return [(self.to_x(x), self.to_y(y)) for x, y in self.some("dots", f"dpo-fill-{color}")]

    def lines(self, *words):
        return [
            (self.to_x(a), self.to_y(b), self.to_x(c), self.to_y(d))
            for a, b, c, d in self.some("lines", *words)
        ]

    def curves(self, *words):
        found = (numbers for (numbers,) in self.some("curves", *words))
        return [
            [(self.to_x(x), self.to_y(y)) for x, y in zip(d[::2], d[1::2], strict=True)]
            for d in found
        ]

    def heights(self, what):
        """How far up in the drawing the points of curves are: 0 at its lower edge, 1 at its upper."""
        top, height = self.found["room"]
        places = [y for (numbers,) in self.some("curves", what) for y in numbers[1::2]]
        return [1 - (y - top) / height for y in places]

    def texts(self, color):
        return [text for text, _, _ in self.some("texts", f"dpo-fill-text-{color}") if text]

    def holds(self, x, y):
        """Whether a place in the units of the axes lies within them."""
        left, top, width, height = self.found["inner"]
        here, there = (
            (self.to_x(left), self.to_x(left + width)),
            (self.to_y(top + height), self.to_y(top)),
        )
        return here[0] - 1e-6 <= x <= here[1] + 1e-6 and there[0] <= y <= there[1]

    def is_above(self, color):
        """Whether the one label of a color stands above the one dot of that color."""
        labels = [at for text, *at in self.some("texts", f"dpo-fill-text-{color}") if text]
        ((label_x, label_y),), ((x, y),) = labels, self.some("dots", f"dpo-fill-{color}")
        assert abs(label_x - x) <= 12 + 1e-6, "the label does not stand at its dot"
        return label_y < y


@pytest.fixture
def draw(page):
    """Draw a widget in a state; its plots, its tiles by their names, its table and its cells."""

    def draw(widget, **values):
        spec = widget.build_spec().to_json()
        found = page.evaluate(DRAW, [[spec], values])
        tiles = {}
        for name, text in found["tiles"]:  # one name may stand twice, with the same number
            assert tiles.setdefault(name, text) == text
        return (
            [Plot(plot) for plot in found["plots"]],
            tiles,
            found["table"],
            found["cells"],
        )

    return draw


def near(*expected):
    return pytest.approx(expected, abs=0.01)


def check_curve(points, function, allowed=0.01):
    """Whether the points of a curve lie on a function, and cross most of the drawing."""
    assert len(points) > 100
    assert all(y == pytest.approx(function(x), abs=allowed) for x, y in points)


def nll(gap):
    return preference_nll(gap, 0.0).item()


def sigmoid(gap):
    return bradley_terry_probability(gap, 0.0).item()


def slope_of(line):
    a, b, c, d = line
    return (d - b) / (c - a)


@pytest.mark.parametrize("delta", [-1.3, 2.0])
def test_two_losses_and_their_tangents(draw, delta):
    (losses, slopes), _, table, _ = draw(LossAndGradient, delta=delta)
    both = {
        "accent": ("−log P", nll, sigmoid(delta) - 1),
        "ink": ("1 − P", lambda gap: 1 - sigmoid(gap), -sigmoid(delta) * sigmoid(-delta)),
    }
    heads, *rows = table
    assert heads[1:] == ["value", "slope dL/dΔr"]
    for plot, of in ((losses, "loss (−log P in nats)"), (slopes, "size of the slope, |dL/dΔr|")):
        (below, low), (above, high) = plot.found["titles"]
        assert (below, above) == ("score gap Δr", of)
        assert low > high
    here = {"accent": [], "ink": [f"Δr = {fmt(delta, 2)}"]}
    for row, (color, (name, value, slope)) in zip(rows, both.items(), strict=True):
        assert losses.texts(color) == [name, *here[color]]
        assert slopes.texts(color) == [f"of {name}", *here[color]]
        assert losses.dots(color) == [near(delta, value(delta))]
        (tangent,) = losses.lines("dpo-tangent", f"dpo-stroke-{color}")
        assert slope_of(tangent) == pytest.approx(slope, abs=0.01)
        assert tangent[1] + slope * (delta - tangent[0]) == pytest.approx(value(delta), abs=0.05)
        assert slopes.dots(color) == [near(delta, -slope)]
        assert row == [name, fmt(value(delta), 4), fmt(slope, 4)]
        (curve,) = losses.curves(f"dpo-stroke-{color}")
        check_curve(curve, value, 0.02)
        (curve,) = slopes.curves(f"dpo-stroke-{color}")
        assert min(y for _, y in curve) > -0.01
        assert min(abs(x - delta) + abs(y + slope) for x, y in curve) < 0.05


def test_scores_on_their_line_and_the_sigmoid(draw):
    (line, curve), tiles, _, _ = draw(ScoreSigmoid, r_w=1.5, r_l=-0.5, shift=1.0)
    for color, score in (("chosen", 2.5), ("rejected", 0.5)):
        assert [x for x, _ in line.dots(color)] == near(score)
    (gap,) = line.lines("dpo-thick")
    assert gap[::2] == near(0.5, 2.5)
    assert [end[::2] for end in line.lines("dpo-thin")] == [near(0.5, 0.5), near(2.5, 2.5)]
    assert line.texts("chosen") + line.texts("rejected") == ["winner 2.50", "loser 0.50"]
    assert curve.dots("ink") == [near(2.0, sigmoid(2.0))]
    check_curve(curve.curves("dpo-stroke-ink")[0], sigmoid)
    p = sigmoid(2.0)
    assert curve.lines("dpo-drop", "dpo-stroke-accent") == [near(2.0, 0.0, 2.0, 1.0)]
    assert curve.lines("dpo-drop", "dpo-stroke-chosen") == [near(-8.0, p, 2.0, p)]
    assert line.texts("accent") == curve.texts("accent") == ["Δr = 2.00"]
    assert curve.texts("chosen") == [f"P = {fmt(p, 4)}"]
    assert line.is_above("chosen")
    assert not line.is_above("rejected")
    assert tiles == {
        "gap Δr = rw − rl": "2.50 − 0.50 = 2.00",
        "P(w ≻ l) = σ(Δr)": fmt(sigmoid(2.0), 4),
        "P(l ≻ w) = σ(−Δr)": fmt(sigmoid(-2.0), 4),
    }


def test_the_calculator(draw):
    state = {"p_w": -3.0, "p_l": -6.0, "ref_w": -5.0, "ref_l": -5.5, "beta": 0.5}
    (plot,), tiles, table, _ = draw(DPOCalculator, **state)
    logps = torch.tensor([-3.0, -6.0, -5.0, -5.5], dtype=torch.float64, requires_grad=True)
    found = dpo_loss(*logps, beta=0.5)
    found.losses.backward()
    z, loss = 1.25, found.losses.item()
    assert plot.dots("accent") == [near(z, loss)]
    (tangent,) = plot.lines("dpo-tangent")
    assert slope_of(tangent) == pytest.approx(-sigmoid(-z), abs=0.01)
    assert tangent[1] + slope_of(tangent) * (z - tangent[0]) == pytest.approx(loss, abs=0.05)
    pull = 0.5 * sigmoid(-z)
    assert plot.texts("accent") == ["z = 1.250"]
    assert plot.dots("muted") == [near(0.0, nll(0.0))]
    (outside,), *_ = draw(DPOCalculator, **{**state, "p_w": -0.5, "beta": 1.0})
    assert outside.texts("accent") == ["z = 5.000, further right"]
    assert tiles == {
        "margin z": "1.250",
        "P = σ(z)": fmt(sigmoid(z), 4),
        "loss −log P": fmt(loss, 4),
        "weight σ(−z)": fmt(sigmoid(-z), 4),
        "pull βσ(−z)": fmt(pull, 4),
    }
    slopes = [fmt(slope, 4) for slope in logps.grad[:2].tolist()]
    assert table == [
        ["response", "log-ratio", "reward", "slope"],
        ["chosen", "2.0", "1.000", slopes[0]],
        ["rejected", "−0.5", "−0.250", slopes[1]],
    ]


def test_the_race(draw):
    state = {"n_w": 7, "p_w": 0.9, "n_l": 2, "p_l": 0.97}
    (plot,), tiles, _, _ = draw(LengthRace, **state)
    winner, loser = 7 * math.log(0.9), 2 * math.log(0.97)
    for color, tokens, score in (("chosen", 7, winner), ("rejected", 2, loser)):
        assert plot.dots(color) == [near(tokens, score)]
        (path,) = plot.lines("dpo-thick", f"dpo-stroke-{color}")
        assert path == near(0, 0, tokens, score)
        (ahead,) = plot.lines("dpo-thin", f"dpo-stroke-{color}")
        assert slope_of(ahead) == pytest.approx(score / tokens, abs=0.01)
    assert plot.lines("dpo-drop", "dpo-stroke-rejected")[0][1::2] == near(loser, loser)
    (flip,) = plot.lines("dpo-drop", "dpo-stroke-accent")
    assert flip[::2] == near(loser / math.log(0.9), loser / math.log(0.9))
    assert flip[3] == pytest.approx(loser, abs=0.01)
    assert tiles == {
        "log π(yw)": fmt(winner, 3),
        "log π(yl)": fmt(loser, 3),
        "log π prefers": "the loser",
        "equal at a winner of": f"{fmt(loser / math.log(0.9), 2)} tokens",
    }
    assert plot.texts("accent") == ["equal here"]
    (far,), *_ = draw(LengthRace, n_w=7, p_w=0.99, n_l=12, p_l=0.8)
    assert far.texts("accent") == ["equal further right"]
    _, level, _, _ = draw(LengthRace, n_w=2, p_w=0.9, n_l=1, p_l=0.81)  # but for rounding
    assert level["log π prefers"] == "neither"
    assert plot.texts("chosen") == [f"winner {fmt(winner, 3)}"]
    assert plot.texts("rejected") == [f"loser {fmt(loser, 3)}"]
    (other,), *_ = draw(LengthRace, **{**state, "n_w": 1, "n_l": 12})
    for shown, lower, higher in ((plot, "chosen", "rejected"), (other, "rejected", "chosen")):
        assert shown.is_above(higher)
        assert not shown.is_above(lower)


@pytest.mark.parametrize("moved", [False, True])
def test_bars_of_the_reference_and_of_the_optimum(draw, moved):
    data = OptimalPolicy.build_spec().data
    reference = torch.tensor(data["reference"], dtype=torch.float64)
    rewards = torch.tensor(data["rewards"], dtype=torch.float64)
    if moved:
        rewards[2] = 1.5
        (plot,), tiles, _, _ = draw(OptimalPolicyRewards, beta=0.5, r_2=1.5)
    else:
        (plot,), tiles, _, _ = draw(OptimalPolicy, beta=0.5)
    best = (reference.log() + rewards / 0.5).softmax(dim=0)
    unit = plot.to_x(1) - plot.to_x(0)
    for color, values in (("reference", reference), ("policy", best)):
        widths = [width * unit for _, _, width, _ in plot.some("bars", f"dpo-fill-{color}")]
        assert widths == pytest.approx(values.tolist(), abs=0.01)
        name = {"reference": "πref", "policy": "π*"}[color]
        assert plot.texts(color) == [f"{name} {fmt(value, 3)}" for value in values.tolist()]
    assert plot.texts("ink") == data["responses"]
    assert plot.texts("accent") == [f"r = {fmt(reward, 2)}" for reward in rewards.tolist()]
    places = [
        [y for text, _, y in plot.some("texts", f"dpo-fill-text-{color}")]
        for color in ("ink", "reference", "policy")
    ]
    from_the_top = [y for row in zip(*places, strict=True) for y in row]
    assert from_the_top == sorted(from_the_top), "a response does not stand at its bars"
    kl = (best * (best / reference).log()).sum().item()
    reward = (best * rewards).sum().item()
    assert tiles == {
        "KL(π* ‖ πref)": f"{fmt(kl, 3)} nats",
        "expected reward E[r]": fmt(reward, 3),
        "E[r] − β KL": fmt(reward - 0.5 * kl, 3),
    }


def test_the_hill_below_its_ceiling(draw):
    state = {"first": 0.3, "share": 0.2, "beta": 1.0}
    (plot,), tiles, table, _ = draw(Objective, **state)
    now = objective.parts(state)
    (hill,) = plot.curves("dpo-stroke-policy")
    (reward,) = plot.curves("dpo-stroke-accent")
    for points, name in ((hill, "objective"), (reward, "reward")):
        inside = [(x, y) for x, y in points if 0.01 < x < 0.99]
        check_curve(
            inside, lambda x, n=name: getattr(objective.parts({**state, "first": x}), n), 0.05
        )
    assert plot.dots("policy") == [near(0.3, now.objective)]
    (gap,) = plot.lines("dpo-thick")
    assert gap == near(0.3, now.objective, 0.3, now.ceiling)
    (leash,) = plot.lines("dpo-drop", "dpo-stroke-reference")
    assert leash == near(0.3, now.objective, 0.3, now.reward)
    across = [line for line in plot.lines("dpo-stroke-ink") if line[0] != line[2]]
    assert across == [near(0.0, now.ceiling, 1.0, now.ceiling)]
    named = [plot.texts(color) for color in ("ink", "accent", "policy")]
    assert named == [[f"ceiling β log Z = {fmt(now.ceiling, 3)}"], ["E[r]"], ["J"]]
    assert tiles == {
        "E[r]": fmt(now.reward, 3),
        "− β KL(π ‖ πref)": fmt(now.leash, 3),
        "= J": fmt(now.objective, 3),
        "β log Z": fmt(now.ceiling, 3),
        "− β KL(π ‖ π*)": fmt(now.gap, 3),
    }
    columns = [objective.REFERENCE, now.policy, now.best]
    assert table == [
        ["probability", "πref", "your π", "π*"],
        *(
            [name, *(fmt(float(column[row]), 3) for column in columns)]
            for row, name in enumerate(objective.RESPONSES)
        ),
    ]


def test_the_replay_of_stored_runs(draw):
    data = TrainingReplay.build_spec().data
    at, run = 3, data["runs"][1][2]
    step = data["steps"][at]
    plots, tiles, _, _ = draw(TrainingReplay, step=step, loss=1, beta=2)
    shown = [("true_reward", "policy"), ("kl", "policy"), ("accuracy", "ink")]
    shown = [[one] for one in shown] + [
        [("chosen_shift", "chosen"), ("rejected_shift", "rejected")]
    ]
    for plot, curves in zip(plots, shown, strict=True):
        for name, color in curves:
            mean, low, high = (run[name][key] for key in ("mean", "low", "high"))
            found = plot.curves(f"dpo-stroke-{color}")
            band, line = found[-2:] if len(curves) == 1 else (
                plot.curves(f"dpo-replay-{color}")[0], found[-1]
            )  # fmt: skip
            allowed = 0.02 * (max(high) - min(low)) + 0.01
            expected = [*zip(data["steps"], mean, strict=True)]
            assert [y for _, y in line] == pytest.approx([y for _, y in expected], abs=allowed)
            assert [x for x, _ in line] == pytest.approx(data["steps"], abs=1)
            assert [y for _, y in band] == pytest.approx([*low, *reversed(high)], abs=allowed)
            assert plot.dots(color)[0][1] == pytest.approx(mean[at], abs=allowed)
        assert plot.lines("dpo-drop")[0][::2] == pytest.approx((step, step), abs=1)
    now = {name: run[name]["mean"][at] for name in run if name != "samples"}
    assert tiles == {
        "true reward": fmt(now["true_reward"], 2),
        "KL (nats)": fmt(now["kl"], 2),
        "held-out accuracy": fmt(now["accuracy"], 3),
        "log π: chosen": fmt(now["chosen_shift"], 2),
        "log π: rejected": fmt(now["rejected_shift"], 2),
    }


def test_axes_of_the_replay_hold_both_losses_at_every_beta(draw):
    drawn = [[draw(TrainingReplay, loss=loss, beta=beta)[0] for loss in (0, 1)] for beta in (0, 2)]
    for panel, own in enumerate((False, True, False, True)):
        reached = []
        for dpo, naive in drawn:
            heights = dpo[panel].heights("dpo-curve") + naive[panel].heights("dpo-curve")
            reached.append((min(heights), max(heights)))
        whole = (pytest.approx(0.054, abs=0.01), pytest.approx(0.946, abs=0.01))
        if own:
            assert reached == [whole, whole]
        else:
            assert drawn[0][0][panel].found["y"] == drawn[1][1][panel].found["y"]
            assert min(low for low, _ in reached) >= 0.05
            assert max(high for _, high in reached) <= 0.95


def test_every_run_of_the_bug_quiz(draw):
    data = BugQuiz.build_spec().data
    panels = [
        ("loss (nats)", {"loss": "ink"}, None),
        ("reward accuracy", {"accuracy": "ink"}, "own_accuracy"),
        ("log π − log πref (nats)", {"chosen": "chosen", "rejected": "rejected"}, None),
        ("gradient norm", {"grad_norm": "ink"}, None),
    ]
    for shown, run in enumerate(data["rounds"]):
        plots, *_ = draw(BugQuiz, shown=shown, answers=[])
        for plot, (title, colors, dots) in zip(plots, panels, strict=True):
            assert plot.found["title"] == title
            assert plot.found["label"].replace("_{ref}", "ref").startswith(f"{title} over the")
            bands = plot.curves("dpo-quiz-band", "dpo-stroke-muted")
            for band, (name, color) in zip(bands, colors.items(), strict=True):
                low, high, line = data["low"][name], data["high"][name], run["curves"][name]
                allowed = 0.01 * (max(high + line) - min(low + line)) + 1e-3
                (found,) = plot.curves(f"dpo-stroke-{color}")
                for points, values in ((found, line), (band, [*low, *reversed(high)])):
                    assert [y for _, y in points] == pytest.approx(values, abs=allowed)
                    assert all(plot.holds(*point) for point in points)
                steps = data["steps"]
                assert [x for x, _ in found] == pytest.approx(steps, abs=0.5)
                assert [x for x, _ in band] == pytest.approx([*steps, *reversed(steps)], abs=0.5)
            own = plot.dots("ink")
            assert [x for x, _ in own] == pytest.approx(data["looks"] if dots else [], abs=0.5)
            assert [y for _, y in own] == pytest.approx(run[dots] if dots else [], abs=0.01)
            assert all(plot.holds(*dot) for dot in own)


def test_products_and_sums_of_token_probabilities(draw):
    values = [0.5, 0.9, 0.2, 0.7, 0.4]
    count = len(TokenProbabilities.build_spec().controls)
    values = values[:count]
    (product, logs), tiles, _, _ = draw(
        TokenProbabilities, **{f"p{i + 1}": value for i, value in enumerate(values)}
    )
    so_far = [math.prod(values[: i + 1]) for i in range(count)]
    bars = product.some("bars", "dpo-fill-chosen")
    tops = [(product.to_y(y), product.to_y(y + height)) for _, y, _, height in bars]
    assert [top for top, _ in tops] == near(*so_far)
    assert [bottom for _, bottom in tops] == near(*[0.0] * count)
    bars = logs.some("bars", "dpo-fill-chosen")
    sums = [math.log(p) for p in so_far]
    assert [logs.to_y(y) for _, y, _, _ in bars] == pytest.approx([0.0, *sums[:-1]], abs=0.05)
    assert [logs.to_y(y + h) for _, y, _, h in bars] == pytest.approx(sums, abs=0.05)
    assert product.texts("chosen") == [fmt(level, 3) for level in so_far]
    assert logs.texts("chosen") == [fmt(math.log(p), 2) for p in values]
    for plot, (least, most) in ((product, (-12, 0)), (logs, (0, 20))):
        assert [name for name, _ in plot.found["x"]] == [token.strip() for token in TOKENS]
        labels = plot.some("texts", "dpo-fill-text-chosen")
        for (_, x, y), (left, top, width, height) in zip(
            labels, plot.some("bars", "dpo-fill-chosen"), strict=True
        ):
            assert x == pytest.approx(left + width / 2)
            assert least < y - (top + (height if plot is logs else 0)) < most
    links = logs.lines("dpo-thin", "dpo-stroke-muted")
    assert [link[1::2] for link in links] == [near(level, level) for level in sums[:-1]]
    copies = f"{copies_until_underflow(sums[-1])} copies"
    assert [*tiles.values()] == [fmt(so_far[-1], 4), fmt(sums[-1], 3), copies]
    _, tiles, _, _ = draw(TokenProbabilities, **{f"p{i + 1}": 1.0 for i in range(count)})
    assert [*tiles.values()] == ["1.0000", "0.000", "never"]


def test_points_paths_and_numbers_of_the_triangle(draw):
    spec = Triangle.build_spec()
    values = {**spec.values, "steps": 40, "start": [0.2, 0.5, 0.3]}
    (plot,), _, table, _ = draw(Triangle, steps=40, start=[0.2, 0.5, 0.3])
    # Its corners lie on the thin line around it: left, right, top, left.
    (around,) = plot.curves("dpo-thin", "dpo-stroke-muted")
    left, right, top = around[:3]

    def place(policy):
        corners = [*zip(policy, (top, left, right), strict=True)]
        return pytest.approx(
            tuple(sum(p * corner[i] for p, corner in corners) for i in (0, 1)), abs=1
        )

    best = triangle.best(values)
    assert plot.dots("ink") == [place(best)]
    assert plot.dots("reference") == [place(values["reference"])]
    reached = {loss: triangle.numbers(values, loss) for loss in values["losses"]}
    for loss, color in (("dpo", "policy"), ("naive", "accent"), ("sft", "muted")):
        assert plot.dots(color) == [place(reached[loss]["probabilities"])]
        trail = plot.curves(f"dpo-stroke-{color}")[-1]
        assert (trail[0], len(trail)) == (place([0.2, 0.5, 0.3]), 41)
    goal, start = torch.tensor(best).log(), torch.tensor(values["reference"]).log()
    optimum = {
        "probabilities": best,
        "rewards": (values["beta"] * (goal - start)).tolist(),
        "kl": (goal.exp() * (goal - start)).sum().item(),
    }
    names = spec.data["names"]
    columns = {
        "πref": [*values["reference"], 0, 0, 0, None, 0],
        "π*": [*best, *optimum["rewards"], None, optimum["kl"]],
    }
    for name, loss in (("DPO", "dpo"), ("naive", "naive"), ("SFT", "sft")):
        there = reached[loss]
        columns[name] = [*there["probabilities"], *there["rewards"], there["loss"], there["kl"]]
    heads, *rows = table
    sides = [f"r̂, {side}" for side in ("top", "left", "right")]
    assert [row[0] for row in rows] == [*names, *sides, "loss", "KL"]
    assert heads == ["probability", *columns]
    for i, column in enumerate(columns.values(), start=1):
        assert [row[i] for row in rows] == ["–" if x is None else fmt(x, 2) for x in column]
    corners = {text.split(",")[0]: at for text, *at in plot.some("texts", "dpo-fill-text-ink")}
    (x, y), (left_x, left_y), (right_x, right_y) = (corners[name] for name in names)
    assert left_x < x < right_x
    assert y < left_y == right_y
    assert plot.texts("ink") == [
        *(f"{name}, r = {fmt(r, 1)}" for name, r in zip(names, values["rewards"], strict=True)),
        "π*",
    ]


def test_the_loss_of_a_label_and_its_expectation(draw):
    (losses, slopes), tiles, _, _ = draw(LossFamily, loss=0, beta=0.5, p=0.8)
    best = math.log(0.8 / 0.2) / 0.5

    def mean(h):
        return 0.8 * nll(0.5 * h) + 0.2 * nll(-0.5 * h)

    check_curve(losses.curves("dpo-stroke-ink")[0], mean, 0.02)
    check_curve(losses.curves("dpo-stroke-accent")[0], lambda h: nll(0.5 * h), 0.02)
    pull = slopes.curves("dpo-stroke-ink")[0]
    check_curve(pull, lambda h: 0.2 * sigmoid(0.5 * h) - 0.8 * sigmoid(-0.5 * h), 0.02)
    for plot, y in ((losses, mean(best)), (slopes, 0.0)):
        assert plot.lines("dpo-drop")[0][::2] == pytest.approx((best, best), abs=0.05)
        assert plot.dots("ink") == [pytest.approx((best, y), abs=0.05)]
        dashed = plot.curves("dpo-tangent")[0]
        assert dashed == plot.curves("dpo-stroke-accent")[0]  # one label's, and it is DPO's
        assert [plot.texts(c) for c in ("accent", "muted")] == [["one label"], ["DPO, one label"]]
        assert plot.texts("ink") == [f"h* = {fmt(best, 2)}", "expected"]
    check_curve(slopes.curves("dpo-stroke-accent")[0], lambda h: -sigmoid(-0.5 * h), 0.02)
    assert tiles == {
        "best margin h*": fmt(best, 2),
        "σ(βh*)": fmt(sigmoid(0.5 * best), 3),
        "slope at h = 0": f"{fmt((0.2 - 0.8) / 2, 2)} β",
    }
    for p, label in ((0.0, "h* = −∞, further left"), (1.0, "h* = ∞, further right")):
        plots, *_ = draw(LossFamily, loss=0, beta=0.5, p=p)
        assert [plot.texts("ink")[0] for plot in plots] == [label] * 2
    (losses, slopes), tiles, _, _ = draw(LossFamily, loss=5, beta=0.5, p=0.8)
    assert [*tiles.values()] == ["–", "–", "−0.50 β"]
    for plot, y in ((losses, nll(0.0)), (slopes, -0.5)):
        assert plot.curves("dpo-stroke-ink") == [[]], "an expectation that nobody knows"
        assert plot.dots("ink") == [near(0.0, y)]
        assert plot.texts("ink") == ["expected"]
    assert len(FAMILIES) == len(LossFamily.build_spec().controls[0].options)
    data = LossFamily.build_spec().data
    colors = ("policy", "reference", "chosen", "rejected", "muted")
    for group, (name, color) in enumerate(zip(data["names"], colors, strict=True)):
        only = {f"group_{i}": i == group for i in range(len(colors))}
        (losses, _), *_ = draw(LossFamily, **only)
        assert losses.texts(color)[-1:] == [name]
        drawn = [points for points in losses.curves("dpo-thin") if points]
        assert len(drawn) == data["groups"].count(group)
        mine = losses.curves("dpo-thin", f"dpo-stroke-{color}")
        assert len([points for points in mine if points]) == len(drawn)


def test_arrows_from_the_reference_to_the_policy(draw):
    state = {"policy_w": -0.5, "reference_w": -0.8, "policy_l": -0.3, "reference_l": -0.2}
    (plot,), tiles, _, _ = draw(Verdicts, **state, beta=0.5)
    for color, side in (("chosen", "w"), ("rejected", "l")):
        policy, reference = state[f"policy_{side}"], state[f"reference_{side}"]
        ((x, _),) = plot.dots(color)
        assert x == pytest.approx(policy, abs=0.01)
        assert plot.lines("dpo-thick", f"dpo-stroke-{color}")[0][::2] == near(reference, policy)
        name = {"w": "winner", "l": "loser"}[side]
        sign = "+" if policy > reference else ""
        change = f"{sign}{fmt(policy - reference, 4)}"
        assert plot.texts(color) == [f"{name} {fmt(policy, 3)}, change {change}"]
    assert [x for x, _ in plot.dots("reference")] == near(-0.8, -0.2)
    assert plot.texts("reference") == ["πref −0.800", "πref −0.200"]
    assert plot.texts("ink") == ["r̂ = 0.50 · change"]
    assert plot.is_above("chosen")
    winner, loser = (plot.some("dots", f"dpo-fill-{c}")[0][1] for c in ("chosen", "rejected"))
    assert winner < loser, "the winner's row is not the upper one"
    assert tiles == {
        "log π prefers": "loser",
        "r̂ prefers": "winner",
        "r̂(yw)": "0.1500",
        "r̂(yl)": "−0.0500",
        "P(winner)": fmt(sigmoid(0.2), 4),
    }


def test_the_budget_s_bar(draw):
    values = {"gain_content": 4.0, "n_content": 10, "gain_common": 0.01, "n_common": 1000}
    (plot,), tiles, _, _ = draw(Budget, **values, alone=100)
    (content,), (common,) = (plot.some("bars", f"dpo-fill-{c}") for c in ("accent", "muted"))
    assert plot.to_x(content[0]) == pytest.approx(0, abs=0.2)
    assert plot.to_x(content[0] + content[2]) == pytest.approx(80, abs=0.5)
    assert plot.to_x(common[0] + common[2]) == pytest.approx(100, abs=0.5)
    assert (plot.texts("accent"), plot.texts("muted")) == (["“Paris” 80.0 %"], ["“the” 20.0 %"])
    gains = {"“Paris” gains": "+40.0 nats", "“the” gains": "+10.0 nats"}
    assert tiles == {**gains, "the larger part": "“Paris” 4.0 to 1"}
    for changed, larger in (
        ({"gain_content": 0.5}, "“the” 2.0 to 1"),
        ({"gain_content": 1.0}, "equal"),
        ({"alone": 0}, "all to “Paris”"),
    ):
        state = {**values, "alone": 100, **changed}
        assert draw(Budget, **state)[1]["the larger part"] == larger


def test_shading_and_look_ups_of_the_stepper(draw):
    data = TensorStepper.build_spec().data
    words, response, first = data["words"], data["response"], len(data["prompt"])
    width = first + len(response)
    _, tiles, _, cells = draw(TensorStepper, step=5)
    rows = [cells[i : i + width] for i in range(0, len(cells), width)]
    kept = range(first - 1, width - 1)
    logps = torch.tensor([data["logits"][i] for i in kept], dtype=torch.float64).log_softmax(dim=1)
    taken = logps[range(len(response)), response]
    for t, place in enumerate(kept):
        shares = [int(rows[1 + word][place][2].rstrip("%")) for word in range(len(words))]
        assert shares == pytest.approx((60 * logps[t].exp()).tolist(), abs=0.51)
        assert rows[-2][place][1] == words[response[t]]
        assert rows[-1][place][1] == fmt(taken[t].item(), 2)
        marked = [w for w in range(len(words)) if rows[1 + w][place][0] == "dpo-taken"]
        assert marked == [response[t]]
    assert [*tiles.values()] == [fmt(taken.sum().item(), 4), fmt(taken.sum().exp().item(), 4)]


STEPPER = """() => {
  const of = (selector) => [...document.querySelectorAll(selector)];
  const kinds = (row) => [...row.cells].slice(1).map((cell) => cell.className);
  return {
    code: of(".dpo-codeline code")[0].textContent,
    shape: of(".dpo-shape")[0].textContent,
    grid: of(".dpo-tensor")[0].className,
    fresh: of("thead th").map((head) => head.classList.contains("dpo-new")),
    kinds: of(".dpo-tensor tbody:not(.dpo-foot) tr").map(kinds),
    foot: of(".dpo-tensor tbody:not(.dpo-foot) tr:first-child, .dpo-foot tr").map((row) => [...row.cells].map((cell) => cell.textContent)),
  };
}"""


@pytest.mark.parametrize("late", [False, True])
def test_code_and_marks_of_every_step_of_the_stepper(draw, page, late):
    """The lines of code, run one after the other, make the tensors that the grid shows."""
    data = TensorStepper.build_spec().data
    words, prompt = data["words"], len(data["prompt"])
    names = {
        "torch": torch,
        "prompt": torch.tensor([data["prompt"]]),
        "response": torch.tensor([data["response"]]),
        "prompt_len": prompt,
        "model": lambda tokens: torch.tensor([data["logits"]], dtype=torch.float64),
    }
    kept = [prompt - 1 + late + t for t in range(len(data["response"]))]
    for step in range(len(data["steps"])):
        _, tiles, _, cells = draw(TensorStepper, step=step, too_late=late)
        seen = page.evaluate(STEPPER)
        exec(seen["code"], names)
        made = names[seen["code"].split(" = ")[0]]
        assert seen["shape"] == f"shape {tuple(made.shape)}"
        tokens = [words[i] for i in names["tokens"][0]]
        width = len(tokens)
        assert ("dpo-wrong" in seen["grid"].split()) == late
        assert seen["fresh"] == [False] * (1 + prompt) + [step == 0] * (width - prompt)
        predicts, *grid = seen["kinds"]
        assert predicts == ["dpo-kept" if step >= 2 and i in kept else "" for i in range(width)]
        for word, row in enumerate(grid):
            for i, kind in enumerate(row):
                taken = step >= 4 and i in kept and word == data["response"][kept.index(i)]
                at_kept = "dpo-taken" if taken else "dpo-kept"
                other = "dpo-cut" if step == 2 else ""
                assert kind == (("" if step < 2 else at_kept) if i in kept else other)

        columns = names["logits"][0, kept] if step else torch.zeros(2, 8)
        taken = names["taken"].flatten() if step >= 4 else torch.zeros(2)
        foot = [
            ("logsumexp", 3, [fmt(v, 2) for v in columns.logsumexp(dim=-1).tolist()]),
            ("look up", 4, [words[i] for i in data["response"]]),
            ("log-prob", 4, [fmt(v, 2) for v in taken.tolist()]),
        ]
        following = [*tokens[1:], "?"] if step else [""] * width
        expected = [["predicts", *following]]
        for name, start, texts in foot:
            row = [""] * width
            if step >= start:
                row[kept[0] : kept[-1] + 1] = texts
            expected.append([name, *row])
        assert seen["foot"] == expected
        if step == 3:
            shown = [[cells[(1 + w) * width + i][1] for w in range(len(words))] for i in kept]
            assert shown == [[fmt(v, 2) for v in column] for column in made[0].tolist()]
        last = [fmt(made.item(), 4), fmt(made.exp().item(), 4)] if step == 5 else ["–", "–"]
        assert [*tiles.values()] == last


TOKEN_VIEW = """() => {
  const of = (root, selector) => [...root.querySelectorAll(selector)];
  const bar = (node) => [node.className.split("dpo-back-")[1], ...["width", "marginLeft"].map((c) => parseFloat(node.style[c]))];
  const read = (cell) => of(cell, ".dpo-token-bar").map(bar)[0] ?? null;
  return {
    fields: of(document, ".dpo-token-fields label").filter((n) => !n.hidden).map((n) => n.textContent),
    train: of(document, "button").filter((n) => n.textContent === "Train one here" && !n.hidden).length,
    about: of(document, ".dpo-token-about").filter((n) => !n.hidden).length,
    tables: of(document, ".dpo-tokens").map((table) => ({
      heads: of(table, "thead th").map((n) => n.textContent),
      bars: [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1).map(read)),
    })),
  };
}"""


def test_bars_columns_and_fields_of_every_view_of_the_tokens(draw, page):
    result = TokenView.build_spec().state["result"]
    sides = {
        "base": [-2.0, -0.5, -3.0],
        "sft": [-1.0, -0.25, -0.75],
        "policy": [-4.0, -0.1, -0.6],
        "after": [-3.6, -0.3, -0.6],
    }
    turned = [2 * logp for logp in reversed(sides["after"])]  # of the other response
    logps = {name: [side, side] for name, side in sides.items()} | {
        "after": [sides["after"], turned]
    }
    tokens = [["It", "is", "<eos>"]] * 2
    result = result | {"prompt": ["A", "B"], "tokens": tokens, "logps": logps}
    colors = {"base": "muted", "sft": "reference", "policy": "policy"}
    heads = {"base": "base", "sft": "SFT", "policy": "policy"}

    def bar(name, t, deepest):
        return [colors[name], pytest.approx(-100 * sides[name][t] / deepest, abs=0.01), 0]

    for show, under in itertools.product(range(3), range(3)):
        draw(TokenView, show=show, under=under, result=result)
        seen = page.evaluate(TOKEN_VIEW)
        fields = ["Prompt", "Chosen response", "Rejected response"]
        assert seen["fields"] == (fields if show == 2 else ["Prompt", "Response"])
        assert seen["train"] == seen["about"] == (show == 2 or under == 2)
        names = (["sft"], ["base", "sft"], ["base", "sft", "policy"])[under]
        deepest = -min(min(sides[name]) for name in names)
        if show == 0:
            (table,) = seen["tables"]
            assert table["heads"] == ["token", *(heads[name] for name in names)]
            rows = [[bar(name, t, deepest) for name in names] for t in range(3)]
            assert table["bars"] == [*rows, [None] * len(names)]
        elif show == 1:
            (table,) = seen["tables"]
            assert table["heads"][-1] == f"log π, {heads[names[-1]]}"
            scored = [None, *(bar(names[-1], t, deepest) for t in range(3)), None]
            assert table["bars"] == [[None, None, one] for one in scored]
        else:
            both = [
                [b - a for a, b in zip(sides["policy"], after, strict=True)]
                for after in logps["after"]
            ]
            widest = max(abs(change) for changes in both for change in changes)
            for table, changes in zip(seen["tables"], both, strict=True):
                assert table["heads"] == ["token", "now", "after", "change"]
                for row, change in zip(table["bars"], changes, strict=False):
                    width = 50 * abs(change) / widest
                    way = ["rejected", 50 - width] if change < 0 else ["chosen", 50]
                    assert row[:2] == [None, None]
                    assert row[2] == [
                        way[0],
                        *(pytest.approx(x, abs=0.01) for x in (width, way[1])),
                    ]
                assert table["bars"][-1] == [None] * 3


def test_sums_and_colors_of_the_token_view(draw):
    logps = TokenView.build_spec().state["result"]["logps"]
    *_, cells = draw(TokenView, show=0, under=0)
    assert cells[-1][1] == fmt(sum(logps["sft"][0]), 3)
    *_, cells = draw(TokenView, show=2, under=0)
    changes = [cell for cell in cells if cell[3]]
    assert len(changes) == sum(map(len, logps["sft"]))
    for _, text, _, (color,) in changes:
        if text == "0.000":  # of either sign
            continue
        assert color.endswith("rejected" if text.startswith("−") else "chosen")
    assert {text[0] for _, text, *_ in changes} >= {"+", "−"}


def test_the_annotator_counts_rows_and_skips(draw):
    judged = [{"choice": c, "seconds": 2.0} for c in ("skip", "first", "skip", "second", "first")]
    _, tiles, _, _ = draw(Annotator, started=True, judged=judged)
    assert [*tiles.values()] == ["3", "1", "2.0 s", "2.0 s"]
    assert re.fullmatch(r"[\d. s]+", "".join(tiles.values()))


SIDES = """() => {
  const { createPlot } = dpoBook.modules.module_plot;
  document.body.replaceChildren();
  const plot = createPlot(document.body, { label: "", x: { domain: [0, 1] } });
  const sides = ["start", "middle", "end"];
  return [...sides, undefined].flatMap((first) => sides.flatMap((side) => [0, 0.5, 1].map((place) => {
    const write = plot.text({ anchor: first, dx: 10 });
    if (side === (first ?? "start")) write(place, 0, "equal here");
    else write(place, 0, "equal here", side);
    const { x, width } = plot.front.node().lastChild.getBBox();
    const room = Number(plot.svg.attr("width"));
    const out = Math.max(0, -x, x + width - room) / width;
    return [side, place, x - plot.x(place), x + width - plot.x(place), out];
  })));
}"""


def test_a_label_stands_off_its_point_on_its_present_side(page):
    """As far to the left as to the right, whichever its first side is, and inside the drawing."""
    for side, place, left, right, out in page.evaluate(SIDES):
        assert out < 0.2  # its width is a guess
        if place == 0.5:
            at = {"start": left, "middle": (left + right) / 2, "end": -right}[side]
            assert at == pytest.approx(10, abs=1)


# --- all widgets ------------------------------------------------------------------------------

MOVED = [
    Budget,
    BugQuiz,
    DPOCalculator,
    LengthRace,
    LossAndGradient,
    LossFamily,
    Objective,
    OptimalPolicyRewards,
    ScoreSigmoid,
    TensorStepper,
    TokenProbabilities,
    TokenView,
    TrainingReplay,
    Triangle,
    Verdicts,
]


STEPS = {  # of a state that is no control, or of a control that the model is asked for
    BugQuiz: {"shown": range(8), "answers": ([0], [1, 2], [3] * 8)},
    TensorStepper: {"step": range(len(stepper.STEPS))},
    TokenView: {name: [TokenView.build_spec().values[name]] for name in ("beta", "rate")},
    Triangle: {"steps": (0, 40), "start": ([0.2, 0.5, 0.3], [0.05, 0.55, 0.4])},
}
MOST = 4  # values of one control


def places(control, chance):
    """Values that a reader can give a control, in any order."""
    if isinstance(control, Choice):
        found = control.options
    elif isinstance(control, Toggle):
        found = [True, False]
    elif isinstance(control, Button):
        found = [control.value]
    else:
        last = round((control.max - control.min) / control.step)
        found = [control.min + n * control.step for n in (0, chance.randint(0, last), last)]
        log = isinstance(control, LogSlider)
        found = [10**place if log else control.on_grid(place) for place in found]
    return chance.sample([*found], min(len(found), MOST))


@pytest.mark.parametrize("widget", MOVED)
def test_a_state_come_to_from_others_is_drawn_as_if_it_were_the_first(page, widget):
    """Each control through its values and back, from where it begins and from elsewhere."""
    chance, first = random.Random(18), widget.build_spec()
    ways = {c.name: places(c, chance) for c in first.controls} | STEPS.get(widget, {})
    elsewhere = first.with_values(**{name: chance.choice(way) for name, way in ways.items()})
    specs = [
        start.with_values(**{name: value})
        for start, most in ((first, None), (elsewhere, 1))
        for name, way in ways.items()
        for value in (*way[:most], start.values[name])
    ]
    walked = page.evaluate("specs => walk(specs)", [spec.to_json() for spec in specs])
    assert walked["said"] == [widget.describe(spec.values) for spec in specs]
    assert walked["other"] == []


RESIZED = """async (specs) => {
  document.body.replaceChildren();
  const begun = (spec, width) => {
    const { el, view } = open(spec, valuesOf(spec), width);
    view.update(valuesOf(spec));
    return el;
  };
  const wide = specs.map((spec) => begun(spec, "800px"));
  for (const el of wide) el.style.width = "500px";
  const narrow = specs.map((spec) => begun(spec, "500px"));
  for (const _ of [0, 1]) await new Promise((resolve) => requestAnimationFrame(resolve));
  const drawn = (el) => JSON.stringify(read(el));
  const same = (spec, i) => drawn(wide[i]) === drawn(narrow[i]);
  return specs.filter((spec, i) => !same(spec, i)).map(({ kind }) => kind);
}"""


def test_a_drawing_follows_its_width_with_all_that_is_in_it(page):
    specs = [widget.build_spec().to_json() for widget in MOVED if widget is not TokenView]
    assert page.evaluate(RESIZED, specs) == []


def test_level_lines_are_those_of_the_present_beta(page):
    """Wherever β comes from, the loss is the same at both ends of each piece."""
    betas = (3.0, 0.3)
    specs = [Triangle.build_spec().with_values(beta=beta) for beta in betas]
    found = page.evaluate(DRAW, [[spec.to_json() for spec in specs], {}])
    plot = Plot(found["plots"][0])
    ((left, top_y), (right, _), (_, peak), *_) = plot.curves("dpo-thin", "dpo-stroke-muted")[0]
    ((pieces,),) = plot.some("curves", "dpo-thin", "dpo-stroke-grid")
    points = torch.tensor(pieces, dtype=torch.float64).reshape(-1, 2)
    top = (top_y - points[:, 1]) / (top_y - peak)
    third = (points[:, 0] - left) / (right - left) - top / 2
    policies = torch.stack([top, 1 - top - third, third], dim=1).clamp_min(1e-3)
    values = dict(specs[-1].values)
    inside = [ends for ends in policies.split(2) if ends.min() > 0.05]
    assert len(inside) > 200
    heights = [
        [triangle.loss_value(values, "dpo", policy.log()).item() for policy in ends]
        for ends in inside[:: len(inside) // 60]
    ]
    spread = max(map(max, heights)) - min(map(min, heights))
    assert max(abs(a - b) for a, b in heights) < 0.01 * spread


# What the color of a word, and of the tile with that name, says.
SAYS = {
    "chosen": r"(log π: )?chosen|winner .*|(log π|r̂)\(yw\)|P\(w ≻ l\) .*",
    "rejected": r"(log π: )?rejected|loser .*|(log π|r̂)\(yl\)|P\(l ≻ w\) .*",
    "reference": r"reference|πref.*|− β KL\(π ‖ πref\)",
    "policy": r"DPO|J|= J|π\* 0.*|true reward|KL \(nats\)|KL\(π\*.*",
    "accent": r"naive|E\[r\]|expected reward E\[r\]|pull.*|−log P|one label",
    "muted": r"SFT .*|DPO, one label",
    "ink": r"π\* of the rewards|1 − P|expected",
}
SEEN = """() => [...document.querySelectorAll(".dpo-widget *")].flatMap((node) =>
  [...node.classList].flatMap((name) => {
    const found = name.match(/^dpo-(stroke|fill|replay|fill-text|text)-(ink|muted|grid|chosen|rejected|policy|reference|accent)$/);
    if (!found || (found[1] === "stroke" && node.matches(".dpo-replay-band, .dpo-quiz-band"))) return [];
    const [, kind, color] = found;
    const style = getComputedStyle(node);
    const shown = kind === "text" ? style.color : kind === "stroke" ? style.stroke : style.fill;
    const words = kind.endsWith("text") && (node.closest(".dpo-tile")?.firstChild ?? node).textContent;
    return [[color + (kind.endsWith("text") ? "-text" : ""), shown, words || ""]];
  }))"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_color_says_the_same_in_every_widget(page, theme):
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    meant = dict.fromkeys(SAYS, 0)
    for widget in (*MOVED, Annotator, OptimalPolicy):
        page.evaluate(DRAW, [[widget.build_spec().to_json()], {}])
        for color, shown, words in page.evaluate(SEEN):
            assert shown == rgb(join.palette(theme)[color])
            for meaning, form in SAYS.items():
                if words and re.fullmatch(form, words):
                    assert color == f"{meaning}-text", (widget, words)
                    meant[meaning] += 1
    page.evaluate("() => { delete document.documentElement.dataset.theme; }")
    assert min(meant.values()) >= 2, meant
