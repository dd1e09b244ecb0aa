"""AMX: registers of 16 by 64 bytes, called tiles; some processors multiply bf16 in them into sums in float32."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.cpu_features import amx
from chargen.kernels.jit import compiled, native
from chargen.kernels.simd import declare

SIDE = 32
"""Rows and columns of a block: two tiles by two. Sizes are padded to multiples of it."""

_types: Any = types
_BYTE, _INT64, _POINTER = ir.IntType(8), ir.IntType(64), ir.PointerType()


def _tile_config() -> NDArray[np.uint8]:
    """The configuration of eight tiles of 16 rows of 64 bytes (Intel's manual, volume 1, 18.3)."""
    config = np.zeros(64, np.uint8)
    config[0] = 1
    config[16:32].view(np.uint16)[:] = 64
    config[48:56] = 16
    return config


TILE_CONFIG = _tile_config()


def aligned_zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Make an array of zeros that begins at a cache line: loading a tile's row from two lines takes twice as long.

    Args:
        shape: of the array.
        dtype: of its elements.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    array: NDArray[Any] = memory[begin : begin + size].view(dtype).reshape(shape)
    return array


def _call(builder: Any, name: str, types_: list[Any], arguments: list[Any]) -> None:
    builder.call(declare(builder, name, ir.FunctionType(ir.VoidType(), types_)), arguments)


def load_tile(builder: Any, tile: int, address: Any, offset: int, stride: Any) -> None:
    """Fill a tile with 16 rows of 64 bytes.

    Args:
        builder: llvmlite's.
        tile: the number of the tile.
        address: an integer in LLVM.
        offset: bytes from the address to the first row.
        stride: bytes from one row to the next, a number or an integer in LLVM.
    """
    pointer = builder.inttoptr(builder.add(address, _INT64(offset)), _POINTER)
    stride = _INT64(stride) if isinstance(stride, int) else stride
    _call(builder, "llvm.x86.tileloadd64", [_BYTE, _POINTER, _INT64], [_BYTE(tile), pointer, stride])


def store_tile(builder: Any, tile: int, address: Any, offset: int, stride: Any) -> None:
    """Store a tile as 16 rows of 64 bytes.

    Args:
        builder: llvmlite's.
        tile: the number of the tile.
        address: an integer in LLVM.
        offset: bytes from the address to the first row.
        stride: bytes from one row to the next, a number or an integer in LLVM.
    """
    pointer = builder.inttoptr(builder.add(address, _INT64(offset)), _POINTER)
    stride = _INT64(stride) if isinstance(stride, int) else stride
    _call(builder, "llvm.x86.tilestored64", [_BYTE, _POINTER, _INT64], [_BYTE(tile), pointer, stride])


def multiply_tiles(builder: Any, sums: int, left: int, right: int) -> None:
    """Add a product of tiles: sums (16, 16) += left (16, 32) times right (32, 16).

    Args:
        builder: llvmlite's.
        sums: the number of a tile of float32.
        left: the number of a tile of bf16.
        right: the number of a tile of bf16, in pairs of inputs: (16, 16, 2).
    """
    _call(builder, "llvm.x86.tdpbf16ps", [_BYTE] * 3, [_BYTE(sums), _BYTE(left), _BYTE(right)])


@native
def _configure(typing_context: Any, address: Any) -> Any:
    """Set the sizes of this thread's tiles."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if amx():
            _call(builder, "llvm.x86.ldtilecfg", [_POINTER], [builder.inttoptr(arguments[0], _POINTER)])
        return context.get_dummy_value()

    return types.void(types.uintp), generate


@native
def _release(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if amx():
            _call(builder, "llvm.x86.tilerelease", [], [])
        return context.get_dummy_value()

    return types.void(), generate


@native
def zero_tiles(typing_context: Any, out: Any) -> Any:
    """Set the sums in tiles 0 to 3 to zero.

    Args:
        typing_context: numba's.
        out: where the sums are to be stored; not used: functions that multiply without tiles need it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for tile in range(4):
            _call(builder, "llvm.x86.tilezero", [_BYTE], [_BYTE(tile)])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@native
def multiply_into_tiles(typing_context: Any, left: Any, packed: Any, out: Any) -> Any:
    """Add a product of blocks to the sums (32, 32) in tiles 0 to 3.

    Args:
        typing_context: numba's.
        left: the address of a block (32, 32) of bf16, loaded into tiles 4 and 5.
        packed: the address of a block of packed weights (16, 32, 2), loaded into tiles 6 and 7.
        out: not used: functions that multiply without tiles need it.
    """

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
    """Store the sums in tiles 0 to 3 as a block (32, 32) of float32.

    Args:
        typing_context: numba's.
        out: the address of the block.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for tile in range(4):
            offset = 64 * SIDE * (tile // 2) + 2 * SIDE * (tile % 2)
            store_tile(builder, tile, arguments[0], offset, 4 * SIDE)
        return context.get_dummy_value()

    return types.void(types.intp), generate


@compiled
def configure_tiles(config: NDArray[np.uint8]) -> None:
    """Set the sizes of this thread's tiles, before its first product; nothing on processors without them.

    Args:
        config: `TILE_CONFIG`.
    """
    _configure(config.ctypes.data)


@compiled
def release_tiles() -> None:
    """Give this thread's tiles back, after its last product."""
    _release()
