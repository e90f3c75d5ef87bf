// Landing page: three clicks on the better answer, and a model trained on them in the page.

import { answers } from "../answers.js";
import { STOPPED, liveModel } from "../live_model.js";
import { assign, button, h } from "../ui.js";

const UPDATES = 60;
const SETTINGS = { loss: "dpo", labels: "clicks", beta: 1, rate: 3e-4, seed: 1 };

export function render({ model, el, spec }) {
  const { pairs, shown } = spec.data;
  let busy = false;
  let number = 0;
  const save = (values) => assign(model, values);
  const live = liveModel(model, ({ row, look }) => {
    if (row) bar.value = row.step;
    if (look) show(1, look);
  });

  // --- the clicks ---
  const groups = pairs.map(({ prompt, first, second }, i) => {
    const pick = (choice) => () => {
      const picks = [...model.get("picks")];
      picks[i] = choice;
      if (!busy) save({ picks, note: "" });
    };
    const cards = [["first", first], ["second", second]].map(([choice, text]) =>
      h("button", { type: "button", class: "dpo-choice", "aria-pressed": "false", onclick: pick(choice) }, text),
    );
    el.append(
      h(
        "div",
        { class: "dpo-clicks", role: "group", "aria-label": `Two answers to: ${prompt}` },
        h("p", { class: "dpo-clicks-prompt" }, prompt),
        ...cards,
      ),
    );
    return cards;
  });

  // --- training ---
  const train = button("Train", async () => {
    const picks = model.get("picks");
    if (busy || picks.includes("")) return;
    busy = true;
    enable();
    save({ note: "Training on your clicks …" });
    try {
      const clicks = pairs.map(({ prompt, ...texts }, i) => {
        const other = picks[i] === "first" ? "second" : "first";
        return { prompt, chosen: texts[picks[i]], rejected: texts[other] };
      });
      const run = `clicks ${++number}`;
      const { look } = await live.ask("begin", { ...SETTINGS, run, clicks, shown });
      show(0, look);
      show(1, look);
      await live.ask("advance", { run, steps: UPDATES });
      save({ note: "Trained, here in this page. Change a click and train again: the model learns what you prefer, right or wrong." });
    } catch (error) {
      if (error.message !== STOPPED) save({ note: error.message });
    }
    busy = false;
    enable();
  });
  const bar = h("progress", { class: "dpo-clicks-bar", max: UPDATES, value: 0, "aria-label": "Updates made" });
  el.append(h("div", { class: "dpo-actions dpo-clicks-train" }, train, bar));
  const set = answers(el, shown);
  const show = (column, look) => shown.forEach((_, i) => set(i, column, look?.answers[i]));
  const enable = () => train.setAttribute("aria-disabled", String(busy || model.get("picks").includes("")));

  return {
    update({ picks, note }) {
      groups.forEach((cards, i) => {
        cards.forEach((card, c) => card.setAttribute("aria-pressed", String(picks[i] === ["first", "second"][c])));
      });
      if (!note && !picks.some(Boolean)) {
        live.end(); // reset
        busy = false;
        bar.value = 0;
        show(0, null);
        show(1, null);
      }
      enable();
    },
    describe({ picks, note }) {
      if (note) return note;
      const left = picks.filter((pick) => !pick).length;
      if (left) return `${left} of ${pairs.length} answers to choose. Either answer may be yours.`;
      return "Press Train: a small language model learns from your clicks, in this page.";
    },
    destroy: () => live.end(),
  };
}
