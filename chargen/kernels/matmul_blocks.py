"""Products of blocks of 32 by 32 numbers: bf16 in tiles (AMX), bf16 or float32 in vectors, or bf16 in plain loops."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import overload

from chargen.kernels.amx import SIDE, multiply_into_tiles, store_tiles, zero_tiles
from chargen.kernels.bf16_ir import to_float
from chargen.kernels.cpu_features import amx, bf16_pairs, llvm_features
from chargen.kernels.jit import compiled, inlined, native
from chargen.kernels.simd import LANES, BFloat, declare, prefetch

ROWS_AT_ONCE, ROWS_AT_LAST = (16, 16) if "+avx512f" in llvm_features() else (6, 4)
"""Rows whose sums in 16 columns stay in registers: as many as fit, and what fills a block of 32 rows up."""
_INPUTS_AT_ONCE = 4
"""Inputs, or pairs of them, that are multiplied in one pass of the loop."""
_types: Any = types
_FLOATS, _HALVES = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(BFloat(), 2 * LANES)
_INT64, _POINTER = ir.IntType(64), ir.PointerType()


def _pointer_to(pointer_type: Any) -> Any:
    """Make a function that converts an address to a pointer."""

    def to_pointer(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return pointer_type(address), generate

    return native(to_pointer)


_shorts, _floats = (_pointer_to(_types.CPointer(kind)) for kind in (types.uint16, types.float32))


@compiled
def _zero_block(out: int) -> None:
    carray(_floats(out), (SIDE, SIDE))[:] = 0


@compiled
def _multiply_in_loops(left: int, packed: int, out: int, rows: int) -> None:
    values, weights = carray(_shorts(left), (SIDE, SIDE)), carray(_shorts(packed), (SIDE // 2, SIDE, 2))
    sums = carray(_floats(out), (SIDE, SIDE))
    for row in range(SIDE):
        for k in range(SIDE):
            value = to_float(values[row, k])
            for n in range(SIDE):
                sums[row, n] += value * to_float(weights[k // 2, n, k % 2])


def _make_add_rows(rows: int, pairs: bool) -> Any:
    """Make a function that adds left (rows, 32) times packed (32, 16) to sums (rows, 16).

    In each array, rows are 32 numbers apart. Each sum is a chain of fused multiply-adds of float32, or of dot products
    of pairs of bf16. At each pass some lines of the block at `ahead` are fetched, those at a pass's distance.
    """
    row_bytes = SIDE * (2 if pairs else 4)  # bytes of a row of the left side
    lines = max(1, rows // 8)  # so that the first 32 rows fetch all of a block's

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, packed, out, ahead = arguments

        def pointer(address: Any, offset: int) -> Any:
            return builder.inttoptr(builder.add(address, _INT64(offset)), _POINTER)

        def load(type_: Any, pointer: Any) -> Any:
            loaded = builder.load(pointer, typ=type_)
            loaded.align = 4
            return loaded

        def add(value: Any, weight: Any, total: Any) -> Any:
            """Add the products of a number, or a pair, and 16 weights to sums."""
            repeated = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.IntType(32)(0))
            repeated = builder.shuffle_vector(repeated, repeated, ir.VectorType(ir.IntType(32), LANES)([0] * LANES))
            if not pairs:
                fused = declare(builder, f"llvm.fma.v{LANES}f32", ir.FunctionType(_FLOATS, [_FLOATS] * 3))
                return builder.call(fused, [repeated, weight, total])
            type_ = ir.FunctionType(_FLOATS, [_FLOATS, _HALVES, _HALVES])
            dot = declare(builder, "llvm.x86.avx512bf16.dpbf16ps.512", type_)
            return builder.call(dot, [total, builder.bitcast(weight, _HALVES), builder.bitcast(repeated, _HALVES)])

        initial = [load(_FLOATS, pointer(out, row * SIDE * 4)) for row in range(rows)]
        entry, loop, done = builder.block, builder.append_basic_block("inputs"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        index = builder.phi(_INT64)
        index.add_incoming(_INT64(0), entry)
        chains = [builder.phi(_FLOATS) for _ in range(rows)]
        sums: list[Any] = list(chains)
        values = builder.add(left, builder.mul(index, _INT64(4)))
        weights = builder.add(packed, builder.mul(index, _INT64(4 * SIDE)))
        fetched = builder.add(ahead, builder.mul(index, _INT64(4 * SIDE)))
        for line in range(lines):
            prefetch(builder, pointer(fetched, 4 * line * SIDE))
        for k in range(_INPUTS_AT_ONCE):
            weight = load(_FLOATS, pointer(weights, 4 * k * SIDE))
            for row in range(rows):
                sums[row] = add(load(ir.FloatType(), pointer(values, row * row_bytes + 4 * k)), weight, sums[row])
        next_index = builder.add(index, _INT64(_INPUTS_AT_ONCE))
        index.add_incoming(next_index, loop)
        for chain, old_sum, new_sum in zip(chains, initial, sums, strict=True):
            chain.add_incoming(old_sum, entry)
            chain.add_incoming(new_sum, loop)
        builder.cbranch(builder.icmp_signed("<", next_index, _INT64(row_bytes // 4)), loop, done)
        builder.position_at_end(done)
        for row, value in enumerate(sums):
            builder.store(value, pointer(out, row * SIDE * 4)).align = 4
        return context.get_dummy_value()

    return native(lambda typing_context, left, packed, out, ahead: (types.void(*[types.intp] * 4), generate))


_add_rows, _add_last_rows = (_make_add_rows(rows, pairs=False) for rows in (ROWS_AT_ONCE, ROWS_AT_LAST))
_add_pairs = _make_add_rows(16, pairs=True)


@compiled
def _multiply_in_vectors(left: int, packed: int, out: int, rows: int) -> None:
    for column in range(0, SIDE, LANES):
        weights, row, rest = packed + column * 4, 0, min(rows, SIDE)
        ahead = weights + SIDE * SIDE * 4
        while rest > 0:
            source, target = left + row * SIDE * 4, out + (row * SIDE + column) * 4
            # Fours in the place of sixes where this leaves fewer rows over, and never more than 32 rows.
            step = ROWS_AT_LAST if rest <= ROWS_AT_LAST or ROWS_AT_ONCE < rest <= 2 * ROWS_AT_LAST else ROWS_AT_ONCE
            if step == ROWS_AT_ONCE:
                _add_rows(source, weights, target, ahead)
            else:
                _add_last_rows(source, weights, target, ahead)
            row, rest, ahead = row + step, rest - step, ahead + max(1, ROWS_AT_ONCE // 8) * SIDE * 4


@compiled
def _multiply_in_pairs(left: int, packed: int, out: int, rows: int) -> None:
    for column in range(0, SIDE, LANES):
        weights = packed + column * 4
        for row in range(0, min(rows, SIDE), 16):
            ahead = weights + SIDE * SIDE * 2 + row // 8 * SIDE * 4
            _add_pairs(left + row * SIDE * 2, weights, out + (row * SIDE + column) * 4, ahead)


@inlined
def _multiply_in_tiles(left: int, packed: int, out: int, rows: int) -> None:
    multiply_into_tiles(left, packed, out)


@compiled
def _leave_block(out: int) -> None:
    return


def _make_continue_matmul(zero: Any, multiply: Any, finish: Any, width: int) -> Callable[..., tuple[int, int, int]]:
    def continue_matmul(
        like: Any, left: int, left_stride: int, packed: int, packed_stride: int, out: int, k_blocks: int, rows: int,
        block: int, k: int, budget: int,
    ) -> tuple[int, int, int]:  # fmt: skip
        while budget >= SIDE:
            target = out + block * SIDE * SIDE * 4
            if k == 0:
                zero(target)
            multiply(left + k * left_stride, packed + block * packed_stride + k * SIDE * SIDE * width, target, rows)
            k += 1
            if k == k_blocks:
                finish(target)
                block, k = block + 1, 0
            budget -= SIDE
        return block, k, budget

    return continue_matmul


continue_in_tiles = _make_continue_matmul(zero_tiles, _multiply_in_tiles, store_tiles, 2)
continue_in_vectors = _make_continue_matmul(_zero_block, _multiply_in_vectors, _leave_block, 4)
continue_in_pairs = _make_continue_matmul(_zero_block, _multiply_in_pairs, _leave_block, 2)
continue_in_loops = _make_continue_matmul(_zero_block, _multiply_in_loops, _leave_block, 2)


def continue_matmul(
    like: Any, left: int, left_stride: int, packed: int, packed_stride: int, out: int, k_blocks: int, rows: int,
    block: int, k: int, budget: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Compute a part of the products out (S, 32, 32) = left (32, 32 K) times weights (32 K, 32), S times.

    Each of the S blocks of sums takes K products of blocks. A call computes some of them and says where it stopped, so
    that the caller can compute something else in between: tiles and vector instructions run at the same time. No other
    product may come in between. For compiled code only, between `configure_tiles(TILE_CONFIG)` and `release_tiles()`.

    Args:
        like: an array of the type of the factors: float32, or bits of bf16.
        left: the address of the first of K blocks (32, 32).
        left_stride: bytes from one of these blocks to the next.
        packed: the address of the first of S columns of packed weights.
        packed_stride: bytes from one column to the next.
        out: the address of the sums, in float32. All addresses are multiples of 64.
        k_blocks: K.
        rows: how many rows of `left` need be computed, at least.
        block: the block of sums to go on with; 0 at first.
        k: the product of blocks to go on with; 0 at first.
        budget: how much to compute, in 32nds of a product of blocks.

    Returns:
        The next call's `block` and `k`, and what is left of the budget, below 32.
    """
    raise NotImplementedError


@overload(continue_matmul, inline="always")
def _choose_continue_matmul(
    like: Any, left: int, left_stride: int, packed: int, packed_stride: int, out: int, k_blocks: int, rows: int,
    block: int, k: int, budget: int,
) -> Any:  # fmt: skip
    if like.dtype == types.float32:
        return continue_in_vectors
    if amx():
        return continue_in_tiles
    return continue_in_pairs if bf16_pairs() else continue_in_loops
