"""How much of a text stands in another one, or twice in itself: the same file in two roles, or given twice.

A block is found wherever it stands, so what was cut, joined or moved is found too. Texts that repeat themselves, such
as logs, are no copies: what they repeat stands there many times, or ends soon, with a line or a report.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH, LONG = 200, 1000
"""Ids of a block, and of one that only a copy has."""
MOST = 10
"""Places where a copy stands; what stands in more is of a kind with them."""
MAX_BLOCKS = 1000
_CHUNK = 1 << 16
_BASE = 0x9E3779B97F4A7C15
"""Of the polynomial that is a block's hash, modulo 2**64; odd, so that it has an inverse."""

Hashes = NDArray[np.uint64]
_NONE: Hashes = np.zeros(0, np.uint64)


def copied_shares(parts: Sequence[NDArray[Any]]) -> list[float]:
    """The share of each part, ids (N,), that is copied in earlier parts; of the first one, what stands there twice.

    Estimated from up to 1,000 blocks of 200 ids. 0 for a text that only repeats itself, and where N < 200.
    """
    found = _shares(parts, range(len(parts)), LENGTH)
    for place in np.flatnonzero(found).tolist():
        length = min(LONG, max(LENGTH, len(parts[place]) // 4))
        if _shares(parts, [place], length)[0] < found[place] / 2:
            found[place] = 0.0
    return found


def _shares(parts: Sequence[NDArray[Any]], places: Sequence[int], length: int) -> list[float]:
    """The share of blocks of some parts that stand in earlier ones, in some places only; all in one pass for each."""
    blocks = [hash_blocks(parts[place], length) for place in places]
    counts = [np.zeros(len(each), np.int64) for each in blocks]
    for at, text in enumerate(parts):
        wanted = [number for number, place in enumerate(places) if at < max(place, 1)]
        sums = count_blocks(np.concatenate([blocks[number] for number in wanted] or [_NONE]), text, length)
        for number in wanted:
            counts[number] += sums[: len(blocks[number])]
            sums = sums[len(blocks[number]) :]
    copies = [(each > (place == 0)) & (each <= MOST) for each, place in zip(counts, places, strict=True)]
    return [float(each.mean()) if len(each) else 0.0 for each in copies]


def hash_blocks(ids: NDArray[Any], length: int = LENGTH) -> Hashes:
    """The hashes of up to 1,000 evenly spaced blocks of ids (N,); none where N < length."""
    last = len(ids) - length
    if last < 0:
        return _NONE
    starts = np.unique(np.linspace(0, last, MAX_BLOCKS).astype(np.int64))
    return np.concatenate([_hashes(ids[start : start + length], length) for start in starts])


def count_blocks(blocks: Hashes, ids: NDArray[Any], length: int = LENGTH) -> NDArray[np.int64]:
    """How often each block (P,) stands in ids (N,). Memory does not grow with N."""
    wanted, which = np.unique(blocks, return_inverse=True)
    counts = np.zeros(len(wanted), np.int64)
    if not len(wanted):
        return counts
    likely = np.zeros(1 << 16, bool)  # most blocks are out by their first bits
    likely[wanted >> np.uint64(48)] = True
    for start in range(0, len(ids) - length + 1, _CHUNK):
        hashes = _hashes(ids[start : start + _CHUNK + length - 1], length)
        hashes = hashes[likely[hashes >> np.uint64(48)]]
        places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        counts += np.bincount(places[wanted[places] == hashes], minlength=len(wanted))
    return counts[which]


def _hashes(ids: NDArray[Any], length: int) -> Hashes:
    """The hashes of all blocks in ids (N,), (N - length + 1,).

    Differences of one running sum, brought to the same power.
    """
    powers = _powers(_BASE, len(ids))
    sums = np.zeros(len(ids) + 1, np.uint64)
    np.cumsum((ids.astype(np.uint64) + np.uint64(1)) * powers, out=sums[1:])
    size = len(ids) - length + 1
    return (sums[length:] - sums[:size]) * _powers(pow(_BASE, -1, 1 << 64), size)


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)
