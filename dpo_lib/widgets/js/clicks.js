// The reader's clicks, kept in this browser for all pages: rows { prompt, chosen, rejected, seconds?, from },
// at most one for a pair of answers. `from` is one of FROM.

import { erase as eraseKey, onKept, plain, read, setAside, textOf, write } from "./storage.js";

const KEY = "dpo-book-clicks";
const VERSION = 1;
const CHANGED = "dpo-clicks"; // the event on this page, also where nothing is kept
const LONGEST = 2000; // characters of a text
const MOST = 5000; // rows
const FROM = ["annotator", "fresh", "file"]; // chapter 1's pairs, pairs drawn anew there, a file
const FULL = "This browser keeps nothing here: your rows last until the page is closed. Download them to keep them.";
const FOREIGN = "What this browser keeps in the place of your rows cannot be read: it is left out.";

let memory = null; // the rows, where the browser keeps none

const isText = (value) => typeof value === "string" && value.trim() !== "" && value.length <= LONGEST;

// What is wrong with a row, in words; else nothing.
function wrongWith(row) {
  if (!plain(row)) return "it is not an object";
  const missing = ["prompt", "chosen", "rejected"].find((name) => !isText(row[name]));
  if (missing) return `${missing} must be a text of 1 to ${LONGEST} characters`;
  if (row.chosen === row.rejected) return "chosen and rejected are the same";
  const { seconds } = row;
  if (seconds != null && !(Number.isFinite(seconds) && seconds >= 0)) return "seconds must be a number, 0 or more";
  return "";
}

const clean = ({ prompt, chosen, rejected, seconds }, from) =>
  seconds == null ? { prompt, chosen, rejected, from } : { prompt, chosen, rejected, seconds, from };

// The same for two rows on one pair of answers, whichever was chosen.
export const pairOf = ({ prompt, chosen, rejected }) => JSON.stringify([prompt, ...[chosen, rejected].sort()]);

// All rows that are kept, and a sentence on what cannot be used, or on a browser that keeps nothing.
export function kept() {
  if (memory) return { rows: memory, note: FULL };
  const stored = read(KEY);
  if (stored === null) return { rows: [], note: "" };
  let all = plain(stored) && stored.version === VERSION ? stored.rows : null;
  // Before there was a version, a bare list of chapter 1's rows.
  if (Array.isArray(stored)) all = stored.map((row) => (plain(row) ? { ...row, from: FROM[0] } : row));
  if (!Array.isArray(all)) return { rows: [], note: FOREIGN };
  const rows = all.filter((row) => !wrongWith(row) && FROM.includes(row.from)).map((row) => clean(row, row.from));
  const left = all.length - rows.length;
  return { rows, note: left ? `${left} of the ${all.length} rows kept here cannot be read: left out.` : "" };
}

function store(rows) {
  const free = memory || !kept().note || setAside(KEY);
  memory = free && write(KEY, rows.length ? { version: VERSION, rows } : null) ? null : rows;
  window.dispatchEvent(new Event(CHANGED));
  return memory ? FULL : "";
}

// Takes rows away, then adds others, each in the place of an earlier one on its pair. Returns a sentence
// where this browser keeps nothing.
export function change(gone, come) {
  const touched = new Set([...gone, ...come].map(pairOf));
  return store([...kept().rows.filter((row) => !touched.has(pairOf(row))), ...come]);
}

export function erase() {
  eraseKey(KEY);
  return store([]);
}

// Calls back when the rows have changed, here or on another page; returns what ends that.
export function onClicks(callback) {
  let seen = textOf(KEY);
  const look = ({ type }) => {
    const text = textOf(KEY);
    if (type !== CHANGED && text === seen) return;
    seen = text;
    callback();
  };
  return onKept(look, CHANGED);
}

// How many and whose: "12 of yours, 5 from a file".
export function whose(rows) {
  const file = rows.filter(({ from }) => from === "file").length;
  const parts = [`${rows.length - file} of yours`, `${file} from a file`];
  return parts.filter((part) => !part.startsWith("0 ")).join(", ");
}

// A row of another file as it is kept, or null.
export const clickOf = (row) => (wrongWith(row) ? null : clean(row, FROM.includes(row.from) ? row.from : "file"));

// Rows of a JSONL text; throws one sentence that names the line. Nothing is taken of a file with a fault.
export function fromJsonl(text) {
  const rows = text.replace(/^\uFEFF/, "").split(/\r?\n/).flatMap((line, i) => {
    if (!line.trim()) return [];
    let row = null;
    try {
      row = JSON.parse(line);
    } catch {
      throw new Error(`Line ${i + 1} is not JSON: nothing was imported.`);
    }
    const wrong = wrongWith(row);
    if (wrong) throw new Error(`Line ${i + 1}: ${wrong}; nothing was imported.`);
    return [clean(row, "file")];
  });
  if (!rows.length) throw new Error("There is no row in this file: nothing was imported.");
  if (rows.length > MOST) throw new Error(`At most ${MOST} rows are read, this file has ${rows.length}: nothing was imported.`);
  return rows;
}

export const toJsonl = (rows) => rows.map(({ from, ...row }) => `${JSON.stringify(row)}\n`).join("");
