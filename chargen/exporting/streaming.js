"use strict";
// Hands on texts joined, so seldom that it takes a third of the time at most.
class Funnel {
  constructor(pour) {
    Object.assign(this, { pour, held: "", due: 0, timer: 0 });
  }

  add(text) {
    this.held += text;
    clearTimeout(this.timer);
    const wait = this.due - performance.now();
    if (wait > 0) this.timer = setTimeout(() => this.empty(), wait); else this.empty();
  }

  empty() {
    clearTimeout(this.timer);
    const { held } = this, begun = performance.now();
    this.held = "";
    if (held) this.pour(held);
    this.due = performance.now() + 2 * (performance.now() - begun);
  }
}

// How fast texts come, from the first on: what was read before them does not count.
class Speed {
  constructor() {
    Object.assign(this, { begun: 0, number: 0 });
  }

  add(number) {
    if (this.begun) this.number += number; else this.begun = performance.now();
  }

  // "" where too little came to tell.
  toString() {
    const time = performance.now() - this.begun;
    return this.number && time > 100 ? `, ${Math.round(this.number / time * 1000).toLocaleString("en")} a second` : "";
  }
}
