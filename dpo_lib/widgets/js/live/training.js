// One update on preference pairs, as in dpo_lib/training/step.py: log-probabilities, losses, slopes, Adam.

import { dpoLoss, mean } from "../math.js";
import { pack } from "./tiny_gpt.js";

// Each loss takes log π and log π_ref of the chosen and the rejected response (nats) and β; it gives its
// value, its slopes by the policy's two numbers, and the margin of rewards that accuracy compares.
const naive = (chosen, rejected, _, __, beta) => dpoLoss(chosen, rejected, 0, 0, beta);
const sft = (chosen, ...rest) => ({ ...dpoLoss(chosen, ...rest), loss: -chosen, chosenSlope: -1, rejectedSlope: 0 });
export const LOSSES = { dpo: dpoLoss, naive, sft };

// A loss that gives its value only, such as the reader's own: slopes by central differences.
export const byDifferences = (value, h = 1e-5) => (chosen, rejected, ...rest) => ({
  ...dpoLoss(chosen, rejected, ...rest),
  loss: value(chosen, rejected, ...rest),
  chosenSlope: (value(chosen + h, rejected, ...rest) - value(chosen - h, rejected, ...rest)) / (2 * h),
  rejectedSlope: (value(chosen, rejected + h, ...rest) - value(chosen, rejected - h, ...rest)) / (2 * h),
});

// Longer gradients are scaled down to maxNorm, as by torch's clip_grad_norm_; returns the norm before.
export function clip(gradient, maxNorm) {
  let squares = 0;
  for (let i = 0; i < gradient.length; i++) squares += gradient[i] * gradient[i];
  const norm = Math.sqrt(squares);
  const scale = Math.min(1, maxNorm / (norm + 1e-6));
  for (let i = 0; i < gradient.length; i++) gradient[i] *= scale;
  return norm;
}

// torch.optim.AdamW with its defaults and no weight decay, as train_dpo's is.
export class Adam {
  constructor(model, rate) {
    const zeros = () => new Float64Array(model.all.length);
    Object.assign(this, { model, rate, mean: zeros(), square: zeros(), steps: 0 });
  }

  step(gradient) {
    const { model: { all }, mean, square, rate } = this;
    this.steps += 1;
    const rescaleMean = 1 / (1 - 0.9 ** this.steps), rescaleSquare = 1 / (1 - 0.999 ** this.steps);
    for (let i = 0; i < all.length; i++) {
      mean[i] = 0.9 * mean[i] + 0.1 * gradient[i];
      square[i] = 0.999 * square[i] + 0.001 * gradient[i] * gradient[i];
      all[i] -= (rate * mean[i] * rescaleMean) / (Math.sqrt(square[i] * rescaleSquare) + 1e-8);
    }
  }
}

// pairs: [[prompt, chosen, rejected], …] as token ids. Log-probabilities as [[chosen, rejected], …].
export function pairLogProbs(model, pairs, batch = pack(pairs), kept = model.forward(batch)) {
  const logps = model.logProbs(batch, kept); // (2B,): chosen, rejected, chosen, …
  return pairs.map((_, i) => [logps[2 * i], logps[2 * i + 1]]);
}

// 1 where the chosen response has the higher reward; a tie, but for rounding, counts half.
const ranked = (margin, [chosen, rejected]) =>
  Math.abs(margin) < 1e-12 * (1 + Math.abs(chosen) + Math.abs(rejected)) ? 0.5 : Number(margin > 0);

// One optimizer step on a batch; returns its numbers, those before the update.
// reference: log π_ref of the pairs. loss: one of LOSSES, or byDifferences(…).
export function trainingStep(model, optimizer, pairs, reference, loss, beta, maxNorm = 1) {
  const batch = pack(pairs);
  const kept = model.forward(batch);
  const logps = pairLogProbs(model, pairs, batch, kept); // (B, 2)
  const results = logps.map((both, i) => loss(...both, ...reference[i], beta)); // (B,)
  const slopes = results.flatMap((result) => [result.chosenSlope, result.rejectedSlope]); // (2B,)
  const gradient = model.backward(batch, kept, slopes.map((slope) => slope / pairs.length));
  const row = {
    loss: mean(results.map((result) => result.loss)),
    accuracy: mean(results.map(({ margin }, i) => ranked(margin, logps[i]))),
    margin: mean(results.map(({ margin }) => margin)),
    chosen: mean(logps.map(([chosen], i) => chosen - reference[i][0])),
    rejected: mean(logps.map(([, rejected], i) => rejected - reference[i][1])),
    norm: clip(gradient, maxNorm),
  };
  if (!Number.isFinite(row.loss) || !Number.isFinite(row.norm)) {
    throw new Error(`The loss is ${row.loss} and its gradient ${row.norm}: this update was not made. A lower rate may help.`);
  }
  optimizer.step(gradient);
  return row;
}
