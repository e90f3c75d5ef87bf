// What the reader has done in this browser: { "exercise 9.2": day }. Where nothing is kept: nothing.

const KEY = "dpo-book-done";

export function done() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    if (typeof kept === "object" && kept !== null && !Array.isArray(kept)) return kept;
  } catch {
    // no storage, or not what we wrote
  }
  return {};
}

export function markDone(kind, name) {
  const kept = done();
  kept[`${kind} ${name}`] ??= new Date().toISOString().slice(0, 10);
  try {
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // a browser that keeps nothing: the page works without
  }
}
