"""Whether the lines of a text are a sorted list: then its end, which validates, is of other words than its beginning.

Lists sorted by a number or a time are none here: the end of a log or of a diary is the future, and just what its model
will be asked about.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.text.vocabulary import Vocabulary

LINES, LONGEST, FEWEST = 1000, 200, 100
"""How many lines are looked at, how much of each, and how many are needed to judge."""
CORRELATION = 0.95
"""Between the places of lines and their ranks; 1 where all are sorted, 0 in a novel, 0.2 for the months of a year."""


def sample_lines(ids: NDArray[Any], vocabulary: Vocabulary, count: int = LINES) -> list[str]:
    """The beginnings of up to `count` evenly spaced lines of a text (N,), in its order."""
    ends = vocabulary.encode("\n", "skip")
    if not len(ends) or not len(ids):
        return []
    starts = set()
    for at in np.unique(np.linspace(0, len(ids) - 1, count).astype(np.int64)).tolist():
        end = _find(ids[at : at + 10 * LONGEST], ends[0])
        if end is not None:
            starts.add(at + end + 1)
    lines = []
    for start in sorted(starts):
        line = ids[start : start + LONGEST]
        lines.append(vocabulary.decode(line[: _find(line, ends[0])]))
    return [line for line in lines if line.strip()]


def _find(ids: NDArray[Any], wanted: Any) -> int | None:
    places = np.flatnonzero(ids == wanted)
    return int(places[0]) if len(places) else None


def are_sorted(lines: list[str]) -> bool:
    """True for a list sorted by its words, up or down, with or without regard to capitals; some may be out of place."""
    if len(lines) < FEWEST or len(set(lines)) < len(lines) / 2 or _numbered(lines):
        return False
    return any(abs(_correlation(keys)) >= CORRELATION for keys in (lines, [line.casefold() for line in lines]))


def _correlation(keys: list[str]) -> float:
    ranks = np.argsort(sorted(range(len(keys)), key=keys.__getitem__))
    return float(np.corrcoef(ranks, np.arange(len(keys)))[0, 1])


def _numbered(lines: list[str]) -> bool:
    """True where most lines differ from the next one in a digit first."""
    numbers = 0
    for line, following in itertools.pairwise(lines):
        differing = next(((a, b) for a, b in zip(line, following, strict=False) if a != b), ("", ""))
        numbers += any(map(str.isdigit, differing))
    return numbers > len(lines) / 2
