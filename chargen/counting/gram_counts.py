"""Counts of grams: stretches of n ids, in the sorted tables that n-grams are made of.

Grams of n ids are entries of a table, sorted by (entry of the first n - 1 ids, last id). What begins with ids that
occur once occurs once too, so no table holds it: such a gram is known by the position at which it ends in the text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.data.borders import as_targets

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts of counts give none, as in short texts and of single characters; those of KenLM."""

Integers = NDArray[np.int64]
Counts = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grams:
    """The grams of one length, but for those whose first ids occur once.

    Args:
        keys: (U,), rising: entry of the first ids times V, plus the last id.
        counts: (U,), how often each occurs.
        ends: (U,), where one occurrence ends.
        suffixes: (U,), the entry of each without its first id among the grams that are shorter by one; of single ids
            (0,).
        once: how many grams are not here; each occurs once.
    """

    keys: Integers
    counts: Counts
    ends: Counts
    suffixes: Counts
    once: int


class Weights(NamedTuple):
    """How grams of some length predict: interpolated with shorter ones, p = kept + rest p'.

    Args:
        kept: (U,), what a gram has of its own.
        rest: what remains for shorter ones behind each context, which is an entry of the grams shorter by one.
        discount: of a count of 1.
    """

    kept: Floats
    rest: Floats
    discount: float


def is_border(ids: NDArray[Any], end_id: int | None) -> NDArray[np.bool_]:
    """Find the begin symbols of records.

    Args:
        ids: (N,).
        end_id: the first of these symbols; None where there are none.
    """
    return np.zeros(len(ids), bool) if end_id is None else ids >= end_id


def count_grams(
    ids: NDArray[Any], size: int, order: int, end_id: int | None, progress: Callable[[int, int], None]
) -> tuple[list[Grams], list[Counts]]:
    """Count all grams of up to n ids.

    Args:
        ids: of the text (N,).
        size: V.
        order: n.
        end_id: of records, the first of the begin symbols; no gram holds one but at its ends.
        progress: called as (length, n) when the grams of a length are counted.

    Returns:
        The grams of each length; and, of all but the longest, how many different ids precede each.
    """
    targets = as_targets(ids, end_id)
    first = int(end_id is not None)  # of records, the first begin symbol ends none
    counts = np.bincount(targets[first:], minlength=size).astype(np.int32)
    none = np.zeros(0, np.int32)
    grams = [Grams(np.arange(size), counts, none, none, 0)]
    variants: list[Counts] = []
    entries, places = targets.astype(np.int32), np.arange(first, len(ids))
    contexts, following = ids, np.arange(1, len(ids))
    for length in range(2, order + 1):
        keys = contexts[following - 1].astype(np.int64) * size + targets[following]
        ranks = np.argsort(keys)
        keys = keys[ranks]
        is_new = np.diff(keys, prepend=-1) != 0
        starts = np.flatnonzero(is_new)
        ends = following[ranks[starts]].astype(np.int32)
        # A gram has as many variants as there are longer ones that end with it, and those that nothing precedes.
        left = np.zeros(len(ids), bool)
        left[places] = True
        left[following] = False
        shorter = entries[np.concatenate([ends, places[left[places]]])]
        variants.append(np.bincount(shorter, minlength=len(grams[-1].counts)).astype(np.int32))
        counts = np.diff(starts, append=len(keys)).astype(np.int32)
        once = _count_occurrences(ids, end_id, length) - len(following)
        grams.append(Grams(keys[starts], counts, ends, shorter[: len(ends)], once))
        entries[following[ranks]] = np.cumsum(is_new) - 1
        repeats = (counts[entries[following]] > 1) & ~is_border(ids[following], end_id)
        contexts, places, following = entries, following, following[repeats] + 1
        following = following[following < len(ids)]
        progress(length, order)
    return grams, variants


def weigh(grams: Grams, counts: NDArray[Any], size: int, contexts: int) -> Weights:
    """Weigh grams of some length by how often they occur, or by how many different ids precede them.

    Args:
        grams: of the length.
        counts: (U,), of each.
        size: V.
        contexts: how many entries the table of grams has that are shorter by one; 0 for single ids.
    """
    context = grams.keys // max(size, 1) if contexts else np.zeros(len(grams.keys), np.int64)
    discounts = np.array([0.0, *estimate_discounts(counts, grams.once)])
    starts = np.flatnonzero(np.diff(context, prepend=-1))
    taken = discounts[np.minimum(counts, 3)]
    rest = np.ones(contexts or 1)
    if not counts.any():
        return Weights(np.zeros(len(counts)), rest, discounts[1])
    totals = np.add.reduceat(counts, starts, dtype=np.int64)
    rest[context[starts]] = np.add.reduceat(taken, starts) / totals
    kept = (counts - taken) / np.repeat(totals, np.diff(starts, append=len(counts)))
    return Weights(kept, rest, discounts[1])


def _count_occurrences(ids: NDArray[Any], end_id: int | None, length: int) -> int:
    """How many grams of some length a text has, with repetitions; 2 and more."""
    if end_id is None:
        return max(0, len(ids) - length + 1)
    starts = is_border(ids, end_id)
    starts[:1] = True
    lengths = np.diff(np.flatnonzero(starts), append=max(len(ids) - 1, 0))
    return int(np.maximum(lengths - length + 2, 0).sum())


def estimate_discounts(counts: NDArray[Any], once: int = 0) -> tuple[float, float, float]:
    """Estimate what is taken from counts of 1, of 2, and of 3 and more, from how many grams have counts of 1 to 4.

    Chen and Goodman (1998), equation 26: D_c = c - (c + 1) Y n_(c+1) / n_c with Y = n_1 / (n_1 + 2 n_2).

    Args:
        counts: of grams, (U,).
        once: how many more have a count of 1.

    Returns:
        The three; 0.5, 1 and 1.5 where the estimates are not above 0 and below the count.
    """
    _, n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[:5].tolist()
    n1 += once
    if not (n1 and n2 and n3 and n4):
        return FALLBACK
    share = n1 / (n1 + 2 * n2)
    first, second, third = (1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3)
    return (first, second, third) if second > 0 and third > 0 else FALLBACK
