"""Products of float32 rows with bf16 weights in tiles (AMX): each input is split into two bf16 numbers."""

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
from chargen.kernels.bf16_ir import from_bits, round_to_bits
from chargen.kernels.cpu_features import amx
from chargen.kernels.jit import compiled, native


@native
def _multiply(typing_context: Any, high: Any, low: Any, step: Any, first: Any, second: Any) -> Any:
    """Tiles 0 to 3 (16, 64) += (high + low) (16, 32), rows `step` bytes apart, times two blocks of weights (32, 32)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        high, low, step, *blocks = arguments
        load_tile(builder, 4, high, 0, step)
        load_tile(builder, 5, low, 0, step)
        for tile in range(4):
            right = 6 + tile % 2
            load_tile(builder, right, blocks[tile // 2], 2 * SIDE * (tile % 2), 4 * SIDE)
            for left in (4, 5):
                multiply_tiles(builder, tile, left, right)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@native
def _store(typing_context: Any, out: Any, step: Any) -> Any:
    """Write tiles 0 to 3 beside each other, rows `step` bytes apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for tile in range(4):
            store_tile(builder, tile, arguments[0], 2 * SIDE * tile, arguments[1])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 2), generate


@compiled
def _multiply_split(
    inputs: Floats, rows: int, packed: Bits, at: int, first: int, last: int, high: Bits, low: Bits, out: Floats,
    config: NDArray[np.uint8],
) -> None:  # fmt: skip
    size = inputs.shape[1]
    for row in range(rows):
        for k in range(size):
            bits = round_to_bits(inputs[row, k])
            high[row, k] = bits
            low[row, k] = round_to_bits(inputs[row, k] - from_bits(bits))
    configure_tiles(config)
    for block in range(first, last):
        weights = packed.ctypes.data + (at + block * size * 2 * SIDE) * 2
        for row in range(0, rows, 16):
            left = row * size * 2
            zero_tiles(0)
            for k in range(size // SIDE):
                columns = weights + k * SIDE * SIDE * 2
                more = left + k * SIDE * 2
                _multiply(high.ctypes.data + more, low.ctypes.data + more, size * 2, columns, columns + size * SIDE * 2)
            _store(out.ctypes.data + (row * out.shape[1] + block * 2 * SIDE) * 4, out.shape[1] * 4)
    release_tiles()


@compiled
def _no_tiles(
    inputs: Floats, rows: int, packed: Bits, at: int, first: int, last: int, high: Bits, low: Bits, out: Floats,
    config: NDArray[np.uint8],
) -> None:  # fmt: skip
    return


multiply_split = _multiply_split if amx() else _no_tiles
"""out (R, N) = inputs (R, K) in float32 times bf16 weights (K, N): the blocks of 64 columns from `first` up to `last`.

An input is split into two bf16 numbers, which together hold 16 of its 24 bits. `packed` is flat, the weights begin
`at`; `high`, `low` and `out` have room for R filled up to 16; K is a multiple of 32. The bits of a row do not depend on
R. Not to be called where there is no AMX.
"""
