"""bf16 numbers as the upper 16 bits of float32: NumPy has no such type."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.compiled import compiled, native

Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]


def to_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Finite float32 -> bf16 bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


@native
def from_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 of bf16 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(wide, ir.FloatType())

    return types.float32(types.uint16), generate


@native
def round_to_bits(typing_context: Any, value: Any) -> Any:
    """The bf16 bits of a float32, rounded to nearest, ties to even; a NaN stays one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.IntType(32)
        bits = builder.bitcast(arguments[0], kind)
        odd = builder.and_(builder.lshr(bits, kind(16)), kind(1))
        rounded = builder.add(bits, builder.add(odd, kind(0x7FFF)))
        short = builder.trunc(builder.lshr(rounded, kind(16)), ir.IntType(16))
        return builder.select(builder.fcmp_unordered("uno", arguments[0], arguments[0]), ir.IntType(16)(0x7FC0), short)

    return types.uint16(types.float32), generate


@compiled
def load(bits: Bits, values: Floats) -> None:
    """The float32 of bf16 bits (N,), into the first N `values`."""
    for n in range(len(bits)):
        values[n] = from_bits(bits[n])


@compiled
def store(values: Floats, bits: Bits) -> None:
    """The bf16 bits (N,) of the first N `values`."""
    for n in range(len(bits)):
        bits[n] = round_to_bits(values[n])
