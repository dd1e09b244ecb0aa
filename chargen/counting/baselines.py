"""What a network has to beat on the split that it is trained on: single characters, n-grams and compressors."""

import bz2
import lzma
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.counting.ngram import NGram
from chargen.data.borders import as_targets
from chargen.data.corpus import Corpus
from chargen.data.records import MARK
from chargen.data.vocabulary import Vocabulary

MAX_TRAIN, MAX_VALID, MAX_COMPRESSED = 10_000_000, 2_000_000, 4_000_000
"""Ids that n-grams learn from, ids that are scored, and ids that compressors read before these: the nearest ones."""
MIN_COMPRESSED = 10_000
"""Bytes of a text of which a compressed size tells something: of fewer, a format's own bytes are too large a share."""
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": lambda data: zlib.compress(data, 9),
    "bz2": lambda data: bz2.compress(data, 9),
    "lzma": lambda data: lzma.compress(data, preset=6),
}


@dataclass(frozen=True)
class Baseline:
    """What a part of a text costs a simple model.

    Args:
        name: "uniform", "entropy" (of single ids, by their counts in the scored text itself), "1-gram", "2-gram" …, or,
            of 10,000 bytes and more, "zlib", "bz2" and "lzma".
        nats_per_character: the mean loss.
    """

    name: str
    nats_per_character: float

    @property
    def bits_per_character(self) -> float:
        """The mean loss in bits."""
        return self.nats_per_character / math.log(2)


@dataclass(frozen=True)
class Baselines:
    """What the validation part costs models that are no networks, counted as `evaluate` counts it.

    Args:
        rows: one for each model.
        characters: how many are scored: all but the first, which is context; of records, all, and each one's end.
        train_ids: on how many ids n-grams learned, the last of the training part.
        compressed_ids: how many ids compressors read before the scored ones, uncounted.
        whole: whether the whole validation part is scored, not only its beginning.
    """

    rows: tuple[Baseline, ...]
    characters: int
    train_ids: int
    compressed_ids: int
    whole: bool


def measure_baselines(
    corpus: Corpus, order: int, progress: Callable[[str, int, int], None]
) -> tuple[Baselines | None, NGram]:
    """Score the validation part by its entropy, by n-grams of all orders up to one, and by compressors.

    Args:
        corpus: the text.
        order: of the longest n-grams.
        progress: called as (task, done, in all) now and then.

    Returns:
        What it costs them, None where there is nothing to score; and the model of the longest n-grams.
    """
    vocabulary = corpus.vocabulary
    train, valid = _last(corpus.train, MAX_TRAIN, vocabulary), _ended(corpus.valid[:MAX_VALID], vocabulary)
    ended = _ended(train, vocabulary)
    model = NGram(
        ended, len(vocabulary), order, end_id=vocabulary.end_id, progress=partial(progress, "counting n-grams")
    )
    first = 1
    while vocabulary.byte_mode and first < len(valid) and not vocabulary.count_characters(valid[first : first + 1]):
        first += 1
    targets = as_targets(valid[first:], vocabulary.end_id)
    characters = vocabulary.count_characters(targets)
    if not characters:
        return None, model
    # Rare characters that share a symbol are told apart at the same price in every row, as `evaluate` does.
    folded = 0 if vocabulary.unknown_id is None else int(np.count_nonzero(targets == vocabulary.unknown_id))
    nats = {"uniform": len(targets) * math.log(len(vocabulary) - len(vocabulary.labels)), "entropy": _entropy(targets)}
    sums, done = np.zeros(order), 0
    for block in model.log_probs_by_order(valid):
        sums -= block[:, max(0, first - done) :].sum(1)
        done += block.shape[1]
        progress("scoring", done, len(valid))
    nats |= {f"{number}-gram": float(total) for number, total in enumerate(sums, 1)}
    before = _last(corpus.train, MAX_COMPRESSED, vocabulary)
    context, text = _encode(np.concatenate([before, valid[:first]]), vocabulary), _encode(targets, vocabulary)
    for number, (name, compress) in enumerate(COMPRESSORS.items() if len(text) >= MIN_COMPRESSED else ()):
        progress("compressing", number, len(COMPRESSORS))
        nats[name] = 8 * math.log(2) * (len(compress(context + text)) - len(compress(context)))
    rows = tuple(Baseline(name, (total + folded * vocabulary.folded_nats) / characters) for name, total in nats.items())
    return Baselines(rows, characters, len(train), len(before), len(corpus.valid) <= MAX_VALID), model


def _last(ids: NDArray[Any], limit: int, vocabulary: Vocabulary) -> NDArray[Any]:
    """The last ids of a part, from the beginning of a record on where there are records."""
    if len(ids) <= limit:
        return ids
    ids = ids[-limit:]
    if vocabulary.end_id is None:
        return ids
    begins = np.flatnonzero(ids >= vocabulary.end_id)
    return ids[begins[0] :] if len(begins) else ids


def _ended(ids: NDArray[Any], vocabulary: Vocabulary) -> NDArray[Any]:
    """Ids with the end of the last record, where there are records."""
    return ids if vocabulary.end_id is None or not len(ids) else np.append(ids, ids.dtype.type(vocabulary.end_id))


def _entropy(targets: NDArray[Any]) -> float:
    """The nats of ids (N,) where each costs what its share in them says."""
    _, counts = np.unique(targets, return_counts=True)
    return float(-np.sum(counts * np.log(counts / len(targets))))


def _encode(ids: NDArray[Any], vocabulary: Vocabulary) -> bytes:
    """The bytes of a text, with a line end for the end of each record."""
    text = vocabulary.decode(ids)
    return (MARK.sub("\n", text) if vocabulary.records else text).encode("utf-8", "surrogateescape")
