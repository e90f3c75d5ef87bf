// Chapter 5: the six operations of a sequence log-probability. Time runs to the right, the
// vocabulary downwards: under each token stands the column of scores for what follows it.

import { logSoftmax, logSumExp, sum } from "../math.js";
import { button, fmt, h, readout } from "../ui.js";

const THREE = 1; // index of the choice that rules words out
const [CONCATENATE, FORWARD, SLICE, LOG_SOFTMAX, GATHER, SUM] = [0, 1, 2, 3, 4, 5];

// Everything that the drawing shows of one choice of vocabulary and slice; independent of the step.
export function trace(data, vocabulary, tooLate) {
  const tokens = [...data.prompt, ...data.response];
  const logits = data.logits.map((column) =>
    column.map((value, word) => (vocabulary === THREE && word < data.ruledOut ? -Infinity : value)),
  );
  const first = data.prompt.length - 1 + (tooLate ? 1 : 0);
  const kept = data.response.map((_, t) => first + t);
  const totals = kept.map((position) => logSumExp(logits[position]));
  const logProbs = kept.map((position) => logSoftmax(logits[position]));
  const taken = data.response.map((word, t) => logProbs[t][word]);
  return { tokens, logits, kept, totals, logProbs, taken, total: sum(taken) };
}

const number = (value) => (Number.isFinite(value) ? fmt(value, 2) : value < 0 ? "−∞" : "∞");

const code = (tooLate) => [
  ["tokens = torch.cat([prompt, response], dim=1)", "(1, 6)"],
  ["logits = model(tokens)", "(1, 6, 8)"],
  [tooLate ? "sliced = logits[:, prompt_len:]" : "sliced = logits[:, prompt_len - 1 : -1]", "(1, 2, 8)"],
  ["log_probs = sliced.log_softmax(dim=-1)", "(1, 2, 8)"],
  ["taken = log_probs.gather(-1, response.unsqueeze(-1)).squeeze(-1)", "(1, 2)"],
  ["total = taken.sum(dim=-1)", "(1,)"],
];

