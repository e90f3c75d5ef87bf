// Chapter 7, appendix A: the reference and the optimal policy π* over a few responses, against β.

import { klDivergence, piStar, sum } from "../math.js";
import { createPlot } from "../plot.js";
import { fmt, h, readout } from "../ui.js";

const [ROW, BAR] = [58, 15]; // px: a response with its two bars, and one of the bars
const ROOM = 80; // px at the right end, for the number of a full bar

// Rewards come from sliders r_0, r_1, … where the widget has them.
const rewardsOf = (state, data) => data.rewards.map((reward, i) => state[`r_${i}`] ?? reward);

export function optimum(state, data) {
  const rewards = rewardsOf(state, data);
  const probabilities = piStar(data.reference, rewards, state.beta);
  const kl = klDivergence(probabilities, data.reference);
  const reward = sum(probabilities.map((p, i) => p * rewards[i]));
  return { probabilities, kl, reward, objective: reward - state.beta * kl };
}

export function render({ el, spec }) {
  const { responses, reference } = spec.data;
  const rows = responses.length;
  const box = h("div");
  el.append(box);
  const plot = createPlot(box, {
    label: "For each response two bars: its probability under the reference and under π*.",
    height: ROW * rows + 52,
    margin: { right: ROOM },
    x: { domain: [0, 1], label: "probability", ticks: 5 },
  });
  const kinds = [
    { color: "reference", name: "π_{ref}", offset: 19 },
    { color: "policy", name: "π*", offset: 19 + BAR + 1 },
  ];
  const views = responses.map((text, i) => {
    const top = 1 - i / rows; // in the plot's vertical unit
    const bars = kinds.map(({ color, name, offset }) => {
      const rect = plot.clipped.append("rect").attr("class", `dpo-fill-${color}`).attr("height", BAR);
      const place = plot.mark((p) => {
        rect.attr("x", plot.x(0)).attr("width", plot.x(p) - plot.x(0)).attr("y", plot.y(top) + offset);
      });
      const label = plot.text({ color, dx: 6, dy: offset + BAR - 3 });
      return (p) => {
        place(p);
        label(p, top, `${name} ${fmt(p, 3)}`);
      };
    });
    plot.text({ dy: 14 })(0, top, text);
    return { top, bars, reward: plot.text({ color: "accent", anchor: "end", dx: 4 - ROOM, dy: kinds[0].offset + BAR - 3 }) };
  });

  const tell = readout(el, [
    { key: "kl", label: "KL(π* ‖ π_{ref})", color: "policy" },
    { key: "reward", label: "expected reward E[r]", color: "accent" },
    { key: "objective", label: "E[r] − β KL" },
  ]);

  return {
    update(state) {
      const now = optimum(state, spec.data);
      const rewards = rewardsOf(state, spec.data);
      views.forEach(({ top, bars, reward }, i) => {
        reward(1, top, `r = ${fmt(rewards[i], 2)}`);
        bars[0](reference[i]);
        bars[1](now.probabilities[i]);
      });
      tell("kl", `${fmt(now.kl, 3)} nats`);
      tell("reward", fmt(now.reward, 3));
      tell("objective", fmt(now.objective, 3));
    },
    describe(state) {
      const now = optimum(state, spec.data);
      const top = now.probabilities.indexOf(Math.max(...now.probabilities));
      return (
        `At β = ${fmt(state.beta, 2)} the likeliest is “${responses[top]}” with ` +
        `${fmt(now.probabilities[top], 3)}. KL is ${fmt(now.kl, 3)}, the expected reward ${fmt(now.reward, 3)}.`
      );
    },
  };
}
