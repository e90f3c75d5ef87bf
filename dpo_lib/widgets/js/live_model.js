// The page's side of the model that lives in a worker: loads it when it is first asked, passes questions
// on, ends it. On a page of the book its parts are scripts beside this one; a notebook's widget carries them.

import { read, setAside, write } from "./storage.js";

const here = document.currentScript?.src || document.baseURI;

function loadScript(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(`dpo-live-${name}.js`, here);
    script.onload = resolve;
    script.onerror = () => reject(new Error(`The file dpo-live-${name}.js of this book could not be read.`));
    document.head.append(script);
  });
}

export async function part(model, name) {
  const carried = model.get("parts")?.[name];
  if (carried) return carried;
  if (!window.dpoBook?.parts?.[name]) await loadScript(name);
  return window.dpoBook.parts[name];
}

// The policy trained last on this page, { weights, words }, for other widgets on it; kept until the page goes.
const POLICY = "dpo-policy"; // the event that tells of a new one
export const policy = () => window.dpoBook?.policy ?? null;
function keepPolicy(trained) {
  (window.dpoBook ??= {}).policy = { ...trained, number: (policy()?.number ?? 0) + 1 };
  window.dispatchEvent(new Event(POLICY));
}
// Calls back when a policy was trained on this page; returns what ends that.
export function onPolicy(callback) {
  window.addEventListener(POLICY, callback);
  return () => window.removeEventListener(POLICY, callback);
}

export const STOPPED = "Stopped."; // what a question ends with whose worker was ended

// report: called with what a run in progress sends, { run, row } or { run, look }.
export function liveModel(model, report) {
  let worker = null;
  let count = 0;
  const waiting = new Map(); // id: [resolve, reject]

  const post = (ask, values) =>
    new Promise((resolve, reject) => {
      waiting.set(++count, [resolve, reject]);
      worker.postMessage({ id: count, ask, ...values });
    });
  async function start() {
    const [engine, weights] = [await part(model, "engine"), await part(model, "model")];
    worker?.terminate(); // of a start that failed
    const url = URL.createObjectURL(new Blob([engine], { type: "text/javascript" }));
    worker = new Worker(url);
    worker.onmessage = ({ data }) => {
      if (data.policy) return keepPolicy(data.policy);
      if (!data.id) return report(data);
      const [resolve, reject] = waiting.get(data.id);
      waiting.delete(data.id);
      if ("error" in data) reject(new Error(data.error));
      else resolve(data.answer);
    };
    await post("load", { model: weights });
    URL.revokeObjectURL(url);
  }
  // A promise that is made once, and anew after a failure.
  const once = (make) => {
    let made = null;
    const get = () => {
      const mine = (made ??= make());
      mine.catch(() => {
        if (made === mine) made = null;
      });
      return mine;
    };
    get.forget = () => (made = null);
    return get;
  };
  const ready = once(start);
  const python = once(async () => ask("python", await part(model, "python")));
  const base = once(async () => ask("base", await part(model, "base")));
  async function ask(what, values = {}) {
    await ready();
    return post(what, values);
  }
  return {
    ask,
    python, // before code in Python is used: its interpreter is loaded, once
    base, // before the base model's log-probabilities are asked for: its weights are loaded, once
    // Ends the worker at once, whatever it is doing; the next question starts another.
    end() {
      worker?.terminate();
      for (const [, reject] of waiting.values()) reject(new Error(STOPPED));
      waiting.clear();
      worker = null;
      for (const loaded of [ready, python, base]) loaded.forget();
    },
  };
}

// What the reader leaves in this browser for other pages: the loss (the clicks: clicks.js). Without storage: nothing.
const KEYS = { loss: "dpo-book-loss" };
export function recall(name) {
  const value = read(KEYS[name]);
  return typeof value === "string" ? value : null;
}
export function remember(name, value) {
  const stands = read(KEYS[name]);
  if (stands === null || typeof stands === "string" || setAside(KEYS[name])) write(KEYS[name], value);
}
