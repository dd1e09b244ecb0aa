"use strict";
// The model in a page: reads, writes and scores text in a worker, so that the page never waits.
//
// Messages from the page. Ids are numbers of the page's choice; several jobs may run at once, and take turns of some
// milliseconds. A text is what a person sees, with LF as line ends; nothing in it is taken for markup or for a symbol.
//
//   { kind: "load", model }     model: what `chargen/exporting/page_model.py` writes, parsed. Once, before all others.
//   { kind: "write", id, text, length, until, temperature, minP, seed, index, draws, label, direction }
//     text         what the writing goes on from: the whole draft up to the cursor ("backward": from the cursor on). Of
//                  a model of records only the record at the cursor is read: what stands behind the last
//                  `info.separator` (backward: before the first).
//     length       characters at most; 0 only reads, so that what goes on from there begins at once.
//     until        null, "word", "sentence", "paragraph" or "record" ends it earlier. A word ends before what follows it,
//                  so that the next word begins with its blank; a sentence ends with its stop and closing quotes, a
//                  paragraph before its line end. Null, too, ends at the end of a record.
//     temperature  from 0; minP: 0 to 1, as `chargen.SampleConfig` has them.
//     seed         a string of digits, 0 to 2**64 - 1; index: the number of the alternative, 0 to 2**32 - 1.
//     draws        draws that came before: 0, or what `done` said of the text that ends here, to go on as if the
//                  writing had never stopped.
//     label        one of `info.labels`, or null; direction: "forward" (also where it is left out) or "backward".
//   { kind: "score", id, text, label, from }   from: the number of the first character to be scored; 0 where left out.
//   { kind: "stop", id }        the job ends with `done`; of an unknown id nothing comes.
//
// Messages to the page:
//
//   { kind: "ready", info }     the answer to `load`. info: { cell, layers, hidden, parameters, size (ids), unit,
//     directions, records (boolean), separator (between two records of a draft: a text, or null), labels, normalize ("NFC" or
//     "none"), names (of all ids, for people: quoted characters, "the end", "unknown", "a label"), kept (likeliest ids
//     for each character) }
//   { kind: "text", id, text }  what was written since the last such message, some 30 times a second. Backward it
//     stands before all that came earlier.
//   { kind: "done", id, reason, draws, unknown, end }   no more comes of this job.
//     reason       "length", "until", "end" (of a record: a separator may follow), "stopped", or "scored".
//     draws        to go on from the end of what was written.
//     unknown      the characters of the text that the model does not know, each once: they were read as the symbol for
//                  unknown characters, or passed over where the model has none.
//     end          of a scored record: the bits of its end behind the text; else null.
//   { kind: "scores", id, start, text, bits, likeliest, shares }   of the next n characters (code points) of a scored
//     text, as `chargen.score` gives them.
//     start        the number of the first; text: these characters as the model reads them: with LF as line ends, and
//                  in the normal form of `info.normalize`. Numbers of characters count in the text as it is read.
//     bits         Float32Array (n), the surprise at each, NaN where there is none.
//     likeliest    Uint32Array (n * kept), ids that were likeliest, the likeliest first, and shares: Float32Array
//                  (n * kept), their probabilities, 0 for a character of several bytes. A separator stands for the end of
//                  its record.
//   { kind: "error", id, message }   in place of `done`, or of `ready` (without id).

const SLICE = 10, INTERVAL = 30, KEPT = 5, WAIT = "wait";
const UNTIL = new Set([null, "word", "sentence", "paragraph", "record"]);
let model = null, vocabulary = null, kept = 0, turning = false;
const networks = {}, jobs = new Map(), turns = new MessageChannel();

function load(data) {
  model = data;
  vocabulary = new Vocabulary(model);
  kept = Math.min(KEPT, model.size);
  networkOf("forward");
  const { cell, layers, hidden, parameters, size, unit, directions, separator, labels, names, normalize } = model;
  const shape = { cell, layers, hidden, parameters, size, unit, directions };
  postMessage({ kind: "ready", info: { ...shape, records: model.begins > 0, separator, labels, names, normalize, kept } });
}

function networkOf(direction) {
  if (!networks[direction]) networks[direction] = new Network(model, direction, networks.forward);
  return networks[direction];
}

function check(valid, problem) {
  if (!valid) throw new Error(problem);
}

function checkNumber(name, value, low, high) {
  check(typeof value === "number" && value >= low && value <= high, `${name} is ${value}: it must be ${low} to ${high}`);
}

function checkWhole(name, value, high) {
  checkNumber(name, value, 0, high);
  check(Number.isInteger(value), `${name} is ${value}: it must be a whole number`);
}

function checkText(text, label) {
  check(model !== null, "there is no model: load it first");
  check(typeof text === "string", "there is no text");
  check(label === null || model.labels.includes(label), `label is ${label}: this model has no such label`);
}

