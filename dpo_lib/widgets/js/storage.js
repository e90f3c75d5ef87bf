// What is kept in the reader's browser, by key, as JSON. One that keeps nothing loses nothing else.

export function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null; // no storage, or not what we wrote
  }
}

// Null removes what is there.
export function write(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // the page works without
  }
}

export const plain = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
