// Mounts widgets. A widget's module exports render({ model, el, spec }) and returns
// { update(state), describe(state), destroy?() }. `state` holds every control and state by name.
// On a static page the controls are native inputs; in a notebook they are ipywidgets linked to `model`.

import { assign, button, h, rich } from "./ui.js";

const STATUS_DELAY = 400; // ms of rest before the words follow the drawing,
const STATUS_LATEST = 2500; // or of changes without a rest

// What anywidget gives a module in a notebook, without a kernel behind it.
export class StaticModel {
  constructor(values) {
    this.values = { ...values };
    this.listeners = new Map();
  }
  get(name) {
    return this.values[name];
  }
  set(name, value) {
    if (Object.is(this.values[name], value)) return;
    this.values[name] = value;
    for (const event of [`change:${name}`, "change"]) {
      for (const listener of [...(this.listeners.get(event) ?? [])]) listener(this, value);
    }
  }
  on(events, listener) {
    for (const event of events.split(" ")) {
      if (!this.listeners.has(event)) this.listeners.set(event, new Set());
      this.listeners.get(event).add(listener);
    }
  }
  off(events, listener) {
    for (const event of events.split(" ")) this.listeners.get(event)?.delete(listener);
  }
  save_changes() {}
}

const firstValues = (spec) => ({
  ...Object.fromEntries(spec.controls.map((control) => [control.name, control.value])),
  ...structuredClone(spec.state),
});

// Sliders in a notebook may answer 0.30000000000000004: put numbers back on their grid.
function onGrid(control, value) {
  if (control.type !== "slider") return value;
  const steps = Math.round((value - control.min) / control.step);
  return Number((control.min + steps * control.step).toFixed(10));
}

function readState(model, spec) {
  const state = {};
  for (const control of spec.controls) state[control.name] = onGrid(control, model.get(control.name));
  for (const name of Object.keys(spec.state)) state[name] = model.get(name);
  return state;
}

// Draws the widget and keeps it drawn: at most one update a frame, words after a rest.
function mountView(module, model, spec, root) {
  const el = h("div", { class: "dpo-view" });
  const status = h("p", { class: "dpo-status", role: "status" });
  root.append(el, status);
  const view = module.render({ model, el, spec });
  const names = [...spec.controls.map((control) => control.name), ...Object.keys(spec.state)];
  let frame = 0;
  let rest = 0;
  let unsaid = 0; // since when
  const say = () => {
    unsaid = 0;
    const text = view.describe(readState(model, spec));
    if (status.textContent !== text) status.textContent = text;
  };
  const changed = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      view.update(readState(model, spec));
    });
    clearTimeout(rest);
    unsaid ||= performance.now();
    rest = setTimeout(say, Math.min(STATUS_DELAY, Math.max(0, unsaid + STATUS_LATEST - performance.now())));
  };
  const events = names.map((name) => `change:${name}`).join(" ");
  model.on(events, changed);
  view.update(readState(model, spec));
  say();
  return () => {
    model.off(events, changed);
    cancelAnimationFrame(frame);
    clearTimeout(rest);
    view.destroy?.();
  };
}

function actions(model, spec) {
  const buttons = spec.controls
    .filter((control) => control.type === "button")
    .map(({ name, label }) => button(label, () => assign(model, { [name]: model.get(name) + 1 })));
  const reset = button("Reset", () => assign(model, firstValues(spec)));
  reset.classList.add("dpo-reset");
  return h("div", { class: "dpo-actions" }, ...buttons, reset);
}

// The render function that anywidget calls.
export const live = (module) => ({ render: ({ model, el }) => liveRender(module, model, el) }).render;

function liveRender(module, model, el) {
  const spec = model.get("spec");
  const root = h("div", { class: "dpo-widget dpo-live", role: "group", "aria-label": spec.title });
  el.append(root);
  const stop = mountView(module, model, spec, root);
  root.append(actions(model, spec));
  return stop;
}

