// Chapters 4, 5 and 10: log π of every token of a response, and what the next update does to it.

import { liveModel, onPolicy, policy } from "../live_model.js";
import { sum } from "../math.js";
import { assign, button, fmt, h } from "../ui.js";

const TEXTS = ["prompt", "chosen", "rejected"];
const TOKEN = /<\w+>|[A-D]\)|[A-Za-z]+(?:'[a-z]+)?|\d+|\S/g; // as the tokenizer reads
const NAMES = { base: "base", sft: "SFT", policy: "policy" };
const UNDER = [["sft"], ["base", "sft"], ["base", "sft", "policy"]];
const REST = 250; // ms after a key before the model is asked
const OFFERED = 8;

// The words of a text that are not in the vocabulary, each once.
export const unknown = (text, words) => [...new Set(text.match(TOKEN) ?? [])].filter((word) => !words.includes(word));

// Words that complete the last one of a text; none where it is a word already or nothing is begun.
export function completions(text, words) {
  const begun = text.match(/[A-Za-z']+$/)?.[0];
  if (!begun || words.includes(begun)) return [];
  return words.filter((word) => word.toLowerCase().startsWith(begun.toLowerCase())).slice(0, OFFERED);
}

const signed = (value) => fmt(value, 3).replace(/^(?!−|0\.000$)/, "+");
const LEAST = 5e-4; // nats: a smaller change is shown as 0.000, and counts as none
const startOf = (logps) => ("policy" in logps ? "policy" : "sft");
const changesOf = (logps) => logps.after.map((side, i) => side.map((after, t) => after - logps[startOf(logps)][i][t]));

export function render({ model, el, spec }) {
  const { words } = spec.data;
  const live = liveModel(model, () => {});
  const choice = (state, name) => spec.controls.find((control) => control.name === name).options[state[name]];
  const keyOf = (state) => [...TEXTS.map((name) => state[name]), choice(state, "beta"), choice(state, "rate")].join("|");
  let state = null;
  let busy = false;
  let rest = 0;
  let failed = ""; // texts and choices that ended in an error: not asked again

  // --- what the reader writes ---
  let last = "chosen"; // the field that words are offered for
  const inputs = {};
  const fields = TEXTS.map((name) => {
    const label = document.createTextNode("");
    const input = h("input", {
      type: "text", class: "dpo-token-text", spellcheck: "false", autocapitalize: "off", autocomplete: "off",
      onfocus: () => offer((last = name)),
      oninput: () => write(name, input.value),
    });
    input.addEventListener("keydown", (event) => event.stopPropagation()); // the page has keys of its own
    inputs[name] = { input, label, field: h("label", {}, label, input) };
    return inputs[name].field;
  });
  const offered = h("div", { class: "dpo-token-words", role: "group", "aria-label": "Words that the tiny world knows" });
  el.append(h("div", { class: "dpo-token-fields" }, ...fields), offered);
  function write(name, text) {
    assign(model, { [name]: text, note: wrong({ ...state, [name]: text }) });
    offer(name);
  }
  function offer(name) {
    const { input } = inputs[name];
    const take = (word) => {
      input.value = `${input.value.replace(/[A-Za-z']+$/, "")}${word} `;
      write(name, input.value);
      input.focus();
    };
    const found = completions(input.value, words).map((word) => button(word, () => take(word)));
    offered.replaceChildren(...(found.length ? found : ["Begin a word and the tiny world’s words appear here."]));
  }
  // What keeps the texts from being scored, in a sentence; else nothing.
  function wrong(texts) {
    if (!texts.prompt.trim()) return "The prompt is empty: the first token needs something to follow.";
    const strange = [...new Set(TEXTS.flatMap((name) => unknown(texts[name], words)))];
    if (!strange.length) return "";
    const named = strange.slice(0, 3).map((word) => `“${word}”`).join(", ");
    return `Not among this model’s ${words.length} words and marks: ${named}${strange.length > 3 ? ", …" : ""}.`;
  }

  // --- what the model says ---
  const modelsOf = ({ under, show }) => {
    const wanted = new Set([...UNDER[under], ...(show === 2 ? ["sft", "policy"] : [])]);
    return Object.keys(NAMES).filter((name) => wanted.has(name) && (name !== "policy" || policy()));
  };
  function fresh() {
    const { result } = state;
    const needed = modelsOf(state);
    return (
      result.key === keyOf(state) &&
      needed.every((name) => name in result.logps) &&
      (!needed.includes("policy") || result.policy === policy().number)
    );
  }
  async function ask() {
    if (busy) return;
    busy = true;
    const key = keyOf(state);
    const models = ["sft", ...modelsOf(state).filter((name) => name !== "sft")];
    const now = models.includes("policy") ? policy() : null;
    try {
      if (models.includes("base")) await live.base();
      const update = { beta: Number(choice(state, "beta")), rate: Number(choice(state, "rate")) };
      const values = { prompt: state.prompt, responses: [state.chosen, state.rejected], models, policy: now?.weights, update };
      const answer = await live.ask("tokens", values);
      assign(model, { result: { ...answer, key, policy: now?.number ?? 0 }, note: "" });
    } catch (error) {
      failed = key;
      assign(model, { note: `${error.message[0].toUpperCase()}${error.message.slice(1)}.`.replace("..", ".") });
    }
    busy = false;
  }
  async function train() {
    if (busy) return;
    busy = true;
    assign(model, { note: "A policy is being trained in this page." });
    try {
      await live.ask("begin", { run: "stored clicks", loss: "dpo", labels: "clicks", clicks: [], beta: 1, rate: 2e-4, seed: 1, shown: [] });
      await live.ask("advance", { run: "stored clicks", steps: 40 });
      assign(model, { note: "" });
    } catch (error) {
      assign(model, { note: error.message });
    }
    busy = false;
    look();
  }

  // --- the tables: numbers with a bar each, so that the drawing is its own text ---
  const tables = h("div", { class: "dpo-token-tables" });
  const said = document.createTextNode("");
  const trainButton = button("Train one here", train);
  const about = h("p", { class: "dpo-name dpo-token-about" }, said);
  el.append(tables, about, h("div", { class: "dpo-actions" }, trainButton));
  const bar = (share, color, left = 0) =>
    h("span", { "aria-hidden": "true", class: `dpo-token-bar dpo-back-${color}`, style: `width: ${100 * share}%; margin-left: ${100 * left}%` });
  const number = (text, ...bars) => h("td", { class: "dpo-token-number" }, text, ...bars);
  const row = (head, cells, attributes = {}) => h("tr", attributes, h("th", { scope: "row" }, head), ...cells);
  const tableOf = (caption, columns, rows, shown = false) =>
    h(
      "table", { class: "dpo-tokens" },
      h("caption", { class: shown ? "dpo-token-side" : "dpo-hidden" }, caption),
      h("thead", {}, h("tr", {}, ...columns.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, ...rows),
    );
  const colors = { base: "muted", sft: "reference", policy: "policy" };

  function draw() {
    const { prompt, tokens, logps } = state.result;
    const models = UNDER[state.under];
    const deepest = Math.max(1, ...models.flatMap((name) => logps[name]?.[0] ?? []).map((logp) => -logp));
    const cell = (name, t) => {
      const logp = logps[name]?.[0][t];
      return logp === undefined ? number("–") : number(fmt(logp, 3), bar(-logp / deepest, colors[name]));
    };
    const total = (name) => number(logps[name] ? fmt(sum(logps[name][0]), 3) : "–");
    const heads = models.map((name) => NAMES[name]);
    if (state.show === 0) {
      const rows = tokens[0].map((token, t) => row(token, models.map((name) => cell(name, t))));
      rows.push(row("log π", models.map(total), { class: "dpo-token-sum" }));
      return [tableOf("Log-probability of every token of the response, in nats", ["token", ...heads], rows)];
    }
    if (state.show === 1) {
      const name = models.findLast((one) => one in logps);
      const all = [...prompt, ...tokens[0]];
      const rows = all.map((token, i) => {
        const t = i + 1 - prompt.length; // of the response's token that these logits score
        const next = all[i + 1];
        const scores = t < 0 ? `${next} (prompt, not counted)` : next ?? "nothing: it is over";
        const logp = t < 0 || !next ? number("–") : cell(name, t);
        return row(String(i + 1), [h("td", {}, token), h("td", {}, scores), logp], { class: t < 0 || !next ? "dpo-token-off" : "" });
      });
      return [tableOf("Which logits score which token; log-probabilities in nats", ["place", "reads", "its logits score", `log π, ${NAMES[name]}`], rows)];
    }
    const changes = changesOf(logps);
    const widest = Math.max(0.01, ...changes.flat().map(Math.abs));
    const now = logps[startOf(logps)];
    return ["chosen", "rejected"].map((side, i) => {
      const change = (value, share) => number(signed(value), bar(share / 2, value < 0 ? "rejected" : "chosen", value < 0 ? 0.5 - share / 2 : 0.5));
      const rows = tokens[i].map((token, t) =>
        row(token, [number(fmt(now[i][t], 3)), number(fmt(logps.after[i][t], 3)), change(changes[i][t], Math.abs(changes[i][t]) / widest)]),
      );
      const sums = [fmt(sum(now[i]), 3), fmt(sum(logps.after[i]), 3), signed(sum(changes[i]))];
      rows.push(row("log π", sums.map((text) => number(text)), { class: "dpo-token-sum" }));
      return tableOf(`${side}: log π of every token, in nats`, ["token", "now", "after", "change"], rows, true);
    });
  }
  function look() {
    if (!state) return;
    for (const name of TEXTS) {
      const { input, label } = inputs[name];
      if (input.value !== state[name]) input.value = state[name];
      label.data = { prompt: "Prompt", chosen: state.show === 2 ? "Chosen response" : "Response", rejected: "Rejected response" }[name];
    }
    inputs.rejected.field.hidden = state.show !== 2;
    const wanted = state.show === 2 || state.under === 2;
    trainButton.hidden = about.hidden = !wanted;
    const start = state.show === 2 ? " Until then the update starts from the SFT model." : "";
    said.data = policy()
      ? `The policy: trained last on this page with ${policy().words}.`
      : `No policy has been trained on this page yet.${start} The button makes one: 40 updates of DPO on a stored annotator’s clicks.`;
    clearTimeout(rest);
    if (!fresh() && !wrong(state) && failed !== keyOf(state)) rest = setTimeout(ask, REST);
    if (keyOf(state) === state.result.key) tables.replaceChildren(...draw());
    tables.classList.toggle("dpo-token-old", keyOf(state) !== state.result.key);
  }
  const stop = onPolicy(look);
  offer(last);

  return {
    update(next) {
      state = next;
      look();
    },
    describe({ note, result: { prompt, tokens, logps }, show, under }) {
      if (note) return note;
      if (show === 0) {
        const name = under === 2 && logps.policy ? "policy" : "sft";
        const terms = logps[name][0];
        const dearest = terms.indexOf(Math.min(...terms));
        return (
          `Under ${{ sft: "SFT", policy: "the policy" }[name]} the ${terms.length} terms add up to log π = ${fmt(sum(terms), 3)} ` +
          `nats. Most comes from “${tokens[0][dearest]}”: ${fmt(terms[dearest], 3)}.`
        );
      }
      if (show === 1) {
        const [first, end] = [prompt.length, prompt.length + tokens[0].length - 1];
        return `The response is scored by the logits at places ${first} to ${end}: one place before each of its ${tokens[0].length} tokens.`;
      }
      const parts = changesOf(logps).map((change, i) => {
        const count = (sign) => change.filter((value) => sign * value >= LEAST).length;
        return `${["chosen", "rejected"][i]} ${signed(sum(change))} (tokens: ${count(1)} up, ${count(-1)} down)`;
      });
      return `One update of ${{ sft: "the SFT model", policy: "the policy" }[startOf(logps)]} would move log π: ${parts.join(", ")}.`;
    },
    destroy() {
      stop();
      clearTimeout(rest);
      live.end();
    },
  };
}
