"""Formulas that became machine code agree with the same formulas on arrays."""

import numpy as np
import pytest

from chargen.kernels import cells
from chargen.kernels.bits import to_bits
from chargen.kernels.compiled import compiled
from chargen.kernels.vectors import fuse, sigmoid, tanh

ONE = fuse(lambda x: (sigmoid(x), tanh(x), x, -1 * x + 0.5), "f", "ffwf")


@compiled
def one(source, target, bits):
    at = source.ctypes.data
    ONE(bits, (at, target.ctypes.data, target.ctypes.data + 128, bits.ctypes.data, target.ctypes.data + 256))


def apply(values):
    target, bits = np.empty((3, 32), np.float32), np.empty(32, np.uint16)
    one(values, target, bits)
    return *target, bits


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 10.0, 60.0, 1e4, 3e38])
def test_gates_are_exact_to_the_last_digits(scale):
    values = np.linspace(-scale, scale, 32, dtype=np.float32)
    found_sigmoid, found_tanh, line, bits = apply(values)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found_sigmoid, 1 / (1 + np.exp(-values.astype(np.float64))), rtol=3e-7, atol=1e-37)
    np.testing.assert_allclose(found_tanh, np.tanh(values.astype(np.float64)), atol=3e-7)
    assert (bits == to_bits(values)).all()
    np.testing.assert_allclose(line, 0.5 - values)


@pytest.mark.parametrize("at", [0, 15, 16, 31])
def test_what_is_not_a_number_stays_so_and_touches_nothing_else(at):
    values = np.zeros(32, np.float32)
    values[at] = np.nan
    for found in apply(values)[:2]:
        assert np.isnan(found).nonzero()[0].tolist() == [at]
    values[at] = np.inf
    found_sigmoid, found_tanh, _, bits = apply(values)
    assert (found_sigmoid[at], found_tanh[at], bits[at]) == (1, 1, 0x7F80)
    values[at] = -np.inf
    found_sigmoid, found_tanh, _, bits = apply(values)
    assert (found_tanh[at], bits[at]) == (-1, 0xFF80)
    assert found_sigmoid[at] < 1e-37


FORMULAS = [
    (cells.lstm_unit, 13, 8),
    (cells.lstm_unit_gradient, 9, 9),
    (cells.gru_unit, 11, 7),
    (cells.gru_unit_gradient, 8, 8),
    (cells.gru_unit_gradient_in_rows, 8, 8),
]


@pytest.mark.parametrize(("formula", "reads", "writes"), FORMULAS)
def test_each_formula_is_the_same_on_vectors_and_on_arrays(formula, reads, writes):
    fused = fuse(formula, "f" * reads, "f" * writes)

    @compiled
    def run(arrays, addresses):
        fused(arrays, addresses)

    arrays = np.zeros((reads + writes, 32), np.float32)
    arrays[:reads] = np.random.default_rng(0).standard_normal((reads, 32))
    expected = formula(*arrays[:reads].astype(np.float64))
    run(arrays, tuple(int(row.ctypes.data) for row in arrays))
    for found, wanted in zip(arrays[reads:], expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=1e-6)
