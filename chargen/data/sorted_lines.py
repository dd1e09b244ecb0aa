"""Whether the lines of a text are a sorted list: then its end, which validates, is of other words than its beginning.

Lists sorted by a number or a time are none here: the end of a log or of a diary is the future, and just what its model
will be asked about.
"""

import bisect
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.vocabulary import Vocabulary

LINES, LONGEST, FEWEST = 500, 200, 100
"""How many lines of a part are looked at, how much of each, and how many are needed to judge."""
ORDERED, APART = 0.9, 0.6
"""The least share of lines that come after the one before them, 0.5 in a novel; and how far the lines of both parts, in
the order of an alphabet, must be apart: 1 where one list was cut, 0.6 for the end of the last of five, 0 in a novel.
"""


def are_sorted(train: NDArray[Any], valid: NDArray[Any], vocabulary: Vocabulary) -> bool:
    """Whether a validation part, ids (N,), is the end of a sorted list: it begins its lines otherwise than the training
    part does, even where that holds a few more such lists.

    Sorted is by words, up or down, with or without regard to capitals; some lines may be out of place.
    """
    learned, scored = (_sample(ids, vocabulary) for ids in (train, valid))
    lines = learned + scored
    if len(lines) < FEWEST or len(set(lines)) < len(lines) / 2 or _numbered(lines):
        return False
    return any(
        _ordered(keys[len(learned) :]) >= ORDERED and _apart(keys[: len(learned)], keys[len(learned) :]) >= APART
        for keys in (lines, [line.casefold() for line in lines])
    )


def _sample(ids: NDArray[Any], vocabulary: Vocabulary) -> list[str]:
    """The beginnings of up to 500 evenly spaced lines of a text (N,), in its order."""
    ends = [vocabulary.encode(end, "skip") for end in "\n\r"]  # a lone CR ends a line where no LF is near
    starts = set()
    for at in np.unique(np.linspace(0, max(len(ids) - 1, 0), LINES).astype(np.int64)).tolist():
        end = _find(ids[at : at + 10 * LONGEST], ends)
        if end is not None:
            starts.add(at + end + 1)
    lines = []
    for start in sorted(starts):
        line = ids[start : start + LONGEST]
        lines.append(vocabulary.decode(line[: _find(line, ends)]))
    return [line for line in lines if line.strip()]


def _find(ids: NDArray[Any], wanted: Sequence[NDArray[Any]]) -> int | None:
    for end in wanted:
        if len(end) and len(places := np.flatnonzero(ids == end[0])):
            return int(places[0])
    return None


def _ordered(keys: list[str]) -> float:
    """The share of lines that come after the one before, or before it; whichever is larger, of those that differ."""
    up = [line < following for line, following in itertools.pairwise(keys) if line != following]
    return max(sum(up), len(up) - sum(up)) / max(len(up), FEWEST / 20)


def _apart(learned: list[str], scored: list[str]) -> float:
    """The largest difference of the two shares of lines that come before any line (Kolmogorov and Smirnov's)."""
    learned, scored = sorted(learned), sorted(scored)
    shares = ([bisect.bisect(keys, line) / len(keys) for keys in (learned, scored)] for line in learned + scored)
    return max((abs(one - other) for one, other in shares), default=0.0)


def _numbered(lines: list[str]) -> bool:
    """True where most lines differ from the next one in a digit first."""
    numbers = 0
    for line, following in itertools.pairwise(lines):
        differing = next(((a, b) for a, b in zip(line, following, strict=False) if a != b), ("", ""))
        numbers += any(map(str.isdigit, differing))
    return numbers > len(lines) / 2
