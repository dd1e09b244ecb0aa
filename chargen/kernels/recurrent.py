"""Recurrent layers over whole windows, forward and backward: products of bf16 or of float32, all the rest in float32.

What is multiplied has one type, either, and is called stored here.

Each function computes the rows from `first` up to `last` for all T characters; time comes first in all arrays. Sums
over a layer's inputs come as one product made before, and gradients of weights are left to one product made afterwards.
So what is repeated T times is, for every 32 units, the product of the state with their weights, and all the rest at
once while the next product is on its way. Sizes: B rows, of which last - first are filled up to M; H hidden units; B
aside, all are multiples of 32.

Threads share out rows, and then have nothing to do with each other; or, where rows are few, units: each of `members`
computes its blocks of 32 units from `begin` up to `end`, and all meet after each character. They then have `left`, in
backward functions also `sums`, and a `counter` of zero in common.

Arrays are read and written by address, so they come from the caller: one made here would be given back as soon as its
name is used for the last time.
"""

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.bits import Floats, Stored, number
from chargen.kernels.cells import gru, gru_gradient, gru_gradient_in_rows, lstm, lstm_gradient
from chargen.kernels.compiled import compiled
from chargen.kernels.squares import multiply
from chargen.kernels.team import meet
from chargen.kernels.tiles import SIDE, leave_units, use_units
from chargen.kernels.vectors import floats, fuse, transpose, width

Ids = NDArray[np.int64]
_SQUARE = SIDE * SIDE
"""Elements of the sums of 32 rows and 32 units."""
_APART = 8
"""Totals that are kept apart, so that no addition waits for the one before."""


_copy = fuse(lambda value: (value,), "f", "w")
_add = fuse(lambda total, more: (total + more,), "fw", "f")


@compiled
def _enter(hidden: Floats, first: int, last: int, left: Stored, begin: int, end: int) -> None:
    """States (B, H) as the left side of a product (H / 32, M, 32)."""
    size, filled, line = hidden.shape[1], left.shape[1], SIDE * width(left)
    for row in range(first, last):
        for block in range(begin, end):
            source = hidden.ctypes.data + (row * size + block * SIDE) * 4
            _copy(left, (source, left.ctypes.data + (block * filled + row - first) * line))


@compiled
def lstm_forward(
    settings: NDArray[np.uint8], weights: Stored, bias: Floats, entering: Stored, which: Ids, gates: Stored,
    hidden: Floats, cells: Floats, outputs: Stored, first: int, last: int, left: Stored, sums: Floats,
    begin: int, end: int, members: int, counter: Ids,
) -> None:  # fmt: skip
    """Run an LSTM.

    Args:
        settings: as for `use_units`.
        weights: recurrent ones, packed (H, 4 H).
        bias: (4 H,), both together.
        entering: (N, 4 H), sums over inputs.
        which: (T, B), which of the N enters.
        gates: (T, B, 4 H), are filled with activations; their room may be that of `entering`.
        hidden: (B, H), the state before; becomes that after.
        cells: (T + 1, B, H), whose first are given and whose others are filled.
        outputs: (T, B, H), are filled.
        left, sums: (2, H / 32, M, 32) zeros, and (2, 4, 32, 32): room to compute in.
    """
    turns, rows, size = outputs.shape
    blocks, filled = left.shape[1], left.shape[2]
    groups = filled // SIDE
    weights_at, bias_at, entering_at, gates_at, hidden_at = (
        weights.ctypes.data, bias.ctypes.data, entering.ctypes.data, gates.ctypes.data, hidden.ctypes.data
    )  # fmt: skip
    cells_at, outputs_at, left_at, sums_at = (
        cells.ctypes.data, outputs.ctypes.data, left.ctypes.data, sums.ctypes.data
    )  # fmt: skip
    _enter(hidden, first, last, left[0], begin, end)
    one = width(weights)
    line = SIDE * one  # bytes of 32 elements
    use_units(settings)
    for turn in range(turns):
        if members > 1:
            meet(counter, members * (turn + 1))
        half = blocks * filled * line
        now, following = left_at + turn % 2 * half, left_at + (turn + 1) % 2 * half
        for at in range(begin * groups, end * groups + 1):
            block, group = at // groups, at % groups
            packed, found = weights_at + block * blocks * SIDE * line, sums_at + at % 2 * 4 * _SQUARE * 4
            # While the sums of some rows and units are computed, those before become gates.
            done_block, done_group = (at - 1) // groups, (at - 1) % groups
            square, reached, due = 0, 0, 0
            for each in range(SIDE):
                if at < end * groups:
                    due += 4 * blocks
                    square, reached, due = multiply(
                        weights, now + group * SIDE * line, filled * line, packed, blocks * blocks * SIDE * line, found,
                        blocks, last - first - group * SIDE, square, reached, due,
                    )  # fmt: skip
                place = done_group * SIDE + each
                if at > begin * groups and place < last - first:
                    unit = (turn * rows + first + place) * size + done_block * SIDE
                    e = entering_at + (which[turn, first + place] * size + done_block * SIDE) * 4 * one
                    g = gates_at + ((turn * rows + first + place) * size + done_block * SIDE) * 4 * one
                    s = sums_at + ((at - 1) % 2 * 4 * SIDE + each) * SIDE * 4
                    b = bias_at + done_block * SIDE * 4
                    lstm(weights, (
                        e, e + line, e + 2 * line, e + 3 * line,
                        s, s + _SQUARE * 4, s + _SQUARE * 8, s + _SQUARE * 12,
                        b, b + size * 4, b + size * 8, b + size * 12,
                        cells_at + unit * 4,
                        g, g + line, g + 2 * line, g + 3 * line,
                        cells_at + (unit + rows * size) * 4,
                        hidden_at + ((first + place) * size + done_block * SIDE) * 4,
                        outputs_at + unit * one,
                        following + (done_block * filled + place) * line,
                    ))  # fmt: skip
    leave_units()


