"""Dropout masks that are computed where they are applied: Philox of their address, as in `draws`."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.jit import compiled, native
from chargen.kernels.simd import BYTES, LANES, Vector, letter, load_vector, store_vector
from chargen.rng import MULTIPLIERS, WEYL

BLOCK = 8 * LANES
"""Values that are computed together: 8 hidden units next to each other have the numbers of a counter."""
_INT16, _INT32, _INT64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_WORDS, _LONGS = ir.VectorType(_INT32, LANES), ir.VectorType(_INT64, LANES)


@native
def _drop(
    typing_context: Any, like: Any, values: Any, out: Any, counters: Any, first_row: Any, purpose: Any, key_0: Any,
    key_1: Any, limit: Any,
) -> Any:  # fmt: skip
    """Drop a part of a block, at an address, by the numbers of 16 counters.

    `like` is an array of the same type; `counters` is the address of their words (3, 16), to whose last ones, the rows,
    `first_row` is added.
    """
    kind = letter(like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, out, counters, first_row, purpose, key_0, key_1, limit = arguments[1:]

        group, position, row = (_load_word(builder, counters, word) for word in range(3))
        x = [group, position, builder.add(row, _spread(builder, first_row)), _spread(builder, purpose)]
        keys = [builder.trunc(each, _INT32) for each in (key_0, key_1)]
        for _ in range(10):
            products = [
                builder.mul(builder.zext(x[2 * place], _LONGS), _LONGS([MULTIPLIERS[place]] * LANES))
                for place in range(2)
            ]
            high = [builder.trunc(builder.lshr(each, _LONGS([32] * LANES)), _WORDS) for each in products]
            low = [builder.trunc(each, _WORDS) for each in products]
            wide = [_spread(builder, each) for each in keys]
            x = [
                builder.xor(builder.xor(high[1], x[1]), wide[0]), low[1],
                builder.xor(builder.xor(high[0], x[3]), wide[1]), low[0],
            ]  # fmt: skip
            keys = [builder.add(each, _INT32(weyl)) for each, weyl in zip(keys, WEYL, strict=True)]
        most = builder.sitofp(builder.sub(_INT64(2**16), limit), ir.FloatType())
        scale = Vector(builder, _spread(builder, builder.fdiv(ir.FloatType()(2.0**16), most)))
        highest = _spread(builder, builder.trunc(builder.sub(limit, _INT64(1)), _INT16), 2 * LANES)
        # Words 0 and 1 of each counter, then 2 and 3: from here on numbers lie in the order of hidden units.
        pairs = [
            [
                builder.shuffle_vector(x[place], x[place + 1], _WORDS(_interleaved(half * LANES // 2, 1)))
                for half in range(2)
            ]
            for place in (0, 2)
        ]
        for quarter in range(4):
            half, place = divmod(quarter, 2)
            chosen = _WORDS(_interleaved(place * LANES // 2, 2))
            words = builder.shuffle_vector(pairs[0][half], pairs[1][half], chosen)
            numbers = builder.bitcast(words, ir.VectorType(_INT16, 2 * LANES))
            kept = builder.icmp_unsigned(">", numbers, highest)
            for part in range(2):
                chosen = _WORDS(list(range(part * LANES, (part + 1) * LANES)))
                offset = _INT64((2 * quarter + part) * LANES * BYTES[kind])
                scaled = load_vector(builder, kind, builder.add(values, offset)) * scale
                dropped = builder.select(builder.shuffle_vector(kept, kept, chosen), scaled.value, scaled.of(0).value)
                store_vector(builder, kind, Vector(builder, dropped), builder.add(out, offset))
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 8), generate


@native
def _advance(
    typing_context: Any, counters: Any, groups: Any, rows: Any, more_groups: Any, more_rows: Any, more_positions: Any
) -> Any:
    """Move counters on, by less than `groups` groups and less than `rows` rows; what is full is carried."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        counters, *sizes = arguments
        groups, rows, *more = (_spread(builder, size) for size in sizes)
        words = [_load_word(builder, counters, word) for word in range(3)]
        group, row, position = (builder.add(words[word], each) for word, each in zip((0, 2, 1), more, strict=True))
        full = builder.icmp_unsigned(">=", group, groups)
        group = builder.select(full, builder.sub(group, groups), group)
        row = builder.select(full, builder.add(row, _WORDS([1] * LANES)), row)
        full = builder.icmp_unsigned(">=", row, rows)
        row = builder.select(full, builder.sub(row, rows), row)
        position = builder.select(full, builder.add(position, _WORDS([1] * LANES)), position)
        for word, moved in enumerate((group, position, row)):
            builder.store(moved, _word(builder, counters, word)).align = 4
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


def _spread(builder: Any, number: Any, lanes: int = LANES) -> Any:
    """A number, or the lower half of one of 64 bits, in every lane."""
    number = builder.trunc(number, _INT32) if number.type == _INT64 else number
    single = builder.insert_element(ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined), number, _INT32(0))
    return builder.shuffle_vector(single, single, ir.VectorType(_INT32, lanes)([0] * lanes))


def _word(builder: Any, counters: Any, word: int) -> Any:
    return builder.inttoptr(builder.add(counters, _INT64(4 * LANES * word)), ir.PointerType())


def _load_word(builder: Any, counters: Any, word: int) -> Any:
    loaded = builder.load(_word(builder, counters, word), typ=_WORDS)
    loaded.align = 4
    return loaded


def _interleaved(first: int, run: int) -> list[int]:
    """Lanes of two vectors in turn, `run` of each, from the lane `first` on."""
    return [first + lane + LANES * which + step for lane in range(0, LANES // 2, run)
            for which in range(2) for step in range(run)]  # fmt: skip


@compiled
def drop(
    values: NDArray[Any], out: NDArray[Any], first: int, last: int, limit: int, key_0: int, key_1: int,
    purpose: int, groups: int, rows: int, first_row: int,
) -> None:  # fmt: skip
    """Zero float32 values, or bits of bf16 (T * B * F,), whose number is below `limit`; scale the others.

    The number of a value is that of its place, as in `model.dropout`.

    Args:
        first, last: from which to which block of 128 values.
        limit: from 1; the scale is 65536 / (65536 - limit).
        key_0, key_1, purpose: of the masks.
        groups: F / 8.
        rows: B.
        first_row: the global number of the first one.
    """
    room, size = np.empty(BLOCK, values.dtype), values.itemsize  # the rest of a last block is computed, and not used
    counters = np.empty((3, LANES), np.uint32)  # group of hidden units, position and row of each lane
    for lane in range(LANES):
        counter = first * LANES + lane
        place = counter // groups
        counters[0, lane], counters[1, lane], counters[2, lane] = counter % groups, place // rows, place % rows
    # A block is 16 groups further: so many positions, rows and groups.
    more_groups, more_rows, more_positions = LANES % groups, LANES // groups % rows, LANES // groups // rows
    for block in range(first, last):
        begin = block * BLOCK
        left = min(BLOCK, len(values) - begin)
        source, target = values.ctypes.data + begin * size, out.ctypes.data + begin * size
        if left < BLOCK:
            for place in range(left):
                room[place] = values[begin + place]
            source = target = room.ctypes.data
        _drop(values, source, target, counters.ctypes.data, first_row, purpose, key_0, key_1, limit)
        if left < BLOCK:
            for place in range(left):
                out[begin + place] = room[place]
        _advance(counters.ctypes.data, groups, rows, more_groups, more_rows, more_positions)
