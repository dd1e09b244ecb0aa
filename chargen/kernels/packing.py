"""Weights as the right side of products of blocks, bf16 in pairs."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.amx import SIDE
from chargen.kernels.bf16 import Bits
from chargen.kernels.jit import compiled, native
from chargen.kernels.simd import LANES, load_vector, rounded, transposed

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_PAIRS = ir.VectorType(_INT32, LANES)


def pack_rows(bits: Bits) -> Bits:
    """bf16 bits (N, K), K a multiple of 32 -> packed weights (K, N), N filled up to a multiple of 64."""
    rows, inputs = bits.shape
    padded = np.zeros((-(-rows // (2 * SIDE)) * 2 * SIDE, inputs), np.uint16)
    padded[:rows] = bits
    return np.ascontiguousarray(padded.reshape(-1, SIDE, inputs // 2, 2).transpose(0, 2, 1, 3))


def _store(builder: Any, pairs: Any, address: Any) -> None:
    builder.store(pairs, builder.inttoptr(address, ir.PointerType())).align = 4


def _pairs(builder: Any, addresses: list[Any], order: list[int]) -> Any:
    """Sixteen floats at each of two addresses, rounded to bf16 and taken in some order, as 16 pairs."""
    first, second = (rounded(load_vector(builder, "f", at)) for at in addresses)
    lanes = ir.VectorType(_INT32, 2 * LANES)
    return builder.bitcast(builder.shuffle_vector(first, second, lanes(order)), _PAIRS)


@native
def _interleave(typing_context: Any, first: Any, second: Any, target: Any) -> Any:
    """Sixteen floats at each of two addresses -> pairs in bf16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        order = [lane // 2 + lane % 2 * LANES for lane in range(2 * LANES)]
        _store(builder, _pairs(builder, arguments[:2], order), arguments[2])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@native
def _transpose_pairs(typing_context: Any, source: Any, step: Any, target: Any, target_step: Any) -> Any:
    """Floats (16, 32), rows `step` bytes apart -> bf16 (16, 16, 2): pair p of row n at (p, n), `target_step` apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, step, target, target_step = arguments
        rows = []
        for row in range(LANES):
            at = builder.add(source, builder.mul(step, _INT64(row)))
            rows.append(_pairs(builder, [at, builder.add(at, _INT64(4 * LANES))], list(range(2 * LANES))))
        for row, pairs in enumerate(transposed(builder, rows)):
            _store(builder, pairs, builder.add(target, builder.mul(target_step, _INT64(row))))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@compiled
def pack_forward(weights: NDArray[np.float32], first: int, last: int, packed: Bits) -> None:
    """The transpose of weights (N, K) -> bf16 bits (N / 32, K / 2, 32, 2): the blocks from `first` up to `last`."""
    inputs = weights.shape[1]
    for block in range(first, last):
        for half in range(0, SIDE, LANES):
            source = weights.ctypes.data + (block * SIDE + half) * inputs * 4
            target = packed.ctypes.data + (block * inputs * SIDE + half * 2) * 2
            for begin in range(0, inputs, 2 * LANES):
                _transpose_pairs(source + begin * 4, inputs * 4, target + begin * SIDE * 2, SIDE * 4)


@compiled
def pack_backward(weights: NDArray[np.float32], first: int, last: int, packed: Bits) -> None:
    """Weights (K, N) -> bf16 bits (N / 32, K / 2, 32, 2): the blocks from `first` up to `last`."""
    inputs, outputs = weights.shape
    for block in range(first, last):
        for pair in range(inputs // 2):
            for half in range(0, SIDE, LANES):
                source = weights.ctypes.data + (2 * pair * outputs + block * SIDE + half) * 4
                target = packed.ctypes.data + ((block * inputs // 2 + pair) * SIDE + half) * 4
                _interleave(source, source + outputs * 4, target)
