"""The rules for the next id, as tables that compiled code can read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rules:
    """What rows may write next.

    Args:
        masks: (M, V), M sets of allowed ids; at any time one of them holds for a row.
        next_mask: (M, V), the number of the mask that holds after an id; below zero where there is none yet, and the
            row stops.
        stop_after: (V,), the ids behind which a row stops.
    """

    masks: NDArray[np.bool_]
    next_mask: NDArray[np.int64]
    stop_after: NDArray[np.bool_]