export function render({ model, el, spec }) {
  const { data } = spec;
  const last = data.steps.length - 1;
  const go = (step) => {
    model.set("step", Math.max(0, Math.min(last, step)));
    model.save_changes();
  };

  // The steps as a row of buttons: where the reader is, and a way to any of them.
  const chips = data.steps.map((name, i) => {
    const chip = button(`${i + 1} ${name}`, () => go(i));
    chip.classList.add("dpo-step");
    return chip;
  });
  const previous = button("Previous", () => go(model.get("step") - 1));
  const next = button("Next", () => go(model.get("step") + 1));
  const moves = {
    ArrowLeft: () => model.get("step") - 1,
    ArrowRight: () => model.get("step") + 1,
    Home: () => 0,
    End: () => last,
  };
  const onkeydown = (event) => {
    if (!moves[event.key] || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    go(moves[event.key]());
    event.preventDefault();
    event.stopPropagation(); // a notebook would move to another cell
  };
  const steps = h("ol", { class: "dpo-steps" }, ...chips.map((chip) => h("li", {}, chip)));
  el.append(h("div", { class: "dpo-stepper", role: "group", "aria-label": "Steps", onkeydown }, steps));

  const codeText = document.createTextNode("");
  const shapeText = document.createTextNode("");
  el.append(
    h("div", { class: "dpo-codeline" }, h("code", {}, codeText), h("span", { class: "dpo-shape" }, "shape ", shapeText)),
  );

  const tokens = [...data.prompt, ...data.response];
  const side = (i) => (i < data.prompt.length ? "prompt" : "response");
  const texts = () => tokens.map(() => document.createTextNode(""));
  const row = (label, nodes, className = "") =>
    h("tr", { class: className }, h("th", { scope: "row" }, label), ...nodes.map((node) => h("td", {}, node)));
  const heads = tokens.map((token, i) =>
    h(
      "th",
      { scope: "col", class: `dpo-token dpo-${side(i)}` },
      data.words[token],
      h("span", { class: "dpo-id" }, `id ${token}`),
    ),
  );
  const predicted = texts();
  const predicts = row("predicts", predicted, "dpo-predicts");
  const numbers = data.words.map(texts);
  const rows = data.words.map((word, i) => row(word, numbers[i]));
  const foot = { totals: texts(), targets: texts(), taken: texts() };
  const grid = h(
    "table",
    { class: "dpo-tensor" },
    h("caption", { class: "dpo-hidden" }, "A column for each token, a row for each word that may follow it"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "token"), ...heads)),
    h("tbody", {}, predicts, ...rows),
    h(
      "tbody",
      { class: "dpo-foot" },
      row("logsumexp", foot.totals),
      row("look up", foot.targets),
      row("log-prob", foot.taken),
    ),
  );
  el.append(grid);
  const cells = rows.map((line) => [...line.querySelectorAll("td")]);
  const predictCells = [...predicts.querySelectorAll("td")];

  const set = readout(el, [
    { key: "total", label: "log π(y | x), nats", color: "chosen" },
    { key: "probability", label: "π(y | x)", color: "chosen" },
  ]);
  const arrows = h("div", { class: "dpo-actions", role: "group", "aria-label": "Move", onkeydown }, previous, next);
  el.append(arrows);

  const write = (node, text) => {
    if (node.data !== text) node.data = text;
  };

  return {
    update({ step, vocabulary, too_late: tooLate }) {
      const now = trace(data, vocabulary, tooLate);
      const wrong = Boolean(tooLate);
      chips.forEach((chip, i) => {
        if (i === step) chip.setAttribute("aria-current", "step");
        else chip.removeAttribute("aria-current");
      });
      // Not `disabled`: that would throw the focus of a keyboard out of the widget.
      previous.setAttribute("aria-disabled", String(step === 0));
      next.setAttribute("aria-disabled", String(step === last));
      const [text, shape] = code(wrong)[step];
      write(codeText, text);
      write(shapeText, shape);
      grid.classList.toggle("dpo-wrong", wrong);
      heads.forEach((head, i) => head.classList.toggle("dpo-new", step === CONCATENATE && side(i) === "response"));
      tokens.forEach((_, i) => {
        const t = now.kept.indexOf(i);
        const inSlice = step >= SLICE && t >= 0;
        write(predicted[i], step < FORWARD ? "" : i + 1 < tokens.length ? data.words[tokens[i + 1]] : "?");
        predictCells[i].className = inSlice ? "dpo-kept" : "";
        data.words.forEach((_, word) => {
          const cell = cells[word][i];
          const probability = step >= LOG_SOFTMAX && t >= 0 ? Math.exp(now.logProbs[t][word]) : 0;
          const taken = step >= GATHER && t >= 0 && data.response[t] === word;
          let shown = "";
          if (step === FORWARD || step === SLICE) shown = number(now.logits[i][word]);
          else if (step >= LOG_SOFTMAX && t >= 0) shown = number(now.logProbs[t][word]);
          write(numbers[word][i], shown);
          cell.className = taken ? "dpo-taken" : inSlice ? "dpo-kept" : step === SLICE ? "dpo-cut" : "";
          cell.style.setProperty("--share", `${Math.round(60 * probability)}%`);
        });
        write(foot.totals[i], step >= LOG_SOFTMAX && t >= 0 ? number(now.totals[t]) : "");
        write(foot.targets[i], step >= GATHER && t >= 0 ? data.words[data.response[t]] : "");
        write(foot.taken[i], step >= GATHER && t >= 0 ? number(now.taken[t]) : "");
      });
      set("total", step === SUM ? fmt(now.total, 4) : "–");
      set("probability", step === SUM ? fmt(Math.exp(now.total), 4) : "–");
    },
    describe({ step, vocabulary, too_late: tooLate }) {
      const now = trace(data, vocabulary, tooLate);
      const before = now.kept.map((position) => `“${data.words[now.tokens[position]]}”`);
      if (step === CONCATENATE) return "Four prompt tokens and two response tokens become one row of six.";
      if (step === FORWARD) {
        const ending = vocabulary === THREE ? "; −∞ rules a word out" : "";
        return `One pass gives, after each of the six tokens, a score for every word${ending}.`;
      }
      if (step === SLICE && tooLate) return `Too late: the kept columns stand at ${before.join(" and ")}, not before them.`;
      if (step === SLICE) return `Kept: the two columns that predict the response, at ${before.join(" and ")}.`;
      if (step === LOG_SOFTMAX) {
        const said = now.totals.map((total) => fmt(total, 2)).join(" and ");
        return `Each kept column minus its logsumexp, ${said}. Its probabilities (shading) now sum to 1.`;
      }
      const numbers = now.taken.map((value) => fmt(value, 2));
      if (step === GATHER) {
        const pairs = before.map((place, t) => `at ${place} look up “${data.words[data.response[t]]}”, ${numbers[t]}`);
        return `In the column ${pairs.join("; ")}.${tooLate ? " Wrong columns." : ""}`;
      }
      const ending = tooLate ? ` It should be ${fmt(trace(data, vocabulary, false).total, 2)}.` : "";
      const answer = data.response.map((word) => data.words[word]).join(" ");
      return (
        `${numbers[0]} + (${numbers[1]}) = ${fmt(now.total, 2)}, ` +
        `${tooLate ? "taken for " : ""}the log-probability of “${answer}”.${ending}`
      );
    },
  };
}
