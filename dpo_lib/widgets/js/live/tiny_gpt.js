// TinyGPT, as in dpo_lib/models/tiny_gpt.py, and its derivative. A batch is a list of N rows, a row a
// token: nothing is padded, and the prompt of a pair stands there once. V: vocabulary, D: width.

import { add, gather, gatherBackward, linear, linearBackward, relu } from "./layers.js";
import { attention, attentionBackward, layerNorm, layerNormBackward, softmax } from "./layers.js";

// Named views into one array of all weights, in the order of the model's state_dict.
export function views(shapes, all) {
  let start = 0;
  const view = ([name, ...shape]) => [name, all.subarray(start, (start += shape.reduce((a, b) => a * b)))];
  return Object.fromEntries(shapes.map(view));
}

// Rows of texts: each [prompt, …responses], token ids. seen[n]: the rows that row n may see, itself the last.
// `rows`, `targets` and `of` say which row predicts which token of which response; a response's last token
// is a target only, never a row.
export function pack(texts) {
  const batch = { tokens: [], seen: [], rows: [], targets: [], of: [], count: 0 };
  const put = (token, before) => {
    batch.seen.push([...before, batch.tokens.push(token) - 1]);
    return batch.seen.at(-1);
  };
  for (const [prompt, ...responses] of texts) {
    const read = prompt.reduce((before, token) => put(token, before), []);
    for (const response of responses) {
      response.reduce((before, token, i) => {
        batch.rows.push(before.at(-1));
        batch.targets.push(token);
        batch.of.push(batch.count);
        return i + 1 < response.length ? put(token, before) : before;
      }, read);
      batch.count += 1;
    }
  }
  return batch;
}

export class TinyGPT {
  // config and shapes as Python exports them; all: every weight, Float64Array
  constructor({ config, shapes }, all) {
    Object.assign(this, { config, shapes, all, weights: views(shapes, all) });
  }

  copy() {
    return new TinyGPT(this, this.all.slice());
  }

  // Logits (R, V) after the R rows that the batch reads, and what the derivative needs of the way there.
  // past: keys and values (places, D) of each layer, where the model goes on from what it has read.
  forward({ tokens, seen, rows }, past = null) {
    const { width: D, heads: H, layers, vocab_size: V, context_length } = this.config;
    const w = this.weights;
    const N = tokens.length, R = rows.length;
    const norm = (x, name, n) => layerNorm(x, w[`${name}.weight`], w[`${name}.bias`], n, D);
    const project = (x, name, I, O) => linear(x, w[`${name}.weight`], w[`${name}.bias`], N, I, O);
    const positions = seen.map((places) => places.length - 1);
    if (Math.max(...positions) >= context_length) throw new Error(`a text is longer than ${context_length} tokens`);
    let x = gather(w["token_embedding.weight"], tokens, D); // (N, D)
    add(x, gather(w["position_embedding.weight"], positions, D)); // (N, D)
    const blocks = [];
    for (let l = 0; l < layers; l++) {
      const attentionNorm = norm(x, `blocks.${l}.attention_norm`, N);
      const qkv = project(attentionNorm.y, `blocks.${l}.attention.query_key_value`, D, 3 * D); // (N, 3D)
      const attended = attention(qkv, past?.[l] ?? qkv, seen, H, D);
      x = add(project(attended.gathered, `blocks.${l}.attention.output`, D, D), x); // (N, D)
      const mlpNorm = norm(x, `blocks.${l}.mlp_norm`, N);
      const inner = relu(project(mlpNorm.y, `blocks.${l}.mlp.0`, D, 4 * D)); // (N, 4D)
      x = add(project(inner, `blocks.${l}.mlp.2`, 4 * D, D), x); // (N, D)
      blocks.push({ attentionNorm, qkv, attended, mlpNorm, inner });
    }
    const finalNorm = norm(gather(x, rows, D), "final_norm", R); // the rows that predict something
    const logits = linear(finalNorm.y, w["token_embedding.weight"], null, R, D, V); // (R, V)
    return { logits, positions, blocks, finalNorm };
  }

  // log π of each token that the batch predicts (R), in nats; the logits become probabilities.
  tokenLogProbs({ targets }, { logits }) {
    const V = this.config.vocab_size;
    return Float64Array.from(targets, (token, r) => logits[r * V + token] - softmax(logits, r * V, V));
  }

  // log π of each response of the batch (count): the sum over its tokens.
  logProbs(batch, kept = this.forward(batch)) {
    const logps = new Float64Array(batch.count);
    this.tokenLogProbs(batch, kept).forEach((logp, r) => (logps[batch.of[r]] += logp));
    return logps;
  }

  // The derivative by all weights, given that by each response's log-probability: dLogps (count).
  // kept: what `forward` gave, after `logProbs` has made its logits probabilities.
  backward({ tokens, seen, rows, targets, of }, kept, dLogps) {
    const { width: D, heads: H, layers, vocab_size: V } = this.config;
    const w = this.weights;
    const all = new Float64Array(this.all.length);
    const d = views(this.shapes, all);
    const N = tokens.length, R = rows.length;
    const both = (name) => [w[`${name}.weight`], d[`${name}.weight`], d[`${name}.bias`]];
    const norm = (dy, at, name, n) => layerNormBackward(dy, at, ...both(name), n, D);
    const project = (dy, x, name, I, O) => linearBackward(dy, x, ...both(name), N, I, O);
    const dLogits = new Float64Array(R * V); // of log softmax: one at the target, minus the probabilities
    targets.forEach((token, r) => {
      for (let i = r * V; i < (r + 1) * V; i++) dLogits[i] = -dLogps[of[r]] * kept.logits[i];
      dLogits[r * V + token] += dLogps[of[r]];
    });
    const dFinalNorm = linearBackward(dLogits, kept.finalNorm.y, ...both("token_embedding"), R, D, V); // (R, D)
    const dx = new Float64Array(N * D); // (N, D)
    gatherBackward(norm(dFinalNorm, kept.finalNorm, "final_norm", R), rows, dx, D);
    for (let l = layers - 1; l >= 0; l--) {
      const { attentionNorm, qkv, attended, mlpNorm, inner } = kept.blocks[l];
      const dInner = relu(project(dx, inner, `blocks.${l}.mlp.2`, 4 * D, D), inner); // (N, 4D)
      const dMlpNorm = project(dInner, mlpNorm.y, `blocks.${l}.mlp.0`, D, 4 * D); // (N, D)
      add(dx, norm(dMlpNorm, mlpNorm, `blocks.${l}.mlp_norm`, N));
      const dGathered = project(dx, attended.gathered, `blocks.${l}.attention.output`, D, D); // (N, D)
      const dQkv = attentionBackward(dGathered, qkv, attended.weights, seen, H, D); // (N, 3D)
      const dAttentionNorm = project(dQkv, attentionNorm.y, `blocks.${l}.attention.query_key_value`, D, 3 * D); // (N, D)
      add(dx, norm(dAttentionNorm, attentionNorm, `blocks.${l}.attention_norm`, N));
    }
    gatherBackward(dx, tokens, d["token_embedding.weight"], D);
    gatherBackward(dx, kept.positions, d["position_embedding.weight"], D);
    return all;
  }
}
