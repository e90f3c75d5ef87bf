// The page of `python -m dpo_lib label`: a pair, a choice, which the program on this machine keeps.

import { KEYS, TOO_FAST, enable, onKeys, pairParts } from "./judging.js";
import { button, fmt, h, readout } from "./ui.js";

// Seconds for which the page was seen since the last call of start().
function stopwatch() {
  let since = performance.now();
  let before = 0;
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) before += performance.now() - since;
    since = performance.now();
  });
  return {
    start() {
      since = performance.now();
      before = 0;
    },
    ms: () => before + (document.hidden ? 0 : performance.now() - since),
  };
}

export function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => {
    document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
  };
  theme();
  dark.addEventListener("change", theme);

  const main = document.querySelector("main");
  const watch = stopwatch();
  let state = null; // what the program said last
  let busy = false; // while it has not answered

  async function send(name, values) {
    if (busy) return;
    setBusy(true);
    try {
      const answer = await fetch(name, {
        method: values ? "POST" : "GET",
        headers: values ? { "Content-Type": "application/json" } : {},
        body: values && JSON.stringify(values),
      });
      if (answer.ok) show(await answer.json());
      else if (answer.status === 409) show(await answer.json(), "Another window was faster: this is where it stands.");
      else fail(await answer.text());
    } catch {
      fail(`${values ? "This was not kept: the" : "The"} program no longer answers. Start the same command again; it goes on where you stopped.`);
    } finally {
      setBusy(false);
    }
  }
  const setBusy = (on) => {
    busy = on;
    main.setAttribute("aria-busy", String(on));
  };
  const fail = (text) => {
    alert.textContent = text;
  };
  const judge = (choice) => {
    const waited = watch.ms();
    if (!state?.pair || waited < TOO_FAST) return;
    send("judge", { event: state.event, choice, seconds: Math.round(waited / 100) / 10 });
  };
  const undo = () => {
    if (state?.seen) send("undo", { event: state.event });
  };

  const alert = h("p", { class: "dpo-label-alert dpo-text-rejected", role: "alert" });
  const status = h("p", { class: "dpo-hidden", role: "status" });
  const { counter, bar, progress, prompt, cards, cardBox } = pairParts(judge);
  const cut = cards.map(({ card, text }) => {
    text.dir = "auto";
    const note = h("span", { class: "dpo-name" });
    card.append(note);
    return note;
  });
  prompt.dir = "auto";
  const pairBox = h("div", { role: "group", "aria-label": "The pair to judge", tabindex: -1 }, prompt, cardBox);
  const endBox = h("div", { class: "dpo-label-end", role: "group", "aria-label": "What came of it", tabindex: -1, hidden: true });
  const tieButton = button("Tie", () => judge("tie"));
  const skipButton = button("Skip", () => judge("skip"));
  const undoButton = button("Undo", undo);
  const tiles = h("div", {});
  main.append(
    h("h1", { class: "dpo-title" }, "Which response is better?"),
    progress,
    alert,
    pairBox,
    endBox,
    h("div", { class: "dpo-actions" }, tieButton, skipButton, undoButton),
    h("p", { class: "dpo-name dpo-ann-keys" }, "Keys: 1 or ← first response, 2 or → second, T tie, S skip, U undo. Every judgment is kept at once, on this machine only."),
    tiles,
    status,
  );
  const set = readout(tiles, [
    { key: "rows", label: "preferences" },
    { key: "ties", label: "ties" },
    { key: "skipped", label: "skipped" },
    { key: "left", label: "left" },
    { key: "median", label: "half took at most" },
  ]);
  onKeys(document, { ...KEYS, t: "tie" }, (action) => (action === "undo" ? undo() : judge(action)));

  function show(next, said = "") {
    const ended = state && !state.pair;
    state = next;
    const { pair, seen, left } = state;
    fail(state.trouble || said);
    bar.max = seen + left;
    bar.value = seen;
    counter.textContent = pair ? `Pair ${seen + 1} of ${seen + left}` : `${seen} of ${seen}`;
    pairBox.hidden = !pair;
    endBox.hidden = Boolean(pair);
    for (const node of [tieButton, skipButton]) enable(node, pair);
    enable(undoButton, seen > 0);
    set("rows", String(state.rows));
    set("ties", String(state.ties));
    set("skipped", String(state.skipped));
    set("left", String(left));
    set("median", state.median == null ? "–" : `${fmt(state.median, 1)} s`);
    if (pair) {
      prompt.textContent = pair.prompt;
      [pair.first, pair.second].forEach(({ text, ended }, i) => {
        cards[i].text.textContent = text;
        cut[i].textContent = ended ? "" : "Cut off: it did not end.";
      });
      status.textContent = `${counter.textContent}. ${pair.prompt}`;
      scrollTo(0, 0);
      if (ended) pairBox.focus({ preventScroll: true });
    } else {
      endBox.replaceChildren(
        h("p", {}, h("strong", {}, "That was the last pair.")),
        ...state.summary.map((sentence) => h("p", {}, sentence)),
        ...(state.next ? [h("p", {}, `${state.out} holds your ${state.rows} preferences. End the program with Ctrl-C in its terminal, then train:`), h("pre", { tabindex: 0, "aria-label": "The next command" }, h("code", {}, state.next))] : []),
      );
      status.textContent = "That was the last pair.";
      endBox.focus({ preventScroll: true });
    }
    watch.start();
  }

  send("state");
}
