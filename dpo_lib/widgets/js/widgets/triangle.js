// Chapters 7 and 9, appendix A: every policy on three responses is a point of the triangle; training moves
// it along the exact gradient flow of the loss, by Runge–Kutta. Nothing is sampled.

import { klDivergence, logSoftmax, piStar, sigmoid, softplus, sum } from "../math.js";
import { createPlot } from "../plot.js";
import { assign, button, fmt, h, table } from "../ui.js";

const TIME = 0.2; // of one step; the rate is 1/β, so that all β start alike
const LAST = 400; // steps
const HEIGHT = Math.sqrt(3) / 2;
const GRID = 40; // cells on a side, for the level lines
const LEVELS = 12;
const SHOWN = {
  dpo: { name: "DPO", color: "policy" },
  naive: { name: "naive", color: "accent" },
  sft: { name: "SFT on winners", short: "SFT", color: "muted" },
};

// How often i beats j, as a share of all comparisons: [[i, j, share], …].
export function verdicts(state, { pairs, kinds }) {
  const rows = pairs.flatMap(([i, j]) => {
    const kind = kinds[state[`pair_${i}${j}`]];
    if (kind === "not compared") return [];
    const fixed = { "first wins": 1, "second wins": 0, "coin flips": 0.5 };
    const first = fixed[kind] ?? sigmoid(state.rewards[i] - state.rewards[j]);
    return [[i, j, first], [j, i, 1 - first]];
  });
  return rows.map(([i, j, share]) => [i, j, (2 * share) / rows.length]);
}

// The mean loss at log-probabilities, and its slopes in them.
export function lossAt(loss, state, shares, logps) {
  const { beta, reference } = state;
  const slopes = [0, 0, 0];
  let value = 0;
  for (const [i, j, share] of shares) {
    if (loss === "sft") {
      value -= share * logps[i];
      slopes[i] -= share;
      continue;
    }
    const zero = loss === "dpo" ? Math.log(reference[i] / reference[j]) : 0;
    const margin = beta * (logps[i] - logps[j] - zero);
    value += share * softplus(-margin);
    const pull = share * beta * sigmoid(-margin);
    slopes[i] -= pull;
    slopes[j] += pull;
  }
  return { value, slopes };
}

// dlogits/dt: downhill; what a response learns, those that share its features learn too.
function velocity(loss, state, shares, kernel, logits) {
  const logps = logSoftmax(logits);
  const { slopes } = lossAt(loss, state, shares, logps);
  const total = sum(slopes);
  const gradient = slopes.map((slope, k) => slope - Math.exp(logps[k]) * total);
  const rate = loss === "sft" ? 1 : 1 / state.beta;
  return kernel.map((row) => -rate * (row[0] * gradient[0] + row[1] * gradient[1] + row[2] * gradient[2]));
}

// Log-probabilities from the start to after `steps` steps.
export function path(loss, state, data, steps = state.steps) {
  const shares = verdicts(state, data);
  const kernel = data.features.map((a, i) =>
    data.features.map((b, j) => (state.share ? a[0] * b[0] + a[1] * b[1] : Number(i === j))),
  );
  const flow = (logits) => velocity(loss, state, shares, kernel, logits);
  const ahead = (logits, time, speed) => logits.map((logit, k) => logit + time * speed[k]);
  let logits = state.start.map(Math.log);
  const points = [logSoftmax(logits)];
  for (let step = 0; step < steps; step++) {
    const a = flow(logits);
    const b = flow(ahead(logits, TIME / 2, a));
    const c = flow(ahead(logits, TIME / 2, b));
    const d = flow(ahead(logits, TIME, c));
    logits = logits.map((logit, k) => logit + (TIME / 6) * (a[k] + 2 * b[k] + 2 * c[k] + d[k]));
    points.push(logSoftmax(logits));
  }
  return points;
}

// What the table shows of one loss at the end of its path.
export function numbers(loss, state, data) {
  const logps = path(loss, state, data).at(-1);
  const probabilities = logps.map(Math.exp);
  return {
    probabilities,
    rewards: logps.map((logp, k) => state.beta * (logp - Math.log(state.reference[k]))),
    loss: lossAt(loss, state, verdicts(state, data), logps).value,
    kl: klDivergence(probabilities, state.reference),
  };
}

export const place = ([top, , right]) => [right + top / 2, HEIGHT * top];

