"""Products of blocks of 32 by 32 numbers: of bf16 in tiles (AMX), of bf16 or float32 in vectors, or in plain loops."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import overload

from chargen.kernels.amx import SIDE, multiply_into_tiles, store_tiles, zero_tiles
from chargen.kernels.bf16_ir import from_bits
from chargen.kernels.cpu_features import amx, bf16_pairs, llvm_features
from chargen.kernels.jit import compiled, inlined, native
from chargen.kernels.simd import LANES, BFloat, declared

ROWS = 16 if "+avx512f" in llvm_features() else 4
"""Whose sums with 16 columns stay in registers."""
_AT_ONCE = 4
"""Inputs, or pairs of them, that are multiplied without a jump."""
_types: Any = types
_FLOATS, _HALVES = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(BFloat(), 2 * LANES)
_INT64, _POINTER = ir.IntType(64), ir.PointerType()


def _pointer_to(kind: Any) -> Any:
    """A function that makes an address a pointer."""

    def point(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return kind(address), generate

    return native(point)


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
            value = from_bits(values[row, k])
            for n in range(SIDE):
                sums[row, n] += value * from_bits(weights[k // 2, n, k % 2])


def _adding_rows(pairs: bool) -> Any:
    """A function that adds to sums (ROWS, 16) left (ROWS, 32) times packed (32, 16), rows 32 numbers apart.

    Each sum is a chain of fused multiply-adds of float32, or of dot products of pairs of bf16.
    """
    line = SIDE * (2 if pairs else 4)  # bytes of a row of the left side

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, packed, out = arguments

        def place(address: Any, more: int) -> Any:
            return builder.inttoptr(builder.add(address, _INT64(more)), _POINTER)

        def load(kind: Any, pointer: Any) -> Any:
            loaded = builder.load(pointer, typ=kind)
            loaded.align = 4
            return loaded

        def added(value: Any, weight: Any, total: Any) -> Any:
            """A sum and the products of a number, or a pair, with 16."""
            spread = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.IntType(32)(0))
            spread = builder.shuffle_vector(spread, spread, ir.VectorType(ir.IntType(32), LANES)([0] * LANES))
            if not pairs:
                fused = declared(builder, f"llvm.fma.v{LANES}f32", ir.FunctionType(_FLOATS, [_FLOATS] * 3))
                return builder.call(fused, [spread, weight, total])
            kind = ir.FunctionType(_FLOATS, [_FLOATS, _HALVES, _HALVES])
            dot = declared(builder, "llvm.x86.avx512bf16.dpbf16ps.512", kind)
            return builder.call(dot, [total, builder.bitcast(weight, _HALVES), builder.bitcast(spread, _HALVES)])

        before = [load(_FLOATS, place(out, row * SIDE * 4)) for row in range(ROWS)]
        entry, loop, after = builder.block, builder.append_basic_block("inputs"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        at = builder.phi(_INT64)
        at.add_incoming(_INT64(0), entry)
        chains = [builder.phi(_FLOATS) for _ in range(ROWS)]
        sums: list[Any] = list(chains)
        values = builder.add(left, builder.mul(at, _INT64(4)))
        weights = builder.add(packed, builder.mul(at, _INT64(4 * SIDE)))
        for k in range(_AT_ONCE):
            weight = load(_FLOATS, place(weights, 4 * k * SIDE))
            for row in range(ROWS):
                sums[row] = added(load(ir.FloatType(), place(values, row * line + 4 * k)), weight, sums[row])
        following = builder.add(at, _INT64(_AT_ONCE))
        at.add_incoming(following, loop)
        for chain, first, last in zip(chains, before, sums, strict=True):
            chain.add_incoming(first, entry)
            chain.add_incoming(last, loop)
        builder.cbranch(builder.icmp_signed("<", following, _INT64(line // 4)), loop, after)
        builder.position_at_end(after)
        for row, value in enumerate(sums):
            builder.store(value, place(out, row * SIDE * 4)).align = 4
        return context.get_dummy_value()

    return native(lambda typing_context, left, packed, out: (types.void(*[types.intp] * 3), generate))


_add_rows, _add_pairs = _adding_rows(pairs=False), _adding_rows(pairs=True)


@compiled
def _multiply_in_vectors(left: int, packed: int, out: int, rows: int) -> None:
    for column in range(0, SIDE, LANES):
        for row in range(0, min(rows, SIDE), ROWS):
            _add_rows(left + row * SIDE * 4, packed + column * 4, out + (row * SIDE + column) * 4)


@compiled
def _multiply_in_pairs(left: int, packed: int, out: int, rows: int) -> None:
    for column in range(0, SIDE, LANES):
        for row in range(0, min(rows, SIDE), ROWS):
            _add_pairs(left + row * SIDE * 2, packed + column * 4, out + (row * SIDE + column) * 4)


@inlined
def _multiply_in_tiles(left: int, packed: int, out: int, rows: int) -> None:
    multiply_into_tiles(left, packed, out)


@compiled
def _leave_block(out: int) -> None:
    return


def _resumable(zero: Any, multiply: Any, finish: Any, width: int) -> Callable[..., tuple[int, int, int]]:
    def matmul_steps(
        like: Any, left: int, apart: int, packed: int, next_packed: int, out: int, inputs: int, rows: int,
        block: int, step: int, due: int,
    ) -> tuple[int, int, int]:  # fmt: skip
        while due >= SIDE:
            target = out + block * SIDE * SIDE * 4
            if step == 0:
                zero(target)
            multiply(left + step * apart, packed + block * next_packed + step * SIDE * SIDE * width, target, rows)
            step += 1
            if step == inputs:
                finish(target)
                block, step = block + 1, 0
            due -= SIDE
        return block, step, due

    return matmul_steps


steps_in_tiles = _resumable(zero_tiles, _multiply_in_tiles, store_tiles, 2)
steps_in_vectors = _resumable(_zero_block, _multiply_in_vectors, _leave_block, 4)
steps_in_pairs = _resumable(_zero_block, _multiply_in_pairs, _leave_block, 2)
steps_in_loops = _resumable(_zero_block, _multiply_in_loops, _leave_block, 2)


def matmul_steps(
    like: Any, left: int, apart: int, packed: int, next_packed: int, out: int, inputs: int, rows: int, block: int,
    step: int, due: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Some steps of products out (S, 32, 32) = left (32, 32 K) times S columns of weights (32 K, 32), by addresses.

    Tiles are multiplied beside vector instructions, so a caller had better do something else between two calls. Each of
    the S blocks takes K steps; begin at block 0, step 0, and go on where the call before says that it ended. `due`
    counts 32nds of a step; those that make no whole step are handed back. Other products may not come in between.

    `left` are K blocks that begin `apart` bytes from each other, of which only the first `rows` rows need be computed;
    `packed` is a column of packed weights, and the other columns begin `next_packed` bytes from each other; `out` are
    float32. All begin at a cache line. `like` is an array of the type of the factors: float32, or bits of bf16.
    Between `configure_tiles(TILE_CONFIG)` and `release_tiles()`, for compiled code only.
    """
    raise NotImplementedError


@overload(matmul_steps, inline="always")
def _matmul_steps(
    like: Any, left: int, apart: int, packed: int, next_packed: int, out: int, inputs: int, rows: int, block: int,
    step: int, due: int,
) -> Any:  # fmt: skip
    if like.dtype == types.float32:
        return steps_in_vectors
    if amx():
        return steps_in_tiles
    return steps_in_pairs if bf16_pairs() else steps_in_loops
