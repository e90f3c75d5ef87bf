// Two responses to choose between: how far one is, the prompt, the cards and the keys.

import { h } from "./ui.js";

export const TOO_FAST = 250; // ms; nobody reads that fast: a double click or a key held down

export const KEYS = { 1: "first", ArrowLeft: "first", 2: "second", ArrowRight: "second", s: "skip", u: "undo" };

// Calls act("first") and the like for the keys; those of the browser and of a key held down are left
// alone. Returns what ends that.
export function onKeys(target, keys, act) {
  const onKey = (event) => {
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) act(action);
  };
  target.addEventListener("keydown", onKey);
  return () => target.removeEventListener("keydown", onKey);
}

// judge: called with the choice. The room of a card holds an unseen text, for whose sake the card is as high.
export function pairParts(judge) {
  const counter = h("span", { class: "dpo-name" });
  const bar = h("progress", { class: "dpo-ann-bar", "aria-label": "Pairs seen" });
  const prompt = h("p", { class: "dpo-ann-prompt" });
  const cards = ["first", "second"].map((choice, i) => {
    const text = h("span", {});
    const room = h("span", { class: "dpo-ann-off", "aria-hidden": "true" });
    const card = h(
      "button",
      { type: "button", class: "dpo-choice dpo-ann-card", onclick: () => judge(choice) },
      h("span", { class: "dpo-name" }, `Response ${i + 1}`),
      " ",
      h("span", { class: "dpo-ann-text" }, text, room),
    );
    return { card, text, room };
  });
  return {
    counter,
    bar,
    progress: h("div", { class: "dpo-ann-progress" }, counter, bar),
    prompt,
    cards,
    cardBox: h("div", { class: "dpo-ann-cards" }, ...cards.map(({ card }) => card)),
  };
}

// A button that cannot be used keeps its place among those that Tab reaches.
export const enable = (node, on) => node.setAttribute("aria-disabled", String(!on));
export const show = (node, on) => node.classList.toggle("dpo-ann-off", !on);
