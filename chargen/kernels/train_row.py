"""A recurrent layer over one row that learns, forward and backward, in float32.

With one row nothing is computed but products of a matrix and a vector: the time is that of reading the recurrent
weights once for each character. So they are read where they are, (G H, H), and in the other direction at every second
character: what the cache still holds is read first.

Threads share out blocks of 32 hidden units and wait for each other at every character. Sizes: T characters, H hidden
units, padded with zeros to a multiple of 32, M, in all arrays but the weights; G gates and P gradients of a cell.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.amx import SIDE
from chargen.kernels.bf16 import Floats
from chargen.kernels.jit import compile_named, compiled_in_any_order
from chargen.kernels.simd import address
from chargen.kernels.spin_barrier import wait_for_all
from chargen.kernels.train_gates import GRU, LSTM, Cell

_ZERO = np.float32(0)


class RowForward(NamedTuple):
    """The arrays of a layer's forward pass.

    Args:
        weights: the recurrent weights, (G H, H).
        biases: (P, M), in the order of `train_gates`.
        gates: (T, G, M), sums over the inputs; become activations.
        kept: (T + 1, M), what the cell keeps; the first (M,) are read, the others filled.
        hidden: (T + 1, M), the hidden states; the first (M,) are read, the others filled.
    """

    weights: Floats
    biases: Floats
    gates: Floats
    kept: Floats
    hidden: Floats


class RowBackward(NamedTuple):
    """The arrays of a layer's backward pass.

    Args:
        weights: the recurrent weights, (G H, H).
        gates: (T, G, M), of the forward pass.
        kept: (T + 1, M), of the forward pass.
        hidden: (T + 1, M), of the forward pass.
        grad_outputs: (T, M), the gradient of the outputs.
        grad_hidden: (M,), the gradient of the state after through sums; becomes that of the state before.
        grad_direct: (M,), the direct gradient of the state after; becomes that of the state before.
        grad_sums: (T, P, M), filled with the gradients of all sums.
    """

    weights: Floats
    gates: Floats
    kept: Floats
    hidden: Floats
    grad_outputs: Floats
    grad_hidden: Floats
    grad_direct: Floats
    grad_sums: Floats


class Member(NamedTuple):
    """A thread's part of a layer.

    Args:
        start: the first block of 32 hidden units to compute.
        stop: the block to stop before.
        members: how many threads compute blocks.
        counter: (1,), zero; the barrier at which they wait.
    """

    start: int
    stop: int
    members: int
    counter: NDArray[np.int64]


@compiled_in_any_order
def _multiply(weights: Floats, first: int, last: int, vector: Floats, out: Floats) -> None:
    """Multiply some rows of weights (N, K) and a vector (K,)."""
    size = weights.shape[1]
    row = first
    while row + 4 <= last:
        sum_0, sum_1, sum_2, sum_3 = _ZERO, _ZERO, _ZERO, _ZERO
        for k in range(size):
            sum_0 += weights[row, k] * vector[k]
            sum_1 += weights[row + 1, k] * vector[k]
            sum_2 += weights[row + 2, k] * vector[k]
            sum_3 += weights[row + 3, k] * vector[k]
        out[row - first], out[row - first + 1], out[row - first + 2], out[row - first + 3] = sum_0, sum_1, sum_2, sum_3
        row += 4
    while row < last:
        total = _ZERO
        for k in range(size):
            total += weights[row, k] * vector[k]
        out[row - first] = total
        row += 1


@compiled_in_any_order
def _add_rows(weights: Floats, first: int, factors: Floats, start: int, stop: int, out: Floats) -> None:
    """Add some columns of rows from `first` on, each row times its factor, to those of a vector."""
    columns, n = out[start:stop], 0
    while n + 4 <= len(factors):
        row_0, row_1 = weights[first + n][start:stop], weights[first + n + 1][start:stop]
        row_2, row_3 = weights[first + n + 2][start:stop], weights[first + n + 3][start:stop]
        factor_0, factor_1, factor_2, factor_3 = factors[n], factors[n + 1], factors[n + 2], factors[n + 3]
        for k in range(len(columns)):
            columns[k] += factor_0 * row_0[k] + factor_1 * row_1[k] + factor_2 * row_2[k] + factor_3 * row_3[k]
        n += 4
    while n < len(factors):
        row, factor = weights[first + n][start:stop], factors[n]
        for k in range(len(columns)):
            columns[k] += factor * row[k]
        n += 1


def _make_forward(cell: Cell) -> Callable[[RowForward, Member], None]:
    """Make the forward loop over a row's characters, for a cell."""
    gates, formula = cell.gates, cell.forward

    def forward(layer: RowForward, member: Member) -> None:
        (time_steps, _, padded), size = layer.gates.shape, layer.weights.shape[1]
        row_bytes = padded * 4
        sums = np.zeros((gates, SIDE), np.float32)
        for t in range(time_steps):
            if member.members > 1:
                wait_for_all(member.counter, member.members * (t + 1))
            for step in range(member.stop - member.start):
                block = member.start + step if t % 2 == 0 else member.stop - 1 - step
                first, last = block * SIDE, min(block * SIDE + SIDE, size)
                for gate in range(gates):
                    _multiply(layer.weights, gate * size + first, gate * size + last, layer.hidden[t], sums[gate])
                hidden_ptr = address(layer.hidden, (t + 1) * padded + first)
                gates_group = address(layer.gates, t * gates * padded + first), row_bytes
                formula(layer.gates, (
                    gates_group,
                    (address(sums, 0), SIDE * 4),
                    (address(layer.biases, first), row_bytes),
                    address(layer.kept, t * padded + first),
                    address(layer.hidden, t * padded + first),
                    gates_group,
                    address(layer.kept, (t + 1) * padded + first),
                    hidden_ptr,
                    hidden_ptr,
                    hidden_ptr,
                ))  # fmt: skip

    return forward


