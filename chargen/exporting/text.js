"use strict";
// Text <-> ids, as `chargen/data/vocabulary.py` has them, and where a word, a sentence or a paragraph ends.

const SURROGATE = /[\ud800-\udfff]/u, CODE_POINTS = 0x110000;
const AFTER_LEAD = new Map([[0xe0, [0xa0, 0xbf]], [0xed, [0x80, 0x9f]], [0xf0, [0x90, 0xbf]], [0xf4, [0x80, 0x8f]]]);
const LEADS = [[], [0xc2, 0xdf], [0xe0, 0xef], [0xf0, 0xf4]];

// The first and the last byte that may follow a lead byte.
function rangeAfter(lead) {
  return AFTER_LEAD.get(lead) || [0x80, 0xbf];
}

// Whether some bytes, from a character's first on or up to its last, are not the whole of it.
function isUnfinished([first, ...others]) {
  return (first & 0xc0) === 0x80 || others.length < (first >= 0xc2) + (first >= 0xe0) + (first >= 0xf0);
}

class Vocabulary {
  constructor(model) {
    const characters = Array.from(model.characters);
    this.model = model;
    this.bytes = model.unit === "byte";
    this.characters = characters;
    this.ids = new Map(characters.map((character, id) => [character, id]));
    this.folded = new Set(model.folded);
    this.end = model.begins ? model.size - model.begins : -1;
    this.encoder = new TextEncoder();
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    this.mask = new Uint8Array(model.size).fill(1, 0, characters.length);
    if (this.bytes) this.mask.fill(1, 0, 0x80).fill(1, 0xc2, 0xf5);
    for (const id of model.banned) this.mask[id] = 0;
    if (this.end >= 0) this.mask[this.end] = 1;
    const { separator } = model, escaped = separator && separator.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
    this.separators = separator === "\n\n" ? /\n(?:[ \t]*\n)+/g : separator ? new RegExp(`(?:${escaped})+`, "g") : null;
  }

  // The records of a text, each with what stands behind it: a separator, or "" behind the last.
  split(text) {
    const records = [];
    let start = 0;
    for (const match of this.separators ? text.matchAll(this.separators) : []) {
      records.push({ text: text.slice(start, match.index), separator: match[0] });
      start = match.index + match[0].length;
    }
    return [...records, { text: text.slice(start), separator: "" }];
  }

  // A text as people see it, in the normal form of what the model learned.
  clean(text) {
    const lines = text.replace(/\r\n?/g, "\n");
    return this.model.normalize === "NFC" ? lines.normalize("NFC") : lines;
  }

  // Whether it is a line end, of a model whose line ends are CR or CR LF.
  isOtherLineEnd(character) {
    return character === "\n" && this.model.newline !== "\n";
  }

  knows(character) {
    if (this.bytes) return !SURROGATE.test(character);
    return this.ids.has(character) || this.folded.has(character) || this.isOtherLineEnd(character);
  }

  // The ids of a character: none, where it is unknown and there is no symbol for that.
  idsOf(character) {
    if (this.isOtherLineEnd(character)) return Array.from(this.model.newline).flatMap(this.encode, this);
    return this.encode(character);
  }

  encode(character) {
    if (this.bytes) return SURROGATE.test(character) ? [] : Array.from(this.encoder.encode(character));
    const id = this.ids.get(character);
    return id !== undefined ? [id] : this.folded.size ? [this.characters.length] : [];
  }

  // The nats that a character costs besides the symbol that stands for it.
  extraNats(character) {
    if (!this.folded.size || this.ids.has(character) || this.isOtherLineEnd(character)) return 0;
    const folded = Math.log(this.folded.size + 1);
    if (this.folded.has(character)) return folded;
    return folded + Math.log(CODE_POINTS - this.characters.length - this.folded.size);
  }

  // What is read before a text.
  begin(label) {
    if (this.end < 0) return Array.from(this.model.begin).flatMap(this.encode, this);
    return [label === null ? this.end : this.end + 1 + this.model.labels.indexOf(label)];
  }

  // The ids that may come next (V, 0 or 1): in bytes those that go on with an unfinished character.
  allowed(partial, backward) {
    if (!this.bytes || (!partial.length && !backward)) return this.mask;
    const mask = new Uint8Array(this.model.size);
    if (!partial.length) {
      mask.set(this.mask);
      return mask.fill(0, 0xc2, 0xf5).fill(1, 0x80, 0xc0);
    }
    if (!backward) {
      const [first, last] = partial.length === 1 ? rangeAfter(partial[0]) : [0x80, 0xbf];
      return mask.fill(1, first, last + 1);
    }
    if (partial.length < 3) mask.fill(1, 0x80, 0xc0);
    const [lowest, highest] = LEADS[partial.length];
    for (let lead = lowest; lead <= highest; lead++) {
      const [first, last] = rangeAfter(lead);
      if (first <= partial[0] && partial[0] <= last) mask[lead] = 1;
    }
    return mask;
  }

