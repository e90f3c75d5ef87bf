// Chapter 6: one bar, split between what a rare word and a common word gain.

import { createPlot } from "../plot.js";
import { fmt, h, readout } from "../ui.js";

const TIE = 1e-9; // totals closer than this are equal: their difference is rounding

// Total gains (nats); of the common word only the places in one answer alone count, in percent.
export function budget({ gain_content, n_content, gain_common, n_common, alone }) {
  return { content: gain_content * n_content, common: (gain_common * n_common * alone) / 100 };
}

function verdict({ content, common }) {
  if (Math.abs(content - common) <= TIE) return "they draw level";
  if (common <= TIE) return "only “Paris” counts";
  if (common > content) return `“the” counts ${fmt(common / content, 1)} times as much`;
  return `“Paris” counts ${fmt(content / common, 1)} times as much`;
}

function odds({ content, common }) {
  if (Math.abs(content - common) <= TIE) return "equal";
  const [more, less, name] = common > content ? [common, content, "the"] : [content, common, "Paris"];
  return less <= TIE ? `all to “${name}”` : `“${name}” ${fmt(more / less, 1)} to 1`;
}

export function render({ el }) {
  const box = h("div");
  el.append(box);
  const plot = createPlot(box, {
    label: "One bar for the whole gain, split into the parts of “Paris” and of “the”.",
    height: 112,
    margin: { top: 26 },
    x: { domain: [0, 100], label: "share of the whole gain (%)", ticks: 5 },
  });
  const names = ["content", "common"];
  const bars = ["accent", "muted"].map((color) => plot.clipped.append("rect").attr("class", `dpo-fill-${color}`));
  const draw = plot.mark((share) => {
    const edges = [0, share, 100].map((value) => plot.x(value));
    bars.forEach((bar, i) => {
      bar.attr("x", edges[i]).attr("width", edges[i + 1] - edges[i]);
      bar.attr("y", plot.inner.top).attr("height", plot.inner.bottom - plot.inner.top - 4);
    });
  });
  const labels = [plot.text({ color: "accent", dy: -8 }), plot.text({ color: "muted", anchor: "end", dy: -8 })];

  const set = readout(el, [
    { key: "content", label: "“Paris” gains", color: "accent" },
    { key: "common", label: "“the” gains", color: "muted" },
    { key: "odds", label: "the larger part" },
  ]);

  return {
    update(state) {
      const totals = budget(state);
      const share = (100 * totals.content) / (totals.content + totals.common);
      draw(share);
      labels[0](0, 1, `“Paris” ${fmt(share, 1)} %`);
      labels[1](100, 1, `“the” ${fmt(100 - share, 1)} %`);
      for (const name of names) set(name, `+${fmt(totals[name], 1)} nats`);
      set("odds", odds(totals));
    },
    describe(state) {
      const totals = budget(state);
      return `“Paris” gains ${fmt(totals.content, 1)} nats and “the” ${fmt(totals.common, 1)}: ${verdict(totals)}.`;
    },
  };
}
