"use strict";
// The text stands in blocks of whole lines; a block is coloured while it is near what is seen, so that a long text costs
// no more than a short one. Everything from the text or the model becomes textContent, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const pane = document.getElementById("text"), tip = document.getElementById("tip"), box = document.getElementById("cursor");
const choice = document.getElementById("choice"), layerInput = document.getElementById("layer");
const unitInput = document.getElementById("unit"), legend = document.getElementById("legend");
const status = document.getElementById("status");
const characters = Array.from(data.text);
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const MISSING = 65535, SCALE = 256, SURPRISING = 6, NONE = -128;

// Arrays are deflated and in base64.
async function unpack(packed, type) {
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new type(await new Response(stream).arrayBuffer());
}

// What colours the text: `level(index)` is -8 to 8, or null where there is no value; `words(index)` tells the value.
let shown = null, cursor = -1, turn = 0, calls = 0;
const blocks = [];

function makeBlocks() {
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const block = entry.target.block;
      block.near = entry.isIntersecting;
      if (block.near) paint(block); else clear(block);
    }
  }, { root: pane, rootMargin: "150% 0%" });
  let start = 0;
  while (start < characters.length) {
    let stop = Math.min(start + 1500, characters.length), line = stop;
    while (line < characters.length && line < start + 4000 && characters[line - 1] !== "\n") line++;
    if (line === characters.length || characters[line - 1] === "\n") stop = line;
    else while (stop < line && characters[stop - 1] !== " ") stop++;
    const element = document.createElement("div");
    const block = { element, start, stop, near: false, painted: -1 };
    element.className = "block";
    element.dir = "auto";
    element.block = block;
    const rows = 1 + Math.ceil((stop - start) / 80);
    element.style.containIntrinsicSize = `auto ${rows * 25}px`;
    blocks.push(block);
    clear(block);
    pane.append(element);
    watcher.observe(element);
    start = stop;
  }
}

function clear(block) {
  block.painted = -1;
  block.element.textContent = characters.slice(block.start, block.stop).join("");
}

function classOf(index) {
  const level = shown ? shown.level(index) : 0;
  return level === null ? "none" : level > 0 ? `p${level}` : level < 0 ? `n${-level}` : "";
}

function paint(block) {
  if (block.painted === turn) return;
  block.painted = turn;
  const parts = document.createDocumentFragment();
  block.nodes = [];
  let start = block.start;
  while (start < block.stop) {
    const name = classOf(start), ends = characters[start] === "\n";
    let stop = start + 1;
    while (!ends && stop < block.stop && characters[stop] !== "\n" && classOf(stop) === name) stop++;
    const text = document.createTextNode(characters.slice(start, stop).join(""));
    text.start = start;
    block.nodes.push(text);
    if (name || ends) {
      const span = document.createElement("span");
      span.className = ends ? `${name} end${data.ends && data.ends.has(start) ? " record" : ""}` : name;
      span.append(text);
      parts.append(span);
    } else parts.append(text);
    start = stop;
  }
  block.element.replaceChildren(parts);
}

function repaint() {
  turn++;
  for (const block of blocks) if (block.near) paint(block);
  if (cursor >= 0) fillTip(cursor);
}

// Characters and places.
function lastUpTo(index, parts) {
  let low = 0, high = parts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (parts[middle].start <= index) low = middle; else high = middle - 1;
  }
  return parts[low];
}

function rectOf(index) {
  const block = lastUpTo(index, blocks);
  paint(block);
  const node = lastUpTo(index, block.nodes);
  if (characters[index] === "\n") return node.parentNode.getBoundingClientRect();
  const range = document.createRange(), first = characters.slice(node.start, index).join("").length;
  range.setStart(node, first);
  range.setEnd(node, first + characters[index].length);
  const rects = range.getClientRects();
  return rects[0] || range.getBoundingClientRect();
}

function holds(rect, x, y) {
  return x >= rect.left && x <= rect.right && y >= rect.top - 4 && y <= rect.bottom + 4;
}

function indexAt(x, y) {
  let node, offset;
  if (document.caretPositionFromPoint) {
    const place = document.caretPositionFromPoint(x, y);
    if (!place) return -1;
    node = place.offsetNode, offset = place.offset;
  } else {
    const range = document.caretRangeFromPoint(x, y);
    if (!range) return -1;
    node = range.startContainer, offset = range.startOffset;
  }
  if (node.nodeType !== Node.TEXT_NODE) node = node.childNodes[Math.min(offset, node.childNodes.length - 1)] || node, offset = 0;
  while (node && node.nodeType !== Node.TEXT_NODE) node = node.firstChild;
  if (!node || node.start === undefined) return -1;
  const near = node.start + Array.from(node.data.slice(0, offset)).length;
  for (let away = 0; away < 60; away++) {  // where directions meet, the character may be some places away
    for (const index of [near - away, near + away]) {
      if (index >= 0 && index < characters.length && holds(rectOf(index), x, y)) return index;
    }
  }
  return -1;
}