def _make_backward(cell: Cell) -> Callable[[RowBackward, Member], None]:
    """Make the backward loop over a row's characters, for a cell."""
    gates, gradients, formula = cell.gates, cell.gradients, cell.backward_by_columns

    def backward(layer: RowBackward, member: Member) -> None:
        (time_steps, padded), size = layer.grad_outputs.shape, layer.weights.shape[1]
        row_bytes, input_only = padded * 4, gradients - gates
        start, stop = member.start * SIDE, min(member.stop * SIDE, size)
        for t in range(time_steps - 1, -1, -1):
            for first in range(member.start * SIDE, member.stop * SIDE, SIDE):
                element, direct_ptr = t * padded + first, address(layer.grad_direct, first)
                target = address(layer.grad_sums, t * gradients * padded + first)
                formula(layer.gates, (
                    (address(layer.gates, t * gates * padded + first), row_bytes),
                    address(layer.kept, element),
                    address(layer.kept, element + padded),
                    address(layer.hidden, element),
                    address(layer.grad_outputs, element),
                    address(layer.grad_hidden, first),
                    direct_ptr,
                    (target, row_bytes),
                    (target + input_only * row_bytes, row_bytes),
                    direct_ptr,
                ))  # fmt: skip
            if member.members > 1:
                wait_for_all(member.counter, member.members * (time_steps - t))
            layer.grad_hidden[start:stop] = 0
            for step in range(gates):
                gate = step if t % 2 == 0 else gates - 1 - step
                factors = layer.grad_sums[t, input_only + gate, :size]
                _add_rows(layer.weights, gate * size, factors, start, stop, layer.grad_hidden)

    return backward


class RowKernels(NamedTuple):
    """The compiled loops for a cell.

    Args:
        cell: the cell.
        forward: the loop of the forward pass.
        backward: the loop of the backward pass.
    """

    cell: Cell
    forward: Callable[[RowForward, Member], None]
    backward: Callable[[RowBackward, Member], None]


def _make_kernels(cell: Cell, name: str) -> RowKernels:
    forward = compile_named(f"{name}_row_forward", _make_forward(cell))
    return RowKernels(cell, forward, compile_named(f"{name}_row_backward", _make_backward(cell)))


LSTM_ROW, GRU_ROW = _make_kernels(LSTM, "lstm"), _make_kernels(GRU, "gru")
