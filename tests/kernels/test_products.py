"""Products of packed numbers: exact but for the order of sums, on tiles, vectors, pairs and in plain loops."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chargen.kernels import amx, bf16, matmul_blocks, train_rnn
from chargen.kernels.cpu_features import bf16_pairs
from chargen.kernels.jit import compiled, inlined
from chargen.kernels.matmul_blocks import continue_matmul
from chargen.kernels.simd import transpose
from chargen.kernels.sums import sums_by_id
from chargen.model import compiled_layers
from tests import naive

BF16, FP32 = torch.bfloat16, torch.float32


class Products(NamedTuple):
    """A way to multiply, and the type that factors are stored in."""

    multiply: Any
    dtype: Any

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        return (
            naive.rounded_to_bf16(torch.from_numpy(values)).double().numpy()
            if self.dtype == np.uint16
            else values.astype(np.float64)
        )


TILES, VECTORS = Products(matmul_blocks.continue_matmul, np.uint16), Products(matmul_blocks.continue_matmul, np.float32)
PLAIN = Products(inlined(matmul_blocks.continue_in_loops), np.uint16)
IN_PAIRS = [Products(inlined(matmul_blocks.continue_in_pairs), np.uint16)] if bf16_pairs() else []
WAYS = (TILES, PLAIN, VECTORS, *IN_PAIRS)


def stored_as(dtype: Any, values: NDArray[np.float32]) -> NDArray[Any]:
    return bf16.to_bits(values) if dtype == np.uint16 else values


def left_side(values: NDArray[np.float32], dtype: Any) -> NDArray[Any]:
    """A left side (M, K) as (K / 32, M, 32)."""
    blocks = amx.aligned_zeros((values.shape[1] // 32, len(values), 32), dtype)
    blocks[:] = stored_as(dtype, values).reshape(len(values), -1, 32).transpose(1, 0, 2)
    return blocks


def packed_plainly(weights: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(K, N) -> bf16 bits (N / 32, K / 2, 32, 2), filled up with zeros to multiples of 32."""
    inputs, outputs = weights.shape
    padded = np.zeros((train_rnn.pad(inputs), train_rnn.pad(outputs)), np.float32)
    padded[:inputs, :outputs] = weights
    packed = bf16.to_bits(padded).reshape(len(padded) // 2, 2, -1, 32).transpose(2, 0, 3, 1)
    result = amx.aligned_zeros(packed.shape, np.uint16)
    result[:] = packed
    return result


def right_side(weights: NDArray[np.float32], dtype: Any) -> NDArray[Any]:
    """Weights (K, N), filled up, as products want them."""
    if dtype == np.uint16:
        return packed_plainly(weights)
    inputs, outputs = weights.shape
    padded = np.zeros((train_rnn.pad(inputs), train_rnn.pad(outputs)), np.float32)
    padded[:inputs, :outputs] = weights
    result = amx.aligned_zeros((padded.shape[1] // 32, len(padded), 32), np.float32)
    result[:] = padded.reshape(len(padded), -1, 32).transpose(1, 0, 2)
    return result


@cache
def run(multiply: Callable[..., Any]) -> Callable[..., int]:
    """All blocks of a product."""

    @compiled
    def multiply_all(left: Any, packed: Any, out: Any, config: Any, filled: int) -> int:
        blocks, rows, _ = left.shape
        row_bytes = 32 * left.itemsize
        amx.configure_tiles(config)
        budget = 7  # below 32: is handed back as it is
        for row in range(0, rows, 32):
            memory = np.empty((len(packed) + 1) * 1024, np.float32)
            first = (-memory.ctypes.data % 64) // 4
            block, k, remaining, most = 0, 0, len(packed) * blocks, 1
            while remaining:  # 1, 2, 3 and so on at a time
                number = min(most, remaining)
                block, k, budget = multiply(
                    packed, left.ctypes.data + row * row_bytes, rows * row_bytes, packed.ctypes.data,
                    blocks * 32 * row_bytes, memory.ctypes.data + first * 4, blocks, min(32, filled - row), block, k,
                    32 * number + budget,
                )  # fmt: skip
                remaining, most = remaining - number, most + 1
            for column in range(len(packed)):
                begin = first + column * 1024
                out[column, row : row + 32] = memory[begin : begin + 1024].reshape((32, 32))
        amx.release_tiles()
        return budget

    result: Callable[..., int] = multiply_all
    return result


def product_of(way: Products, left: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float32]:
    """A product (M, N), whatever the sizes."""
    (rows, inputs), outputs = left.shape, weights.shape[1]
    padded = np.zeros((train_rnn.pad(rows), train_rnn.pad(inputs)), np.float32)
    padded[:rows, :inputs] = left
    out = amx.aligned_zeros((train_rnn.pad(outputs) // amx.SIDE, len(padded), amx.SIDE), np.float32)
    out[:] = np.nan
    sides = left_side(padded, way.dtype), right_side(weights, way.dtype)
    assert run(way.multiply)(*sides, out, amx.TILE_CONFIG, rows) == 7
    result: NDArray[np.float32] = out.transpose(1, 0, 2).reshape(len(padded), -1)
    assert not result[rows:].any()
    assert not np.nan_to_num(result[:, outputs:]).any()
    return result[:rows, :outputs]


@settings(max_examples=6)
@given(st.integers(1, 70), st.integers(1, 130), st.integers(1, 100), st.integers(0, 99))
def test_every_way_to_multiply_is_exact_but_for_the_order_of_sums(
    rows: int, inputs: int, outputs: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    left = random.standard_normal((rows, inputs), np.float32)
    weights = random.standard_normal((inputs, outputs), np.float32)
    for way in WAYS:
        result, exact = product_of(way, left, weights), way.rounded(left) @ way.rounded(weights)
        assert (abs(result - exact) <= 1e-6 * (abs(way.rounded(left)) @ abs(way.rounded(weights)))).all()
        if way is not PLAIN:
            assert (product_of(way, left[rows // 2 :], weights) == result[rows // 2 :]).all()


def test_products_of_small_whole_numbers_are_exact() -> None:
    random = np.random.default_rng(0)
    left, weights = (random.integers(-9, 10, shape).astype(np.float32) for shape in ((33, 96), (96, 65)))
    for way in WAYS:
        assert (product_of(way, left, weights) == left @ weights).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_product_passes_on_what_is_not_finite_to_its_row_or_column(value: float) -> None:
    random = np.random.default_rng(0)
    for way in WAYS:
        left, weights = random.standard_normal((40, 64), np.float32), random.standard_normal((64, 40), np.float32)
        left[35, 60] = value
        is_finite = np.isfinite(product_of(way, left, weights))
        assert not is_finite[35].any()
        assert is_finite[:35].all()
        assert is_finite[36:].all()
    for way in () if math.isnan(value) else (TILES, VECTORS, *IN_PAIRS):
        packed = right_side(random.standard_normal((64, 64), np.float32), way.dtype)
        packed[(0,) * packed.ndim] = stored_as(way.dtype, np.float32([value]))[0]
        out = amx.aligned_zeros((2, 32, 32), np.float32)
        run(way.multiply)(left_side(np.ones((32, 64), np.float32), way.dtype), packed, out, amx.TILE_CONFIG, 32)
        assert (out[0, :, 0] == value).all()
        assert np.isfinite(out[0, :, 1:]).all()
        assert np.isfinite(out[1]).all()


@given(st.integers(1, 100), st.integers(1, 100))
def test_packed_weights_lie_in_blocks_of_columns_and_pairs_of_inputs(inputs: int, outputs: int) -> None:
    weights = np.random.default_rng(0).standard_normal((inputs, outputs), np.float32)
    packed = packed_plainly(weights)
    assert packed.shape == (train_rnn.pad(outputs) // 32, train_rnn.pad(inputs) // 2, 32, 2)
    assert packed.flags.c_contiguous
    assert packed.ctypes.data % 64 == 0
    k, n = np.indices(weights.shape)
    assert (packed[n // 32, k // 2, n % 32, k % 2] == bf16.to_bits(weights)).all()
    packed[n // 32, k // 2, n % 32, k % 2] = 0
    assert not packed.any()


@pytest.mark.parametrize("hidden", [32, 64, 96])
@pytest.mark.parametrize("gates", [1, 3, 4])
def test_a_layer_packs_its_weights_as_the_products_want_them(gates: int, hidden: int) -> None:
    weights = torch.randn(gates * hidden, hidden, generator=torch.Generator().manual_seed(0))
    for transposed, expected in ((True, packed_plainly(weights.numpy().T)), (False, packed_plainly(weights.numpy()))):
        packed = compiled_layers._pack_weights(weights, BF16, transposed=transposed)
        assert packed.flags.c_contiguous
        assert packed.ctypes.data % 64 == 0
        assert (packed == expected).all()
    for transposed, relaid in ((True, weights.t()), (False, weights)):
        packed = compiled_layers._pack_weights(weights, FP32, transposed=transposed)
        assert packed.flags.c_contiguous
        assert packed.ctypes.data % 64 == 0
        assert (packed == right_side(relaid.numpy(), np.float32)).all()


@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 3))
def test_sums_over_time_are_those_of_float32(rows: int, columns: int, rest: int) -> None:
    values = torch.randn(rows, columns * 7 + rest, generator=torch.Generator().manual_seed(rows)).bfloat16()
    padded = torch.full((rows, values.shape[1] + 5), math.nan, dtype=torch.bfloat16)
    padded[:, : values.shape[1]] = values
    for matrix in (values, padded[:, : values.shape[1]]):
        torch.testing.assert_close(compiled_layers._sum_rows(matrix), values.float().sum(1), atol=1e-4, rtol=1e-5)
    assert torch.equal(compiled_layers._sum_rows(values.float()), values.float().sum(1))


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_sums_by_id_are_chains_in_the_order_of_rows(rows: int, blocks: int, size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, 32 * blocks + 32), np.float32)[:, : 32 * blocks]
    ids, before = random.integers(0, size, rows), random.standard_normal((size, 32 * blocks), np.float32)
    expected = before.copy()
    np.add.at(expected, ids, values)
    start = random.integers(0, blocks)
    out = before.copy()
    sums_by_id(values, ids, start, blocks, out)
    assert (out[:, 32 * start :] == expected[:, 32 * start :]).all()
    assert (out[:, : 32 * start] == before[:, : 32 * start]).all()


@compiled
def multiply_a_block(left: Any, packed: Any, out: Any, rows: int) -> None:
    continue_matmul(
        left,
        left.ctypes.data,
        4096,
        packed.ctypes.data,
        4096,
        out.ctypes.data,
        len(packed),
        rows,
        0,
        0,
        32 * len(packed),
    )


@pytest.mark.parametrize("rows", range(1, 33))
def test_a_block_has_all_rows_that_are_wanted_and_nothing_beside_it_is_touched(rows: int) -> None:
    random = np.random.default_rng(rows)
    left, packed = (amx.aligned_zeros((2, 32, 32), np.float32) for _ in range(2))
    left[:], packed[:] = random.integers(-9, 10, (2, 2, 32, 32))
    memory = amx.aligned_zeros((3, 32, 32), np.float32)
    memory[:] = 77
    multiply_a_block(left, packed, memory[1], rows)
    assert (memory[1, :rows] == (left @ packed).sum(0)[:rows]).all()
    assert (memory[::2] == 77).all()


@compiled
def transpose_once(source: Any, target: Any, count: int) -> None:
    transpose(source, source.ctypes.data, target.ctypes.data, target.strides[0], count)


@pytest.mark.parametrize("count", [1, 7, 31, 32])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_square_is_transposed_and_nothing_beside_it_is_touched(count: int, dtype: Any) -> None:
    source = np.arange(1024, dtype=dtype).reshape(32, 32)
    target = np.full((34, 50), 7777, dtype)
    transpose_once(source, target[1:33, 3 : 3 + count], count)
    assert (target[1:33, 3 : 3 + count] == source.T[:, :count]).all()
    target[1:33, 3 : 3 + count] = 7777
    assert (target == 7777).all()


@given(st.integers(1, 10**6))
def test_sizes_are_filled_up_to_the_next_multiple_of_32(size: int) -> None:
    assert train_rnn.pad(size) % 32 == 0
    assert size <= train_rnn.pad(size) < size + 32
