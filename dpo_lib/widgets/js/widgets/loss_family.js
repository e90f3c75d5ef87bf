// Appendix D: losses on the margin h, their slopes, and the margin of least expected loss.

import { sigmoid, softplus } from "../math.js";
import { createPlot } from "../plot.js";
import { fmt, h, readout } from "../ui.js";

const PLACES = Array.from({ length: 121 }, (_, i) => (i - 60) / 5); // of the thin curves
const SPAN = 12; // nats of h drawn to either side; an optimum outside waits at the edge
const [LOW, TOP] = [-1, 4]; // of the loss
const [PULL_LOW, PULL_TOP] = [-1.6, 1.6]; // of the slope, in units of β

const STEP = 1e-5; // of the differences that stand for a slope
const sft = (gap) => (12 - gap / 2) / 10;
const weight = (gap) => Math.exp(-3.2 - gap / 30);
const fined = (z) => Math.min(z, 3.5 * z);
const logOdds = (logp) => logp - Math.log(-Math.expm1(logp));

// Values and slopes in z = βh; e is ε. Drawn against h, the slope is that in units of β.
export const LOSSES = [
  { value: (z) => softplus(-z), slope: (z) => -sigmoid(-z) },
  {
    value: (z, e) => (1 - e) * softplus(-z) + e * softplus(z),
    slope: (z, e) => e * sigmoid(z) - (1 - e) * sigmoid(-z),
  },
  {
    value: (z, e) => ((1 - e) * softplus(-z) - e * softplus(z)) / (1 - 2 * e),
    slope: (z, e) => -((1 - e) * sigmoid(-z) + e * sigmoid(z)) / (1 - 2 * e),
  },
  { value: (z) => (z - 0.5) ** 2, slope: (z) => 2 * z - 1 },
  { value: (z) => Math.max(0, 1 - z), slope: (z) => (z < 1 ? -1 : 0) },
  // From here on without an expectation. log π is −12 + h/2 of 10 tokens, −12 − h/2 of 6.
  ...[
    (z) => softplus(-z),
    (z) => softplus(1 - z),
    (z) => softplus(-z - 2),
    (z) => softplus((-16 * z) / 15),
    (z) => ((2 * z) / 15 - 0.5) ** 2,
    (z, e, b) => softplus(1 - 6.4 * b - (16 * z) / 15),
    (z) => sigmoid(-z / 2),
    (z) => 2 * sigmoid(-z / 2),
    (z) => sigmoid(z / 2) + sigmoid(-z),
    (z) => 2 * softplus(-z / 2),
    (z) => 1.5 * softplus(-z / 2) + softplus(z / 2) / 2,
    (z) => 2 * (z / 2 - 0.5) ** 2,
    (z, e, b) => b * b * softplus(-z / b) + 2 * (z / 2 - 0.5) ** 2,
    (z, e, b) => softplus(-2 * b * Math.sinh(z / b / 2)),
    (z) => softplus(-z / 2),
    (z, e, b) => softplus(-4 * b * Math.sinh(z / b / 4)),
    (z, e, b) => softplus(-z - 2 * b * Math.sinh(z / b / 2)),
    (z, e, b) => sft(z / b),
    (z, e, b) => softplus(-z) + sft(z / b),
    (z, e, b) => 0.8 * softplus(-z) + 0.4 * softplus(-z / 2) + sft(z / b),
    (z, e, b) => b * softplus(logOdds((-12 - z / b / 2) / 6) - logOdds(-sft(z / b))) + sft(z / b),
  ].map((value) => ({ value, slope: (z, e, b) => (value(z + STEP, e, b) - value(z - STEP, e, b)) / (2 * STEP) })),
  // The weight passes no gradient.
  { value: (z, e, b) => weight(z / b) * softplus(-z), slope: (z, e, b) => -weight(z / b) * sigmoid(-z) },
  // The fine begins where the chosen response falls.
  { value: (z) => softplus(-fined(z)), slope: (z) => -(z < 0 ? 3.5 : 1) * sigmoid(-fined(z)) },
];

// Least expected loss: where many margins are best, the one nearest to 0; ±∞ where there is none.
const logit = (p) => Math.log(p) - Math.log1p(-p);
const TINY = 1e-9; // the sliders' rounding: 1 − 0.95 is not 0.05 in binary
const OPTIMA = [
  (p) => logit(p),
  (p, e) => logit((1 - e) * p + e * (1 - p)),
  (p, e) => (p >= 1 - e - TINY ? Infinity : p <= e + TINY ? -Infinity : logit((p - e) / (1 - 2 * e))),
  (p) => p - 0.5,
  (p) => (Math.abs(p - 0.5) < TINY ? 0 : Math.sign(p - 0.5)),
];

export function calculate({ loss, beta, epsilon, p }) {
  const value = (z) => LOSSES[loss].value(z, epsilon, beta);
  const slope = (z) => LOSSES[loss].slope(z, epsilon, beta);
  return {
    optimum: OPTIMA[loss] ? OPTIMA[loss](p, epsilon) / beta : NaN,
    value: (gap) => value(beta * gap),
    slope: (gap) => slope(beta * gap),
    expected: (gap) => p * value(beta * gap) + (1 - p) * value(-beta * gap),
    pull: (gap) => p * slope(beta * gap) - (1 - p) * slope(-beta * gap),
  };
}

