"use strict";
// Ways to go on, as cards that grow while they are written.
class Choices {
  constructor(box, chosen) {
    Object.assign(this, { box, chosen, texts: [] });
    box.addEventListener("keydown", (event) => {
      const number = Number(event.key) - 1;
      if (event.ctrlKey || event.metaKey || event.altKey || !(number in this.texts)) return;
      event.preventDefault();
      chosen(number);
    });
  }

  get open() {
    return !this.box.hidden;
  }

  show(count) {
    this.texts = Array(count).fill("");
    this.cards = this.texts.map((_, number) => {
      const card = document.createElement("button"), text = document.createElement("span");
      card.type = "button";
      card.className = "choice";
      card.dataset.number = number + 1;
      text.dir = "auto";
      card.append(text);
      card.addEventListener("click", () => this.chosen(number));
      return card;
    });
    this.box.replaceChildren(...this.cards);
    this.box.hidden = false;
    this.cards[0].focus({ preventScroll: true });
    this.box.scrollIntoView({ block: "nearest" });
  }

  add(number, text) {
    this.texts[number] += text;
    // Line ends that come first are shown as marks, for they would only make the card empty.
    this.cards[number].firstChild.textContent = this.texts[number].replace(/^\n+/, (ends) => `${"\u21b5".repeat(ends.length)} `);
  }

  // Whether the focus was on a card.
  close() {
    const focused = this.box.contains(document.activeElement);
    this.box.hidden = true;
    this.box.replaceChildren();
    return focused;
  }
}
