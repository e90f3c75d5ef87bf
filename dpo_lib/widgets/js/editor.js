// A field for a few lines of Python: Ctrl + Enter runs them, and Tab leaves it as it leaves any field.

import { h } from "./ui.js";

export function editor({ label, rows, run, changed }) {
  const field = h("textarea", {
    class: "dpo-editor", rows, spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off",
    "aria-label": label,
    oninput: () => changed(field.value),
  });
  field.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the page and JupyterLab have keys of their own
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
  });
  return field;
}
