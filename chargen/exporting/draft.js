"use strict";
const LINES = 200;  // more at once cannot be undone: each line so inserted takes milliseconds in a long draft

// The text area of a draft. What a script inserts is undone as what is typed is, and nothing is touched while an input
// method composes a character.
class Draft {
  // interrupted: called when a person types, undoes, pastes or composes. changed: after any change.
  constructor(area, { interrupted, changed }) {
    Object.assign(this, { area, composing: false, own: false, follows: true, back: null });
    area.addEventListener("compositionstart", () => {
      this.composing = true;
      interrupted();
    });
    area.addEventListener("compositionend", () => {
      this.composing = false;
    });
    area.addEventListener("beforeinput", () => {
      if (!this.own) interrupted();
    });
    area.addEventListener("input", changed);
    // A finger on the text brings its keyboard back; one that scrolls away from where it is written is let go.
    area.addEventListener("pointerdown", () => area.removeAttribute("inputmode"));
    for (const kind of ["wheel", "touchmove"]) {
      area.addEventListener(kind, () => {
        this.follows = false;
      }, { passive: true });
    }
  }

  get text() {
    return this.area.value;
  }

  // Where writing goes on: the end of what is selected.
  get place() {
    return this.area.selectionEnd;
  }

  // Gets ready to write at a place. `quiet`: without the keyboard that a touched button would bring up.
  begin(place, quiet) {
    this.follows = true;
    this.back = document.activeElement;
    if (quiet) this.area.inputMode = "none";
    this.area.focus({ preventScroll: true });
    this.area.setSelectionRange(place, place);
  }

  // The focus goes back to the button that was pressed, unless it has gone elsewhere.
  finish() {
    const { area, back } = this;
    this.back = null;
    if (back && back !== document.body && document.activeElement === area) back.focus({ preventScroll: true });
  }

  // Another text in the place of the draft, which cannot be undone.
  load(text) {
    const { area } = this;
    area.value = text;
    area.setSelectionRange(text.length, text.length);
    area.scrollTop = area.scrollHeight;
    area.dispatchEvent(new Event("input"));
  }

  // Scrolls to a place, about.
  reveal(place) {
    const { area } = this, share = place / Math.max(1, area.value.length);
    area.scrollTop = share * area.scrollHeight - (share < 1 ? area.clientHeight / 2 : 0);
  }

  isAt(place) {
    return this.area.selectionStart === place && this.area.selectionEnd === place;
  }

  // Puts a text in the place of another, and the cursor behind it.
  replace(start, stop, text) {
    const { area } = this, focused = document.activeElement, top = area.scrollTop;
    if (start === stop && !text) return;
    this.own = true;
    if (focused !== area) area.focus({ preventScroll: true });
    if (area.selectionStart !== start || area.selectionEnd !== stop) area.setSelectionRange(start, stop);
    if (text.split("\n", LINES).length === LINES || !(text ? document.execCommand("insertText", false, text) : document.execCommand("delete"))) {
      area.setRangeText(text, start, stop, "end");
      area.dispatchEvent(new Event("input"));
    }
    this.own = false;
    if (!this.follows) area.scrollTop = top;
    if (focused !== area && focused !== document.body) focused.focus({ preventScroll: true });
  }
}
