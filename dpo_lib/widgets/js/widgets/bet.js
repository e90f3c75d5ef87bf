// Every chapter: what the reader expects, placed before the truth is shown. A number on an axis, a curve
// through points, or a choice in one or several rows. Placed bets are kept by name and met again.

import { forgetBet, keepBet, keptBet } from "../bets.js";
import { assign, button, fmt, h, rich, table } from "../ui.js";

const BEFORE = "Place your bet, and the truth appears here.";
const KEPT = "Place your bet: it is kept in this browser.";

const share = (value, { min, max }) => (value - min) / (max - min);
const onGrid = (value, { min, max, step }) =>
  Number(Math.min(max, Math.max(min, min + step * Math.round((value - min) / step))).toFixed(10));
const isNumber = (value, { min, max }) => Number.isFinite(value) && value >= min && value <= max;
const isList = (value, length, test) => Array.isArray(value) && value.length === length && value.every(test);

// Whether a kept bet is one that could be placed here.
export const isBet = {
  number: (bet, data) => isNumber(bet, data),
  curve: (bet, data) => isList(bet, data.x.length, (y) => isNumber(y, data)),
  choice: (bet, data) => isList(bet, data.rows.length, (option) => data.options.includes(option)),
};

// The bet beside the truth, in words.
export const compare = {
  number({ truth, digits, unit }, bet) {
    const after = unit && ` ${unit}`;
    return `You said ${fmt(bet, digits)}${after}, it is ${fmt(truth, digits)}${after}.`;
  },
  curve({ truth, digits }, bet) {
    const off = truth.reduce((total, y, i) => total + Math.abs(y - bet[i]), 0) / truth.length;
    return `You were off by ${fmt(off, digits)} on average.`;
  },
  choice({ truth, rows }, bet) {
    const right = bet.filter((option, i) => option === truth[i]).length;
    if (rows.length > 1) return `You were right on ${right} of ${rows.length}.`;
    return right ? "You were right." : `You said “${bet[0]}”, it is “${truth[0]}”.`;
  },
};

// --- the three forms: each builds its part once and returns show(guess, open, truth) ---

function numberForm({ el, data, title, set }) {
  const { min, max, step, digits, unit } = data;
  const input = h("input", { type: "range", min, max, step, "aria-label": title });
  input.addEventListener("input", () => set(Number(input.value)));
  const marks = { you: h("span", { class: "dpo-text-accent" }), truth: h("span", { class: "dpo-text-ink" }) };
  const tick = h("i", { class: "dpo-bet-tick" });
  const ends = [min, max].map((end) => h("span", {}, fmt(end, digits)));
  el.append(
    h("div", { class: "dpo-bet-line" }, marks.you, input, tick, marks.truth),
    h("div", { class: "dpo-bet-ends", "aria-hidden": "true" }, ...ends),
  );
  // A label stands over its place and stays within the line: shifted by its own share of its width.
  const place = (mark, name, value) => {
    const at = 100 * share(value, data);
    mark.style.left = `${at}%`;
    mark.style.transform = `translateX(-${at}%)`;
    mark.textContent = `${name} ${fmt(value, digits)}${unit && ` ${unit}`}`;
  };
  return (guess, open, truth) => {
    if (Number(input.value) !== guess) input.value = guess;
    input.disabled = open;
    input.setAttribute("aria-valuetext", `${fmt(guess, digits)} ${unit}`);
    place(marks.you, "you", guess);
    tick.hidden = truth === null;
    if (truth === null) marks.truth.textContent = "";
    else {
      place(marks.truth, "truth", truth);
      tick.style.setProperty("--at", share(truth, data));
    }
  };
}

