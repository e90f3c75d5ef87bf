// What is kept in the reader's browser, by key, as JSON. One that keeps nothing loses nothing else.

// Null where there is none.
export function textOf(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // no storage
  }
}

// Undefined for a text that is not JSON, so not what we wrote.
export function read(key) {
  try {
    return JSON.parse(textOf(key));
  } catch {
    // not JSON
  }
}

const KEPT = "dpo-kept"; // the event on this page; other pages get the browser's own

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

// Calls back when something is kept, here (`event`) or on another page; returns what ends that. A page that opens
// while another writes can miss the browser's event, so it looks again when the reader comes to it.
export function onKept(callback, event = KEPT) {
  const events = [event, "storage", "focus"];
  for (const name of events) window.addEventListener(name, callback);
  return () => events.forEach((name) => window.removeEventListener(name, callback));
}

// What stands under a key and cannot be read, left by a later version of the book perhaps, goes to a place beside
// it before it is written over. Says whether it is there now.
const aside = (key) => `${key}-unread`;
export function setAside(key) {
  try {
    const texts = [textOf(aside(key)), textOf(key)].filter((text) => text !== null);
    localStorage.setItem(aside(key), texts.join("\n"));
    return true;
  } catch {
    return false;
  }
}

// Removes what stands under a key, and beside it.
export const erase = (key) => [key, aside(key)].forEach((name) => write(name, null));

export const plain = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