  // The character that an id completes, "" where bytes are missing; `partial` holds these.
  append(partial, id, backward) {
    if (!this.bytes) return this.characters[id];
    if (backward) partial.unshift(id); else partial.push(id);
    return isUnfinished(partial) ? "" : this.decoder.decode(Uint8Array.from(partial.splice(0)));
  }
}

// Where texts end is a rule that `chargen/sampling/ends.py` has, too; tests take both through the same texts.
const FIRST = /[\p{L}\p{N}]/u, LETTER = /[\p{L}\p{N}\p{Pc}\u200c\u200d]/u, MARK = /\p{M}/u, JOINER = /['\u2019-]/u;
const BLANK = /\p{White_Space}/u;
// Of scripts without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese), each character is a word.
const WHOLE = new RegExp("[\u0e01-\u0edf\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3021-\u3029\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
  + "\u{20000}-\u{3ffff}]", "u");
const WIDE = /[\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\u{20000}-\u{3ffff}]/u;
const STOP = /[.!?\u2026\u2025\u061f\u06d4\u0964\u0965\u0589\u1362\u104b\u17d4]/u, WIDE_STOP = /[\u3002\uff01\uff1f\uff61]/u;
const CLOSING = /["'\u2019\u201d\u00bb\u203a)\]}\u300d\u300f\uff09\u300b\u3009\u3011\u3015]/u;
const CLOSINGS = `${CLOSING.source}*`, ANY_STOP = `(?:${STOP.source}|${WIDE_STOP.source})`;
// Some quotes open, or close as in \u201eGerman\u201c and \u00bbDanish\u00ab.
const ENDED = new RegExp(`${ANY_STOP}(?:${CLOSING.source}|[\u201c\u2018\u00ab\u2039])*$`, "u");
const WIDE_ENDED = new RegExp(`${WIDE_STOP.source}${CLOSINGS}$`, "u"), GOES_ON = new RegExp(`${ANY_STOP}|${CLOSING.source}`, "u");
const BLANK_BEHIND = new RegExp(`^${CLOSINGS}${BLANK.source}`, "u"), STOP_BEHIND = new RegExp(`^${CLOSINGS}${ANY_STOP}`, "u");
const LONG_LINE = 100;

function widthOf(text) {
  let width = 0;
  for (const character of text) width += WIDE.test(character) ? 2 : 1;
  return width;
}

// Judges after each character whether a text is over: what was written so far, and what comes next.
class Ending {
  // `line` is what stands on the line where the writing goes on.
  constructor(until, line, backward) {
    Object.assign(this, { until, backward, width: widthOf(line), text: "", begun: false, last: "", lineIsOver: false });
  }

  // "over": the text ends before this character, and before those that wait; "wait": what follows will tell; or "go".
  judge(character) {
    const verdict = this.until === "word" ? this.judgeWord(character) : this.judgeLines(character);
    this.text = this.backward ? character + this.text : this.text + character;
    this.begun ||= !BLANK.test(character);
    this.width = character === "\n" ? 0 : this.width + widthOf(character);
    return verdict;
  }

  // A hyphen or an apostrophe is part of a word where a letter follows.
  judgeWord(character) {
    const { last } = this, joins = JOINER.test(character) && !JOINER.test(last);
    if (MARK.test(character) || (!last && !FIRST.test(character))) return "go";
    if (last && (!(joins || LETTER.test(character)) || WHOLE.test(character) || WHOLE.test(last))) return "over";
    this.last = character;
    return joins ? "wait" : "go";
  }

  judgeLines(character) {
    if (this.until === "sentence" && this.begun) {
      if (this.backward ? this.startsSentence(character) : this.endsSentence(character)) return "over";
      if (this.backward && CLOSING.test(character)) return "wait";
    }
    if (!BLANK.test(character)) {
      this.lineIsOver = false;
      return "go";
    }
    if (!this.begun) return "go";
    if (character === "\n") {
      if (this.lineIsOver || this.width >= LONG_LINE) return "over";
      this.lineIsOver = true;
    }
    return "wait";
  }

  // A stop, with quotes that close behind it, ends a sentence where a blank follows, a Chinese or Japanese one anyway.
  endsSentence(character) {
    return BLANK.test(character) ? ENDED.test(this.text) : WIDE_ENDED.test(this.text) && !GOES_ON.test(character);
  }

  startsSentence(character) {
    if (WIDE_STOP.test(character)) return !STOP_BEHIND.test(this.text);
    return STOP.test(character) && BLANK_BEHIND.test(this.text);
  }
}
