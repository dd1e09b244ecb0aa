"""Rows times weights, each output summed in the order of its inputs, however many rows there are.

Weights (N, K) are packed as (N / 64, K, 64), so that a block of 64 outputs stays in registers while its inputs pass.
Every sum is a chain of fused multiply-adds from the first input to the last. So the bits of an output depend neither on
the number of rows nor on the width of the machine's vectors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.bf16_ir import widen
from chargen.kernels.jit import compiled, native

WIDTH = 64
LANES = 16
CHUNK = 128
"""Inputs that many rows multiply before the next ones: their weights stay in the fastest cache."""

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_INT64 = ir.IntType(64)
_STORED = {types.float32: ir.FloatType(), types.uint16: ir.IntType(16), types.int8: ir.IntType(8)}


def pack(weights: NDArray[Any]) -> NDArray[Any]:
    """(N, K) -> (ceil(N / 64), K, 64), filled up with zeros."""
    rows, inputs = weights.shape
    blocks = -(-rows // WIDTH)
    padded = np.zeros((blocks * WIDTH, inputs), weights.dtype)
    padded[:rows] = weights
    return np.ascontiguousarray(padded.reshape(blocks, WIDTH, inputs).transpose(0, 2, 1))


def _load(builder: Any, dtype: Any, pointer: Any) -> Any:
    """Sixteen weights as floats: float32, bf16 bits in uint16, or int8."""
    loaded = builder.load(pointer, typ=ir.VectorType(_STORED[dtype], LANES))
    loaded.align = dtype.bitwidth // 8
    if dtype == types.uint16:
        return widen(builder, loaded)
    if dtype == types.int8:
        return builder.sitofp(builder.sext(loaded, _INTS), _FLOATS)
    return loaded


def _block(rows: int) -> Callable[..., None]:
    """A function that adds to `rows` rows of 64 outputs, in LLVM's own words: a compiler will not keep an array's
    elements in registers.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays = [context.make_array(signature.args[n])(context, builder, arguments[n]).data for n in (0, 2, 5)]
        weight_at, input_at, input_step, out_at, out_step, count = (arguments[at] for at in (1, 3, 4, 6, 7, 8))
        dtype = signature.args[0].dtype

        def place(array: Any, kind: Any, at: Any) -> Any:
            return builder.gep(array, [at], source_etype=kind)

        weights = place(arrays[0], _STORED[dtype], weight_at)
        inputs = [
            place(arrays[1], ir.FloatType(), builder.add(input_at, builder.mul(input_step, _INT64(row))))
            for row in range(rows)
        ]
        outs = [
            [
                place(
                    arrays[2],
                    ir.FloatType(),
                    builder.add(out_at, builder.add(builder.mul(out_step, _INT64(row)), _INT64(part * LANES))),
                )
                for part in range(WIDTH // LANES)
            ]
            for row in range(rows)
        ]
        targets = [pointer for row in outs for pointer in row]
        first = []
        for pointer in targets:
            loaded = builder.load(pointer, typ=_FLOATS)
            loaded.align = 4
            first.append(loaded)
        before = builder.block
        loop, after = builder.append_basic_block("inputs"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        at = builder.phi(_INT64)
        at.add_incoming(_INT64(0), before)
        sums = []
        for value in first:
            total = builder.phi(_FLOATS)
            total.add_incoming(value, before)
            sums.append(total)
        name, kind = f"llvm.fma.v{LANES}f32", ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        fused = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        base = builder.mul(at, _INT64(WIDTH))
        parts = [
            _load(builder, dtype, place(weights, _STORED[dtype], builder.add(base, _INT64(part * LANES))))
            for part in range(WIDTH // LANES)
        ]
        changed = []
        for row in range(rows):
            value = builder.load(place(inputs[row], ir.FloatType(), at), typ=ir.FloatType())
            spread = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.IntType(32)(0))
            zeros = ir.Constant(_INTS, [0] * LANES)
            spread = builder.shuffle_vector(spread, spread, zeros)
            for part, weight in enumerate(parts):
                changed.append(builder.call(fused, [spread, weight, sums[row * len(parts) + part]]))
        following = builder.add(at, _INT64(1))
        at.add_incoming(following, loop)
        for total, value in zip(sums, changed, strict=True):
            total.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        for pointer, value in zip(targets, changed, strict=True):
            builder.store(value, builder.bitcast(pointer, _FLOATS.as_pointer())).align = 4
        return context.get_dummy_value()

    def add_products(
        typing_context: Any, weights: Any, weight_at: Any, inputs: Any, input_at: Any, input_step: Any, out: Any,
        out_at: Any, out_step: Any, count: Any,
    ) -> Any:  # fmt: skip
        places = types.intp, types.intp
        return types.void(weights, types.intp, inputs, *places, out, *places, types.intp), generate

    result: Callable[..., None] = native(add_products)
    return result


_add_row, _add_four_rows = _block(1), _block(4)


@compiled
def add_products(
    weights: NDArray[Any], at: int, first: int, last: int, inputs: NDArray[Any], rows: int, size: int,
    out: NDArray[Any],
) -> None:  # fmt: skip
    """Add inputs (R, K) times packed weights to `out`, in the blocks of 64 columns from `first` up to `last`.

    Args:
        weights: flat, of which the packed ones begin `at`.
        inputs: (at least `rows`, K), contiguous.
        rows: R.
        size: K.
        out: (at least `rows`, at least 64 `last`), contiguous.
    """
    step, out_step = inputs.shape[1], out.shape[1]
    flat, flat_out = inputs.ravel(), out.ravel()
    for block in range(first, last):
        begin = 0
        while begin < size:
            count = size - begin if rows == 1 else min(CHUNK, size - begin)
            place = at + (block * size + begin) * WIDTH
            row = 0
            while row < rows:
                source, target = row * step + begin, row * out_step + block * WIDTH
                if row + 4 <= rows:
                    _add_four_rows(weights, place, flat, source, step, flat_out, target, out_step, count)
                    row += 4
                else:
                    _add_row(weights, place, flat, source, step, flat_out, target, out_step, count)
                    row += 1
            begin += count
