"""Curves in one row of text."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.:-=+*#"
"""Heights from the least to the largest: as blocks, and for terminals that have none."""


def resample(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Take the means of so many equal stretches of a curve.

    Args:
        values: (N,), of which NaN are left out.
        width: how many stretches.

    Returns:
        The means (width,), of a short curve with values more than once; empty for a curve without values.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return values
    borders = itertools.pairwise(len(values) * number // width for number in range(width + 1))
    return np.array([values[start : max(end, start + 1)].mean() for start, end in borders])


def sparkline(values: Sequence[float], low: float, high: float, marks: str = BLOCKS) -> str:
    """Draw positive values as marks of so many heights, by their logarithms.

    Args:
        values: the curve.
        low: the value of the lowest mark.
        high: the value of the highest; values beyond are drawn as these.
        marks: from the lowest to the highest.
    """
    span = math.log(high / low) if 0 < low < high else 0.0
    row = ""
    for value in values:
        share = math.log(max(value, low) / low) / span if span else 0.0
        row += marks[min(int(share * len(marks)), len(marks) - 1)]
    return row
