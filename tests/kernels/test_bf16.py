"""Numbers as bf16 bits: rounded as torch rounds them."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.kernels import bf16, bf16_ir
from chargen.kernels.jit import compiled
from tests import naive

HIGH = np.arange(2**16, dtype=np.uint32) << 16
EDGES = np.concatenate([HIGH | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]).view(np.float32)
"""Around every bf16 number: itself, all ties, and what lies right beside them; subnormals, infinities and NaN too."""


@compiled
def stored(values: Any, dtype: Any = np.uint16) -> Any:
    bits = np.empty(len(values), dtype)
    for n in range(len(values)):
        bits[n] = bf16_ir.to_stored(bits, values[n])
    return bits


@compiled
def loaded(elements: Any) -> Any:
    values = np.empty(len(elements), np.float32)
    for n in range(len(elements)):
        values[n] = bf16_ir.to_float(elements[n])
    return values


@given(st.integers(0, 2**32))
def test_numbers_are_rounded_as_torch_rounds_them(seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 2**32, 10_000, np.uint32).view(np.float32)
    for values in (drawn, EDGES):
        finite, no_number = np.isfinite(values), np.isnan(values)
        assert (stored(values)[~no_number] == naive.bf16_bits(values)[~no_number]).all()
        assert (bf16.to_bits(values[finite]) == naive.bf16_bits(values[finite])).all()
        assert np.isnan(loaded(stored(values))[no_number]).all()
        assert (loaded(stored(values, np.float32)).view(np.uint32) == values.view(np.uint32)).all()


def test_bf16_bits_are_the_upper_half_of_a_float32() -> None:
    assert (loaded(np.arange(2**16, dtype=np.uint16)).view(np.uint32) == HIGH).all()


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (1 + 2**-8, 0x3F80),  # a tie, to even
        (1 + 3 * 2**-8, 0x3F82),  # a tie, to even upwards
        (1 + 2**-8 + 2**-23, 0x3F81),
        (-0.0, 0x8000),
        (2.0**-133, 0x0001),  # the smallest subnormal
        (2.0**-134, 0x0000),
        (3 * 2.0**-134, 0x0002),
        (3.4028234e38, 0x7F80),  # the largest float32 is nearer to infinity
        (3.3895314e38, 0x7F7F),
        (-math.inf, 0xFF80),
    ],
)
def test_examples_of_rounding(value: float, bits: int) -> None:
    values = np.array([value], np.float32)
    assert stored(values)[0] == bits
    if math.isfinite(value):
        assert bf16.to_bits(values)[0] == bits
