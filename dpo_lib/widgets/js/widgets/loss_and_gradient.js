// Chapter 3: −log P and 1 − P against the score gap, their tangents, and the size of their slopes.

import { complementSlope, nllSlope, preferenceNll, sigmoid } from "../math.js";
import { createPlot } from "../plot.js";
import { fmt, h, table } from "../ui.js";

const SPAN = 8;
const [LOSS_TOP, SLOPE_TOP] = [9, 1.2]; // room for the label of the gap above the curves
const REACH = 2 * SPAN; // tangents cross the whole drawing, which cuts them off

const LOSSES = [
  { name: "−log P", color: "accent", value: (gap) => preferenceNll(gap, 0), slope: nllSlope },
  { name: "1 − P", color: "ink", value: (gap) => sigmoid(-gap), slope: complementSlope },
];

export function render({ model, el }) {
  const [lossBox, slopeBox] = [h("div"), h("div")];
  el.append(h("div", { class: "dpo-panels" }, lossBox, slopeBox));
  const height = () => (el.clientWidth < 480 ? 188 : 270);

  const losses = createPlot(lossBox, {
    label: "Two losses against the score gap, with the tangent of each at the present gap.",
    height,
    x: { domain: [-SPAN, SPAN], label: "score gap Δr" },
    y: { domain: [0, LOSS_TOP], label: "loss (−log P in nats)" },
  });
  const slopes = createPlot(slopeBox, {
    label: "Size of the slope of each loss against the score gap, with the present gap marked.",
    height,
    x: { domain: [-SPAN, SPAN], label: "score gap Δr" },
    y: { domain: [0, SLOPE_TOP], label: "size of the slope, |dL/dΔr|" },
  });
  const drops = [losses, slopes].map((plot) => plot.segment({ color: "muted", className: "dpo-drop" }));
  const marks = LOSSES.map(({ color, value, slope }) => {
    const lossCurve = losses.curve({ color });
    const slopeCurve = slopes.curve({ color });
    lossCurve(value);
    slopeCurve((gap) => Math.abs(slope(gap)));
    return { tangent: losses.segment({ color, className: "dpo-tangent" }) };
  });
  LOSSES.forEach(({ color }, i) => {
    marks[i].dot = losses.dot({ color });
    marks[i].slopeDot = slopes.dot({ color });
  });
  losses.text({ color: "accent", dx: 8 })(-5, 5.2, "−log P");
  losses.text({ color: "ink", dy: -7 })(-7.6, 1, "1 − P");
  slopes.text({ color: "accent", dy: 18 })(-7.6, 1, "of −log P");
  slopes.text({ color: "ink", anchor: "end", dy: -6 })(-1.3, 0.2, "of 1 − P");

  const gapLabels = [losses, slopes].map((plot) => plot.text({ color: "ink", dx: 6, dy: 12 }));

  const set = table(el, {
    caption: "Value and slope of both losses at the present gap",
    corner: "at this gap",
    columns: ["value", "slope dL/dΔr"],
    rows: LOSSES.map(({ name, color }) => ({ label: name, color })),
  });

  // The slider's own grid, so that a drag in the drawing and the slider agree.
  const drag = (gap) => {
    model.set("delta", Math.max(-SPAN, Math.min(SPAN, Math.round(gap * 10) / 10)));
    model.save_changes();
  };
  losses.onDrag(drag);
  slopes.onDrag(drag);

  return {
    update({ delta }) {
      drops[0](delta, 0, delta, LOSS_TOP);
      drops[1](delta, 0, delta, SLOPE_TOP);
      const side = delta > 3.5 ? "end" : "start";
      gapLabels[0](delta, LOSS_TOP, `Δr = ${fmt(delta, 2)}`, side);
      gapLabels[1](delta, SLOPE_TOP, `Δr = ${fmt(delta, 2)}`, side);
      LOSSES.forEach(({ value, slope }, i) => {
        const [y, m] = [value(delta), slope(delta)];
        marks[i].tangent(delta - REACH, y - m * REACH, delta + REACH, y + m * REACH);
        marks[i].dot(delta, y);
        marks[i].slopeDot(delta, Math.abs(m));
        set(i, 0, fmt(y, 4));
        set(i, 1, fmt(m, 4));
      });
    },
    describe({ delta }) {
      const [nll, complement] = LOSSES.map(({ value, slope }) => [value(delta), slope(delta)]);
      return (
        `At a gap of ${fmt(delta, 2)}, P is ${fmt(sigmoid(delta), 4)}. ` +
        `The loss −log P is ${fmt(nll[0], 4)} with slope ${fmt(nll[1], 4)}; ` +
        `1 − P is ${fmt(complement[0], 4)} with slope ${fmt(complement[1], 4)}.`
      );
    },
  };
}
