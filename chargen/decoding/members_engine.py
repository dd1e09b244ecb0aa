"""Several networks that predict together, step by step: the average of their probabilities."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.choose import log_softmax
from chargen.decoding.numpy_engine import Engine, State


class MembersEngine(Engine):
    """Averages what any engines of one shape predict: logits are logarithms of the means of their probabilities.

    The reference for the compiled engine, which does the same inside its loop.

    Args:
        engines: of the networks, one or more.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        first = engines[0]
        super().__init__(first.config, first.size, networks=len(engines))
        self.engines, self.many_rows = engines, first.many_rows

    def _step(self, ids: NDArray[np.int64], state: State) -> tuple[NDArray[np.float32], State]:
        steps = [engine._step(ids, own) for engine, own in zip(self.engines, self._split(state), strict=True)]
        return average([logits for logits, _ in steps]), tuple(layer for _, layers in steps for layer in layers)

    def _read(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], logits: NDArray[np.float32], state: State
    ) -> tuple[NDArray[np.float32], State]:
        steps = [
            engine._read(ids, counts, logits, own) for engine, own in zip(self.engines, self._split(state), strict=True)
        ]
        averaged = average([logits for logits, _ in steps])
        averaged[counts == 0] = logits[counts == 0]
        return averaged, tuple(layer for _, layers in steps for layer in layers)

    def _split(self, state: State) -> list[State]:
        """The state of each network."""
        size = self.config.num_layers
        return [state[first : first + size] for first in range(0, len(state), size)]


def average(logits: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The logarithms of the means of probabilities.

    Args:
        logits: (R, V), of each network; rows that are not finite in one are not in the result.

    Returns:
        (R, V).
    """
    with np.errstate(invalid="ignore", over="ignore"):
        logs = [log_softmax(rows) for rows in logits]
        averaged: NDArray[np.float32] = (np.logaddexp.reduce(logs) - np.log(len(logs))).astype(np.float32)
    return averaged