@compiled
def lstm_backward(
    settings: NDArray[np.uint8], weights: Stored, gates: Stored, cells: Floats, gradient: Stored, dc: Floats,
    transposed: Stored, first: int, last: int, left: Stored, sums: Floats,
    begin: int, end: int, members: int, counter: Ids,
) -> None:  # fmt: skip
    """The gradients of an LSTM's sums.

    Args:
        weights: recurrent ones, packed (4 H, H).
        gates, cells: what `lstm_forward` left; `gates` become the gradients of their sums.
        gradient: (T, B, H), of the outputs.
        dc: (B, H), gradient of the cells after; becomes that of those before.
        transposed: (4 H, T B), is filled with the gradients of the gates' sums too: rows, apart or not, of bf16; or
            columns of float32, and then `gates` stay as they are.
        left: (2, 4 H / 32, M, 32) zeros, room to compute in.
        sums: (H / 32, M, 32), gradient of the state after; becomes that of the state before.
    """
    turns, rows, size = gradient.shape
    groups = sums.shape[1] // SIDE
    blocks, filled, step = sums.shape[0], sums.shape[1], transposed.strides[0]
    weights_at, gates_at, cells_at, gradient_at = (
        weights.ctypes.data, gates.ctypes.data, cells.ctypes.data, gradient.ctypes.data
    )  # fmt: skip
    dc_at, transposed_at, left_at, sums_at = (
        dc.ctypes.data, transposed.ctypes.data, left.ctypes.data, sums.ctypes.data
    )  # fmt: skip
    one = width(weights)
    line = SIDE * one  # bytes of 32 elements
    # Products want bf16 as rows, which lie far apart in memory; with float32 they do as well without.
    in_rows = floats(weights)
    use_units(settings)
    for turn in range(turns - 1, -2, -1):
        if members > 1:
            meet(counter, members * (turns - turn))
        half = 4 * blocks * filled * line
        now, following = left_at + turn % 2 * half, left_at + (turn + 1) % 2 * half
        for at in range(begin * groups, end * groups + 1):
            block, group = at // groups, at % groups
            packed = weights_at + block * blocks * 4 * SIDE * line
            found = sums_at + (block * filled + group * SIDE) * SIDE * 4
            done_block, done_group = (at - 1) // groups, (at - 1) % groups * SIDE
            square, reached, due = 0, 0, 0
            for each in range(SIDE):
                if turn < turns - 1 and at < end * groups:
                    due += 4 * blocks
                    square, reached, due = multiply(
                        weights, now + group * SIDE * line, filled * line, packed, 0, found,
                        4 * blocks, last - first - group * SIDE, square, reached, due,
                    )  # fmt: skip
                place = done_group + each
                if turn >= 0 and at > begin * groups and place < last - first:
                    row = first + place
                    unit = (turn * rows + row) * size + done_block * SIDE
                    g = gates_at + ((turn * rows + row) * size + done_block * SIDE) * 4 * one
                    to, gate = following + (done_block * filled + place) * line, blocks * filled * line
                    cell = dc_at + (row * size + done_block * SIDE) * 4
                    t, apart = g, line
                    if in_rows:
                        t = transposed_at + ((turn * rows + row) * 4 * size + done_block * SIDE) * one
                        apart = size * one
                    lstm_gradient(weights, (
                        g, g + line, g + 2 * line, g + 3 * line,
                        cells_at + unit * 4,
                        cells_at + (unit + rows * size) * 4,
                        gradient_at + unit * one,
                        sums_at + (done_block * filled + place) * SIDE * 4,
                        cell,
                        t, t + apart, t + 2 * apart, t + 3 * apart,
                        to, to + gate, to + 2 * gate, to + 3 * gate,
                        cell,
                    ))  # fmt: skip
            if turn >= 0 and at > begin * groups and not in_rows:
                for gate in range(4):
                    source = following + ((gate * blocks + done_block) * filled + done_group) * line
                    target = transposed_at + (gate * size + done_block * SIDE) * step
                    target += (turn * rows + first + done_group) * one
                    transpose(transposed, source, target, step, min(SIDE, last - first - done_group))
    leave_units()