const formats = {
  slider: (control, value) => value.toFixed(control.digits).replace("-", "−"),
  logslider: (control, value) => String(Number(value.toPrecision(control.digits))),
};

let mounted = 0; // makes ids that are unique on the page and the same at each load

function nativeControl(control, id, model) {
  const send = (value) => {
    model.set(control.name, value);
    model.save_changes();
  };
  const label = h("label", { for: id }, ...rich(control.label));
  if (control.type === "toggle") {
    const input = h("input", { id, type: "checkbox", onchange: () => send(input.checked) });
    const show = () => (input.checked = model.get(control.name));
    return { nodes: [input, label], show };
  }
  if (control.type === "choice") {
    const options = control.options.map((text, i) => h("option", { value: i }, text));
    const input = h("select", { id, onchange: () => send(Number(input.value)) }, ...options);
    const show = () => (input.value = model.get(control.name));
    return { nodes: [label, input], show };
  }
  const log = control.type === "logslider";
  const unit = control.unit ? ` ${control.unit}` : "";
  const { min, max, step } = control;
  // The lighter color of lines would have Chromium paint the rest of the track black.
  // The bounds must be there before the value, or the browser clamps it to 0…100.
  const style = `accent-color: var(--dpo-${control.color}-text)`;
  const input = h("input", { id, type: "range", min, max, step, style });
  input.addEventListener("input", () => send(log ? 10 ** Number(input.value) : Number(input.value)));
  // aria-hidden: the slider itself speaks its value, and an <output> would announce it twice.
  const output = h("output", { for: id, "aria-hidden": "true" });
  const show = () => {
    const value = model.get(control.name);
    const text = formats[control.type](control, value) + unit;
    const position = log ? Math.log10(value) : value;
    if (Number(input.value) !== position) input.value = position;
    output.textContent = text;
    input.setAttribute("aria-valuetext", text);
  };
  return { nodes: [label, input, output], show };
}

function mountPlaceholder(placeholder, module) {
  const spec = JSON.parse(placeholder.querySelector('script[type="application/json"]').textContent);
  const model = new StaticModel({ ...firstValues(spec), spec });
  const number = ++mounted;
  const root = h("div", { class: "dpo-widget", role: "group", "aria-label": spec.title });
  root.append(h("p", { class: "dpo-title", "aria-hidden": "true" }, ...rich(spec.title)));
  // In the page before it is drawn, so that the drawing knows its width.
  placeholder.prepend(root);
  try {
    mountView(module, model, spec, root);
  } catch (error) {
    root.remove();
    throw error;
  }
  const controls = h("div", { class: "dpo-controls" });
  for (const control of spec.controls.filter(({ type }) => type !== "button")) {
    const { nodes, show } = nativeControl(control, `dpo-${number}-${control.name}`, model);
    controls.append(h("div", { class: `dpo-control dpo-control-${control.type}` }, ...nodes));
    model.on(`change:${control.name}`, show);
    show();
  }
  if (controls.childElementCount) root.append(controls);
  root.append(actions(model, spec));
  placeholder.querySelector(".dpo-fallback")?.remove();
  placeholder.querySelector(".dpo-preview")?.remove();
}

export function mount(placeholder, module) {
  if ("dpoMounted" in placeholder.dataset) return;
  placeholder.dataset.dpoMounted = "";
  try {
    mountPlaceholder(placeholder, module);
  } catch (error) {
    console.error(`widget ${placeholder.dataset.dpoWidget}:`, error); // its fallback text stays
  }
}

// Mounts the widgets of these modules; others come later, or by another script.
function mountAll(modules) {
  for (const placeholder of document.querySelectorAll("[data-dpo-widget]")) {
    const module = modules[placeholder.dataset.dpoWidget];
    if (module) mount(placeholder, module);
  }
}

// The static page's entry: mounts when the page has been read, and gives tests a way in.
export function boot(modules, math) {
  const mount = () => mountAll(modules);
  Object.assign(window.dpoBook, { math, widgets: modules, mount });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", mount);
  else mount();
}
