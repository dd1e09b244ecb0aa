"""Compiled activations: near to those of float64, and the same bits on every machine."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from chargen.kernels import decode_gates
from tests import naive


def call_each(function: Callable[..., Any], values: np.ndarray) -> np.ndarray:
    return np.array([function(value) for value in values], np.float32)


GRID = np.unique(
    np.concatenate(
        [
            np.linspace(-90, 90, 20_001),
            np.linspace(-1, 1, 8_001),
            *(sign * np.geomspace(1e-45, 1e38, 2_000) for sign in (-1, 1)),
            *(np.arange(-126, 127)[:, None] * math.log(2) + np.linspace(-0.5, 0.5, 11) * math.log(2)),
        ]
    ).astype(np.float32)
)


def test_exp_is_within_two_units_in_the_last_place() -> None:
    inside = GRID[np.abs(GRID) <= 87]
    results, exact = call_each(decode_gates.exp, inside), np.exp(inside.astype(np.float64))
    assert (np.abs(results - exact) / np.spacing(exact.astype(np.float32))).max() < 2
    assert decode_gates.exp(np.float32(0)) == decode_gates.exp(np.float32(-0.0)) == 1


def test_exp_beyond_its_limits_is_what_it_is_there() -> None:
    for sign in (-1, 1):
        limit = decode_gates.exp(np.float32(87 * sign))
        beyond = sign * np.array([np.nextafter(np.float32(87), np.float32(88)), 88, 89, 1e3, 3e38, np.inf], np.float32)
        assert np.array_equal(call_each(decode_gates.exp, beyond), np.full(6, limit))
        assert limit == pytest.approx(math.exp(87 * sign), rel=3e-7)
        assert limit != decode_gates.exp(np.nextafter(np.float32(87 * sign), np.float32(0)))


def test_sigmoid_and_tanh_are_those_of_float64() -> None:
    exact = GRID.astype(np.float64)
    sigmoids = 1 / (1 + np.exp(-np.maximum(exact, -700)))
    results = call_each(decode_gates.sigmoid, GRID)
    assert np.abs(results - sigmoids).max() < 1e-7
    assert (np.abs(results - sigmoids) / sigmoids)[GRID >= -87].max() < 3e-7
    assert ((results >= 0) & (results <= 1)).all()
    results = call_each(decode_gates.tanh, GRID)
    assert np.abs(results - np.tanh(exact)).max() < 2e-7
    assert (np.abs(results) <= 1).all()
    assert decode_gates.sigmoid(np.float32(0)) == 0.5
    assert decode_gates.tanh(np.float32(0)) == 0


def test_infinities_saturate_and_what_is_no_number_stays_none() -> None:
    infinity, nothing = np.float32(np.inf), np.float32(np.nan)
    assert decode_gates.tanh(infinity) == decode_gates.sigmoid(infinity) == 1
    assert decode_gates.tanh(-infinity) == -1
    assert 0 <= decode_gates.sigmoid(-infinity) < 2e-38
    for function in (decode_gates.exp, decode_gates.sigmoid, decode_gates.tanh):
        assert np.isnan(function(nothing))
        assert np.isnan(function(-nothing))
    many = np.full(37, np.nan, np.float32)  # whole vectors and a rest
    decode_gates.tanhs(many)
    assert np.isnan(many).all()
    decode_gates.sigmoids(many)
    assert np.isnan(many).all()


def test_activations_are_the_same_bits_alone_and_in_vectors() -> None:
    """Nothing is fused, reordered or left to a library: the bits are those of the operations as they are written."""
    unity = np.float32(1)
    with np.errstate(over="ignore"):
        exps, doubled = naive.exp(GRID), naive.exp(np.float32(2) * GRID)
    assert call_each(decode_gates.exp, GRID).tobytes() == exps.tobytes()
    for alone, together, expected in (
        (decode_gates.sigmoid, decode_gates.sigmoids, unity / (unity + naive.exp(-GRID))),
        (decode_gates.tanh, decode_gates.tanhs, unity - np.float32(2) / (unity + doubled)),
    ):
        assert call_each(alone, GRID).tobytes() == expected.tobytes()
        for size in (1, 15, 16, 17, len(GRID)):
            values = GRID[:size].copy()
            together(values)
            assert values.tobytes() == expected[:size].tobytes()


@pytest.mark.parametrize(("size", "start", "stop"), [(1, 0, 1), (13, 0, 13), (64, 0, 64), (192, 64, 192), (40, 3, 21)])
def test_gates_with_scales_are_those_of_float64(size: int, start: int, stop: int) -> None:
    """Those of some hidden units; the others do not change."""
    random = np.random.default_rng(size)
    part = slice(start, stop)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    input_sums, state_sums, input_scale, state_scale, bias = (draw(4 * size + 3) for _ in range(5))
    state, out = draw(2 * size), draw(size)
    before, out_before = state.copy(), out.copy()
    gates = (input_sums.astype(np.float64) * input_scale + state_sums * state_scale + bias)[: 4 * size].reshape(4, size)
    after, cell = naive.lstm_cell(gates, state[size:])
    decode_gates.lstm(input_sums.copy(), state_sums.copy(), input_scale, state_scale, bias, start, stop, state, out)
    assert np.abs(out - after)[part].max() < 2e-6
    assert np.abs(state[size:] - cell)[part].max() < 2e-6
    others = np.setdiff1d(np.arange(size), np.arange(start, stop))
    assert np.array_equal(out[others], out_before[others])
    assert np.array_equal(state[size + others], before[size + others])

    hidden, new_bias, out = draw(size), draw(size), draw(size)
    before, out_before = hidden.copy(), out.copy()
    summed = [values.astype(np.float64)[: 3 * size].reshape(3, size) for values in (input_sums, state_sums)]
    scales = [values[: 3 * size].reshape(3, size) for values in (input_scale, state_scale, bias)]
    states = summed[1] * scales[1] + np.stack([np.zeros(size), np.zeros(size), new_bias])
    after = naive.gru_cell(summed[0] * scales[0] + scales[2], states, hidden)
    decode_gates.gru(
        input_sums.copy(), state_sums.copy(), input_scale, state_scale, bias, new_bias, start, stop, hidden, out
    )
    assert np.abs(out - after)[part].max() < 2e-6
    assert np.array_equal(out[others], out_before[others])
    assert np.array_equal(hidden, before)
