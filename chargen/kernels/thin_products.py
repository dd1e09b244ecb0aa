"""Gradients of weights that are never stored: products of two thin matrices, used while they are in the cache.

A window of T characters gives weights (N, M) the gradient left @ right, with left (N, T) and right (T, M), which is
packed as the weights in `decode_matmul` are: (ceil(M / 64), T, 64).
"""

import numpy as np

from chargen.kernels.bf16 import Floats
from chargen.kernels.decode_matmul import WIDTH, add_products
from chargen.kernels.jit import compiled

_ROWS = 16
"""Rows of a gradient that are computed before they are used."""
_HALF, _ONE = np.float32(0.5), np.float32(1)


@compiled
def _multiply(left: Floats, right: Floats, first: int, last: int, out: Floats) -> None:
    """Compute some rows of a product."""
    out[:] = 0
    add_products(right.ravel(), 0, 0, len(right), left[first:last], last - first, left.shape[1], out)


@compiled
def add_squares(left: Floats, right: Floats, squares: Floats, start: int, stop: int) -> None:
    """Add the square of a gradient to some rows.

    Args:
        left: (N, T).
        right: (T, M), packed.
        squares: (N, M), to which squares are added.
        start: the first row.
        stop: the row to stop before.
    """
    gradient = np.empty((_ROWS, len(right) * WIDTH), np.float32)
    for first in range(start, stop, _ROWS):
        last = min(first + _ROWS, stop)
        _multiply(left, right, first, last, gradient)
        for row in range(first, last):
            square, slope = squares[row], gradient[row - first]
            for column in range(len(square)):
                square[column] += slope[column] * slope[column]


@compiled
def follow(
    left: Floats, right: Floats, rule: tuple[float, float, float], rms: Floats, trained: Floats, weights: Floats,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Change some rows of weights by a gradient, then move them a part of the way back to where they were.

    Args:
        left: (N, T).
        right: (T, M), packed.
        rule: the learning rate; what is added to the RMS gradients that a gradient is divided by; and the part of the
            way back for each unit of the RMS gradient, of which at most all is gone.
        rms: (N, M), their RMS gradients.
        trained: (N, M), where they were.
        weights: (N, M), changed.
        start: the first row.
        stop: the row to stop before.
    """
    lr, floor, decay = np.float32(rule[0]), np.float32(rule[1]), np.float32(rule[2])
    gradient = np.empty((_ROWS, len(right) * WIDTH), np.float32)
    for first in range(start, stop, _ROWS):
        last = min(first + _ROWS, stop)
        _multiply(left, right, first, last, gradient)
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
