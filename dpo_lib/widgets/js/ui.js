// Small helpers for the HTML around a drawing.

// h("p", { class: "note", onclick: f }, "text", node, …)
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

// Sets several values of a widget's model at once.
export function assign(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

// A number with fixed decimals, a true minus sign and no negative zero (as spec.fmt in Python).
export function fmt(value, digits) {
  let text = value.toFixed(digits);
  if (Number(text) === 0) text = text.replace("-", "");
  return text.replace("-", "−");
}

// "π_{ref}(y)" → [["π", false], ["ref", true], ["(y)", false]]
export function splitSubscripts(text) {
  const parts = [];
  let last = 0;
  for (const match of text.matchAll(/_(?:\{([^{}]*)\}|([\p{L}\p{N}]))/gu)) {
    if (match.index > last) parts.push([text.slice(last, match.index), false]);
    parts.push([match[1] ?? match[2], true]);
    last = match.index + match[0].length;
  }
  if (last < text.length) parts.push([text.slice(last), false]);
  return parts;
}

// A text with subscripts as HTML nodes.
export const rich = (text) =>
  splitSubscripts(text).map(([part, low]) => (low ? h("sub", {}, part) : part));

// Named numbers in a row of tiles whose size does not depend on the numbers. Not a <dl>: every host
// page styles that in its own way.
// items: [{ key, label, color, wide }]; a wide tile has a row to itself on a phone.
// Returns set(key, text).
export function readout(parent, items) {
  const values = {};
  const tiles = items.map(({ key, label, color = "ink", wide = false }) => {
    values[key] = document.createTextNode("");
    return h(
      "div",
      { class: wide ? "dpo-tile dpo-wide" : "dpo-tile" },
      h("div", { class: "dpo-name" }, ...rich(label)),
      h("div", { class: `dpo-value dpo-text-${color}` }, values[key]),
    );
  });
  parent.append(h("div", { class: "dpo-readout" }, ...tiles));
  return (key, text) => {
    if (values[key].data !== text) values[key].data = text;
  };
}

// A table with fixed rows and columns; returns set(row, column, text).
export function table(parent, { caption, corner = "", columns, rows }) {
  const cells = rows.map(() => columns.map(() => document.createTextNode("")));
  const head = [corner, ...columns].map((name) => h("th", { scope: "col" }, ...rich(name)));
  const body = rows.map(({ label, color = "ink" }, i) =>
    h(
      "tr",
      {},
      h("th", { scope: "row", class: `dpo-text-${color}` }, ...rich(label)),
      ...cells[i].map((cell) => h("td", {}, cell)),
    ),
  );
  parent.append(
    h(
      "table",
      { class: "dpo-table" },
      h("caption", { class: "dpo-hidden" }, caption),
      h("thead", {}, h("tr", {}, ...head)),
      h("tbody", {}, ...body),
    ),
  );
  return (row, column, text) => {
    if (cells[row][column].data !== text) cells[row][column].data = text;
  };
}

export const button = (label, onclick) =>
  h("button", { type: "button", class: "dpo-button", onclick }, ...rich(label));

// Offers `text` as a file to save; works from file:// and without a network.
export function download(filename, text, type = "application/jsonl") {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: filename });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
