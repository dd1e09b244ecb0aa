"use strict";
// What the page does with the draft and the model: writes, tries again, offers ways to go on, judges. buttons.js says when.
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent), { model } = data;
const vocabulary = new Vocabulary(model);
const MOST = { word: 100, sentence: 1000, paragraph: 5000, record: 10_000 };  // characters
const WAYS = 3, CONTEXT = 2000, TAKEN = "Stopped: you took over.";
let info = null;  // of the model, when it is ready
let action = { until: model.begins ? "record" : "sentence" };  // what the keys repeat: { until }, null for a number, or { records }
let job = null;  // what is written or judged: { writes, over, stopped, dropped }
let piece = null;  // what was written last: { action, start, text, typed, seed, index, next, before, draws }
let offered = null;  // ways to choose from: { action, start, stream, draws }
let turns = 0;  // how often something was to end what is written or judged
let quiet = false;  // whether a finger pressed last, and wants no keyboard

const view = new ColouredText({
  pane: byId("text"), tip: byId("tip"), cursor: byId("cursor"), legend: byId("legend"), status: byId("status"),
});
const draft = new Draft(byId("draft"), { interrupted, changed });
const choices = new Choices(byId("choices"), choose);
const link = new ModelLink(data.worker, model, {
  ready(description) {
    info = description;
    enable();
    tell(draft.text ? "Your draft of last time is here." : "Ready.");
    document.body.dataset.ready = "yes";
    rest(0);
  },
  failed: (message) => tell(`This browser cannot run the model: ${message}`, { wrong: true }),
});
delete data.worker;  // the worker has them now
delete model.arrays;

// Tells what happened; `spoken` is for those who do not see the rest.
function tell(words, { wrong = false, spoken = words } = {}) {
  byId("note").textContent = words;
  byId("note").classList.toggle("wrong", wrong);
  byId("status").textContent = spoken;
}

function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// Whether writing can begin; says why not, where a person can change it.
function canWrite() {
  const typed = byId("seed").value.trim(), valid = !typed || (/^\d{1,20}$/.test(typed) && BigInt(typed) < 2n ** 64n);
  if (!valid) tell("The seed must be digits, 0 to 2**64 - 1.", { wrong: true });
  return valid && !draft.composing && info !== null;
}

// One job at a time: a new one ends the one before it.
async function run(writes, work) {
  if (draft.composing || !info) return;
  if (!(await stop())) return;
  const mine = { writes, stopped: false, dropped: false };
  job = mine;
  mine.over = work(mine).catch((error) => tell(`That went wrong: ${error.message}`, { wrong: true })).finally(() => {
    job = null;
    enable();
    rest();
  });
  enable();
  tell("Reading …", { spoken: "" });
  await mine.over;
}

// Ends what is written or judged. Returns whether the caller goes on: of those who wait for that end, only the last does.
async function stop() {
  const turn = ++turns, ending = job;
  if (ending) ending.stopped = true;
  link.stop();  // what is read ahead, too
  await (ending && ending.over);
  return turn === turns;
}

// A person types, or has put the cursor elsewhere: nothing more is written.
function interrupted() {
  if (job) job.dropped = true;
  stop();
  closeChoices();
}

function stands() {
  return piece !== null && draft.text.startsWith(piece.text, piece.start);
}

// The random numbers of what is written at a place: those that follow the last piece, where it ends there.
function streamAt(place) {
  const typed = byId("seed").value.trim(), goesOn = stands() && place === piece.start + piece.text.length;
  if (goesOn && piece.draws && piece.typed === typed) return { typed, seed: piece.seed, index: piece.index, draws: piece.draws };
  return { typed, seed: typed || String(Math.floor(Math.random() * 1e6)), index: 0, draws: 0 };
}

// Those of another try.
function streamAgain({ typed, seed }, next, draws) {
  return typed && typed === byId("seed").value.trim() ? { typed, seed, index: next, draws } : { ...streamAt(-1), draws };
}

function chosenLabel() {
  const number = byId("label") ? Number(byId("label").value) : 0;
  return number ? model.labels[number - 1] : null;
}

// What stands before a place, from the beginning of a line on: about CONTEXT characters of it, and twice as many at
// most. Where it begins changes seldom, so that the model need not read it again.
function contextOf(place) {
  const cut = Math.max(0, Math.floor(place / CONTEXT) - 1) * CONTEXT, line = draft.text.indexOf("\n", cut);
  const start = !cut ? 0 : line >= 0 && line < Math.min(place, cut + 500) ? line + 1 : cut;
  return draft.text.slice(start, place).replace(/^[\udc00-\udfff]/, "");
}

function chosenLength() {
  return Math.max(1, Math.min(20_000, Math.trunc(byId("length").value) || 300));
}

function ask(place, { until }, { seed, index, draws }, heard, length = MOST[until] || chosenLength()) {
  const temperature = Number(byId("temperature").value), minP = Number(byId("min-p").value), label = chosenLabel();
  const text = contextOf(place);
  return link.ask({ kind: "write", text, length, until, temperature, minP, seed, index, draws, label }, ({ text: more }) => heard(more));
}

function describe(number, speed, { seed, index }, ended = "") {
  return `${count(number, "character")}${speed}; seed ${seed}${index ? `, alternative ${index + 1}` : ""}.${ended}`;
}

// Why no more came, where that is not what was asked for.
function explain({ until, records }, reply) {
  if (reply.reason === "length" && (until || records)) return " That is the most at once.";
  return reply.reason === "end" && !records && until !== "record" ? " The record ends here." : "";
}

