"""Randomness that is addressed, not consumed: a draw is a pure function of its address.

Every random number in chargen is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random
numbers: as easy as 1, 2, 3", 2011) of (seed, index, n, purpose), so no generator has a state to
save, and neither chunking, batching nor the number of processes can change a result.
"""

import enum
import operator
import secrets
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chargen.settings import check_int

MULTIPLIERS, WEYL = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
"""Constants of Philox, 32 bits each."""
_LOW = 0xFFFFFFFF
"""Mask of the low 32 bits."""

MAX_SEED = 2**64 - 1


def check_seed(seed: int | None) -> int:
    """Check a seed, or let the system draw one of 32 bits.

    Args:
        seed: 0 to 2**64 - 1; None where none was chosen.

    Raises:
        SettingError: it is out of its range.
    """
    return secrets.randbits(32) if seed is None else check_int("seed", seed, 0, MAX_SEED)


class Purpose(enum.IntEnum):
    """What a draw is for. Draws for different purposes are independent; the numbers never change."""

    INITIALIZE = 0
    PHASE = 1
    WINDOW = 2
    DROPOUT = 3
    SAMPLE = 4
    RESET = 5
    CLOZE = 6
    FILL = 7
    CHECK = 8
    ORDER = 9
    LABEL = 10
    LANGUAGE = 11
    CHANGE = 12
    TEACH = 13
    BEGIN = 14


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Compute Philox4x32-10 for each counter.

    Args:
        counter: (..., 4), 32-bit words in uint64.
        key: two 32-bit words.

    Returns:
        Four random 32-bit words for each counter, (..., 4), in uint64.
    """
    flat = counter.reshape(-1, 4)  # arrays even of one counter: NumPy 1 makes floats of uint64 scalars and integers
    x0, x1, x2, x3 = flat.T
    return np.stack(_rounds(x0, x1, x2, x3, *key), axis=-1).reshape(counter.shape)


def _rounds(x0: Any, x1: Any, x2: Any, x3: Any, key_0: int, key_1: int) -> tuple[Any, Any, Any, Any]:
    """The ten rounds, on Python's integers or on arrays (N,) of uint64."""
    for _ in range(10):
        product_0, product_1 = MULTIPLIERS[0] * x0, MULTIPLIERS[1] * x2
        x0, x1, x2, x3 = (
            (product_1 >> 32) ^ x1 ^ key_0,
            product_1 & _LOW,
            (product_0 >> 32) ^ x3 ^ key_1,
            product_0 & _LOW,
        )
        key_0, key_1 = (key_0 + WEYL[0]) & _LOW, (key_1 + WEYL[1]) & _LOW
    return x0, x1, x2, x3


def uniform(seed: int, index: ArrayLike, n: ArrayLike, purpose: Purpose) -> NDArray[np.float64]:
    """Draw uniform numbers in [0, 1) with 53 random bits, addressed by (seed, index, n, purpose).

    Args:
        seed: 0 to 2**64 - 1.
        index: which sample or row, below 2**32; broadcast with `n`.
        n: which draw of that sample or row, below 2**64.
        purpose: what the draw is for.

    Returns:
        One number for each `index` and `n`, of their common shape.
    """
    seed = operator.index(seed)
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}: it must be from 0 to {MAX_SEED}")
    index_, n_ = np.broadcast_arrays(np.asarray(index, np.uint64), np.asarray(n, np.uint64))
    low, high = n_ & np.uint64(_LOW), n_ >> np.uint64(32)
    counter = np.stack([low, high, index_, np.full_like(n_, int(purpose))], axis=-1)
    words = philox(counter, (seed & _LOW, seed >> 32))
    bits = (words[..., 0] << np.uint64(21)) ^ (words[..., 1] >> np.uint64(11))
    result: NDArray[np.float64] = bits.astype(np.float64) * 2.0**-53
    return result


def generator_seed(seed: int, index: int, n: int, purpose: Purpose) -> int:
    """Draw the seed for another library's generator: 63 random bits, addressed by (seed, index, n, purpose).

    torch's generator on the CPU uses the low 32 bits only.

    Args:
        seed: 0 to 2**64 - 1.
        index: which sample or row, below 2**32.
        n: which draw of that sample or row, below 2**64.
        purpose: what the draw is for.
    """
    first, second = philox_key(operator.index(seed), index, n, purpose)
    return (first << 31) ^ second


def philox_key(seed: int, index: int, n: int, purpose: Purpose) -> tuple[int, int]:
    """Draw a key for `philox`, for draws whose address fills a counter of their own.

    Args:
        seed: 0 to 2**64 - 1.
        index: such as a layer, below 2**32.
        n: such as a step, below 2**64.
        purpose: what the draws are for.

    Returns:
        Two random 32-bit words, a function of (seed, index, n, purpose).
    """
    # Called in every step for each layer; for a single counter NumPy takes ten times as long.
    first, second, _, _ = _rounds(n & _LOW, n >> 32, index, int(purpose), seed & _LOW, seed >> 32)
    return first, second
