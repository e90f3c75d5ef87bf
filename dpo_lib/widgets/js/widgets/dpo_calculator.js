// Chapter 9: the whole DPO loss of one pair: rewards, margin, probability, loss, and its slopes.

import { dpoLoss, nllSlope, preferenceNll } from "../math.js";
import { createPlot } from "../plot.js";
import { assign, button, fmt, h, readout, table } from "../ui.js";

const [SPAN, TOP] = [4, 4.6]; // of the drawing, in nats; a point outside waits at its edge
const REACH = 2 * SPAN; // the tangent crosses the whole drawing, which cuts it off

export const calculate = ({ p_w, p_l, ref_w, ref_l, beta }) => dpoLoss(p_w, p_l, ref_w, ref_l, beta);

export function render({ model, el, spec }) {
  const examples = spec.data.examples.map(({ name, values }) =>
    button(name, () => assign(model, values)),
  );
  el.append(h("div", { class: "dpo-actions", role: "group", "aria-label": "Worked examples" }, ...examples));

  const box = h("div");
  el.append(box);
  const plot = createPlot(box, {
    label: "The loss against the margin z, with the pair's point and the tangent there.",
    height: (width) => (width < 480 ? 220 : 260),
    x: { domain: [-SPAN, SPAN], label: "margin z" },
    y: { domain: [0, TOP], label: "loss −log σ(z) (nats)" },
  });
  const drop = plot.segment({ color: "muted", className: "dpo-drop" });
  const tangent = plot.segment({ color: "accent", className: "dpo-tangent" });
  plot.curve()((z) => preferenceNll(z, 0));
  plot.dot({ color: "muted", r: 4 })(0, preferenceNll(0, 0));
  plot.text({ color: "muted", anchor: "end", dx: 8, dy: 14 })(0, preferenceNll(0, 0), "start");
  const dot = plot.dot({ color: "accent", r: 7 });
  const place = plot.text({ color: "accent", dx: 8, dy: 12 });

  const set = table(el, {
    caption: "Log-ratio, reward and slope of the loss for both responses",
    corner: "response",
    columns: ["log-ratio", "reward", "slope"],
    rows: [
      { label: "chosen", color: "chosen" },
      { label: "rejected", color: "rejected" },
    ],
  });
  const tiles = h("div", { class: "dpo-calculator-tiles" });
  el.append(tiles);
  const tell = readout(tiles, [
    { key: "margin", label: "margin z" },
    { key: "probability", label: "P = σ(z)" },
    { key: "loss", label: "loss −log P" },
    { key: "weight", label: "weight σ(−z)" },
    { key: "pull", label: "pull βσ(−z)", color: "accent" },
  ]);

  return {
    update(state) {
      const now = calculate(state);
      const at = Math.max(-SPAN, Math.min(SPAN, now.margin));
      const outside = Math.abs(now.margin) > SPAN;
      const [loss, slope] = [preferenceNll(at, 0), nllSlope(at)];
      drop(at, 0, at, TOP);
      tangent(at - REACH, loss - slope * REACH, at + REACH, loss + slope * REACH);
      dot(at, loss);
      const further = now.margin > 0 ? ", further right" : ", further left";
      place(at, TOP, `z = ${fmt(now.margin, 3)}${outside ? further : ""}`, at > 0 ? "end" : "start");
      [
        [state.p_w - state.ref_w, now.chosenReward, now.chosenSlope],
        [state.p_l - state.ref_l, now.rejectedReward, now.rejectedSlope],
      ].forEach(([ratio, reward, pull], row) => {
        set(row, 0, fmt(ratio, 1));
        set(row, 1, fmt(reward, 3));
        set(row, 2, fmt(pull, 4));
      });
      tell("margin", fmt(now.margin, 3));
      tell("probability", fmt(now.probability, 4));
      tell("loss", fmt(now.loss, 4));
      tell("weight", fmt(now.weight, 4));
      tell("pull", fmt(now.rejectedSlope, 4));
    },
    describe(state) {
      const now = calculate(state);
      return (
        `The rewards are ${fmt(now.chosenReward, 3)} and ${fmt(now.rejectedReward, 3)}, so z is ` +
        `${fmt(now.margin, 3)}, P is ${fmt(now.probability, 4)} and the loss ${fmt(now.loss, 4)}. ` +
        `The pull βσ(−z) is ${fmt(now.rejectedSlope, 4)}.`
      );
    },
  };
}
