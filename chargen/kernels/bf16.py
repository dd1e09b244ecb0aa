"""bf16 numbers in NumPy, which has no such type: the upper 16 bits of float32, in uint16."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]
Stored = NDArray[Any]
"""float32, or bits of bf16 in uint16."""


def to_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round finite float32 to bf16 bits, to nearest, ties to even.

    Args:
        values: of any shape.

    Returns:
        The bits, in the same shape.
    """
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def to_floats(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen bits of bf16 to float32, exactly.

    Args:
        bits: of any shape.

    Returns:
        The numbers, in the same shape.
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)
