// What the reader has done in this browser, chapter by chapter, beside what there is. It can be saved as a
// file, read back, erased and printed.

import { allBets, betOf, eraseBets, keepBets } from "../bets.js";
import { change, clickOf, erase as eraseClicks, kept as keptClicks, pairOf, whose } from "../clicks.js";
import { done, eraseDone, keepDone, today } from "../progress.js";
import { onKept, plain, read, write } from "../storage.js";
import { assign, button, download, h, readout, rich } from "../ui.js";
import { compare, isBet } from "./bet.js";

const FIRST = "All of this stays in this browser. Nothing is sent anywhere.";
const KIND = "dpo-book";
const VERSION = 1;
const HEAD = ["kind", "version", "day"];
const DAY = /^\d{4}-\d\d-\d\d$/;
const DONE = /^(exercise|quiz) [\w.-]+$/;
const BET = /^[a-z][a-z0-9-]*$/;
const PROBE = "dpo-book-probe";

// --- the file ---

export const toFile = (kept) => JSON.stringify({ kind: KIND, version: VERSION, day: today(), ...kept }, null, 1);

const sound = {
  done: (name, day) => (DONE.test(name) && typeof day === "string" && DAY.test(day) ? day : null),
  bets: (name, entry) => (BET.test(name) ? betOf(entry) : null),
};

// What of a file is new here: { fresh: { done, bets, clicks }, added, present, unsound }. Throws what is wrong
// with it.
export function fromFile(text, here) {
  let file = null;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This is no JSON, so nothing was read.");
  }
  if (!plain(file) || file.kind !== KIND) throw new Error("This is no file that this page saved, so nothing was read.");
  const version = Number.isInteger(file.version) ? file.version : "unknown";
  if (version !== VERSION) throw new Error(`This file has version ${version}, not ${VERSION}, so nothing was read.`);
  const fresh = {};
  let [added, present, unsound] = [0, 0, 0];
  for (const [part, found] of Object.entries(file)) {
    if (!HEAD.includes(part) && part !== "clicks" && !(Object.hasOwn(sound, part) && plain(found))) unsound++;
  }
  for (const [part, taken] of Object.entries(sound)) {
    fresh[part] = {};
    for (const [name, found] of Object.entries(plain(file[part]) ? file[part] : {})) {
      const entry = taken(name, found);
      if (entry === null) unsound++;
      else if (Object.hasOwn(here[part], name)) present++;
      else {
        fresh[part][name] = entry;
        added++;
      }
    }
  }
  const pairs = new Set(here.clicks.map(pairOf));
  fresh.clicks = [];
  for (const row of [file.clicks ?? []].flat()) {
    const click = clickOf(row);
    if (!click) unsound++;
    else if (pairs.has(pairOf(click))) present++;
    else {
      pairs.add(pairOf(click));
      fresh.clicks.push(click);
      added++;
    }
  }
  return { fresh, added, present, unsound };
}

// --- the page ---

// Whether this browser keeps anything for this page.
function works() {
  write(PROBE, 1);
  const kept = read(PROBE) === 1;
  write(PROBE, null);
  return kept;
}

function whereWords(live) {
  if (!works()) return "This browser keeps nothing for this page, so it is all forgotten when the page is closed.";
  if (live) return `Kept by this browser for JupyterLab at ${location.origin}. The built book keeps its own: Export here and Import there take it along.`;
  if (location.protocol === "file:") return "Kept by this browser for pages that are opened from this computer’s disk.";
  return `Kept by this browser for ${location.origin}.`;
}

const listed = (value) => [value].flat().join(", ");
const link = (href, ...words) => (href ? h("a", { href }, ...words) : h("span", {}, ...words));

