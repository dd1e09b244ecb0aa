"""The rules for the next id, as tables that compiled code can follow."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rules:
    """What rows may write next.

    Args:
        masks: (M, V), the ids allowed where one thing or another has been written.
        next_mask: (M, V), which mask holds after an id; below zero where that is not known, and the row stops.
        stop_after: (V,), ids behind which a row stops.
    """

    masks: NDArray[np.bool_]
    next_mask: NDArray[np.int64]
    stop_after: NDArray[np.bool_]
