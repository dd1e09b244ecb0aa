"""How hidden units go with features of a text: correlations by one matrix product, areas under ROC curves by ranks."""

import numpy as np
from numpy.typing import NDArray

from chargen.insight.features import Feature

SMALLEST = 1e-3
"""A hidden unit that varies less than this is constant: float16 tells no smaller differences."""
Floats = NDArray[np.float64]


class Correlations:
    """Correlations of K features with D hidden units, over a part of a text.

    Args:
        columns: the features of the whole text.
        begin: of the part.
        end: of the part.
    """

    def __init__(self, columns: list[Feature], begin: int, end: int) -> None:
        parts = [column[begin:end] for column in columns]
        self._columns, self._at, self._count = columns, begin, end - begin
        self._means = np.array([part.mean(dtype=np.float64) for part in parts]).reshape(-1, 1)
        self._deviations = np.array([part.std(dtype=np.float64) for part in parts]).reshape(-1, 1)
        self._sums, self._squares, self._products = (np.zeros(()) for _ in range(3))

    def add(self, states: NDArray[np.float32]) -> None:
        """Take hidden units.

        Args:
            states: (n, D), those of the next characters.
        """
        end = self._at + len(states)
        parts = [column[self._at : end] for column in self._columns]
        scaled = (np.array(parts).reshape(-1, len(states)) - self._means) / self._deviations
        self._products = self._products + scaled.astype(np.float32) @ states
        self._sums = self._sums + states.sum(0, dtype=np.float64)
        self._squares = self._squares + np.einsum("nd,nd->d", states, states, dtype=np.float64)
        self._at = end

    def finish(self) -> "Correlations":
        """Compute `r` (K, D), and the mean and the standard deviation (D,) of each hidden unit."""
        self.mean: Floats = self._sums / self._count
        self.deviation = np.sqrt(np.maximum(self._squares / self._count - self.mean**2, 0))
        covariances = self._products / self._count
        self.r = np.where(self.deviation > SMALLEST, covariances / np.maximum(self.deviation, SMALLEST), 0)
        return self

    def best(self, number: int) -> NDArray[np.int64]:
        """The hidden units that are among the best of a feature, sorted.

        Args:
            number: how many of each feature.
        """
        order = np.argsort(-np.abs(self.r), axis=1, kind="stable")[:, :number]
        return np.unique(order)

    def sides(self, row: int, column: int) -> tuple[float, float]:
        """What a hidden unit is, on average, where a feature is true and where it is not.

        Of a feature that is a number: what is to be expected one standard deviation above and below its mean.

        Args:
            row: of the feature.
            column: of the hidden unit.
        """
        slope, mean = self.r[row, column] * self.deviation[column], self.mean[column]
        above = below = 1.0
        if self._columns[row].dtype == np.bool_:  # true and false are so many standard deviations away
            above, below = (1 - self._means[row, 0], self._means[row, 0]) / self._deviations[row, 0]
        return float(np.clip(mean + slope * above, -1, 1)), float(np.clip(mean - slope * below, -1, 1))


def roc_areas(states: NDArray[np.float16], columns: list[Feature]) -> Floats:
    """Compute the area under the ROC curve of each feature that is bool and of each hidden unit.

    It is the Mann-Whitney statistic over the number of pairs, from ranks: a half for each pair of equal values.

    Args:
        states: (n, C), hidden units.
        columns: K features (n,) of as many characters.

    Returns:
        (K, C); what stands there of a feature that is a number means nothing.
    """
    members = np.array([column if column.dtype == np.bool_ else np.zeros(len(column), bool) for column in columns])
    counts = members.sum(1)
    pairs = np.maximum(counts * (len(states) - counts), 1)
    areas = np.empty((len(columns), states.shape[1]))
    for column in range(states.shape[1]):
        sums = members @ _ranks(states[:, column])
        areas[:, column] = (sums - counts * (counts + 1) / 2) / pairs
    return areas


def _ranks(values: NDArray[np.float16]) -> Floats:
    """The rank of each number, from 1; equal numbers share the mean of theirs. Float16 is counted, not sorted."""
    bits = np.ascontiguousarray(values).view(np.uint16)
    bits = np.where(bits == 0x8000, np.uint16(0), bits)  # -0 is 0
    keys = np.where(bits & 0x8000, ~bits, bits | 0x8000).astype(np.intp)
    counts = np.bincount(keys, minlength=1 << 16)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[keys]
    return ranks
