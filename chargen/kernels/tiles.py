"""The matrix units that some processors have (AMX): squares of bf16 multiplied into sums in float32."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.compiled import compiled, native
from chargen.kernels.units import amx

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


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros that begin at a cache line: a tile's rows that straddle two lines take twice as long."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    found: NDArray[Any] = raw[first : first + size].view(dtype).reshape(shape)
    return found


def _call(builder: Any, name: str, kinds: list[Any], arguments: list[Any]) -> None:
    found = builder.module.globals.get(name)
    function = found or ir.Function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
    builder.call(function, arguments)


def load_tile(builder: Any, number: int, address: Any, more: int, step: Any) -> None:
    """Fill a tile with 16 rows of 64 bytes that begin `more` bytes behind an address, `step` bytes apart."""
    at = builder.inttoptr(builder.add(address, _INT64(more)), _POINTER)
    step = _INT64(step) if isinstance(step, int) else step
    _call(builder, "llvm.x86.tileloadd64", [_BYTE, _POINTER, _INT64], [_BYTE(number), at, step])


def store_tile(builder: Any, number: int, address: Any, more: int, step: Any) -> None:
    """The way back."""
    at = builder.inttoptr(builder.add(address, _INT64(more)), _POINTER)
    step = _INT64(step) if isinstance(step, int) else step
    _call(builder, "llvm.x86.tilestored64", [_BYTE, _POINTER, _INT64], [_BYTE(number), at, step])


def multiply_tiles(builder: Any, sums: int, left: int, right: int) -> None:
    """Sums (16, 16) += left (16, 32) times right (32, 16)."""
    _call(builder, "llvm.x86.tdpbf16ps", [_BYTE] * 3, [_BYTE(sums), _BYTE(left), _BYTE(right)])


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
def start_in_units(typing_context: Any, out: Any) -> Any:
    """Tiles 0 to 3 hold sums of zero. `out` is where they are to go, which the plain twin needs."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for number in range(4):
            _call(builder, "llvm.x86.tilezero", [_BYTE], [_BYTE(number)])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@native
def advance_in_units(typing_context: Any, left: Any, packed: Any, out: Any) -> Any:
    """Tiles 4 and 5 hold the left side, 6 and 7 the right side."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, packed, _ = arguments
        load_tile(builder, 4, left, 0, 2 * SIDE)
        load_tile(builder, 5, left, 32 * SIDE, 2 * SIDE)
        load_tile(builder, 6, packed, 0, 4 * SIDE)
        load_tile(builder, 7, packed, 2 * SIDE, 4 * SIDE)
        for number in range(4):
            multiply_tiles(builder, number, 4 + number // 2, 6 + number % 2)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@native
def end_in_units(typing_context: Any, out: Any) -> Any:
    """Tiles 0 to 3 as a square."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for number in range(4):
            more = 64 * SIDE * (number // 2) + 2 * SIDE * (number % 2)
            store_tile(builder, number, arguments[0], more, 4 * SIDE)
        return context.get_dummy_value()

    return types.void(types.intp), generate


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
