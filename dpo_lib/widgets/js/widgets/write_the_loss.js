// Chapter 9: the reader's own loss, in Python, checked against dpo_lib and then used to train.

import { answers } from "../answers.js";
import { liveModel, remember } from "../live_model.js";
import { assign, button, fmt, h, readout } from "../ui.js";

const UPDATES = 60;
const SETTINGS = { labels: "true", beta: 1, rate: 2e-4, seed: 1 };
const TOO_LONG = 8000; // ms without an answer: surely a loop without end

// What the reader's values say, in words; `wrong` are the places where they are not the library's.
export function verdict(cases, values) {
  const near = (a, b) => Math.abs(a - b) <= 1e-6 * (1 + Math.abs(b));
  const wrong = cases.map((_, i) => i).filter((i) => !near(values[i], cases[i].loss));
  if (!wrong.length) return { wrong, words: "All cases are right: this is the DPO loss. Press Train." };
  const mistakes = {
    sign: "The sign of the gap is turned round: this loss is small when the rejected response gains.",
    reference: "The reference is missing: this is the naive loss.",
    crossed: "The two reference log-probabilities are crossed.",
    beta: "β is missing.",
    minus: "The value is right but for its sign: a loss is minus the log-probability.",
  };
  for (const [name, words] of Object.entries(mistakes)) {
    if (cases.every((one, i) => near(values[i], one.mistakes[name]))) return { wrong, words: `${words} Train with it all the same, and see.` };
  }
  const [first] = wrong;
  const expected = `it is ${fmt(values[first], 4)}, the library says ${fmt(cases[first].loss, 4)}`;
  return { wrong, words: `${wrong.length} of ${cases.length} cases differ. ${cases[first].name}: ${expected}.` };
}

export function render({ model, el, spec }) {
  const { cases, shown } = spec.data;
  let busy = false;
  let number = 0;
  const save = (values) => assign(model, values);
  const live = liveModel(model, ({ row, look }) => {
    if (row) set("updates", String(row.step));
    if (look) see(look);
  });

  // --- the editor ---
  const editor = h("textarea", {
    class: "dpo-editor", rows: 8, spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off",
    "aria-label": "Your loss, in Python",
    oninput: () => save({ code: editor.value, note: "" }),
  });
  editor.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the page and JupyterLab have keys of their own
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) check();
  });
  const note = h("p", { class: "dpo-name" }, "Python runs in this page, by MicroPython: math is there, NumPy is not. Ctrl + Enter checks.");
  const checkButton = button("Check", () => check());
  const trainButton = button("Train", () => train());
  const stopButton = button("Stop", () => stop());
  el.append(editor, note, h("div", { class: "dpo-actions" }, checkButton, trainButton, stopButton));

  // --- checks and training ---
  const marks = cases.map(({ name, numbers }) => {
    const mark = h("span", { class: "dpo-check-mark" }, "·");
    const text = `${name} (${numbers.map((value) => String(value).replace("-", "−")).join(", ")})`;
    return { row: h("li", {}, mark, ` ${text}`), mark };
  });
  el.append(h("ul", { class: "dpo-checks" }, ...marks.map(({ row }) => row)));
  const set = readout(el, [
    { key: "updates", label: "updates" },
    { key: "reward", label: "true reward", color: "policy" },
    { key: "malformed", label: "malformed answers" },
  ]);
  const put = answers(el, shown);
  let before = null;
  function see(look) {
    before ??= look;
    set("reward", `${fmt(before.reward, 2)} → ${fmt(look.reward, 2)}`);
    set("malformed", `${fmt(100 * look.malformed, 0)} %`);
    shown.forEach((_, i) => {
      put(i, 0, before.answers[i]);
      put(i, 1, look.answers[i]);
    });
  }
  function mark(wrong) {
    marks.forEach(({ mark: node }, i) => {
      const state = !wrong ? "·" : wrong.includes(i) ? "✗" : "✓";
      node.textContent = state;
      node.className = `dpo-check-mark ${{ "✓": "dpo-text-policy", "✗": "dpo-text-rejected", "·": "" }[state]}`;
    });
  }
  function clear() {
    before = null;
    set("updates", "0");
    set("reward", "–");
    set("malformed", "–");
    for (const column of [0, 1]) shown.forEach((_, i) => put(i, column, null));
  }
  // One press at a time; code that never ends is ended, and the reader told.
  async function press(words, work) {
    if (busy) return;
    busy = true;
    enable();
    save({ note: words });
    const code = editor.value;
    let said;
    try {
      await live.python();
      const end = setTimeout(stop, TOO_LONG);
      const values = await live.ask("code", { code, cases: cases.map(({ numbers }) => numbers) }).finally(() => clearTimeout(end));
      remember("loss", code);
      said = await work(code, values);
    } catch (error) {
      said = error.message;
      mark(null);
    }
    busy = false;
    enable();
    save({ note: said });
  }
  const check = () =>
    press("Running your code …", async (_, values) => {
      const { wrong, words } = verdict(cases, values);
      mark(wrong);
      return words;
    });
  const train = () =>
    press("Training with your loss …", async (code, values) => {
      clear();
      mark(verdict(cases, values).wrong);
      const run = `mine ${++number}`;
      const { look } = await live.ask("begin", { ...SETTINGS, run, code, shown });
      see(look);
      await live.ask("advance", { run, steps: UPDATES });
      return "Trained with your loss, here in this page. It is kept in this browser: chapter 10 can train with it too.";
    });
  const stop = () => live.end();
  const enable = () => {
    for (const [node, on] of [[checkButton, !busy], [trainButton, !busy], [stopButton, busy]]) node.setAttribute("aria-disabled", String(!on));
  };
  clear();
  enable();

  return {
    update({ code, note: said }) {
      if (editor.value !== code) editor.value = code;
      if (said) return;
      if (!busy) mark(null);
      if (code === spec.state.code) clear(); // reset
    },
    describe: ({ note: said }) =>
      said || "Complete the function, press Check, then Train: the model in this page follows your loss, right or wrong.",
    destroy: () => live.end(),
  };
}
