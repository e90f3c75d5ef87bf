// Chapter 10, short forms in 6 to 8: the reader trains the tiny model. The run in color is the present one,
// the one in gray the last. What a form has no control for is in its state.

import { answers } from "../answers.js";
import { kept, whose } from "../clicks.js";
import { STOPPED, liveModel, recall } from "../live_model.js";
import { createPlot } from "../plot.js";
import { button, fmt, h, readout } from "../ui.js";

const DRAW_EVERY = 100; // ms: the frames between two drawings of a run are for the reader's hand
const GROW = 0.15; // of an axis: room for what is to come, since new axes are dear
// What the worker calls the options, by their first word.
const LOSSES = { DPO: "dpo", naive: "naive", SFT: "sft", mine: "mine" };
const LABELS = {
  "the true reward": "true",
  "noisy people": "noisy",
  "coin flips": "coin",
  "a coin, each pair both ways": "both",
  "my clicks of chapter 1": "clicks",
  "my clicks, one of them wrong": "wrong",
};
const PANELS = {
  reward: { title: "true reward of fresh answers", from: "looks", curves: [["reward", "policy"]] },
  kl: { title: "KL from the reference (nats)", from: "looks", curves: [["kl", "policy"]] },
  logps: { title: "log π − log π_{ref} (nats)", from: "rows", curves: [["chosen", "chosen"], ["rejected", "rejected"]] },
  loss: { title: "loss (nats)", from: "rows", curves: [["loss", "ink"]] },
  accuracy: { title: "reward accuracy of the batch", from: "rows", curves: [["accuracy", "ink"]], bounds: [0, 1] },
  malformed: { title: "malformed answers, share", from: "looks", curves: [["malformed", "ink"]], bounds: [0, 0.1] },
};

// The axis of a panel: all that both runs need, and never less than its bounds or a little.
export function extent(values, bounds = [], least = 0.2) {
  const all = values.length || bounds.length ? [...values, ...bounds] : [0, 1];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const room = Math.max(0.06 * (high - low), bounds.length ? 0 : (least - (high - low)) / 2);
  return [low - room, high + room];
}

