"""Products of rows and packed weights, in which each output is summed in one order whatever the number of rows.

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
from chargen.kernels.cpu_features import llvm_features
from chargen.kernels.jit import compiled, native

WIDTH = 64
LANES = 16
_LARGE_REGISTERS = "+avx512f" in llvm_features()
INPUTS_AT_ONCE = 128 if _LARGE_REGISTERS else 64
"""Inputs that several rows multiply before the next ones: their weights, 32 or 16 kB, stay in the fastest cache."""

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_INT64 = ir.IntType(64)
_STORED = {types.float32: ir.FloatType(), types.uint16: ir.IntType(16), types.int8: ir.IntType(8)}


def pack(weights: NDArray[Any]) -> NDArray[Any]:
    """Pack weights as blocks of 64 outputs.

    Args:
        weights: (N, K), of any type.

    Returns:
        (ceil(N / 64), K, 64), padded with zeros.
    """
    rows, inputs = weights.shape
    blocks = -(-rows // WIDTH)
    padded = np.zeros((blocks * WIDTH, inputs), weights.dtype)
    padded[:rows] = weights
    return np.ascontiguousarray(padded.reshape(blocks, WIDTH, inputs).transpose(0, 2, 1))


def _load(builder: Any, dtype: Any, pointer: Any) -> Any:
    """Load sixteen weights (float32, bf16 bits in uint16, or int8) as a vector of float32."""
    loaded = builder.load(pointer, typ=ir.VectorType(_STORED[dtype], LANES))
    loaded.align = dtype.bitwidth // 8
    if dtype == types.uint16:
        return widen(builder, loaded)
    if dtype == types.int8:
        return builder.sitofp(builder.sext(loaded, _INTS), _FLOATS)
    return loaded


def _make_add_rows(rows: int, width: int) -> Callable[..., None]:
    """Make a function that adds products to `rows` rows of `width` of 64 outputs.

    It is written in LLVM's language: a compiler does not keep an array's elements in registers.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays = [context.make_array(signature.args[n])(context, builder, arguments[n]).data for n in (0, 2, 5)]
        first_weight, first_input, stride, first_out, out_stride, count = (arguments[n] for n in (1, 3, 4, 6, 7, 8))
        dtype = signature.args[0].dtype

        def gep(array: Any, element_type: Any, index: Any) -> Any:
            return builder.gep(array, [index], source_etype=element_type)

        weights = gep(arrays[0], _STORED[dtype], first_weight)
        inputs = [
            gep(arrays[1], ir.FloatType(), builder.add(first_input, builder.mul(stride, _INT64(row))))
            for row in range(rows)
        ]
        outs = [
            [
                gep(
                    arrays[2],
                    ir.FloatType(),
                    builder.add(first_out, builder.add(builder.mul(out_stride, _INT64(row)), _INT64(part * LANES))),
                )
                for part in range(width // LANES)
            ]
            for row in range(rows)
        ]
        out_pointers = [pointer for row in outs for pointer in row]
        initial = []
        for pointer in out_pointers:
            loaded = builder.load(pointer, typ=_FLOATS)
            loaded.align = 4
            initial.append(loaded)
        entry = builder.block
        loop, done = builder.append_basic_block("inputs"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(_INT64)
        k.add_incoming(_INT64(0), entry)
        sums = []
        for value in initial:
            sum_ = builder.phi(_FLOATS)
            sum_.add_incoming(value, entry)
            sums.append(sum_)
        name, fma_type = f"llvm.fma.v{LANES}f32", ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        fma = builder.module.globals.get(name) or ir.Function(builder.module, fma_type, name)
        row_weight = builder.mul(k, _INT64(WIDTH))
        weight_vectors = [
            _load(builder, dtype, gep(weights, _STORED[dtype], builder.add(row_weight, _INT64(part * LANES))))
            for part in range(width // LANES)
        ]
        new_sums = []
        for row in range(rows):
            value = builder.load(gep(inputs[row], ir.FloatType(), k), typ=ir.FloatType())
            repeated = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.IntType(32)(0))
            lane_zero = ir.Constant(_INTS, [0] * LANES)
            repeated = builder.shuffle_vector(repeated, repeated, lane_zero)
            for part, weight in enumerate(weight_vectors):
                new_sums.append(builder.call(fma, [repeated, weight, sums[row * len(weight_vectors) + part]]))
        next_k = builder.add(k, _INT64(1))
        k.add_incoming(next_k, loop)
        for sum_, value in zip(sums, new_sums, strict=True):
            sum_.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", next_k, count), loop, done)
        builder.position_at_end(done)
        for pointer, value in zip(out_pointers, new_sums, strict=True):
            builder.store(value, builder.bitcast(pointer, _FLOATS.as_pointer())).align = 4
        return context.get_dummy_value()

    def add_rows(
        typing_context: Any, weights: Any, first_weight: Any, inputs: Any, first_input: Any, stride: Any,
        out: Any, first_out: Any, out_stride: Any, count: Any,
    ) -> Any:  # fmt: skip
        stretch = types.intp, types.intp
        return types.void(weights, types.intp, inputs, *stretch, out, *stretch, types.intp), generate

    result: Callable[..., None] = native(add_rows)
    return result


_FOUR_ROWS_WIDTH = WIDTH if _LARGE_REGISTERS else LANES
"""Outputs of four rows that stay in registers."""
_add_row, _add_four_rows = _make_add_rows(1, WIDTH), _make_add_rows(4, _FOUR_ROWS_WIDTH)


@compiled
def add_products(
    weights: NDArray[Any], offset: int, start: int, stop: int, inputs: NDArray[Any], rows: int, size: int,
    out: NDArray[Any],
) -> None:  # fmt: skip
    """Add the products of inputs and packed weights to some columns of an array.

    Args:
        weights: flat; the packed weights of this product begin at `offset`.
        offset: the index of the first weight.
        start: the first block of 64 columns to compute.
        stop: the block to stop before.
        inputs: (at least R, K), contiguous float32.
        rows: R.
        size: K.
        out: (at least R, at least 64 `stop`), contiguous float32.
    """
    stride, out_stride = inputs.shape[1], out.shape[1]
    flat, flat_out = inputs.ravel(), out.ravel()
    for block in range(start, stop):
        first_input = 0
        while first_input < size:
            count = size - first_input if rows == 1 else min(INPUTS_AT_ONCE, size - first_input)
            weight = offset + (block * size + first_input) * WIDTH
            row = 0
            while row < rows:
                source, target = row * stride + first_input, row * out_stride + block * WIDTH
                if row + 4 <= rows:
                    for part in range(0, WIDTH, _FOUR_ROWS_WIDTH):
                        _add_four_rows(
                            weights, weight + part, flat, source, stride, flat_out, target + part, out_stride, count
                        )
                    row += 4
                else:
                    _add_row(weights, weight, flat, source, stride, flat_out, target, out_stride, count)
                    row += 1
            first_input += count
