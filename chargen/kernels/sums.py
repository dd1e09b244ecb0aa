"""Sums of a training step's gradients: over time, and over the places of each character."""

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.amx import SIDE
from chargen.kernels.bf16 import Floats, Stored
from chargen.kernels.bf16_ir import to_float
from chargen.kernels.jit import compiled
from chargen.kernels.simd import fuse, itemsize

_CHAINS = 8
"""Partial sums that are kept, so that no addition waits for the one before."""
_BLOCKS = 16
"""Blocks of 32 columns that are summed at once: their totals for a hundred characters fit in a small cache (200 kB)."""

_add = fuse(lambda total, more: (total + more,), "fw", "f")


@compiled
def sums_over_time(values: Stored, start: int, stop: int, out: Floats) -> None:
    """Sum each of some rows of a matrix.

    Args:
        values: (N, M), with contiguous rows.
        start: the first row to sum.
        stop: the row to stop before.
        out: (N,), filled with the sums of these rows.
    """
    columns, block_bytes = values.shape[1], SIDE * itemsize(values)
    totals = np.empty(_CHAINS * SIDE, np.float32)
    for row in range(start, stop):
        totals[:] = 0
        row_ptr = values.ctypes.data + row * values.strides[0]
        for block in range(columns // SIDE):
            total_ptr = totals.ctypes.data + block % _CHAINS * SIDE * 4
            _add(values, (total_ptr, row_ptr + block * block_bytes, total_ptr))
        result = np.float32(0)
        for lane in range(len(totals)):
            result += totals[lane]
        for column in range(columns // SIDE * SIDE, columns):
            result += to_float(values[row, column])
        out[row] = result


@compiled
def sums_by_id(values: Floats, ids: NDArray[np.int64], start: int, stop: int, out: Floats) -> None:
    """Add each row of a matrix to the row of another that its id names.

    Args:
        values: (N, M), with contiguous rows; M a multiple of 32.
        ids: (N,), from 0 to V - 1.
        start: the first block of 32 columns to sum.
        stop: the block to stop before.
        out: (V, M), to which rows are added in their order.
    """
    block_bytes = SIDE * 4
    for first in range(start, stop, _BLOCKS):
        for row in range(len(ids)):
            source = values.ctypes.data + row * values.strides[0]
            target = out.ctypes.data + ids[row] * out.strides[0]
            for block in range(first, min(first + _BLOCKS, stop)):
                total_ptr = target + block * block_bytes
                _add(values, (total_ptr, source + block * block_bytes, total_ptr))
