"""Gates and activations of a single row, in loops that become vector code, which a library's exp would prevent."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.jit import compiled, native

_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # ln 2 in two parts; the first has few bits
_ROUND = np.float32(1.5 * 2**23)
"""Added to a small float32 it leaves the nearest whole number in the lowest bits."""
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / value) for value in (2, 6, 24, 120, 720, 5040))
_ONE, _TWO, _LIMIT = np.float32(1), np.float32(2), np.float32(87)


def _reinterpret(result: Any, form: Any) -> Any:
    def bits(typing_context: Any, value: Any) -> Any:
        return result(value), lambda context, builder, signature, arguments: builder.bitcast(arguments[0], form)

    return native(bits)


_to_int = _reinterpret(types.int32, ir.IntType(32))
_to_float = _reinterpret(types.float32, ir.FloatType())


@compiled
def exp(x: np.float32) -> np.float32:
    """e**x in float32 for x from -87 to 87, and what it is at these limits beyond; within 2 units in the last place.

    x = n ln 2 + r with whole n and |r| <= ln 2 / 2; e**r by its Taylor series, whose first term left out is below 6e-9.
    """
    x = -_LIMIT if x < -_LIMIT else x
    x = _LIMIT if x > _LIMIT else x  # not min and max: these would hide a NaN
    shifted = x * _LOG2_E + _ROUND
    whole = shifted - _ROUND
    r = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    series = _ONE + r * (_ONE + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7))))))
    power: np.float32 = _to_float(np.int32((_to_int(shifted) + 127) << 23))
    return series * power


@compiled
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + e**-x)."""
    return _ONE / (_ONE + exp(-x))


@compiled
def tanh(x: np.float32) -> np.float32:
    """The hyperbolic tangent, with an absolute error below 2e-7."""
    return _ONE - _TWO / (_ONE + exp(_TWO * x))


# Loops that touch few arrays: with many, a compiler does not prove that they are apart, and makes no vectors.


@compiled
def _add_up(
    entering: NDArray[np.float32], carried: NDArray[np.float32], scale_in: NDArray[np.float32],
    scale: NDArray[np.float32], bias: NDArray[np.float32],
) -> None:  # fmt: skip
    for j in range(len(bias)):
        entering[j] = entering[j] * scale_in[j] + carried[j] * scale[j] + bias[j]


@compiled
def sigmoids(values: NDArray[np.float32]) -> None:
    """Their sigmoids, in place."""
    for j in range(len(values)):
        values[j] = sigmoid(values[j])


@compiled
def tanhs(values: NDArray[np.float32]) -> None:
    """Their hyperbolic tangents, in place."""
    for j in range(len(values)):
        values[j] = tanh(values[j])


@compiled
def update_cell(
    enter: NDArray[np.float32], new: NDArray[np.float32], forget: NDArray[np.float32], cell: NDArray[np.float32]
) -> None:
    """Cell = enter * new + forget * cell."""
    for j in range(len(cell)):
        cell[j] = enter[j] * new[j] + forget[j] * cell[j]


@compiled
def gated_tanh(gate: NDArray[np.float32], cell: NDArray[np.float32], hidden: NDArray[np.float32]) -> None:
    """Hidden = gate * tanh(cell)."""
    for j in range(len(hidden)):
        hidden[j] = gate[j] * tanh(cell[j])


@compiled
def _reset(
    reset: NDArray[np.float32], carried: NDArray[np.float32], scale: NDArray[np.float32], bias: NDArray[np.float32]
) -> None:
    for j in range(len(carried)):
        carried[j] = reset[j] * (carried[j] * scale[j] + bias[j])


@compiled
def _renew(
    new: NDArray[np.float32], carried: NDArray[np.float32], scale_in: NDArray[np.float32], bias: NDArray[np.float32]
) -> None:
    for j in range(len(new)):
        new[j] = tanh(new[j] * scale_in[j] + bias[j] + carried[j])


@compiled
def blend(update: NDArray[np.float32], new: NDArray[np.float32], hidden: NDArray[np.float32]) -> None:
    """Hidden = (1 - update) * new + update * hidden."""
    for j in range(len(hidden)):
        hidden[j] = (_ONE - update[j]) * new[j] + update[j] * hidden[j]


@compiled
def lstm(
    entering: NDArray[np.float32], carried: NDArray[np.float32], scale_in: NDArray[np.float32],
    scale: NDArray[np.float32], bias: NDArray[np.float32], first: int, last: int, state: NDArray[np.float32],
    hidden: NDArray[np.float32],
) -> None:  # fmt: skip
    """An LSTM's hidden units from `first` up to `last`, from sums over inputs and over the state, which are used up.

    Args:
        entering, carried: (at least 4 H,), the sums; scale_in, scale, bias: of them.
        state: (2 H,), whose cells are updated.
        hidden: (H,), the outputs, of which these hidden units' are filled.
    """
    size = len(hidden)
    for gate in range(4):
        part = slice(gate * size + first, gate * size + last)
        _add_up(entering[part], carried[part], scale_in[part], scale[part], bias[part])
        if gate == 2:
            tanhs(entering[part])
        else:
            sigmoids(entering[part])
    forget, new = entering[size + first : size + last], entering[2 * size + first : 2 * size + last]
    update_cell(entering[first:last], new, forget, state[size + first : size + last])
    gated_tanh(entering[3 * size + first : 3 * size + last], state[size + first : size + last], hidden[first:last])


@compiled
def gru(
    entering: NDArray[np.float32], carried: NDArray[np.float32], scale_in: NDArray[np.float32],
    scale: NDArray[np.float32], bias: NDArray[np.float32], new_bias: NDArray[np.float32], first: int, last: int,
    state: NDArray[np.float32], hidden: NDArray[np.float32],
) -> None:  # fmt: skip
    """A GRU's hidden units: sums (at least 3 H,); `new_bias` (H,) is inside the reset; `state` (H,) is that before."""
    size = len(hidden)
    for gate in range(2):
        part = slice(gate * size + first, gate * size + last)
        _add_up(entering[part], carried[part], scale_in[part], scale[part], bias[part])
        sigmoids(entering[part])
    new = slice(2 * size + first, 2 * size + last)
    _reset(entering[first:last], carried[new], scale[new], new_bias[first:last])
    _renew(entering[new], carried[new], scale_in[new], bias[new])
    hidden[first:last] = state[first:last]
    blend(entering[size + first : size + last], entering[new], hidden[first:last])
