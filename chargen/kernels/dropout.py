"""Dropout masks that are computed where they are applied: Philox of their address, as in `draws`."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.compiled import compiled, native
from chargen.kernels.vectors import BYTES, LANES, Vector, letter, load_vector, store_vector
from chargen.rng import MULTIPLIERS, WEYL

GROUP = 512
"""Values that are computed together: 8 numbers of 16 bits from each of 64 Philox counters."""
_RUN = 128
"""Values whose numbers come from the same word of the counters."""
_INT16, _INT32, _INT64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_WORDS, _LONGS = ir.VectorType(_INT32, LANES), ir.VectorType(_INT64, LANES)


@native
def _drop(
    typing_context: Any, like: Any, values: Any, out: Any, counter: Any, index: Any, purpose: Any, key: Any, limit: Any
) -> Any:
    """Drop a part of a group, at an address: 32 values of each run, whose numbers come from 16 counters.

    `like` is an array of the same type.
    """
    kind = letter(like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, out, counter, index, purpose, key, limit = arguments[1:]

        def spread(value: Any, kind: Any) -> Any:
            lanes = ir.VectorType(kind, LANES)
            one = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, _INT32(0))
            return builder.shuffle_vector(one, one, _WORDS([0] * LANES))

        def halves(number: Any) -> list[Any]:
            return [builder.trunc(number, _INT32), builder.trunc(builder.lshr(number, _INT64(32)), _INT32)]

        counters = builder.add(spread(counter, _INT64), _LONGS(list(range(LANES))))
        x = [builder.trunc(counters, _WORDS), builder.trunc(builder.lshr(counters, _LONGS([32] * LANES)), _WORDS)]
        x += [spread(builder.trunc(number, _INT32), _INT32) for number in (index, purpose)]
        keys = halves(key)
        for _ in range(10):
            products = [
                builder.mul(builder.zext(x[2 * place], _LONGS), _LONGS([MULTIPLIERS[place]] * LANES))
                for place in range(2)
            ]
            high = [builder.trunc(builder.lshr(each, _LONGS([32] * LANES)), _WORDS) for each in products]
            low = [builder.trunc(each, _WORDS) for each in products]
            wide = [spread(each, _INT32) for each in keys]
            x = [
                builder.xor(builder.xor(high[1], x[1]), wide[0]), low[1],
                builder.xor(builder.xor(high[0], x[3]), wide[1]), low[0],
            ]  # fmt: skip
            keys = [builder.add(each, _INT32(weyl)) for each, weyl in zip(keys, WEYL, strict=True)]
        most = builder.sitofp(builder.sub(_INT64(2**16), limit), ir.FloatType())
        scale = Vector(builder, spread(builder.fdiv(ir.FloatType()(2.0**16), most), ir.FloatType()))
        wide_limit = spread(builder.trunc(limit, _INT32), _INT32)
        for word in range(4):
            # Numbers lie in the order of the lower and the upper halves of the words.
            bits = builder.bitcast(x[word], ir.VectorType(_INT16, 2 * LANES))
            for part in range(2):
                chosen = _WORDS(list(range(part * LANES, (part + 1) * LANES)))
                numbers = builder.zext(builder.shuffle_vector(bits, bits, chosen), _WORDS)
                place = _INT64((word * _RUN + part * LANES) * BYTES[kind])
                scaled = load_vector(builder, kind, builder.add(values, place)) * scale
                kept = builder.icmp_unsigned(">=", numbers, wide_limit)
                found = builder.select(kept, scaled.value, scaled.of(0).value)
                store_vector(builder, kind, Vector(builder, found), builder.add(out, place))
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 7), generate


@compiled
def drop(
    values: NDArray[Any], out: NDArray[Any], first: int, last: int, limit: int, key: int, n: int, index: int,
    purpose: int,
) -> None:  # fmt: skip
    """Zero float32 values, or bits of bf16 (N,), whose number is below `limit`; scale the others.

    Args:
        first, last: from which to which group of 512 values.
        limit: the scale is 65536 / (65536 - limit).
        key, n, index, purpose: the address of the first value, as in `draws`.
    """
    room, size = np.empty(GROUP, values.dtype), values.itemsize  # the rest of a last group is computed, and not used
    for group in range(first, last):
        begin = group * GROUP
        left = min(GROUP, len(values) - begin)
        source, target = values.ctypes.data + begin * size, out.ctypes.data + begin * size
        if left < GROUP:
            for place in range(left):
                room[place] = values[begin + place]
            source = target = room.ctypes.data
        for part in range(_RUN // (2 * LANES)):
            skip, counter = part * 2 * LANES * size, n + (group * _RUN // 2 + part * LANES)
            _drop(values, source + skip, target + skip, counter, index, purpose, key, limit)
        if left < GROUP:
            for place in range(left):
                out[begin + place] = room[place]
