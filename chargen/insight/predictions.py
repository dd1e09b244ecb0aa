"""What a model expects at every character of texts, as arrays: what each costs, and the likeliest alternatives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import END_MARK
from chargen.evaluation.layout import lay_out
from chargen.evaluation.per_character import quote
from chargen.evaluation.predicted_ids import JUDGES, predict_ids
from chargen.insight.loss_profile import Calibration, LossTable, calibrate, loss_by_distance
from chargen.storage.model_file import ModelFile

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

NUM_LIKELIEST = 5
"""Alternatives that are kept of each prediction."""
PIECE = 1000
"""Characters that a model reads from a fresh state, to tell what its carried state is worth."""
PIECES = 64
"""The most such pieces of a text."""

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model expects at the characters of texts; each record has its end behind it, as one more character.

    Args:
        text: the characters (N) of all texts, one behind the other; the end of a record is "\\udfff".
        ids: (N,), of each; -1 where it was left out, and in bytes for a character of several.
        log_probs: by judge, (N,) in nats; nan where the judge gives none: for a character that was left out, in bytes
            for the cloze prediction of a character of several, and for that of an end.
        likeliest: by judge, (N, K) ids, the likeliest first.
        probabilities: of these, by judge, (N, K); 0 in bytes for a character of several.
        distances: (N,), how many characters stand between each and the start of its text or record.
    """

    text: str
    ids: NDArray[np.int64]
    log_probs: dict[str, NDArray[np.float32]]
    likeliest: dict[str, NDArray[np.uint32]]
    probabilities: dict[str, NDArray[np.float32]]
    distances: NDArray[np.int64]

    def calibration(self, judge: str) -> Calibration:
        """Compare the probability of the id that a judge finds likeliest with how often it came true.

        Args:
            judge: "forward", "backward" or "cloze".
        """
        probabilities = self.probabilities[judge][:, 0]
        judged = probabilities > 0
        return calibrate(probabilities[judged], (self.likeliest[judge][:, 0] == self.ids)[judged])


def name_character(character: str) -> str:
    """Write a character of `Predictions.text` for people: quoted, escaped where it cannot be seen, an end by name.

    Args:
        character: that.
    """
    return quote("" if character == END_MARK else character)


def predict_texts(
    network: "CharModel",
    file: ModelFile,
    texts: Sequence[str],
    *,
    unknown: str,
    precision: str = "fp32",
    labels: Sequence[str | None] | None = None,
    progress: Progress = lambda task, done, total: None,
) -> Predictions:
    """Predict every character of some texts by every judge of a network alone: what is looked into has no counts.

    Args:
        network: the model.
        file: its vocabulary, its begin text, and how often each id occurs.
        texts: cleaned as the text that the model learned; of a model of records each is a record.
        unknown: what to do with characters that the model has never seen: "error", "skip" or "replace".
        precision: "fp32" or "bf16".
        labels: of each text, where texts are records; none by default.
        progress: called after every window with the task, the number of characters read, and that of all texts.

    Raises:
        DataError: a text has unknown characters and `unknown` is "error", or it has a lone surrogate.
        ChargenError: predictions are not finite.
    """
    both, records = network.config.bidirectional, file.vocabulary.records
    layout = lay_out(file, texts, unknown, "both" if both else "forward", labels)
    num_ids = np.bincount(layout.owner, minlength=layout.size)
    ids = np.full(layout.size, -1, np.int64)
    keep = min(NUM_LIKELIEST, len(file.vocabulary))
    judges = JUDGES if both else ("forward",)
    sums = {judge: np.zeros(layout.size) for judge in judges}
    likeliest = {judge: np.zeros((layout.size, keep), np.uint32) for judge in judges}
    probabilities = {judge: np.zeros((layout.size, keep), np.float32) for judge in judges}
    alone = replace(file, mixtures={})
    for part in predict_ids(network, alone, texts, layout, precision=precision, progress=progress):
        np.add.at(sums[part.judge], part.characters, part.values)
        ids[part.characters] = part.targets
        values, best = part.log_probs.topk(keep)
        likeliest[part.judge][part.characters] = best.cpu().numpy()
        probabilities[part.judge][part.characters] = values.exp().cpu().numpy()
    whole, number = num_ids == 1, np.arange(layout.size)
    known = dict.fromkeys(judges, num_ids > 0)
    known["cloze"] = whole & (number < sum(map(len, texts)))  # the cloze layer judges no end
    places = {judge: _places(texts, records, judge) for judge in judges}
    return Predictions(
        "".join(text + END_MARK * records for text in texts),
        np.where(whole, ids, -1)[places["forward"]],
        {judge: np.where(known[judge], sums[judge], np.nan)[at].astype(np.float32) for judge, at in places.items()},
        {judge: likeliest[judge][at] for judge, at in places.items()},
        {judge: (probabilities[judge] * (known[judge] & whole)[:, None])[at] for judge, at in places.items()},
        np.concatenate([np.arange(len(text) + records) for text in texts] or [np.zeros(0, np.int64)]),
    )


def _places(texts: Sequence[str], records: bool, judge: str) -> NDArray[np.int64]:
    """The number in the layout of each character; an end is what stands behind a record, read backward before it."""
    size, first, places = sum(map(len, texts)), 0, [np.zeros(0, np.int64)]
    for number, text in enumerate(texts):
        end = size + 2 * number + (judge != "backward")
        places += [np.arange(first, first + len(text)), np.full(int(records), end)]
        first += len(text)
    return np.concatenate(places)


def loss_from_fresh_states(
    network: "CharModel",
    file: ModelFile,
    text: str,
    log_probs: NDArray[np.float32],
    *,
    unknown: str,
    precision: str = "fp32",
    progress: Progress = lambda task, done, total: None,
) -> tuple[LossTable, LossTable]:
    """Tell what a running text costs from fresh states, and what the same characters cost with carried state.

    Args:
        network: the model, which has no records.
        file: its vocabulary, its begin text, and how often each id occurs.
        text: cleaned as the text that it learned.
        log_probs: (N,), of each character read forward with carried state.
        unknown: what to do with characters that the model has never seen: "error", "skip" or "replace".
        precision: "fp32" or "bf16".
        progress: called after every window with the task, "fresh states", the number of characters read, and all.

    Returns:
        The losses by how many characters were read since a fresh state; those of the same characters with carried
        state. No text of less than two pieces has any.
    """
    number = min(PIECES, len(text) // PIECE - 1)
    starts = [PIECE + (len(text) - 2 * PIECE) * piece // max(1, number - 1) for piece in range(number)]
    pieces = [text[start : start + PIECE] for start in starts]
    fresh = predict_texts(
        network, file, pieces, unknown=unknown, precision=precision,
        progress=lambda task, done, total: progress("fresh states", done, total),
    )  # fmt: skip
    at = np.concatenate([np.arange(start, start + PIECE) for start in starts] or [np.zeros(0, np.int64)])
    restarted = fresh.log_probs["forward"]
    carried = np.where(np.isnan(restarted), np.nan, log_probs[at])
    return loss_by_distance(fresh.distances, restarted), loss_by_distance(fresh.distances, carried)
