// Chapter 10: stored training runs, replayed evaluation by evaluation. Lines are means over seeds,
// bands reach from the smallest to the largest; the samples are those of the first seed.

import { createPlot } from "../plot.js";
import { button, fmt, h, readout } from "../ui.js";

const PACE = 900; // ms from one evaluation to the next while playing

const PANELS = [
  { title: "true reward", curves: [["true_reward", "policy"]] },
  { title: "KL from the reference (nats)", curves: [["kl", "policy"]], own: true },
  { title: "held-out accuracy", curves: [["accuracy", "ink"]] },
  {
    title: "change of log π, held out (nats)",
    own: true,
    curves: [["chosen_shift", "chosen"], ["rejected_shift", "rejected"]],
  },
];
const TILES = [
  { key: "true_reward", label: "true reward", color: "policy", digits: 2 },
  { key: "kl", label: "KL (nats)", color: "policy", digits: 2 },
  { key: "accuracy", label: "held-out accuracy", color: "ink", digits: 3 },
  { key: "chosen_shift", label: "log π: chosen", color: "chosen", digits: 2 },
  { key: "rejected_shift", label: "log π: rejected", color: "rejected", digits: 2 },
];

// The axis of a panel: the same for both losses and, where the scale allows it, for every β.
export function extent(data, names, beta, own) {
  const values = data.runs
    .flatMap((byBeta) => (own ? [byBeta[beta]] : byBeta))
    .flatMap((run) => names.flatMap((name) => [...run[name].low, ...run[name].high]));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = 0.06 * (high - low || 1);
  return [low - room, high + room];
}

export function render({ model, el, spec }) {
  const { data } = spec;
  const { steps } = data;
  const last = steps.at(-1);
  const stepOf = (value) => steps.reduce((a, b) => (Math.abs(b - value) < Math.abs(a - value) ? b : a));

  // --- curves ---
  const grid = h("div", { class: "dpo-panels dpo-replay-panels" });
  el.append(grid);
  const panels = PANELS.map(({ title, curves, own = false }) => {
    const box = h("div");
    grid.append(box);
    const names = curves.map(([name]) => name);
    const plot = createPlot(box, {
      label: `${title} over the updates, with a marker at the chosen one`,
      height: 150,
      margin: { right: 12, bottom: 36 },
      x: { domain: [0, last], label: "updates", ticks: 5 },
      y: { domain: extent(data, names, 0, own), label: title, ticks: 4 },
    });
    const ruler = plot.segment({ color: "muted", className: "dpo-drop" });
    const marks = curves.map(([name, color]) => ({
      name,
      band: plot.curve({ color, className: `dpo-replay-band dpo-replay-${color}` }),
      line: plot.curve({ color }),
      dot: plot.dot({ color, r: 5 }),
    }));
    plot.onDrag((x) => go(stepOf(x)));
    return { plot, names, own, ruler, marks, beta: 0 };
  });
  const set = readout(el, TILES);

  // --- what the policy wrote ---
  const heading = "What the policy writes (seed 0, the same random numbers at each evaluation)";
  const said = data.prompts.map((prompt, i) => {
    const text = document.createTextNode("");
    // Unseen: the longest text of all runs, so that each takes the same room.
    const texts = data.runs.flat().flatMap((run) => run.samples.map((samples) => samples[i]));
    const longest = texts.reduce((a, b) => (b.length > a.length ? b : a));
    const row = h(
      "div",
      { class: "dpo-replay-row" },
      h("dt", {}, prompt),
      h("dd", {}, h("span", {}, text), h("span", { class: "dpo-replay-room", "aria-hidden": "true" }, longest)),
    );
    return { row, text };
  });
  el.append(
    h("p", { class: "dpo-name dpo-replay-heading" }, heading),
    h("dl", { class: "dpo-replay-samples" }, ...said.map(({ row }) => row)),
  );

  // --- play ---
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let timer = 0;
  let expected = null; // where playing has put the marker: anything else is the reader's hand
  const go = (step) => {
    model.set("step", step);
    model.save_changes();
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    name();
  };
  const advance = () => {
    const now = stepOf(model.get("step"));
    expected = now === last ? steps[0] : steps[steps.indexOf(now) + 1];
    go(expected);
    if (expected === last) stop();
  };
  const play = button("Play", () => {
    if (timer) stop();
    else if (still.matches) advance();
    else {
      timer = setInterval(advance, PACE);
      advance();
    }
    name();
  });
  play.classList.add("dpo-replay-play");
  const name = () => {
    play.textContent = still.matches ? "Next" : timer ? "Pause" : "Play";
  };
  const motion = () => (still.matches ? stop() : name());
  still.addEventListener("change", motion);
  name();
  el.append(h("div", { class: "dpo-actions" }, play));

  return {
    update(state) {
      const step = stepOf(state.step);
      if (timer && step !== expected) stop();
      const at = steps.indexOf(step);
      const run = data.runs[state.loss][state.beta];
      for (const panel of panels) {
        const { plot, names, marks } = panel;
        if (panel.beta !== state.beta) {
          panel.beta = state.beta;
          plot.y.domain(extent(data, names, state.beta, panel.own));
          plot.layout(Number(plot.svg.attr("width")));
        }
        const [low, high] = plot.y.domain();
        panel.ruler(step, low, step, high);
        for (const { name, band, line, dot } of marks) {
          const { mean, low: least, high: most } = run[name];
          const edge = (values) => values.map((value, i) => [steps[i], value]);
          band([...edge(least), ...edge(most).reverse()]);
          line(edge(mean));
          dot(step, mean[at]);
        }
      }
      for (const { key, digits } of TILES) set(key, fmt(run[key].mean[at], digits));
      said.forEach(({ text }, i) => {
        if (text.data !== run.samples[at][i]) text.data = run.samples[at][i];
      });
    },
    describe(state) {
      const step = stepOf(state.step);
      const run = data.runs[state.loss][state.beta];
      const value = ({ key, digits }) => fmt(run[key].mean[steps.indexOf(step)], digits);
      const [reward, kl, accuracy, chosen, rejected] = TILES.map(value);
      return (
        `${data.losses[state.loss]}, β = ${data.betas[state.beta]}, ${step} updates: true reward ${reward}, ` +
        `KL ${kl}, held-out accuracy ${accuracy}; log π chosen ${chosen}, rejected ${rejected}.`
      );
    },
    destroy() {
      clearInterval(timer);
      still.removeEventListener("change", motion);
    },
  };
}