const COLORS = ["policy", "reference", "chosen", "rejected", "muted"]; // of the groups
const show = (x, digits) => (Number.isNaN(x) ? "–" : Number.isFinite(x) ? fmt(x, digits) : x < 0 ? "−∞" : "∞");

export function render({ el, spec }) {
  const names = spec.controls.find(({ name }) => name === "loss").options;
  const [lossBox, slopeBox] = [h("div"), h("div")];
  el.append(h("div", { class: "dpo-panels" }, lossBox, slopeBox));
  const height = () => (el.clientWidth < 480 ? 200 : 280);
  const losses = createPlot(lossBox, {
    label: "The loss of a label and its expectation against the margin h, with the best margin.",
    height,
    x: { domain: [-SPAN, SPAN], label: "margin h (nats)" },
    y: { domain: [LOW, TOP], label: "loss" },
  });
  const slopes = createPlot(slopeBox, {
    label: "Slopes of the loss and of its expectation against the margin h.",
    height,
    x: { domain: [-SPAN, SPAN], label: "margin h (nats)" },
    y: { domain: [PULL_LOW, PULL_TOP], label: "slope, in units of β" },
  });
  slopes.segment({ color: "muted" })(-SPAN, 0, SPAN, 0);
  const views = [losses, slopes].map((plot) => ({
    others: spec.data.groups.map((group) => plot.curve({ color: COLORS[group], className: "dpo-thin" })),
    drop: plot.segment({ color: "muted", className: "dpo-drop" }),
    dpo: plot.curve({ color: "muted", className: "dpo-tangent" }),
    single: plot.curve({ color: "accent" }),
    mean: plot.curve({ color: "ink" }),
    dot: plot.dot({ color: "ink" }),
    label: plot.text({ color: "ink", dx: 8, dy: 12 }),
  }));
  // In the corner that the curves leave free.
  [
    [losses, LOW, -36],
    [slopes, PULL_TOP, 16],
  ].forEach(([plot, y, dy]) => {
    plot.text({ color: "accent", dx: 6, dy })(-SPAN, y, "one label");
    plot.text({ color: "ink", dx: 6, dy: dy + 14 })(-SPAN, y, "expected");
    plot.text({ color: "muted", dx: 6, dy: dy + 28 })(-SPAN, y, "DPO, one label");
  });
  // The groups that are shown, in their colors, at the other end of the first drawing.
  const keys = spec.data.names.map((_, i) => losses.text({ color: COLORS[i], anchor: "end", dx: 6, dy: 14 * i + 14 }));

  const tell = readout(el, [
    { key: "optimum", label: "best margin h*" },
    { key: "probability", label: "σ(βh*)" },
    { key: "start", label: "slope at h = 0", color: "accent", wide: true },
  ]);

  return {
    update(state) {
      const now = calculate(state);
      const shown = spec.data.names.map((_, i) => state[`group_${i}`]);
      keys.forEach((key, i) => key(SPAN, TOP, shown[i] ? spec.data.names[i] : ""));
      const all = spec.data.groups.map((group, loss) => shown[group] && calculate({ ...state, loss }));
      const alone = Number.isNaN(now.optimum); // no expectation is drawn
      const at = alone ? 0 : Math.max(-SPAN, Math.min(SPAN, now.optimum));
      const outside = Math.abs(now.optimum) > SPAN;
      const further = now.optimum > 0 ? ", further right" : ", further left";
      const text = `h* = ${show(now.optimum, 2)}${outside ? further : ""}`;
      const side = at > 0 ? "end" : "start";
      [
        [now.value, now.expected, LOW, TOP],
        [now.slope, now.pull, PULL_LOW, PULL_TOP],
      ].forEach(([single, mean, low, top], i) => {
        all.forEach((other, k) => views[i].others[k](other ? PLACES.map((gap) => [gap, [other.value, other.slope][i](gap)]) : []));
        views[i].dpo((gap) => [LOSSES[0].value, LOSSES[0].slope][i](state.beta * gap));
        views[i].single(single);
        views[i].mean(alone ? [] : mean);
        views[i].drop(at, low, at, alone ? low : top);
        views[i].label(at, top, alone ? "" : text, side);
        // At a kink the slope jumps through 0: the dot stands on 0 there.
        const y = i === 0 || outside ? mean(at) : 0;
        if (alone) views[i].dot(0, i === 0 ? now.value(0) : now.slope(0));
        else views[i].dot(at, Math.max(low, Math.min(top, y)));
      });
      tell("optimum", show(now.optimum, 2));
      tell("probability", alone ? "–" : fmt(sigmoid(state.beta * now.optimum), 3));
      tell("start", `${fmt(alone ? now.slope(0) : now.pull(0), 2)} β`);
    },
    describe(state) {
      const { optimum } = calculate(state);
      if (Number.isNaN(optimum)) {
        return (
          `${names[state.loss]} at β = ${fmt(state.beta, 2)}, one label of a pair whose chosen response is ` +
          `raised and whose rejected one is lowered alike.`
        );
      }
      return (
        `${names[state.loss]} at β = ${fmt(state.beta, 2)}, labels right with p = ${fmt(state.p, 2)}: ` +
        `the best margin h* is ${show(optimum, 2)}, where σ(βh*) is ${fmt(sigmoid(state.beta * optimum), 3)}.`
      );
    },
  };
}
