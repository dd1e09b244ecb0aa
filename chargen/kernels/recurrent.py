"""Recurrent layers over whole windows, forward and backward, with bf16 products and everything else in float32.

Each function computes the rows from `first` up to `last` for all T characters; time comes first in all arrays. Sums
over a layer's inputs come as one product made before, and gradients of weights are left to one product made afterwards.
So what is repeated T times is one product of `tiles` and the gates. Sizes: B rows, H hidden units, filled up to P, a
multiple of 32, and last - first filled up to M.

Equations as in PyTorch's LSTM and GRU; backward: Hochreiter and Schmidhuber (1997), with full gradients.
"""

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.compiled import compiled
from chargen.kernels.pointwise import blend, leave, mix, sigmoids, tanh, tanhs
from chargen.kernels.tiles import SIDE, load, multiply, store

Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]
_ONE = np.float32(1)


@compiled
def _copy(source: Bits, begin: int, target: Bits, at: int, count: int) -> None:
    target[at : at + count] = source[begin : begin + count]


@compiled
def _add(values: Floats, more: Floats) -> None:
    for j in range(len(more)):
        values[j] += more[j]


@compiled
def _add_blocks(sums: Floats, first: int, row: int, values: Floats) -> None:
    """Add a row of a product's blocks of columns."""
    size = len(values)
    for block in range((size + SIDE - 1) // SIDE):
        begin = block * SIDE
        _add(values[begin : begin + SIDE], sums[first + block, row, : min(SIDE, size - begin)])


@compiled
def lstm_forward(
    settings: NDArray[np.uint8], weights: Bits, bias: Floats, gates: Bits, hidden: Floats, cell: Floats,
    outputs: Bits, cells: Floats, first: int, last: int, left: Bits, sums: Floats,
) -> None:  # fmt: skip
    """Run an LSTM.

    Args:
        settings: as for `multiply`.
        weights: recurrent ones, packed (P, 4 P).
        bias: (4 H,), both together.
        gates: (T, B, 4 H), sums over inputs; becomes activations.
        hidden, cell: (B, H), the state before; becomes that after.
        outputs, cells: (T, B, H), are filled.
        left, sums: (M, P) zeros, and (4 P / 32, M, 32): room to compute in.
    """
    turns, _, size = outputs.shape
    blocks = len(sums) // 4
    values = np.empty(4 * size, np.float32)
    for turn in range(turns):
        for row in range(first, last):
            store(hidden[row], left[row - first, :size])
        multiply(left, weights, sums, settings)
        for row in range(first, last):
            load(gates[turn, row], values)
            _add(values, bias)
            for gate in range(4):
                _add_blocks(sums, gate * blocks, row - first, values[gate * size : (gate + 1) * size])
            sigmoids(values[: 2 * size])
            tanhs(values[2 * size : 3 * size])
            sigmoids(values[3 * size :])
            mix(values[:size], values[2 * size : 3 * size], values[size : 2 * size], cell[row])
            leave(values[3 * size :], cell[row], hidden[row])
            store(values, gates[turn, row])
            store(hidden[row], outputs[turn, row])
            cells[turn, row] = cell[row]


@compiled
def _lstm_cell_gradient(dh: Floats, leave: Floats, cell: Floats, dc: Floats) -> None:
    """Add to a cell's gradient what comes through the output; `cell` becomes its tanh."""
    for j in range(len(dc)):
        cell[j] = tanh(cell[j])
        dc[j] += dh[j] * leave[j] * (_ONE - cell[j] * cell[j])


@compiled
def _gate_gradient(gate: Floats, first: Floats, second: Floats) -> None:
    for j in range(len(first)):
        gate[j] = first[j] * second[j] * gate[j] * (_ONE - gate[j])


@compiled
def _lstm_inner_gradient(dc: Floats, enter: Floats, new: Floats) -> None:
    """Gradients of the entering gate and of what enters."""
    for j in range(len(dc)):
        through = dc[j] * enter[j]
        enter[j] = through * new[j] * (_ONE - enter[j])
        new[j] = through * (_ONE - new[j] * new[j])


@compiled
def _lstm_forget_gradient(dc: Floats, before: Floats, forget: Floats) -> None:
    for j in range(len(dc)):
        through = dc[j] * forget[j]
        forget[j] = through * before[j] * (_ONE - forget[j])
        dc[j] = through


@compiled
def lstm_backward(
    settings: NDArray[np.uint8], weights: Bits, gates: Bits, cells: Floats, first_cell: Floats,
    gradient: Bits, dh: Floats, dc: Floats, bias: Floats, first: int, last: int, left: Bits, sums: Floats,
) -> None:  # fmt: skip
    """The gradients of an LSTM's sums.

    Args:
        weights: recurrent ones, packed (4 P, P).
        gates, cells: what `lstm_forward` left; `gates` become the gradients of their sums.
        first_cell: (B, H), before the first character.
        gradient: (T, B, H), of the outputs.
        dh, dc: (B, H), gradients of the state after; become those of the state before.
        bias: (B, 4 H) zeros; the gradient of the biases, to be summed over rows.
        left, sums: (M, 4 P) zeros, and (P / 32, M, 32): room to compute in.
    """
    turns, _, size = gradient.shape
    padded = left.shape[1] // 4
    values, cell = np.empty(4 * size, np.float32), np.empty(size, np.float32)
    out = np.empty(size, np.float32)
    enter, forget, new, out_gate = (
        values[:size],
        values[size : 2 * size],
        values[2 * size : 3 * size],
        values[3 * size :],
    )
    for turn in range(turns - 1, -1, -1):
        for row in range(first, last):
            load(gradient[turn, row], out)
            _add(dh[row], out)
            load(gates[turn, row], values)
            cell[:] = cells[turn, row]
            _lstm_cell_gradient(dh[row], out_gate, cell, dc[row])
            _gate_gradient(out_gate, dh[row], cell)
            _lstm_inner_gradient(dc[row], enter, new)
            _lstm_forget_gradient(dc[row], cells[turn - 1, row] if turn else first_cell[row], forget)
            store(values, gates[turn, row])
            _add(bias[row], values)
            for gate in range(4):
                left[row - first, gate * padded : gate * padded + size] = gates[
                    turn, row, gate * size : (gate + 1) * size
                ]
        multiply(left, weights, sums, settings)
        for row in range(first, last):
            dh[row] = 0
            _add_blocks(sums, 0, row - first, dh[row])


@compiled
def _reset(reset: Floats, carried: Floats, new: Floats) -> None:
    for j in range(len(new)):
        new[j] = tanh(new[j] + reset[j] * carried[j])


@compiled
def gru_forward(
    settings: NDArray[np.uint8], weights: Bits, bias: Floats, new_bias: Floats, gates: Bits,
    hidden: Floats, outputs: Bits, carried: Bits, first: int, last: int, left: Bits, sums: Floats,
) -> None:  # fmt: skip
    """Run a GRU.

    Args:
        settings: as for `multiply`.
        weights: recurrent ones, packed (P, 3 P).
        bias: (3 H,), outside the reset; new_bias: (H,), inside it.
        gates: (T, B, 3 H), sums over inputs; becomes activations.
        hidden: (B, H), the state before; becomes that after.
        outputs, carried: (T, B, H), are filled; the latter with what the reset gate acts on.
        left, sums: (M, P) zeros, and (3 P / 32, M, 32): room to compute in.
    """
    turns, _, size = outputs.shape
    blocks = len(sums) // 3
    values, inner = np.empty(3 * size, np.float32), np.empty(size, np.float32)
    for turn in range(turns):
        for row in range(first, last):
            store(hidden[row], left[row - first, :size])
        multiply(left, weights, sums, settings)
        for row in range(first, last):
            load(gates[turn, row], values)
            _add(values, bias)
            for gate in range(2):
                _add_blocks(sums, gate * blocks, row - first, values[gate * size : (gate + 1) * size])
            inner[:] = new_bias
            _add_blocks(sums, 2 * blocks, row - first, inner)
            sigmoids(values[: 2 * size])
            _reset(values[:size], inner, values[2 * size :])
            blend(values[size : 2 * size], values[2 * size :], hidden[row])
            store(values, gates[turn, row])
            store(inner, carried[turn, row])
            store(hidden[row], outputs[turn, row])


@compiled
def _gru_update_gradient(dh: Floats, update: Floats, new: Floats, before: Floats) -> None:
    """`update` becomes its gradient, `new` that of its sum, `dh` what goes straight to the state before."""
    for j in range(len(dh)):
        share, value = update[j], new[j]
        new[j] = dh[j] * (_ONE - share) * (_ONE - value * value)
        update[j] = dh[j] * (before[j] - value) * share * (_ONE - share)
        dh[j] *= share


@compiled
def _gru_reset_gradient(new: Floats, reset: Floats, carried: Floats) -> None:
    """`carried` becomes its gradient, `reset` that of its sum."""
    for j in range(len(new)):
        through = new[j] * reset[j]
        reset[j] = through * carried[j] * (_ONE - reset[j])
        carried[j] = through


@compiled
def gru_backward(
    settings: NDArray[np.uint8], weights: Bits, gates: Bits, carried: Bits, outputs: Bits,
    first_hidden: Floats, gradient: Bits, dh: Floats, bias: Floats, inner_bias: Floats, first: int, last: int,
    left: Bits, sums: Floats,
) -> None:  # fmt: skip
    """The gradients of a GRU's sums.

    Args:
        weights: recurrent ones, packed (3 P, P).
        gates, carried, outputs: what `gru_forward` left; `gates` become the gradients of their sums over inputs,
            `carried` those of what the reset gate acts on.
        first_hidden: (B, H), before the first character.
        gradient: (T, B, H), of the outputs.
        dh: (B, H), gradient of the state after; becomes that of the state before.
        bias, inner_bias: (B, 3 H) and (B, H) zeros; gradients of the biases, to be summed over rows.
        left, sums: (M, 3 P) zeros, and (P / 32, M, 32): room to compute in.
    """
    turns, _, size = gradient.shape
    padded = left.shape[1] // 3
    values = np.empty(3 * size, np.float32)
    inner, before, out = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    reset, update, new = values[:size], values[size : 2 * size], values[2 * size :]
    for turn in range(turns - 1, -1, -1):
        for row in range(first, last):
            load(gradient[turn, row], out)
            _add(dh[row], out)
            load(gates[turn, row], values)
            load(carried[turn, row], inner)
            if turn:
                load(outputs[turn - 1, row], before)
            else:
                before[:] = first_hidden[row]
            _gru_update_gradient(dh[row], update, new, before)
            _gru_reset_gradient(new, reset, inner)
            store(values, gates[turn, row])
            store(inner, carried[turn, row])
            _add(bias[row], values)
            _add(inner_bias[row], inner)
            for gate in range(2):
                left[row - first, gate * padded : gate * padded + size] = gates[
                    turn, row, gate * size : (gate + 1) * size
                ]
            left[row - first, 2 * padded : 2 * padded + size] = carried[turn, row]
        multiply(left, weights, sums, settings)
        for row in range(first, last):
            _add_blocks(sums, 0, row - first, dh[row])


def pad(size: int) -> int:
    """The next multiple of 32."""
    return -(-size // SIDE) * SIDE
