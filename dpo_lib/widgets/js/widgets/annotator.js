// Chapter 1: two responses, a click on the better one, a row of data.

import { remember } from "../live_model.js";
import { assign, button, download, fmt, h, readout } from "../ui.js";

const TOO_FAST = 250; // ms; nobody reads that fast: a double click or a key held down

// Preference rows of the judgements, in the order of the pairs; practice and skips left out.
export function rowsOf(pairs, judged) {
  return judged.flatMap(({ choice, seconds }, i) => {
    const { prompt, practice } = pairs[i];
    if (practice || choice === "skip") return [];
    const other = choice === "first" ? "second" : "first";
    return [{ prompt, chosen: pairs[i][choice], rejected: pairs[i][other], seconds }];
  });
}

export const toJsonl = (rows) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

// The lower of the two middle values when their number is even.
export const median = (values) => [...values].sort((a, b) => a - b)[Math.ceil(values.length / 2) - 1];

export function render({ model, el, spec }) {
  const { pairs } = spec.data;
  const total = pairs.length - 1; // without the practice pair
  let shownAt = performance.now();
  let kept = 0; // rows left in this browser for chapter 10

  const judged = () => model.get("judged");
  const save = (values) => {
    assign(model, values);
    shownAt = performance.now();
  };
  const judge = (choice) => {
    const waited = performance.now() - shownAt;
    if (!model.get("started") || judged().length > total || waited < TOO_FAST) return;
    save({ judged: [...judged(), { choice, seconds: Math.round(waited / 100) / 10 }] });
  };
  const start = () => {
    save({ started: true });
    pairBox.focus({ preventScroll: true });
  };
  const undo = () => {
    if (judged().length) save({ judged: judged().slice(0, -1) });
  };
  const saveFile = () => {
    const rows = rowsOf(pairs, judged());
    if (rows.length) download("preferences.jsonl", toJsonl(rows));
  };

  // --- the pair ---
  const counter = h("span", { class: "dpo-name" });
  const bar = h("progress", { class: "dpo-ann-bar", max: pairs.length, "aria-label": "Pairs seen" });
  const prompt = h("p", { class: "dpo-ann-prompt" });
  // Unseen in each card: the longest text of all, so that every pair takes the same room.
  const longest = pairs
    .flatMap(({ first, second }) => [first, second])
    .reduce((a, b) => (b.length > a.length ? b : a));
  const cards = ["first", "second"].map((choice, i) => {
    const text = h("span", {});
    const room = h("span", { class: "dpo-ann-off", "aria-hidden": "true" }, longest);
    const label = h("span", { class: "dpo-name" }, `Response ${i + 1}`);
    const card = h(
      "button",
      { type: "button", class: "dpo-ann-card", onclick: () => judge(choice) },
      label,
      " ",
      h("span", { class: "dpo-ann-text" }, text, room),
    );
    return { card, text };
  });
  const cardBox = h("div", { class: "dpo-ann-cards" }, ...cards.map(({ card }) => card));
  const startButton = button("Start", start);
  const startBox = h("div", { class: "dpo-ann-cover" }, startButton);
  const endBox = h("div", { class: "dpo-ann-cover" }, "That was the last pair. Download your rows, or undo.");
  const stage = h("div", { class: "dpo-ann-stage" }, cardBox, startBox, endBox);
  const pairBox = h(
    "div",
    { class: "dpo-ann-pair", tabindex: -1, role: "group", "aria-label": "The pair to judge" },
    h("div", { class: "dpo-ann-progress" }, counter, bar),
    prompt,
    stage,
  );
  const skipButton = button("Skip", () => judge("skip"));
  const undoButton = button("Undo", undo);
  const saveButton = button("Download JSONL", saveFile);
  el.append(
    pairBox,
    h("div", { class: "dpo-actions" }, skipButton, undoButton, saveButton),
    h("p", { class: "dpo-name dpo-ann-keys" }, "Keys: 1 or ← first response, 2 or → second, S skip, U undo. Your rows stay in this browser, for chapter 10; Reset erases them."),
  );

  // --- what came of it ---
  const tiles = h("div", { class: "dpo-ann-tiles" });
  el.append(tiles);
  const set = readout(tiles, [
    { key: "rows", label: "rows in your file" },
    { key: "skipped", label: "skipped" },
    { key: "last", label: "last judgement" },
    { key: "median", label: "half took at most" },
  ]);
  const body = h("tbody", { role: "rowgroup" });
  const columns = [["prompt", ""], ["chosen", "dpo-text-chosen"], ["rejected", "dpo-text-rejected"], ["seconds", ""]];
  const head = columns.map(([name, color]) => h("th", { scope: "col", role: "columnheader", class: color }, name));
  // The roles survive the phone's layout, in which the rows are no longer laid out as a table.
  el.append(
    h(
      "div",
      { class: "dpo-ann-rows", tabindex: 0, role: "region", "aria-label": "Your rows, the newest first" },
      h(
        "table",
        { class: "dpo-ann-table", role: "table" },
        h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...head)),
        body,
      ),
    ),
  );
  const tableRow = (texts) =>
    h(
      "tr",
      { role: "row" },
      ...texts.map((text, i) => h("td", { role: "cell", class: columns[i][1] }, text)),
    );

  const keys = { 1: "first", ArrowLeft: "first", 2: "second", ArrowRight: "second", s: "skip", u: "undo" };
  const onKey = (event) => {
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.repeat) return;
    if (action === "undo") undo();
    else judge(action);
  };
  el.addEventListener("keydown", onKey);
  el.dataset.lmSuppressShortcuts = "true"; // JupyterLab has plans of its own for 1, 2 and S

  const enable = (node, on) => node.setAttribute("aria-disabled", String(!on));
  const show = (node, on) => node.classList.toggle("dpo-ann-off", !on);

  return {
    update({ started, judged }) {
      const seen = judged.length;
      const done = seen > total;
      const running = started && !done;
      counter.textContent = done ? `${total} of ${total}` : seen ? `Pair ${seen} of ${total}` : "Practice pair";
      bar.value = seen;
      const pair = pairs[Math.min(seen, total)];
      prompt.textContent = running ? `Prompt: ${pair.prompt}` : "Which response is better?";
      cards[0].text.textContent = pair.first;
      cards[1].text.textContent = pair.second;
      show(cardBox, running);
      show(startBox, !started);
      show(endBox, done);
      enable(skipButton, running);
      enable(undoButton, seen > 0);

      const rows = rowsOf(pairs, judged);
      if (rows.length !== kept) remember("clicks", rows.length ? rows : null);
      kept = rows.length;
      enable(saveButton, rows.length > 0);
      const times = rows.map(({ seconds }) => seconds);
      const seconds = (value) => (times.length ? `${fmt(value, 1)} s` : "–");
      set("rows", String(rows.length));
      set("skipped", String(judged.slice(1).filter(({ choice }) => choice === "skip").length));
      set("last", seconds(times.at(-1)));
      set("median", seconds(median(times)));
      const lines = rows.map((row) => tableRow([row.prompt, row.chosen, row.rejected, fmt(row.seconds, 1)]));
      if (seen && judged[0].choice !== "skip") lines.unshift(tableRow(["Practice pair: not in your file", "", "", ""]));
      if (!lines.length) lines.push(tableRow(["Your choices will stand here.", "", "", ""]));
      body.replaceChildren(...lines.reverse());
    },
    describe({ started, judged }) {
      if (!started) {
        return (
          `A practice pair and ${total} pairs are waiting. ` +
          "Press Start, then choose the better response of each pair."
        );
      }
      const seen = judged.length;
      const skipped = judged.slice(1).filter(({ choice }) => choice === "skip").length;
      const counts = `${rowsOf(pairs, judged).length} in your file, ${skipped} skipped.`;
      if (seen > total) return `All ${total} pairs seen: ${counts}`;
      const which = seen ? `pair ${seen} of ${total}` : "the practice pair";
      return `${counts} Next is ${which}: ${pairs[seen].prompt}`;
    },
    destroy() {
      el.removeEventListener("keydown", onKey);
    },
  };
}