@compiled
def gru_forward(
    settings: NDArray[np.uint8], weights: Stored, bias: Floats, inner_bias: Floats, entering: Stored, which: Ids,
    gates: Stored, hidden: Floats, outputs: Stored, inner: Stored, first: int, last: int, left: Stored, sums: Floats,
    begin: int, end: int, members: int, counter: Ids,
) -> None:  # fmt: skip
    """Run a GRU.

    Args:
        settings: as for `use_units`.
        weights: recurrent ones, packed (H, 3 H).
        bias: (3 H,), outside the reset; inner_bias: (H,), inside it.
        entering, which, gates: as for `lstm_forward`, (N, 3 H), (T, B) and (T, B, 3 H).
        hidden: (B, H), the state before; becomes that after.
        outputs, inner: (T, B, H), are filled; the latter with what the reset gate acts on.
        left, sums: (2, H / 32, M, 32) zeros, and (2, 3, 32, 32): room to compute in.
    """
    turns, rows, size = outputs.shape
    blocks, filled = left.shape[1], left.shape[2]
    groups = filled // SIDE
    weights_at, bias_at, inner_bias_at, entering_at, gates_at = (
        weights.ctypes.data, bias.ctypes.data, inner_bias.ctypes.data, entering.ctypes.data, gates.ctypes.data
    )  # fmt: skip
    hidden_at, outputs_at, inner_at, left_at, sums_at = (
        hidden.ctypes.data, outputs.ctypes.data, inner.ctypes.data, left.ctypes.data, sums.ctypes.data
    )  # fmt: skip
    _enter(hidden, first, last, left[0], begin, end)
    one = width(weights)
    line = SIDE * one  # bytes of 32 elements
    use_units(settings)
    for turn in range(turns):
        if members > 1:
            meet(counter, members * (turn + 1))
        half = blocks * filled * line
        now, following = left_at + turn % 2 * half, left_at + (turn + 1) % 2 * half
        for at in range(begin * groups, end * groups + 1):
            block, group = at // groups, at % groups
            packed, found = weights_at + block * blocks * SIDE * line, sums_at + at % 2 * 3 * _SQUARE * 4
            # While the sums of some rows and units are computed, those before become gates.
            done_block, done_group = (at - 1) // groups, (at - 1) % groups
            square, reached, due = 0, 0, 0
            for each in range(SIDE):
                if at < end * groups:
                    due += 3 * blocks
                    square, reached, due = multiply(
                        weights, now + group * SIDE * line, filled * line, packed, blocks * blocks * SIDE * line, found,
                        blocks, last - first - group * SIDE, square, reached, due,
                    )  # fmt: skip
                place = done_group * SIDE + each
                if at > begin * groups and place < last - first:
                    unit = (turn * rows + first + place) * size + done_block * SIDE
                    e = entering_at + (which[turn, first + place] * size + done_block * SIDE) * 3 * one
                    g = gates_at + ((turn * rows + first + place) * size + done_block * SIDE) * 3 * one
                    s = sums_at + ((at - 1) % 2 * 3 * SIDE + each) * SIDE * 4
                    b = bias_at + done_block * SIDE * 4
                    state = hidden_at + ((first + place) * size + done_block * SIDE) * 4
                    gru(weights, (
                        e, e + line, e + 2 * line,
                        s, s + _SQUARE * 4, s + _SQUARE * 8,
                        b, b + size * 4, b + size * 8,
                        inner_bias_at + done_block * SIDE * 4,
                        state,
                        g, g + line, g + 2 * line,
                        inner_at + unit * one,
                        state,
                        outputs_at + unit * one,
                        following + (done_block * filled + place) * line,
                    ))  # fmt: skip
    leave_units()


