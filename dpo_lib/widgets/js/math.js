// The mathematics of the book in forms that stay finite at any input; tested against dpo_lib.

// exp(-x) is ∞ only where σ(x) is below 1e-308: it is 0 then.
export const sigmoid = (x) => 1 / (1 + Math.exp(-x));

export const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

export const btProbability = (chosenScore, rejectedScore) => sigmoid(chosenScore - rejectedScore);

export const preferenceNll = (chosenScore, rejectedScore) => softplus(rejectedScore - chosenScore);

// Slopes in the score gap Δr of −log P and of 1 − P.
export const nllSlope = (gap) => -sigmoid(-gap);

export const complementSlope = (gap) => -sigmoid(gap) * sigmoid(-gap);

export const dpoReward = (policyLogp, referenceLogp, beta) => beta * (policyLogp - referenceLogp);

// One pair: the loss and everything the reader may want to see of it. `weight` is σ(−z) without
// smoothing; the slopes are those of the loss in the two policy log-probabilities.
export function dpoLoss(policyChosen, policyRejected, referenceChosen, referenceRejected, beta, smoothing = 0) {
  const chosenReward = dpoReward(policyChosen, referenceChosen, beta);
  const rejectedReward = dpoReward(policyRejected, referenceRejected, beta);
  const margin = chosenReward - rejectedReward;
  const loss = (1 - smoothing) * softplus(-margin) + smoothing * softplus(margin);
  const weight = (1 - smoothing) * sigmoid(-margin) - smoothing * sigmoid(margin);
  return {
    loss,
    chosenReward,
    rejectedReward,
    margin,
    probability: sigmoid(margin),
    weight,
    chosenSlope: -beta * weight,
    rejectedSlope: beta * weight,
  };
}

export const sum = (values) => values.reduce((total, value) => total + value, 0);
export const mean = (values) => sum(values) / values.length;

export function logSumExp(values) {
  const top = Math.max(...values);
  return top + Math.log(sum(values.map((value) => Math.exp(value - top))));
}

export function logSoftmax(logits) {
  const total = logSumExp(logits);
  return logits.map((logit) => logit - total);
}

export const softmax = (logits) => logSoftmax(logits).map(Math.exp);

// π*(y) ∝ π_ref(y) exp(r(y)/β), from probabilities and rewards of all responses.
export const piStar = (referenceProbs, rewards, beta) =>
  softmax(referenceProbs.map((p, i) => Math.log(p) + rewards[i] / beta));

export const klDivergence = (p, q) =>
  sum(p.map((value, i) => (value > 0 ? value * Math.log(value / q[i]) : 0)));
