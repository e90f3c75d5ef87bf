// Drawing responses token by token, as in dpo_lib/models/sampling.py, with kept keys and values.

import { softmax } from "./layers.js";

// Uniform numbers in [0, 1) from a seed (mulberry32): the same on every machine.
export function uniformFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

// One response to each prompt (token ids), until EOS or maxNewTokens; temperature 0 takes the likeliest.
// Every round draws one number for each response still running, in order.
export function sample(model, prompts, { eosId, uniform, maxNewTokens = 24, temperature = 1 }) {
  const { vocab_size: V, width: D, layers } = model.config;
  const longest = Math.max(...prompts.map((prompt) => prompt.length)) + maxNewTokens;
  // Queries, keys and values of each layer (places, 3D): a text after the other, each with its own room.
  const past = Array.from({ length: layers }, () => new Float64Array(3 * prompts.length * longest * D));
  const seen = (i, count) => Array.from({ length: count }, (_, j) => i * longest + j);
  const replies = prompts.map(() => ({ tokens: [], finished: false }));
  let running = prompts.map((_, i) => i);
  let ends = 0; // first every prompt is read, of which the last row counts; then the new tokens are
  let batch = {
    tokens: prompts.flat(),
    positions: prompts.flatMap((prompt) => prompt.map((_, j) => j)),
    seen: prompts.flatMap((prompt, i) => prompt.map((_, j) => seen(i, j + 1))),
    rows: prompts.map((prompt) => (ends += prompt.length) - 1),
  };
  for (let round = 1; round <= maxNewTokens && running.length; round++) {
    const { logits } = model.forward(batch, past);
    running.forEach((i, r) => {
      const token = choose(logits.subarray(r * V, r * V + V), temperature, uniform);
      replies[i].tokens.push(token);
      replies[i].finished = token === eosId;
    });
    running = running.filter((i) => !replies[i].finished);
    batch = {
      tokens: running.map((i) => replies[i].tokens.at(-1)),
      positions: running.map((i) => prompts[i].length + round - 1),
      seen: running.map((i) => seen(i, prompts[i].length + round)),
      rows: running.map((_, n) => n),
    };
  }
  return replies;
}

function choose(logits, temperature, uniform) {
  if (temperature === 0) return logits.indexOf(Math.max(...logits));
  const probabilities = logits.map((logit) => logit / temperature);
  softmax(probabilities, 0, probabilities.length);
  let sum = 0;
  const draw = uniform() * probabilities.reduce((a, b) => a + b);
  return probabilities.findIndex((p) => (sum += p) > draw);
}

// KL(π ‖ π_ref) in nats from responses that π gave: k1 of dpo_lib/evaluation.py, the mean log-ratio.
export function klFromSamples(policy, reference, batch) {
  const under = reference.logProbs(batch);
  return policy.logProbs(batch).reduce((sum, logp, i) => sum + (logp - under[i]) / batch.count, 0);
}
