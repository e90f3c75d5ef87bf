// Chapter 9: the reader's own loss, in Python, judged as exercise 9.2 is and then used to train.

import { answers } from "../answers.js";
import { checker } from "../checker.js";
import { editor } from "../editor.js";
import { liveModel, remember } from "../live_model.js";
import { markDone } from "../progress.js";
import { assign, button, fmt, h, readout } from "../ui.js";

const UPDATES = 60;
const SETTINGS = { labels: "true", beta: 1, rate: 2e-4, seed: 1 };

export function render({ model, el, spec }) {
  const { number, cases, shown } = spec.data;
  let busy = false;
  let trained = 0;
  const save = (values) => assign(model, values);
  const live = liveModel(model, ({ row, look }) => {
    if (row) set("updates", String(row.step));
    if (look) see(look);
  });

  const python = checker(model);

  // --- the editor ---
  const field = editor({
    label: "Your loss, in Python",
    rows: 12,
    run: () => check(),
    changed: (code) => save({ code, note: "" }),
  });
  const note = h("p", { class: "dpo-name" }, "Python runs in this page, by MicroPython: math is there, NumPy is not. Ctrl + Enter checks.");
  const checkButton = button("Check", () => check());
  const trainButton = button("Train", () => train());
  const stopButton = button("Stop", () => stop());
  el.append(field, note, h("div", { class: "dpo-actions" }, checkButton, trainButton, stopButton));

  // --- checks and training ---
  const marks = cases.map((text) => {
    const mark = h("span", { class: "dpo-check-mark" }, "·");
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
  // One press at a time: the code is judged, then trains if it is to; whatever it raises is said.
  async function press(words, work) {
    if (busy) return;
    busy = true;
    enable();
    save({ note: words });
    const code = field.value;
    let said;
    try {
      const [right, found, wrong] = await python.check(code, number);
      mark(wrong);
      remember("loss", code);
      if (right) markDone("exercise", number);
      said = await work(code, right, found);
    } catch (error) {
      said = error.message;
      mark(null);
    }
    busy = false;
    enable();
    save({ note: said });
  }
  const check = () =>
    press("Running your code …", (_, right, found) => (right ? "All cases are right: this is the DPO loss. Press Train." : found));
  const train = () =>
    press("Training with your loss …", async (code) => {
      clear();
      const run = `mine ${++trained}`;
      await live.python();
      const { look } = await live.ask("begin", { ...SETTINGS, run, code, shown });
      see(look);
      await live.ask("advance", { run, steps: UPDATES });
      return "Trained with your loss, here in this page. It is kept in this browser: chapter 10 can train with it too.";
    });
  const stop = () => {
    python.stop();
    live.end();
  };
  const enable = () => {
    for (const [node, on] of [[checkButton, !busy], [trainButton, !busy], [stopButton, busy]]) node.setAttribute("aria-disabled", String(!on));
  };
  clear();
  enable();

  return {
    update({ code, note: said }) {
      if (field.value !== code) field.value = code;
      if (said) return;
      if (!busy) mark(null);
      if (code === spec.state.code) clear(); // reset
    },
    describe: ({ note: said }) =>
      said || "Complete the function, press Check, then Train: the model in this page follows your loss, right or wrong.",
    destroy: stop,
  };
}
