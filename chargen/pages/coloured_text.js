"use strict";
// A text whose characters are coloured, and the tip that says what a model expected at one. It stands in blocks of whole
// lines; a block is coloured while it is near what is seen, so that a long text costs no more than a short one.
// Everything from the text or the model becomes textContent, never markup.
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const SURPRISING = 6;  // bits of the characters that N and P lead to

function percent(share) {
  const value = share * 100;
  return value >= 99.95 ? ">99.9 %" : value >= 10 ? `${value.toFixed(0)} %` : value >= 0.1 ? `${value.toFixed(1)} %` : "<0.1 %";
}

// Characters that steer, hide or reorder others become boxes; `odd` has their names by place.
function showCharacters(characters) {
  const odd = {};
  const shown = characters.map((character, index) => {
    if (!/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(character) || "\n\t\u200c\u200d".includes(character)) return character;
    odd[index] = `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    return "\u25a1";
  });
  return { characters: shown, odd };
}

// The last part that starts at or before a place.
function lastUpTo(index, parts) {
  let low = 0, high = parts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (parts[middle].start <= index) low = middle; else high = middle - 1;
  }
  return parts[low];
}

// What colours the text: `level(index)` is -8 to 8, or null where there is no value; `words(index)` tells the value.
function surpriseOf(judge) {
  return {
    name: judge.name,
    level: (index) => Number.isNaN(judge.bits[index]) ? null : Math.min(8, Math.floor(judge.bits[index])),
    words: null,
    swatches: [[0, "under 1 bit"], [1, "1"], [2, "2"], [4, "4"], [6, "6"], [8, "8 bits or more"]],
  };
}

class ColouredText {
  // pane: what scrolls. tip, cursor: what is shown at a character, the second within the pane. legend: what the colours
  // mean. status: what is spoken.
  constructor({ pane, tip, cursor, legend, status }) {
    Object.assign(this, { pane, tip, legend, status, box: cursor, blocks: [], cursor: -1, turn: 0, shown: null });
    this.tipTitle = document.createElement("div");
    this.tipValue = document.createElement("div");
    this.tipTable = document.createElement("table");
    this.tipTitle.className = "character";
    tip.append(this.tipTitle, this.tipValue, this.tipTable);
    this.watcher = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        target.block.near = isIntersecting;
        if (isIntersecting) this.paint(target.block); else this.clear(target.block);
      }
    }, { root: pane, rootMargin: "150% 0%" });
    this.listen();
  }

  // characters: an array of N. judges: each with a name, bits (N; NaN where there are none), and `kept` likeliest ids and
  // shares a character. names: of ids. ids: the id at each character, or -1. odd: names of characters that are shown as
  // another, by place. ends: the places where records end.
  load(data) {
    this.data = data;
    this.characters = data.characters;
    this.watcher.disconnect();
    for (const block of this.blocks) block.element.remove();
    this.blocks = [];
    this.tipTable.replaceChildren();
    this.tipRows = [];  // with a column for each judge
    for (let row = 0; row <= data.kept; row++) {
      const cells = data.judges.map(() => document.createElement(row ? "td" : "th"));
      this.tipTable.insertRow().append(...cells);
      this.tipRows.push(cells);
    }
    this.show(-1);
    this.makeBlocks();
  }

  makeBlocks() {
    const { characters } = this;
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
      this.blocks.push(block);
      this.clear(block);
      this.pane.append(element);
      this.watcher.observe(element);
      start = stop;
    }
  }

  clear(block) {
    block.painted = -1;
    block.element.textContent = this.characters.slice(block.start, block.stop).join("");
  }

  classOf(index) {
    const level = this.shown ? this.shown.level(index) : 0;
    return level === null ? "none" : level > 0 ? `p${level}` : level < 0 ? `n${-level}` : "";
  }

  paint(block) {
    if (block.painted === this.turn) return;
    block.painted = this.turn;
    const parts = document.createDocumentFragment(), { characters } = this;
    block.nodes = [];
    let start = block.start;
    while (start < block.stop) {
      const name = this.classOf(start), ends = characters[start] === "\n";
      const goesOn = (at) => !ends && characters[at] !== "\n" && this.classOf(at) === name;
      let stop = start + 1;
      while (stop < block.stop && goesOn(stop)) stop++;
      const text = document.createTextNode(characters.slice(start, stop).join(""));
      text.start = start;
      block.nodes.push(text);
      if (name || ends) {
        const span = document.createElement("span");
        span.className = ends ? `${name} end${this.data.ends.has(start) ? " record" : ""}` : name;
        span.append(text);
        parts.append(span);
      } else parts.append(text);
      start = stop;
    }
    block.element.replaceChildren(parts);
  }

  // Colour by something else.
  colour(shown) {
    this.shown = shown;
    this.legend.replaceChildren(...shown.swatches.map(([level, words]) => {
      const swatch = document.createElement("span");
      swatch.className = level > 0 ? `p${level}` : level < 0 ? `n${-level}` : "";
      swatch.textContent = words;
      return swatch;
    }), shown.note || "");
    this.turn++;
    for (const block of this.blocks) if (block.near) this.paint(block);
    if (this.cursor >= 0) this.fillTip(this.cursor);
  }

  // Characters and places.
  rectOf(index) {
    const block = lastUpTo(index, this.blocks), { characters } = this;
    this.paint(block);
    const node = lastUpTo(index, block.nodes);
    if (characters[index] === "\n") return node.parentNode.getBoundingClientRect();
    const range = document.createRange(), first = characters.slice(node.start, index).join("").length;
    range.setStart(node, first);
    range.setEnd(node, first + characters[index].length);
    const rects = range.getClientRects();
    return rects[0] || range.getBoundingClientRect();
  }

  holds(index, x, y) {
    if (index < 0 || index >= this.characters.length) return false;
    const rect = this.rectOf(index);
    return x >= rect.left && x <= rect.right && y >= rect.top - 4 && y <= rect.bottom + 4;
  }

  indexAt(x, y) {
    let node, offset;
    if (document.caretPositionFromPoint) {
      const place = document.caretPositionFromPoint(x, y);
      if (!place) return -1;
      [node, offset] = [place.offsetNode, place.offset];
    } else {
      const range = document.caretRangeFromPoint(x, y);
      if (!range) return -1;
      [node, offset] = [range.startContainer, range.startOffset];
    }
    if (node.nodeType !== Node.TEXT_NODE) {
      node = node.childNodes[Math.min(offset, node.childNodes.length - 1)] || node;
      offset = 0;
    }
    while (node && node.nodeType !== Node.TEXT_NODE) node = node.firstChild;
    if (!node || node.start === undefined) return -1;
    const near = node.start + Array.from(node.data.slice(0, offset)).length;
    for (let away = 0; away < 60; away++) {  // where directions meet, the character may be some places away
      for (const index of [near - away, near + away]) if (this.holds(index, x, y)) return index;
    }
    return -1;
  }

  // The tip.
  fillTip(index) {
    const { characters, data, shown } = this;
    const name = data.odd[index] || (characters[index] === "\n" ? "'\\n'" : `'${characters[index]}'`);
    this.tipTitle.textContent = `${name}, character ${(index + 1).toLocaleString("en")}`;
    this.tipValue.textContent = shown && shown.words ? shown.words(index) : "";
    data.judges.forEach((judge, column) => {
      const bits = judge.bits[index], known = !Number.isNaN(bits);
      this.tipRows[0][column].textContent = known ? `${judge.name} ${bits.toFixed(2)} bits` : `${judge.name}: none`;
      for (let row = 0; row < data.kept; row++) {
        const at = index * data.kept + row, cell = this.tipRows[row + 1][column];
        const hasShares = known && judge.shares[index * data.kept] > 0;
        cell.textContent = hasShares ? `${percent(judge.shares[at]).padStart(7)}  ${data.names[judge.likeliest[at]]}` : "";
        cell.className = hasShares && judge.likeliest[at] === data.ids[index] ? "own" : "";
      }
    });
  }

  show(index, spoken) {
    const { box, pane, tip } = this;
    this.cursor = index;
    tip.hidden = box.hidden = index < 0;
    if (index < 0) return;
    this.fillTip(index);
    const rect = this.rectOf(index), frame = pane.getBoundingClientRect();
    box.style.left = `${rect.left - frame.left - pane.clientLeft + pane.scrollLeft - 2}px`;
    box.style.top = `${rect.top - frame.top - pane.clientTop + pane.scrollTop - 2}px`;
    box.style.width = `${Math.max(rect.width, 4) + 4}px`;
    box.style.height = `${rect.height + 4}px`;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const below = rect.bottom + 8 + height < window.innerHeight;
    tip.style.left = `${Math.max(4, Math.min(rect.left, window.innerWidth - width - 8))}px`;
    tip.style.top = `${below ? rect.bottom + 8 : Math.max(4, rect.top - height - 8)}px`;
    if (!spoken) return;
    const said = [this.tipTitle, this.tipValue, ...this.tipRows.flat()].map((each) => each.textContent);
    this.status.textContent = said.filter(Boolean).join("; ");
  }

  goTo(index) {
    index = Math.max(0, Math.min(index, this.characters.length - 1));
    const frame = this.pane.getBoundingClientRect();
    let rect = this.rectOf(index);
    if (rect.top < frame.top || rect.bottom > frame.bottom) {
      lastUpTo(index, this.blocks).element.scrollIntoView({ block: "nearest" });
      rect = this.rectOf(index);
      this.pane.scrollTop += rect.top - frame.top - frame.height / 3;
    }
    this.show(index, true);
  }

  nextSurprise(step) {
    const { bits } = this.data.judges[0];
    for (let index = this.cursor + step; index >= 0 && index < this.characters.length; index += step) {
      if (bits[index] >= SURPRISING) return index;
    }
    return this.cursor;
  }

  lineAway(step) {
    const { characters, cursor } = this, rect = this.rectOf(cursor);
    for (let away = 1; away <= 3; away++) {
      const index = this.indexAt(rect.left + rect.width / 2, (step > 0 ? rect.bottom : rect.top) + step * away * 9);
      if (index >= 0 && index !== cursor) return index;
    }
    let index = cursor;  // a shorter line: its end
    const onLine = () => characters[index] !== "\n" && Math.abs(this.rectOf(index).top - rect.top) < 6;
    do index += step; while (index > 0 && index < characters.length - 1 && onLine());
    return index;
  }

  // Where a key leads; undefined where it leads nowhere.
  aim(key) {
    const { cursor } = this, last = this.characters.length - 1;
    if (key === "End") return last;
    if (key === "n" || key === "p") return cursor < 0 && key === "p" ? 0 : this.nextSurprise(key === "n" ? 1 : -1);
    if (!["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Home"].includes(key)) return undefined;
    if (cursor < 0 || key === "Home") return 0;
    if (key === "ArrowDown" || key === "ArrowUp") return this.lineAway(key === "ArrowDown" ? 1 : -1);
    return cursor + ((key === "ArrowRight") === RIGHT_TO_LEFT.test(this.characters[cursor]) ? -1 : 1);
  }

  listen() {
    const { pane } = this;
    pane.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.characters.length) return;
      if (event.key === "Escape" && this.cursor >= 0) {
        event.stopPropagation();
        this.show(-1);
      }
      const index = this.aim(event.key);
      if (index === undefined) return;
      event.preventDefault();
      this.goTo(index);
    });
    let waiting = null;
    pane.addEventListener("mousemove", (event) => {
      if (!waiting) requestAnimationFrame(() => {
        const index = this.indexAt(waiting.clientX, waiting.clientY);
        waiting = null;
        if (index >= 0 && index !== this.cursor) this.show(index);
      });
      waiting = event;
    });
    pane.addEventListener("click", (event) => this.show(this.indexAt(event.clientX, event.clientY), true));
    pane.addEventListener("mouseleave", () => this.show(-1));
    pane.addEventListener("scroll", () => { if (document.activeElement !== pane) this.show(-1); });
    pane.addEventListener("blur", () => this.show(-1));
  }
}
