"""A network's predictions, mixed with those of counts: p = (1 - w) p_network + w p_counts.

The weight w depends on the length of the longest context that was counted, and on how sure the network is. Weights are
fitted by expectation maximization, as those of interpolated n-grams: Jelinek and Mercer, "Interpolated estimation of
Markov source parameters from sparse data" (1980).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.counting.context_tree import CODES, ContextTree
from chargen.kernels import available

if TYPE_CHECKING:
    from chargen.kernels.context_tree import MixtureWeights, Tree

KNOTS = (0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 6.0)
"""Entropies of the network's predictions, in nats, for which there are weights; those between are interpolated."""
MAX_WEIGHT = 0.9999
"""A weight and what it leaves are never less than 1 - this, so that both sides count for something everywhere."""
ROUNDS = 20
"""Of expectation maximization; more change a loss by less than 0.0001."""
PRIOR = 20.0
"""Predictions that speak for the mean weight wherever there are few to fit one on."""
LEAST = 1e-300
"""In place of a probability that is smaller: its logarithm is finite."""
NO_ID = -1
"""Stands where there is no text: no context holds it."""
TOGETHER = 2**14
"""Places whose contexts are cut out of a text together."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mixture:
    """The counts of a text, and how much they count beside a network.

    Args:
        tree: the contexts.
        weights: (D, K), for the lengths of contexts from 0 to D - 1, below the tree's order, and `KNOTS`; longer
            contexts are not looked at. All are 0 where the network is left alone.

    Raises:
        ValueError: the weights have another shape, or one is out of its range.
    """

    tree: ContextTree
    weights: Floats

    def __post_init__(self) -> None:
        lengths, *knots = self.weights.shape
        if self.weights.dtype != np.float64 or not 1 <= lengths <= self.tree.order or knots != [len(KNOTS)]:
            shape = self.tree.order, len(KNOTS)
            raise ValueError(f"weights of {self.weights.dtype} in the shape {self.weights.shape}: needed is {shape}")
        in_range = ((self.weights >= 1 - MAX_WEIGHT - 1e-9) & (self.weights <= MAX_WEIGHT)).all()
        if not in_range and (self.longest or self.weights.any()):
            raise ValueError(f"weights that are not {1 - MAX_WEIGHT:.4f} to {MAX_WEIGHT}")

    @classmethod
    def of(cls, tree: ContextTree) -> "Mixture":
        """A mixture before its weights are fitted.

        Args:
            tree: the contexts.
        """
        return cls(tree, np.full((tree.order, len(KNOTS)), 0.2))

    def __repr__(self) -> str:
        return f"Mixture({self.tree!r}, mean weight {self.weights.mean():.2f})"

    def limited(self, longest: int) -> "Mixture":
        """The same mixture, which looks back less.

        Args:
            longest: ids of the longest contexts; 0 leaves all to the network.
        """
        if longest >= self.longest:
            return self
        return Mixture(self.tree, self.weights[: longest + 1] if longest else np.zeros((1, len(KNOTS))))

    @property
    def longest(self) -> int:
        """The ids of the longest contexts that are looked at."""
        return len(self.weights) - 1

    @property
    def context(self) -> int:
        """The ids that an engine keeps, 1 or more; as many however far counts look back."""
        return max(1, self.tree.order - 1)

    @cached_property
    def compiled(self) -> "tuple[Tree, MixtureWeights]":
        """What compiled code reads: copies, so that it is compiled once for arrays of files and for others."""
        from chargen.kernels.context_tree import MixtureWeights, Tree

        tree = self.tree
        totals = np.add.reduceat(CODES[tree.shares], tree.first_predictions[:-1])
        labels, ids = (values.astype(np.int32) for values in (tree.labels, tree.ids))
        return (
            Tree(
                tree.first_children, labels, tree.first_predictions, CODES[tree.rests], totals, ids,
                tree.shares.copy(), CODES, tree.predictable,
            ),
            MixtureWeights(np.array(self.weights, order="C"), np.array(KNOTS)),
        )  # fmt: skip

    def weigh(self, lengths: NDArray[np.int64], entropies: Floats) -> Floats:
        """How much counts count.

        Args:
            lengths: (n,), of the longest contexts; -1 where the text begins.
            entropies: (n,), of the network's predictions, in nats.

        Returns:
            (n,), above 0 and below 1; 0 where the text begins.
        """
        lower, share = between_knots(entropies)
        weights = (1 - share) * self.weights[lengths, lower] + share * self.weights[lengths, lower + 1]
        return np.where(lengths < 0, 0.0, weights)

    def nats(self, ids: NDArray[Any], places: NDArray[np.int64], nats: Floats, entropies: Floats) -> Floats:
        """What ids of a text cost the mixture.

        Args:
            ids: (N,), the text in the order of reading.
            places: (n,), of the ids.
            nats: (n,), what they cost the network.
            entropies: (n,), of what it predicted, in nats.

        Returns:
            (n,), in nats.
        """
        tree = self.compiled[0] if available() else None
        counted, lengths = find_targets(self.tree, ids, places, self.longest, tree)
        return mix_nats(nats, counted, self.weigh(lengths, entropies))

    def mix(self, ids: NDArray[Any], places: NDArray[np.int64], logits: NDArray[Any]) -> NDArray[np.float32]:
        """Mix what the network predicts at places of a text with what counts predict there.

        Args:
            ids: (N,), the text in the order of reading.
            places: (n,), how many ids there are before each.
            logits: (n, V), the network's; rows that are not finite stay as they are.

        Returns:
            (n, V), logarithms of probabilities in float32; another array.
        """
        mixed = np.array(logits, np.float32, order="C")
        if available():
            from chargen.kernels.context_tree import mix_rows

            mix_rows(*self.compiled, np.ascontiguousarray(ids, np.int64), places.astype(np.int64), mixed)
            return mixed
        for row, place in enumerate(places):
            if np.isfinite(mixed[row]).all():
                mixed[row] = np.log(np.maximum(self.probabilities(ids[:place], mixed[row]), LEAST))
        return mixed

    def probabilities(self, ids: NDArray[Any], logits: NDArray[Any]) -> Floats:
        """The mixture's probabilities (V,) behind ids.

        Args:
            ids: (N,), those read before.
            logits: (V,), the network's, finite.
        """
        values = logits.astype(np.float64) - np.max(logits)
        network = np.exp(values) / np.exp(values).sum()
        entropy = np.log(np.exp(values).sum()) - network @ values
        path = self.tree.path(ids, self.longest)
        length = -1 if begins_text(self.tree, ids, path, self.longest) else len(path) - 1
        weight = self.weigh(np.array([length]), np.array([entropy]))
        mixed: Floats = (1 - weight) * network + weight * self.tree.distribution(path)
        return mixed


def begins_text(tree: ContextTree, ids: NDArray[Any], path: list[int], longest: int) -> bool:
    """Whether a context is short only because the text begins there: it says nothing of how rare it is.

    Args:
        tree: the contexts.
        ids: (N,), those before the place.
        path: the contexts there.
        longest: ids of the longest that are looked at.
    """
    length = len(path) - 1
    if length >= longest or (length < len(ids) and ids[len(ids) - 1 - length] >= 0):
        return False
    # A record is whole: it begins with the end symbol, the last id that is predicted.
    return length == 0 or bool(min(ids[len(ids) - length], tree.predictable - 1) != tree.predictable - 1)


def between_knots(entropies: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Find entropies between `KNOTS`.

    Args:
        entropies: (n,), in nats.

    Returns:
        The number of the knot below each (n,), but for the last, and how far it is on the way to the next one (n,).
    """
    knots = np.array(KNOTS)
    lower = np.clip(np.searchsorted(knots, entropies, side="right") - 1, 0, len(knots) - 2)
    return lower, np.clip((entropies - knots[lower]) / (knots[lower + 1] - knots[lower]), 0, 1)