function curveForm({ el, data, set }) {
  const { x, min, max, step, digits, x_label, y_label } = data;
  let now = [];
  let fixed = false;
  const left = x.map((value) => (100 * (value - x[0])) / (x.at(-1) - x[0]));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const lines = ["accent", "ink"].map((color) => {
    const line = document.createElementNS(svg.namespaceURI, "polyline");
    line.setAttribute("class", `dpo-curve dpo-stroke-${color}`);
    return svg.appendChild(line);
  });
  const draw = (line, values) =>
    line.setAttribute("points", values.map((y, i) => `${left[i]},${100 - 100 * share(y, data)}`).join(" "));
  const move = (i, value) => {
    if (!fixed) set((now = now.map((y, k) => (k === i ? onGrid(value, data) : y)))); // two keys in a frame
  };
  const leaps = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 };
  const points = x.map((value, i) => {
    const point = h("span", {
      role: "slider",
      tabindex: 0,
      "aria-label": `${y_label} at ${x_label} ${value}`,
      "aria-orientation": "vertical",
      "aria-valuemin": min,
      "aria-valuemax": max,
      style: `left: ${left[i]}%`,
      onkeydown(event) {
        if (event.key in leaps) move(i, now[i] + step * leaps[event.key]);
        else if (event.key === "Home") move(i, min);
        else if (event.key === "End") move(i, max);
        else if (event.key === "ArrowLeft") points[Math.max(0, i - 1)].focus();
        else if (event.key === "ArrowRight") points[Math.min(i + 1, x.length - 1)].focus();
        else return;
        event.preventDefault();
        event.stopPropagation(); // arrows turn pages of the book
      },
    });
    return point;
  });
  const field = h("div", { class: "dpo-bet-field" }, svg, ...points);
  const drag = (event) => {
    const box = field.getBoundingClientRect();
    const at = (100 * (event.clientX - box.left)) / box.width;
    const near = left.reduce((best, place, i) => (Math.abs(place - at) < Math.abs(left[best] - at) ? i : best), 0);
    move(near, max - ((max - min) * (event.clientY - box.top)) / box.height);
    return near;
  };
  field.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || fixed) return;
    event.preventDefault();
    field.setPointerCapture(event.pointerId);
    points[drag(event)].focus({ preventScroll: true });
  });
  field.addEventListener("pointermove", (event) => {
    if (field.hasPointerCapture(event.pointerId)) drag(event);
  });
  const ticks = x.map((value, i) => h("span", { style: `left: ${left[i]}%` }, String(value)));
  el.append(
    h("p", { class: "dpo-name" }, `${y_label}, `, h("b", { class: "dpo-text-accent" }, "your bet"), " and ", h("b", { class: "dpo-text-ink" }, "the truth")),
    h(
      "div",
      { class: "dpo-bet-curve" },
      h("div", { class: "dpo-bet-side", "aria-hidden": "true" }, h("span", {}, fmt(max, digits)), h("span", {}, fmt(min, digits))),
      field,
      h("div", { class: "dpo-bet-ticks", "aria-hidden": "true" }, ...ticks),
    ),
    h("p", { class: "dpo-name dpo-bet-under" }, x_label),
  );
  const hidden = h("div", { class: "dpo-hidden" });
  el.append(hidden);
  const cell = table(hidden, {
    caption: y_label,
    corner: x_label,
    columns: ["your bet", "truth"],
    rows: x.map((value) => ({ label: String(value) })),
  });
  return (guess, open, truth) => {
    now = guess;
    fixed = open;
    draw(lines[0], guess);
    draw(lines[1], truth ?? []);
    field.classList.toggle("dpo-bet-open", open);
    points.forEach((point, i) => {
      const text = fmt(guess[i], digits);
      point.style.top = `${100 - 100 * share(guess[i], data)}%`;
      point.setAttribute("aria-valuenow", guess[i]);
      point.setAttribute("aria-valuetext", text);
      point.setAttribute("aria-disabled", String(open));
      cell(i, 0, text);
      cell(i, 1, truth ? fmt(truth[i], digits) : "–");
    });
  };
}

let groups = 0; // names of radio buttons, unique on the page

function choiceForm({ el, data, title, set }) {
  const { options, rows, why } = data;
  let now = [];
  const built = rows.map((label, r) => {
    const group = `dpo-bet-${++groups}`;
    const radios = options.map((option) => {
      const input = h("input", { type: "radio", name: group });
      input.addEventListener("change", () => set((now = now.map((old, k) => (k === r ? option : old)))));
      const mark = h("span", { class: "dpo-bet-mark" });
      const node = h("label", {}, input, h("span", {}, ...rich(option)), mark);
      return { option, input, mark, node };
    });
    const legend = label ? h("legend", {}, ...rich(label)) : h("legend", { class: "dpo-hidden" }, title);
    const because = h("p", { class: "dpo-name dpo-bet-why" });
    el.append(h("fieldset", { class: "dpo-bet-row" }, legend, ...radios.map(({ node }) => node), ...(why.length ? [because] : [])));
    return { radios, because };
  });
  return (guess, open, truth) => {
    now = guess;
    built.forEach(({ radios, because }, r) => {
      for (const { option, input, mark, node } of radios) {
        input.checked = guess[r] === option;
        input.disabled = open;
        node.className = open && input.checked ? "dpo-text-accent" : "";
        mark.textContent = truth?.[r] === option ? "✓" : "";
      }
      because.textContent = truth ? (why[r] ?? "") : "";
    });
  };
}

const forms = { number: numberForm, curve: curveForm, choice: choiceForm };

export function render({ model, el, spec }) {
  const { data, title } = spec;
  const { form, name, said, truth } = data;
  const kept = keptBet(name);
  if (kept && isBet[form](kept.bet, data)) {
    if (truth !== null && kept.truth === null) keepBet(name, { ...kept, truth });
    assign(model, { guess: kept.bet, bet: kept.bet });
  }
  const open = () => model.get("bet") !== null || model.get("shown");
  const ready = (guess) => form !== "choice" || !guess.includes("");
  const show = forms[form]({
    el,
    data,
    title,
    set(guess) {
      if (!open()) assign(model, { guess });
    },
  });
  const place = button("Place my bet", () => {
    const guess = model.get("guess");
    if (open() || !ready(guess)) return;
    keepBet(name, { title, bet: guess, truth });
    assign(model, { bet: guess });
  });
  const peek = button("Show me", () => {
    if (!open()) assign(model, { shown: true });
  });
  el.append(h("div", { class: "dpo-actions" }, place, ...(truth === null ? [] : [peek])));
  let placed = model.get("bet") !== null;
  const enable = (node, on) => node.setAttribute("aria-disabled", String(!on));

  return {
    update({ guess, bet, shown }) {
      if (placed && bet === null) forgetBet(name); // reset
      placed = bet !== null;
      const over = placed || shown;
      show(placed ? bet : guess, over, over ? truth : null);
      enable(place, !over && ready(guess));
      enable(peek, !over);
    },
    describe({ bet, shown }) {
      if (bet === null && !shown) return truth === null ? KEPT : BEFORE;
      if (bet === null || truth === null) return said;
      return `${compare[form](data, bet)} ${said}`;
    },
  };
}
