// SVG plots on d3. A plot is drawn in CSS pixels and laid out again when its width changes, so text
// keeps its size on a phone. Marks remember where they are and survive a new layout.

import { axisBottom, axisLeft, line as linePath, scaleLinear, select } from "./vendor/d3.js";
import { splitSubscripts } from "./ui.js";

const SAMPLES = 240;
const CHARACTER = 7; // px, a generous mean width, to keep labels inside the plot

// parent: the element to draw in.   label: what a screen reader says of the drawing.
// height: px or width => px.        x: { domain, label, ticks, format }.   y: the same, or null.
export function createPlot(parent, options) {
  const { label, height = 260, x: xSpec, y: ySpec = null } = options;
  const margin = { top: ySpec ? 30 : 8, right: 14, bottom: 44, left: ySpec ? 42 : 14, ...options.margin };
  const svg = select(parent).append("svg").attr("class", "dpo-plot");
  svg.attr("role", "img").attr("aria-label", label);
  const back = svg.append("g").attr("aria-hidden", "true");
  const grid = back.append("g").attr("class", "dpo-grid");
  const xAxis = back.append("g").attr("class", "dpo-axis");
  const yAxis = back.append("g").attr("class", "dpo-axis");
  const xTitle = back.append("text").attr("class", "dpo-axis-title");
  const yTitle = back.append("text").attr("class", "dpo-axis-title");
  // A nested svg clips its content without an id.
  const clipped = back.append("svg").attr("class", "dpo-clip");
  const front = back.append("g");
  const x = xSpec.scale ?? scaleLinear();
  const y = ySpec?.scale ?? scaleLinear();
  x.domain(xSpec.domain);
  y.domain(ySpec?.domain ?? [0, 1]);
  if (xSpec.label) setText(xTitle.node(), xSpec.label);
  if (ySpec?.label) setText(yTitle.node(), ySpec.label);
  const marks = [];
  let width = 0;
  let inner = { left: 0, right: 0, top: 0, bottom: 0 };

  function layout(newWidth) {
    width = newWidth;
    const total = typeof height === "function" ? height(width) : height;
    inner = { left: margin.left, right: width - margin.right, top: margin.top, bottom: total - margin.bottom };
    svg.attr("viewBox", `0 0 ${width} ${total}`).attr("width", width).attr("height", total);
    x.range([inner.left, inner.right]);
    y.range([inner.bottom, inner.top]);
    clipped
      .attr("x", inner.left)
      .attr("y", inner.top)
      .attr("width", inner.right - inner.left)
      .attr("height", inner.bottom - inner.top)
      .attr("viewBox", `${inner.left} ${inner.top} ${inner.right - inner.left} ${inner.bottom - inner.top}`);
    const bottom = axisBottom(x).tickSizeOuter(0);
    // With band scales every category is a tick; numbers thin out on a narrow screen.
    if (x.ticks) bottom.ticks(Math.min(xSpec.ticks ?? 9, Math.floor((inner.right - inner.left) / 38)));
    if (xSpec.format) bottom.tickFormat(xSpec.format);
    xAxis.attr("transform", `translate(0,${inner.bottom})`).call(bottom);
    xTitle.attr("x", inner.right).attr("y", total - 8).attr("text-anchor", "end");
    if (ySpec) {
      const left = axisLeft(y).tickSizeOuter(0);
      if (y.ticks) left.ticks(ySpec.ticks ?? 5);
      if (ySpec.format) left.tickFormat(ySpec.format);
      yAxis.attr("transform", `translate(${inner.left},0)`).call(left);
      yTitle.attr("x", 4).attr("y", 14);
      const values = y.ticks ? y.ticks(ySpec.ticks ?? 5) : [];
      grid
        .selectAll("line")
        .data(values)
        .join("line")
        .attr("x1", inner.left)
        .attr("x2", inner.right)
        .attr("y1", (v) => Math.round(y(v)) + 0.5)
        .attr("y2", (v) => Math.round(y(v)) + 0.5);
    }
    for (const mark of marks) mark();
  }

  // A mark is drawn by `place(...args)`; the last arguments are used again at each layout.
  function mark(place) {
    let last = null;
    const draw = () => width && last && place(...last);
    marks.push(draw);
    return (...args) => {
      last = args;
      draw();
    };
  }

  const plot = {
    svg,
    x,
    y,
    front,
    clipped,
    layout,
    mark,
    get inner() {
      return inner;
    },
    // A curve: call with a function of x, or with points [[x, y], …].
    curve({ color = "ink", className = "" } = {}) {
      const path = clipped.append("path").attr("class", `dpo-curve dpo-stroke-${color} ${className}`);
      const draw = linePath((d) => x(d[0]), (d) => y(d[1]));
      let shown = null;
      return mark((shape) => {
        let points = shape;
        if (typeof shape === "function") {
          const [a, b] = x.domain();
          points = Array.from({ length: SAMPLES + 1 }, (_, i) => a + ((b - a) * i) / SAMPLES);
          points = points.map((value) => [value, shape(value)]);
        }
        const line = draw(points);
        if (line !== shown) path.attr("d", (shown = line)); // the same again would be painted again
      });
    },
    // A straight line: call with (x1, y1, x2, y2) in data units.
    segment({ color = "ink", className = "", clip = true } = {}) {
      const node = (clip ? clipped : front).append("line").attr("class", `dpo-segment dpo-stroke-${color} ${className}`);
      return mark((x1, y1, x2, y2) => {
        node.attr("x1", x(x1)).attr("y1", y(y1)).attr("x2", x(x2)).attr("y2", y(y2));
      });
    },
    // A dot: call with (x, y) in data units.
    dot({ color = "ink", r = 6 } = {}) {
      const node = front.append("circle").attr("class", `dpo-dot dpo-fill-${color}`).attr("r", r);
      return mark((cx, cy) => {
        node.attr("cx", x(cx)).attr("cy", y(cy));
      });
    },
    // A label: call with (x, y, text) in data units; it is kept inside the plot's width.
    text({ color = "ink", anchor = "start", dx = 0, dy = 0, className = "" } = {}) {
      const node = front.append("text").attr("class", `dpo-label dpo-fill-text-${color} ${className}`);
      let shown = null;
      return mark((tx, ty, text, at = anchor) => {
        if (text !== shown) setText(node.node(), (shown = text));
        const size = text.length * CHARACTER;
        const before = { start: 0, middle: size / 2, end: size }[at];
        const wanted = x(tx) + (at === "end" ? -dx : dx);
        const px = Math.max(before + 2, Math.min(wanted, width - 2 - (size - before)));
        node.attr("x", px).attr("y", y(ty) + dy).attr("text-anchor", at);
      });
    },
    // Lets the reader drag in the drawing: callback(x, y) in data units.
    onDrag(callback) {
      const node = svg.node();
      node.classList.add("dpo-draggable");
      const send = (event) => {
        const box = node.getBoundingClientRect();
        const scale = width / box.width;
        callback(x.invert((event.clientX - box.left) * scale), y.invert((event.clientY - box.top) * scale));
      };
      node.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        node.setPointerCapture(event.pointerId);
        send(event);
      });
      node.addEventListener("pointermove", (event) => {
        if (node.hasPointerCapture(event.pointerId)) send(event);
      });
    },
  };

  watchWidth(parent, layout);
  return plot;
}

// Calls back with the element's width now and whenever it changes.
export function watchWidth(element, callback, fallback = 640) {
  let last = 0;
  const measure = () => {
    const width = Math.max(240, Math.floor(element.clientWidth || last || fallback));
    if (width !== last) callback((last = width));
  };
  measure();
  if (typeof ResizeObserver === "function") new ResizeObserver(measure).observe(element);
}

// Writes a text with subscripts into an SVG text node.
export function setText(node, text) {
  const parts = splitSubscripts(text).map(([part, low], i, all) => {
    const span = document.createElementNS("http://www.w3.org/2000/svg", "tspan");
    span.textContent = part;
    if (low) span.setAttribute("class", "dpo-sub");
    const shift = (low ? 3 : 0) - (i > 0 && all[i - 1][1] ? 3 : 0);
    if (shift) span.setAttribute("dy", shift);
    return span;
  });
  node.replaceChildren(...parts);
}
