"""Counts of a text that grow while it is read, and what they add to a network that does not know it.

They are those of Witten and Bell, "The zero-frequency problem" (1991), over all contexts of a few ids:
p(w | h) = (c(hw) + t(h) p(w | h')) / (c(h) + t(h)), where c counts, t is the number of different ids that stood behind
h, and h' is h without its first id. What they predict is mixed with what a model does, and its network and its counts
alone; the weights follow the text too, by a step of expectation maximization an id.
"""

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.borders import as_targets
from chargen.kernels import available

LONGEST = 6
"""Ids of the longest contexts."""
MAX_RUNS = 2**23
"""Runs of ids that are counted; when there are so many, no others are added. Each takes some 60 bytes."""
UNSURE = (0.5, 1.0, 1.5, 2.0)
"""Entropies of the network's predictions, in nats, between which there are weights of their own."""
TRUST, LESS = 3.0, 1.0
"""In the model, and in each of the others, before anything is known: as many ids."""

Floats = NDArray[np.float64]


def mix_growing_counts(
    ids: NDArray[Any], others: Floats, entropies: Floats, lengths: NDArray[np.int64], size: int,
    end_id: int | None = None,
) -> Floats:  # fmt: skip
    """What ids of a text cost a model and counts of all ids before each, mixed.

    Args:
        ids: (N,), the text in the order of reading.
        others: (K, n), what the model predicts for the last n of them: probabilities; and what parts of it do alone.
        entropies: (n,), of what its network predicts, in nats.
        lengths: (n,), of the longest contexts that its own counts have there; below 0 for none.
        size: how many different ids there are.
        end_id: of records, the end symbol, which stands for those of all labels; no context reaches across it.

    Returns:
        (n,), in nats.
    """
    places = np.maximum(lengths, 0) // 2 * (len(UNSURE) + 1) + np.searchsorted(UNSURE, entropies, side="right")
    trust = np.array([TRUST, *[LESS] * len(others)])
    weights = np.tile(trust, (int(places.max(initial=0)) + 1, LONGEST + 1, 1))
    targets = np.asarray(as_targets(ids, end_id), np.int64)
    size, end = (size, -1) if end_id is None else (end_id + 1, end_id)
    mix = _mix_compiled if available() else mix_slowly
    mixed: Floats = -np.log(mix(targets, size, end, weights, places, others))
    return mixed


def _mix_compiled(
    ids: NDArray[np.int64], size: int, end_id: int, weights: Floats, places: NDArray[np.int64], others: Floats
) -> Floats:
    """Do what `mix_slowly` does, in compiled code."""
    from chargen.kernels.growing_counts import Grams, mix_growing

    most = min(1 + len(ids) * (LONGEST + 1), MAX_RUNS)
    slots = 1 << (2 * most).bit_length()
    grams = Grams(np.full(slots, -1), np.zeros(slots, np.int32), *(np.zeros(most, np.int32) for _ in range(3)))
    mixed = np.zeros(len(places))
    mix_growing(grams, size, end_id, ids, len(ids) - len(places), weights, places, others, mixed)
    return mixed


def mix_slowly(
    ids: NDArray[np.int64], size: int, end_id: int, weights: Floats, places: NDArray[np.int64], others: Floats
) -> Floats:
    """Count a text while it is read, and mix what the counts so far predict with other predictions of each id.

    Args:
        ids: (N,), 0 to size - 1.
        size: how many different ids there are.
        end_id: the id that no context reaches across; -1 for none.
        weights: (B, D, K + 1), those of the predictions as sums that grow, by `places` and the length of the longest
            context that was followed by something before; changed.
        places: (n,), of the last ids, in the first axis of `weights`.
        others: (K, n), the other predictions' probabilities of each of these ids; the counts come behind them.

    Returns:
        (n,), the mixture's probabilities.
    """
    behind: defaultdict[tuple[int, ...], defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    mixed, first = np.zeros(len(places)), len(ids) - len(places)
    context: tuple[int, ...] = ()
    for place, target in enumerate(ids.tolist()):
        probability, longest = 1 / size, 0
        contexts = [context[len(context) - length :] for length in range(len(context) + 1)]
        for length, known in enumerate(contexts):
            if known in behind:
                longest, followers = length, behind[known]
                followed, kinds = sum(followers.values()), len(followers)
                probability = (followers.get(target, 0) + kinds * probability) / (followed + kinds)
            behind[known][target] += 1
        if place >= first:
            row = place - first
            own = weights[places[row], longest]
            parts = own * (*others[:, row], probability)
            mixed[row] = parts.sum() / own.sum()
            own += parts / parts.sum()
        context = (target,) if target == end_id else (*context, target)[-LONGEST:]
    return mixed
