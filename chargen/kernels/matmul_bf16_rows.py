"""Products of float32 rows and bf16 weights in tiles (AMX): each input is split into two bf16 numbers."""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from chargen.kernels.amx import (
    SIDE,
    configure_tiles,
    load_tile,
    multiply_tiles,
    release_tiles,
    store_tile,
    zero_tiles,
)
from chargen.kernels.bf16 import Bits, Floats
from chargen.kernels.bf16_ir import to_float, to_stored
from chargen.kernels.cpu_features import amx
from chargen.kernels.jit import compiled, native


@native
def _multiply(typing_context: Any, high: Any, low: Any, row_stride: Any, first_packed: Any, second_packed: Any) -> Any:
    """Add (high + low) (16, 32), whose rows are `row_stride` bytes apart, times two blocks (32, 32) to tiles 0 to 3.

    High, low and the blocks of packed weights come as addresses.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        high, low, row_stride, *packed = arguments
        load_tile(builder, 4, high, 0, row_stride)
        load_tile(builder, 5, low, 0, row_stride)
        for tile in range(4):
            weight_tile = 6 + tile % 2
            load_tile(builder, weight_tile, packed[tile // 2], 2 * SIDE * (tile % 2), 4 * SIDE)
            for input_tile in (4, 5):
                multiply_tiles(builder, tile, input_tile, weight_tile)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@native
def _store_sums(typing_context: Any, out: Any, row_stride: Any) -> Any:
    """Store the sums in tiles 0 to 3 beside each other (16, 64), with rows `row_stride` bytes apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for tile in range(4):
            store_tile(builder, tile, arguments[0], 2 * SIDE * tile, arguments[1])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 2), generate


@compiled
def _multiply_split(
    inputs: Floats, rows: int, packed: Bits, offset: int, start: int, stop: int, high: Bits, low: Bits, out: Floats,
    config: NDArray[np.uint8],
) -> None:  # fmt: skip
    size = inputs.shape[1]
    for row in range(rows):
        for k in range(size):
            high[row, k] = to_stored(high, inputs[row, k])
            low[row, k] = to_stored(low, inputs[row, k] - to_float(high[row, k]))
    configure_tiles(config)
    for block in range(start, stop):
        packed_ptr = packed.ctypes.data + (offset + block * size * 2 * SIDE) * 2
        for row in range(0, rows, 16):
            row_offset = row * size * 2
            zero_tiles(0)
            for k in range(size // SIDE):
                right = packed_ptr + k * SIDE * SIDE * 2
                first = row_offset + k * SIDE * 2
                _multiply(high.ctypes.data + first, low.ctypes.data + first, size * 2, right, right + size * SIDE * 2)
            _store_sums(out.ctypes.data + (row * out.shape[1] + block * 2 * SIDE) * 4, out.shape[1] * 4)
    release_tiles()


@compiled
def _unavailable(
    inputs: Floats, rows: int, packed: Bits, offset: int, start: int, stop: int, high: Bits, low: Bits, out: Floats,
    config: NDArray[np.uint8],
) -> None:  # fmt: skip
    return


multiply_split = _multiply_split if amx() else _unavailable
"""Multiply float32 rows by bf16 weights: out (R, N) = inputs (R, K) times weights (K, N), on processors with AMX.

An input is split into two bf16 numbers, which together hold 16 of its 24 bits. The bits of a row do not depend on R.

Args:
    inputs: (at least R, K), K a multiple of 32.
    rows: R.
    packed: flat; the packed weights of this product begin at `offset`.
    offset: the index of the first weight.
    start: the first block of 64 columns to compute.
    stop: the block to stop before.
    high: (R padded to 16, K), scratch memory.
    low: (R padded to 16, K), scratch memory.
    out: (R padded to 16, at least 64 `stop`), filled with the products in these columns.
    config: `TILE_CONFIG`.
"""
