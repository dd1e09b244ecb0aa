"""Products of bf16 matrices with fp32 sums, in the matrix units that some processors have (AMX), or in plain loops."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numpy.typing import NDArray

from chargen.kernels.compiled import compiled, inlined, native
from chargen.kernels.units import amx

Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]
SIDE = 32
"""Rows and columns that are multiplied at once: two tiles each way. Sizes are filled up to multiples of it."""

_types: Any = types
_BYTE, _INT64, _POINTER = ir.IntType(8), ir.IntType(64), ir.PointerType()


def _settings() -> NDArray[np.uint8]:
    """Eight tiles of 16 rows of 64 bytes (Intel's manual, volume 1, 18.3)."""
    found = np.zeros(64, np.uint8)
    found[0] = 1
    found[16:32].view(np.uint16)[:] = 64
    found[48:56] = 16
    return found


SETTINGS = _settings()


def pack(weights: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(K, N) -> bf16 bits (N / 32, K / 2, 32, 2), rounded to nearest, filled up with zeros to multiples of 32."""
    inputs, outputs = weights.shape
    padded = np.zeros((-(-inputs // SIDE) * SIDE, -(-outputs // SIDE) * SIDE), np.float32)
    padded[:inputs, :outputs] = weights
    bits = to_bits(padded)
    packed = bits.reshape(len(bits) // 2, 2, -1, SIDE).transpose(2, 0, 3, 1)
    found = aligned(packed.shape, np.uint16)
    found[:] = packed
    return found


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros that begin at a cache line: a tile's rows that straddle two lines take twice as long."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    found: NDArray[Any] = raw[first : first + size].view(dtype).reshape(shape)
    return found


def pack_rows(bits: Bits) -> Bits:
    """bf16 bits (N, K), K a multiple of 32 -> packed weights (K, N), N filled up to a multiple of 64."""
    rows, inputs = bits.shape
    padded = np.zeros((-(-rows // (2 * SIDE)) * 2 * SIDE, inputs), np.uint16)
    padded[:rows] = bits
    return np.ascontiguousarray(padded.reshape(-1, SIDE, inputs // 2, 2).transpose(0, 2, 1, 3))


def to_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Finite float32 -> bf16 bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _call(builder: Any, name: str, kinds: list[Any], arguments: list[Any]) -> None:
    found = builder.module.globals.get(name)
    function = found or ir.Function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
    builder.call(function, arguments)


@native
def _configure(typing_context: Any, address: Any) -> Any:
    """Say how large tiles are; each thread has tiles of its own."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "llvm.x86.ldtilecfg", [_POINTER], [builder.inttoptr(arguments[0], _POINTER)])
        return context.get_dummy_value()

    return types.void(types.uintp), generate


@native
def _release(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "llvm.x86.tilerelease", [], [])
        return context.get_dummy_value()

    return types.void(), generate


@native
def _start_in_units(typing_context: Any, out: Any) -> Any:
    """Tiles 0 to 3 hold a square of sums."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for number in range(4):
            _call(builder, "llvm.x86.tilezero", [_BYTE], [_BYTE(number)])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@native
def _advance_in_units(typing_context: Any, left: Any, packed: Any, out: Any) -> Any:
    """Tiles 4 and 5 hold the left side, 6 and 7 the right side."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = ((4, 0, 0, 2), (5, 0, 32 * SIDE, 2), (6, 1, 0, 4), (7, 1, 2 * SIDE, 4))
        for number, side, more, step in places:
            at = builder.inttoptr(builder.add(arguments[side], _INT64(more)), _POINTER)
            kinds = [_BYTE, _POINTER, _INT64]
            _call(builder, "llvm.x86.tileloadd64", kinds, [_BYTE(number), at, _INT64(step * SIDE)])
        for number, (left, right) in enumerate(((4, 6), (4, 7), (5, 6), (5, 7))):
            _call(builder, "llvm.x86.tdpbf16ps", [_BYTE] * 3, [_BYTE(number), _BYTE(left), _BYTE(right)])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@native
def _end_in_units(typing_context: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for number in range(4):
            more = 64 * SIDE * (number // 2) + 2 * SIDE * (number % 2)
            at = builder.inttoptr(builder.add(arguments[0], _INT64(more)), _POINTER)
            kinds = [_BYTE, _POINTER, _INT64]
            _call(builder, "llvm.x86.tilestored64", kinds, [_BYTE(number), at, _INT64(4 * SIDE)])
        return context.get_dummy_value()

    return types.void(types.intp), generate


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


@native
def _wide_block(
    typing_context: Any, high: Any, low: Any, step: Any, b: Any, apart: Any, c: Any, c_step: Any, count: Any
) -> Any:
    """C (16, 64) = (high + low) (16, 32 count) times two blocks of B that lie `apart`; steps in bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        high, low, step, b, apart, c, c_step, count = arguments

        def tile(name: str, number: int, at: Any, step: Any) -> None:
            pointer = builder.inttoptr(at, _POINTER)
            _call(builder, f"llvm.x86.{name}64", [_BYTE, _POINTER, _INT64], [_BYTE(number), pointer, step])

        for number in range(4):
            _call(builder, "llvm.x86.tilezero", [_BYTE], [_BYTE(number)])
        before = builder.block
        loop, after = builder.append_basic_block("inputs"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        at = builder.phi(_INT64)
        at.add_incoming(_INT64(0), before)
        first = builder.mul(at, _INT64(2 * SIDE))
        tile("tileloadd", 4, builder.add(high, first), step)
        tile("tileloadd", 5, builder.add(low, first), step)
        for number in range(4):
            block = builder.add(
                builder.add(b, builder.mul(apart, _INT64(number // 2))), _INT64(2 * SIDE * (number % 2))
            )
            right = 6 + number % 2
            tile("tileloadd", right, builder.add(block, builder.mul(at, _INT64(2 * SIDE * SIDE))), _INT64(4 * SIDE))
            for left in (4, 5):
                _call(builder, "llvm.x86.tdpbf16ps", [_BYTE] * 3, [_BYTE(number), _BYTE(left), _BYTE(right)])
        following = builder.add(at, _INT64(1))
        at.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        for number in range(4):
            tile("tilestored", number, builder.add(c, _INT64(2 * SIDE * number)), c_step)
        return context.get_dummy_value()

    place = types.uintp
    return types.void(place, place, types.intp, place, types.intp, place, types.intp, types.intp), generate


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


def _pointer_to(kind: Any) -> Any:
    """A function that makes an address a pointer."""

    def point(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return kind(address), generate

    return native(point)


_shorts, _floats = (_pointer_to(_types.CPointer(kind)) for kind in (types.uint16, types.float32))


@compiled
def _start_plainly(out: int) -> None:
    carray(_floats(out), (SIDE, SIDE))[:] = 0


@compiled
def _advance_plainly(left: int, packed: int, out: int) -> None:
    values, weights = carray(_shorts(left), (SIDE, SIDE)), carray(_shorts(packed), (SIDE // 2, SIDE, 2))
    found = carray(_floats(out), (SIDE, SIDE))
    for row in range(SIDE):
        for k in range(SIDE):
            value = from_bits(values[row, k])
            for n in range(SIDE):
                found[row, n] += value * from_bits(weights[k // 2, n, k % 2])


@compiled
def _end_plainly(out: int) -> None:
    return


def _multiplying(start: Any, advance: Any, end: Any) -> Callable[..., tuple[int, int]]:
    @inlined
    def multiply(
        left: int, apart: int, packed: int, next_packed: int, out: int, inputs: int, square: int, at: int, steps: int
    ) -> tuple[int, int]:
        while steps > 0:
            target = out + square * SIDE * SIDE * 4
            if at == 0:
                start(target)
            advance(left + at * apart, packed + square * next_packed + at * SIDE * SIDE * 2, target)
            at += 1
            if at == inputs:
                end(target)
                square, at = square + 1, 0
            steps -= 1
        return square, at

    result: Callable[..., tuple[int, int]] = multiply
    return result


multiply_in_units = _multiplying(_start_in_units, _advance_in_units, _end_in_units)
multiply_plainly = _multiplying(_start_plainly, _advance_plainly, _end_plainly)
multiply = multiply_in_units if amx() else multiply_plainly
"""Some steps of products out (S, 32, 32) = left (32, 32 K) times S blocks of weights (32 K, 32), by addresses.

Matrix units work beside vector units, so a caller had better do something else between two calls. There are K steps for
each of the S squares; begin at square 0, step 0, and go on where the call before says that it ended. Other products may
not come in between.

`left` are bf16 bits in K squares that begin `apart` bytes from each other; `packed` is a block of what `pack` makes,
and the other blocks begin `next_packed` bytes from each other; `out` are float32. All begin at a cache line. Between
`use_units(SETTINGS)` and `leave_units()` only.
"""


@compiled
def _use_units(settings: NDArray[np.uint8]) -> None:
    _configure(settings.ctypes.data)


@compiled
def _leave_units() -> None:
    _release()


@compiled
def _nothing_to_use(settings: NDArray[np.uint8]) -> None:
    return


@compiled
def _nothing_to_leave() -> None:
    return


use_units, leave_units = (_use_units, _leave_units) if amx() else (_nothing_to_use, _nothing_to_leave)


@compiled
def _split_in_units(
    inputs: Floats, rows: int, packed: Bits, at: int, first: int, last: int, high: Bits, low: Bits, out: Floats,
    settings: NDArray[np.uint8],
) -> None:  # fmt: skip
    size = inputs.shape[1]
    for row in range(rows):
        for k in range(size):
            bits = round_to_bits(inputs[row, k])
            high[row, k] = bits
            low[row, k] = round_to_bits(inputs[row, k] - from_bits(bits))
    _configure(settings.ctypes.data)
    for block in range(first, last):
        weights = packed.ctypes.data + (at + block * size * 2 * SIDE) * 2
        for row in range(0, rows, 16):
            target = out.ctypes.data + (row * out.shape[1] + block * 2 * SIDE) * 4
            left = row * size * 2
            _wide_block(
                high.ctypes.data + left, low.ctypes.data + left, size * 2, weights, size * SIDE * 2, target,
                out.shape[1] * 4, size // SIDE,
            )  # fmt: skip
    _release()


@compiled
def multiply_split_plainly(
    inputs: Floats, rows: int, packed: Bits, at: int, first: int, last: int, high: Bits, low: Bits, out: Floats,
    settings: NDArray[np.uint8],
) -> None:  # fmt: skip
    """The same in plain loops, slowly."""
    size = inputs.shape[1]
    for row in range(rows):
        out[row, first * 2 * SIDE : last * 2 * SIDE] = 0
        for k in range(size):
            high[row, k] = round_to_bits(inputs[row, k])
            low[row, k] = round_to_bits(inputs[row, k] - from_bits(high[row, k]))
            value = from_bits(high[row, k]) + from_bits(low[row, k])
            for n in range(first * 2 * SIDE, last * 2 * SIDE):
                place = at + ((n // SIDE * size // 2 + k // 2) * SIDE + n % SIDE) * 2 + k % 2
                out[row, n] += value * from_bits(packed[place])


@compiled
def _no_units(
    inputs: Floats, rows: int, packed: Bits, at: int, first: int, last: int, high: Bits, low: Bits, out: Floats,
    settings: NDArray[np.uint8],
) -> None:  # fmt: skip
    return


multiply_split = _split_in_units if amx() else _no_units
"""out (R, N) = inputs (R, K) in float32 times bf16 weights (K, N): the blocks of 64 columns from `first` up to `last`.

An input is split into two bf16 numbers, which together hold 16 of its 24 bits. `packed` is flat, the weights begin
`at`; `high`, `low` and `out` have room for R filled up to 16; K is a multiple of 32. The bits of a row do not depend on
R. Not to be called where there are no matrix units.
"""
