"""Where a model loses: by class of character, by how much it has read, and whether its probabilities come true."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = ("letters", "digits", "spaces", "punctuation", "line ends", "others")
"""Letters have their combining marks, digits all numbers, punctuation the signs of mathematics and money."""
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_CLASS_BY_CATEGORY = {"L": 0, "M": 0, "N": 1, "P": 3, "Zs": 2, "Sm": 3, "Sc": 3, "Sk": 3}

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class LossTable:
    """What the characters of some kinds cost.

    Args:
        names: of the kinds (K).
        counts: (K,), how many characters of each were scored.
        nats: (K,), what they cost together.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    nats: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float64]:
        """(K,), nats per character; nan where there is none."""
        return _divide(self.nats, self.counts)


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often what a model expected with some probability came true.

    Args:
        edges: (K + 1,), the borders of the bins of probability.
        counts: (K,), how many expectations each bin has.
        predicted: (K,), their mean probability; nan where there is none.
        observed: (K,), the share of them that came true; nan where there is none.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of the two, weighted by counts; 0 without expectations.

        Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", 2015.
        """
        filled = self.counts > 0
        distances = np.abs(self.predicted - self.observed)[filled]
        return float(distances @ self.counts[filled] / max(1, self.counts.sum()))


def classify(characters: str) -> NDArray[np.int64]:
    """The class of each character, as its number in `CLASSES`.

    Args:
        characters: (N).
    """
    return np.fromiter(map(_class_of, characters), np.int64, len(characters))


@cache
def _class_of(character: str) -> int:
    if character in LINE_ENDS:
        return CLASSES.index("line ends")
    if character == "\t":
        return CLASSES.index("spaces")
    category = unicodedata.category(character)
    return _CLASS_BY_CATEGORY.get(category, _CLASS_BY_CATEGORY.get(category[0], CLASSES.index("others")))


def loss_by_class(text: str, log_probs: Floats) -> LossTable:
    """Sum losses by class of character.

    Args:
        text: the characters (N).
        log_probs: (N,), of each in nats; nan where it was not scored.
    """
    return _tabulate(CLASSES, classify(text), log_probs)


def loss_by_distance(distances: NDArray[np.int64], log_probs: Floats) -> LossTable:
    """Sum losses by how many characters the model had read before: 0, 1, 2-3, 4-7 and so on.

    Args:
        distances: (N,), how many characters stand between each and the start of its text or record.
        log_probs: (N,), of each in nats; nan where it was not scored.
    """
    bins = np.frexp(distances)[1]  # 0 for 0, k for 2^(k - 1) to 2^k - 1
    names = ["0", "1", *(f"{2**power:,}\u2013{2 ** (power + 1) - 1:,}" for power in range(1, 63))]
    return _tabulate(names[: int(bins.max(initial=-1)) + 1], bins, log_probs)


def _tabulate(names: Sequence[str], kinds: NDArray[Any], log_probs: Floats) -> LossTable:
    scored = ~np.isnan(log_probs)
    kinds, size = kinds[scored], len(names)
    sums = np.bincount(kinds, -log_probs[scored].astype(np.float64), size).astype(np.float64)
    return LossTable(tuple(names), np.bincount(kinds, minlength=size).astype(np.int64), sums)


def calibrate(probabilities: Floats, came_true: NDArray[np.bool_], num_bins: int = 10) -> Calibration:
    """Compare probabilities with how often what they were of came true, in bins of equal width.

    Args:
        probabilities: (N,), of what was expected.
        came_true: (N,), whether it came true.
        num_bins: K.
    """
    bins = np.minimum((probabilities * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins).astype(np.int64)
    sums = (np.bincount(bins, weights.astype(np.float64), num_bins) for weights in (probabilities, came_true))
    return Calibration(np.linspace(0, 1, num_bins + 1), counts, *(_divide(each, counts) for each in sums))


def _divide(sums: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    means = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means
