"use strict";
// What buttons, keys and files do, and what is kept of a draft.
const shelf = new Shelf(data.key), kept = shelf.read();
const settings = ["temperature", "min-p", "seed", "length", "label", "fixed"].map(byId).filter(Boolean);
const tools = Array.from(document.querySelectorAll("[data-until], [data-records], #three, #surprise"));
let timer = 0;

// What a button asks for.
function actionOf({ until, records }) {
  return records === undefined ? { until: until || null } : { records: Number(records) };
}

function enable() {
  for (const button of tools) {
    button.disabled = !info;
    const { until, records } = actionOf(button.dataset), repeats = until === action.until && records === action.records;
    button.classList.toggle("last", repeats && button.id === "");
  }
  byId("retry").disabled = !info || !(stands() || offered || (job && job.writes));
  byId("stop").disabled = !job;
}

function changed() {
  enable();
  rest();
  timer ||= setTimeout(keep, 300);
}

function keep() {
  clearTimeout(timer);
  timer = 0;
  showUnknown();
  const values = Object.fromEntries(settings.map((input) => [input.id, input.type === "checkbox" ? input.checked : input.value]));
  if (shelf.write({ draft: draft.text, values }) || !draft.text) return;
  tell("This browser does not keep your draft: download it before you leave.", { wrong: true });
}

// Before the page may go. What has not changed is not kept again: another window may have kept something newer.
function keepChanges() {
  if (timer) keep();
}

function showUnknown() {
  const texts = vocabulary.split(vocabulary.clean(draft.text)).map((record) => record.text);
  const unknown = Array.from(new Set(texts.join(""))).filter((character) => !vocabulary.knows(character));
  const { characters, odd } = showCharacters(unknown), box = byId("unknown");
  box.hidden = !unknown.length;
  box.replaceChildren("The model does not know", ...characters.slice(0, 20).flatMap((character, number) => {
    const mark = document.createElement("b");
    mark.textContent = odd[number] || character;
    return [" ", mark];
  }), unknown.length > 20 ? ` and ${unknown.length - 20} more.` : "");
}

function showSettings() {
  for (const output of document.querySelectorAll("output")) output.value = byId(output.htmlFor.value).value;
  document.body.classList.toggle("fixed", byId("fixed").checked);
}

// A name as what it is: it steers, hides and reorders nothing.
function plain(name) {
  return showCharacters(Array.from(name)).characters.join("");
}

async function openFile(file) {
  if (!file) return;
  try {
    const text = await readTextFile(file);
    if (draft.text && !confirm(`Put ${plain(file.name)} in the place of your draft? That cannot be undone.`)) return;
    interrupted();
    if (!(await stop())) return;
    showDraft();
    draft.load(text);
    tell(`${plain(file.name)} is open.`);
  } catch (error) {
    tell(error.message, { wrong: true });
  }
}

function press(id, act) {
  byId(id).addEventListener("click", act);
}

for (const button of tools) {
  if (button.id === "") button.addEventListener("click", () => goOn(actionOf(button.dataset)));
}
press("three", () => offer(null));
press("retry", retry);
press("stop", stop);
press("surprise", () => draft.area.hidden ? showDraft() : judge());
press("open", () => byId("file").click());
press("download", () => saveTextFile(data.name, draft.text));
byId("file").addEventListener("change", (event) => {
  openFile(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("pointerdown", (event) => {
  quiet = event.pointerType === "touch";
});
// A mouse leaves the focus in the draft, so that one can type on.
byId("tools").addEventListener("mousedown", (event) => {
  if (event.target.tagName === "BUTTON") event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  const { key, ctrlKey, metaKey, altKey, shiftKey, target } = event;
  if (event.isComposing || event.keyCode === 229) return;
  if (key === "Escape") {
    if (job) stop();
    else if (choices.open) closeChoices();
    else if (target !== byId("draft")) showDraft();
  } else if (key === "Enter" && (ctrlKey || metaKey || altKey)) {
    event.preventDefault();
    if (altKey) offer(null); else if (shiftKey) retry(); else goOn(action);
  } else if (key === "Enter" && target === byId("length")) goOn({ until: null });
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  showDraft(placeOf(Math.max(view.cursor, 0)));
});

draft.area.addEventListener("dragover", (event) => {
  if (event.dataTransfer.types.includes("Files")) event.preventDefault();
});
draft.area.addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  openFile(event.dataTransfer.files[0]);
});

for (const input of settings) {
  input.addEventListener("input", showSettings);
  input.addEventListener("change", keep);
  input.addEventListener("change", () => rest());
}
window.addEventListener("pagehide", keepChanges);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") keepChanges();
});
window.addEventListener("storage", (event) => {
  if (event.key === shelf.key) tell("Another window of this page has kept a draft in the place of this one: download one of them.", { wrong: true });
});
window.addEventListener("beforeunload", (event) => {
  if (!shelf.works && draft.text) event.preventDefault();
});

for (const element of document.querySelectorAll("h1 bdi, option, title")) element.textContent = plain(element.textContent);
if (model.separator === null) for (const button of document.querySelectorAll("[data-records='10']")) button.remove();
for (const input of settings) {
  const value = kept && kept.values && kept.values[input.id];
  if (input.type === "checkbox") input.checked = value === true;
  else if (typeof value === "string") input.value = value;
}
draft.load(kept && typeof kept.draft === "string" ? kept.draft : "");
byId("settings").open = matchMedia("(min-width: 40rem)").matches;
showSettings();
showUnknown();
enable();
