"""Recurrent layers over whole windows, forward and backward, with bf16 products and everything else in float32.

Each function computes the rows from `first` up to `last` for all T characters; time comes first in all arrays. Sums
over a layer's inputs come as one product made before, and gradients of weights are left to one product made afterwards.
So what is repeated T times is, for every 32 units, the product of the state with their weights, and then all the rest
at once while the sums are still in the fastest cache. Sizes: B rows, of which last - first are filled up to M; H hidden
units; B aside, all are multiples of 32.

Equations as in PyTorch's LSTM and GRU; backward: Hochreiter and Schmidhuber (1997), with full gradients.
"""

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.compiled import compiled
from chargen.kernels.tiles import SIDE, from_bits, leave_units, multiply, store, use_units
from chargen.kernels.vectors import Values, fuse, sigmoid, tanh, transpose

Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]
Results = tuple[Values, ...]
_SQUARE = SIDE * SIDE
"""Elements of the sums of 32 rows and 32 units."""
_APART = 8
"""Totals that are kept apart, so that no addition waits for the one before."""


def lstm_unit(
    enter: Values, forget: Values, new: Values, leave: Values, carried_enter: Values, carried_forget: Values,
    carried_new: Values, carried_leave: Values, bias_enter: Values, bias_forget: Values, bias_new: Values,
    bias_leave: Values, cell: Values,
) -> Results:  # fmt: skip
    """Sums over inputs, over the state, biases and the cell before -> gates, cell, and the output three times."""
    enter, forget = sigmoid(enter + carried_enter + bias_enter), sigmoid(forget + carried_forget + bias_forget)
    new, leave = tanh(new + carried_new + bias_new), sigmoid(leave + carried_leave + bias_leave)
    cell = forget * cell + enter * new
    out = leave * tanh(cell)
    return enter, forget, new, leave, cell, out, out, out


def lstm_unit_gradient(
    enter: Values, forget: Values, new: Values, leave: Values, before: Values, cell: Values, coming: Values,
    carried: Values, of_cell: Values,
) -> Results:  # fmt: skip
    """Gates, cells before and after, and gradients of the output (of two kinds) and of the cell -> gradients of the
    gates' sums twice, and that of the cell before.
    """
    out, squashed = coming + carried, tanh(cell)
    of_cell = of_cell + out * leave * (1 - squashed * squashed)
    through = of_cell * enter
    sums = (
        through * new * (1 - enter),
        of_cell * forget * before * (1 - forget),
        through * (1 - new * new),
        out * squashed * leave * (1 - leave),
    )
    return *sums, *sums, of_cell * forget


def gru_unit(
    reset: Values, update: Values, new: Values, carried_reset: Values, carried_update: Values, carried_new: Values,
    bias_reset: Values, bias_update: Values, bias_new: Values, inner_bias: Values, hidden: Values,
) -> Results:  # fmt: skip
    """Sums over inputs, over the state, biases and the state before -> gates, what the reset gate acts on, and the
    output three times.
    """
    reset, update = sigmoid(reset + carried_reset + bias_reset), sigmoid(update + carried_update + bias_update)
    inner = carried_new + inner_bias
    new = tanh(new + bias_new + reset * inner)
    out = new + update * (hidden - new)
    return reset, update, new, inner, out, out, out


def gru_unit_gradient(
    reset: Values, update: Values, new: Values, inner: Values, before: Values, coming: Values, carried: Values,
    direct: Values,
) -> Results:  # fmt: skip
    """Gates, what the reset gate acted on, the state before, gradients of the output (of three kinds) -> gradients of
    the gates' sums, of the same over the state, of the new state's sum, and what goes straight to the state before.
    """
    out = coming + carried + direct
    of_new = out * (1 - update) * (1 - new * new)
    of_update = out * (before - new) * update * (1 - update)
    of_inner = of_new * reset
    of_reset = of_inner * inner * (1 - reset)
    return of_reset, of_update, of_new, of_reset, of_update, of_inner, of_new, out * update


_lstm_unit = fuse(lstm_unit, "bbbbfffffffff", "bbbbffbb")
_lstm_unit_gradient = fuse(lstm_unit_gradient, "bbbbffbff", "bbbbbbbbf")
_gru_unit = fuse(gru_unit, "bbbffffffff", "bbbbfbb")
_gru_unit_gradient = fuse(gru_unit_gradient, "bbbbbbff", "bbbbbbbf")
_add = fuse(lambda total, more: (total + more,), "fb", "f")


