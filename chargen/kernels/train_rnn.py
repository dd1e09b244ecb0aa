"""Recurrent layers over whole windows, forward and backward, with factors of bf16 or float32 and the rest in float32.

Arrays of factors have one of these types, called `Stored`. `docs/pages/kernels.md` explains the loops with a picture.

Sums over a layer's inputs come as one large product, made before; the gradients of weights are a large product, made
afterwards. The loop over T characters takes blocks of 32 hidden units: it multiplies the state by the weights of one
block while the sums of the block before become gates. Sizes: B rows, of which a thread computes some, padded to M; H
hidden units; G gates and P gradients of a cell. H and M are multiples of 32. Time is the first dimension.

Threads share out rows and are independent; or, where rows are few, they share out blocks of hidden units and wait for
each other at every character.

Arrays are read and written by address, so the caller owns them: numba frees an array that is made here after the last
use of its name.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.amx import SIDE, configure_tiles, release_tiles
from chargen.kernels.bf16 import Floats, Stored
from chargen.kernels.jit import compile_named, compiled
from chargen.kernels.matmul_blocks import continue_matmul
from chargen.kernels.simd import address, fetch, fuse, is_float32, itemsize, transpose
from chargen.kernels.spin_barrier import wait_for_all
from chargen.kernels.train_gates import GRU, LSTM, Cell

Bytes = NDArray[np.uint8]
Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]
_BLOCK = SIDE * SIDE

_copy = fuse(lambda value: (value,), "f", "w")


class Forward(NamedTuple):
    """The arrays of a layer's forward pass.

    Where `fresh` is true, what was computed from the state before is left out: products go on over whole blocks, and a
    line of zeros is read in the place of their sums, of the cell and of the hidden state.

    Args:
        weights: the recurrent weights, packed (H, G H).
        biases: (P H,).
        input_sums: (N, G H), sums over inputs, for every 32 hidden units those of all gates.
        input_index: (T, B), which of the N sums each character has.
        gates: (T, B, G H), filled with activations, in the order of `input_sums`; may be the same memory.
        kept: (T + 1, B, H), what the cell keeps; the first (B, H) are read, the others filled. Empty where the cell
            keeps nothing.
        hidden: (B, H), the hidden state; updated.
        outputs: (T, B, H), filled with the hidden states.
        fresh: (T, B), whether the state is zero before a character; (0, 0) where it never is.
        zeros: (32,).
    """

    weights: Stored
    biases: Floats
    input_sums: Stored
    input_index: Ids
    gates: Stored
    kept: Stored
    hidden: Floats
    outputs: Stored
    fresh: Flags
    zeros: Floats


class Backward(NamedTuple):
    """The arrays of a layer's backward pass.

    Args:
        weights: the recurrent weights, packed (G H, H).
        gates: (T, B, G H), of the forward pass; where of bf16, overwritten by the gradients of their sums over inputs.
        kept: (T + 1, B, H), of the forward pass.
        states: (T, B, H), the hidden state before each character, zero where it is fresh.
        grad_outputs: (T, B, H), the gradient of the outputs.
        grad_direct: (B, H), the direct gradient of the state after; becomes that of the state before.
        grad_sums: (P H, T B), filled with the gradients of all sums: in bf16 each row is contiguous, in float32 each
            column.
        fresh: (T, B), whether the state was zero before a character; (0, 0) where it never was.
        zeros: (32,).
    """

    weights: Stored
    gates: Stored
    kept: Stored
    states: Stored
    grad_outputs: Stored
    grad_direct: Floats
    grad_sums: Stored
    fresh: Flags
    zeros: Floats


class Part(NamedTuple):
    """A thread's part of a layer.

    Args:
        start_row: the first row to compute.
        stop_row: the row to stop before; M is the number of rows, padded.
        start_block: the first block of 32 hidden units to compute.
        stop_block: the block to stop before.
        members: how many threads compute blocks of these rows.
        counter: (1,), zero; the barrier at which they wait.
        left: zeros, the left sides of products for this character and the next: (2, H / 32, M, 32) forward,
            (2, G H / 32, M, 32) backward. Members share it.
        sums: forward (2, G, 32, 32), scratch memory of this thread; backward (H / 32, M, 32), the gradient of the state
            after, which becomes that of the state before. Members share the latter.
        input_only: (P - G, 32, 32), scratch memory of this thread for gradients of sums over inputs only.
    """

    start_row: int
    stop_row: int
    start_block: int
    stop_block: int
    members: int
    counter: Ids
    left: Stored
    sums: Floats
    input_only: Stored


@compiled
def _state_to_left(hidden: Floats, part: Part) -> None:
    """Copy the state (B, H) into the left side of the first product."""
    size, padded_rows = hidden.shape[1], part.left.shape[2]
    for row in range(part.start_row, part.stop_row):
        for block in range(part.start_block, part.stop_block):
            target = address(part.left, (block * padded_rows + row - part.start_row) * SIDE)
            _copy(part.left, (address(hidden, row * size + block * SIDE), target))


def _make_forward(cell: Cell) -> Callable[[Bytes, Forward, Part], None]:
    """Make the forward loop over a window's characters, for a cell."""
    gates, formula = cell.gates, cell.forward

    def forward(config: Bytes, layer: Forward, part: Part) -> None:
        time_steps, rows, size = layer.outputs.shape
        blocks, padded_rows = part.left.shape[1], part.left.shape[2]
        count, groups = part.stop_row - part.start_row, padded_rows // SIDE
        width = itemsize(layer.weights)
        # Bytes of a row of a block, and elements of a column of weights.
        row_bytes, column_size = SIDE * width, blocks * _BLOCK
        resets, zeros_ptr = len(layer.fresh) > 0, address(layer.zeros, 0)
        _state_to_left(layer.hidden, part)
        configure_tiles(config)
        for t in range(time_steps):
            if part.members > 1:
                wait_for_all(part.counter, part.members * (t + 1))
            left_now = address(part.left, t % 2 * blocks * padded_rows * SIDE)
            left_next = address(part.left, (t + 1) % 2 * blocks * padded_rows * SIDE)
            # A task is 32 rows of a block. While its sums are computed, those of the task before become gates.
            for task in range(part.start_block * groups, part.stop_block * groups + 1):
                block, group = task // groups, task % groups
                left_ptr, rows_left = left_now + group * _BLOCK * width, count - group * SIDE
                packed_ptr = address(layer.weights, block * column_size)
                sums_ptr = address(part.sums, task % 2 * gates * _BLOCK)
                done, done_group = (task - 1) // groups * SIDE, (task - 1) % groups
                done_sums_ptr = address(part.sums, (task - 1) % 2 * gates * _BLOCK)
                sums_block, k_block, budget = 0, 0, 0
                for group_row in range(SIDE):
                    part_row = done_group * SIDE + group_row
                    row = part.start_row + part_row
                    has_sums = task > part.start_block * groups and part_row < count
                    element, sums_element = (t * rows + row) * size + done, 0
                    if has_sums:
                        sums_element = (layer.input_index[t, row] * size + done) * gates
                        fetch(address(layer.input_sums, sums_element), gates * row_bytes)
                        fetch(address(layer.gates, element * gates), gates * row_bytes)
                        fetch(address(layer.outputs, element), row_bytes)
                    if task < part.stop_block * groups:
                        budget += gates * blocks
                        sums_block, k_block, budget = continue_matmul(
                            layer.weights, left_ptr, padded_rows * row_bytes, packed_ptr, blocks * column_size * width,
                            sums_ptr, blocks, rows_left, sums_block, k_block, budget,
                        )  # fmt: skip
                    if has_sums:
                        hidden_ptr = address(layer.hidden, row * size + done)
                        state_sums = (done_sums_ptr + group_row * SIDE * 4, _BLOCK * 4)
                        kept_ptr, state_ptr = address(layer.kept, element), hidden_ptr
                        if resets and layer.fresh[t, row]:
                            state_sums, kept_ptr, state_ptr = (zeros_ptr, 0), zeros_ptr, zeros_ptr
                        formula(layer.weights, (
                            (address(layer.input_sums, sums_element), row_bytes),
                            state_sums,
                            (address(layer.biases, done), size * 4),
                            kept_ptr,
                            state_ptr,
                            (address(layer.gates, element * gates), row_bytes),
                            address(layer.kept, element + rows * size),
                            hidden_ptr,
                            address(layer.outputs, element),
                            left_next + (done * padded_rows + part_row * SIDE) * width,
                        ))  # fmt: skip
        release_tiles()

    return forward