// The policy at a point, kept off the edges, where a probability would be 0.
export function policyAt(x, y) {
  const top = y / HEIGHT;
  const inside = [top, 1 - x - top / 2, x - top / 2].map((p) => Math.min(1, Math.max(0.01, p)));
  const total = sum(inside);
  const [a, b] = inside.map((p) => Math.round((1000 * p) / total) / 1000);
  return [a, b, Number((1 - a - b).toFixed(3))];
}

// Level lines as pieces [[x, y], [x, y]]: levels that cut the triangle into equal shares of its area.
export function levelLines(height) {
  const at = (i, j) => {
    const policy = [i, j, GRID - i - j].map((n) => (n + 0.02) / (GRID + 0.06));
    return { spot: place(policy), value: height(policy.map(Math.log)) };
  };
  const nodes = Array.from({ length: GRID + 1 }, (_, i) => Array.from({ length: GRID + 1 - i }, (_, j) => at(i, j)));
  const values = nodes.flat().map(({ value }) => value).sort((a, b) => a - b);
  const levels = Array.from({ length: LEVELS }, (_, k) => values[Math.floor(((k + 0.5) * values.length) / LEVELS)]);
  const pieces = [];
  const cut = (corners) => {
    for (const level of levels) {
      const ends = [];
      corners.forEach((a, k) => {
        const b = corners[(k + 1) % 3];
        if (a.value < level === b.value < level) return;
        const t = (level - a.value) / (b.value - a.value);
        ends.push(a.spot.map((v, c) => v + t * (b.spot[c] - v)));
      });
      if (ends.length === 2) pieces.push(ends);
    }
  };
  for (let i = 0; i < GRID; i++) {
    for (let j = 0; j < GRID - i; j++) {
      cut([nodes[i][j], nodes[i + 1][j], nodes[i][j + 1]]);
      if (j < GRID - i - 1) cut([nodes[i + 1][j], nodes[i + 1][j + 1], nodes[i][j + 1]]);
    }
  }
  return pieces;
}

const say = (policy) => policy.map((p) => fmt(p, 2)).join(", ");

