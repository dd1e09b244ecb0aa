"""Where a sample stands before anything is fed or written."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.sampling.stepper import State, Stepper


def fresh(stepper: Stepper, first_logits: NDArray[Any], begin: NDArray[Any]) -> tuple[NDArray[Any], State]:
    """Logits (1, V) and state, one row, of a sample that has read the begin text, or nothing.

    Args:
        first_logits: (V,), for a character that nothing is known about.
        begin: ids of the begin text, in the order of reading; may be none.
    """
    logits, state = first_logits[None], stepper.start(1)
    return stepper.read(begin[None], np.array([len(begin)]), logits, state) if len(begin) else (logits, state)
