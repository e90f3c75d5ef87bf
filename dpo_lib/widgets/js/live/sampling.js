// Drawing responses token by token, as in dpo_lib/models/sampling.py, with kept keys and values.

import { softmax } from "./layers.js";
import { pack } from "./tiny_gpt.js";

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
  const starts = [];
  let places = 0; // in the kept keys and values: room for each prompt and its whole response
  for (const prompt of prompts) {
    starts.push(places);
    places += prompt.length + maxNewTokens;
  }
  const room = () => new Float64Array(places * D);
  const past = Array.from({ length: layers }, () => ({ keys: room(), values: room() }));
  let batch = pack(prompts.map((prompt) => [prompt, [eosId]])); // reads the last row of each prompt
  batch.own = prompts.flatMap((prompt, i) => prompt.map(() => starts[i]));
  batch.prompt = batch.promptEnd = batch.own; // one text, no prompt apart
  batch.place = prompts.flatMap((prompt, i) => prompt.map((_, j) => starts[i] + j));
  const replies = prompts.map(() => ({ tokens: [], finished: false }));
  let running = prompts.map((_, i) => i);
  for (let round = 0; round < maxNewTokens && running.length; round++) {
    const { logits } = model.forward(batch, past);
    running.forEach((i, r) => {
      const token = choose(logits, r * V, V, temperature, uniform);
      replies[i].tokens.push(token);
      replies[i].finished = token === eosId;
    });
    running = running.filter((i) => !replies[i].finished);
    const own = running.map((i) => starts[i]);
    const positions = running.map((i) => prompts[i].length + round);
    batch = {
      N: running.length,
      tokens: running.map((i) => replies[i].tokens[round]),
      rows: running.map((_, n) => n),
      place: positions.map((position, n) => own[n] + position),
      positions, own, prompt: own, promptEnd: own,
    };
  }
  return replies;
}

function choose(logits, start, V, temperature, uniform) {
  if (temperature === 0) {
    let best = 0;
    for (let v = 1; v < V; v++) if (logits[start + v] > logits[start + best]) best = v;
    return best;
  }
  for (let v = start; v < start + V; v++) logits[v] /= temperature;
  softmax(logits, start, V);
  let total = 0;
  for (let v = start; v < start + V; v++) logits[v] = total += logits[v]; // cumulative
  const draw = uniform() * total;
  let token = 0;
  while (logits[start + token] <= draw) token += 1;
  return token;
}

// KL(π ‖ π_ref) in nats from responses that π gave: k1 of dpo_lib/evaluation.py, the mean log-ratio.
export function klFromSamples(policy, reference, batch) {
  const under = reference.logProbs(batch);
  return policy.logProbs(batch).reduce((sum, logp, i) => sum + (logp - under[i]) / batch.count, 0);
}
