// The parts of a transformer and the derivative of each, by hand. All arrays are Float64Array, row by
// row. A function *Backward takes the derivative of the loss by the output ("d…"), gives that by the
// input, and adds those by the weights to the arrays it is handed.

// C = A Bᵀ: A (N, K), B (M, K) to C (N, M). Eight sums at once: four rows of A with two of B.
function timesTransposed(A, B, N, M, K) {
  const C = new Float64Array(N * M);
  const N4 = N - (N % 4);
  const M2 = M - (M % 2);
  for (let n = 0; n < N4; n += 4) {
    const a0 = n * K, a1 = a0 + K, a2 = a1 + K, a3 = a2 + K;
    for (let m = 0; m < M2; m += 2) {
      const b0 = m * K, b1 = b0 + K;
      let s00 = 0, s01 = 0, s10 = 0, s11 = 0, s20 = 0, s21 = 0, s30 = 0, s31 = 0;
      for (let k = 0; k < K; k++) {
        const u = B[b0 + k], v = B[b1 + k];
        const p = A[a0 + k], q = A[a1 + k], r = A[a2 + k], s = A[a3 + k];
        s00 += p * u; s01 += p * v;
        s10 += q * u; s11 += q * v;
        s20 += r * u; s21 += r * v;
        s30 += s * u; s31 += s * v;
      }
      const c = n * M + m;
      C[c] = s00; C[c + 1] = s01;
      C[c + M] = s10; C[c + M + 1] = s11;
      C[c + 2 * M] = s20; C[c + 2 * M + 1] = s21;
      C[c + 3 * M] = s30; C[c + 3 * M + 1] = s31;
    }
  }
  for (let n = 0; n < N; n++) { // what four and two leave over
    for (let m = n < N4 ? M2 : 0; m < M; m++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += A[n * K + k] * B[m * K + k];
      C[n * M + m] = sum;
    }
  }
  return C;
}

function transposed(A, N, M) {
  const B = new Float64Array(N * M);
  for (let n = 0; n < N; n++) for (let m = 0; m < M; m++) B[m * N + n] = A[n * M + m];
  return B;
}

export function add(to, from) {
  for (let i = 0; i < to.length; i++) to[i] += from[i];
  return to;
}

// y = x Wᵀ + b: x (N, I), weight (O, I), bias (O) or null, to (N, O).
export function linear(x, weight, bias, N, I, O) {
  const y = timesTransposed(x, weight, N, O, I); // (N, O)
  if (bias) for (let n = 0, i = 0; n < N; n++) for (let o = 0; o < O; o++, i++) y[i] += bias[o];
  return y;
}

export function linearBackward(dy, x, weight, dWeight, dBias, N, I, O) {
  add(dWeight, timesTransposed(transposed(dy, N, O), transposed(x, N, I), O, I, N)); // (O, I)
  if (dBias) for (let n = 0, i = 0; n < N; n++) for (let o = 0; o < O; o++, i++) dBias[o] += dy[i];
  return timesTransposed(dy, transposed(weight, O, I), N, I, O); // (N, I)
}

export function relu(x) {
  const y = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) if (x[i] > 0) y[i] = x[i];
  return y;
}

export function reluBackward(dy, y) {
  for (let i = 0; i < dy.length; i++) if (y[i] === 0) dy[i] = 0;
  return dy;
}

// Each row to mean 0 and variance 1, then weight and bias: x (N, D) to y (N, D).
export function layerNorm(x, weight, bias, N, D) {
  const y = new Float64Array(N * D);
  const normal = new Float64Array(N * D); // before weight and bias
  const scale = new Float64Array(N); // 1 / standard deviation
  for (let n = 0; n < N; n++) {
    const row = n * D;
    let mean = 0, variance = 0;
    for (let i = row; i < row + D; i++) mean += x[i] / D;
    for (let i = row; i < row + D; i++) variance += (x[i] - mean) ** 2 / D;
    scale[n] = 1 / Math.sqrt(variance + 1e-5); // torch's epsilon
    for (let d = 0, i = row; d < D; d++, i++) {
      normal[i] = (x[i] - mean) * scale[n];
      y[i] = normal[i] * weight[d] + bias[d];
    }
  }
  return { y, normal, scale };
}

