// What the page of an inspection adds to a coloured text: hidden units as colours, and the choice of what is shown.
const data = JSON.parse(document.getElementById("data").textContent);
const pane = document.getElementById("text"), choice = document.getElementById("choice");
const layerInput = document.getElementById("layer"), unitInput = document.getElementById("unit");
const characters = Array.from(data.text);
const MISSING = 65535, SCALE = 256, NONE = -128;
const view = new ColouredText({
  pane, tip: document.getElementById("tip"), cursor: document.getElementById("cursor"),
  legend: document.getElementById("legend"), status: document.getElementById("status"),
});
let calls = 0;

// Arrays are deflated and in base64.
async function unpack(packed, type) {
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new type(await new Response(stream).arrayBuffer());
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
  if (kind === "judge") next = surpriseOf(data.judges[number]);
  else if (kind === "neuron") {
    const neuron = data.neurons[number];
    [layerInput.value, unitInput.value] = neuron.name.split(":");
    neuron.values ||= await unpack(neuron.packed, Int8Array);
    next = unitValues(neuron.name, neuron.values, 0, "");
  } else {
    const layer = Math.max(1, Math.min(data.layers.length, Math.trunc(layerInput.value) || 1));
    const unit = Math.max(0, Math.min(data.layers[layer - 1].units - 1, Math.trunc(unitInput.value) || 0));
    layerInput.value = layer;
    unitInput.value = unit;
    next = await chooseUnit(layer, unit);
  }
  if (call !== calls) return;  // another choice was faster
  view.colour(next);
  document.body.dataset.shown = next.name;
}

async function open() {
  for (const judge of data.judges) {
    judge.bits = Float32Array.from(await unpack(judge.bits, Uint16Array), (bits) => bits === MISSING ? NaN : bits / SCALE);
    judge.likeliest = await unpack(judge.likeliest, Uint32Array);
    judge.shares = Float32Array.from(await unpack(judge.shares, Uint16Array), (share) => share / MISSING);
  }
  const ids = await unpack(data.ids, Int32Array);
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
  view.load({ ...data, characters, ids, ends: new Set(data.ends) });
  await choose(choice.value);
}
open();
