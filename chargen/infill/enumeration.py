"""Every possible gap, where there are few enough."""

import numpy as np

from chargen.errors import ChargenError
from chargen.infill.prefixes import NONE_ALLOWED, Grower, Prefixes

MOST_SCORED = 10_000
"""Up to so many gaps are scored one and all."""


def few_enough(letters: int, lengths: range) -> bool:
    """True where there are at most MOST_SCORED gaps of these lengths.

    Args:
        letters: how many ids a gap may hold.
    """
    total, of_length = 0, 1
    for length in range(lengths.stop):
        total += of_length * (length >= lengths.start)
        of_length = min(of_length * letters, MOST_SCORED + 1)
        if total > MOST_SCORED or not of_length:
            break
    return total <= MOST_SCORED


def every_gap(grower: Grower, root: Prefixes, lengths: range) -> Prefixes:
    """Every allowed gap. Raises ChargenError where there is none."""
    found = root.take([0] if 0 in lengths else [])
    growing = root
    for length in range(1, lengths.stop):
        growing = growing.take(np.flatnonzero(~grower.ended(growing)))  # nothing follows a stop text
        rows, ids = np.nonzero(grower.allowed(growing))
        if not len(rows):
            break
        growing = grower.grow(growing, rows, ids)
        if length in lengths:
            found = found.join(growing)
    if not found.texts:
        raise ChargenError(NONE_ALLOWED)
    return found