@compiled
def _enter(hidden: Floats, first: int, last: int, left: Bits) -> None:
    """States (B, H) as the left side of a product."""
    for row in range(first, last):
        for block in range(hidden.shape[1] // SIDE):
            store(hidden[row, block * SIDE : (block + 1) * SIDE], left[block, row - first])


@compiled
def lstm_forward(
    settings: NDArray[np.uint8], weights: Bits, bias: Floats, gates: Bits, hidden: Floats, cells: Floats,
    outputs: Bits, first: int, last: int, left: Bits, sums: Floats,
) -> None:  # fmt: skip
    """Run an LSTM.

    Args:
        settings: as for `use_units`.
        weights: recurrent ones, packed (H, 4 H).
        bias: (4 H,), both together.
        gates: (T, B, 4 H), sums over inputs; become activations.
        hidden: (B, H), the state before; becomes that after.
        cells: (T + 1, B, H), whose first are given and whose others are filled.
        outputs: (T, B, H), are filled.
        left, sums: (2, H / 32, M, 32) zeros, and (4, 32, 32): room to compute in.
    """
    turns, rows, size = outputs.shape
    blocks, filled = left.shape[1], left.shape[2]
    weights_at, bias_at, gates_at, hidden_at = (
        weights.ctypes.data, bias.ctypes.data, gates.ctypes.data, hidden.ctypes.data
    )  # fmt: skip
    cells_at, outputs_at, left_at, sums_at = (
        cells.ctypes.data, outputs.ctypes.data, left.ctypes.data, sums.ctypes.data
    )  # fmt: skip
    _enter(hidden, first, last, left[0])
    use_units(settings)
    for turn in range(turns):
        now, following = left_at + turn % 2 * filled * size * 2, left_at + (turn + 1) % 2 * filled * size * 2
        for block in range(blocks):
            for group in range(0, filled, SIDE):
                for gate in range(4):
                    packed = weights_at + (gate * blocks + block) * size * SIDE * 2
                    multiply(now + group * SIDE * 2, filled * SIDE * 2, packed, sums_at + gate * _SQUARE * 4, blocks)
                for place in range(group, min(group + SIDE, last - first)):
                    unit = (turn * rows + first + place) * size + block * SIDE
                    g = gates_at + ((turn * rows + first + place) * size + block * SIDE) * 8
                    s, b = sums_at + (place - group) * SIDE * 4, bias_at + block * SIDE * 4
                    _lstm_unit((
                        g, g + SIDE * 2, g + SIDE * 4, g + SIDE * 6,
                        s, s + _SQUARE * 4, s + _SQUARE * 8, s + _SQUARE * 12,
                        b, b + size * 4, b + size * 8, b + size * 12,
                        cells_at + unit * 4,
                        g, g + SIDE * 2, g + SIDE * 4, g + SIDE * 6,
                        cells_at + (unit + rows * size) * 4,
                        hidden_at + ((first + place) * size + block * SIDE) * 4,
                        outputs_at + unit * 2,
                        following + (block * filled + place) * SIDE * 2,
                    ))  # fmt: skip
    leave_units()


@compiled
def lstm_backward(
    settings: NDArray[np.uint8], weights: Bits, gates: Bits, cells: Floats, gradient: Bits, dc: Floats,
    transposed: Bits, first: int, last: int, left: Bits, sums: Floats,
) -> None:  # fmt: skip
    """The gradients of an LSTM's sums.

    Args:
        weights: recurrent ones, packed (4 H, H).
        gates, cells: what `lstm_forward` left; `gates` become the gradients of their sums.
        gradient: (T, B, H), of the outputs.
        dc: (B, H), gradient of the cells after; becomes that of those before.
        transposed: (4 H, T B), rows apart or not, is filled with the gradients of the gates' sums too.
        left: (2, 4 H / 32, M, 32) zeros, room to compute in.
        sums: (H / 32, M, 32), gradient of the state after; becomes that of the state before.
    """
    turns, rows, size = gradient.shape
    blocks, filled, step = sums.shape[0], sums.shape[1], transposed.strides[0]
    weights_at, gates_at, cells_at, gradient_at = (
        weights.ctypes.data, gates.ctypes.data, cells.ctypes.data, gradient.ctypes.data
    )  # fmt: skip
    dc_at, transposed_at, left_at, sums_at = (
        dc.ctypes.data, transposed.ctypes.data, left.ctypes.data, sums.ctypes.data
    )  # fmt: skip
    use_units(settings)
    for turn in range(turns - 1, -2, -1):
        now, following = left_at + turn % 2 * filled * size * 8, left_at + (turn + 1) % 2 * filled * size * 8
        for block in range(blocks):
            for group in range(0, filled, SIDE):
                if turn < turns - 1:
                    packed = weights_at + block * size * SIDE * 8
                    found = sums_at + (block * filled + group) * SIDE * 4
                    multiply(now + group * SIDE * 2, filled * SIDE * 2, packed, found, 4 * blocks)
                if turn < 0:
                    continue
                for place in range(group, min(group + SIDE, last - first)):
                    row = first + place
                    unit = (turn * rows + row) * size + block * SIDE
                    g = gates_at + ((turn * rows + row) * size + block * SIDE) * 8
                    to, gate = following + (block * filled + place) * SIDE * 2, filled * size * 2
                    cell = dc_at + (row * size + block * SIDE) * 4
                    _lstm_unit_gradient((
                        g, g + SIDE * 2, g + SIDE * 4, g + SIDE * 6,
                        cells_at + unit * 4,
                        cells_at + (unit + rows * size) * 4,
                        gradient_at + unit * 2,
                        sums_at + (block * filled + place) * SIDE * 4,
                        cell,
                        g, g + SIDE * 2, g + SIDE * 4, g + SIDE * 6,
                        to, to + gate, to + 2 * gate, to + 3 * gate,
                        cell,
                    ))  # fmt: skip
                for gate in range(4):
                    source = following + ((gate * blocks + block) * filled + group) * SIDE * 2
                    target = transposed_at + (gate * size + block * SIDE) * step + (turn * rows + first + group) * 2
                    count = min(SIDE, last - first - group)
                    transpose(source, target, step, count)
    leave_units()


@compiled
def gru_forward(
    settings: NDArray[np.uint8], weights: Bits, bias: Floats, inner_bias: Floats, gates: Bits, hidden: Floats,
    outputs: Bits, inner: Bits, first: int, last: int, left: Bits, sums: Floats,
) -> None:  # fmt: skip
    """Run a GRU.

    Args:
        settings: as for `use_units`.
        weights: recurrent ones, packed (H, 3 H).
        bias: (3 H,), outside the reset; inner_bias: (H,), inside it.
        gates: (T, B, 3 H), sums over inputs; become activations.
        hidden: (B, H), the state before; becomes that after.
        outputs, inner: (T, B, H), are filled; the latter with what the reset gate acts on.
        left, sums: (2, H / 32, M, 32) zeros, and (3, 32, 32): room to compute in.
    """
    turns, rows, size = outputs.shape
    blocks, filled = left.shape[1], left.shape[2]
    weights_at, bias_at, inner_bias_at, gates_at = (
        weights.ctypes.data, bias.ctypes.data, inner_bias.ctypes.data, gates.ctypes.data
    )  # fmt: skip
    hidden_at, outputs_at, inner_at, left_at, sums_at = (
        hidden.ctypes.data, outputs.ctypes.data, inner.ctypes.data, left.ctypes.data, sums.ctypes.data
    )  # fmt: skip
    _enter(hidden, first, last, left[0])
    use_units(settings)
    for turn in range(turns):
        now, following = left_at + turn % 2 * filled * size * 2, left_at + (turn + 1) % 2 * filled * size * 2
        for block in range(blocks):
            for group in range(0, filled, SIDE):
                for gate in range(3):
                    packed = weights_at + (gate * blocks + block) * size * SIDE * 2
                    multiply(now + group * SIDE * 2, filled * SIDE * 2, packed, sums_at + gate * _SQUARE * 4, blocks)
                for place in range(group, min(group + SIDE, last - first)):
                    unit = (turn * rows + first + place) * size + block * SIDE
                    g = gates_at + ((turn * rows + first + place) * size + block * SIDE) * 6
                    s, b = sums_at + (place - group) * SIDE * 4, bias_at + block * SIDE * 4
                    state = hidden_at + ((first + place) * size + block * SIDE) * 4
                    _gru_unit((
                        g, g + SIDE * 2, g + SIDE * 4,
                        s, s + _SQUARE * 4, s + _SQUARE * 8,
                        b, b + size * 4, b + size * 8,
                        inner_bias_at + block * SIDE * 4,
                        state,
                        g, g + SIDE * 2, g + SIDE * 4,
                        inner_at + unit * 2,
                        state,
                        outputs_at + unit * 2,
                        following + (block * filled + place) * SIDE * 2,
                    ))  # fmt: skip
    leave_units()


@compiled
def gru_backward(
    settings: NDArray[np.uint8], weights: Bits, gates: Bits, inner: Bits, states: Bits, gradient: Bits,
    direct: Floats, transposed: Bits, first: int, last: int, left: Bits, sums: Floats,
) -> None:  # fmt: skip
    """The gradients of a GRU's sums.

    Args:
        weights: recurrent ones, packed (3 H, H).
        gates, inner: what `gru_forward` left; `gates` become the gradients of their sums over inputs.
        states: (T, B, H), before each character.
        gradient: (T, B, H), of the outputs.
        direct: (B, H) zeros, become a part of the gradient of the state before.
        transposed: (4 H, T B), rows apart or not, is filled with gradients of the sums: of new states, reset and update
            gates, and of what the reset gate acts on.
        left: (2, 3 H / 32, M, 32) zeros, room to compute in.
        sums: (H / 32, M, 32), gradient of the state after; becomes the other part of that of the state before.
    """
    turns, rows, size = gradient.shape
    blocks, filled, step = sums.shape[0], sums.shape[1], transposed.strides[0]
    weights_at, gates_at, inner_at, states_at = (
        weights.ctypes.data, gates.ctypes.data, inner.ctypes.data, states.ctypes.data
    )  # fmt: skip
    gradient_at, direct_at, transposed_at, left_at, sums_at = (
        gradient.ctypes.data, direct.ctypes.data, transposed.ctypes.data, left.ctypes.data, sums.ctypes.data
    )  # fmt: skip
    new = np.zeros(_SQUARE, np.uint16)
    new_at = new.ctypes.data
    use_units(settings)
    for turn in range(turns - 1, -2, -1):
        now, following = left_at + turn % 2 * filled * size * 6, left_at + (turn + 1) % 2 * filled * size * 6
        for block in range(blocks):
            for group in range(0, filled, SIDE):
                if turn < turns - 1:
                    packed = weights_at + block * size * SIDE * 6
                    found = sums_at + (block * filled + group) * SIDE * 4
                    multiply(now + group * SIDE * 2, filled * SIDE * 2, packed, found, 3 * blocks)
                if turn < 0:
                    continue
                for place in range(group, min(group + SIDE, last - first)):
                    row = first + place
                    unit = (turn * rows + row) * size + block * SIDE
                    g = gates_at + ((turn * rows + row) * size + block * SIDE) * 6
                    to, gate = following + (block * filled + place) * SIDE * 2, filled * size * 2
                    straight = direct_at + (row * size + block * SIDE) * 4
                    _gru_unit_gradient((
                        g, g + SIDE * 2, g + SIDE * 4,
                        inner_at + unit * 2,
                        states_at + unit * 2,
                        gradient_at + unit * 2,
                        sums_at + (block * filled + place) * SIDE * 4,
                        straight,
                        g, g + SIDE * 2, g + SIDE * 4,
                        to, to + gate, to + 2 * gate,
                        new_at + (place - group) * SIDE * 2,
                        straight,
                    ))  # fmt: skip
                count = min(SIDE, last - first - group)
                target = transposed_at + block * SIDE * step + (turn * rows + first + group) * 2
                transpose(new_at, target, step, count)
                for gate in range(3):
                    source = following + ((gate * blocks + block) * filled + group) * SIDE * 2
                    target += size * step
                    transpose(source, target, step, count)
    leave_units()


@compiled
def sums_over_time(transposed: Bits, first: int, last: int, out: Floats) -> None:
    """The sums of each row of bf16 bits (N, M) from `first` up to `last`, into `out` (N,)."""
    columns = transposed.shape[1]
    totals = np.empty(_APART * SIDE, np.float32)
    for row in range(first, last):
        totals[:] = 0
        row_at = transposed.ctypes.data + row * transposed.strides[0]
        for block in range(columns // SIDE):
            total = totals.ctypes.data + block % _APART * SIDE * 4
            _add((total, row_at + block * SIDE * 2, total))
        found = totals.sum()
        for column in range(columns // SIDE * SIDE, columns):
            found += from_bits(transposed[row, column])
        out[row] = found


def pad(size: int) -> int:
    """The next multiple of 32."""
    return -(-size // SIDE) * SIDE
