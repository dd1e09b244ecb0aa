"""Dropout masks that are computed where they are applied: Philox of their address, as in `draws`."""

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.compiled import compiled
from chargen.kernels.tiles import load, store

GROUP = 512
"""Values that are computed together: 8 numbers of 16 bits from each of 64 Philox counters."""
_COUNTERS = 64
_LOW = np.uint64(0xFFFFFFFF)
_32, _16 = np.uint64(32), np.uint64(16)
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@compiled
def _words(key: np.uint64, n: np.uint64, index: np.uint64, purpose: np.uint64, words: NDArray[np.uint32]) -> None:
    """Four words of each counter from n on: words[j, i] is word j of counter n + i."""
    for i in range(_COUNTERS):
        at = n + np.uint64(i)
        x0, x1, x2, x3 = at & _LOW, at >> _32, index, purpose
        key_0, key_1 = key & _LOW, key >> _32
        for _ in range(10):
            product_0, product_1 = _MULTIPLIER_0 * x0, _MULTIPLIER_1 * x2
            x0, x1 = (product_1 >> _32) ^ x1 ^ key_0, product_1 & _LOW
            x2, x3 = (product_0 >> _32) ^ x3 ^ key_1, product_0 & _LOW
            key_0, key_1 = (key_0 + _WEYL_0) & _LOW, (key_1 + _WEYL_1) & _LOW
        words[0, i], words[1, i], words[2, i], words[3, i] = x0, x1, x2, x3


@compiled
def _scale_or_drop(
    values: NDArray[np.float32], numbers: NDArray[np.uint16], limit: np.uint16, out: NDArray[np.float32]
) -> None:
    scale = np.float32(65536) / np.float32(65536 - np.float32(limit))
    for n in range(len(values)):
        out[n] = values[n] * scale if numbers[n] >= limit else np.float32(0)


@compiled
def drop_floats(
    values: NDArray[np.float32], out: NDArray[np.float32], first: int, last: int, limit: int, key: int, n: int,
    index: int, purpose: int,
) -> None:  # fmt: skip
    """Zero values (N,) whose number is below `limit`, and scale the others by 65536 / (65536 - limit).

    Args:
        first, last: from which to which group of 512 values.
        key, n, index, purpose: the address of the first value, as in `draws`.
    """
    words = np.empty((4, _COUNTERS), np.uint32)
    for group in range(first, last):
        _words(np.uint64(key), np.uint64(n + group * _COUNTERS), np.uint64(index), np.uint64(purpose), words)
        part = slice(group * GROUP, min(len(values), (group + 1) * GROUP))
        _scale_or_drop(values[part], words.view(np.uint16).ravel(), np.uint16(limit), out[part])


@compiled
def drop_bits(
    values: NDArray[np.uint16], out: NDArray[np.uint16], first: int, last: int, limit: int, key: int, n: int,
    index: int, purpose: int,
) -> None:  # fmt: skip
    """The same for bf16 bits."""
    words, floats = np.empty((4, _COUNTERS), np.uint32), np.empty(GROUP, np.float32)
    for group in range(first, last):
        _words(np.uint64(key), np.uint64(n + group * _COUNTERS), np.uint64(index), np.uint64(purpose), words)
        part = slice(group * GROUP, min(len(values), (group + 1) * GROUP))
        size = part.stop - part.start
        load(values[part], floats)
        _scale_or_drop(floats[:size], words.view(np.uint16).ravel(), np.uint16(limit), floats[:size])
        store(floats, out[part])
