// Chapter 6: log π of two answers against their length, and the length at which their order flips.

import { createPlot } from "../plot.js";
import { fmt, h, readout } from "../ui.js";

const [MOST_TOKENS, LOWEST] = [13, -2.9];
const TIE = 1e-9; // scores closer than this are equal: their difference is rounding

// Both naive rewards (nats), and the winner's length at which they are equal.
export function race({ n_w, p_w, n_l, p_l }) {
  const winner = n_w * Math.log(p_w);
  const loser = n_l * Math.log(p_l);
  return { winner, loser, flip: loser / Math.log(p_w) };
}

const verdict = (gap, same, prefers) => (Math.abs(gap) <= TIE ? same : prefers(gap > 0 ? "winner" : "loser"));

export function render({ el }) {
  const box = h("div");
  el.append(box);
  const plot = createPlot(box, {
    label: "Log-probability against the number of tokens: one falling line for each answer, its end marked.",
    height: (width) => (width < 480 ? 230 : 280),
    x: { domain: [0, MOST_TOKENS], label: "tokens" },
    y: { domain: [LOWEST, 0], label: "log π, summed over the tokens (nats)" },
  });
  const colors = ["chosen", "rejected"];
  const level = plot.segment({ color: "rejected", className: "dpo-drop" });
  const flipDrop = plot.segment({ color: "accent", className: "dpo-drop" });
  const ahead = colors.map((color) => plot.segment({ color, className: "dpo-thin" }));
  const paths = colors.map((color) => plot.segment({ color, className: "dpo-thick" }));
  const flipLabel = plot.text({ color: "accent", dx: 6, dy: -7 });
  const dots = colors.map((color) => plot.dot({ color, r: 7 }));
  const names = ["winner", "loser"];
  const [below, above] = [16, -8].map((dy) => colors.map((color) => plot.text({ color, dx: 12, dy })));
  const labels = [below, above];
  const side = (tokens) => (tokens > MOST_TOKENS / 2 ? "end" : "start"); // toward the middle

  const set = readout(el, [
    { key: "w", label: "log π(y_w)", color: "chosen" },
    { key: "l", label: "log π(y_l)", color: "rejected" },
    { key: "verdict", label: "log π prefers" },
    { key: "flip", label: "equal at a winner of", color: "accent" },
  ]);

  return {
    update(state) {
      const { winner, loser, flip } = race(state);
      const sides = [
        [state.n_w, winner],
        [state.n_l, loser],
      ];
      sides.forEach(([tokens, score], i) => {
        ahead[i](0, 0, MOST_TOKENS, MOST_TOKENS * Math.log(i ? state.p_l : state.p_w));
        paths[i](0, 0, tokens, score);
        dots[i](tokens, score);
      });
      const lower = winner <= loser ? 0 : 1; // the lower dot has its name below it
      sides.forEach(([tokens, score], i) => {
        labels[i === lower ? 0 : 1][i](tokens, score, `${names[i]} ${fmt(score, 3)}`, side(tokens));
        labels[i === lower ? 1 : 0][i](tokens, score, "");
      });
      level(0, loser, MOST_TOKENS, loser);
      flipDrop(flip, LOWEST, flip, loser);
      const words = flip > MOST_TOKENS ? "equal further right" : "equal here";
      flipLabel(Math.min(flip, MOST_TOKENS), LOWEST, words, side(flip));
      set("w", fmt(winner, 3));
      set("l", fmt(loser, 3));
      set("verdict", verdict(winner - loser, "neither", (name) => `the ${name}`));
      set("flip", `${fmt(flip, 2)} tokens`);
    },
    describe(state) {
      const { winner, loser, flip } = race(state);
      const words = verdict(winner - loser, "cannot tell them apart", (name) => `prefers the ${name}`);
      return (
        `The winner scores ${fmt(winner, 3)} and the loser ${fmt(loser, 3)}, so log π ` +
        `${words}. The scores are equal at a winner of ${fmt(flip, 2)} tokens.`
      );
    },
  };
}
