// Drawing responses token by token, as in dpo_lib/models/sampling.py, with kept keys and values.

import { softmax } from "./layers.js";
import { pack } from "./tiny_gpt.js";

// One response to each prompt (token ids), until EOS or maxNewTokens; temperature 0 takes the likeliest.
// Every round draws one number for each response still running, in order.
export function sample(model, prompts, { eosId, uniform, maxNewTokens = 24, temperature = 1 }) {
  const { vocab_size: V, width: D, layers } = model.config;
  let batch = pack(prompts.map((prompt) => [prompt, [eosId]])); // what a response's first token follows
  let places = batch.tokens.length; // where tokens stand: all prompts, then what is drawn
  const past = Array.from({ length: layers }, () => new Float64Array(3 * D * (places + prompts.length * maxNewTokens)));
  const replies = batch.rows.map((row) => ({ tokens: [], finished: false, seen: batch.seen[row] }));
  for (let running = replies, made = 0; made < maxNewTokens && running.length; made++) {
    const { logits } = model.forward(batch, past); // (running, V)
    running.forEach((reply, r) => {
      reply.tokens.push(choose(logits.subarray(r * V, r * V + V), temperature, uniform));
      reply.finished = reply.tokens.at(-1) === eosId;
      reply.seen = [...reply.seen, places++];
    });
    running = running.filter(({ finished }) => !finished);
    batch = {
      tokens: running.map(({ tokens }) => tokens.at(-1)),
      seen: running.map(({ seen }) => seen),
      rows: [...running.keys()],
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
