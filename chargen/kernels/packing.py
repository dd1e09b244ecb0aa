"""Weights packed as the right side of products of blocks: bf16, in pairs of inputs."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.amx import SIDE
from chargen.kernels.bf16 import Bits
from chargen.kernels.jit import compiled, native
from chargen.kernels.simd import LANES, load_vector, round_to_bf16, transpose_square

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_PAIR_VECTOR = ir.VectorType(_INT32, LANES)


def pack_rows(bits: Bits) -> Bits:
    """Pack bf16 weights of a layer.

    Args:
        bits: (N, K), K a multiple of 32.

    Returns:
        (N / 32, K / 2, 32, 2), N padded with zeros to a multiple of 64.
    """
    rows, inputs = bits.shape
    padded = np.zeros((-(-rows // (2 * SIDE)) * 2 * SIDE, inputs), np.uint16)
    padded[:rows] = bits
    return np.ascontiguousarray(padded.reshape(-1, SIDE, inputs // 2, 2).transpose(0, 2, 1, 3))


def _store_pairs(builder: Any, pairs: Any, address: Any) -> None:
    builder.store(pairs, builder.inttoptr(address, ir.PointerType())).align = 4


def _load_pairs(builder: Any, addresses: list[Any], lanes: list[int]) -> Any:
    """Round sixteen floats at each of two addresses to bf16; return 16 pairs of the given lanes of both."""
    first, second = (round_to_bf16(load_vector(builder, "f", address)) for address in addresses)
    lane_type = ir.VectorType(_INT32, 2 * LANES)
    return builder.bitcast(builder.shuffle_vector(first, second, lane_type(lanes)), _PAIR_VECTOR)


@native
def _interleave(typing_context: Any, first: Any, second: Any, target: Any) -> Any:
    """Round sixteen floats at each of two addresses to bf16, and store them as pairs of a float of each."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = [lane // 2 + lane % 2 * LANES for lane in range(2 * LANES)]
        _store_pairs(builder, _load_pairs(builder, arguments[:2], lanes), arguments[2])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@native
def _transpose_pairs(typing_context: Any, source: Any, row_stride: Any, target: Any, target_stride: Any) -> Any:
    """Round floats (16, 32) to bf16 and store them transposed, (16, 16, 2): pair p of row n at (p, n).

    Rows are `row_stride` bytes apart at the source, and `target_stride` bytes at the target.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, row_stride, target, target_stride = arguments
        rows = []
        for row in range(LANES):
            first = builder.add(source, builder.mul(row_stride, _INT64(row)))
            rows.append(_load_pairs(builder, [first, builder.add(first, _INT64(4 * LANES))], list(range(2 * LANES))))
        for row, pairs in enumerate(transpose_square(builder, rows)):
            _store_pairs(builder, pairs, builder.add(target, builder.mul(target_stride, _INT64(row))))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@compiled
def pack_forward(weights: NDArray[np.float32], start: int, stop: int, packed: Bits) -> None:
    """Pack the transpose of weights, some blocks of 32 outputs.

    Args:
        weights: (N, K), both multiples of 32.
        start: the first block to pack.
        stop: the block to stop before.
        packed: (N / 32, K / 2, 32, 2), filled with bf16 bits.
    """
    inputs = weights.shape[1]
    for block in range(start, stop):
        for half in range(0, SIDE, LANES):
            source = weights.ctypes.data + (block * SIDE + half) * inputs * 4
            target = packed.ctypes.data + (block * inputs * SIDE + half * 2) * 2
            for first_input in range(0, inputs, 2 * LANES):
                _transpose_pairs(source + first_input * 4, inputs * 4, target + first_input * SIDE * 2, SIDE * 4)


@compiled
def pack_backward(weights: NDArray[np.float32], start: int, stop: int, packed: Bits) -> None:
    """Pack weights, some blocks of 32 outputs.

    Args:
        weights: (K, N), both multiples of 32.
        start: the first block to pack.
        stop: the block to stop before.
        packed: (N / 32, K / 2, 32, 2), filled with bf16 bits.
    """
    inputs, outputs = weights.shape
    for block in range(start, stop):
        for pair in range(inputs // 2):
            for half in range(0, SIDE, LANES):
                source = weights.ctypes.data + (2 * pair * outputs + block * SIDE + half) * 4
                target = packed.ctypes.data + ((block * inputs // 2 + pair) * SIDE + half) * 4
                _interleave(source, source + outputs * 4, target)
