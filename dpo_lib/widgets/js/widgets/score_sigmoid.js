// Chapter 2: two scores on a line, and the sigmoid of their gap.

import { btProbability, sigmoid } from "../math.js";
import { createPlot } from "../plot.js";
import { fmt, h, readout } from "../ui.js";

const SPAN = 8; // scores reach ±7, their gap ±8

export function render({ el }) {
  const scoresBox = h("div");
  const curveBox = h("div");
  el.append(scoresBox, curveBox);

  const scores = createPlot(scoresBox, {
    label: "The two scores on a line, with the gap between them.",
    height: 134,
    margin: { left: 42 },
    x: { domain: [-SPAN, SPAN], label: "score r" },
  });
  const gap = scores.segment({ color: "accent", className: "dpo-thick", clip: false });
  const gapEnds = [0, 1].map(() => scores.segment({ color: "accent", className: "dpo-thin", clip: false }));
  const gapLabel = scores.text({ color: "accent", anchor: "middle", dy: -6 });
  const loser = scores.dot({ color: "rejected", r: 7 });
  const winner = scores.dot({ color: "chosen", r: 7 });
  const winnerLabel = scores.text({ color: "chosen", anchor: "middle", dy: -12 });
  const loserLabel = scores.text({ color: "rejected", anchor: "middle", dy: 21 });
  const [gapRow, dotRow] = [0.78, 0.34];

  const curve = createPlot(curveBox, {
    label: "Probability that the winner is preferred against the score gap: an S-shaped curve with the present point.",
    height: (width) => (width < 480 ? 210 : 290),
    x: { domain: [-SPAN, SPAN], label: "score gap Δr = r_w − r_l" },
    y: { domain: [0, 1], label: "P(w ≻ l), probability that the winner is preferred" },
  });
  const middle = curve.segment({ color: "grid", className: "dpo-thin" });
  const line = curve.curve({ color: "ink" });
  const dropX = curve.segment({ color: "accent", className: "dpo-drop" });
  const dropY = curve.segment({ color: "chosen", className: "dpo-drop" });
  const gapOnLine = curve.text({ color: "accent", dx: 6, dy: -7 });
  const probabilityLabel = curve.text({ color: "chosen", anchor: "end", dx: 9, dy: -8 });
  const point = curve.dot({ color: "ink" });
  middle(0, 0, 0, 1);
  line(sigmoid);

  const set = readout(el, [
    { key: "gap", label: "gap Δr = r_w − r_l", color: "accent", wide: true },
    { key: "p", label: "P(w ≻ l) = σ(Δr)", color: "chosen" },
    { key: "q", label: "P(l ≻ w) = σ(−Δr)", color: "rejected" },
  ]);

  return {
    update({ r_w, r_l, shift }) {
      const [w, l] = [r_w + shift, r_l + shift];
      const delta = r_w - r_l;
      const p = btProbability(r_w, r_l);
      winner(w, dotRow);
      loser(l, dotRow);
      gap(l, gapRow, w, gapRow);
      gapEnds[0](l, gapRow + 0.07, l, dotRow);
      gapEnds[1](w, gapRow + 0.07, w, dotRow);
      gapLabel((w + l) / 2, gapRow, `Δr = ${fmt(delta, 2)}`);
      winnerLabel(w, dotRow, `winner ${fmt(w, 2)}`);
      loserLabel(l, dotRow, `loser ${fmt(l, 2)}`);
      dropX(delta, 0, delta, 1);
      dropY(-SPAN, p, delta, p);
      point(delta, p);
      // Beside the line where the curve leaves room: below it on the right half, above it on the left.
      const side = delta < 0 ? (delta < -5 ? "start" : "end") : delta > 5 ? "end" : "start";
      gapOnLine(delta, delta < 0 ? 0.88 : 0, `Δr = ${fmt(delta, 2)}`, side);
      probabilityLabel(delta, p, `P = ${fmt(p, 4)}`);
      set("gap", `${fmt(w, 2)} − ${l < 0 ? `(${fmt(l, 2)})` : fmt(l, 2)} = ${fmt(delta, 2)}`);
      set("p", fmt(p, 4));
      set("q", fmt(sigmoid(-delta), 4));
    },
    describe({ r_w, r_l, shift }) {
      return (
        `The winner scores ${fmt(r_w + shift, 2)} and the loser ${fmt(r_l + shift, 2)}. ` +
        `The gap is ${fmt(r_w - r_l, 2)}, so the winner is preferred ` +
        `with probability ${fmt(btProbability(r_w, r_l), 4)}.`
      );
    },
  };
}
