"""Dropout masks that are computed where they are applied: Philox of the address of each value."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.jit import compiled, native
from chargen.kernels.simd import BYTES, LANES, Vector, load_vector, store_vector, type_letter
from chargen.rng import MULTIPLIERS, WEYL

BLOCK = 8 * LANES
"""Values that are computed together, by 16 counters: each has the numbers of 8 neighbouring hidden units."""
_INT16, _INT32, _INT64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_WORDS, _LONGS = ir.VectorType(_INT32, LANES), ir.VectorType(_INT64, LANES)


@native
def _drop_block(
    typing_context: Any, like: Any, values: Any, out: Any, counters: Any, first_row: Any, purpose: Any, key_0: Any,
    key_1: Any, limit: Any,
) -> Any:  # fmt: skip
    """Drop values of a block by the numbers of 16 counters.

    Args:
        typing_context: numba's.
        like: an array of the type of the values.
        values: the address of the values.
        out: the address of the results.
        counters: the address of three words of each counter (3, 16): groups, positions and rows.
        first_row: added to the rows.
        purpose: the fourth word of every counter.
        key_0: the first word of the Philox key.
        key_1: the second word.
        limit: values whose numbers are below it are dropped.
    """
    letter = type_letter(like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, out, counters, first_row, purpose, key_0, key_1, limit = arguments[1:]

        group, position, row = (_load_word(builder, counters, word) for word in range(3))
        x = [group, position, builder.add(row, _repeat(builder, first_row)), _repeat(builder, purpose)]
        keys = [builder.trunc(key, _INT32) for key in (key_0, key_1)]
        for _ in range(10):
            products = [
                builder.mul(builder.zext(x[2 * place], _LONGS), _LONGS([MULTIPLIERS[place]] * LANES))
                for place in range(2)
            ]
            high = [builder.trunc(builder.lshr(product, _LONGS([32] * LANES)), _WORDS) for product in products]
            low = [builder.trunc(product, _WORDS) for product in products]
            round_keys = [_repeat(builder, key) for key in keys]
            x = [
                builder.xor(builder.xor(high[1], x[1]), round_keys[0]), low[1],
                builder.xor(builder.xor(high[0], x[3]), round_keys[1]), low[0],
            ]  # fmt: skip
            keys = [builder.add(key, _INT32(weyl)) for key, weyl in zip(keys, WEYL, strict=True)]
        kept_count = builder.sitofp(builder.sub(_INT64(2**16), limit), ir.FloatType())
        scale = Vector(builder, _repeat(builder, builder.fdiv(ir.FloatType()(2.0**16), kept_count)))
        last_dropped = _repeat(builder, builder.trunc(builder.sub(limit, _INT64(1)), _INT16), 2 * LANES)
        # Interleave words 0 and 1 of each counter, then words 2 and 3, then these pairs: the order of hidden units.
        pairs = [
            [
                builder.shuffle_vector(x[place], x[place + 1], _WORDS(_interleave(half * LANES // 2, 1)))
                for half in range(2)
            ]
            for place in (0, 2)
        ]
        for quarter in range(4):
            half, place = divmod(quarter, 2)
            lanes = _WORDS(_interleave(place * LANES // 2, 2))
            words = builder.shuffle_vector(pairs[0][half], pairs[1][half], lanes)
            numbers = builder.bitcast(words, ir.VectorType(_INT16, 2 * LANES))
            mask = builder.icmp_unsigned(">", numbers, last_dropped)
            for part in range(2):
                lanes = _WORDS(list(range(part * LANES, (part + 1) * LANES)))
                offset = _INT64((2 * quarter + part) * LANES * BYTES[letter])
                scaled = load_vector(builder, letter, builder.add(values, offset)) * scale
                kept = builder.select(builder.shuffle_vector(mask, mask, lanes), scaled.value, scaled.repeat(0).value)
                store_vector(builder, letter, Vector(builder, kept), builder.add(out, offset))
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 8), generate


@native
def _advance_counters(
    typing_context: Any, counters: Any, groups: Any, rows: Any, more_groups: Any, more_rows: Any, more_positions: Any
) -> Any:
    """Advance counters by less than `groups` groups and less than `rows` rows, with carries into rows and positions."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        counters, *sizes = arguments
        groups, rows, *increments = (_repeat(builder, size) for size in sizes)
        words = [_load_word(builder, counters, word) for word in range(3)]
        group, row, position = (builder.add(words[n], more) for n, more in zip((0, 2, 1), increments, strict=True))
        carry = builder.icmp_unsigned(">=", group, groups)
        group = builder.select(carry, builder.sub(group, groups), group)
        row = builder.select(carry, builder.add(row, _WORDS([1] * LANES)), row)
        carry = builder.icmp_unsigned(">=", row, rows)
        row = builder.select(carry, builder.sub(row, rows), row)
        position = builder.select(carry, builder.add(position, _WORDS([1] * LANES)), position)
        for word, value in enumerate((group, position, row)):
            builder.store(value, _word_pointer(builder, counters, word)).align = 4
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


