// Chapters 2, 3, 4 and 8: what each chapter's idea says of the reader's own clicks.

import { fitBradleyTerry, noChain } from "../bradley_terry.js";
import { change, erase, fromJsonl, kept, onClicks, toJsonl } from "../clicks.js";
import { STOPPED, liveModel, onPolicy, policy } from "../live_model.js";
import { dpoReward, mean, preferenceNll, sum } from "../math.js";
import { assign, button, download, fmt, h, table } from "../ui.js";

const KINDS = ["right", "wrong", "no answer", "rude", "malformed"];
const SHOWN = 3; // clicks at each end of the order
const RUN = { run: "your clicks", loss: "dpo", labels: "clicks", beta: 1, rate: 3e-4, seed: 1, shown: [] };
const UPDATES = 60;

const quoted = (text) => `“${text}”`;
// A tie counts half.
export const ranked = (margins) => sum(margins.map((margin) => (margin === 0 ? 0.5 : Number(margin > 0))));

// Scores of the kinds that clicks have compared. Where no finite ones exist, half a click is added each way
// between every two kinds, and `gap` holds the two between which no chain of wins leads.
export function kindScores(pairs) {
  const names = KINDS.filter((kind) => pairs.some(([a, b]) => a !== b && [a, b].includes(kind)));
  const wins = names.map((a) => names.map((b) => (a === b ? 0 : pairs.filter(([won, lost]) => won === a && lost === b).length)));
  const missing = noChain(wins);
  const counts = missing ? wins.map((row, i) => row.map((count, j) => (i === j ? 0 : count + 0.5))) : wins;
  const scores = names.length ? fitBradleyTerry(counts) : [];
  return { names, wins, scores, gap: missing && missing.map((i) => names[i]) };
}

// Of clicks with a margin each: mean −log σ(margin), and how many are ranked as they were clicked.
export const lossOf = (margins) => ({ loss: mean(margins.map((margin) => preferenceNll(margin, 0))), ranked: ranked(margins) });

const clicksOf = ({ n, yours }) => (yours ? `${n} of your clicks` : `a stored annotator’s ${n} clicks`);
const half = (value) => (value % 1 ? fmt(value, 1) : String(value));

