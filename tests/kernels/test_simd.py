"""Formulas that became machine code agree with the same formulas on arrays."""

import numpy as np
import pytest

from chargen.kernels import train_gates
from chargen.kernels.bf16 import to_bits
from chargen.kernels.jit import compiled
from chargen.kernels.simd import fuse, sigmoid, tanh

FUSED = fuse(lambda x: (sigmoid(x), tanh(x), x, -1 * x + 0.5), "f", "ffwf")


@compiled
def run_fused(source, target, bits):
    in_ptr = source.ctypes.data
    FUSED(bits, (in_ptr, target.ctypes.data, target.ctypes.data + 128, bits.ctypes.data, target.ctypes.data + 256))


def apply(values):
    target, bits = np.empty((3, 32), np.float32), np.empty(32, np.uint16)
    run_fused(values, target, bits)
    return *target, bits


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 10.0, 60.0, 1e4, 3e38])
def test_gates_are_exact_to_the_last_digits(scale):
    values = np.linspace(-scale, scale, 32, dtype=np.float32)
    sigmoids, tanhs, line, bits = apply(values)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(sigmoids, 1 / (1 + np.exp(-values.astype(np.float64))), rtol=3e-7, atol=1e-37)
    np.testing.assert_allclose(tanhs, np.tanh(values.astype(np.float64)), atol=3e-7)
    assert (bits == to_bits(values)).all()
    np.testing.assert_allclose(line, 0.5 - values)


@pytest.mark.parametrize("at", [0, 15, 16, 31])
def test_what_is_not_a_number_stays_so_and_touches_nothing_else(at):
    values = np.zeros(32, np.float32)
    values[at] = np.nan
    for result in apply(values)[:2]:
        assert np.isnan(result).nonzero()[0].tolist() == [at]
    values[at] = np.inf
    sigmoids, tanhs, _, bits = apply(values)
    assert (sigmoids[at], tanhs[at], bits[at]) == (1, 1, 0x7F80)
    values[at] = -np.inf
    sigmoids, tanhs, _, bits = apply(values)
    assert (tanhs[at], bits[at]) == (-1, 0xFF80)
    assert sigmoids[at] < 1e-37


FORMULAS = [
    (train_gates.lstm, (4, 4, 4, 1, 1), (4, 1, 1)),
    (train_gates.lstm_gradient, (4, 1, 1, 1, 1, 1), (4, 1)),
    (train_gates.gru, (3, 3, 4, 1, 1), (3, 1, 1)),
    (train_gates.gru_gradient, (3, 1, 1, 1, 1, 1), (4, 1)),
]


@pytest.mark.parametrize(("formula", "reads", "writes"), FORMULAS)
def test_each_formula_is_the_same_on_vectors_and_on_arrays(formula, reads, writes):
    fused = fuse(formula, *(tuple("f" * size for size in sizes) for sizes in (reads, writes)))

    @compiled
    def run(arrays, places):
        fused(arrays, places)

    arrays = np.zeros((sum(reads) + sum(writes), 32), np.float32)
    arrays[: sum(reads)] = np.random.default_rng(0).standard_normal((sum(reads), 32))
    groups = np.split(arrays, np.cumsum((*reads, *writes))[:-1])
    values = [group.astype(np.float64) for group in groups[: len(reads)]]
    expected = formula(*(tuple(group) if len(group) > 1 else group[0] for group in values))
    # Vectors of a group lie apart, wherever it is; where it is only one, its address is enough.
    run(arrays, tuple((int(group.ctypes.data), 128) if len(group) > 1 else int(group.ctypes.data) for group in groups))
    for result, wanted in zip(groups[len(reads) :], expected, strict=True):
        np.testing.assert_allclose(result, np.reshape(wanted, result.shape), atol=1e-6, rtol=1e-6)


def test_a_group_may_be_of_any_size():
    """Of no vector, of a single one with a stride, and of several, backwards."""
    fused = fuse(lambda none, single, many: (none, (single,), many[::-1]), ("", "f", "fff"), ("", "f", "www"))

    @compiled
    def run(source, target):
        in_ptr, out_ptr = source.ctypes.data, target.ctypes.data
        fused(target, ((in_ptr, 0), (in_ptr, 77), (in_ptr + 128, 128), (out_ptr, 0), out_ptr, (out_ptr + 384, -128)))

    source = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    target = np.zeros((4, 32), np.float32)
    run(source, target)
    np.testing.assert_array_equal(target, source)
