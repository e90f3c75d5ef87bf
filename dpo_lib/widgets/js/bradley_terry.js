// Scores of the Bradley–Terry model by maximum likelihood, as in dpo_lib/preference.py.

import { mean, sum } from "./math.js";

const STEPS = 100_000;
const TOLERANCE = 1e-13; // nats

// wins[i][j]: how often i was chosen over j; 0 where they are one.
// [i, j] where no chain of wins leads from i to j, so that no finite scores exist; else null.
export function noChain(wins) {
  const reach = wins.map((row, i) => row.map((count, j) => count > 0 || i === j));
  const all = [...wins.keys()];
  for (const via of all) for (const i of all) for (const j of all) reach[i][j] ||= reach[i][via] && reach[via][j];
  const from = all.find((i) => reach[i].includes(false));
  return from === undefined ? null : [from, reach[from].indexOf(false)];
}

// Scores (nats) of mean 0, by Zermelo's rule: strength = wins / Σ games / (sum of both strengths).
export function fitBradleyTerry(wins) {
  let scores = wins.map(() => 0);
  for (let step = 0; step < STEPS; step++) {
    const strengths = scores.map(Math.exp);
    const free = wins.map((row, i) =>
      Math.log(sum(row) / sum(row.map((won, j) => (won + wins[j][i]) / (strengths[i] + strengths[j])))),
    );
    const middle = mean(free);
    const next = free.map((score) => score - middle);
    const moved = Math.max(...next.map((score, i) => Math.abs(score - scores[i])));
    scores = next;
    if (moved < TOLERANCE) break;
  }
  return scores;
}