export function render({ model, el, spec }) {
  const { names } = spec.data;
  const { rewards, losses, reference } = spec.state;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let timer = 0;

  // --- the drawing ---
  const box = h("div", {
    class: "dpo-triangle",
    tabindex: 0,
    role: "group",
    "aria-label": "Start of the policy: arrow keys move it",
    onkeydown(event) {
      const step = { ArrowUp: [0, 0.02], ArrowDown: [0, -0.02], ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      const [x, y] = place(model.get("start"));
      begin(policyAt(x + step[0], y + step[1]));
    },
  });
  el.append(box);
  const plot = createPlot(box, {
    label: `A triangle with the corners ${names.join(", ")}; a point in it is a policy.`,
    height: (width) => (width - 28) * (1.18 / 1.24) + 8,
    margin: { top: 4, right: 14, bottom: 4, left: 14 },
    x: { domain: [-0.12, 1.12] },
    y: { domain: [-0.16, 1.02] },
  });
  plot.svg.selectAll(".dpo-axis, .dpo-grid, .dpo-axis-title").remove(); // a triangle has none
  const lines = plot.clipped.append("path").attr("class", "dpo-curve dpo-thin dpo-stroke-grid");
  const drawLines = plot.mark((pieces) => {
    const spot = ([x, y]) => `${plot.x(x).toFixed(1)},${plot.y(y).toFixed(1)}`;
    lines.attr("d", pieces.map(([a, b]) => `M${spot(a)}L${spot(b)}`).join(""));
  });
  plot.curve({ color: "muted", className: "dpo-thin" })([[0, 0], [1, 0], [0.5, HEIGHT], [0, 0]]);
  names.forEach((name, k) => {
    const text = rewards ? `${name}, r = ${fmt(rewards[k], 1)}` : name;
    const [x, y] = [[0.5, HEIGHT], [-0.12, 0], [1.12, 0]][k];
    plot.text({ anchor: ["middle", "start", "end"][k], dy: k ? 20 : -8 })(x, y, text);
  });
  const anchor = plot.dot({ color: "reference", r: 10 });
  anchor(...place(reference));
  const star = rewards && plot.dot({ color: "ink", r: 7 });
  const starName = rewards && plot.text({ dx: 11, dy: 5 });
  // Where points lie on each other, all are seen.
  const views = losses.map((loss, k) => ({
    loss,
    trail: plot.curve({ color: SHOWN[loss].color }),
    dot: plot.dot({ color: SHOWN[loss].color, r: 7.5 - 1.75 * k }),
  }));
  plot.onDrag((x, y) => begin(policyAt(x, y)));

  const word = (text, color) => h("b", { class: `dpo-text-${color}` }, text);
  const legend = [word("reference", "reference"), ...losses.map((loss) => word(SHOWN[loss].name, SHOWN[loss].color))];
  if (rewards) legend.push(word("π* of the rewards", "ink"));
  el.append(h("p", { class: "dpo-name dpo-triangle-legend" }, ...legend.flatMap((node) => [node, " "])));

  // --- moving ---
  const begin = (start) => {
    pause();
    assign(model, { start, steps: 0 });
  };
  const advance = (steps) => assign(model, { steps: Math.min(LAST, model.get("steps") + steps) });
  function pause() {
    cancelAnimationFrame(timer);
    timer = 0;
    name();
  }
  const tick = () => {
    advance(1);
    if (model.get("steps") >= LAST) pause();
    else timer = requestAnimationFrame(tick);
  };
  const play = button("Play", () => {
    if (timer) pause();
    else if (still.matches) advance(50);
    else {
      if (model.get("steps") >= LAST) assign(model, { steps: 0 });
      timer = requestAnimationFrame(tick);
      name();
    }
  });
  const name = () => (play.textContent = timer ? "Pause" : still.matches ? "Fifty steps" : "Play");
  const step = button("Step", () => advance(1));
  const back = button("To the start", () => begin(model.get("start")));
  const home = button("Start at the reference", () => begin([...reference]));
  el.append(h("div", { class: "dpo-actions" }, play, step, back, home));
  name();

  // --- the numbers ---
  const columns = ["π_{ref}", ...(rewards ? ["π*"] : []), ...losses.map((loss) => SHOWN[loss].short ?? SHOWN[loss].name)];
  const labels = [...names, ...(rewards ? [...names.map((_, k) => `r̂, ${["top", "left", "right"][k]}`), "loss"] : []), "KL"];
  const hold = h("div", { class: "dpo-triangle-table" });
  el.append(hold);
  const cell = table(hold, { caption: "The policy that each loss has reached", corner: "probability", columns, rows: labels.map((label) => ({ label })) });
  const fill = (column, { probabilities, rewards: implied, loss, kl }) => {
    const values = [...probabilities, ...(rewards ? [...implied, loss] : []), kl];
    values.forEach((value, row) => cell(row, column, value === null ? "–" : fmt(value, 2)));
  };

  let drawn = "";
  return {
    update(state) {
      const shares = verdicts(state, spec.data);
      const key = JSON.stringify([state.beta, shares]);
      if (rewards && key !== drawn) {
        drawLines(levelLines((logps) => lossAt(losses[0], state, shares, logps).value));
        drawn = key;
      }
      fill(0, { probabilities: reference, rewards: [0, 0, 0], loss: null, kl: 0 });
      if (rewards) {
        const goal = piStar(reference, rewards, state.beta);
        const implied = goal.map((p, k) => state.beta * Math.log(p / reference[k]));
        star(...place(goal));
        starName(...place(goal), "π*");
        fill(1, { probabilities: goal, rewards: implied, loss: null, kl: klDivergence(goal, reference) });
      }
      views.forEach(({ loss, trail, dot }, k) => {
        const points = path(loss, state, spec.data).map((logps) => place(logps.map(Math.exp)));
        trail(points);
        dot(...points.at(-1));
        fill((rewards ? 2 : 1) + k, numbers(loss, state, spec.data));
      });
      if (state.steps === 0) back.setAttribute("aria-disabled", "true");
      else back.removeAttribute("aria-disabled");
    },
    describe(state) {
      const where = losses.map((loss) => {
        const { name: long, short = long } = SHOWN[loss];
        return `${short} ${say(numbers(loss, state, spec.data).probabilities)}`;
      });
      return `After ${state.steps} steps at β = ${fmt(state.beta, 1)}, top, left and right: ${where.join("; ")}.`;
    },
    destroy: () => cancelAnimationFrame(timer),
  };
}
