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
        self.mixture, self.rows = mixture, rows

    def nats(
        self, rows: NDArray[Any], positions: NDArray[Any], chosen: slice, logits: NDArray[Any]
    ) -> NDArray[np.float64]:
        """What ids cost the mixture.

        Args:
            rows: (n,), the row of each.
            positions: (n,), its place in the row.
            chosen: which of them.
            logits: (m, V), what the network predicts for these.
        """
        return self.mixture.nats(*self._cut_out(rows[chosen], positions[chosen]), logits)

    def mix(self, rows: NDArray[Any], positions: NDArray[Any], logits: NDArray[Any]) -> NDArray[np.float32]:
        """The logits of the mixture (n, V), which are logarithms of probabilities.

        Args:
            rows: (n,), the row of each id that is predicted.
            positions: (n,), its place in the row.
            logits: (n, V), the network's.
        """
        return self.mixture.mix(*self._cut_out(rows, positions), logits)

    def _cut_out(self, rows: NDArray[Any], positions: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Some ids of rows (n,) and as many before them as contexts have, one row behind the other; and their places.

        Rows may be long texts, of which there is no other copy.
        """
        numbers, which = np.unique(rows, return_inverse=True)
        first, last = np.full(len(numbers), np.iinfo(np.int64).max), np.zeros(len(numbers), np.int64)
        np.minimum.at(first, which, positions)
        np.maximum.at(last, which, positions)
        first = np.maximum(first - self.mixture.context, 0)
        pieces = [self.rows[row][begin : end + 1] for row, begin, end in zip(numbers, first, last, strict=True)]
        ids = np.concatenate([part for piece in pieces for part in ([NO_ID], piece)] or [np.zeros(0)])
        sizes = np.array([len(piece) + 1 for piece in pieces], np.int64)
        return ids.astype(np.int64), (np.cumsum(sizes) - sizes + 1 - first)[which] + positions
