// What the reader has done in this browser: { "exercise 9.2": day }. Where nothing is kept: nothing.

import { erase, plain, read, setAside, write } from "./storage.js";

const KEY = "dpo-book-done";

// What is done, and whether that is all that stands there.
function look() {
  const kept = read(KEY);
  const all = plain(kept) ? Object.entries(kept) : [];
  const days = all.filter(([, day]) => typeof day === "string");
  return { days: Object.fromEntries(days), whole: kept === null || (plain(kept) && days.length === all.length) };
}

export const done = () => look().days;

// Says whether it is kept now.
export const keepDone = (kept) => (look().whole || setAside(KEY)) && write(KEY, Object.keys(kept).length ? kept : null);

export const eraseDone = () => erase(KEY);

export const today = () => new Date().toLocaleDateString("sv"); // the reader's own, as 2026-11-02

export function markDone(kind, name) {
  const kept = done();
  kept[`${kind} ${name}`] ??= today();
  keepDone(kept);
}
