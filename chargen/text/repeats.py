"""How much of a text stands in another one, or twice in itself: the same file in two roles, or given twice.

A block is found wherever it stands, so what was cut, joined or moved is found too. Blocks are longer than what texts of
their own accord repeat, such as a refrain or a line of a log.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH = 200
"""Ids of a block."""
BLOCKS = 1000
_CHUNK = 1 << 16
_BASE = 0x9E3779B97F4A7C15
"""Of the polynomial that is a block's hash, modulo 2**64; odd, so that it has an inverse."""

Hashes = NDArray[np.uint64]


def blocks_of(ids: NDArray[Any]) -> Hashes:
    """The hashes of up to 1,000 evenly spaced blocks of ids (N,); none where N < 200."""
    last = len(ids) - LENGTH
    if last < 0:
        return np.zeros(0, np.uint64)
    starts = np.unique(np.linspace(0, last, BLOCKS).astype(np.int64))
    return np.concatenate([_hashes(ids[start : start + LENGTH]) for start in starts])


def count_blocks(blocks: Hashes, ids: NDArray[Any]) -> NDArray[np.int64]:
    """How often each block (P,) stands in ids (N,). Memory does not grow with N."""
    wanted, which = np.unique(blocks, return_inverse=True)
    counts = np.zeros(len(wanted), np.int64)
    if not len(wanted):
        return counts
    likely = np.zeros(1 << 16, bool)  # most blocks are out by their first bits
    likely[wanted >> np.uint64(48)] = True
    for start in range(0, len(ids) - LENGTH + 1, _CHUNK):
        hashes = _hashes(ids[start : start + _CHUNK + LENGTH - 1])
        hashes = hashes[likely[hashes >> np.uint64(48)]]
        places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        counts += np.bincount(places[wanted[places] == hashes], minlength=len(wanted))
    return counts[which]


def _hashes(ids: NDArray[Any]) -> Hashes:
    """The hashes of all blocks in ids (N,), (N - 199,): differences of one running sum, brought to the same power."""
    powers = _powers(_BASE, len(ids))
    sums = np.zeros(len(ids) + 1, np.uint64)
    np.cumsum((ids.astype(np.uint64) + np.uint64(1)) * powers, out=sums[1:])
    size = len(ids) - LENGTH + 1
    return (sums[LENGTH:] - sums[:size]) * _powers(pow(_BASE, -1, 1 << 64), size)


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)
