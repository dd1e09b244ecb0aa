// The page: what its buttons and keys do with the draft and the model.
const data = JSON.parse(document.getElementById("data").textContent), { model } = data;
const byId = (id) => document.getElementById(id);
const vocabulary = new Vocabulary(model), shelf = new Shelf(data.key);
const settings = ["temperature", "min-p", "seed", "length", "label", "fixed"].map(byId).filter(Boolean);
const tools = Array.from(document.querySelectorAll("#tools button:not(#stop, #retry), #surprise"));
const LENGTHS = { word: 100, sentence: 1000, paragraph: 4000, record: 10_000 };  // characters at most
const WAYS = 3, LARGEST = 4e6;
let action = { until: model.begins ? "record" : "sentence" };  // what the keys repeat: { until } or { records }
let job = null;  // what is written or judged now: { over, stopped, dropped }
let piece = null;  // what was written last: { action, start, text, typed, seed, index, next, before, draws }
let choices = null;  // ways to choose from: { action, start, stream, texts, draws }
let quiet = false;  // whether a finger pressed last, and wants no keyboard
let info = null;

const view = new ColouredText({
  pane: byId("text"), tip: byId("tip"), cursor: byId("cursor"), legend: byId("legend"), status: byId("status"),
});
const draft = new Draft(byId("draft"), { interrupted, changed });
const link = new ModelLink(data.worker, model, {
  ready(told) {
    info = told;
    document.body.dataset.ready = "yes";
    enable();
    tell(draft.text ? "Your draft of last time is here." : "Ready.");
  },
  failed: (message) => tell(`This browser cannot run the model: ${message}`, { wrong: true }),
});

// Tells what happened; `spoken` is for those who cannot see the rest.
function tell(words, { wrong = false, spoken = words } = {}) {
  byId("note").textContent = words;
  byId("note").classList.toggle("wrong", wrong);
  byId("status").textContent = spoken;
}

function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function enable() {
  const stands = piece !== null && draft.text.startsWith(piece.text, piece.start);
  for (const button of tools) button.disabled = !info;
  byId("retry").disabled = !info || !(stands || choices || (job && job.writes));
  byId("stop").disabled = !job;
  for (const button of tools) button.classList.toggle("last", isSame(button.dataset, action));
}

function isSame({ until, records }, { until: other, records: others }) {
  return records === undefined ? until === other : Number(records) === others;
}

// One job at a time: a new one ends the one before it.
async function run(writes, work) {
  if (draft.composing || !info) return;
  while (job) {
    stop();
    await job.over;
  }
  const mine = { writes, stopped: false, dropped: false };
  job = mine;
  mine.over = work(mine).catch((error) => tell(`That went wrong: ${error.message}`, { wrong: true })).finally(() => {
    job = null;
    enable();
  });
  enable();
  await mine.over;
}

function stop() {
  if (!job) return;
  job.stopped = true;
  link.stop();
}

// A person types, or has put the cursor elsewhere: nothing more is written.
function interrupted() {
  if (job) job.dropped = true;
  stop();
  closeChoices();
}

// What the model is asked for.
function streamAt(start) {
  const typed = byId("seed").value.trim();
  const goesOn = piece && start === piece.start + piece.text.length && draft.text.startsWith(piece.text, piece.start);
  if (goesOn && piece.draws && piece.typed === typed) return { typed, seed: piece.seed, index: piece.index, draws: piece.draws };
  return { typed, seed: typed || String(Math.floor(Math.random() * 1e6)), index: 0, draws: 0 };
}

function streamAgain({ typed, seed, next, before }) {
  const now = byId("seed").value.trim();
  return now && now === typed ? { typed, seed, index: next, draws: before } : streamAt(-1);
}

function chosenLabel() {
  const number = byId("label") ? Number(byId("label").value) : 0;
  return number ? model.labels[number - 1] : null;
}

function ask(text, { until }, { seed, index, draws }, heard) {
  const length = until ? LENGTHS[until] : Math.max(1, Math.min(100_000, Math.trunc(byId("length").value) || 300));
  const temperature = Number(byId("temperature").value), minP = Number(byId("min-p").value), label = chosenLabel();
  return link.ask({ kind: "write", text, length, until: until || null, temperature, minP, seed, index, draws, label }, heard);
}

