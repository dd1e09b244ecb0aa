"""Products of packed weights: chains of fused multiply-adds, in one order."""

import numpy as np
import pytest

from chargen.kernels.decode_matmul import WIDTH, add_products, pack
from chargen.storage.quantize import as_float32
from tests import naive


def some_weights(dtype: str, random: np.random.Generator, outputs: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (N, K) as stored, and their numbers."""
    if dtype == "int8":
        stored = random.integers(-128, 128, (outputs, size)).astype(np.int8)
        return stored, stored.astype(np.float32)
    numbers = random.normal(size=(outputs, size)).astype(np.float32)
    if dtype == "float32":
        return numbers, numbers
    stored = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return stored, as_float32({"w": stored}, "w")


def multiply(
    stored: np.ndarray, inputs: np.ndarray, rows: int, before: np.ndarray, blocks: tuple[int, int], offset: int = 0
) -> np.ndarray:
    """`before` with the products of some blocks added; `offset` other weights stand before the packed ones."""
    out = before.copy()
    flat = np.concatenate([np.full(offset, 77, stored.dtype), pack(stored).ravel()])
    add_products(flat, offset, *blocks, inputs, rows, stored.shape[1], out)
    return out


@pytest.mark.parametrize("dtype", ["float32", "uint16", "int8"])
@pytest.mark.parametrize("size", [1, 5, 127, 128, 129, 256, 300])
def test_products_are_chains_of_fused_multiply_adds(dtype: str, size: int) -> None:
    random = np.random.default_rng(size)
    for outputs in (1, 63, 64, 65, 130):
        stored, numbers = some_weights(dtype, random, outputs, size)
        inputs = random.normal(size=(10, size + 3)).astype(np.float32)  # rows are wider than what is read of them
        blocks = -(-outputs // WIDTH)
        width = blocks * WIDTH + 5
        before = random.normal(size=(10, width)).astype(np.float32)
        chain = before[:, :outputs]
        for k in range(size):
            chain = naive.fused_multiply_add(np.broadcast_to(numbers[:, k], chain.shape), inputs[:, k : k + 1], chain)
        exact = before[:, :outputs] + inputs[:, :size].astype(np.float64) @ numbers.T
        magnitude = np.abs(before[:, :outputs]) + np.abs(inputs[:, :size]).astype(np.float64) @ np.abs(numbers.T)
        for rows in range(1, 10):
            out = multiply(stored, inputs, rows, before, (0, blocks), offset=rows * 3)
            assert (np.abs(out[:rows, :outputs] - exact[:rows]) / magnitude[:rows]).max() < 1e-6
            assert out[:rows, :outputs].tobytes() == chain[:rows].tobytes()
            # Zeros are added in the padding, and nothing else is touched.
            assert np.array_equal(out[:rows, outputs:], before[:rows, outputs:])
            assert np.array_equal(out[rows:], before[rows:])
        for start, stop in ((0, 1), (blocks - 1, blocks), (blocks, blocks)):
            out_part = multiply(stored, inputs, 6, before, (start, stop))
            columns = slice(start * WIDTH, stop * WIDTH)
            assert (
                out_part[:6, columns].tobytes()
                == multiply(stored, inputs, 6, before, (0, blocks))[:6, columns].tobytes()
            )
            out_part[:, columns] = before[:, columns]
            assert np.array_equal(out_part, before)


def test_products_of_whole_numbers_are_exact() -> None:
    random = np.random.default_rng(0)
    for dtype in (np.float32, np.int8):
        weights = random.integers(-9, 10, (70, 140)).astype(dtype)
        inputs = random.integers(-9, 10, (5, 140)).astype(np.float32)
        out = multiply(weights, inputs, 5, np.zeros((5, 128), np.float32), (0, 2))
        assert np.array_equal(out[:, :70], inputs @ weights.T.astype(np.float32))


def test_packed_weights_stand_in_blocks_of_outputs() -> None:
    weights = np.arange(70 * 3, dtype=np.float32).reshape(70, 3)
    packed = pack(weights)
    assert packed.shape == (2, 3, 64)
    assert packed.flags.c_contiguous
    assert packed[0, 2, 5] == weights[5, 2]
    assert packed[1, 1, 5] == weights[69, 1]
    assert not packed[1, :, 6:].any()
    assert np.array_equal(packed.transpose(0, 2, 1).reshape(128, 3)[:70], weights)
