"use strict";
// The model in a page: reads, writes and scores text in a worker, so that the page never waits.
//
// Messages from the page. Ids are numbers of the page's choice; several jobs may run at once, and take turns of some
// milliseconds. A text is what a person sees, with LF as line ends; nothing in it is taken for markup or for a symbol.
//
//   { kind: "load", model }     model: what `chargen/export/page_model.py` writes, parsed. Once, before all others.
//   { kind: "write", id, text, length, until, temperature, minP, seed, index, draws, label, direction }
//     text         what the writing goes on from: the whole draft up to the cursor ("backward": from the cursor on). Of
//                  a model of records only what follows the last `info.separator` is read: the record at the cursor.
//     length       characters at most; until: null, "word", "sentence", "paragraph" or "record" ends it earlier. A word
//                  ends before what follows it, so that the next word begins with its blank; a sentence ends with its
//                  stop and closing quotes, a paragraph before its line end. Null, too, ends at the end of a record.
//     temperature  from 0; minP: 0 to 1, as `chargen.SampleConfig` has them.
//     seed         a string of digits, 0 to 2**64 - 1; index: the number of the alternative, 0 to 2**32 - 1.
//     draws        draws that came before: 0, or what `done` said of the text that ends here, to go on as if the
//                  writing had never stopped.
//     label        one of `info.labels`, or null; direction: "forward" (also where it is left out) or "backward".
//   { kind: "score", id, text, label }
//   { kind: "stop", id }        the job ends with `done`; of an unknown id nothing comes.
//
// Messages to the page:
//
//   { kind: "ready", info }     the answer to `load`. info: { cell, layers, hidden, parameters, size (ids), unit,
//     directions, records (boolean), separator (between two records of a draft: a text, or null), labels, names (of all
//     ids, for people: quoted characters, "the end", "unknown", "a label"), kept (likeliest ids for each character) }
//   { kind: "text", id, text }  what was written since the last such message, some 30 times a second. Backward it
//     stands before all that came earlier.
//   { kind: "done", id, reason, draws, unknown, end }   no more comes of this job.
//     reason       "length", "until", "end" (of a record: a separator may follow), "stopped", or "scored".
//     draws        to go on from the end of what was written.
//     unknown      the characters of the text that the model does not know, each once: they were read as the symbol for
//                  unknown characters, or passed over where the model has none.
//     end          of a scored record: the bits of its end behind the text; else null.
//   { kind: "scores", id, start, bits, likeliest, shares }   of the next characters (code points) of a scored text.
//     start        the number of the first; bits: Float32Array (n), the surprise at each, NaN where there is none.
//     likeliest    Uint32Array (n * kept), ids that were likeliest, the likeliest first, and shares: Float32Array
//                  (n * kept), their probabilities, 0 for a character of several bytes. A separator stands for the end of
//                  its record.
//   { kind: "error", id, message }   in place of `done`, or of `ready` (without id).
