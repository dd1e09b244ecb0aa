"""Hashes of stretches of a text, the same wherever they stand: polynomials in an odd base, modulo 2**64."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

BASE = 0x9E3779B97F4A7C15
"""Odd, so that it has an inverse."""
Hashes = NDArray[np.uint64]


def powers(count: int, *, inverse: bool = False) -> Hashes:
    """The powers of the base from 0 on.

    Args:
        count: how many.
        inverse: whether of its inverse.
    """
    return _powers(inverse, max(count - 1, 1 << 16).bit_length())[:count]


@functools.cache
def _powers(inverse: bool, bits: int) -> Hashes:
    factors = np.full(1 << bits, pow(BASE, -1, 1 << 64) if inverse else BASE, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def terms(codes: NDArray[Any]) -> Hashes:
    """The terms of a text's polynomial: (c + 1) times the base to the power of a character's place.

    Args:
        codes: (N,), code points or ids.
    """
    values = codes.astype(np.uint64)
    values += np.uint64(1)
    values *= powers(len(codes))
    return values


def mix(values: Hashes) -> Hashes:
    """Mix 64 bits, as in SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).

    Args:
        values: of any shape.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
