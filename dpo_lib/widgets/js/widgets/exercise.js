// An exercise that the reader solves in the page, in Python; the library's own checker says what is wrong.

import { checker } from "../checker.js";
import { editor } from "../editor.js";
import { markDone } from "../progress.js";
import { assign, button, h } from "../ui.js";

export function render({ model, el, spec }) {
  const { number, name, line } = spec.data;
  const python = checker(model);
  let busy = false;

  const field = editor({
    label: `${name}, in Python`,
    rows: spec.state.code.split("\n").length + 1,
    run: () => check(),
    changed: (code) => assign(model, { code, note: "" }),
  });
  const hint = h("p", { class: "dpo-name" }, "Python runs in this page, by MicroPython: math, sigmoid and log_sigmoid are there, PyTorch is not. Ctrl + Enter checks.");
  const library = h("div", { hidden: true }, h("p", { class: "dpo-name" }, "The library's lines:"), h("pre", { class: "dpo-library" }, line));
  el.append(field, hint, h("div", { class: "dpo-actions" }, button("Check", () => check())), library);

  async function check() {
    if (busy) return;
    busy = true;
    assign(model, { note: "Running your code …" });
    try {
      const [right, said] = await python.check(field.value, number);
      if (right) markDone("exercise", number);
      library.hidden = !right;
      assign(model, { note: right ? "Right in every case." : said });
    } catch (error) {
      assign(model, { note: error.message });
    }
    busy = false;
  }

  return {
    update({ code, note }) {
      if (field.value !== code) field.value = code;
      if (!note) library.hidden = true;
    },
    describe: ({ note }) => note || spec.data.asked,
    destroy: () => python.stop(),
  };
}