def _repeat(builder: Any, number: Any, lanes: int = LANES) -> Any:
    """Repeat a number, or the lower half of a 64-bit number, in every lane."""
    number = builder.trunc(number, _INT32) if number.type == _INT64 else number
    vector = builder.insert_element(ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined), number, _INT32(0))
    return builder.shuffle_vector(vector, vector, ir.VectorType(_INT32, lanes)([0] * lanes))


def _word_pointer(builder: Any, counters: Any, word: int) -> Any:
    return builder.inttoptr(builder.add(counters, _INT64(4 * LANES * word)), ir.PointerType())


def _load_word(builder: Any, counters: Any, word: int) -> Any:
    loaded = builder.load(_word_pointer(builder, counters, word), typ=_WORDS)
    loaded.align = 4
    return loaded


def _interleave(first: int, run: int) -> list[int]:
    """The lanes that interleave two vectors, `run` lanes of each at a time, from the lane `first` on."""
    return [first + lane + LANES * vector + lane_in_run for lane in range(0, LANES // 2, run)
            for vector in range(2) for lane_in_run in range(run)]  # fmt: skip


@compiled
def drop(
    values: NDArray[Any], out: NDArray[Any], start: int, stop: int, limit: int, key_0: int, key_1: int,
    purpose: int, groups: int, rows: int, first_row: int,
) -> None:  # fmt: skip
    """Zero values whose random number is below a limit, and scale the others by 65536 / (65536 - limit).

    The 16-bit numbers are those that `chargen.model.dropout` defines.

    Args:
        values: (T * B * F,), float32 or bits of bf16.
        out: (T * B * F,), filled with the results.
        start: the first block of 128 values to compute.
        stop: the block to stop before.
        limit: from 1.
        key_0: the first word of the Philox key.
        key_1: the second word.
        purpose: the fourth word of every counter.
        groups: F / 8.
        rows: B.
        first_row: the global number of the first row.
    """
    buffer, width = np.empty(BLOCK, values.dtype), values.itemsize  # for a last block that is not full
    counters = np.empty((3, LANES), np.uint32)  # group of hidden units, position and row of each lane
    for lane in range(LANES):
        counter = start * LANES + lane
        row = counter // groups
        counters[0, lane], counters[1, lane], counters[2, lane] = counter % groups, row // rows, row % rows
    # From one block to the next, each counter advances by 16 groups: so many positions, rows and groups.
    group_step, row_step, position_step = LANES % groups, LANES // groups % rows, LANES // groups // rows
    for block in range(start, stop):
        first_value = block * BLOCK
        remaining = min(BLOCK, len(values) - first_value)
        source, target = values.ctypes.data + first_value * width, out.ctypes.data + first_value * width
        if remaining < BLOCK:
            for n in range(remaining):
                buffer[n] = values[first_value + n]
            source = target = buffer.ctypes.data
        _drop_block(values, source, target, counters.ctypes.data, first_row, purpose, key_0, key_1, limit)
        if remaining < BLOCK:
            for n in range(remaining):
                out[first_value + n] = buffer[n]
        _advance_counters(counters.ctypes.data, groups, rows, group_step, row_step, position_step)