// The tooltip: a table that is made once, with a column for each judge.
const tipTitle = document.createElement("div"), tipValue = document.createElement("div");
const tipTable = document.createElement("table"), tipRows = [];
tipTitle.className = "character";
tip.append(tipTitle, tipValue, tipTable);
for (let row = 0; row <= data.kept; row++) {
  const line = tipTable.insertRow(), cells = data.judges.map(() => document.createElement(row ? "td" : "th"));
  line.append(...cells);
  tipRows.push(cells);
}

function nameOf(index) {
  return data.odd[index] || (characters[index] === "\n" ? "'\\n'" : `'${characters[index]}'`);
}

function percent(share) {
  const value = share * 100;
  return value >= 99.95 ? ">99.9 %" : value >= 10 ? `${value.toFixed(0)} %` : value >= 0.1 ? `${value.toFixed(1)} %` : "<0.1 %";
}

function fillTip(index) {
  tipTitle.textContent = `${nameOf(index)}, character ${(index + 1).toLocaleString("en")}`;
  tipValue.textContent = shown && shown.words ? shown.words(index) : "";
  data.judges.forEach((judge, column) => {
    const known = judge.bits[index] !== MISSING;
    tipRows[0][column].textContent = known ? `${judge.name} ${(judge.bits[index] / SCALE).toFixed(2)} bits` : `${judge.name}: none`;
    for (let row = 0; row < data.kept; row++) {
      const at = index * data.kept + row, cell = tipRows[row + 1][column], share = judge.shares[at] / MISSING;
      cell.textContent = known && judge.shares[at - row] ? `${percent(share).padStart(7)}  ${data.names[judge.likeliest[at]]}` : "";
      cell.className = cell.textContent && judge.likeliest[at] === data.ids[index] ? "own" : "";
    }
  });
}

function show(index, spoken) {
  cursor = index;
  if (index < 0) {
    tip.hidden = box.hidden = true;
    return;
  }
  fillTip(index);
  const rect = rectOf(index), frame = pane.getBoundingClientRect();
  box.hidden = tip.hidden = false;
  box.style.left = `${rect.left - frame.left - pane.clientLeft + pane.scrollLeft - 2}px`;
  box.style.top = `${rect.top - frame.top - pane.clientTop + pane.scrollTop - 2}px`;
  box.style.width = `${Math.max(rect.width, 4) + 4}px`;
  box.style.height = `${rect.height + 4}px`;
  const width = tip.offsetWidth, height = tip.offsetHeight;
  const below = rect.bottom + 8 + height < window.innerHeight;
  tip.style.left = `${Math.max(4, Math.min(rect.left, window.innerWidth - width - 8))}px`;
  tip.style.top = `${below ? rect.bottom + 8 : Math.max(4, rect.top - height - 8)}px`;
  if (spoken) status.textContent = [tipTitle, tipValue, ...tipRows.flat()].map((each) => each.textContent).filter(Boolean).join("; ");
}

function goTo(index) {
  index = Math.max(0, Math.min(index, characters.length - 1));
  const frame = pane.getBoundingClientRect();
  let rect = rectOf(index);
  if (rect.top < frame.top || rect.bottom > frame.bottom) {
    lastUpTo(index, blocks).element.scrollIntoView({ block: "nearest" });
    rect = rectOf(index);
    pane.scrollTop += rect.top - frame.top - frame.height / 3;
  }
  show(index, true);
}

function nextSurprise(step) {
  const { bits } = data.judges[0];
  for (let index = cursor + step; index >= 0 && index < characters.length; index += step) {
    if (bits[index] !== MISSING && bits[index] >= SURPRISING * SCALE) return index;
  }
  return cursor;
}

function lineAway(step) {
  const rect = rectOf(cursor);
  for (let away = 1; away <= 3; away++) {
    const index = indexAt(rect.left + rect.width / 2, (step > 0 ? rect.bottom : rect.top) + step * away * 9);
    if (index >= 0 && index !== cursor) return index;
  }
  let index = cursor;  // a shorter line: its end
  const top = rect.top;
  do index += step; while (index > 0 && index < characters.length - 1 && characters[index] !== "\n" && Math.abs(rectOf(index).top - top) < 6);
  return index;
}

const KEYS = {
  ArrowRight: () => cursor + (RIGHT_TO_LEFT.test(characters[cursor]) ? -1 : 1),
  ArrowLeft: () => cursor + (RIGHT_TO_LEFT.test(characters[cursor]) ? 1 : -1),
  ArrowDown: () => lineAway(1),
  ArrowUp: () => lineAway(-1),
  Home: () => 0,
  End: () => characters.length - 1,
  n: () => nextSurprise(1),
  p: () => nextSurprise(-1),
};

