"""The loss of logits and its gradient, a row at a time while it is in the fastest cache."""

import math

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.amx import SIDE
from chargen.kernels.bf16 import Floats, Stored
from chargen.kernels.bf16_ir import to_float, to_stored
from chargen.kernels.jit import compiled
from chargen.kernels.simd import Values, address, exp, fuse, itemsize, maximum

GROUP = 32
"""Rows whose gradients of the bias are added up in one place, whatever thread computes them."""
_APART = 4
"""Blocks that are reduced apart from each other, so that none waits for the one before."""


def _power(logit: Values, bias: Values, top: Values) -> Values:
    """Never so small that its share of a gradient is subnormal: products with such numbers take ten times as long."""
    return exp(logit + bias - top, 60)


_top = fuse(lambda top, logit, bias: (maximum(top, logit + bias),), "fwf", "f")
_exps = fuse(lambda total, *logit: (total + _power(*logit), _power(*logit)), "fwff", "ff")
_add = fuse(lambda total, more: (total + more,), "ff", "f")
_largest = fuse(lambda first, second: (maximum(first, second),), "ff", "f")
_errors = fuse(lambda power, scale, total: (power * scale, total + power * scale), "fff", "wf")


@compiled
def loss_and_error(
    logits: Stored, bias: Floats, targets: NDArray[np.int64], share: float,
    nats: NDArray[np.float64], totals: Floats, first: int, last: int,
) -> None:  # fmt: skip
    """Logits (N, V) without bias -> what they cost, and the gradient of that cost.

    Args:
        logits: float32, or bits of bf16; become (p - [target]) times `share`; V is a multiple of 32.
        bias: (V,); -1e30 for what does not count.
        targets: (N,).
        nats: (N,), filled with -ln p(target).
        totals: (N / 32, V), filled with the sums of the gradient over 32 rows.
        first, last: from which to which 32 rows.
    """
    rows, size = logits.shape
    width = itemsize(logits)
    blocks = size // SIDE
    apart = min(_APART, blocks)
    logits_at, bias_at = address(logits, 0), address(bias, 0)
    powers, many, spread = np.empty(size, np.float32), np.empty(_APART * SIDE, np.float32), np.empty(SIDE, np.float32)
    powers_at, many_at, spread_at = powers.ctypes.data, many.ctypes.data, spread.ctypes.data
    for group in range(first, last):
        totals[group] = 0
        totals_at = totals.ctypes.data + group * size * 4
        for row in range(group * GROUP, min((group + 1) * GROUP, rows)):
            row_at, target = logits_at + row * size * width, targets[row]
            of_target = np.float64(to_float(logits[row, target])) + np.float64(bias[target])
            many[:] = np.float32(-1e38)
            for block in range(blocks):
                place = many_at + block % apart * SIDE * 4
                _top(logits, (place, row_at + block * SIDE * width, bias_at + block * SIDE * 4, place))
            for block in range(1, apart):
                _largest(logits, (many_at, many_at + block * SIDE * 4, many_at))
            top = many[0]
            for place in range(1, SIDE):
                top = max(top, many[place])
            spread[:], many[:] = top, 0
            for block in range(blocks):
                place = many_at + block % apart * SIDE * 4
                at = block * SIDE
                _exps(logits, (place, row_at + at * width, bias_at + at * 4, spread_at, place, powers_at + at * 4))
            for block in range(1, apart):
                _add(logits, (many_at, many_at + block * SIDE * 4, many_at))
            total = np.float32(0)
            for place in range(SIDE):
                total += many[place]
            nats[row] = math.log(total) + top - of_target
            scale = np.float32(share / total)
            spread[:] = scale
            for block in range(blocks):
                at, total_at = block * SIDE, totals_at + block * SIDE * 4
                _errors(logits, (powers_at + at * 4, spread_at, total_at, row_at + at * width, total_at))
            logits[row, target] = to_stored(logits, np.float32(powers[target] * scale - np.float32(share)))
            totals[group, target] -= np.float32(share)
