"""Every possible gap, where there are few enough."""

import numpy as np

from chargen.errors import ChargenError
from chargen.infill.prefixes import NO_GAP_ALLOWED, Grower, Prefixes

MAX_GAPS = 10_000
"""Up to so many gaps are all scored."""


def can_enumerate(num_ids: int, lengths: range) -> bool:
    """Whether there are at most MAX_GAPS gaps.

    Args:
        num_ids: how many different ids a gap may hold.
        lengths: the gap's possible lengths in ids.

    Returns:
        True where all of them can be scored.
    """
    total, with_length = 0, 1
    for length in range(lengths.stop):
        total += with_length * (length >= lengths.start)
        with_length = min(with_length * num_ids, MAX_GAPS + 1)
        if total > MAX_GAPS or not with_length:
            break
    return total <= MAX_GAPS


def enumerate_gaps(grower: Grower, root: Prefixes, lengths: range) -> Prefixes:
    """Write every allowed gap.

    Args:
        grower: grows the gaps.
        root: the empty prefix, after the text before the gap.
        lengths: the gap's possible lengths in ids.

    Returns:
        The gaps, shorter ones first.

    Raises:
        ChargenError: no gap is allowed.
    """
    gaps = root.take([0] if 0 in lengths else [])
    prefixes = root
    for length in range(1, lengths.stop):
        prefixes = prefixes.take(np.flatnonzero(~grower.ended(prefixes)))  # nothing follows a stop text
        rows, ids = np.nonzero(grower.allowed(prefixes))
        if not len(rows):
            break
        prefixes = grower.grow(prefixes, rows, ids)
        if length in lengths:
            gaps = gaps.join(prefixes)
    if not gaps.texts:
        raise ChargenError(NO_GAP_ALLOWED)
    return gaps