export function render({ model, el, spec }) {
  const { shown, updates: rest } = spec.data; // a run rests after so many updates
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let runs = []; // the present one first, then the last
  let playing = false;
  let frame = 0;
  let soon = 0;
  let drawn = 0; // when
  let started = 0; // runs ever begun: the name of the next

  const live = liveModel(model, ({ run, row, look }) => {
    const present = runs[0];
    if (!present || present.name !== run) return;
    if (row) present.rows.push(row);
    else see(present, look);
    soon ||= setTimeout(() => (frame = requestAnimationFrame(() => draw())), drawn + DRAW_EVERY - performance.now());
  });
  const progress = (change) => {
    model.set("progress", { ...model.get("progress"), ...change });
    model.save_changes();
  };
  function see(run, look) {
    run.looks.push(look);
    const { step, reward, kl, malformed } = look;
    progress({ updates: step, reward, kl, malformed, note: "" });
  }

  // --- what is seen ---
  const actions = h("div", { class: "dpo-actions" });
  const legend = h("p", { class: "dpo-name dpo-lab-legend" });
  const grid = h("div", { class: "dpo-panels" });
  el.append(actions, legend, grid);
  const panels = spec.data.panels.map((name) => {
    const panel = PANELS[name];
    const box = h("div");
    grid.append(box);
    const plot = createPlot(box, {
      label: `${panel.title} over the updates`.replace("_{ref}", " ref"),
      height: 140,
      margin: { right: 14, bottom: 40 },
      x: { domain: [0, rest], label: "updates", ticks: 4 },
      y: { domain: extent([], panel.bounds), label: panel.title, ticks: 3 },
    });
    const line = (color, className) => plot.curve({ color, className });
    const lines = panel.curves.map(([name, color]) => ({
      name,
      last: line("muted", "dpo-drop"),
      now: line(color, ""),
      label: panel.curves.length > 1 ? plot.text({ color, dx: 6, dy: 4 }) : () => {},
    }));
    return { ...panel, plot, lines };
  });
  const set = readout(el, [
    { key: "pairs", label: "pairs" },
    { key: "updates", label: "updates" },
    { key: "reward", label: "true reward", color: "policy" },
    { key: "kl", label: "KL (nats)", color: "policy" },
    { key: "malformed", label: "malformed answers" },
  ]);
  const answer = answers(el, shown);
  el.append(h("p", { class: "dpo-name" }, "Computed here, in your browser: another machine may differ a little, and the text’s runs have other pairs."));

  // fit: the axes to what there is; else they only grow.
  function draw(fit = false) {
    clearTimeout(soon);
    cancelAnimationFrame(frame);
    frame = soon = 0;
    drawn = performance.now();
    const last = Math.max(rest, ...runs.map(({ rows }) => rest * Math.ceil(rows.length / rest)));
    for (const { plot, from, lines, bounds } of panels) {
      const values = runs.flatMap((run) => run[from].flatMap((row) => lines.map(({ name }) => row[name])));
      const [low, high] = extent(values, bounds);
      const [least, most] = plot.y.domain();
      if (fit || low < least || high > most || last > plot.x.domain()[1]) {
        const spare = GROW * (high - low);
        const grown = [low < least ? low - spare : least, high > most ? high + spare : most];
        plot.x.domain([0, last]);
        plot.y.domain(fit ? [low, high] : grown);
        plot.layout(Number(plot.svg.attr("width")));
      }
      for (const { name, last: before, now, label } of lines) {
        const points = (run) => (run ? run[from].map((row) => [row.step, row[name]]) : []);
        now(points(runs[0]));
        before(points(runs[1]));
        const end = runs[0]?.[from].at(-1);
        label(end?.step ?? 0, end?.[name] ?? 0, end ? name : "");
      }
    }
    const look = runs[0]?.looks.at(-1);
    const first = runs[0]?.looks[0];
    set("pairs", runs[0] ? String(runs[0].pairs) : "–");
    set("updates", String(runs[0]?.rows.length ?? 0));
    set("reward", look ? `${fmt(first.reward, 2)} → ${fmt(look.reward, 2)}` : "–");
    set("kl", look ? fmt(look.kl, 2) : "–");
    set("malformed", look ? `${fmt(100 * look.malformed, 0)} %` : "–");
    shown.forEach((_, i) => {
      answer(i, 0, first?.answers[i]);
      answer(i, 1, look?.answers[i]);
    });
    name();
  }

  // --- a run ---
  const number = (value) => String(Number(value.toPrecision(2)));
  const option = (name, value) => spec.controls.find((control) => control.name === name)?.options[value] ?? value;
  const onClicks = (labels) => ["clicks", "wrong"].includes(LABELS[option("labels", labels)]);
  // Whose clicks a run is on, or would be: which rows the model cannot read is known once it has begun.
  function clickers(rows, { pairs = 0, unread = [] } = {}) {
    const left = unread.length;
    if (rows.length > left) {
      return ` (${whose(rows)}${left ? `; ${left} of them left out: not in the model’s words` : ""})`;
    }
    const why = left ? `none of your ${left} is in the model’s words` : "you have none yet";
    return ` (${pairs ? `${pairs} of ` : ""}a stored annotator’s: ${why})`;
  }
  const settings = ({ loss, labels, beta, rate }) =>
    `${option("loss", loss)}, β = ${number(beta)}, rate ${number(rate)}, labels by ${option("labels", labels)}`;
  const present = () => Object.fromEntries(["loss", "labels", "beta", "rate"].map((key) => [key, model.get(key)]));

  async function begin() {
    const chosen = present();
    const run = { name: `run ${++started}`, settings: settings(chosen), rows: [], looks: [], pairs: 0, clickers: "", note: "" };
    const values = { run: run.name, beta: chosen.beta, rate: chosen.rate, shown, loss: LOSSES[option("loss", chosen.loss).match(/\w+/)[0]] };
    if (values.loss === "mine") {
      values.code = recall("loss");
      if (!values.code) throw new Error("There is no loss of yours yet: write one in chapter 9, then come back.");
      await live.python();
    }
    values.labels = LABELS[option("labels", chosen.labels)];
    if (onClicks(chosen.labels)) ({ rows: values.clicks, note: run.note } = kept());
    const { pairs, unread, look } = await live.ask("begin", values);
    run.pairs = pairs;
    if (values.clicks) run.clickers = clickers(values.clicks, { pairs, unread });
    runs = [run, ...runs.slice(0, 1)];
    see(run, { ...look, step: 0 });
    draw(true);
  }
  async function go(steps, fresh = false) {
    if (playing) return;
    playing = true;
    name();
    try {
      if (fresh || !runs.length) {
        progress({ note: "The model is being brought into this page." });
        await begin();
      }
      const run = runs[0];
      await live.ask("advance", { run: run.name, steps: steps ?? rest - (run.rows.length % rest) });
    } catch (error) {
      if (error.message !== STOPPED) progress({ note: error.message });
    }
    playing = false;
    draw();
  }
  const pause = () => live.ask("pause", { run: runs[0]?.name });
  const play = button("Play", () => (playing ? pause() : go(still.matches ? 10 : null)));
  const step = button("Step", () => go(1));
  const fresh = button("New run", () => go(still.matches ? 10 : null, true));
  actions.append(play, step, fresh);
  const enable = (node, on) => node.setAttribute("aria-disabled", String(!on));
  function name() {
    const text = playing ? "Pause" : still.matches ? "Ten updates" : runs[0]?.rows.length ? "Go on" : "Play";
    if (play.textContent !== text) play.textContent = text;
    enable(step, !playing);
    enable(fresh, !playing && runs.length > 0);
  }
  draw(true);

  return {
    update(state) {
      if (state.progress.updates === 0 && state.progress.reward === null && !state.progress.note && runs.length) {
        live.end(); // reset
        runs = [];
        playing = false;
        draw(true);
      }
      const next = settings(state);
      const parts = [];
      if (runs[0]) parts.push(`In color: ${runs[0].settings}${runs[0].clickers}.`, runs[0].note);
      if (runs[1]) parts.push(`Gray: ${runs[1].settings}${runs[1].clickers}.`);
      if (runs[0]?.settings !== next) {
        const { rows, note } = onClicks(state.labels) ? kept() : {};
        parts.push(`Next run: ${next}${rows ? clickers(rows) : ""}.`, note ?? "");
      }
      legend.textContent = parts.filter(Boolean).join(" ");
    },
    describe({ progress: { updates, reward, kl, malformed, note }, ...chosen }) {
      if (note) return note;
      if (reward === null) return `${settings(chosen)}. Press Play.`;
      return (
        `${updates} updates in this page: true reward ${fmt(reward, 2)}, KL ${fmt(kl, 2)} nats, ` +
        `malformed ${fmt(100 * malformed, 0)} %.`
      );
    },
    destroy() {
      live.end();
      clearTimeout(soon);
      cancelAnimationFrame(frame);
    },
  };
}