const MODES = {
  scores: {
    action: "Fit scores",
    busy: "The judge of the tiny world sorts the answers into kinds.",
    build(el) {
      const set = table(el, { caption: "Kinds of answers", corner: "kind of answer", columns: ["chosen", "rejected", "score (nats)"], rows: KINDS.map((label) => ({ label })) });
      const about = h("p", { class: "dpo-name dpo-your-about" });
      el.append(about);
      return (seen) => {
        const { names, wins, scores, gap } = kindScores(seen?.kinds ?? []);
        KINDS.forEach((kind, row) => {
          const i = names.indexOf(kind);
          const cells = i < 0 ? ["–", "–", "–"] : [sum(wins[i]), sum(wins.map((lost) => lost[i])), fmt(scores[i], 2)];
          cells.forEach((cell, column) => set(row, column, String(cell)));
        });
        const same = seen?.kinds.filter(([a, b]) => a === b).length ?? 0;
        about.textContent = [
          "A score each: of kinds, since two answers to different prompts were never compared. Only differences count; the mean is 0.",
          same ? `Of these clicks, ${same} compare two answers of one kind and say nothing here.` : "",
          gap ? `No chain of clicks leads from ${quoted(gap[0])} to ${quoted(gap[1])}, so no finite scores fit best; these are with half a click added each way between every two kinds.` : "",
        ].filter(Boolean).join(" ");
      };
    },
    result({ kinds }) {
      const { names, scores } = kindScores(kinds);
      return { names, scores };
    },
    say: ({ names, scores, ...of }) =>
      names.length
        ? `From ${clicksOf(of)}: ${names.map((name, i) => `${name} ${fmt(scores[i], 2)}`).join(", ")}.`
        : `From ${clicksOf(of)}: each compares two answers of one kind, so there is nothing to fit.`,
  },
  loss: {
    action: "Compute the loss",
    busy: "The judge of the tiny world reads the answers.",
    build(el) {
      const rows = ["equal scores: log 2", "scores of kinds, fitted to these clicks", "the true reward"];
      const set = table(el, { caption: "Loss of the clicks", corner: "scores", columns: ["mean loss (nats)", "ranked as clicked"], rows: rows.map((label) => ({ label })) });
      return (seen) => {
        const found = seen && [seen.kinds.map(() => 0), margins(seen.kinds, fitted(seen.kinds)), margins(seen.rewards)].map(lossOf);
        rows.forEach((_, i) => {
          set(i, 0, found ? fmt(found[i].loss, 3) : "–");
          set(i, 1, found ? half(found[i].ranked) : "–");
        });
      };
    },
    result: ({ kinds, rewards }) => ({ fitted: lossOf(margins(kinds, fitted(kinds))).loss, truth: lossOf(margins(rewards)).loss }),
    say: ({ fitted, truth, ...of }) => `${sentence(clicksOf(of))}: mean loss ${fmt(fitted, 3)} with scores fitted to them, ${fmt(truth, 3)} with the true reward.`,
  },
  log_probs: {
    action: "Ask the model",
    busy: "The model is being brought into this page.",
    build: (el) => pairTable(el, "log π", (seen) => seen.sft),
    result: ({ sft }) => ({ agree: ranked(margins(sft)) }),
    say: ({ agree, ...of }) => `The SFT model ranks ${half(agree)} of ${clicksOf(of)} as they were clicked.`,
  },
  rewards: {
    action: "Compute rewards",
    busy: "The model is being brought into this page.",
    build: (el) => pairTable(el, "reward", rewardsOf),
    result(seen) {
      const rewards = rewardsOf(seen);
      const side = (i) => mean(rewards.map((both) => both[i]));
      return { agree: ranked(margins(rewards)), chosen: side(0), rejected: side(1), words: seen.words };
    },
    say: ({ agree, chosen, rejected, words, ...of }) =>
      `${sentence(words)}: mean reward ${fmt(chosen, 2)} chosen, ${fmt(rejected, 2)} rejected; ${half(agree)} of ${clicksOf(of)} ranked so.`,
  },
};

const sentence = (text) => text[0].toUpperCase() + text.slice(1);
const margins = (both, of = (value) => value) => both.map(([chosen, rejected]) => of(chosen) - of(rejected));
function fitted(kinds) {
  const { names, scores } = kindScores(kinds);
  return (kind) => scores[names.indexOf(kind)] ?? 0;
}
const rewardsOf = ({ sft, policy, beta }) => policy.map((both, i) => both.map((logp, side) => dpoReward(logp, sft[i][side], beta)));

// The clicks that the numbers are most against and most for, with the two numbers of each.
function pairTable(el, name, numbers) {
  const body = h("tbody");
  el.append(
    h(
      "table",
      { class: "dpo-answers" },
      h("caption", { class: "dpo-your-about dpo-name" }, `The ${SHOWN} clicks that ${name === "reward" ? "the reward" : name} is most against, and the ${SHOWN} it is most for`),
      h("thead", {}, h("tr", {}, ...["prompt", "chosen", "rejected"].map((column) => h("th", { scope: "col" }, column)))),
      body,
    ),
  );
  const number = (value) => h("span", { class: "dpo-name dpo-your-number" }, `${name} ${fmt(value, 2)}`);
  return (seen) => {
    const all = seen ? numbers(seen) : [];
    const order = [...all.keys()].sort((a, b) => all[a][0] - all[a][1] - (all[b][0] - all[b][1]));
    const ends = order.length > 2 * SHOWN ? [...order.slice(0, SHOWN), ...order.slice(-SHOWN)] : order;
    const lines = ends.map((i) => {
      const { prompt, chosen, rejected } = seen.rows[i];
      return h("tr", {}, h("th", { scope: "row" }, prompt), h("td", {}, chosen, number(all[i][0])), h("td", {}, rejected, number(all[i][1])));
    });
    const empty = () => h("tr", {}, h("th", { scope: "row" }, "–"), h("td", {}, "–"), h("td", {}, "–"));
    while (lines.length < 2 * SHOWN) lines.push(empty());
    body.replaceChildren(...lines);
  };
}

