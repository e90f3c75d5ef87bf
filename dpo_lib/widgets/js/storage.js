// What is kept in the reader's browser, by key, as JSON. One that keeps nothing loses nothing else.

// Null where there is none.
export function textOf(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // no storage
  }
}

// `broken` is what it gives for a text that is not JSON, so not what we wrote.
export function read(key, broken = null) {
  try {
    return JSON.parse(textOf(key));
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
