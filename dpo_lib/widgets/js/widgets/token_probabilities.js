// Chapter 4: above, each token multiplies the probability so far; below, each adds its logarithm.

import { sum } from "../math.js";
import { createPlot } from "../plot.js";
import { fmt, h, readout } from "../ui.js";

const HALF = 0.3; // half the width of a bar; the tokens stand at 1, 2, 3, …
const DEEPEST = -12.6; // below five tokens of probability 0.1, with room for a label

// The probability of the tokens so far, and the sum of their logarithms, after each token.
export function running(probabilities) {
  const logps = probabilities.map(Math.log);
  const sums = logps.map((_, i) => sum(logps.slice(0, i + 1)));
  return { logps, sums, products: sums.map(Math.exp) };
}

// How often a text must be repeated until its probability is 0 in float32.
export function copiesUntilUnderflow(logp, logUnderflow) {
  return logp === 0 ? null : Math.ceil(logUnderflow / logp - 1e-9);
}

// A bar over token i: call with (i, from, to) in data units.
function bar(plot, color) {
  const node = plot.clipped.append("rect").attr("class", `dpo-fill-${color}`);
  return plot.mark((i, from, to) => {
    const [left, top, bottom] = [plot.x(i - HALF), plot.y(Math.max(from, to)), plot.y(Math.min(from, to))];
    node.attr("x", left).attr("width", plot.x(i + HALF) - left);
    node.attr("y", top).attr("height", Math.max(bottom - top, 1)); // a probability of 1 leaves a line
  });
}

export function render({ el, spec }) {
  const { tokens, log_underflow: logUnderflow } = spec.data;
  const [productBox, sumBox] = [h("div"), h("div")];
  el.append(productBox, sumBox);
  const x = { domain: [0.5, tokens.length + 0.5], ticks: tokens.length, format: (i) => tokens[i - 1]?.trim() };

  const product = createPlot(productBox, {
    label: "Bars, one a token: the product of the probabilities so far, falling from left to right.",
    height: 190,
    margin: { bottom: 26 },
    x,
    y: { domain: [0, 1.15], ticks: 3, label: "probability of the tokens so far (product)" },
  });
  const logs = createPlot(sumBox, {
    label: "Bars hanging end to end, one a token: each is a log-probability, and the last ends at their sum.",
    height: 250,
    margin: { bottom: 26 },
    x,
    y: { domain: [DEEPEST, 0], label: "log-probabilities laid end to end (nats)" },
  });
  const places = tokens.map((_, i) => i + 1);
  const products = places.map(() => bar(product, "chosen"));
  const drops = places.map(() => bar(logs, "chosen"));
  const links = places.slice(1).map(() => logs.segment({ color: "muted", className: "dpo-thin" }));
  const productLabels = places.map(() => product.text({ color: "chosen", anchor: "middle", dy: -5 }));
  const logLabels = places.map(() => logs.text({ color: "chosen", anchor: "middle", dy: 15 }));

  const set = readout(el, [
    { key: "product", label: "π(y | x), the product", color: "chosen" },
    { key: "sum", label: "log π(y | x), the sum", color: "chosen" },
    { key: "copies", label: "0 in float32 after", color: "ink" },
  ]);

  const read = (state) => running(places.map((i) => state[`p${i}`]));

  return {
    update(state) {
      const { logps, sums, products: levels } = read(state);
      places.forEach((i, k) => {
        products[k](i, 0, levels[k]);
        drops[k](i, sums[k] - logps[k], sums[k]);
        productLabels[k](i, levels[k], fmt(levels[k], 3));
        logLabels[k](i, sums[k], fmt(logps[k], 2));
      });
      links.forEach((link, k) => link(k + 1 + HALF, sums[k], k + 2 - HALF, sums[k]));
      const total = sums.at(-1);
      set("product", fmt(levels.at(-1), 4));
      set("sum", fmt(total, 3));
      const copies = copiesUntilUnderflow(total, logUnderflow);
      set("copies", copies === null ? "never" : `${copies} copies`);
    },
    describe(state) {
      const { sums, products: levels } = read(state);
      const copies = copiesUntilUnderflow(sums.at(-1), logUnderflow);
      const end = copies ? `the product of ${copies} copies` : "no number of copies";
      return (
        `The product is ${fmt(levels.at(-1), 4)}, the sum of the logs ${fmt(sums.at(-1), 3)}. ` +
        `In float32, ${end} is 0.`
      );
    },
  };
}
