"""Recurrent layers over whole windows, forward and backward: products of bf16 or of float32, all the rest in float32.

What is multiplied has one type, either, and is called stored here. `docs/pages/kernels.md` shows how the loops go.

Sums over a layer's inputs come as one product made before, and gradients of weights are left to one product made
afterwards. So what is repeated T times is, for every 32 hidden units, the product of the state with their weights, and
all the rest at once while the next product is on its way. Time comes first in all arrays. Sizes: B rows, of which a
thread computes some, filled up to M; H hidden units; G gates and P gradients of a cell. H and M are multiples of 32.

Threads share out rows, and then have nothing to do with each other; or, where rows are few, hidden units: each computes
its blocks of 32, and all wait for each other after each character.

Arrays are read and written by address, so they come from the caller: an array made here would be given back as soon as
its name is used for the last time.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.amx import SIDE, configure_tiles, release_tiles
from chargen.kernels.bf16 import Floats, Stored
from chargen.kernels.bf16_ir import to_float
from chargen.kernels.jit import compiled, named
from chargen.kernels.matmul_blocks import matmul_steps
from chargen.kernels.simd import address, fuse, is_float32, itemsize, transpose
from chargen.kernels.spin_barrier import wait_for_all
from chargen.kernels.train_gates import GRU, LSTM, Cell

Bytes = NDArray[np.uint8]
Ids = NDArray[np.int64]
_BLOCK = SIDE * SIDE
_APART = 8
"""Totals that are kept apart, so that no addition waits for the one before."""

_copy = fuse(lambda value: (value,), "f", "w")
_add = fuse(lambda total, more: (total + more,), "fw", "f")


class Forward(NamedTuple):
    """What a layer reads and fills on the way forward.

    Args:
        weights: recurrent ones, packed (H, G H).
        biases: (P H,).
        entering: (N, G H), sums over inputs, for every 32 hidden units those of all gates.
        which: (T, B), which of the N enters.
        gates: (T, B, G H), are filled with activations; their room may be that of `entering`.
        kept: (T + 1, B, H), the first of which are read and the others filled; empty for a cell that keeps nothing.
        hidden: (B, H), the state before; becomes that after.
        outputs: (T, B, H), are filled.
    """

    weights: Stored
    biases: Floats
    entering: Stored
    which: Ids
    gates: Stored
    kept: Stored
    hidden: Floats
    outputs: Stored


class Backward(NamedTuple):
    """What a layer reads and fills on the way back.

    Args:
        weights: recurrent ones, packed (G H, H).
        gates, kept: what the way forward left; `gates` of bf16 become the gradients of their sums over inputs.
        states: (T, B, H), before each character.
        gradient: (T, B, H), of the outputs.
        second: (B, H), gradient that comes back the second way; becomes that which goes on to the state before.
        transposed: (P H, T B), is filled with all gradients: rows, apart or not, of bf16; or columns of float32.
    """

    weights: Stored
    gates: Stored
    kept: Stored
    states: Stored
    gradient: Stored
    second: Floats
    transposed: Stored


class Part(NamedTuple):
    """What a thread computes, and where.

    Args:
        first, last: from which row up to which; M is their number filled up.
        begin, end: from which block of 32 hidden units up to which.
        members: how many threads compute blocks of these rows.
        counter: (1,), zero, where they wait for each other.
        left: zeros, left sides of products, of now and for the next character: (2, H / 32, M, 32) forward,
            (2, G H / 32, M, 32) backward. Members have it in common.
        sums: forward (2, G, 32, 32), of this thread alone; backward (H / 32, M, 32), the gradient of the state after,
            becomes that of the state before. Members have it in common.
        spare: (P - G, 32, 32), for gradients that are no left side; of this thread alone.
    """

    first: int
    last: int
    begin: int
    end: int
    members: int
    counter: Ids
    left: Stored
    sums: Floats
    spare: Stored


@compiled
def _state_to_left(hidden: Floats, part: Part) -> None:
    """States (B, H) as the left side of the first product."""
    size, filled = hidden.shape[1], part.left.shape[2]
    for row in range(part.first, part.last):
        for block in range(part.begin, part.end):
            target = address(part.left, (block * filled + row - part.first) * SIDE)
            _copy(part.left, (address(hidden, row * size + block * SIDE), target))


def _forward_of(cell: Cell) -> Callable[[Bytes, Forward, Part], None]:
    """The loop over a window's characters, for a cell."""
    gates, formula = cell.gates, cell.forward

    def forward(config: Bytes, layer: Forward, part: Part) -> None:
        steps, rows, size = layer.outputs.shape
        blocks, filled = part.left.shape[1], part.left.shape[2]
        count, groups = part.last - part.first, filled // SIDE
        width = itemsize(layer.weights)
        line, column = SIDE * width, blocks * _BLOCK  # bytes of a row of a block, elements of a column of weights
        _state_to_left(layer.hidden, part)
        configure_tiles(config)
        for step in range(steps):
            if part.members > 1:
                wait_for_all(part.counter, part.members * (step + 1))
            now = address(part.left, step % 2 * blocks * filled * SIDE)
            following = address(part.left, (step + 1) % 2 * blocks * filled * SIDE)
            # While the sums of some rows and hidden units are computed, those before become gates.
            for at in range(part.begin * groups, part.end * groups + 1):
                block, group = at // groups, at % groups
                left, rest = now + group * _BLOCK * width, count - group * SIDE
                packed = address(layer.weights, block * column)
                sums = address(part.sums, at % 2 * gates * _BLOCK)
                done, done_group = (at - 1) // groups * SIDE, (at - 1) % groups
                done_sums = address(part.sums, (at - 1) % 2 * gates * _BLOCK)
                product, reached, due = 0, 0, 0
                for each_row in range(SIDE):
                    if at < part.end * groups:
                        due += gates * blocks
                        product, reached, due = matmul_steps(
                            layer.weights, left, filled * line, packed, blocks * column * width, sums, blocks, rest,
                            product, reached, due,
                        )  # fmt: skip
                    place = done_group * SIDE + each_row
                    if at > part.begin * groups and place < count:
                        row = part.first + place
                        here = (step * rows + row) * size + done
                        entering = (layer.which[step, row] * size + done) * gates
                        hidden = address(layer.hidden, row * size + done)
                        formula(layer.weights, (
                            (address(layer.entering, entering), line),
                            (done_sums + each_row * SIDE * 4, _BLOCK * 4),
                            (address(layer.biases, done), size * 4),
                            address(layer.kept, here),
                            hidden,
                            (address(layer.gates, here * gates), line),
                            address(layer.kept, here + rows * size),
                            hidden,
                            address(layer.outputs, here),
                            following + (done * filled + place * SIDE) * width,
                        ))  # fmt: skip
        release_tiles()

    return forward


