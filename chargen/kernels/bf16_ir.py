"""bf16 numbers in machine code: rounding and widening, of single numbers and of vectors."""

from typing import Any

from llvmlite import ir
from numba import types

from chargen.kernels.jit import native


def narrow(builder: Any, value: Any) -> Any:
    """Round float32 to bf16 bits, to nearest, ties to even; a NaN stays a NaN.

    Args:
        builder: llvmlite's.
        value: a float, or a vector of them, in LLVM.

    Returns:
        A 16-bit integer, or a vector of as many.
    """
    lanes = getattr(value.type, "count", 0)
    shorts, ints = (_with_lanes(ir.IntType(width), lanes) for width in (16, 32))
    bits = builder.bitcast(value, ints)
    is_odd = builder.and_(builder.lshr(bits, _constant(ints, 16)), _constant(ints, 1))
    rounded = builder.add(bits, builder.add(is_odd, _constant(ints, 0x7FFF)))
    upper = builder.trunc(builder.lshr(rounded, _constant(ints, 16)), shorts)
    return builder.select(builder.fcmp_unordered("uno", value, value), _constant(shorts, 0x7FC0), upper)


def widen(builder: Any, bits: Any) -> Any:
    """Widen bf16 bits to float32, exactly.

    Args:
        builder: llvmlite's.
        bits: a 16-bit integer, or a vector of them, in LLVM.

    Returns:
        A float, or a vector of as many.
    """
    lanes = getattr(bits.type, "count", 0)
    ints = _with_lanes(ir.IntType(32), lanes)
    shifted = builder.shl(builder.zext(bits, ints), _constant(ints, 16))
    return builder.bitcast(shifted, _with_lanes(ir.FloatType(), lanes))


def _with_lanes(element: Any, lanes: int) -> Any:
    return ir.VectorType(element, lanes) if lanes else element


def _constant(type_: Any, value: int) -> Any:
    return type_([value] * type_.count if hasattr(type_, "count") else value)


def _narrow(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return narrow(builder, arguments[-1])


def _widen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return widen(builder, arguments[-1])


def _return_last(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return arguments[-1]


@native
def to_float(typing_context: Any, element: Any) -> Any:
    """Convert an array's element to float32.

    Args:
        typing_context: numba's.
        element: float32, or bits of bf16 in uint16.
    """
    return types.float32(element), _return_last if element == types.float32 else _widen


@native
def to_stored(typing_context: Any, array: Any, value: Any) -> Any:
    """Convert a float32 to an element of an array.

    Args:
        typing_context: numba's.
        array: of float32, or of bits of bf16 in uint16; only its type matters.
        value: float32.
    """
    return array.dtype(array, types.float32), _return_last if array.dtype == types.float32 else _narrow