function describe(written, milliseconds, { seed, index }, reply) {
  const rate = Math.round(written / Math.max(milliseconds, 1) * 1000);
  const which = index ? `seed ${seed}, alternative ${index + 1}` : `seed ${seed}`;
  const why = { length: action.until ? " That is the most at once." : "", end: " The record ends here." }[reply && reply.reason] || "";
  return `${count(written, "character")}, ${rate.toLocaleString("en")} a second; ${which}.${why}`;
}

// Writes at a place, and streams what comes into the draft.
function write(asked, start, stream) {
  return run(true, async (mine) => {
    const begun = performance.now();
    let end = start, last = stream, reply = null;
    const put = (text) => {
      if (!draft.isAt(end) || draft.composing) interrupted();
      if (mine.dropped) return;
      draft.replace(end, end, text);
      end += text.length;
    };
    draft.begin(start, quiet);
    try {
      for (let number = 0; number < (asked.records || 1) && !mine.stopped; number++) {
        if (asked.records && end && !draft.text.endsWith(model.separator)) put(model.separator);
        last = { ...stream, index: stream.index + number };
        reply = await ask(draft.text.slice(0, end), asked.records ? { until: "record" } : asked, last, ({ text }) => put(text));
      }
    } finally {
      const text = draft.text.slice(start, end), whole = reply && !mine.dropped && !asked.records;
      if (text) piece = { ...stream, action: asked, start, text, next: last.index + 1, before: stream.draws, draws: whole ? reply.draws : 0 };
      draft.finish();
    }
    const words = describe(end - start, performance.now() - begun, stream, reply);
    tell(mine.dropped ? "Stopped: you took over." : words, { spoken: `${draft.text.slice(start, end)}. ${words}` });
  });
}

function goOn(asked) {
  action = asked;
  showDraft();
  closeChoices();
  const records = asked.records && model.separator !== null;
  if (asked.records && !records) draft.replace(0, draft.text.length, "");  // a draft is one record
  const start = asked.records ? draft.text.length : draft.place;
  return write(records ? asked : { until: asked.records ? "record" : asked.until }, start, streamAt(start));
}

async function retry() {
  if (choices) return offer(streamAgain({ ...choices.stream, next: choices.stream.index + WAYS, before: choices.stream.draws }));
  if (job) {
    stop();
    await job.over;
  }
  if (!piece || !draft.text.startsWith(piece.text, piece.start) || draft.composing) return undefined;
  const again = piece, stream = streamAgain(again);
  showDraft();
  draft.replace(again.start, again.start + again.text.length, "");
  return write(again.action, again.start, stream);
}

// Ways to choose from.
function offer(stream = null) {
  const asked = action.records ? { until: "record" } : action;
  showDraft();
  return run(true, async () => {
    const start = choices ? choices.start : draft.place, begun = performance.now(), before = draft.text.slice(0, start);
    const mine = { action: asked, start, stream: stream || streamAt(start), texts: Array(WAYS).fill(""), draws: Array(WAYS).fill(0) };
    choices = mine;
    const cards = mine.texts.map((_, number) => {
      const card = document.createElement("button");
      card.type = "button";
      card.className = "choice";
      card.dir = "auto";
      card.dataset.number = number + 1;
      card.addEventListener("click", () => choose(number));
      return card;
    });
    byId("choices").replaceChildren(...cards);
    byId("choices").hidden = false;
    cards[0].focus({ preventScroll: true });
    byId("choices").scrollIntoView({ block: "nearest" });
    await Promise.all(cards.map(async (card, number) => {
      const each = { ...mine.stream, index: mine.stream.index + number };
      const reply = await ask(before, asked, each, ({ text }) => {
        mine.texts[number] += text;
        card.textContent = mine.texts[number];
      });
      mine.draws[number] = reply.draws;
      if (!mine.texts[number]) card.textContent = "(nothing more)";
    }));
    const words = describe(mine.texts.join("").length, performance.now() - begun, mine.stream, null);
    if (choices === mine) tell(`${words} Choose by 1, 2 or 3.`, { spoken: mine.texts.map((text, number) => `${number + 1}: ${text}`).join("; ") });
  });
}