def mix_nats(nats: Floats, counted: Floats, weights: Floats) -> Floats:
    """What ids cost a mixture.

    Args:
        nats: (n,), what they cost the network.
        counted: (n,), their probabilities by counts.
        weights: (n,), of counts.
    """
    mixed: Floats = -np.log(weights * counted + (1 - weights) * np.exp(-nats))
    return mixed


def find_targets(
    tree: ContextTree, ids: NDArray[Any], places: NDArray[np.int64], longest: int, compiled: "Tree | None"
) -> tuple[Floats, NDArray[np.int64]]:
    """Look up what a tree predicts for ids of a text.

    Args:
        tree: the contexts.
        ids: (N,), the text in the order of reading.
        places: (n,), of the ids.
        longest: ids of the longest contexts that are looked at.
        compiled: the tree as compiled code reads it; None where there is none.

    Returns:
        Their probabilities (n,), and the lengths (n,) of the longest contexts before them; -1 where the text begins.
    """
    counted, lengths = np.zeros(len(places)), np.zeros(len(places), np.int64)
    if compiled is not None:
        from chargen.kernels.context_tree import find_targets as fill_targets

        for part in (slice(begin, begin + TOGETHER) for begin in range(0, len(places), TOGETHER)):
            windows = cut_windows(ids, places[part], longest)
            ends = np.arange(1, len(windows) + 1) * (longest + 1) - 1
            fill_targets(compiled, windows.ravel(), ends, longest, lengths[part], counted[part])
        return counted, lengths
    for row, place in enumerate(places.tolist()):
        path = tree.path(ids[:place], longest)
        lengths[row] = -1 if begins_text(tree, ids[:place], path, longest) else len(path) - 1
        counted[row] = tree.distribution(path)[min(ids[place], tree.predictable - 1)]
    return counted, lengths


