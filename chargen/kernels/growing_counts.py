"""Counts of a text that grow while it is read, mixed with other predictions of each id by weights that it teaches.

`chargen.counting.growing_counts` explains the numbers, and has the slow version.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.jit import compiled

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Grams(NamedTuple):
    """Runs of ids, each one's continuations found by hashing; number 0 is the empty one.

    Args:
        keys: (H,), the number of a run times the number of ids, plus the id behind it; -1 where there is none. H is a
            power of two above the most runs there can be.
        longer: (H,), the number of the run with that id.
        counts: (M,), how often each run was read.
        followed: (M,), how often something was read behind it.
        kinds: (M,), how many different ids.
    """

    keys: Integers
    longer: NDArray[np.int32]
    counts: NDArray[np.int32]
    followed: NDArray[np.int32]
    kinds: NDArray[np.int32]


@compiled
def find_slot(keys: Integers, key: int) -> int:
    """Find where a key is, or would be.

    Args:
        keys: (H,), -1 in one place at least.
        key: 0 or more.
    """
    mask = len(keys) - 1
    hashed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(hashed >> np.uint64(20)) & mask
    while keys[slot] != key and keys[slot] != -1:
        slot = (slot + 1) & mask
    return int(slot)


@compiled
def mix_growing(
    grams: Grams, size: int, end_id: int, ids: Integers, first: int, weights: NDArray[np.float64], places: Integers,
    others: Floats, mixed: Floats,
) -> None:  # fmt: skip
    """Count a text while it is read, and mix what the counts so far predict with other predictions of each id.

    Args:
        grams: the empty run alone.
        size: how many different ids there are.
        end_id: the id that no run reaches across; -1 for none.
        ids: (N,), 0 to size - 1.
        first: ids that are only counted.
        weights: (B, D, K + 1), those of the predictions as sums that grow, by `places` and the length of the longest
            run before an id that was followed by something before; changed.
        places: (N - first,), in the first axis of `weights`.
        others: (K, N - first), the other predictions' probabilities of each id; the counts come behind them.
        mixed: (N - first,), filled with the mixture's probabilities.
    """
    longest = weights.shape[1] - 1
    runs, slots = np.zeros(longest + 1, np.int64), np.zeros(longest + 1, np.int64)
    number, known = 1, 1
    for place in range(len(ids)):
        target, probability, length = ids[place], 1.0 / size, -1
        for depth in range(known):
            slots[depth] = slot = find_slot(grams.keys, runs[depth] * size + target)
            followed, kinds = grams.followed[runs[depth]], grams.kinds[runs[depth]]
            if followed:
                length = depth
                count = grams.counts[grams.longer[slot]] if grams.keys[slot] >= 0 else 0
                probability = (count + kinds * probability) / (followed + kinds)
        if place >= first:
            row = place - first
            own = weights[places[row], max(length, 0)]
            number_of_others = len(others)
            whole = own[number_of_others] * probability
            for other in range(number_of_others):
                whole += own[other] * others[other, row]
            mixed[row] = whole / own.sum()
            for other in range(number_of_others):
                own[other] += own[other] * others[other, row] / whole
            own[number_of_others] += own[number_of_others] * probability / whole
        reached = 1
        for depth in range(known):
            run, key = runs[depth], runs[depth] * size + target
            slot = find_slot(grams.keys, key)  # again: a shorter run may have taken the place that was free
            if grams.keys[slot] == -1:
                if number == len(grams.counts):
                    break
                grams.keys[slot], grams.longer[slot] = key, number
                grams.kinds[run] += 1
                number += 1
            slots[depth] = grams.longer[slot]
            grams.counts[slots[depth]] += 1
            grams.followed[run] += 1
            reached = depth + 2
        known = min(reached, longest + 1)
        if target == end_id:
            known = min(known, 2)
        for depth in range(1, known):
            runs[depth] = slots[depth - 1]