def _make_backward(cell: Cell) -> Callable[[Bytes, Backward, Part], None]:
    """Make the backward loop over a window's characters, for a cell."""
    gates, gradients, formula, formula_by_columns = cell.gates, cell.gradients, cell.backward, cell.backward_by_columns
    num_input_only = gradients - gates

    def backward(config: Bytes, layer: Backward, part: Part) -> None:
        time_steps, rows, size = layer.grad_outputs.shape
        blocks, padded_rows = part.sums.shape[0], part.sums.shape[1]
        count, groups = part.stop_row - part.start_row, padded_rows // SIDE
        width, pitch = itemsize(layer.weights), layer.grad_sums.strides[0]
        # Bytes of a row of a block, and of a gate's left side.
        row_bytes, gate_bytes = SIDE * width, blocks * padded_rows * SIDE * width
        # Products of bf16 need contiguous rows to be fast, which takes a transpose; those of float32 do not.
        by_columns = is_float32(layer.weights)
        resets, zeros_ptr = len(layer.fresh) > 0, address(layer.zeros, 0)
        configure_tiles(config)
        for t in range(time_steps - 1, -2, -1):
            if part.members > 1:
                wait_for_all(part.counter, part.members * (time_steps - t))
            left_now = address(part.left, t % 2 * gates * blocks * padded_rows * SIDE)
            left_next = address(part.left, (t + 1) % 2 * gates * blocks * padded_rows * SIDE)
            for task in range(part.start_block * groups, part.stop_block * groups + 1):
                block, group = task // groups, task % groups
                left_ptr, rows_left = left_now + group * _BLOCK * width, count - group * SIDE
                packed_ptr = address(layer.weights, block * gates * blocks * _BLOCK)
                sums_ptr = address(part.sums, (block * padded_rows + group * SIDE) * SIDE)
                done, done_group = (task - 1) // groups * SIDE, (task - 1) % groups
                sums_block, k_block, budget = 0, 0, 0
                for group_row in range(SIDE):
                    part_row = done_group * SIDE + group_row
                    row = part.start_row + part_row
                    element = (t * rows + row) * size + done
                    has_gradients = t >= 0 and task > part.start_block * groups and part_row < count
                    if has_gradients:
                        fetch(address(layer.gates, element * gates), gates * row_bytes)
                        fetch(address(layer.states, element), row_bytes)
                        fetch(address(layer.grad_outputs, element), row_bytes)
                    if t < time_steps - 1 and task < part.stop_block * groups:
                        budget += gates * blocks
                        sums_block, k_block, budget = continue_matmul(
                            layer.weights, left_ptr, padded_rows * row_bytes, packed_ptr, 0, sums_ptr, gates * blocks,
                            rows_left, sums_block, k_block, budget,
                        )  # fmt: skip
                    if has_gradients:
                        block_element = done * padded_rows + part_row * SIDE
                        direct_ptr = address(layer.grad_direct, row * size + done)
                        left_target = (left_next + block_element * width, gate_bytes)
                        kept_ptr, grad_ptr = address(layer.kept, element), address(part.sums, block_element)
                        later_direct_ptr = direct_ptr
                        if resets:
                            if layer.fresh[t, row]:
                                kept_ptr = zeros_ptr
                            if t + 1 < time_steps and layer.fresh[t + 1, row]:
                                grad_ptr, later_direct_ptr = zeros_ptr, zeros_ptr
                        reads = (
                            (address(layer.gates, element * gates), row_bytes),
                            kept_ptr,
                            address(layer.kept, element + rows * size),
                            address(layer.states, element),
                            address(layer.grad_outputs, element),
                            grad_ptr,
                            later_direct_ptr,
                        )
                        if by_columns:
                            target = (t * rows + row) * gradients * size + done
                            columns = (address(layer.grad_sums, target), size * width)
                            formula_by_columns(layer.weights, (*reads, columns, left_target, direct_ptr))
                        else:
                            input_only = (address(part.input_only, group_row * SIDE), _BLOCK * width)
                            formula(layer.weights, (*reads, reads[0], input_only, left_target, direct_ptr))
                if t >= 0 and task > part.start_block * groups and not by_columns:
                    target = address(layer.grad_sums, t * rows + part.start_row + done_group * SIDE) + done * pitch
                    left_target = left_next + (done * padded_rows + done_group * _BLOCK) * width
                    for gradient in range(gradients):
                        source = address(part.input_only, gradient * _BLOCK)
                        if gradient >= num_input_only:
                            source = left_target + (gradient - num_input_only) * gate_bytes
                        transpose(layer.grad_sums, source, target, pitch, min(SIDE, count - done_group * SIDE))
                        target += size * pitch
        release_tiles()

    return backward


class Kernels(NamedTuple):
    """The compiled loops for a cell.

    Args:
        cell: the cell.
        forward: the loop of the forward pass.
        backward: the loop of the backward pass.
    """

    cell: Cell
    forward: Callable[[Bytes, Forward, Part], None]
    backward: Callable[[Bytes, Backward, Part], None]


def make_kernels(cell: Cell, name: str = "") -> Kernels:
    """Compile the loops for a cell.

    Args:
        cell: the cell.
        name: under which machine code is kept; without it, the loops are compiled in every process.
    """
    forward, backward = name and f"{name}_forward", name and f"{name}_backward"
    return Kernels(cell, compile_named(forward, _make_forward(cell)), compile_named(backward, _make_backward(cell)))


LSTM_KERNELS, GRU_KERNELS = make_kernels(LSTM, "lstm"), make_kernels(GRU, "gru")


def pad(size: int) -> int:
    """Round a size up to a multiple of 32.

    Args:
        size: 0 or more.
    """
    return -(-size // SIDE) * SIDE
