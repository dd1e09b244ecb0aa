"use strict";
// The model's equations, as those of `chargen/decoding/numpy_engine.py`, and what it has read lately.

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}

// Arrays of a model by name: vectors are float32, matrices int8 with a scale for each row.
class Arrays {
  constructor(packed) {
    this.packed = packed;
  }

  vector(name) {
    return new Float32Array(bytesOf(this.packed[name]).buffer);
  }

  matrix(name) {
    const whole = new Int8Array(bytesOf(this.packed[name]).buffer), scales = this.vector(`${name}.scale`);
    const matrix = new Float32Array(whole.length), columns = whole.length / scales.length;
    for (let row = 0, at = 0; row < scales.length; row++) {
      for (const stop = at + columns; at < stop; at++) matrix[at] = whole[at] * scales[row];
    }
    return matrix;
  }
}

// out = matrix x + bias. Four rows at a time read each number of x once, and their sums do not wait for each other. This is
// where nearly all time goes: wider blocks, other orders in memory and float64 gain or lose less than a tenth.
function multiply(matrix, x, columns, bias, out) {
  const rows = bias.length, blocked = rows - (rows % 4);
  for (let row = 0, first = 0; row < blocked; row += 4, first += 4 * columns) {
    const second = first + columns, third = second + columns, fourth = third + columns;
    let a = bias[row], b = bias[row + 1], c = bias[row + 2], d = bias[row + 3];
    for (let column = 0; column < columns; column++) {
      const value = x[column];
      a += matrix[first + column] * value;
      b += matrix[second + column] * value;
      c += matrix[third + column] * value;
      d += matrix[fourth + column] * value;
    }
    out[row] = a;
    out[row + 1] = b;
    out[row + 2] = c;
    out[row + 3] = d;
  }
  for (let row = blocked; row < rows; row++) {
    let sum = bias[row];
    for (let column = 0; column < columns; column++) sum += matrix[row * columns + column] * x[column];
    out[row] = sum;
  }
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

// `state` (h) becomes the state after a character; `inputs` and `states` are the sums over them, (3 H) each.
function stepGru(inputs, states, state, size) {
  for (let unit = 0; unit < size; unit++) {
    const reset = sigmoid(inputs[unit] + states[unit]);
    const update = sigmoid(inputs[size + unit] + states[size + unit]);
    const fresh = Math.tanh(inputs[2 * size + unit] + reset * states[2 * size + unit]);
    state[unit] = (1 - update) * fresh + update * state[unit];
  }
}

// The same of an LSTM: (4 H) sums, and a state of h, then c.
function stepLstm(inputs, states, state, size) {
  for (let unit = 0; unit < size; unit++) {
    const enter = sigmoid(inputs[unit] + states[unit]);
    const forget = sigmoid(inputs[size + unit] + states[size + unit]);
    const fresh = Math.tanh(inputs[2 * size + unit] + states[2 * size + unit]);
    const leave = sigmoid(inputs[3 * size + unit] + states[3 * size + unit]);
    const cell = forget * state[size + unit] + enter * fresh;
    state[size + unit] = cell;
    state[unit] = leave * Math.tanh(cell);
  }
}

const TABLE_ROWS = 1000;

class Network {
  // One direction of a model; what it shares with the other comes from `shared`, where that is there.
  constructor(model, direction, shared) {
    const arrays = new Arrays(model.arrays), lstm = model.cell === "lstm";
    this.size = model.hidden;
    this.stateSize = (lstm ? 2 : 1) * model.hidden;
    this.stepCell = lstm ? stepLstm : stepGru;
    this.firstBegin = model.size - model.begins;
    this.inputs = model.inputs;
    this.embedding = shared ? shared.embedding : arrays.matrix("embedding.weight");
    this.output = shared ? shared.output : model.tied ? this.embedding : arrays.matrix("output.weight");
    this.bias = shared ? shared.bias : arrays.vector("output.bias");
    this.layers = Array.from({ length: model.layers }, (_, layer) => {
      const name = `${direction}_layers.${layer}.`;
      const read = { fromInput: arrays.matrix(`${name}weight_ih_l0`), fromState: arrays.matrix(`${name}weight_hh_l0`) };
      return { ...read, inputBias: arrays.vector(`${name}bias_ih_l0`), stateBias: arrays.vector(`${name}bias_hh_l0`) };
    });
    const sums = this.layers[0].inputBias.length;
    this.inputSums = new Float32Array(sums);
    this.stateSums = new Float32Array(sums);
    // Of the first layer, the sums over the input by id: of the first characters that come, which are the most frequent.
    this.table = new Map();
    this.counts = model.counts;
    this.memory = new Memory();
    this.busy = false;
  }

  start() {
    return this.layers.map(() => new Float32Array(this.stateSize));
  }

  sumsOf(id) {
    const kept = this.table.get(id);
    if (kept) return kept;
    const { fromInput, inputBias } = this.layers[0], start = id * this.inputs;
    const sums = this.table.size < TABLE_ROWS ? new Float32Array(inputBias.length) : this.inputSums;
    multiply(fromInput, this.embedding.subarray(start, start + this.inputs), this.inputs, inputBias, sums);
    if (sums !== this.inputSums) this.table.set(id, sums);
    return sums;
  }

  // Lets `state` read an id; a state is zero before a begin symbol.
  step(id, state) {
    if (id >= this.firstBegin) for (const layer of state) layer.fill(0);
    let sums = this.sumsOf(id), below = null;
    this.layers.forEach(({ fromInput, fromState, inputBias, stateBias }, number) => {
      const layer = state[number];
      if (below) multiply(fromInput, below, this.size, inputBias, sums = this.inputSums);
      multiply(fromState, layer, this.size, stateBias, this.stateSums);
      this.stepCell(sums, this.stateSums, layer, this.size);
      below = layer;
    });
  }

  // The logits (V) of what follows, in `out`.
  predict(state, out) {
    multiply(this.output, state[state.length - 1], this.size, this.bias, out);
    if (!out.every(Number.isFinite)) {
      throw new Error("the model's predictions are not finite: its weights are too large to compute with");
    }
  }
}

const SPACING = 64, TEXTS = 8, TEXT_NUMBERS = 2 ** 20;

function copyState(state) {
  return state.map((layer) => layer.slice());
}

// A text that a network has read: its ids, the state behind them, and marks { at, state } behind beginnings of it.
class Reading {
  // Goes on from the last of some marks of these ids.
  constructor(network, ids, marks) {
    const last = marks.at(-1);
    this.network = network;
    this.ids = ids.slice(0, last ? last.at : 0);
    this.state = last ? copyState(last.state) : network.start();
    this.marks = marks;
  }

  advance(id) {
    this.network.step(id, this.state);
    this.ids.push(id);
    if (this.ids.length % SPACING === 0) this.mark();
  }

  predict(out) {
    if (this.ids.length) this.network.predict(this.state, out);
    else this.network.counts.forEach((count, id) => { out[id] = Math.log(Math.max(count, 1e-9)); });
  }

  mark() {
    if (this.marks.length && this.marks.at(-1).at === this.ids.length) return;
    this.marks.push({ at: this.ids.length, state: copyState(this.state) });
    const limit = Math.max(16, TEXT_NUMBERS / (this.state.length * this.network.stateSize)), { length } = this.marks;
    if (length > limit) this.marks = this.marks.filter((_, place) => (length - 1 - place) % 2 === 0);
  }

  // Remembers this text, of which more can be read nevertheless.
  close() {
    this.mark();
    this.network.memory.keep(this);
  }
}

// What was read last, so that a draft that grows, or changes near its end, is not read again: 8 texts with a state behind
// every 64th id and the last, together at most 32 MB (where states are larger than 256 KB, 16 a text). When a text has too
// many, every other goes, so that they stay closest near its end. A state is the one that reading from the start gives.
class Memory {
  constructor() {
    this.texts = [];
  }

  // The reading of some ids that goes on from the longest beginning of theirs that is known.
  recall(network, ids) {
    let best = [];
    for (const text of this.texts) {
      const different = text.ids.findIndex((id, at) => id !== ids[at]);
      const marks = different < 0 ? text.marks : text.marks.filter(({ at }) => at <= different);
      if (marks.length && (!best.length || marks.at(-1).at > best.at(-1).at)) best = marks;
    }
    return new Reading(network, ids, [...best]);
  }

  // What another text begins with needs no place of its own.
  keep(text) {
    const others = this.texts.filter(({ ids }) => ids.some((id, at) => id !== text.ids[at]));
    this.texts = [text, ...others].slice(0, TEXTS);
  }
}
