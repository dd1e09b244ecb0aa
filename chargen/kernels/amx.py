"""AMX: tiles, registers of 16 by 64 bytes, which some processors multiply in bf16 into sums in float32."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.cpu_features import amx
from chargen.kernels.jit import compiled, native

SIDE = 32
"""Rows and columns of a block, which is multiplied at once: two tiles each way. Sizes are filled up to multiples."""

_types: Any = types
_BYTE, _INT64, _POINTER = ir.IntType(8), ir.IntType(64), ir.PointerType()


def _tile_config() -> NDArray[np.uint8]:
    """Eight tiles of 16 rows of 64 bytes (Intel's manual, volume 1, 18.3)."""
    config = np.zeros(64, np.uint8)
    config[0] = 1
    config[16:32].view(np.uint16)[:] = 64
    config[48:56] = 16
    return config


TILE_CONFIG = _tile_config()


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros that begin at a cache line: a tile's rows that straddle two lines take twice as long."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    array: NDArray[Any] = raw[first : first + size].view(dtype).reshape(shape)
    return array


def _call(builder: Any, name: str, kinds: list[Any], arguments: list[Any]) -> None:
    declared = builder.module.globals.get(name)
    function = declared or ir.Function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
    builder.call(function, arguments)


def load_tile(builder: Any, tile: int, address: Any, more: int, step: Any) -> None:
    """Fill a tile with 16 rows of 64 bytes that begin `more` bytes behind an address, `step` bytes apart."""
    at = builder.inttoptr(builder.add(address, _INT64(more)), _POINTER)
    step = _INT64(step) if isinstance(step, int) else step
    _call(builder, "llvm.x86.tileloadd64", [_BYTE, _POINTER, _INT64], [_BYTE(tile), at, step])


def store_tile(builder: Any, tile: int, address: Any, more: int, step: Any) -> None:
    """Store a tile as 16 rows of 64 bytes."""
    at = builder.inttoptr(builder.add(address, _INT64(more)), _POINTER)
    step = _INT64(step) if isinstance(step, int) else step
    _call(builder, "llvm.x86.tilestored64", [_BYTE, _POINTER, _INT64], [_BYTE(tile), at, step])


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
def zero_tiles(typing_context: Any, out: Any) -> Any:
    """Tiles 0 to 3 hold sums of zero. `out` is where they are to go, which other ways to multiply need."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for tile in range(4):
            _call(builder, "llvm.x86.tilezero", [_BYTE], [_BYTE(tile)])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@native
def multiply_into_tiles(typing_context: Any, left: Any, packed: Any, out: Any) -> Any:
    """Sums (32, 32) in tiles 0 to 3 += left (32, 32), which tiles 4 and 5 hold, times packed (32, 32) in 6 and 7."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, packed, _ = arguments
        load_tile(builder, 4, left, 0, 2 * SIDE)
        load_tile(builder, 5, left, 32 * SIDE, 2 * SIDE)
        load_tile(builder, 6, packed, 0, 4 * SIDE)
        load_tile(builder, 7, packed, 2 * SIDE, 4 * SIDE)
        for tile in range(4):
            multiply_tiles(builder, tile, 4 + tile // 2, 6 + tile % 2)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@native
def store_tiles(typing_context: Any, out: Any) -> Any:
    """Write tiles 0 to 3 as a block (32, 32)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for tile in range(4):
            more = 64 * SIDE * (tile // 2) + 2 * SIDE * (tile % 2)
            store_tile(builder, tile, arguments[0], more, 4 * SIDE)
        return context.get_dummy_value()

    return types.void(types.intp), generate


@compiled
def _configure_tiles(config: NDArray[np.uint8]) -> None:
    _configure(config.ctypes.data)


@compiled
def _release_tiles() -> None:
    _release()


@compiled
def _no_tiles(config: NDArray[np.uint8]) -> None:
    return


@compiled
def _no_tiles_to_release() -> None:
    return


configure_tiles, release_tiles = (_configure_tiles, _release_tiles) if amx() else (_no_tiles, _no_tiles_to_release)
"""Before the first product and after the last of a thread: `configure_tiles(TILE_CONFIG)`."""
