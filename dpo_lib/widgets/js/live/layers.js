// The parts of a transformer and the derivative of each, by hand. All arrays are Float64Array, row by
// row. A function *Backward takes the derivative of the loss by the output ("d…"), gives that by the
// input, and adds those by the weights to the arrays it is handed.

// C = A Bᵀ: A (N, K), B (M, K) to C (N, M). Nine sums at once: three rows of A with three of B. At an
// edge the last row stands in for those that are missing, and its sums are written more than once.
function timesTransposed(A, B, N, M, K) {
  const C = new Float64Array(N * M);
  for (let n = 0; n < N; n += 3) {
    const n1 = Math.min(n + 1, N - 1), n2 = Math.min(n + 2, N - 1);
    const a0 = n * K, a1 = n1 * K, a2 = n2 * K;
    for (let m = 0; m < M; m += 3) {
      const m1 = Math.min(m + 1, M - 1), m2 = Math.min(m + 2, M - 1);
      const b0 = m * K, b1 = m1 * K, b2 = m2 * K;
      let s00 = 0, s01 = 0, s02 = 0, s10 = 0, s11 = 0, s12 = 0, s20 = 0, s21 = 0, s22 = 0;
      for (let k = 0; k < K; k++) {
        const p = A[a0 + k], q = A[a1 + k], r = A[a2 + k];
        const u = B[b0 + k], v = B[b1 + k], w = B[b2 + k];
        s00 += p * u; s01 += p * v; s02 += p * w;
        s10 += q * u; s11 += q * v; s12 += q * w;
        s20 += r * u; s21 += r * v; s22 += r * w;
      }
      C[n * M + m] = s00; C[n * M + m1] = s01; C[n * M + m2] = s02;
      C[n1 * M + m] = s10; C[n1 * M + m1] = s11; C[n1 * M + m2] = s12;
      C[n2 * M + m] = s20; C[n2 * M + m1] = s21; C[n2 * M + m2] = s22;
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

// Rows of a table, or of a layer's output: x (T, D) and N indices to (N, D).
export function gather(x, indices, D) {
  const y = new Float64Array(indices.length * D);
  indices.forEach((row, n) => y.set(x.subarray(row * D, row * D + D), n * D));
  return y;
}

export function gatherBackward(dy, indices, dx, D) {
  indices.forEach((row, n) => {
    for (let d = 0; d < D; d++) dx[row * D + d] += dy[n * D + d];
  });
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

// In place: zero where y, the output, is not positive. The derivative has the same zeros.
export function relu(x, y = x) {
  for (let i = 0; i < x.length; i++) if (y[i] <= 0) x[i] = 0;
  return x;
}

// Each row to mean 0 and variance 1, then weight and bias: x (N, D) to y (N, D).
export function layerNorm(x, weight, bias, N, D) {
  const y = new Float64Array(N * D);
  const normal = new Float64Array(N * D); // before weight and bias
  const scale = new Float64Array(N); // 1 / standard deviation
  for (let n = 0, row = 0; n < N; n++, row += D) {
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

// Each row gathers from the places that it may see, seen[n], of which the last is its own. past (places,
// 3D) holds queries, keys and values of all that was read, in training the rows themselves: qkv (N, 3D).
export function attention(qkv, past, seen, H, D) {
  const N = seen.length, size = D / H;
  if (past !== qkv) seen.forEach((places, n) => past.set(qkv.subarray(3 * n * D, 3 * (n + 1) * D), 3 * places.at(-1) * D));
  const weights = new Float64Array(seen.reduce((sum, places) => sum + H * places.length, 0)); // row by row, head by head, place by place
  const gathered = new Float64Array(N * D); // (N, D)
  for (let n = 0, at = 0; n < N; n++) {
    const places = seen[n], count = places.length;
    for (let h = 0; h < D; h += size, at += count) { // h: where the head starts
      const query = 3 * n * D + h, to = n * D + h;
      for (let j = 0; j < count; j++) {
        const key = (3 * places[j] + 1) * D + h;
        let score = 0;
        for (let d = 0; d < size; d++) score += qkv[query + d] * past[key + d];
        weights[at + j] = score / Math.sqrt(size);
      }
      softmax(weights, at, count);
      for (let j = 0; j < count; j++) {
        const value = (3 * places[j] + 2) * D + h;
        for (let d = 0; d < size; d++) gathered[to + d] += weights[at + j] * past[value + d];
      }
    }
  }
  return { gathered, weights };
}

export function attentionBackward(dGathered, qkv, weights, seen, H, D) {
  const N = seen.length, size = D / H;
  const dQkv = new Float64Array(3 * N * D), dWeights = new Float64Array(N);
  for (let n = 0, at = 0; n < N; n++) {
    const places = seen[n], count = places.length;
    for (let h = 0; h < D; h += size, at += count) {
      const query = 3 * n * D + h, from = n * D + h;
      let along = 0; // Σ weight · its derivative: what softmax takes away from each
      for (let j = 0; j < count; j++) {
        const value = (3 * places[j] + 2) * D + h;
        dWeights[j] = 0;
        for (let d = 0; d < size; d++) {
          dWeights[j] += dGathered[from + d] * qkv[value + d];
          dQkv[value + d] += weights[at + j] * dGathered[from + d];
        }
        along += weights[at + j] * dWeights[j];
      }
      for (let j = 0; j < count; j++) {
        const key = (3 * places[j] + 1) * D + h;
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
