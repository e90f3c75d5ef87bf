"""What `update()` puts on the screen, in the units of the axes, is what the library says.

The functions that the modules export have tests of their own: these look at dots, lines, bars,
tiles and cells.
"""

import math
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
from dpo_lib.widgets.loss_family import FAMILIES
from dpo_lib.widgets.spec import fmt

READ = """([spec, values]) => {
  const start = Object.fromEntries(spec.controls.map(({ name, value }) => [name, value]));
  const state = { ...start, ...spec.state, ...values };
  const el = document.createElement("div");
  el.style.width = "800px";
  document.body.replaceChildren(el);
  const model = { get: (name) => state[name], set() {}, save_changes() {}, on() {} };
  dpoBook.widgets[spec.kind].render({ model, el, spec }).update(state);
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
    tiles: Object.fromEntries(all(el, ".dpo-tile", (tile) => [...tile.children].map((n) => n.textContent))),
    table: all(el, ".dpo-table tbody tr", (row) => all(row, "td", (n) => n.textContent)),
    cells: all(el, ".dpo-tensor td, .dpo-tokens td", (n) => [kind(n) ?? "", n.textContent, n.style.getPropertyValue("--share"), all(n, ".dpo-token-bar", kind)]),
  };
}"""


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script())
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
        found = page.evaluate(READ, [spec, values])
        return (
            [Plot(plot) for plot in found["plots"]],
            found["tiles"],
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
        "accent": (nll, sigmoid(delta) - 1),
        "ink": (lambda gap: 1 - sigmoid(gap), -sigmoid(delta) * sigmoid(-delta)),
    }
    for row, (color, (value, slope)) in zip(table, both.items(), strict=True):
        assert losses.dots(color) == [near(delta, value(delta))]
        (tangent,) = losses.lines("dpo-tangent", f"dpo-stroke-{color}")
        assert slope_of(tangent) == pytest.approx(slope, abs=0.01)
        assert tangent[1] + slope * (delta - tangent[0]) == pytest.approx(value(delta), abs=0.05)
        assert slopes.dots(color) == [near(delta, -slope)]
        assert row == [fmt(value(delta), 4), fmt(slope, 4)]
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
    assert [*tiles.values()] == ["2.50 − 0.50 = 2.00", fmt(sigmoid(2.0), 4), fmt(sigmoid(-2.0), 4)]


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
    assert [*tiles.values()] == [
        "1.250", *(fmt(x, 4) for x in (sigmoid(z), loss, sigmoid(-z), pull))
    ]  # fmt: skip
    slopes = [fmt(slope, 4) for slope in logps.grad[:2].tolist()]
    assert table == [["2.0", "1.000", slopes[0]], ["−0.5", "−0.250", slopes[1]]]


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
    assert [*tiles.values()][:3] == [fmt(winner, 3), fmt(loser, 3), "the loser"]
    assert plot.texts("chosen") == [f"winner {fmt(winner, 3)}"]
    assert plot.texts("rejected") == [f"loser {fmt(loser, 3)}"]
    (other,), *_ = draw(LengthRace, **{**state, "n_w": 1, "n_l": 12})
    for shown, lower, higher in ((plot, "chosen", "rejected"), (other, "rejected", "chosen")):
        assert shown.is_above(higher)
        assert not shown.is_above(lower)


def test_bars_of_the_reference_and_of_the_optimum(draw):
    (plot,), tiles, _, _ = draw(OptimalPolicy, beta=0.5)
    data = OptimalPolicy.build_spec().data
    reference, rewards = (
        torch.tensor(data[n], dtype=torch.float64) for n in ("reference", "rewards")
    )
    best = (reference.log() + rewards / 0.5).softmax(dim=0)
    unit = plot.to_x(1) - plot.to_x(0)
    for color, values in (("reference", reference), ("policy", best)):
        widths = [width * unit for _, _, width, _ in plot.some("bars", f"dpo-fill-{color}")]
        assert widths == pytest.approx(values.tolist(), abs=0.01)
        assert [float(t.split()[-1]) for t in plot.texts(color)] == near(*values.tolist())
    kl = (best * (best / reference).log()).sum().item()
    reward = (best * rewards).sum().item()
    assert [*tiles.values()] == [f"{fmt(kl, 3)} nats", fmt(reward, 3), fmt(reward - 0.5 * kl, 3)]


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
    numbers = (now.reward, now.leash, now.objective, now.ceiling, now.gap)
    assert {*tiles.values()} == {fmt(number, 3) for number in numbers}
    columns = [objective.REFERENCE, now.policy, now.best]
    assert table == [[fmt(float(column[row]), 3) for column in columns] for row in range(3)]


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
    names = ("true_reward", "kl", "accuracy", "chosen_shift", "rejected_shift")
    digits = (2, 2, 3, 2, 2)
    assert [*tiles.values()] == [
        fmt(run[name]["mean"][at], n) for name, n in zip(names, digits, strict=True)
    ]


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
    assert [*tiles.values()][:2] == [fmt(so_far[-1], 4), fmt(sums[-1], 3)]


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
    columns = [
        [*values["reference"], 0, 0, 0, None, 0],
        [*best, *optimum["rewards"], None, optimum["kl"]],
        *([*r["probabilities"], *r["rewards"], r["loss"], r["kl"]] for r in reached.values()),
    ]
    for i, column in enumerate(columns):
        assert [row[i] for row in table] == ["–" if x is None else fmt(x, 2) for x in column]


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
    assert [*tiles.values()][:2] == [fmt(best, 2), fmt(sigmoid(0.5 * best), 3)]
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
    assert [x for x, _ in plot.dots("reference")] == near(-0.8, -0.2)
    assert [*tiles.values()] == [
        "loser", "winner", "0.1500", "−0.0500", fmt(sigmoid(0.2), 4)
    ]  # fmt: skip


def test_the_budget_s_bar(draw):
    values = {"gain_content": 4.0, "n_content": 10, "gain_common": 0.01, "n_common": 1000}
    (plot,), tiles, _, _ = draw(Budget, **values, alone=100)
    (content,), (common,) = (plot.some("bars", f"dpo-fill-{c}") for c in ("accent", "muted"))
    assert plot.to_x(content[0]) == pytest.approx(0, abs=0.2)
    assert plot.to_x(content[0] + content[2]) == pytest.approx(80, abs=0.5)
    assert plot.to_x(common[0] + common[2]) == pytest.approx(100, abs=0.5)
    assert [*tiles.values()][:2] == ["+40.0 nats", "+10.0 nats"]


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
