"""bf16 numbers as the upper 16 bits of float32: NumPy has no such type."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.compiled import native

Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]
Stored = NDArray[Any]
"""float32, or bits of bf16 in uint16."""
_INT32 = ir.IntType(32)


def to_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Finite float32 -> bf16 bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _wide(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    wide = builder.shl(builder.zext(arguments[-1], _INT32), _INT32(16))
    return builder.bitcast(wide, ir.FloatType())


def _short(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    bits = builder.bitcast(arguments[-1], _INT32)
    odd = builder.and_(builder.lshr(bits, _INT32(16)), _INT32(1))
    rounded = builder.add(bits, builder.add(odd, _INT32(0x7FFF)))
    short = builder.trunc(builder.lshr(rounded, _INT32(16)), ir.IntType(16))
    return builder.select(builder.fcmp_unordered("uno", arguments[-1], arguments[-1]), ir.IntType(16)(0x7FC0), short)


def _same(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return arguments[-1]


@native
def from_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 of bf16 bits."""
    return types.float32(types.uint16), _wide


@native
def round_to_bits(typing_context: Any, value: Any) -> Any:
    """The bf16 bits of a float32, rounded to nearest, ties to even; a NaN stays one."""
    return types.uint16(types.float32), _short


@native
def number(typing_context: Any, element: Any) -> Any:
    """A stored element as float32."""
    return types.float32(element), _same if element == types.float32 else _wide


@native
def stored(typing_context: Any, array: Any, value: Any) -> Any:
    """A float32 as an element of an array."""
    return array.dtype(array, types.float32), _same if array.dtype == types.float32 else _short
