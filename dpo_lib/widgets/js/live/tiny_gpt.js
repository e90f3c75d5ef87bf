// TinyGPT, as in dpo_lib/models/tiny_gpt.py, and its derivative. A batch is a list of N rows, a row a
// token: nothing is padded, and the prompt of a pair stands there once. V: vocabulary, D: width.

import { add, attention, attentionBackward, layerNorm, layerNormBackward, linear, linearBackward, relu, reluBackward, softmax } from "./layers.js";

// Named views into one array of all weights, in the order of the model's state_dict.
function views(shapes, all) {
  let start = 0;
  return Object.fromEntries(
    shapes.map(([name, ...shape]) => {
      const size = shape.reduce((a, b) => a * b);
      return [name, all.subarray(start, (start += size))];
    }),
  );
}

// Rows of texts: each [prompt, …responses], token ids. `rows`, `targets` and `texts` say which row
// predicts which token of which response; a response's last token is a target only, never a row.
export function pack(texts) {
  const tokens = [], positions = [], prompt = [], promptEnd = [], own = [];
  const rows = [], targets = [], of = [];
  let count = 0;
  const put = (token, position, start, end, first) => {
    prompt.push(start);
    promptEnd.push(end);
    own.push(first);
    positions.push(position);
    return tokens.push(token) - 1;
  };
  for (const [asked, ...responses] of texts) {
    const start = tokens.length;
    const end = start + asked.length;
    asked.forEach((token, i) => put(token, i, start, start, start));
    for (const response of responses) {
      const first = tokens.length;
      response.forEach((token, i) => {
        rows.push(i ? tokens.length - 1 : end - 1);
        targets.push(token);
        of.push(count);
        if (i + 1 < response.length) put(token, asked.length + i, start, end, first);
      });
      count += 1;
    }
  }
  const place = tokens.map((_, n) => n);
  return { N: tokens.length, tokens, positions, prompt, promptEnd, own, place, rows, targets, of, count };
}

export class TinyGPT {
  // config and shapes as Python exports them; all: every weight, Float64Array
  constructor({ config, shapes }, all) {
    this.config = config;
    this.shapes = shapes;
    this.all = all;
    this.weights = views(shapes, all);
  }

  copy() {
    return new TinyGPT(this, this.all.slice());
  }

  // Logits (R, V) after the R rows that the batch reads, and what the derivative needs of the way there.
  // past: keys and values (places, D) of each layer, where the model goes on from what it has read.
  forward(batch, past = null) {
    const { width: D, heads: H, layers, vocab_size: V, context_length } = this.config;
    const { N, tokens, positions, rows } = batch;
    const w = this.weights;
    if (Math.max(...positions) >= context_length) throw new Error(`a text is longer than ${context_length} tokens`);
    let x = new Float64Array(N * D); // (N, D)
    for (let n = 0; n < N; n++) {
      for (let d = 0; d < D; d++) {
        x[n * D + d] = w["token_embedding.weight"][tokens[n] * D + d] + w["position_embedding.weight"][positions[n] * D + d];
      }
    }
    const blocks = [];
    for (let l = 0; l < layers; l++) {
      const of = (name) => w[`blocks.${l}.${name}`];
      const norm = layerNorm(x, of("attention_norm.weight"), of("attention_norm.bias"), N, D);
      const qkv = linear(norm.y, of("attention.query_key_value.weight"), of("attention.query_key_value.bias"), N, D, 3 * D); // (N, 3D)
      const { keys, values } = past ? past[l] : { keys: new Float64Array(N * D), values: new Float64Array(N * D) };
      const attended = attention(qkv, keys, values, batch, H, D);
      x = add(linear(attended.gathered, of("attention.output.weight"), of("attention.output.bias"), N, D, D), x); // (N, D)
      const mlpNorm = layerNorm(x, of("mlp_norm.weight"), of("mlp_norm.bias"), N, D);
      const inner = relu(linear(mlpNorm.y, of("mlp.0.weight"), of("mlp.0.bias"), N, D, 4 * D)); // (N, 4D)
      x = add(linear(inner, of("mlp.2.weight"), of("mlp.2.bias"), N, 4 * D, D), x); // (N, D)
      blocks.push({ norm, qkv, attended, mlpNorm, inner });
    }
    const R = rows.length;
    const read = new Float64Array(R * D); // the rows that predict something
    rows.forEach((n, r) => read.set(x.subarray(n * D, n * D + D), r * D));
    const finalNorm = layerNorm(read, w["final_norm.weight"], w["final_norm.bias"], R, D);
    const logits = linear(finalNorm.y, w["token_embedding.weight"], null, R, D, V); // (R, V)
    return { logits, blocks, finalNorm };
  }

