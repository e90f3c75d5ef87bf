// A few prompts with what the model wrote before training and what it writes now.

import { h } from "./ui.js";

// set(i, column, answer): column 0 is before, 1 now; answer { text, reward } or null.
export function answers(parent, prompts) {
  const cells = prompts.map(() => [h("td", {}, "–"), h("td", {}, "–")]);
  const row = (prompt, i) => h("tr", {}, h("th", { scope: "row" }, prompt), ...cells[i]);
  parent.append(
    h(
      "table",
      { class: "dpo-answers" },
      h("caption", { class: "dpo-hidden" }, "What the model writes, before training and now"),
      h("thead", {}, h("tr", {}, ...["prompt", "before", "now"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, ...prompts.map(row)),
    ),
  );
  return (i, column, answer) => {
    const cell = cells[i][column];
    const text = answer ? answer.text || "(nothing)" : "–";
    if (cell.textContent === text) return;
    cell.textContent = text;
    cell.className = answer && column && cells[i][0].textContent !== text ? "dpo-text-policy" : "";
  };
}