@compiled
def gru_backward(
    settings: NDArray[np.uint8], weights: Stored, gates: Stored, inner: Stored, states: Stored, gradient: Stored,
    direct: Floats, transposed: Stored, fresh: Stored, first: int, last: int, left: Stored, sums: Floats,
    begin: int, end: int, members: int, counter: Ids,
) -> None:  # fmt: skip
    """The gradients of a GRU's sums.

    Args:
        weights: recurrent ones, packed (3 H, H).
        gates, inner: what `gru_forward` left; `gates` become the gradients of their sums over inputs.
        states: (T, B, H), before each character.
        gradient: (T, B, H), of the outputs.
        direct: (B, H) zeros, become a part of the gradient of the state before.
        transposed: (4 H, T B), as for `lstm_backward`: of new states, reset and update gates, and of what the reset
            gate acts on.
        fresh: (32, 32) zeros, room for gradients of new states.
        left: (2, 3 H / 32, M, 32) zeros, room to compute in.
        sums: (H / 32, M, 32), gradient of the state after; becomes the other part of that of the state before.
    """
    turns, rows, size = gradient.shape
    groups = sums.shape[1] // SIDE
    blocks, filled, step = sums.shape[0], sums.shape[1], transposed.strides[0]
    weights_at, gates_at, inner_at, states_at = (
        weights.ctypes.data, gates.ctypes.data, inner.ctypes.data, states.ctypes.data
    )  # fmt: skip
    gradient_at, direct_at, transposed_at, left_at, sums_at = (
        gradient.ctypes.data, direct.ctypes.data, transposed.ctypes.data, left.ctypes.data, sums.ctypes.data
    )  # fmt: skip
    new_at, in_rows = fresh.ctypes.data, floats(weights)
    one = width(weights)
    line = SIDE * one  # bytes of 32 elements
    use_units(settings)
    for turn in range(turns - 1, -2, -1):
        if members > 1:
            meet(counter, members * (turns - turn))
        half = 3 * blocks * filled * line
        now, following = left_at + turn % 2 * half, left_at + (turn + 1) % 2 * half
        for at in range(begin * groups, end * groups + 1):
            block, group = at // groups, at % groups
            packed = weights_at + block * blocks * 3 * SIDE * line
            found = sums_at + (block * filled + group * SIDE) * SIDE * 4
            done_block, done_group = (at - 1) // groups, (at - 1) % groups * SIDE
            square, reached, due = 0, 0, 0
            for each in range(SIDE):
                if turn < turns - 1 and at < end * groups:
                    due += 3 * blocks
                    square, reached, due = multiply(
                        weights, now + group * SIDE * line, filled * line, packed, 0, found,
                        3 * blocks, last - first - group * SIDE, square, reached, due,
                    )  # fmt: skip
                place = done_group + each
                if turn >= 0 and at > begin * groups and place < last - first:
                    row = first + place
                    unit = (turn * rows + row) * size + done_block * SIDE
                    g = gates_at + ((turn * rows + row) * size + done_block * SIDE) * 3 * one
                    to, gate = following + (done_block * filled + place) * line, blocks * filled * line
                    straight = direct_at + (row * size + done_block * SIDE) * 4
                    given = (
                        g, g + line, g + 2 * line,
                        inner_at + unit * one,
                        states_at + unit * one,
                        gradient_at + unit * one,
                        sums_at + (done_block * filled + place) * SIDE * 4,
                        straight,
                    )  # fmt: skip
                    left_to = (to, to + gate, to + 2 * gate)
                    if in_rows:
                        t = transposed_at + ((turn * rows + row) * 4 * size + done_block * SIDE) * one
                        new, reset, update, inside = t, t + size * one, t + 2 * size * one, t + 3 * size * one
                        gru_gradient_in_rows(weights, (*given, reset, update, new, *left_to, inside, straight))
                    else:
                        gates_to = (g, g + line, g + 2 * line)
                        gru_gradient(weights, (*given, *gates_to, *left_to, new_at + each * line, straight))
            if turn >= 0 and at > begin * groups and not in_rows:
                count = min(SIDE, last - first - done_group)
                target = transposed_at + done_block * SIDE * step + (turn * rows + first + done_group) * one
                transpose(transposed, new_at, target, step, count)
                for gate in range(3):
                    source = following + ((gate * blocks + done_block) * filled + done_group) * line
                    target += size * step
                    transpose(transposed, source, target, step, count)
    leave_units()


@compiled
def sums_over_time(transposed: Stored, first: int, last: int, out: Floats) -> None:
    """The sums of each row (N, M) from `first` up to `last`, into `out` (N,)."""
    columns, line = transposed.shape[1], SIDE * width(transposed)
    totals = np.empty(_APART * SIDE, np.float32)
    for row in range(first, last):
        totals[:] = 0
        row_at = transposed.ctypes.data + row * transposed.strides[0]
        for block in range(columns // SIDE):
            total = totals.ctypes.data + block % _APART * SIDE * 4
            _add(transposed, (total, row_at + block * line, total))
        found = np.float32(0)
        for place in range(len(totals)):
            found += totals[place]
        for column in range(columns // SIDE * SIDE, columns):
            found += number(transposed[row, column])
        out[row] = found


def pad(size: int) -> int:
    """The next multiple of 32."""
    return -(-size // SIDE) * SIDE
