"use strict";
// Lets the model read what stands before the cursor while a person rests there, so that going on begins at once.
const REST = 500;  // milliseconds
let resting = 0;

// Called at whatever a person does, and when there is nothing more to do.
function rest(wait = REST) {
  clearTimeout(resting);
  if (!job) link.stop();
  resting = setTimeout(readAhead, wait);
}

// An error that comes of it is told when the person asks for what it is about.
function readAhead() {
  if (!info || job || draft.composing) return;
  ask(draft.place, { until: null }, { seed: "0", index: 0, draws: 0 }, () => {}, 0).catch(() => {});
}

document.addEventListener("selectionchange", () => rest());
