"""Looking up contexts in a tree of them, and what they predict.

Contexts are numbered so that those that are longer by one id before them, their children, are neighbours. Number 0 is
the empty one. `chargen.counting` explains the numbers, and has the slow version of each function.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.jit import compiled

Integers = NDArray[np.int32]
Floats = NDArray[np.float64]


class Tree(NamedTuple):
    """Contexts and what they predict, of M contexts and P predictions.

    Args:
        first_children: (M + 1,), the number of the first child of each.
        labels: (M,), the id by which a context is longer than its parent; ascending among the children of one.
        first_predictions: (M + 1,), where those of each context begin.
        rests: (M,), what a context leaves for the one that is shorter by one id, above 0 to 1.
        totals: (M,), sums of the shares of all predictions.
        ids: (P,), what is predicted; ascending in each context.
        codes: (P,), shares, as numbers of `shares`.
        shares: (256,), the share that each code stands for.
        predictable: how many ids, from 0 on, are ever predicted; those above count as the last of them.
    """

    first_children: Integers
    labels: Integers
    first_predictions: Integers
    rests: Floats
    totals: Floats
    ids: Integers
    codes: NDArray[np.uint8]
    shares: Floats
    predictable: int


@compiled
def find(values: Integers, first: int, last: int, value: int) -> int:
    """Find a value among ascending ones.

    Args:
        values: numbers.
        first: the first place where it may be.
        last: the place behind the last one.
        value: what is looked for.

    Returns:
        Its place, or -1.
    """
    end = last
    while first < last:
        middle = (first + last) // 2
        if values[middle] < value:
            first = middle + 1
        else:
            last = middle
    return first if first < end and values[first] == value else -1


@compiled
def find_path(tree: Tree, ids: NDArray[Any], place: int, path: Integers) -> int:
    """Find the contexts of a place, from the empty one to the longest.

    Args:
        tree: all contexts.
        ids: (N,), what is read; a number below zero is in no context.
        place: how many ids there are before it, at most N.
        path: (D,), filled with the contexts of 0, 1, 2 … ids.

    Returns:
        The length of the longest one, in ids.
    """
    path[0] = 0
    length = 0
    while length + 1 < len(path) and length < place:
        context = path[length]
        first, last = tree.first_children[context], tree.first_children[context + 1]
        child = find(tree.labels, first, last, min(ids[place - 1 - length], tree.predictable - 1))
        if child < 0:
            break
        length += 1
        path[length] = child
    return length


@compiled
def begins_text(tree: Tree, ids: NDArray[Any], place: int, length: int, longest: int) -> bool:
    """Whether a context is short only because the text begins there: it says nothing of how rare it is.

    Args:
        tree: all contexts.
        ids: (N,), what is read.
        place: how many ids there are before it.
        length: of the longest context there.
        longest: of those that are looked at; of 0 none says anything.
    """
    if longest == 0:
        return True
    first = place - 1 - length
    if length >= longest or (first >= 0 and ids[first] >= 0):
        return False
    # A record is whole: it begins with the end symbol, the last id that is predicted.
    return length == 0 or min(ids[first + 1], tree.predictable - 1) != tree.predictable - 1


@compiled
def probability_of(tree: Tree, path: Integers, length: int, target: int) -> float:
    """The probability of an id behind contexts.

    Args:
        tree: all contexts.
        path: the contexts of 0 to `length` ids.
        length: of the longest one.
        target: the id.
    """
    probability, left = 0.0, 1.0
    for depth in range(length, -1, -1):
        context = path[depth]
        first, last = tree.first_predictions[context], tree.first_predictions[context + 1]
        rest = tree.rests[context]
        at = find(tree.ids, first, last, target)
        if at >= 0:
            probability += left * (1 - rest) * tree.shares[tree.codes[at]] / tree.totals[context]
        left *= rest
    return probability + left / tree.predictable


@compiled
def fill_distribution(tree: Tree, path: Integers, length: int, out: Floats) -> None:
    """The probabilities of all ids behind contexts.

    Args:
        tree: all contexts.
        path: the contexts of 0 to `length` ids.
        length: of the longest one.
        out: (V,), filled.
    """
    out[:] = 0
    left = 1.0
    for depth in range(length, -1, -1):
        context = path[depth]
        rest = tree.rests[context]
        factor = left * (1 - rest) / tree.totals[context]
        for at in range(tree.first_predictions[context], tree.first_predictions[context + 1]):
            out[tree.ids[at]] += factor * tree.shares[tree.codes[at]]
        left *= rest
    left /= tree.predictable
    for target in range(tree.predictable):
        out[target] += left


@compiled
def find_targets(
    tree: Tree, ids: NDArray[np.int64], places: NDArray[np.int64], longest: int, lengths: NDArray[np.int64],
    probabilities: Floats,
) -> None:  # fmt: skip
    """The probabilities that contexts give to ids of a text.

    Args:
        tree: all contexts.
        ids: (N,), the text.
        places: (n,), of the ids that are predicted.
        longest: ids of the longest contexts that are looked at.
        lengths: (n,), filled with those of the longest contexts; -1 where the text begins.
        probabilities: (n,), filled.
    """
    path = np.empty(longest + 1, np.int32)
    for row in range(len(places)):
        length = find_path(tree, ids, places[row], path)
        lengths[row] = -1 if begins_text(tree, ids, places[row], length, longest) else length
        target = min(ids[places[row]], tree.predictable - 1)
        probabilities[row] = probability_of(tree, path, length, target)