// Writes at a place, and puts what comes into the draft, instead of so many characters that stand there.
function write(asked, start, stream, instead = 0) {
  return run(true, async (mine) => {
    const speed = new Speed();
    let end = start, index = stream.index, reply = null;
    const funnel = new Funnel((text) => {
      if (!mine.dropped && (draft.composing || !draft.isAt(end))) interrupted();
      if (mine.dropped) return;
      draft.replace(end, end, text);
      end += text.length;
    });
    draft.begin(start, quiet);
    draft.replace(start, start + instead, "");
    try {
      for (let number = 0; number < (asked.records || 1) && !mine.stopped; number++) {
        if (asked.records && end && !draft.text.endsWith(model.separator)) funnel.add(model.separator);
        funnel.empty();
        index = stream.index + number;
        const each = asked.records ? { until: "record" } : asked;
        reply = await ask(end, each, { ...stream, index }, (text) => {
          speed.add(text.length);
          funnel.add(text);
        });
        funnel.empty();
      }
    } finally {
      const text = draft.text.slice(start, end), draws = reply && !mine.dropped && !asked.records ? reply.draws : 0;
      if (text) piece = { ...stream, action: asked, start, text, next: index + 1, before: stream.draws, draws };
      draft.finish();
    }
    if (mine.dropped) return tell(TAKEN);
    const words = describe(end - start, speed, stream, reply ? explain(asked, reply) : "");
    return tell(words, { spoken: `${draft.text.slice(start, end)}. ${words}` });
  });
}

async function goOn(asked) {
  if (!canWrite()) return;
  action = asked;
  if (!(await stop())) return;
  showDraft();
  closeChoices();
  if (asked.records && model.separator === null) {  // a draft is one record
    await write({ until: "record" }, 0, streamAt(-1), draft.text.length);
    return;
  }
  const start = asked.records ? draft.text.length : draft.place;
  await write(asked, start, streamAt(start));
}

async function retry() {
  if (!canWrite()) return;
  if (offered) {
    const { stream } = offered;
    await offer(streamAgain(stream, stream.index + WAYS, stream.draws));
    return;
  }
  if (!(await stop())) return;
  if (!stands()) return;
  const { action: asked, start, text, next, before } = piece, stream = streamAgain(piece, next, before);
  showDraft();
  await write(asked, start, stream, text.length);
}

// Writes ways to go on, to choose from.
async function offer(stream = null) {
  if (!canWrite()) return;
  const asked = action.records ? { until: "record" } : action;
  await run(true, async () => {
    showDraft();
    const start = offered ? offered.start : draft.place, speed = new Speed();
    const mine = { action: asked, start, stream: stream || streamAt(start), draws: [] };
    offered = mine;
    choices.show(WAYS);
    draft.reveal(start);
    await Promise.all(choices.texts.map(async (_, number) => {
      const heard = (text) => {
        speed.add(text.length);
        if (offered === mine) choices.add(number, text);
      };
      const reply = await ask(start, asked, { ...mine.stream, index: mine.stream.index + number }, heard);
      mine.draws[number] = reply.draws;
    }));
    if (offered !== mine) return tell(TAKEN);
    const words = describe(choices.texts.join("").length, speed, mine.stream);
    return tell(`${words} Choose by 1, 2 or 3.`, { spoken: choices.texts.map((text, number) => `${number + 1}: ${text}`).join("; ") });
  });
}

async function choose(number) {
  if (!(await stop())) return;
  if (!offered || draft.composing) return;
  const { action: asked, start, stream, draws } = offered, text = choices.texts[number];
  closeChoices();
  draft.begin(start, quiet);
  draft.replace(start, start, text);
  const index = stream.index + number, next = stream.index + WAYS;
  piece = { ...stream, action: asked, start, text, index, next, before: stream.draws, draws: draws[number] || 0 };
  enable();
  tell(`Alternative ${index + 1} of seed ${stream.seed}.`);
}

function closeChoices() {
  offered = null;
  if (choices.open && choices.close()) draft.area.focus({ preventScroll: true });
  enable();
}

// The characters of a text as the model reads it.
function lengthOf(text) {
  return Array.from(vocabulary.clean(text)).length;
}

// The place in the draft behind so many characters as the model reads them.
function placeOf(number) {
  let low = 0, high = draft.text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (lengthOf(draft.text.slice(0, middle)) <= number) low = middle; else high = middle - 1;
  }
  return low;
}

// Shows the draft by surprise, beginning at the cursor.
async function judge() {
  await run(false, async (mine) => {
    closeChoices();
    const speed = new Speed(), before = lengthOf(draft.text.slice(0, draft.place));
    const judged = await judgeText(link, { model, vocabulary, info }, draft.text, chosenLabel(), (done, all, more) => {
      speed.add(more);
      byId("note").textContent = `${done.toLocaleString("en")} of ${count(all, "character")} read …`;
    });
    if (mine.dropped) return tell(TAKEN);
    const [{ bits }] = judged.judges, mean = meanOf(bits);
    draft.area.hidden = true;
    byId("judged").hidden = false;
    byId("surprise").setAttribute("aria-pressed", "true");
    view.load(judged);
    view.colour(surpriseOf(judged.judges[0]));
    byId("text").focus({ preventScroll: true });
    if (before < judged.characters.length) view.goTo(before);
    tell(Number.isNaN(mean) ? "There is nothing to judge yet." : `${mean.toFixed(2)} bits a character${speed}.`);
  });
}

// Goes back to writing, at a place of the draft.
function showDraft(place = null) {
  if (!draft.area.hidden) return;
  view.show(-1);
  byId("judged").hidden = true;
  draft.area.hidden = false;
  byId("surprise").setAttribute("aria-pressed", "false");
  draft.area.focus();
  if (place !== null) draft.area.setSelectionRange(place, place);
}