// The ids of a text, none of which ends a record.
function encode(text) {
  return Array.from(text).flatMap(vocabulary.idsOf, vocabulary);
}

function unknownIn(text) {
  const unknown = Array.from(text).filter((character) => !vocabulary.knows(character));
  return Array.from(new Set(unknown)).join("");
}

// Reads ids for a job, and yields after each. No two jobs read at once: the second goes on from what the first has read.
function* read(network, ids) {
  while (network.busy) yield WAIT;
  network.busy = true;
  const text = network.memory.recall(network, ids);
  try {
    for (const id of ids.slice(text.ids.length)) {
      text.advance(id);
      yield null;
    }
    return text;
  } finally {
    text.close();
    network.busy = false;
  }
}

function checkWrite({ length, until, temperature, minP, seed, index, draws, direction }) {
  checkWhole("length", length, 2 ** 53);
  check(UNTIL.has(until), `until is ${until}: it must be null, word, sentence, paragraph or record`);
  checkNumber("temperature", temperature, 0, Number.MAX_VALUE);
  checkNumber("minP", minP, 0, 1);
  check(/^\d{1,20}$/u.test(seed) && BigInt(seed) < 2n ** 64n, `seed is ${seed}: it must be digits, 0 to 2**64 - 1`);
  checkWhole("index", index, 2 ** 32 - 1);
  checkWhole("draws", draws, 2 ** 53 - 1);
  check(model.directions.includes(direction), `direction is ${direction}: the model reads ${model.directions.join(", ")}`);
}

function prepareWrite(message) {
  const defaults = { until: null, minP: 0, index: 0, draws: 0, label: null, direction: "forward" };
  const asked = { ...defaults, ...message }, backward = asked.direction === "backward";
  checkText(asked.text, asked.label);
  checkWrite(asked);
  const records = vocabulary.split(vocabulary.clean(asked.text)), { text } = records.at(backward ? 0 : -1);
  const parts = [vocabulary.begin(asked.label), encode(text)], line = text.split("\n").at(backward ? 0 : -1);
  const ids = parts.flatMap((part) => (backward ? part.toReversed() : part));
  return { ...asked, backward, ids, line, unknown: unknownIn(text), seed: BigInt(asked.seed), written: "" };
}

// A character as people see it, all of whose line ends are LF: "\r" waits for what follows it, "" is none. `last` is what
// was written before.
function show(character, last, backward) {
  if (character !== "\r") return character;
  if (model.newline === "\r") return "\n";
  return !backward ? "\r" : last === "\n" ? "" : "\n";
}

// Yields after every id; job.written and job.draws grow by whole characters that are sure to stay.
function* write(job) {
  const { backward, length, until } = job, text = yield* read(networkOf(job.direction), job.ids);
  const logits = new Float32Array(model.size), weights = new Float64Array(model.size), partial = [];
  const ending = until && until !== "record" ? new Ending(until, job.line, backward) : null;
  let waiting = "", last = "", count = 0, { draws } = job;
  const join = (shown) => (backward ? shown + waiting : (waiting + shown).replace(/\r\n/gu, "\n"));
  const commit = (shown) => {
    const written = join(shown).replace("\r", "\n");
    job.written = backward ? written + job.written : job.written + written;
    job.draws = draws;
    count += Array.from(written).length;
    waiting = "";
  };
  try {
    for (;;) {
      if (count >= length) return "length";
      text.predict(logits);
      const draw = uniform(job.seed, job.index, draws);
      const id = choose(logits, vocabulary.allowed(partial, backward), draw, job.temperature, job.minP, weights);
      if (id === vocabulary.end) {
        draws++;
        commit("");
        return "end";
      }
      const character = vocabulary.append(partial, id, backward), shown = show(character, last, backward);
      if (waiting.endsWith("\r") && character !== "\n") commit("");
      if (count >= length) return "length";
      const verdict = shown === "\r" ? "wait" : shown && ending ? ending.judge(shown) : "go";
      if (verdict === "over") return "until";
      draws++;
      text.advance(id);
      last = character;
      if (character && verdict === "go") commit(shown);
      else waiting = join(shown);
      if (shown !== "\r" && count + Array.from(waiting).length >= length) commit("");
      yield null;
    }
  } finally {
    text.close();
  }
}

function prepareScore(message) {
  const { text, label, from } = { label: null, from: 0, ...message };
  checkText(text, label);
  checkWhole("from", from, 2 ** 53);
  const records = vocabulary.split(vocabulary.clean(text)), unknown = unknownIn(records.map((record) => record.text).join(""));
  return { records, label, from, unknown, draws: 0, scores: new Scores(from) };
}

// What was expected of characters that no message has held yet.
class Scores {
  constructor(start) {
    this.start = start;
    this.end = null;
    this.clear();
  }

