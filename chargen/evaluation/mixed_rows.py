"""Counts beside what a network predicts for rows of ids that are read side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.counting.mixture import NO_ID, Mixture


class MixedRows:
    """Mixes predictions for ids of rows with counts. A row's first id, behind nothing, is left to the network.

    Args:
        mixture: of the direction in which the rows are read.
        rows: the ids of each, in the order of reading.
    """

    def __init__(self, mixture: Mixture, rows: Sequence[NDArray[Any]]) -> None:
        self.mixture = mixture
        self.ids = np.concatenate([part for row in rows for part in ([NO_ID], row)] or [np.zeros(0)]).astype(np.int64)
        sizes = np.array([len(row) + 1 for row in rows], np.int64)
        self.starts = np.cumsum(sizes) - sizes + 1

    def nats(
        self, rows: NDArray[Any], positions: NDArray[Any], nats: NDArray[np.float64], entropies: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """What ids cost the mixture.

        Args:
            rows: (n,), the row of each.
            positions: (n,), its place in the row.
            nats: (n,), what each costs the network.
            entropies: (n,), of what the network predicted.
        """
        mixed = self.mixture.nats(self.ids, self.starts[rows] + positions, nats, entropies)
        return np.where(positions > 0, mixed, nats)

    def mix(self, rows: NDArray[Any], positions: NDArray[Any], logits: NDArray[Any]) -> NDArray[np.float32]:
        """The logits of the mixture (n, V), which are logarithms of probabilities.

        Args:
            rows: (n,), the row of each id that is predicted.
            positions: (n,), its place in the row.
            logits: (n, V), the network's.
        """
        mixed = self.mixture.mix(self.ids, self.starts[rows] + positions, logits)
        mixed[positions == 0] = logits[positions == 0]
        return mixed
