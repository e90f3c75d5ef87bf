// What is kept in the reader's browser, by key, as JSON. One that keeps nothing loses nothing else.

// `broken` is what it gives for a text that is not JSON, so not what we wrote.
export function read(key, broken = null) {
  let text = null;
  try {
    text = localStorage.getItem(key);
  } catch {
    // no storage
  }
  try {
    return JSON.parse(text);
  } catch {
    return broken;
  }
}

export const KEPT = "dpo-kept"; // the event on this page; other pages get the browser's own

// Null removes what is there. Says whether it is kept now; the page works without.
export function write(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(value));
    window.dispatchEvent(new Event(KEPT));
    return true;
  } catch {
    return false;
  }
}

export const plain = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