async function choose(number) {
  const mine = choices;
  if (!mine || number >= WAYS || draft.composing) return;
  if (job) {
    stop();
    await job.over;
  }
  const { start, stream } = mine, text = mine.texts[number];
  closeChoices();
  draft.begin(start, quiet);
  draft.replace(start, start, text);
  piece = { ...stream, action: mine.action, start, text, index: stream.index + number, next: stream.index + WAYS, before: stream.draws, draws: mine.draws[number] };
  enable();
  tell(`Alternative ${number + 1} of seed ${stream.seed}.`);
}

function closeChoices() {
  if (!choices) return;
  choices = null;
  const inside = byId("choices").contains(document.activeElement);
  byId("choices").hidden = true;
  byId("choices").replaceChildren();
  if (inside) draft.area.focus({ preventScroll: true });
  enable();
}

// The draft by surprise.
function judge() {
  return run(false, async (mine) => {
    const text = vocabulary.clean(draft.text), characters = Array.from(text), { kept } = info;
    const bits = new Float32Array(characters.length).fill(NaN), shares = new Float32Array(characters.length * kept);
    const likeliest = new Uint32Array(characters.length * kept), begun = performance.now();
    await link.ask({ kind: "score", text, label: chosenLabel() }, (scores) => {
      bits.set(scores.bits, scores.start);
      likeliest.set(scores.likeliest, scores.start * kept);
      shares.set(scores.shares, scores.start * kept);
      const done = scores.start + scores.bits.length;
      byId("note").textContent = `${done.toLocaleString("en")} of ${count(characters.length, "character")} read …`;
    });
    if (mine.dropped) return;
    const ids = characters.map((character) => model.unit === "byte" || !vocabulary.knows(character) ? -1 : vocabulary.idsOf(character)[0]);
    const ends = new Set(model.separator === "\n" ? characters.keys() : []), judged = { name: "surprise", bits, likeliest, shares };
    const { shown, odd } = showCharacters(characters);
    closeChoices();
    draft.area.hidden = true;
    byId("judged").hidden = false;
    byId("surprise").setAttribute("aria-pressed", "true");
    view.load({ characters: shown, odd, ends, ids, kept, names: info.names, judges: [judged] });
    view.colour(surpriseOf(judged));
    byId("text").focus({ preventScroll: true });
    const known = bits.filter((each) => !Number.isNaN(each)), mean = known.reduce((sum, each) => sum + each, 0) / known.length;
    const rate = Math.round(characters.length / Math.max(performance.now() - begun, 1) * 1000);
    tell(known.length ? `${mean.toFixed(2)} bits a character; ${rate.toLocaleString("en")} characters read a second.` : "There is nothing to judge yet.");
  });
}

function showDraft(place = null) {
  if (draft.area.hidden === false) return;
  view.show(-1);
  byId("judged").hidden = true;
  draft.area.hidden = false;
  byId("surprise").setAttribute("aria-pressed", "false");
  draft.area.focus({ preventScroll: place === null });
  if (place !== null) draft.area.setSelectionRange(place, place);
}

// What stays when the page goes.
let timer = 0;

function changed() {
  enable();
  clearTimeout(timer);
  timer = setTimeout(keep, 300);
}

function keep() {
  clearTimeout(timer);
  const unknown = Array.from(new Set(draft.text)).filter((character) => !vocabulary.knows(character));
  const marks = showCharacters(unknown), box = byId("unknown");
  box.hidden = !unknown.length;
  box.replaceChildren("Not known to the model, and read over: ", ...unknown.slice(0, 20).map((_, number) => {
    const mark = document.createElement("b");
    mark.textContent = marks.odd[number] || marks.shown[number];
    return mark;
  }), unknown.length > 20 ? `and ${unknown.length - 20} more` : "");
  const values = Object.fromEntries(settings.map((input) => [input.id, input.type === "checkbox" ? input.checked : input.value]));
  if (shelf.write({ draft: draft.text, values }) || !draft.text) return;
  tell("This browser does not keep your draft: download it before you leave.", { wrong: true });
}