export function render({ model, el }) {
  const mode = MODES[model.get("mode")];
  const live = liveModel(model, () => {});
  let seen = null; // what the worker said, with the β and the words of the policy
  let busy = false;
  let sure = false; // Erase was pressed once
  const save = (values) => assign(model, values);

  async function look() {
    if (busy) return;
    busy = true;
    save({ note: mode.busy });
    try {
      const { rows } = kept();
      let now = null;
      if (model.get("mode") === "rewards") {
        if (!policy()) {
          save({ note: "No policy has been trained on this page yet: training one on these clicks." });
          await live.ask("begin", { ...RUN, clicks: rows });
          await live.ask("advance", { run: RUN.run, steps: UPDATES });
        }
        now = policy();
      }
      const found = await live.ask("clicks", { clicks: rows, policy: now?.weights });
      seen = { ...found, beta: now?.beta, words: now?.words };
      const { yours, unread } = found;
      const left = unread.length ? `${unread.length} of your rows are not in the model’s words: left out.` : "";
      save({ result: { n: found.rows.length, yours, left, ...mode.result(seen) }, note: "" });
    } catch (error) {
      if (error.message !== STOPPED) save({ note: error.message });
    }
    busy = false;
  }

  // --- the rows: to a file, from a file, away ---
  const saveFile = () => {
    const { rows } = kept();
    if (rows.length) download("preferences.jsonl", toJsonl(rows));
  };
  const input = h("input", { type: "file", accept: ".jsonl,.json,.txt", hidden: true });
  input.addEventListener("change", async () => {
    const [file] = input.files;
    if (!file) return;
    try {
      const rows = fromJsonl(await file.text());
      const full = change([], rows);
      save({ note: full || `${rows.length === 1 ? "1 row" : `${rows.length} rows`} read from ${file.name}, kept in this browser now.` });
    } catch (error) {
      save({ note: error.message });
    }
    input.value = "";
  });
  const remove = () => {
    const { rows } = kept();
    if (!rows.length) return;
    if (sure) {
      erase();
      save({ note: "Your rows are erased from this browser." });
    }
    sure = !sure;
    name();
  };
  const run = button(mode.action, look);
  const saveButton = button("Download JSONL", saveFile);
  const eraseButton = button("Erase", remove);
  eraseButton.addEventListener("blur", () => {
    sure = false;
    name();
  });
  const about = h("p", { class: "dpo-name dpo-your-whose" });
  el.append(about);
  const hold = h("div", { class: "dpo-your-table" });
  el.append(hold);
  const draw = mode.build(hold);
  el.append(h("div", { class: "dpo-actions" }, run, saveButton, button("Import", () => input.click()), eraseButton, input));
  draw(null);

  function name() {
    const { rows } = kept();
    eraseButton.textContent = sure ? `Erase all ${rows.length}?` : "Erase";
    for (const node of [saveButton, eraseButton]) node.setAttribute("aria-disabled", String(!rows.length));
  }
  // The rows have changed, or the policy: what was computed of them is of the past.
  function renew() {
    if (busy) return;
    seen = null;
    save({ own: kept().rows.length, result: null });
  }
  const stops = [onClicks(renew), onPolicy(() => model.get("mode") === "rewards" && renew())];

  return {
    update({ own, result }) {
      const { rows, note } = kept();
      if (own !== rows.length) save({ own: rows.length });
      if (!result && !busy) seen = null;
      draw(result ? seen : null);
      const whose = rows.length ? `Your rows in this browser: ${rows.length}.` : "You have no clicks yet; these are a stored annotator’s. Chapter 1 collects yours; Import takes its file from elsewhere.";
      about.textContent = [whose, note, result?.left].filter(Boolean).join(" ");
      name();
    },
    describe({ own, note, result }) {
      if (note) return note;
      if (result) return mode.say(result);
      const have = own ? `${own} of your clicks are here.` : "You have no clicks yet; a stored annotator’s stand in.";
      return `${have} Press ${mode.action}.`;
    },
    destroy() {
      live.end();
      for (const stop of stops) stop();
    },
  };
}
