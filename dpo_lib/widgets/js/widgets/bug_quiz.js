// Appendix E: the curves of a run whose name is hidden, four answers, and why. Behind each curve lies
// the range of the sound runs; the dots are the run's own held-out accuracy.

import { createPlot } from "../plot.js";
import { assign, button, fmt, h, readout } from "../ui.js";

const PANELS = [
  { title: "loss (nats)", curves: [["loss", "ink"]] },
  { title: "reward accuracy", curves: [["accuracy", "ink"]], dots: "own_accuracy" },
  { title: "log π − log π_{ref} (nats)", curves: [["chosen", "chosen"], ["rejected", "rejected"]] },
  { title: "gradient norm", curves: [["grad_norm", "ink"]] },
];

const ROOM = 0.08; // of the height of a panel, kept free above and below

// The axis of a panel: what the run and the sound runs need.
export function extent(run, data, { curves, dots }) {
  const names = curves.map(([name]) => name);
  const values = names.flatMap((name) => [...run.curves[name], ...data.low[name], ...data.high[name]]);
  if (dots) values.push(...run[dots]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = ROOM * (high - low || 1);
  return [low - room, high + room];
}

export const score = (rounds, answers) => answers.filter((answer, i) => answer === rounds[i].right).length;

export function render({ model, el, spec }) {
  const { data } = spec;
  const { rounds, titles, steps, looks } = data;
  const last = rounds.length - 1;
  const save = (values) => assign(model, values);
  const waiting = () => model.get("answers").length <= model.get("shown");
  const answer = (place) => {
    if (waiting()) save({ answers: [...model.get("answers"), place] });
  };
  const next = () => {
    if (waiting() || model.get("shown") === last) return;
    save({ shown: model.get("shown") + 1 });
    box.focus({ preventScroll: true });
  };

  // --- the run ---
  const counter = document.createTextNode("");
  const legend = "Gray: range of the sound runs. Dots: the run’s own held-out accuracy.";
  const grid = h("div", { class: "dpo-panels dpo-quiz-panels" });
  const panels = PANELS.map((panel) => {
    const place = h("div");
    grid.append(place);
    const plot = createPlot(place, {
      label: `${panel.title} over the updates; the gray band is the range of the sound runs`,
      height: 138,
      margin: { right: 12, bottom: 36 },
      x: { domain: [0, looks.at(-1)], label: "updates", ticks: 5 },
      y: { domain: [0, 1], label: panel.title, ticks: 4 },
    });
    const marks = panel.curves.map(([name, color]) => ({
      name,
      band: plot.curve({ color: "muted", className: "dpo-quiz-band" }),
      line: plot.curve({ color }),
    }));
    const dots = panel.dots ? looks.map(() => plot.dot({ color: "ink", r: 4 })) : [];
    return { ...panel, plot, marks, points: dots };
  });
  const heading = h("div", { class: "dpo-quiz-heading dpo-name" }, h("p", {}, counter), h("p", {}, legend));
  const box = h("div", { tabindex: -1, role: "group", "aria-label": "The run" }, heading, grid);
  el.append(box);
  const set = readout(el, [
    { key: "loss", label: "first loss (nats)" },
    { key: "logp", label: "first log π(chosen)" },
    { key: "reward", label: "true reward of samples" },
    { key: "kl", label: "KL of samples (nats)" },
  ]);
  const scored = document.createTextNode("");
  el.append(
    h("p", { class: "dpo-quiz-scored" }, h("span", { class: "dpo-name" }, "first response, scored tokens: "), scored),
  );

  // --- the answers ---
  const choices = rounds[0].options.map((_, i) => {
    const text = document.createTextNode("");
    const mark = h("span", { class: "dpo-quiz-mark" });
    const node = h(
      "button",
      { type: "button", class: "dpo-choice dpo-quiz-answer", onclick: () => answer(i) },
      h("span", { class: "dpo-name", "aria-hidden": "true" }, `${i + 1}`),
      h("span", {}, text),
      mark,
    );
    return { node, text, mark };
  });
  const why = document.createTextNode("");
  // Unseen: the longest explanation, so that none of them moves the page.
  const longest = rounds.map((round) => round.why).reduce((a, b) => (b.length > a.length ? b : a));
  const nextButton = button("Next run", next);
  el.append(
    h("div", { class: "dpo-quiz-answers", role: "group", "aria-label": "Which bug is this?" }, ...choices.map(({ node }) => node)),
    h(
      "p",
      { class: "dpo-quiz-why" },
      h("span", {}, why),
      h("span", { class: "dpo-quiz-room", "aria-hidden": "true" }, longest),
    ),
    h("div", { class: "dpo-actions" }, nextButton),
    h("p", { class: "dpo-name dpo-quiz-keys" }, "Keys: 1 to 4 answer, N shows the next run."),
  );

  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const place = ["1", "2", "3", "4"].indexOf(event.key);
    if (place < 0 && event.key.toLowerCase() !== "n") return;
    event.preventDefault();
    event.stopPropagation();
    if (place < 0) next();
    else answer(place);
  };
  el.addEventListener("keydown", onKey);
  el.dataset.lmSuppressShortcuts = "true"; // JupyterLab has plans of its own for 1 and N

  const enable = (node, on) => node.setAttribute("aria-disabled", String(!on));
  let drawn = -1;

  function draw(shown) {
    drawn = shown;
    const run = rounds[shown];
    for (const panel of panels) {
      const { plot, marks, points, dots } = panel;
      plot.y.domain(extent(run, data, panel));
      plot.layout(Number(plot.svg.attr("width")));
      for (const { name, band, line } of marks) {
        const edge = (values) => values.map((value, i) => [steps[i], value]);
        band([...edge(data.low[name]), ...edge(data.high[name]).reverse()]);
        line(edge(run.curves[name]));
      }
      points.forEach((point, i) => point(looks[i], run[dots][i]));
    }
    set("loss", fmt(run.first_loss, 4));
    set("logp", fmt(run.first_logp, 1));
    set("reward", run.reward.map((value) => fmt(value, 2)).join(" → "));
    set("kl", fmt(run.kl, 2));
    scored.data = run.scored;
  }

  return {
    update({ shown, answers }) {
      if (shown !== drawn) draw(shown);
      const run = rounds[shown];
      const given = answers[shown];
      const answered = given !== undefined;
      counter.data = `Run ${shown + 1} of ${rounds.length}. Right so far: ${score(rounds, answers)} of ${answers.length}.`;
      choices.forEach(({ node, text, mark }, i) => {
        text.data = titles[run.options[i]];
        const verdict = !answered ? "" : i === run.right ? "right" : i === given ? "wrong" : "";
        node.dataset.verdict = verdict;
        mark.textContent = { right: i === given ? "✓ yes" : "✓ this one", wrong: "✗ no", "": "" }[verdict];
        enable(node, !answered);
      });
      why.data = answered ? run.why : "";
      enable(nextButton, answered && shown < last);
    },
    describe({ shown, answers }) {
      const result = `Score: ${score(rounds, answers)} of ${answers.length}.`;
      const run = `Run ${shown + 1} of ${rounds.length}`;
      if (shown >= answers.length) return `${run}: which bug is this? ${result}`;
      const { options, right } = rounds[shown];
      const title = (place) => `“${titles[options[place]]}”`;
      if (answers[shown] === right) return `${run}: right, ${title(right)}. ${result}`;
      return `${run}: not ${title(answers[shown])} but ${title(right)}. ${result}`;
    },
    destroy() {
      el.removeEventListener("keydown", onKey);
    },
  };
}