export function layerNormBackward(dy, { normal, scale }, weight, dWeight, dBias, N, D) {
  const dx = new Float64Array(N * D);
  for (let n = 0; n < N; n++) {
    let mean = 0, along = 0; // of the derivative by `normal`: its mean, its part along `normal`
    for (let d = 0, i = n * D; d < D; d++, i++) {
      dWeight[d] += dy[i] * normal[i];
      dBias[d] += dy[i];
      const dNormal = dy[i] * weight[d];
      mean += dNormal / D;
      along += (dNormal * normal[i]) / D;
    }
    for (let d = 0, i = n * D; d < D; d++, i++) {
      dx[i] = (dy[i] * weight[d] - mean - normal[i] * along) * scale[n];
    }
  }
  return dx;
}

// Softmax of x[start … start + length) in place; returns the log of the sum of exponentials.
export function softmax(x, start, length) {
  let top = -Infinity, sum = 0;
  for (let i = start; i < start + length; i++) if (x[i] > top) top = x[i];
  for (let i = start; i < start + length; i++) sum += x[i] = Math.exp(x[i] - top);
  for (let i = start; i < start + length; i++) x[i] /= sum;
  return top + Math.log(sum);
}

// Each row gathers from the places it may see: those of its prompt, prompt[n] … promptEnd[n], and those
// of its own text, own[n] … place[n]. qkv (N, 3D) to gathered (N, D); keys and values (places, D)
// hold what the model has read, these rows included.
export function attention(qkv, keys, values, { N, prompt, promptEnd, own, place }, H, D) {
  const size = D / H;
  for (let n = 0; n < N; n++) {
    keys.set(qkv.subarray(3 * n * D + D, 3 * n * D + 2 * D), place[n] * D);
    values.set(qkv.subarray(3 * n * D + 2 * D, 3 * n * D + 3 * D), place[n] * D);
  }
  const seen = (n) => promptEnd[n] - prompt[n] + place[n] + 1 - own[n];
  let room = 0;
  for (let n = 0; n < N; n++) room += H * seen(n);
  const weights = new Float64Array(room); // row by row, head by head, place by place
  const gathered = new Float64Array(N * D); // (N, D)
  for (let n = 0, at = 0; n < N; n++) {
    const count = seen(n);
    const before = promptEnd[n] - prompt[n];
    for (let h = 0; h < H; h++, at += count) {
      const query = 3 * n * D + h * size;
      for (let j = 0; j < count; j++) {
        const key = (j < before ? prompt[n] + j : own[n] + j - before) * D + h * size;
        let score = 0;
        for (let d = 0; d < size; d++) score += qkv[query + d] * keys[key + d];
        weights[at + j] = score / Math.sqrt(size);
      }
      softmax(weights, at, count);
      const to = n * D + h * size;
      for (let j = 0; j < count; j++) {
        const value = (j < before ? prompt[n] + j : own[n] + j - before) * D + h * size;
        for (let d = 0; d < size; d++) gathered[to + d] += weights[at + j] * values[value + d];
      }
    }
  }
  return { gathered, weights };
}

// In training every place is a row: the derivatives by keys and values go to their rows of dQkv (N, 3D).
export function attentionBackward(dGathered, qkv, weights, { N, prompt, promptEnd, own, place }, H, D) {
  const size = D / H;
  const dQkv = new Float64Array(3 * N * D);
  for (let n = 0, at = 0; n < N; n++) {
    const before = promptEnd[n] - prompt[n];
    const count = before + place[n] + 1 - own[n];
    const dWeights = new Float64Array(count);
    for (let h = 0; h < H; h++, at += count) {
      const query = 3 * n * D + h * size;
      const from = n * D + h * size;
      let along = 0; // Σ weight · its derivative: what softmax takes away from each
      for (let j = 0; j < count; j++) {
        const value = 3 * (j < before ? prompt[n] + j : own[n] + j - before) * D + 2 * D + h * size;
        let dWeight = 0;
        for (let d = 0; d < size; d++) {
          dWeight += dGathered[from + d] * qkv[value + d];
          dQkv[value + d] += weights[at + j] * dGathered[from + d];
        }
        dWeights[j] = dWeight;
        along += weights[at + j] * dWeight;
      }
      for (let j = 0; j < count; j++) {
        const key = 3 * (j < before ? prompt[n] + j : own[n] + j - before) * D + D + h * size;
        const dScore = (weights[at + j] * (dWeights[j] - along)) / Math.sqrt(size);
        for (let d = 0; d < size; d++) {
          dQkv[query + d] += dScore * qkv[key + d];
          dQkv[key + d] += dScore * qkv[query + d];
        }
      }
    }
  }
  return dQkv;
}