def cut_windows(ids: NDArray[Any], places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Cut out what stands before places of a text, which may be large, and need not lie in memory.

    Args:
        ids: (N,), the text.
        places: (n,), in it.
        size: ids before each.

    Returns:
        (n, size + 1), with the id of each place as the last one; `NO_ID` before the text.
    """
    at = places[:, None] + np.arange(-size, 1)
    return np.where(at >= 0, ids[np.maximum(at, 0)].astype(np.int64), NO_ID)


def fit_weights(
    order: int, nats: Floats, counted: Floats, lengths: NDArray[np.int64], entropies: Floats,
    add: Callable[[Floats], Floats] = lambda sums: sums,
) -> Floats:  # fmt: skip
    """Find the weights with which a mixture predicts some ids best.

    Args:
        order: of the tree.
        nats: (n,), what the ids cost the network.
        counted: (n,), their probabilities by counts.
        lengths: (n,), of the longest contexts; of those of -1 nothing is learned.
        entropies: (n,), of the network's predictions, in nats.
        add: sums an array over all processes, where each has some of the ids.

    Returns:
        (D, K), for the lengths from 0 to below `order`, and `KNOTS`.
    """
    inside = lengths >= 0
    nats, counted, lengths, entropies = nats[inside], counted[inside], lengths[inside], entropies[inside]
    lower, upper_share = between_knots(entropies)
    cells = np.concatenate([lengths * len(KNOTS) + lower, lengths * len(KNOTS) + lower + 1])
    shares = np.concatenate([1 - upper_share, upper_share])
    network, counted = np.tile(np.exp(-nats), 2), np.tile(counted, 2)
    weights = np.full(order * len(KNOTS), 0.2)
    for _ in range(ROUNDS):
        own = weights[cells]
        by_counts, by_network = shares * own * counted, shares * (1 - own) * network
        whole = np.tile(np.add(*np.split(by_counts + by_network, 2)), 2)
        sums = [np.bincount(cells, part / whole, len(weights)) for part in (by_counts, by_counts + by_network)]
        in_counts, in_all = add(np.stack(sums))
        mean = in_counts.sum() / in_all.sum() if in_all.any() else weights.mean()
        weights = np.clip((in_counts + PRIOR * mean) / (in_all + PRIOR), 1 - MAX_WEIGHT, MAX_WEIGHT)
    return weights.reshape(order, len(KNOTS))
