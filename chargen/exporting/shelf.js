"use strict";
// What stays of a page: a draft that the browser keeps, and text files.

// Keeps values where the browser can, under a name that only this model has.
class Shelf {
  constructor(key) {
    this.key = `chargen ${key}`;
    this.works = true;
  }

  // What was kept; null for nothing.
  read() {
    try {
      return JSON.parse(localStorage.getItem(this.key));
    } catch {
      this.works = false;
      return null;
    }
  }

  // Whether it is kept.
  write(value) {
    try {
      localStorage.setItem(this.key, JSON.stringify(value));
      this.works = true;
    } catch {
      this.works = false;
    }
    return this.works;
  }
}

const LARGEST = 4_000_000;

// The text of a file, with LF at line ends; an error says why there is none.
async function readTextFile(file) {
  if (file.size > LARGEST) throw new Error(`${file.name} has ${file.size.toLocaleString("en")} bytes, and a draft ${LARGEST.toLocaleString("en")} at most`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()).replace(/\r\n?/g, "\n");
  } catch {
    throw new Error(`${file.name} is no text in UTF-8`);
  }
}

function saveTextFile(name, text) {
  const link = document.createElement("a"), address = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.href = address;
  link.download = `${name.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^[.-]+|[.-]+$/g, "") || "draft"}.txt`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
