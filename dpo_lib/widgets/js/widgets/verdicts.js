// Chapter 8: one pair on the axis of log π. The naive reward compares where the arrows end, the DPO
// reward how far they go.

import { btProbability, dpoReward } from "../math.js";
import { createPlot } from "../plot.js";
import { assign, button, fmt, h, readout } from "../ui.js";

const LOWEST = -1.2;
const TIE = 1e-9; // rewards closer than this are equal: their difference is rounding
const ROWS = { w: 1, l: 0 };

// Both rewards of both responses, and the probability that follows from the DPO rewards.
export function rewards({ policy_w, policy_l, reference_w, reference_l, beta }) {
  const dpo = [dpoReward(policy_w, reference_w, beta), dpoReward(policy_l, reference_l, beta)];
  return { naive: [policy_w, policy_l], dpo, probability: btProbability(dpo[0], dpo[1]) };
}

function preferred([winner, loser]) {
  if (Math.abs(winner - loser) <= TIE) return "neither";
  return winner > loser ? "winner" : "loser";
}

export function verdict(pair) {
  const name = preferred(pair);
  return name === "neither" ? "ties" : `prefers the ${name}`;
}

export function render({ model, el, spec }) {
  const box = h("div");
  el.append(box);
  const plot = createPlot(box, {
    label: "Two rows on the axis of log π, one for each response: an arrow from the reference to the policy.",
    height: 220,
    x: { domain: [LOWEST, 0], label: "log-probability (nats)" },
    y: { domain: [-0.9, 1.6], label: "", ticks: 0 },
    margin: { left: 14, top: 8 },
  });
  const rows = ["w", "l"].map((side) => {
    const color = side === "w" ? "chosen" : "rejected";
    return {
      side,
      name: side === "w" ? "winner" : "loser",
      arrow: plot.segment({ color, className: "dpo-thick" }),
      reference: plot.dot({ color: "reference", r: 6 }),
      policy: plot.dot({ color, r: 8 }),
      label: plot.text({ color, dx: 0, dy: -16 }),
      start: plot.text({ color: "reference", dx: 0, dy: 24 }),
    };
  });

  const scale = plot.text({ dx: 2, dy: -6 });

  const set = readout(el, [
    { key: "naive", label: "log π prefers" },
    { key: "dpo", label: "r̂ prefers" },
    { key: "w", label: "r̂(y_w)", color: "chosen" },
    { key: "l", label: "r̂(y_l)", color: "rejected" },
    { key: "p", label: "P(winner)" },
  ]);

  const examples = spec.data.examples.map(([name, policy_w, policy_l, reference_w, reference_l]) =>
    button(name, () => assign(model, { policy_w, policy_l, reference_w, reference_l })),
  );
  el.append(h("div", { class: "dpo-actions", role: "group", "aria-label": "Examples" }, ...examples));

  return {
    update(state) {
      const now = rewards(state);
      rows.forEach((row, i) => {
        const [policy, reference, y] = [state[`policy_${row.side}`], state[`reference_${row.side}`], ROWS[row.side]];
        row.arrow(reference, y, policy, y);
        row.reference(reference, y);
        row.policy(policy, y);
        const ratio = policy - reference;
        const sign = ratio > 0 ? "+" : "";
        row.label(policy, y, `${row.name} ${fmt(policy, 3)}, change ${sign}${fmt(ratio, 4)}`, "middle");
        row.start(reference, y, `π_{ref} ${fmt(reference, 3)}`, "middle");
        set(row.side, fmt(now.dpo[i], 4));
      });
      scale(LOWEST, -0.9, `r̂ = ${fmt(state.beta, 2)} · change`);
      set("naive", preferred(now.naive));
      set("dpo", preferred(now.dpo));
      set("p", fmt(now.probability, 4));
    },
    describe(state) {
      const now = rewards(state);
      return (
        `log π ${verdict(now.naive)}. The DPO reward ${verdict(now.dpo)}: ` +
        `${fmt(now.dpo[0], 4)} against ${fmt(now.dpo[1], 4)}, P = ${fmt(now.probability, 4)}.`
      );
    },
  };
}
