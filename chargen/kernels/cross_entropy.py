"""The loss of logits and its gradient, computed row by row, so that a row stays in the fastest cache."""

import math

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.amx import SIDE
from chargen.kernels.bf16 import Floats, Stored
from chargen.kernels.bf16_ir import to_float, to_stored
from chargen.kernels.jit import compiled
from chargen.kernels.simd import Values, address, exp, fuse, itemsize, maximum

GROUP = 32
"""Rows whose gradients of the bias are added up together, so that no sum depends on the number of threads."""
_CHAINS = 4
"""Partial results that are kept of each reduction, so that no operation waits for the one before."""


def _exp_logit(logit: Values, bias: Values, max_logit: Values) -> Values:
    """e**(logit + bias - max), bounded below: products with subnormal gradients take ten times as long."""
    return exp(logit + bias - max_logit, 60)


_update_max = fuse(lambda top, logit, bias: (maximum(top, logit + bias),), "fwf", "f")
_add_exps = fuse(lambda total, *logit: (total + _exp_logit(*logit), _exp_logit(*logit)), "fwff", "ff")
_add = fuse(lambda total, more: (total + more,), "ff", "f")
_max = fuse(lambda first, second: (maximum(first, second),), "ff", "f")
_to_gradient = fuse(lambda power, scale, total: (power * scale, total + power * scale), "fff", "wf")


@compiled
def loss_and_error(
    logits: Stored, bias: Floats, targets: NDArray[np.int64], grad_scale: float,
    nats: NDArray[np.float64], grad_bias: Floats, first_group: int, stop_group: int,
) -> None:  # fmt: skip
    """Compute the cross-entropy of logits and replace them by its gradient.

    Args:
        logits: (N, V) without bias, float32 or bits of bf16; become (p - [target]) times `grad_scale`; V is a multiple
            of 32.
        bias: (V,); -1e30 in columns of padding.
        targets: (N,), ids.
        grad_scale: factor of the gradients.
        nats: (N,), filled with -ln p(target).
        grad_bias: (N / 32, V), filled with the sums of the gradient over groups of 32 rows.
        first_group: the first group to compute.
        stop_group: the group to stop before.
    """
    rows, size = logits.shape
    width = itemsize(logits)
    blocks = size // SIDE
    chains = min(_CHAINS, blocks)
    logits_ptr, bias_ptr = address(logits, 0), address(bias, 0)
    exps, parts, spread = np.empty(size, np.float32), np.empty(_CHAINS * SIDE, np.float32), np.empty(SIDE, np.float32)
    exps_ptr, parts_ptr, spread_ptr = exps.ctypes.data, parts.ctypes.data, spread.ctypes.data
    for group in range(first_group, stop_group):
        grad_bias[group] = 0
        grad_bias_ptr = grad_bias.ctypes.data + group * size * 4
        for row in range(group * GROUP, min((group + 1) * GROUP, rows)):
            row_ptr, target = logits_ptr + row * size * width, targets[row]
            target_logit = np.float64(to_float(logits[row, target])) + np.float64(bias[target])
            parts[:] = np.float32(-1e38)
            for block in range(blocks):
                max_ptr = parts_ptr + block % chains * SIDE * 4
                _update_max(logits, (max_ptr, row_ptr + block * SIDE * width, bias_ptr + block * SIDE * 4, max_ptr))
            for block in range(1, chains):
                _max(logits, (parts_ptr, parts_ptr + block * SIDE * 4, parts_ptr))
            max_logit = parts[0]
            for lane in range(1, SIDE):
                max_logit = max(max_logit, parts[lane])
            spread[:], parts[:] = max_logit, 0
            for block in range(blocks):
                sum_ptr = parts_ptr + block % chains * SIDE * 4
                j = block * SIDE
                _add_exps(
                    logits, (sum_ptr, row_ptr + j * width, bias_ptr + j * 4, spread_ptr, sum_ptr, exps_ptr + j * 4)
                )
            for block in range(1, chains):
                _add(logits, (parts_ptr, parts_ptr + block * SIDE * 4, parts_ptr))
            total = np.float32(0)
            for lane in range(SIDE):
                total += parts[lane]
            nats[row] = math.log(total) + max_logit - target_logit
            exp_scale = np.float32(grad_scale / total)
            spread[:] = exp_scale
            for block in range(blocks):
                j, totals_ptr = block * SIDE, grad_bias_ptr + block * SIDE * 4
                _to_gradient(logits, (exps_ptr + j * 4, spread_ptr, totals_ptr, row_ptr + j * width, totals_ptr))
            logits[row, target] = to_stored(logits, np.float32(exps[target] * exp_scale - np.float32(grad_scale)))
            grad_bias[group, target] -= np.float32(grad_scale)
