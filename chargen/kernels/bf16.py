"""bf16 numbers as the upper 16 bits of float32: NumPy has no such type. `bf16_ir` is the same in machine code."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]
Stored = NDArray[Any]
"""float32, or bits of bf16 in uint16."""


def to_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Finite float32 -> bf16 bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def to_floats(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Bits of bf16 -> the same numbers."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
