"""Gradients of weights that are never stored: products of two thin matrices, used while they are in the cache.

A window of T characters gives weights (N, M) the gradient left.T @ right, with left (T, N) and right (T, M).
"""

import numpy as np

from chargen.kernels.bf16 import Floats
from chargen.kernels.decode_matmul import WIDTH, add_products
from chargen.kernels.jit import compiled

_ROWS = 16
"""Rows of a gradient that are computed before they are used."""
_HALF, _ONE = np.float32(0.5), np.float32(1)


@compiled
def _pack(right: Floats) -> Floats:
    """Pack the right side as the weights of `decode_matmul`, (ceil(M / 64), T, 64)."""
    length, size = right.shape
    packed = np.zeros((-(-size // WIDTH), length, WIDTH), np.float32)
    for block in range(len(packed)):
        for t in range(length):
            for column in range(min(WIDTH, size - block * WIDTH)):
                packed[block, t, column] = right[t, block * WIDTH + column]
    return packed


@compiled
def _multiply(left: Floats, packed: Floats, first: int, last: int, out: Floats) -> None:
    """Compute some rows of a product."""
    rows = np.empty((last - first, len(left)), np.float32)
    for t in range(len(left)):
        for row in range(last - first):
            rows[row, t] = left[t, first + row]
    out[:] = 0
    add_products(packed.ravel(), 0, 0, len(packed), rows, last - first, len(left), out)


@compiled
def add_squares(left: Floats, right: Floats, squares: Floats, start: int, stop: int) -> None:
    """Add the square of a gradient to some rows.

    Args:
        left: (T, N).
        right: (T, M).
        squares: (N, M), to which squares are added.
        start: the first row.
        stop: the row to stop before.
    """
    packed = _pack(right)
    gradient = np.empty((_ROWS, len(packed) * WIDTH), np.float32)
    for first in range(start, stop, _ROWS):
        last = min(first + _ROWS, stop)
        _multiply(left, packed, first, last, gradient)
        for row in range(first, last):
            square, slope = squares[row], gradient[row - first]
            for column in range(len(square)):
                square[column] += slope[column] * slope[column]


@compiled
def follow(
    rule: tuple[float, float, float], left: Floats, right: Floats, rms: Floats, trained: Floats, weights: Floats,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Change some rows of weights by a gradient, then move them a part of the way back to where they were.

    Args:
        rule: the learning rate; what is added to the RMS gradients that a gradient is divided by; and the part of the
            way back for each unit of the RMS gradient, of which at most all is gone.
        left: (T, N).
        right: (T, M).
        rms: (N, M), their RMS gradients.
        trained: (N, M), where they were.
        weights: (N, M), changed.
        start: the first row.
        stop: the row to stop before.
    """
    lr, floor, decay = np.float32(rule[0]), np.float32(rule[1]), np.float32(rule[2])
    packed = _pack(right)
    gradient = np.empty((_ROWS, len(packed) * WIDTH), np.float32)
    for first in range(start, stop, _ROWS):
        last = min(first + _ROWS, stop)
        _multiply(left, packed, first, last, gradient)
        for row in range(first, last):
            weight, size, slope, goal = weights[row], rms[row], gradient[row - first], trained[row]
            for column in range(len(weight)):
                weight[column] -= lr * slope[column] / (size[column] + floor)
            if decay > 0:
                for column in range(len(weight)):
                    part = min(decay * size[column], _ONE)
                    way = goal[column] - weight[column]
                    near, far = weight[column] + part * way, goal[column] - (_ONE - part) * way
                    weight[column] = near if part < _HALF else far
