"""The filters of `chargen.decoding.choose`, compiled: functions of the same names and arguments, in place."""

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.jit import compiled

Weights = NDArray[np.float64]


@compiled
def apply_filters(weights: Weights, settings: Weights) -> None:
    """Apply filters one after the other.

    Args:
        weights: (V,); 0 takes the place of what is dropped.
        settings: (F,), one for each filter of `FILTERS`, in its order; NaN where it is off.
    """
    if not np.isnan(settings[0]):
        top_k(weights, settings[0])
    if not np.isnan(settings[1]):
        top_p(weights, settings[1])
    if not np.isnan(settings[2]):
        min_p(weights, settings[2])


@compiled
def top_k(weights: Weights, count: float) -> None:
    """Keep so many of the first."""
    weights[int(count) :] = 0


@compiled
def top_p(weights: Weights, share: float) -> None:
    """Keep the first that together reach a share of the sum."""
    total = 0.0
    for weight in weights:
        total += weight
    cumulative = 0.0
    for position in range(len(weights)):
        cumulative += weights[position]
        if cumulative >= share * total:
            weights[position + 1 :] = 0
            return


@compiled
def min_p(weights: Weights, share: float) -> None:
    """Keep what is at least a share of the largest, which is 1."""
    for v in range(len(weights)):
        if weights[v] < share:
            weights[v] = 0
