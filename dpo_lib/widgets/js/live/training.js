// One update on preference pairs, as in dpo_lib/training: the losses of a pair, their slopes, AdamW.

import { pack, views } from "./tiny_gpt.js";

const logSigmoid = (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));
const sigmoid = (x) => Math.exp(logSigmoid(x));

// Each loss takes log π and log π_ref of the chosen and the rejected response (nats) and β; it gives its
// value and its slopes by the policy's two numbers. ``rewards`` are what accuracy compares.
function dpo(chosen, rejected, referenceChosen, referenceRejected, beta) {
  const rewards = [beta * (chosen - referenceChosen), beta * (rejected - referenceRejected)];
  const margin = rewards[0] - rewards[1];
  const weight = sigmoid(-margin);
  return { loss: -logSigmoid(margin), dChosen: -beta * weight, dRejected: beta * weight, rewards };
}
const naive = (chosen, rejected, _, __, beta) => dpo(chosen, rejected, 0, 0, beta);
const sft = (chosen, rejected, ...rest) => ({ loss: -chosen, dChosen: -1, dRejected: 0, rewards: dpo(chosen, rejected, ...rest).rewards });

// A loss that gives its value only, such as the reader's own: slopes by central differences.
export const byDifferences = (value, h = 1e-5) => (chosen, rejected, ...rest) => ({
  loss: value(chosen, rejected, ...rest),
  dChosen: (value(chosen + h, rejected, ...rest) - value(chosen - h, rejected, ...rest)) / (2 * h),
  dRejected: (value(chosen, rejected + h, ...rest) - value(chosen, rejected - h, ...rest)) / (2 * h),
  rewards: dpo(chosen, rejected, ...rest).rewards,
});

export const LOSSES = { dpo, naive, sft };

// Longer gradients are scaled down to maxNorm, as by torch's clip_grad_norm_; returns the norm before.
export function clip(gradient, maxNorm) {
  let squares = 0;
  for (const slope of gradient) squares += slope * slope;
  const norm = Math.sqrt(squares);
  const scale = Math.min(1, maxNorm / (norm + 1e-6));
  for (let i = 0; i < gradient.length; i++) gradient[i] *= scale;
  return norm;
}

// torch.optim.AdamW with its defaults; weight decay on matrices only.
export class AdamW {
  constructor(model, rate, decay = 0) {
    const zeros = () => new Float64Array(model.all.length);
    Object.assign(this, { model, rate, decay: zeros(), mean: zeros(), square: zeros(), steps: 0 });
    const decays = views(model.shapes, this.decay);
    for (const [name, ...shape] of model.shapes) if (shape.length > 1) decays[name].fill(decay);
  }

  step(gradient) {
    const { model: { all }, mean, square, decay, rate } = this;
    this.steps += 1;
    const rescaleMean = 1 / (1 - 0.9 ** this.steps);
    const rescaleSquare = 1 / (1 - 0.999 ** this.steps);
    for (let i = 0; i < all.length; i++) {
      const slope = gradient[i];
      mean[i] = 0.9 * mean[i] + 0.1 * slope;
      square[i] = 0.999 * square[i] + 0.001 * slope * slope;
      all[i] *= 1 - rate * decay[i];
      all[i] -= (rate * mean[i] * rescaleMean) / (Math.sqrt(square[i] * rescaleSquare) + 1e-8);
    }
  }
}

// pairs: [{ prompt, chosen, rejected }] as token ids. Log-probabilities as [[chosen, rejected], …].
const textsOf = (pairs) => pack(pairs.map(({ prompt, chosen, rejected }) => [prompt, chosen, rejected]));

export function pairLogProbs(model, pairs) {
  const logps = model.logProbs(textsOf(pairs));
  return pairs.map((_, i) => [logps[2 * i], logps[2 * i + 1]]);
}

// One optimizer step on a batch; returns its numbers, those before the update.
// reference: log π_ref of the pairs. loss: one of LOSSES, or byDifferences(…).
export function trainingStep(model, optimizer, pairs, reference, loss, beta, maxNorm = 1) {
  const batch = textsOf(pairs);
  const kept = model.forward(batch);
  const logps = model.logProbs(batch, kept); // (2B,): chosen, rejected, chosen, …
  const slopes = new Float64Array(2 * pairs.length);
  const row = { loss: 0, accuracy: 0, margin: 0, chosen: 0, rejected: 0 };
  const B = pairs.length;
  pairs.forEach((_, i) => {
    const [chosen, rejected] = logps.subarray(2 * i, 2 * i + 2);
    const result = loss(chosen, rejected, ...reference[i], beta);
    const margin = result.rewards[0] - result.rewards[1];
    const tie = Math.abs(margin) < 1e-12 * (1 + Math.abs(chosen) + Math.abs(rejected));
    slopes[2 * i] = result.dChosen / B;
    slopes[2 * i + 1] = result.dRejected / B;
    row.loss += result.loss / B;
    row.accuracy += (tie ? 0.5 : Number(margin > 0)) / B;
    row.margin += margin / B;
    row.chosen += (chosen - reference[i][0]) / B;
    row.rejected += (rejected - reference[i][1]) / B;
  });
  const gradient = model.backward(batch, kept, slopes);
  const norm = clip(gradient, maxNorm);
  if (!Number.isFinite(row.loss) || !Number.isFinite(norm)) {
    throw new Error(`The loss is ${row.loss} and its gradient ${norm}: this update was not made. A lower rate may help.`);
  }
  optimizer.step(gradient);
  return { ...row, norm };
}