export function render({ model, el, spec }) {
  const { chapters } = spec.data;
  const live = el.closest(".dpo-live") !== null;
  const known = new Set();
  const root = h("div", { class: "dpo-done" });
  el.append(root);
  const tile = readout(root, [
    { key: "exercise", label: "exercises" },
    { key: "quiz", label: "quiz questions" },
    { key: "bets", label: "bets" },
    { key: "right", label: "choices that were right" },
    { key: "clicks", label: "clicks" },
  ]);
  root.append(h("p", { class: "dpo-name" }, whereWords(live)));
  const say = (note) => assign(model, { note });

  function tick(key, on) {
    const { [key]: _, ...others } = done();
    keepDone(on ? { ...others, [key]: today() } : others);
  }

  // Each part of a chapter is built once and returns refresh(kept, bets): { part: [done, of] }.
  function exerciseRow({ key, title, minutes, href }) {
    const name = `exercise ${key}`;
    known.add(name);
    const input = h("input", { type: "checkbox", "aria-label": `Done: ${title}` });
    input.addEventListener("change", () => tick(name, input.checked));
    const day = h("span", { class: "dpo-name" });
    const time = minutes ? h("span", { class: "dpo-name" }, ` ${minutes} min `) : " ";
    return {
      node: h("li", {}, input, " ", link(href, title), time, day),
      refresh(kept) {
        input.checked = Object.hasOwn(kept, name);
        day.textContent = input.checked ? `done on ${kept[name]}` : "";
        return { exercise: [Number(input.checked), 1] };
      },
    };
  }
  function quizRow({ chapter, questions, href }) {
    const names = Array.from({ length: questions }, (_, i) => `quiz ${chapter}.${i + 1}`);
    for (const name of names) known.add(name);
    const count = document.createTextNode("");
    return {
      node: h("li", {}, link(href, "Quiz"), count),
      refresh(kept) {
        const given = names.filter((name) => Object.hasOwn(kept, name)).length;
        count.data = `: ${given} of ${questions} questions answered`;
        return { quiz: [given, questions] };
      },
    };
  }
  function betRow({ name, title, href, ...data }) {
    known.add(`bet ${name}`);
    const words = h("span", {});
    return {
      node: h("li", {}, "Bet: ", link(href, ...rich(title)), " ", words),
      refresh(_, bets) {
        if (!Object.hasOwn(bets, name)) {
          words.textContent = "Not placed yet.";
          return { bets: [0, 1] };
        }
        const { bet } = bets[name];
        const readable = isBet[data.form](bet, data);
        words.textContent = readable ? compare[data.form](data, bet) : "Placed, on other terms than today’s.";
        if (!readable || data.form !== "choice") return { bets: [1, 1] };
        return { bets: [1, 1], right: [bet.filter((option, i) => option === data.truth[i]).length, bet.length] };
      },
    };
  }

  function clicksRow({ href }) {
    const words = document.createTextNode("");
    return {
      node: h("li", {}, link(href, "Clicks"), words),
      refresh(_, __, { rows, note }) {
        words.data = `: ${whose(rows) || "none yet"}. ${note}`;
        return {};
      },
    };
  }

  const parts = chapters.map(({ name, title = "", exercises = [], quiz = null, bets = [], clicks = null }) => {
    const rows = [...exercises.map(exerciseRow), ...bets.map(betRow), ...[quiz].filter(Boolean).map(quizRow), ...[clicks].filter(Boolean).map(clicksRow)];
    const count = h("span", { class: "dpo-name" });
    const summary = h("summary", {}, h("b", {}, name), title && `: ${title}`, " ", count);
    root.append(h("details", {}, summary, h("ul", {}, ...rows.map(({ node }) => node))));
    return { rows, count };
  });
  const others = h("ul", {});
  const beside = h("div", {}, h("p", { class: "dpo-name" }, "Kept too, though not in this list:"), others);
  root.append(beside);

  function refresh() {
    const kept = done();
    const bets = allBets();
    const clicks = keptClicks();
    const nothing = () => ({ exercise: [0, 0], quiz: [0, 0], bets: [0, 0], right: [0, 0] });
    const total = nothing();
    for (const { rows, count } of parts) {
      const sums = nothing();
      for (const row of rows) {
        for (const [part, [given, of]] of Object.entries(row.refresh(kept, bets, clicks))) {
          for (const sum of [sums, total]) sum[part] = [sum[part][0] + given, sum[part][1] + of];
        }
      }
      const said = { exercise: "exercises", quiz: "questions", bets: "bets" };
      count.textContent = Object.entries(said)
        .filter(([part]) => sums[part][1])
        .map(([part, words]) => `${sums[part].join("/")} ${words}`)
        .join(", ");
    }
    for (const [part, pair] of Object.entries(total)) tile(part, pair.join(" of "));
    tile("clicks", String(clicks.rows.length));
    const unknown = Object.entries(kept).map(([name, day]) => [name, `${name}, done on ${day}`]);
    for (const [name, { title, bet, truth }] of Object.entries(bets)) {
      unknown.push([`bet ${name}`, `${title} You said ${listed(bet)}; ${truth === null ? "a later chapter knows" : `it is ${listed(truth)}`}.`]);
    }
    const told = unknown.filter(([name]) => !known.has(name));
    others.replaceChildren(...told.map(([, words]) => h("li", {}, ...rich(words))));
    beside.hidden = !told.length;
  }

  // --- export, import, print, erase ---

  const everything = () => ({ done: done(), bets: allBets(), clicks: keptClicks().rows });
  const file = h("input", { type: "file", accept: ".json,application/json", hidden: true });
  file.addEventListener("change", async () => {
    if (!file.files.length) return;
    try {
      const here = everything();
      const { fresh, added, present, unsound } = fromFile(await file.files[0].text(), here);
      const kept = [keepDone({ ...here.done, ...fresh.done }), keepBets({ ...here.bets, ...fresh.bets }), !change([], fresh.clicks)];
      const lost = kept.every(Boolean) ? "" : " This browser does not keep all of it.";
      const left = unsound ? ` ${unsound} could not be read and were left out.` : "";
      say(`Added: ${added}. Here already, and left as they were: ${present}.${left}${lost}`);
    } catch (error) {
      say(error.message);
    }
    file.value = "";
  });
  const yes = button("Yes, erase it all", () => {
    eraseDone();
    eraseBets();
    eraseClicks();
    assign(model, { asked: false, note: "Erased: exercises, quizzes, bets and clicks." });
    erase.focus();
  });
  const no = button("No, keep it", () => {
    assign(model, { asked: false, note: "" });
    erase.focus();
  });
  const erase = button("Erase all", () => {
    assign(model, { asked: true });
    question.hidden = false;
    no.focus();
  });
  const question = h("div", { class: "dpo-actions", role: "group", "aria-label": "Erase everything?", hidden: true }, h("span", {}, "Erase everything here: exercises, quizzes, bets and clicks?"), no, yes);
  question.addEventListener("keydown", (event) => {
    if (event.key === "Escape") no.click();
  });
  root.append(
    h(
      "div",
      { class: "dpo-actions" },
      button("Export", () => {
        download(`dpo-book-${today()}.json`, toFile(everything()), "application/json");
        say("Saved as a file, in the folder of your downloads.");
      }),
      button("Import", () => file.click()),
      ...(live ? [] : [button("Print", () => window.print())]),
      erase,
      file,
    ),
    question,
  );

  // On paper every chapter is open.
  let closed = [];
  const open = () => {
    closed = [...root.querySelectorAll("details:not([open])")];
    for (const node of closed) node.open = true;
  };
  const close = () => closed.forEach((node) => (node.open = false));
  addEventListener("beforeprint", open);
  addEventListener("afterprint", close);
  const deaf = onKept(refresh);
  refresh();

  return {
    update({ asked }) {
      question.hidden = !asked;
    },
    describe: ({ note }) => note || FIRST,
    destroy() {
      removeEventListener("beforeprint", open);
      removeEventListener("afterprint", close);
      deaf();
    },
  };
}
