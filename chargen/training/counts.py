"""Counts beside a network that is trained: what is counted, how long it takes, and what it helps on other text."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.counting.context_tree import ContextTree
from chargen.counting.grow_tree import grow_tree
from chargen.counting.mixture import Mixture, fit_weights
from chargen.counting.recorder import Recorder
from chargen.data.borders import labels_before
from chargen.data.corpus import Corpus
from chargen.data.vocabulary import Vocabulary
from chargen.training.config import TrainConfig
from chargen.training.group import ALONE, Group

AUTO_ORDER = 10
"""One more than the characters of the longest contexts: of 8 to 12, none is better by more than 0.001 nats."""
MIN_VALID = 200
"""Ids of a validation part on which weights can be fitted."""
BYTES_PER_ID = 4
"""That counts may take in a model file for each id of the training part."""
MAX_COUNTED = 2**23
"""Ids that are counted, the last of the training part; counting takes some 100 bytes for each."""
SECONDS_PER_ID = 2.5e-7
"""That counting takes for each id and length of contexts, on a slow machine."""
MIN_GAIN = 0.001
"""Nats per character that counts must save on other text to be kept."""
BLOCK = 500
"""Ids in a row that weights are fitted on together, or scored with weights from other blocks."""
MAX_FITTED, FITTED_LOGITS = 2**16, 2**24
"""Ids that weights are fitted on, in evenly spaced stretches, and the logits that are kept for it, at most."""
SECONDS_PER_LOGIT, SECONDS_TO_MIX = 4e-7, 1.5e-8
"""That fitting takes for each logit, and mixing, on a slow machine."""


def choose_order(corpus: Corpus) -> int:
    """The order of counts for a text where none is given; 0 where there is nothing to fit weights on.

    Args:
        corpus: the text.
    """
    return AUTO_ORDER if len(corpus.valid) >= MIN_VALID else 0


def fitted_ids(size: int) -> int:
    """How many ids weights are fitted on.

    Args:
        size: V.
    """
    return min(MAX_FITTED, max(MIN_VALID, FITTED_LOGITS // max(size, 1)))


def seconds_to_count(corpus: Corpus, order: int, directions: int) -> float:
    """Estimate how long counting and fitting take.

    Args:
        corpus: the text.
        order: of the counts; 0 for none.
        directions: of the model.
    """
    counted, size = min(len(corpus.train), MAX_COUNTED) * order * SECONDS_PER_ID, len(corpus.vocabulary)
    fitted = min(len(corpus.valid), fitted_ids(size)) * (size + 100) * SECONDS_PER_LOGIT
    return directions * (counted + fitted) if order else 0.0


def seconds_to_mix(corpus: Corpus, order: int) -> float:
    """Estimate how long it takes to mix counts into what a network predicts for an id.

    Args:
        corpus: the text.
        order: of the counts; 0 for none.
    """
    return (100 + len(corpus.vocabulary)) * SECONDS_TO_MIX if order else 0.0


def count_contexts(
    corpus: Corpus, order: int, directions: tuple[str, ...], megabytes: float = TrainConfig.counts_mb
) -> dict[str, ContextTree]:
    """Count the contexts of the training part, for each direction.

    Args:
        corpus: the text.
        order: one more than the ids of the longest contexts.
        directions: of the model.
        megabytes: that all counts take together, at most.
    """
    ids, size = corpus.train, len(corpus.vocabulary)
    max_bytes = min(BYTES_PER_ID * len(ids), 1e6 * megabytes) / len(directions)
    ids = _last_ids(ids, corpus.vocabulary)
    options: dict[str, Any] = {"end_id": corpus.vocabulary.end_id}
    return {
        direction: grow_tree(_in_order(ids, direction, corpus.vocabulary), size, order, max_bytes, **options)
        for direction in directions
    }


def _last_ids(ids: NDArray[Any], vocabulary: Vocabulary) -> NDArray[Any]:
    """The ids that are counted; of records whole ones, with the end of the last."""
    last = ids[-MAX_COUNTED:]
    if vocabulary.end_id is None:
        return last
    begins = np.flatnonzero(last >= vocabulary.end_id)
    return np.append(last[begins[0] :] if len(begins) else last, last.dtype.type(vocabulary.end_id))


def _in_order(ids: NDArray[Any], direction: str, vocabulary: Vocabulary) -> NDArray[Any]:
    return ids if direction == "forward" else labels_before(ids, vocabulary.end_id)[::-1]


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Scores each half of a text with weights that were fitted on the other half.

    Args:
        mixtures: for the places of either half, as `halve` numbers them.
    """

    mixtures: tuple[Mixture, Mixture]

    def nats(self, ids: NDArray[Any], places: NDArray[np.int64], logits: NDArray[Any]) -> NDArray[np.float64]:
        """What ids of a text cost; the arguments are those of `Mixture.nats`."""
        halves, nats = halve(places, len(ids)), np.zeros(len(places))
        for half, mixture in enumerate(self.mixtures):
            own = halves == half
            nats[own] = mixture.nats(ids, places[own], logits[own])
        return nats


def fit_mixture(tree: ContextTree, recorder: Recorder, group: Group = ALONE) -> tuple[Mixture, CrossFitted]:
    """Fit the weights of a mixture, on a text that is not counted.

    Args:
        tree: the counts.
        recorder: has seen all that the network predicts there.
        group: the processes, each of which has scored some of the text.

    Returns:
        The mixture with weights of the whole text, and those that score that text itself.
    """
    places, log_probs = recorder.in_order()
    halves = halve(places, len(recorder.ids))

    def add(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        if group.alone:
            return sums
        return np.array(group.exchange(sums.ravel().tolist())).reshape(sums.shape)

    def fit(chosen: NDArray[np.bool_] | slice) -> Mixture:
        return fit_weights(tree, recorder.ids, places[chosen], log_probs[chosen], add)

    return fit(slice(None)), CrossFitted((fit(halves == 1), fit(halves == 0)))


def halve(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Say which half of a text each place is in: 0 or 1, block by block.

    Args:
        places: (n,), in the text.
        size: ids of the text.
    """
    return places // max(1, min(BLOCK, size // 10)) % 2