def _backward_of(cell: Cell) -> Callable[[Bytes, Backward, Part], None]:
    """The loop backward over a window's characters, for a cell."""
    gates, gradients, formula, formula_by_columns = cell.gates, cell.gradients, cell.backward, cell.backward_by_columns
    apart = gradients - gates

    def backward(config: Bytes, layer: Backward, part: Part) -> None:
        steps, rows, size = layer.gradient.shape
        blocks, filled = part.sums.shape[0], part.sums.shape[1]
        count, groups = part.last - part.first, filled // SIDE
        width, pitch = itemsize(layer.weights), layer.transposed.strides[0]
        line, gate = (
            SIDE * width,
            blocks * filled * SIDE * width,
        )  # bytes of a block's row and of a gate's left side
        # Products want bf16 as rows, which lie far apart in memory; with float32 they do as well without.
        by_columns = is_float32(layer.weights)
        configure_tiles(config)
        for step in range(steps - 1, -2, -1):
            if part.members > 1:
                wait_for_all(part.counter, part.members * (steps - step))
            now = address(part.left, step % 2 * gates * blocks * filled * SIDE)
            following = address(part.left, (step + 1) % 2 * gates * blocks * filled * SIDE)
            for at in range(part.begin * groups, part.end * groups + 1):
                block, group = at // groups, at % groups
                left, rest = now + group * _BLOCK * width, count - group * SIDE
                packed = address(layer.weights, block * gates * blocks * _BLOCK)
                sums = address(part.sums, (block * filled + group * SIDE) * SIDE)
                done, done_group = (at - 1) // groups * SIDE, (at - 1) % groups
                product, reached, due = 0, 0, 0
                for each_row in range(SIDE):
                    if step < steps - 1 and at < part.end * groups:
                        due += gates * blocks
                        product, reached, due = matmul_steps(
                            layer.weights, left, filled * line, packed, 0, sums, gates * blocks, rest,
                            product, reached, due,
                        )  # fmt: skip
                    place = done_group * SIDE + each_row
                    if step >= 0 and at > part.begin * groups and place < count:
                        row = part.first + place
                        here = (step * rows + row) * size + done
                        in_block = done * filled + place * SIDE
                        second = address(layer.second, row * size + done)
                        next_left = (following + in_block * width, gate)
                        known = (
                            (address(layer.gates, here * gates), line),
                            address(layer.kept, here),
                            address(layer.kept, here + rows * size),
                            address(layer.states, here),
                            address(layer.gradient, here),
                            address(part.sums, in_block),
                            second,
                        )
                        if by_columns:
                            target = (step * rows + row) * gradients * size + done
                            columns = (address(layer.transposed, target), size * width)
                            formula_by_columns(layer.weights, (*known, columns, next_left, second))
                        else:
                            spare = (address(part.spare, each_row * SIDE), _BLOCK * width)
                            formula(layer.weights, (*known, known[0], spare, next_left, second))
                if step >= 0 and at > part.begin * groups and not by_columns:
                    target = address(layer.transposed, step * rows + part.first + done_group * SIDE) + done * pitch
                    next_left = following + (done * filled + done_group * _BLOCK) * width
                    for gradient in range(gradients):
                        source = address(part.spare, gradient * _BLOCK)
                        if gradient >= apart:
                            source = next_left + (gradient - apart) * gate
                        transpose(layer.transposed, source, target, pitch, min(SIDE, count - done_group * SIDE))
                        target += size * pitch
        release_tiles()

    return backward