  // log π of each response of the batch (count), in nats; the logits become probabilities.
  logProbs(batch, kept = this.forward(batch)) {
    const V = this.config.vocab_size;
    const logps = new Float64Array(batch.count);
    batch.targets.forEach((token, r) => {
      const logit = kept.logits[r * V + token];
      logps[batch.of[r]] += logit - softmax(kept.logits, r * V, V);
    });
    return logps;
  }

  // The derivative by all weights, given that by each response's log-probability: dLogps (count).
  // kept: what `forward` gave, after `logProbs` has made its logits probabilities.
  backward(batch, kept, dLogps) {
    const { width: D, heads: H, layers, vocab_size: V } = this.config;
    const { N, tokens, positions, rows, targets, of: text } = batch;
    const w = this.weights;
    const all = new Float64Array(this.all.length);
    const d = views(this.shapes, all);
    const R = rows.length;
    const dLogits = new Float64Array(R * V); // of log softmax: one at the target, minus the probabilities
    for (let r = 0; r < R; r++) {
      const slope = dLogps[text[r]];
      for (let v = 0; v < V; v++) dLogits[r * V + v] = -slope * kept.logits[r * V + v];
      dLogits[r * V + targets[r]] += slope;
    }
    const dNormed = linearBackward(dLogits, kept.finalNorm.y, w["token_embedding.weight"], d["token_embedding.weight"], null, R, D, V);
    const dRead = layerNormBackward(dNormed, kept.finalNorm, w["final_norm.weight"], d["final_norm.weight"], d["final_norm.bias"], R, D);
    const dx = new Float64Array(N * D); // (N, D)
    rows.forEach((n, r) => {
      for (let i = 0; i < D; i++) dx[n * D + i] += dRead[r * D + i];
    });
    for (let l = layers - 1; l >= 0; l--) {
      const of = (from, name) => from[`blocks.${l}.${name}`];
      const { norm, qkv, attended, mlpNorm, inner } = kept.blocks[l];
      const back = (dy, input, name, I, O) =>
        linearBackward(dy, input, of(w, `${name}.weight`), of(d, `${name}.weight`), of(d, `${name}.bias`), N, I, O);
      const dInner = reluBackward(back(dx, inner, "mlp.2", 4 * D, D), inner); // (N, 4D)
      const dMlpNorm = back(dInner, mlpNorm.y, "mlp.0", D, 4 * D); // (N, D)
      add(dx, layerNormBackward(dMlpNorm, mlpNorm, of(w, "mlp_norm.weight"), of(d, "mlp_norm.weight"), of(d, "mlp_norm.bias"), N, D));
      const dGathered = back(dx, attended.gathered, "attention.output", D, D); // (N, D)
      const dQkv = attentionBackward(dGathered, qkv, attended.weights, batch, H, D); // (N, 3D)
      const dNorm = back(dQkv, norm.y, "attention.query_key_value", D, 3 * D); // (N, D)
      add(dx, layerNormBackward(dNorm, norm, of(w, "attention_norm.weight"), of(d, "attention_norm.weight"), of(d, "attention_norm.bias"), N, D));
    }
    for (let n = 0; n < N; n++) {
      for (let i = 0; i < D; i++) {
        d["token_embedding.weight"][tokens[n] * D + i] += dx[n * D + i];
        d["position_embedding.weight"][positions[n] * D + i] += dx[n * D + i];
      }
    }
    return all;
  }
}
