"""The rules for the next id, as tables that compiled code can follow."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rules:
    """What rows may write next.

    Args:
        masks: (M, V), the ids allowed where one thing or another has been written.
        follow: (M, V), which mask holds after an id; below zero where that is not known, and the row pauses.
        pause: (V,), ids behind which a row pauses.
    """

    masks: NDArray[np.bool_]
    follow: NDArray[np.int64]
    pause: NDArray[np.bool_]
