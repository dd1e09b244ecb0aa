"""Count the contexts of a text, weigh what they predict, and leave out those that add least."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.counting.context_tree import STEP, ContextTree
from chargen.counting.gram_counts import Floats, Integers, count_grams, weigh
from chargen.data.borders import as_targets

MIN_COUNT = 2
"""Occurrences of a context that is kept: the many that occur once add little."""
LEAST = 1e-9
"""In place of a probability of 0, which has no code: where there is no text."""


class _Contexts(NamedTuple):
    """The contexts of one length, in any order, and what they predict.

    Args:
        parents: (M,), the place of each one's parent among the contexts that are shorter by one id.
        labels: (M,), the id that each has before its parent's.
        rests: (M,), what each leaves for its parent.
        sizes: (M,), how many ids each predicts.
        ids: (P,), what is predicted, context after context.
        kept: (P,), the probability that each has of its own, above 0.
        gains: (M,), the nats that each saves on the text.
    """

    parents: Integers
    labels: Integers
    rests: Floats
    sizes: Integers
    ids: Integers
    kept: Floats
    gains: Floats


def grow_tree(
    ids: NDArray[Any],
    size: int,
    order: int,
    max_bytes: float,
    *,
    end_id: int | None = None,
    progress: Callable[[int, int], None] = lambda length, order: None,
) -> ContextTree:
    """Count the contexts of a text that occur twice or more, and weigh them by interpolated Kneser-Ney (see `NGram`).

    Where they take too many bytes, those go that save least on the text itself for each byte, as computed by Stolcke,
    "Entropy-based pruning of backoff language models" (1998): c(h) sum_w p(w | h) ln(p(w | h) / p(w | h')).

    Args:
        ids: the text (N,), 0 to V - 1; of records, from a begin symbol on.
        size: V.
        order: one more than the ids of the longest contexts.
        max_bytes: of the tree; the empty context stays in any case.
        end_id: of records, the end symbol, which stands for those of all labels; no context reaches across it.
        progress: called as (length, order) when the contexts of a length are counted.
    """
    predictable = size if end_id is None else end_id + 1
    levels = _count_levels(as_targets(ids, end_id), predictable, order, end_id, progress)
    return _build(levels, _choose(levels, max_bytes, size), size, order, predictable)


def _count_levels(
    ids: NDArray[Any], size: int, order: int, end_id: int | None, progress: Callable[[int, int], None]
) -> list[_Contexts]:
    """Count the contexts of all lengths, from the empty one on, as long as there are any."""
    grams, variants = count_grams(ids, size, order, end_id, progress)
    lower, places = np.full(size, 1 / size), np.zeros(0, np.int64)
    levels: list[_Contexts] = []
    for length, (level, counts) in enumerate(zip(grams, [*variants, grams[-1].counts], strict=True)):
        shorter = grams[length - 1] if length else None
        weights = weigh(level, counts, size, len(shorter.counts) if shorter else 0)
        contexts = level.keys // size if shorter else np.zeros(len(level.keys), np.int64)
        below = lower[level.suffixes] if shorter else lower
        lower = weights.kept + weights.rest[contexts] * below
        listed = np.flatnonzero(weights.kept > 0)
        if shorter:
            listed = listed[shorter.counts[contexts[listed]] >= MIN_COUNT]
        elif not len(listed):
            listed = np.zeros(1, np.int64)  # nothing is known, so all ids are as likely
        if not len(listed):
            break
        contexts, own, below = contexts[listed], lower[listed], below[listed]
        starts = np.flatnonzero(np.diff(contexts, prepend=-1))
        entries = contexts[starts]
        rests = weights.rest[entries]
        saved = np.add.reduceat(own * np.log(own / below), starts)
        saved += (1 - np.add.reduceat(own, starts)) * np.log(rests)
        parents = labels = np.zeros(len(entries), np.int64)
        if shorter:
            saved *= shorter.counts[entries]
            labels = ids[shorter.ends[entries] - length + 1] if length > 1 else entries
            parents = places[shorter.suffixes[entries]] if length > 1 else parents
            places = np.full(len(shorter.counts), -1)
            places[entries] = np.arange(len(entries))
        sizes = np.diff(starts, append=len(contexts))
        kept = np.maximum(weights.kept[listed], LEAST)
        levels.append(_Contexts(parents, labels, rests, sizes, level.keys[listed] % size, kept, saved))
    return levels


def _choose(levels: list[_Contexts], max_bytes: float, size: int) -> list[NDArray[np.bool_]]:
    """Choose which contexts (M,) of each length are kept: those that save most per byte, with all that they are below.

    Args:
        levels: the contexts of each length.
        max_bytes: of all that are kept.
        size: V.
    """
    by_id, by_number = (ContextTree.dtype_of(name, size).itemsize for name in ("ids", "children"))
    costs = [by_id + 2 * by_number + 1 + level.sizes * (by_id + 1) for level in levels]
    worth = [level.gains / cost for level, cost in zip(levels, costs, strict=True)]
    worth[0][:] = np.inf
    for length in range(len(levels) - 1, 0, -1):  # a parent is worth no less than any of its children
        np.maximum.at(worth[length - 1], levels[length].parents, worth[length])
    all_worth, all_costs = np.concatenate(worth), np.concatenate(costs)
    order = np.argsort(-all_worth)
    fitting = int(np.searchsorted(np.cumsum(all_costs[order]), max_bytes, side="right"))
    least = all_worth[order[fitting]] if fitting < len(order) else -np.inf
    return [(own > least) | (own == np.inf) for own in worth]


def _build(
    levels: list[_Contexts], chosen: list[NDArray[np.bool_]], size: int, order: int, predictable: int
) -> ContextTree:
    """Number the chosen contexts, those with one parent side by side, and put all into the arrays of a tree."""
    parts: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("labels", "children", "predictions", "rests", "ids", "shares")
    }
    numbers = np.zeros(1, np.int64)
    for length, (level, is_chosen) in enumerate(zip(levels, chosen, strict=True)):
        places = np.flatnonzero(is_chosen)
        parents = numbers[level.parents[places]]
        ranks = np.lexsort((level.labels[places], parents))
        places, parents = places[ranks], parents[ranks]
        if length:
            parts["children"].append(np.bincount(parents, minlength=len(parts["labels"][-1])))
        numbers = np.full(len(level.labels), -1)
        numbers[places] = np.arange(len(places))
        first, sizes = (np.cumsum(level.sizes) - level.sizes)[places], level.sizes[places]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        predictions = np.repeat(first, sizes) + within
        kept = level.kept[predictions]
        largest = np.maximum.reduceat(kept, np.cumsum(sizes) - sizes) if len(sizes) else kept
        parts["labels"].append(level.labels[places])
        parts["predictions"].append(sizes)
        parts["rests"].append(_encode(level.rests[places]))
        parts["ids"].append(level.ids[predictions])
        parts["shares"].append(_encode(kept / np.repeat(largest, sizes)))
    parts["children"].append(np.zeros(len(parts["labels"][-1]), np.int64))
    arrays = {name: np.concatenate(arrays).astype(ContextTree.dtype_of(name, size)) for name, arrays in parts.items()}
    return ContextTree(size, order, predictable, **arrays)


def _encode(values: Floats) -> Integers:
    """The codes of numbers above 0 to 1."""
    codes: Integers = np.minimum(np.rint(-np.log2(values) / STEP), 255).astype(np.int64)
    return codes
