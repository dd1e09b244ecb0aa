"""Products of squares of 32 by 32 numbers: of bf16 in matrix units, of bf16 or float32 in vector units, or in loops."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import overload

from chargen.kernels.bits import from_bits
from chargen.kernels.compiled import FEATURES, PAIRS, compiled, inlined, native
from chargen.kernels.tiles import SIDE, advance_in_units, end_in_units, start_in_units
from chargen.kernels.units import amx
from chargen.kernels.vectors import LANES, BFloat, declared

ROWS = 16 if "+avx512f" in FEATURES else 4
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
def _start_in_memory(out: int) -> None:
    carray(_floats(out), (SIDE, SIDE))[:] = 0


@compiled
def _advance_plainly(left: int, packed: int, out: int, rows: int) -> None:
    values, weights = carray(_shorts(left), (SIDE, SIDE)), carray(_shorts(packed), (SIDE // 2, SIDE, 2))
    found = carray(_floats(out), (SIDE, SIDE))
    for row in range(SIDE):
        for k in range(SIDE):
            value = from_bits(values[row, k])
            for n in range(SIDE):
                found[row, n] += value * from_bits(weights[k // 2, n, k % 2])


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
            found = builder.load(pointer, typ=kind)
            found.align = 4
            return found

        def added(one: Any, weight: Any, total: Any) -> Any:
            """A sum and the products of a number, or a pair, with 16."""
            spread = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), one, ir.IntType(32)(0))
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
def _advance_in_vectors(left: int, packed: int, out: int, rows: int) -> None:
    for column in range(0, SIDE, LANES):
        for row in range(0, min(rows, SIDE), ROWS):
            _add_rows(left + row * SIDE * 4, packed + column * 4, out + (row * SIDE + column) * 4)


@compiled
def _advance_in_pairs(left: int, packed: int, out: int, rows: int) -> None:
    for column in range(0, SIDE, LANES):
        for row in range(0, min(rows, SIDE), ROWS):
            _add_pairs(left + row * SIDE * 2, packed + column * 4, out + (row * SIDE + column) * 4)


@inlined
def _advance_in_units(left: int, packed: int, out: int, rows: int) -> None:
    advance_in_units(left, packed, out)


@compiled
def _end_in_memory(out: int) -> None:
    return


def _multiplying(start: Any, advance: Any, end: Any, width: int) -> Callable[..., tuple[int, int, int]]:
    def multiply(
        like: Any, left: int, apart: int, packed: int, next_packed: int, out: int, inputs: int, rows: int,
        square: int, at: int, due: int,
    ) -> tuple[int, int, int]:  # fmt: skip
        while due >= SIDE:
            target = out + square * SIDE * SIDE * 4
            if at == 0:
                start(target)
            advance(left + at * apart, packed + square * next_packed + at * SIDE * SIDE * width, target, rows)
            at += 1
            if at == inputs:
                end(target)
                square, at = square + 1, 0
            due -= SIDE
        return square, at, due

    return multiply


multiply_in_units = _multiplying(start_in_units, _advance_in_units, end_in_units, 2)
multiply_in_vectors = _multiplying(_start_in_memory, _advance_in_vectors, _end_in_memory, 4)
multiply_in_pairs = _multiplying(_start_in_memory, _advance_in_pairs, _end_in_memory, 2)
multiply_plainly = _multiplying(_start_in_memory, _advance_plainly, _end_in_memory, 2)


def multiply(
    like: Any, left: int, apart: int, packed: int, next_packed: int, out: int, inputs: int, rows: int, square: int,
    at: int, due: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Some steps of products out (S, 32, 32) = left (32, 32 K) times S blocks of weights (32 K, 32), by addresses.

    Matrix units work beside vector units, so a caller had better do something else between two calls. There are K steps
    for each of the S squares; begin at square 0, step 0, and go on where the call before says that it ended. `due`
    counts 32nds of a step; those that make no whole one are handed back. Other products may not come in between.

    `left` are K squares that begin `apart` bytes from each other, of which only the first `rows` rows need be computed;
    `packed` is a block of packed weights, and the other blocks begin `next_packed` bytes from each other; `out` are
    float32. All begin at a cache line. `like` is an array of the type of the factors: float32, or bits of bf16.
    Between `use_units(SETTINGS)` and `leave_units()`, for compiled code only.
    """
    raise NotImplementedError


@overload(multiply, inline="always")
def _multiply(
    like: Any, left: int, apart: int, packed: int, next_packed: int, out: int, inputs: int, rows: int, square: int,
    at: int, due: int,
) -> Any:  # fmt: skip
    if like.dtype == types.float32:
        return multiply_in_vectors
    if amx():
        return multiply_in_units
    return multiply_in_pairs if PAIRS else multiply_plainly
