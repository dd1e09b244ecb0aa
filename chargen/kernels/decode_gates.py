"""Gates and activations of a single row, in loops that compilers make vector code of: no library's exp is called."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from chargen.kernels.bf16 import Floats
from chargen.kernels.jit import compiled, native

_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # ln 2 in two parts; the first has few bits
_ROUND = np.float32(1.5 * 2**23)
"""Added to a small float32, it leaves the nearest whole number in the lowest bits."""
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / value) for value in (2, 6, 24, 120, 720, 5040))
_ONE, _TWO, _LIMIT = np.float32(1), np.float32(2), np.float32(87)


def _make_bitcast(result_type: Any, ir_type: Any) -> Any:
    def bitcast(typing_context: Any, value: Any) -> Any:
        return result_type(value), lambda context, builder, signature, arguments: builder.bitcast(arguments[0], ir_type)

    return native(bitcast)


_to_int = _make_bitcast(types.int32, ir.IntType(32))
_to_float = _make_bitcast(types.float32, ir.FloatType())


@compiled
def exp(x: np.float32) -> np.float32:
    """Compute e**x in float32, within 2 ulp.

    x = n ln 2 + r with whole n and |r| <= ln 2 / 2; e**r by its Taylor series, whose first omitted term is below 6e-9.

    Args:
        x: is limited to -87 to 87; a NaN stays a NaN.
    """
    x = -_LIMIT if x < -_LIMIT else x
    x = _LIMIT if x > _LIMIT else x  # not min and max: these would hide a NaN
    shifted = x * _LOG2_E + _ROUND
    rounded = shifted - _ROUND
    r = (x - rounded * _LN2_HIGH) - rounded * _LN2_LOW
    series = _ONE + r * (_ONE + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7))))))
    power: np.float32 = _to_float(np.int32((_to_int(shifted) + 127) << 23))
    return series * power


@compiled
def sigmoid(x: np.float32) -> np.float32:
    """Compute 1 / (1 + e**-x).

    Args:
        x: any number.
    """
    return _ONE / (_ONE + exp(-x))


@compiled
def tanh(x: np.float32) -> np.float32:
    """Compute the hyperbolic tangent, with an absolute error below 2e-7.

    Args:
        x: any number.
    """
    return _ONE - _TWO / (_ONE + exp(_TWO * x))


# Each loop touches few arrays: with many, a compiler cannot prove that they do not overlap, and makes no vector code.


@compiled
def _add_scaled(input_sums: Floats, state_sums: Floats, input_scale: Floats, state_scale: Floats, bias: Floats) -> None:
    for j in range(len(bias)):
        input_sums[j] = input_sums[j] * input_scale[j] + state_sums[j] * state_scale[j] + bias[j]


@compiled
def sigmoids(values: Floats) -> None:
    """Replace values by their sigmoids.

    Args:
        values: (N,).
    """
    for j in range(len(values)):
        values[j] = sigmoid(values[j])


@compiled
def tanhs(values: Floats) -> None:
    """Replace values by their hyperbolic tangents.

    Args:
        values: (N,).
    """
    for j in range(len(values)):
        values[j] = tanh(values[j])


@compiled
def update_cell(enter: Floats, new: Floats, forget: Floats, cell: Floats) -> None:
    """Compute cell = enter * new + forget * cell, in place.

    Args:
        enter: (N,), the input gate.
        new: (N,), the new values.
        forget: (N,), the forget gate.
        cell: (N,), overwritten.
    """
    for j in range(len(cell)):
        cell[j] = enter[j] * new[j] + forget[j] * cell[j]


@compiled
def gated_tanh(gate: Floats, cell: Floats, hidden: Floats) -> None:
    """Compute hidden = gate * tanh(cell).

    Args:
        gate: (N,), the output gate.
        cell: (N,).
        hidden: (N,), overwritten.
    """
    for j in range(len(hidden)):
        hidden[j] = gate[j] * tanh(cell[j])


@compiled
def _reset_state_sums(reset: Floats, state_sums: Floats, scale: Floats, bias: Floats) -> None:
    for j in range(len(state_sums)):
        state_sums[j] = reset[j] * (state_sums[j] * scale[j] + bias[j])


@compiled
def _update_new(new: Floats, state_sums: Floats, scale: Floats, bias: Floats) -> None:
    for j in range(len(new)):
        new[j] = tanh(new[j] * scale[j] + bias[j] + state_sums[j])


@compiled
def blend(update: Floats, new: Floats, hidden: Floats) -> None:
    """Compute hidden = (1 - update) * new + update * hidden, in place.

    Args:
        update: (N,), the update gate.
        new: (N,), the new values.
        hidden: (N,), overwritten.
    """
    for j in range(len(hidden)):
        hidden[j] = (_ONE - update[j]) * new[j] + update[j] * hidden[j]


@compiled
def lstm(
    input_sums: Floats, state_sums: Floats, input_scale: Floats, state_scale: Floats, bias: Floats, start: int,
    stop: int, state: Floats, hidden: Floats,
) -> None:  # fmt: skip
    """Compute some hidden units of an LSTM for one character of one row.

    Args:
        input_sums: (at least 4 H,), sums over the inputs; overwritten.
        state_sums: (at least 4 H,), sums over the state; overwritten.
        input_scale: (at least 4 H,), factors of `input_sums`.
        state_scale: (at least 4 H,), factors of `state_sums`.
        bias: (at least 4 H,), added to the scaled sums.
        start: the first hidden unit to compute.
        stop: the hidden unit to stop before.
        state: (2 H,), hidden state and cell; the cell is updated.
        hidden: (H,), filled with the new hidden state of these hidden units.
    """
    size = len(hidden)
    for gate in range(4):
        part = slice(gate * size + start, gate * size + stop)
        _add_scaled(input_sums[part], state_sums[part], input_scale[part], state_scale[part], bias[part])
        if gate == 2:
            tanhs(input_sums[part])
        else:
            sigmoids(input_sums[part])
    forget, new = input_sums[size + start : size + stop], input_sums[2 * size + start : 2 * size + stop]
    update_cell(input_sums[start:stop], new, forget, state[size + start : size + stop])
    gated_tanh(input_sums[3 * size + start : 3 * size + stop], state[size + start : size + stop], hidden[start:stop])


@compiled
def gru(
    input_sums: Floats, state_sums: Floats, input_scale: Floats, state_scale: Floats, bias: Floats, new_bias: Floats,
    start: int, stop: int, state: Floats, hidden: Floats,
) -> None:  # fmt: skip
    """Compute some hidden units of a GRU for one character of one row.

    Args:
        input_sums: (at least 3 H,), sums over the inputs; overwritten.
        state_sums: (at least 3 H,), sums over the state; overwritten.
        input_scale: (at least 3 H,), factors of `input_sums`.
        state_scale: (at least 3 H,), factors of `state_sums`.
        bias: (at least 3 H,), added to the scaled sums.
        new_bias: (H,), added to the new gate's sums over the state, which the reset gate multiplies.
        start: the first hidden unit to compute.
        stop: the hidden unit to stop before.
        state: (H,), the hidden state before.
        hidden: (H,), filled with the new hidden state of these hidden units.
    """
    size = len(hidden)
    for gate in range(2):
        part = slice(gate * size + start, gate * size + stop)
        _add_scaled(input_sums[part], state_sums[part], input_scale[part], state_scale[part], bias[part])
        sigmoids(input_sums[part])
    new_part = slice(2 * size + start, 2 * size + stop)
    _reset_state_sums(input_sums[start:stop], state_sums[new_part], state_scale[new_part], new_bias[start:stop])
    _update_new(input_sums[new_part], state_sums[new_part], input_scale[new_part], bias[new_part])
    hidden[start:stop] = state[start:stop]
    blend(input_sums[size + start : size + stop], input_sums[new_part], hidden[start:stop])
