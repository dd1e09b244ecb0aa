"""bf16 numbers in machine code: rounding and widening, of a single number here and of vectors in `simd`."""

from typing import Any

from llvmlite import ir
from numba import types

from chargen.kernels.jit import native


def narrow(builder: Any, value: Any) -> Any:
    """A float32, or a vector of them -> bf16 bits, rounded to nearest, ties to even; a NaN stays one."""
    lanes = getattr(value.type, "count", 0)
    shorts, ints = (_of(ir.IntType(width), lanes) for width in (16, 32))
    bits = builder.bitcast(value, ints)
    odd = builder.and_(builder.lshr(bits, _filled(ints, 16)), _filled(ints, 1))
    rounded = builder.add(bits, builder.add(odd, _filled(ints, 0x7FFF)))
    short = builder.trunc(builder.lshr(rounded, _filled(ints, 16)), shorts)
    return builder.select(builder.fcmp_unordered("uno", value, value), _filled(shorts, 0x7FC0), short)


def widen(builder: Any, bits: Any) -> Any:
    """The way back."""
    lanes = getattr(bits.type, "count", 0)
    ints = _of(ir.IntType(32), lanes)
    wide = builder.shl(builder.zext(bits, ints), _filled(ints, 16))
    return builder.bitcast(wide, _of(ir.FloatType(), lanes))


def _of(element: Any, lanes: int) -> Any:
    return ir.VectorType(element, lanes) if lanes else element


def _filled(kind: Any, value: int) -> Any:
    return kind([value] * kind.count if hasattr(kind, "count") else value)


def _narrow(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return narrow(builder, arguments[-1])


def _widen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return widen(builder, arguments[-1])


def _same(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return arguments[-1]


@native
def from_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 of bf16 bits."""
    return types.float32(types.uint16), _widen


@native
def round_to_bits(typing_context: Any, value: Any) -> Any:
    """The bf16 bits of a float32, rounded to nearest, ties to even; a NaN stays one."""
    return types.uint16(types.float32), _narrow


@native
def to_float(typing_context: Any, element: Any) -> Any:
    """A stored element as float32."""
    return types.float32(element), _same if element == types.float32 else _widen


@native
def to_stored(typing_context: Any, array: Any, value: Any) -> Any:
    """A float32 as an element of an array."""
    return array.dtype(array, types.float32), _same if array.dtype == types.float32 else _narrow
