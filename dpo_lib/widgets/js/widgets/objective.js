// Chapter 9: J along one probability, below its ceiling β log Z, for a policy set by hand.

import { klDivergence, logSumExp, piStar, sum } from "../math.js";
import { createPlot } from "../plot.js";
import { fmt, h, readout, table } from "../ui.js";

// reward − leash = objective = ceiling − gap, for the policy that the sliders give.
export function parts({ first, share, beta }, { reference, rewards }) {
  const policy = [first, (1 - first) * share, (1 - first) * (1 - share)];
  const best = piStar(reference, rewards, beta);
  const reward = sum(policy.map((p, i) => p * rewards[i]));
  const leash = beta * klDivergence(policy, reference);
  const ceiling = beta * logSumExp(reference.map((p, i) => Math.log(p) + rewards[i] / beta));
  return { policy, best, reward, leash, objective: reward - leash, ceiling, gap: beta * klDivergence(policy, best) };
}

export function render({ el, spec }) {
  const { responses, reference } = spec.data;
  const box = h("div");
  el.append(box);
  const plot = createPlot(box, {
    label: `J against the probability of ${responses[0]}: a hill below the level line β log Z, with your policy on it.`,
    height: (width) => (width < 480 ? 280 : 340),
    x: { domain: [0, 1], label: `probability of ${responses[0]}` },
    y: { domain: [-1.5, 2.2], label: "expected reward, and what the leash leaves of it" },
  });
  const ceiling = plot.segment({ color: "ink" });
  const ceilingName = plot.text({ dy: -8 });
  const reward = plot.curve({ color: "accent", className: "dpo-drop" });
  const rewardName = plot.text({ color: "accent", anchor: "end", dx: 10, dy: -4 });
  const hill = plot.curve({ color: "policy" });
  const hillName = plot.text({ color: "policy", dx: 6, dy: 18 });
  const gap = plot.segment({ color: "ink", className: "dpo-thick", clip: false });
  const leash = plot.segment({ color: "reference", className: "dpo-drop", clip: false });
  const point = plot.dot({ color: "policy", r: 7 });

  const sums = h("div", { class: "dpo-objective" });
  el.append(sums);
  const tell = readout(sums, [
    { key: "reward", label: "E[r]", color: "accent" },
    { key: "leash", label: "− β KL(π ‖ π_{ref})", color: "reference" },
    { key: "objective", label: "= J", color: "policy" },
    { key: "ceiling", label: "β log Z" },
    { key: "gap", label: "− β KL(π ‖ π*)" },
    { key: "again", label: "= J", color: "policy" },
  ]);
  const cell = table(el, {
    caption: "The probabilities of the three responses",
    corner: "probability",
    columns: ["π_{ref}", "your π", "π*"],
    rows: responses.map((label) => ({ label })),
  });

  return {
    update(state) {
      const now = parts(state, spec.data);
      const along = (key) => (first) => parts({ ...state, first: Math.min(Math.max(first, 1e-9), 1 - 1e-9) }, spec.data)[key];
      ceiling(0, now.ceiling, 1, now.ceiling);
      ceilingName(0.02, now.ceiling, `ceiling β log Z = ${fmt(now.ceiling, 3)}`);
      reward(along("reward"));
      rewardName(0.94, along("reward")(0.94), "E[r]");
      hill(along("objective"));
      hillName(0.02, along("objective")(0.05), "J");
      gap(state.first, now.objective, state.first, now.ceiling);
      leash(state.first, now.objective, state.first, now.reward);
      point(state.first, now.objective);
      tell("reward", fmt(now.reward, 3));
      tell("leash", fmt(now.leash, 3));
      tell("objective", fmt(now.objective, 3));
      tell("ceiling", fmt(now.ceiling, 3));
      tell("gap", fmt(now.gap, 3));
      tell("again", fmt(now.objective, 3));
      responses.forEach((_, row) => {
        [reference, now.policy, now.best].forEach((policy, column) => cell(row, column, fmt(policy[row], 3)));
      });
    },
    describe(state) {
      const now = parts(state, spec.data);
      return (
        `With ${now.policy.map((p) => fmt(p, 3)).join(", ")}, J is ${fmt(now.objective, 3)}. The ceiling is ` +
        `${fmt(now.ceiling, 3)}, and the gap, β KL(π ‖ π*), is ${fmt(now.gap, 3)}.`
      );
    },
  };
}