class Kernels(NamedTuple):
    """What computes layers of a cell."""

    cell: Cell
    forward: Callable[[Bytes, Forward, Part], None]
    backward: Callable[[Bytes, Backward, Part], None]


def make_kernels(cell: Cell, name: str = "") -> Kernels:
    """The loops for a cell; without a name they are compiled in every process."""
    forward, backward = name and f"{name}_forward", name and f"{name}_backward"
    return Kernels(cell, named(forward, _forward_of(cell)), named(backward, _backward_of(cell)))


LSTM_KERNELS, GRU_KERNELS = make_kernels(LSTM, "lstm"), make_kernels(GRU, "gru")


@compiled
def sums_over_time(transposed: Stored, first: int, last: int, out: Floats) -> None:
    """The sums of each row (N, M) from `first` up to `last`, into `out` (N,)."""
    columns, line = transposed.shape[1], SIDE * itemsize(transposed)
    totals = np.empty(_APART * SIDE, np.float32)
    for row in range(first, last):
        totals[:] = 0
        row_at = transposed.ctypes.data + row * transposed.strides[0]
        for block in range(columns // SIDE):
            total = totals.ctypes.data + block % _APART * SIDE * 4
            _add(transposed, (total, row_at + block * line, total))
        result = np.float32(0)
        for place in range(len(totals)):
            result += totals[place]
        for column in range(columns // SIDE * SIDE, columns):
            result += to_float(transposed[row, column])
        out[row] = result


def pad(size: int) -> int:
    """The next multiple of 32."""
    return -(-size // SIDE) * SIDE