pane.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !characters.length) return;
  if (event.key === "Escape") show(-1);
  else if (KEYS[event.key]) {
    event.preventDefault();
    goTo(cursor < 0 && event.key !== "End" ? (event.key === "n" ? nextSurprise(1) : 0) : KEYS[event.key]());
  }
});
let waiting = null;
pane.addEventListener("mousemove", (event) => {
  if (!waiting) requestAnimationFrame(() => {
    const index = indexAt(waiting.clientX, waiting.clientY);
    waiting = null;
    if (index >= 0 && index !== cursor) show(index);
  });
  waiting = event;
});
pane.addEventListener("click", (event) => show(indexAt(event.clientX, event.clientY), true));
pane.addEventListener("mouseleave", () => show(-1));
pane.addEventListener("scroll", () => { if (document.activeElement !== pane) show(-1); });
pane.addEventListener("blur", () => show(-1));

// What colours the text.
function surprise(judge) {
  return {
    name: judge.name,
    level: (index) => judge.bits[index] === MISSING ? null : Math.min(8, Math.floor(judge.bits[index] / SCALE)),
    words: null,
    swatches: [[0, "under 1 bit"], [1, "1"], [2, "2"], [4, "4"], [6, "6"], [8, "8 bits or more"]],
  };
}

function unitValues(name, values, start, note) {
  const inside = (index) => index >= start && index < start + values.length && values[index - start] !== NONE;
  return {
    name,
    level: (index) => inside(index) ? Math.round(values[index - start] / data.steps * 8) : null,
    words: (index) => inside(index) ? `hidden unit ${name}: ${(values[index - start] / data.steps).toFixed(2)}` : "",
    swatches: [[-8, "\u22121"], [-4, "\u22120.5"], [0, "0"], [4, "0.5"], [8, "1"]],
    note,
  };
}

async function chooseUnit(layer, unit) {
  const stored = data.layers[layer - 1];
  stored.values ||= await unpack(stored.packed, Int8Array);
  const size = stored.stop - stored.start, values = stored.values.subarray(unit * size, (unit + 1) * size);
  const note = size < characters.length  // a window, so that the page stays small
    ? `Characters ${(stored.start + 1).toLocaleString("en")} to ${stored.stop.toLocaleString("en")}; the others are slanted.` : "";
  return unitValues(`${layer}:${unit}`, values, stored.start, note);
}

async function choose(value) {
  const [kind, number] = value.split(" "), call = ++calls;
  for (const input of [layerInput, unitInput]) if (input) input.parentNode.hidden = kind !== "unit";
  let next;
  if (kind === "judge") next = surprise(data.judges[number]);
  else if (kind === "neuron") {
    const neuron = data.neurons[number];
    [layerInput.value, unitInput.value] = neuron.name.split(":");
    neuron.values ||= await unpack(neuron.packed, Int8Array);
    next = unitValues(neuron.name, neuron.values, 0, "");
  } else {
    const layer = Math.max(1, Math.min(data.layers.length, Math.trunc(layerInput.value) || 1));
    const unit = Math.max(0, Math.min(data.layers[layer - 1].units - 1, Math.trunc(unitInput.value) || 0));
    layerInput.value = layer, unitInput.value = unit;
    next = await chooseUnit(layer, unit);
  }
  if (call !== calls) return;  // another choice was faster
  shown = next;
  legend.replaceChildren(...shown.swatches.map(([level, words]) => {
    const swatch = document.createElement("span");
    swatch.className = level > 0 ? `p${level}` : level < 0 ? `n${-level}` : "";
    swatch.textContent = words;
    return swatch;
  }), shown.note || "");
  repaint();
  document.body.dataset.shown = shown.name;
}

async function start() {
  for (const judge of data.judges) {
    judge.bits = await unpack(judge.bits, Uint16Array);
    judge.likeliest = await unpack(judge.likeliest, Uint32Array);
    judge.shares = await unpack(judge.shares, Uint16Array);
  }
  data.ids = await unpack(data.ids, Int32Array);
  data.ends = new Set(data.ends);
  choice.addEventListener("change", () => choose(choice.value));
  for (const input of [layerInput, unitInput]) if (input) input.addEventListener("change", () => choose("unit"));
  document.addEventListener("click", (event) => {
    const value = event.target.dataset && event.target.dataset.choose;
    if (value === undefined) return;
    choice.value = value;
    choose(value);
    pane.focus({ preventScroll: true });
    choice.parentNode.scrollIntoView({ block: "start" });
  });
  makeBlocks();
  await choose(choice.value);
}
start();
