"""Copies: how much of a text occurs in another one, or twice in itself, as where a file is named in two roles.

Blocks are compared wherever they are, so text that was cut, joined or moved counts too. Texts that repeat themselves,
such as logs, are no copies: what they repeat occurs many times, or is short, such as a line or a report.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.hashing import Hashes, powers, terms

BLOCK_LENGTH, LONG_BLOCK_LENGTH = 200, 1000
"""Ids of a block, and of one so long that only copies contain it."""
MAX_OCCURRENCES = 10
"""A block that occurs more often is a repetition, not a copy."""
MAX_BLOCKS = 1000
"""Blocks of a text that are compared."""
MAX_READ = 1 << 30
"""Ids in which blocks are looked for: of a longer text the shares are those that are copied at its beginning."""
_CHUNK = 1 << 16

_NO_HASHES: Hashes = np.zeros(0, np.uint64)


def copied_shares(parts: Sequence[NDArray[Any]]) -> list[float]:
    """Estimate how much of each part is copied, from up to 1,000 blocks of 200 ids.

    Args:
        parts: ids (N,) each.

    Returns:
        For each part the share that also occurs in earlier parts; for the first one, the share that occurs in it twice.
        0 for a text that only repeats itself, and where N < 200.
    """
    shares = _copied_shares(parts, range(len(parts)), BLOCK_LENGTH)
    for index in np.flatnonzero(shares).tolist():
        length = min(LONG_BLOCK_LENGTH, max(BLOCK_LENGTH, len(parts[index]) // 4))
        if _copied_shares(parts, [index], length)[0] < shares[index] / 2:
            shares[index] = 0.0
    return shares


def _copied_shares(parts: Sequence[NDArray[Any]], selected: Sequence[int], length: int) -> list[float]:
    """The share of the blocks of each selected part that are copied; each text is read once for all of them."""
    blocks = {index: hash_blocks(parts[index], length) for index in selected}
    counts = {index: np.zeros(len(hashes), np.int64) for index, hashes in blocks.items()}
    for earlier, ids in enumerate(parts):
        later = [index for index in selected if earlier < max(index, 1)]  # the first part is compared with itself
        occurrences = count_blocks(np.concatenate([blocks[index] for index in later] or [_NO_HASHES]), ids, length)
        for index in later:
            counts[index] += occurrences[: len(blocks[index])]
            occurrences = occurrences[len(blocks[index]) :]
    copies = [(counts[index] > (index == 0)) & (counts[index] <= MAX_OCCURRENCES) for index in selected]
    return [float(is_copied.mean()) if len(is_copied) else 0.0 for is_copied in copies]


def hash_blocks(ids: NDArray[Any], length: int = BLOCK_LENGTH) -> Hashes:
    """Hash up to 1,000 evenly spaced blocks of a text.

    Args:
        ids: of the text (N,).
        length: ids of a block.

    Returns:
        The hashes (P,); none where N < length.
    """
    last = len(ids) - length
    if last < 0:
        return _NO_HASHES
    starts = np.unique(np.linspace(0, last, MAX_BLOCKS).astype(np.int64))
    return np.concatenate([_hashes(ids[start : start + length], length) for start in starts])


def count_blocks(blocks: Hashes, ids: NDArray[Any], length: int = BLOCK_LENGTH) -> NDArray[np.int64]:
    """Count how often blocks occur in the first `MAX_READ` ids of a text. Memory does not grow with N.

    Args:
        blocks: hashes (P,).
        ids: of the text (N,).
        length: ids of a block.

    Returns:
        The number of occurrences of each block (P,).
    """
    distinct, index = np.unique(blocks, return_inverse=True)
    counts = np.zeros(len(distinct), np.int64)
    if not len(distinct):
        return counts
    likely = np.zeros(1 << 16, bool)  # the first bits already exclude most hashes
    likely[distinct >> np.uint64(48)] = True
    for start in range(0, min(len(ids) - length + 1, MAX_READ), _CHUNK):
        hashes = _hashes(ids[start : start + _CHUNK + length - 1], length)
        hashes = hashes[likely[hashes >> np.uint64(48)]]
        nearest = np.minimum(np.searchsorted(distinct, hashes), len(distinct) - 1)
        counts += np.bincount(nearest[distinct[nearest] == hashes], minlength=len(distinct))
    return counts[index]


def _hashes(ids: NDArray[Any], length: int) -> Hashes:
    """The hashes of all blocks in ids (N,), (N - length + 1,): differences of a running sum, scaled to one power."""
    sums = np.zeros(len(ids) + 1, np.uint64)
    np.cumsum(terms(ids), out=sums[1:])
    size = len(ids) - length + 1
    return (sums[length:] - sums[:size]) * powers(size, inverse=True)
