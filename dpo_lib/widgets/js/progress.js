// What the reader has done in this browser: { "exercise 9.2": day }. Where nothing is kept: nothing.

import { plain, read, write } from "./storage.js";

const KEY = "dpo-book-done";

export function done() {
  const kept = read(KEY);
  return plain(kept) ? kept : {};
}

export const keepDone = (kept) => write(KEY, Object.keys(kept).length ? kept : null);

export const today = () => new Date().toISOString().slice(0, 10);

export function markDone(kind, name) {
  const kept = done();
  kept[`${kind} ${name}`] ??= today();
  keepDone(kept);
}
