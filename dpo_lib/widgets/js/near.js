// Brings the code of a widget to a static page when it is wanted: when the reader comes near it ("near"),
// or first touches the preview that stands there ("use"). Scripts can be added from file:// too.

const NEAR = "400px"; // from the edges of the window
const STYLES = "dpo-widgets.css"; // the common rules, which a page with other widgets has already
const added = new Map();

function add(file, here) {
  if (!added.has(file)) {
    const style = file.endsWith(".css");
    const node = document.createElement(style ? "link" : "script");
    const loaded = new Promise((resolve, reject) => {
      node.onload = resolve;
      node.onerror = () => {
        node.remove();
        reject(new Error(`The file ${file} of this book could not be read.`));
      };
    });
    if (style) node.rel = "stylesheet";
    else node.async = false; // in this order
    node[style ? "href" : "src"] = new URL(file, here);
    document.head.append(node);
    added.set(file, loaded);
  }
  return added.get(file);
}

// Loads what is not there yet; then `before` and `after` the widget takes its place. What failed is said, and
// loaded anew at the next try, as are the modules that ran without what they need.
async function bring(placeholder, { modules, styles }, here, before, after) {
  const present = ((window.dpoBook ??= {}).modules ??= {});
  const missing = modules.filter((name) => !present[name]);
  const files = [...missing.map((name) => `dpo-${name}.js`), ...styles.map((name) => `dpo-${name}.css`)];
  if (!document.querySelector(`link[href*="${STYLES}"]`)) files.push(STYLES);
  const loads = await Promise.allSettled(files.map((file) => add(file, here)));
  const failed = loads.find(({ reason }) => reason);
  if (failed) {
    files.forEach((file, i) => present[missing[i]] || added.delete(file));
    const fallback = placeholder.querySelector(".dpo-fallback");
    const said = fallback.querySelector("span") ?? fallback.appendChild(document.createElement("span"));
    said.innerHTML = ` ${failed.reason.message} <button type="button">Try again</button>`;
    said.lastChild.onclick = () => bring(placeholder, { modules, styles }, here, before, after);
    fallback.hidden = false;
    return false;
  }
  await before?.();
  present.module_runtime.mount(placeholder, present[modules.at(-1)]);
  after?.();
  return true;
}

// The preview looks like the widget; what the reader does with it meanwhile is done with the widget.
function showPreview(placeholder, entry, here) {
  const preview = placeholder.querySelector(".dpo-preview");
  preview.hidden = false;
  placeholder.querySelector(".dpo-fallback").hidden = true;
  const place = (node) => [...preview.querySelectorAll("button")].indexOf(node?.closest("button"));
  let begun = false;
  let clicked = -1;
  let focused = -1;
  let held = null; // until the finger is up: a click needs the button that it began on
  preview.addEventListener("pointerdown", () => {
    held = new Promise((resolve) => {
      for (const end of ["pointerup", "pointercancel"]) {
        addEventListener(end, () => setTimeout(resolve, 50), { once: true });
      }
    });
  });
  preview.addEventListener("click", ({ target }) => (clicked = place(target)));
  const before = async () => {
    await held;
    focused = place(document.activeElement);
  };
  const after = () => {
    const buttons = placeholder.querySelectorAll("button");
    buttons[focused]?.focus({ preventScroll: true });
    buttons[clicked]?.click();
  };
  for (const event of ["pointerenter", "focusin", "click"]) {
    preview.addEventListener(event, async () => {
      if (begun) return;
      begun = true;
      begun = await bring(placeholder, entry, here, before, after);
    });
  }
}

// table: by kind { load, modules, styles }, the last module being the widget's own.
export function start(table) {
  const here = document.currentScript.src;
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
        watch.unobserve(target);
        bring(target, table[target.dataset.dpoWidget], here);
      }
    },
    { rootMargin: NEAR },
  );
  const later = [...document.querySelectorAll("[data-dpo-widget]")].filter((node) => table[node.dataset.dpoWidget]);
  for (const placeholder of later) {
    const entry = table[placeholder.dataset.dpoWidget];
    if (entry.load === "near") watch.observe(placeholder);
    else showPreview(placeholder, entry, here);
  }
  // For tests, and for whoever wants to print the page: all of them now.
  (window.dpoBook ??= {}).bring = () =>
    Promise.all(later.map((placeholder) => bring(placeholder, table[placeholder.dataset.dpoWidget], here)));
}
