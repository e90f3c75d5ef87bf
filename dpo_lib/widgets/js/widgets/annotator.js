// Chapter 1: two responses, a click on the better one, a row of data.

import { change, kept, onClicks, pairOf, toJsonl } from "../clicks.js";
import { KEYS, TOO_FAST, enable, onKeys, pairParts, show } from "../judging.js";
import { STOPPED, liveModel } from "../live_model.js";
import { assign, button, download, fmt, h, readout } from "../ui.js";

const FRESH = 12; // prompts that the model answers anew at a time
const KEPT = "Your rows stay in this browser, for chapters to come; Reset erases them.";

// Preference rows of the judgments, in the order of the pairs; practice and skips left out.
export function rowsOf(pairs, judged) {
  return judged.flatMap(({ choice, seconds }, i) => {
    const { prompt, practice } = pairs[i];
    if (practice || choice === "skip") return [];
    const other = choice === "first" ? "second" : "first";
    return [{ prompt, chosen: pairs[i][choice], rejected: pairs[i][other], seconds }];
  });
}

// The lower of the two middle values when their number is even.
export const median = (values) => [...values].sort((a, b) => a - b)[Math.ceil(values.length / 2) - 1];

export function render({ model, el, spec }) {
  const stored = spec.data.pairs;
  let shownAt = performance.now();
  let mine = []; // the rows that stand here and in the browser
  let drawing = false;
  const live = liveModel(model, () => {});

  const judged = () => model.get("judged");
  const pairs = () => [...stored, ...model.get("fresh")];
  const total = () => pairs().length - 1; // without the practice pair
  const save = (values) => {
    assign(model, values);
    shownAt = performance.now();
  };
  const judge = (choice) => {
    const waited = performance.now() - shownAt;
    if (!model.get("started") || judged().length > total() || waited < TOO_FAST) return;
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
    const rows = rowsOf(pairs(), judged());
    if (rows.length) download("preferences.jsonl", toJsonl(rows));
  };

  const draw = async () => {
    if (drawing) return;
    drawing = true;
    save({ note: "The model is being brought into this page, and writes." });
    try {
      const found = await live.ask("draw", { prompts: FRESH, perPrompt: 1, seed: Date.now() });
      if (!model.get("note")) return; // reset meanwhile
      const seen = new Set(pairs().map(({ prompt, first, second }) => pairOf({ prompt, chosen: first, rejected: second })));
      const fresh = found.filter(({ prompt, first, second }) => !seen.has(pairOf({ prompt, chosen: first, rejected: second })));
      const note = fresh.length ? "" : "The model wrote nothing new: ask again.";
      save({ fresh: [...model.get("fresh"), ...fresh.map((pair) => ({ ...pair, practice: false }))], started: true, note });
      if (fresh.length) pairBox.focus({ preventScroll: true });
    } catch (error) {
      if (error.message !== STOPPED) save({ note: error.message });
    } finally {
      drawing = false;
    }
  };

  // --- the rows in this browser, for other chapters ---
  const rowsHere = (fresh, judged) => [
    ...rowsOf(stored, judged.slice(0, stored.length)).map((row) => ({ ...row, from: "annotator" })),
    ...rowsOf(fresh, judged.slice(stored.length)).map((row) => ({ ...row, from: "fresh" })),
  ];
  // Leaves there what has changed here.
  function leave() {
    const now = rowsHere(model.get("fresh"), judged());
    const missing = (rows, from) => {
      const there = new Set(from.map((row) => JSON.stringify(row)));
      return rows.filter((row) => !there.has(JSON.stringify(row)));
    };
    const [gone, come] = [missing(mine, now), missing(now, mine)];
    mine = now;
    if (gone.length || come.length) change(gone, come);
  }
  // Takes from there what was clicked before, or on another page: pairs without a row before the last
  // that has one were skipped.
  function take() {
    leave();
    const { rows, note } = kept();
    const byPair = new Map(rows.map((row) => [pairOf(row), row]));
    const rowOf = ({ prompt, first, second }) => byPair.get(pairOf({ prompt, chosen: first, rejected: second }));
    const known = new Set(pairs().map(rowOf));
    const added = rows.filter((row) => row.from === "fresh" && !known.has(row));
    const fresh = [...model.get("fresh"), ...added.map(({ prompt, chosen, rejected }) => ({ prompt, first: chosen, second: rejected, practice: false }))];
    const entries = [...stored, ...fresh].map((pair, i) => {
      const row = rowOf(pair);
      if (row) return { choice: row.chosen === pair.first ? "first" : "second", seconds: row.seconds ?? null };
      const before = judged()[i];
      return before?.choice === "skip" || (before && pair.practice) ? before : null;
    });
    const last = entries.findLastIndex(Boolean);
    const now = entries.slice(0, last + 1).map((entry) => entry ?? { choice: "skip", seconds: null });
    mine = rowsHere(fresh, now);
    if (JSON.stringify([fresh, now]) !== JSON.stringify([model.get("fresh"), judged()])) save({ fresh, judged: now });
    keptLine.textContent = note || KEPT;
  }

  // --- the pair ---
  const { counter, bar, progress, prompt, cards, cardBox } = pairParts(judge);
  const startButton = button("Start", start);
  const startBox = h("div", { class: "dpo-ann-cover" }, startButton);
  const endBox = h("div", { class: "dpo-ann-cover" }, "That was the last pair. Download your rows, or go on.", button("New pairs", draw));
  const stage = h("div", { class: "dpo-ann-stage" }, cardBox, startBox, endBox);
  const pairBox = h(
    "div",
    { class: "dpo-ann-pair", tabindex: -1, role: "group", "aria-label": "The pair to judge" },
    progress,
    prompt,
    stage,
  );
  const skipButton = button("Skip", () => judge("skip"));
  const undoButton = button("Undo", undo);
  const saveButton = button("Download JSONL", saveFile);
  el.append(
    pairBox,
    h("div", { class: "dpo-actions" }, skipButton, undoButton, saveButton),
    h("p", { class: "dpo-name dpo-ann-keys" }, "Keys: 1 or ← first response, 2 or → second, S skip, U undo."),
  );
  const keptLine = h("p", { class: "dpo-name" });
  el.append(keptLine);

  // --- what came of it ---
  const tiles = h("div", { class: "dpo-ann-tiles" });
  el.append(tiles);
  const set = readout(tiles, [
    { key: "rows", label: "rows in your file" },
    { key: "skipped", label: "skipped" },
    { key: "last", label: "last judgment" },
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

  const stopKeys = onKeys(el, KEYS, (action) => (action === "undo" ? undo() : judge(action)));
  el.dataset.lmSuppressShortcuts = "true"; // JupyterLab has plans of its own for 1, 2 and S

  take();
  const stop = onClicks(take);

  return {
    update({ started, judged, fresh }) {
      const pairs = [...stored, ...fresh];
      const total = pairs.length - 1;
      const seen = judged.length;
      const done = seen > total;
      const running = started && !done;
      counter.textContent = done ? `${total} of ${total}` : seen ? `Pair ${seen} of ${total}` : "Practice pair";
      bar.max = pairs.length;
      bar.value = seen;
      const longest = pairs
        .flatMap(({ first, second }) => [first, second])
        .reduce((a, b) => (b.length > a.length ? b : a));
      for (const { room } of cards) if (room.textContent !== longest) room.textContent = longest;
      startButton.textContent = seen ? "Go on" : "Start";
      const pair = pairs[Math.min(seen, total)];
      prompt.textContent = running ? `Prompt: ${pair.prompt}` : "Which response is better?";
      cards[0].text.textContent = pair.first;
      cards[1].text.textContent = pair.second;
      show(cardBox, running);
      show(startBox, !started && !done);
      show(endBox, done);
      enable(skipButton, running);
      enable(undoButton, seen > 0);

      const rows = rowsOf(pairs, judged);
      leave();
      enable(saveButton, rows.length > 0);
      const times = rows.map(({ seconds }) => seconds).filter((value) => value !== null);
      const said = (value) => (value == null ? "–" : fmt(value, 1));
      const seconds = (value) => (value == null ? "–" : `${said(value)} s`);
      set("rows", String(rows.length));
      set("skipped", String(judged.slice(1).filter(({ choice }) => choice === "skip").length));
      set("last", seconds(times.at(-1)));
      set("median", seconds(median(times)));
      const lines = rows.map((row) => tableRow([row.prompt, row.chosen, row.rejected, said(row.seconds)]));
      if (seen && judged[0].choice !== "skip") lines.unshift(tableRow(["Practice pair: not in your file", "", "", ""]));
      if (!lines.length) lines.push(tableRow(["Your choices will stand here.", "", "", ""]));
      body.replaceChildren(...lines.reverse());
    },
    describe({ started, judged, fresh, note }) {
      if (note) return note;
      const pairs = [...stored, ...fresh];
      const total = pairs.length - 1;
      if (!started && !judged.length) {
        return (
          `A practice pair and ${total} pairs are waiting. ` +
          "Press Start, then choose the better response of each pair."
        );
      }
      const seen = judged.length;
      const skipped = judged.slice(1).filter(({ choice }) => choice === "skip").length;
      const counts = `${rowsOf(pairs, judged).length} in your file, ${skipped} skipped.`;
      if (!started && seen <= total) return `From before: ${counts} Press Go on for pair ${seen} of ${total}.`;
      if (seen > total) return `All ${total} pairs seen: ${counts}`;
      const which = seen ? `pair ${seen} of ${total}` : "the practice pair";
      return `${counts} Next is ${which}: ${pairs[seen].prompt}`;
    },
    destroy() {
      stopKeys();
      stop();
      live.end();
    },
  };
}