  clear() {
    Object.assign(this, { text: "", bits: [], likeliest: [], shares: [] });
  }

  // `logits` are null for a character of several ids, or of none.
  add(character, nats, logits) {
    const best = logits ? likeliest(logits, kept) : [];
    this.text += character;
    this.bits.push(nats / Math.LN2);
    for (let place = 0; place < kept; place++) {
      const [id, share] = best[place] || [0, 0];
      this.likeliest.push(id);
      this.shares.push(share);
    }
  }

  take() {
    const { start, text } = this, bits = Float32Array.from(this.bits), shares = Float32Array.from(this.shares);
    const taken = { start, text, bits, likeliest: Uint32Array.from(this.likeliest), shares };
    this.start += bits.length;
    this.clear();
    return taken;
  }
}

function* score(job) {
  let at = 0;
  for (const { text, separator } of job.records) {
    const characters = Array.from(text), between = Array.from(separator), next = at + characters.length + between.length;
    if (next > job.from || !separator) yield* scoreRecord(job, characters, between, Math.max(0, job.from - at));
    at = next;
  }
  return "scored";
}

// Scores a record from one of its characters on, and yields after every id.
function* scoreRecord({ label, scores }, characters, between, from) {
  const logits = new Float32Array(model.size), passed = encode(characters.slice(0, from).join(""));
  const text = yield* read(networkOf("forward"), [...vocabulary.begin(label), ...passed]);
  try {
    for (const character of characters.slice(from)) {
      const ids = vocabulary.idsOf(character);
      let nats = vocabulary.extraNats(character);
      for (const id of ids) {
        text.predict(logits);
        nats += surprise(logits, id);
        text.advance(id);
        yield null;
      }
      scores.add(character, ids.length ? nats : NaN, ids.length === 1 ? logits : null);
    }
    if (vocabulary.end < 0) return;
    text.predict(logits);
    const nats = characters.length ? surprise(logits, vocabulary.end) : NaN;
    for (let place = Math.max(0, from - characters.length); place < between.length; place++) {
      scores.add(between[place], place ? NaN : nats, place || !characters.length ? null : logits);
    }
    if (!between.length && characters.length) scores.end = nats / Math.LN2;
  } finally {
    text.close();
  }
}

class Job {
  constructor(id, asked, steps) {
    Object.assign(this, { id, asked, steps, posted: 0 });
  }

  // Takes steps for some milliseconds; returns whether there are more.
  run() {
    const stop = performance.now() + SLICE;
    try {
      let step = this.steps.next();
      while (!step.done && step.value !== WAIT && performance.now() < stop) step = this.steps.next();
      if (step.done) this.end(step.value);
      else if (performance.now() - this.posted > INTERVAL) this.post();
      return !step.done;
    } catch (error) {
      this.post();
      throw error;
    }
  }

  post() {
    const { asked, id } = this;
    this.posted = performance.now();
    if (asked.written) postMessage({ kind: "text", id, text: asked.written });
    asked.written = "";
    if (asked.scores && asked.scores.bits.length) postMessage({ kind: "scores", id, ...asked.scores.take() });
  }

  end(reason) {
    const { asked, id } = this, { draws, unknown, scores } = asked;
    this.post();
    postMessage({ kind: "done", id, reason, draws, unknown, end: scores ? scores.end : null });
  }

  stop() {
    this.steps.return();
    this.end("stopped");
  }
}

function add(id, asked, steps) {
  check(!jobs.has(id), `there is a job ${id} already`);
  jobs.set(id, new Job(id, asked, steps));
  if (!turning) turns.port2.postMessage(null);
  turning = true;
}

// Runs the job whose turn it is; messages of the page come between two turns.
function takeTurn() {
  const [job] = jobs.values();
  if (job) {
    jobs.delete(job.id);
    attempt(job.id, () => { if (job.run()) jobs.set(job.id, job); });
  }
  turning = jobs.size > 0;
  if (turning) turns.port2.postMessage(null);
}

function attempt(id, action) {
  try {
    action();
  } catch (error) {
    postMessage({ kind: "error", id, message: error.message });
  }
}

const ACTIONS = {
  load: ({ model: data }) => load(data),
  write: (message) => {
    const asked = prepareWrite(message);
    add(message.id, asked, write(asked));
  },
  score: (message) => {
    const asked = prepareScore(message);
    add(message.id, asked, score(asked));
  },
  stop: ({ id }) => {
    const job = jobs.get(id);
    jobs.delete(id);
    if (job) job.stop();
  },
};

function receive({ data }) {
  attempt(data.id, () => {
    check(Object.hasOwn(ACTIONS, data.kind), `kind is ${data.kind}: it must be ${Object.keys(ACTIONS).join(", ")}`);
    ACTIONS[data.kind](data);
  });
}

turns.port1.addEventListener("message", takeTurn);
turns.port1.start();
addEventListener("message", receive);
