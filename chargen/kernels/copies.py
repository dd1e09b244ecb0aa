"""What a suffix array tells of texts that lie in one array of bytes, each ended by `SEPARATOR`, as does the array."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.kernels import SEPARATOR
from chargen.kernels.jit import compiled

Integers = NDArray[Any]
Bytes = NDArray[np.uint8]


@compiled
def find_neighbours(
    order: Integers, first: int, last: int, limit: int, skip_first: int, skip_last: int
) -> tuple[Integers, Integers]:
    """Find the suffixes of a corpus that stand next to those of a text, before and behind it, in the order of suffixes.

    Args:
        order: the suffix array (N,).
        first: where the text begins.
        last: where it ends.
        limit: where the corpus ends, which begins at 0.
        skip_first: where positions begin that do not count of the corpus; the text lies there, or behind it.
        skip_last: where they end.

    Returns:
        Positions in the corpus (last - first,), twice; -1 for none.
    """
    before = np.full(last - first, -1, order.dtype)
    behind = np.full(last - first, -1, order.dtype)
    nearest = -1
    for rank in range(len(order)):
        position = order[rank]
        if first <= position < last:
            before[position - first] = nearest
        if position < limit and not skip_first <= position < skip_last:
            nearest = position
    nearest = -1
    for rank in range(len(order) - 1, -1, -1):
        position = order[rank]
        if first <= position < last:
            behind[position - first] = nearest
        if position < limit and not skip_first <= position < skip_last:
            nearest = position
    return before, behind


@compiled
def raise_lengths(data: Bytes, first: int, neighbours: Integers, skip_first: int, lengths: Integers) -> None:
    """Raise lengths of matches to those with the neighbours on one side, in linear time as Kasai et al. (2001) do.

    Args:
        data: the texts (N,).
        first: where the text begins.
        neighbours: of its M positions, as `find_neighbours` returns them.
        skip_first: as `find_neighbours` got it.
        lengths: (M,), bytes from each position on that also stand elsewhere.
    """
    shared = 0
    for k in range(len(neighbours)):
        # Without its first byte a match is still one, unless it then begins where no match may.
        shared = 0 if k and neighbours[k - 1] == skip_first - 1 else max(shared - 1, 0)
        if neighbours[k] < 0:
            shared = 0
            continue
        while data[first + k + shared] == data[neighbours[k] + shared] and data[first + k + shared] != SEPARATOR:
            shared += 1
        lengths[k] = max(lengths[k], shared)


@compiled
def find_intervals(data: Bytes, order: Integers, starts: Integers, lengths: Integers) -> NDArray[np.int64]:
    """Find where the suffixes stand in the suffix array that begin with some pieces of the texts.

    Args:
        data: the texts (N,).
        order: their suffix array (N,).
        starts: of the pieces (P,).
        lengths: of them (P,).

    Returns:
        The first rank of each, and the one behind its last (P, 2).
    """
    intervals = np.empty((len(starts), 2), np.int64)
    for k in range(len(starts)):
        for side in range(2):
            low, high = (0 if side == 0 else intervals[k, 0]), len(order)
            while low < high:
                middle = (low + high) // 2
                position, shared = order[middle], 0
                while (
                    shared < lengths[k]
                    and position + shared < len(data)
                    and data[position + shared] == data[starts[k] + shared]
                ):
                    shared += 1
                if shared == lengths[k]:
                    is_before = side == 1
                else:
                    is_before = position + shared == len(data) or data[position + shared] < data[starts[k] + shared]
                if is_before:
                    low = middle + 1
                else:
                    high = middle
            intervals[k, side] = low
    return intervals


@compiled
def find_loops(
    codes: Integers, pieces: Integers, max_period: int, least: int, times: int
) -> list[tuple[int, int, int]]:
    """Find the stretches that consist of the same characters several times in a row.

    A stretch of period p in which p characters stand three times has 2 p positions in a row that equal those p behind
    them, and so one that is divided by 2 p: only these are looked at first.

    Args:
        codes: of the characters (N,).
        pieces: the number of the text that each is in (N,); no stretch crosses their borders.
        max_period: the most characters that are repeated.
        least: characters of the shortest stretch.
        times: how often the same characters stand there at least.

    Returns:
        Start, length and period of each, and the same again for multiples of its period.
    """
    loops = [(0, 0, 0)]
    loops.pop()
    periods = np.zeros(len(codes), np.int32)
    ends = np.zeros(len(codes), np.int64)
    for period in range(1, min(max_period, len(codes) // times) + 1):
        step, anchor, size = (times - 1) * period, 0, len(codes) - period
        while anchor < size:
            shorter = periods[anchor]
            if shorter and period % shorter == 0 and ends[anchor] - anchor >= period + shorter:
                # Two periods in so many characters: the whole stretch has the shorter one (Fine and Wilf, 1965).
                anchor = ((ends[anchor] - period - shorter) // step + 1) * step
                continue
            start = stop = anchor
            while stop < size and codes[stop] == codes[stop + period] and pieces[stop] == pieces[stop + period]:
                stop += 1
            if stop > anchor:
                while (
                    start > 0
                    and codes[start - 1] == codes[start - 1 + period]
                    and pieces[start - 1] == pieces[start - 1 + period]
                ):
                    start -= 1
                length = stop - start + period
                if length >= max(times * period, least):
                    loops.append((start, length, period))
                    for k in range(start, start + length):
                        if not periods[k]:
                            periods[k] = period
                            ends[k] = start + length
            anchor = (stop // step + 1) * step
    return loops
