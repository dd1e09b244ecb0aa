"use strict";
// Has a text judged by the model: what a coloured text shows of it. `heard` gets how many characters are done, how many
// there are, and how many of them are new.
async function judgeText(link, { model, vocabulary, info }, text, label, heard) {
  const characters = Array.from(vocabulary.clean(text)), { kept } = info;
  const bits = new Float32Array(characters.length).fill(NaN), shares = new Float32Array(characters.length * kept);
  const likeliest = new Uint32Array(characters.length * kept);
  await link.ask({ kind: "score", text, label }, (scores) => {
    bits.set(scores.bits, scores.start);
    likeliest.set(scores.likeliest, scores.start * kept);
    shares.set(scores.shares, scores.start * kept);
    heard(scores.start + scores.bits.length, characters.length, scores.bits.length);
  });
  const idOf = (character) => model.unit === "byte" || !vocabulary.knows(character) ? -1 : vocabulary.idsOf(character)[0];
  return {
    ...showCharacters(characters),
    ids: characters.map(idOf),
    ends: new Set(model.separator === "\n" ? characters.keys() : []),
    names: info.names,
    kept,
    judges: [{ name: "surprise", bits, likeliest, shares }],
  };
}

// The mean surprise of those characters that have one; NaN where none has.
function meanOf(bits) {
  const known = bits.filter((each) => !Number.isNaN(each));
  return known.reduce((sum, each) => sum + each, 0) / known.length;
}
