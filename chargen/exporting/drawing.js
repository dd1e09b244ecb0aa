"use strict";
// Which id comes next: addressed randomness as in `chargen/rng.py`, and the choice as in `chargen/decoding/choose.py`.

const LOW = 0xffffffffn, SAMPLE = 4n;

// Philox4x32-10: two of the four words that a counter of four words and a key of two give.
function philox(counter, key) {
  let [x0, x1, x2, x3] = counter, [key0, key1] = key;
  for (let round = 0; round < 10; round++) {
    const product0 = 0xd2511f53n * x0, product1 = 0xcd9e8d57n * x2;
    [x0, x1] = [(product1 >> 32n) ^ x1 ^ key0, product1 & LOW];
    [x2, x3] = [(product0 >> 32n) ^ x3 ^ key1, product0 & LOW];
    key0 = (key0 + 0x9e3779b9n) & LOW;
    key1 = (key1 + 0xbb67ae85n) & LOW;
  }
  return [x0, x1, x2, x3];
}

// The n-th draw of a sample: from 0 to below 1, with 53 random bits.
function uniform(seed, index, n) {
  const draw = BigInt(n);
  const [high, low] = philox([draw & LOW, draw >> 32n, BigInt(index), SAMPLE], [seed & LOW, seed >> 32n]);
  return Number((high << 21n) ^ (low >> 11n)) * 2 ** -53;
}

// An id by inverse CDF in id order, of those that are `allowed`; `weights` is room for as many numbers.
function choose(logits, allowed, draw, temperature, minP, weights) {
  let best = -1, total = 0;
  for (let id = 0; id < logits.length; id++) {
    if (allowed[id] && (best < 0 || logits[id] > logits[best])) best = id;
  }
  if (best < 0) throw new Error("no character may come next");
  if (temperature === 0) return best;
  for (let id = 0; id < logits.length; id++) {
    const weight = allowed[id] ? Math.exp((logits[id] - logits[best]) / temperature) : 0;
    weights[id] = weight >= minP ? weight : 0;
    total += weights[id];
  }
  const limit = draw * total;
  let sum = 0;
  for (let id = 0; id < logits.length; id++) {
    sum += weights[id];
    if (sum > limit) return id;
  }
  return best;
}

// The nats that an id costs, by its logits.
function surprise(logits, id) {
  return logOfSum(logits) - logits[id];
}

function logOfSum(logits) {
  const largest = logits.reduce((left, right) => Math.max(left, right));
  return largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
}

// The likeliest ids, as [id, probability], the likeliest first and of equal ones the lower.
function likeliest(logits, count) {
  const best = [], whole = logOfSum(logits);
  for (let id = 0; id < logits.length; id++) {
    if (best.length === count && logits[id] <= logits[best[count - 1]]) continue;
    let place = best.length;
    while (place && logits[best[place - 1]] < logits[id]) place--;
    best.splice(place, 0, id);
    best.length = Math.min(best.length, count);
  }
  return best.map((id) => [id, Math.exp(logits[id] - whole)]);
}
