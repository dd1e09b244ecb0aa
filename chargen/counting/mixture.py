"""A network's predictions, mixed with those of counts: p in proportion to p_network^a p_counts^b.

The weights a and b depend on how long the longest context is that was counted, how sure both are, and how far they
agree. They are those with which a text that was not counted is predicted best; the loss is convex in them. Log-linear
interpolation: Klakow, "Log-linear interpolation of language models" (1998).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.counting.context_tree import CODES, MAX_ORDER, ContextTree
from chargen.kernels import available

if TYPE_CHECKING:
    from chargen.kernels.context_tree import Tree
    from chargen.kernels.mixture import Tables

KNOTS = (0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 6.0)
"""Entropies of predictions, in nats, for which there are weights; those between are interpolated."""
LOGS = (-12.0, -8.0, -6.0, -4.0, -3.0, -2.0, -1.0, -0.5, 0.0)
"""Logarithms of the probability that each side gives to what the other expects, for which there are weights."""
MAX_WEIGHT = 100.0
"""Of either side, in a cell."""
PRIOR = 120.0
"""How strongly weights are held at being the same everywhere: about as much as so many predictions would."""
LOOSE = 1.0
"""How strongly these are held at the network alone."""
ROUNDS = 12
"""Of Newton's method, at most."""
ENOUGH = 1e-5
"""Nats a prediction that a round must save for another one to follow, and all of `LITTLE`."""
LITTLE = 0.02
PART = 4096
"""Predictions, of those that weights are fitted on, that a thread adds up."""
LEAST = 1e-300
"""In place of a probability that is smaller: its logarithm is finite."""
NO_ID = -1
"""Stands where there is no text: no context holds it."""
TOGETHER = 2**14
"""Places whose contexts are cut out of a text together."""

Floats = NDArray[np.float64]
Weights = tuple[float, float]
"""Of the network and of counts."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """The counts of a text, and how much they count beside a network.

    Args:
        tree: the contexts.
        cells: (C, 2), the weights of the network and of counts, in three tables one behind the other, and interpolated
            in each: by the length of the longest context (below the tree's order) and the network's entropy (`KNOTS`);
            by what counts give to the id that the network expects most (`LOGS`) and the network's entropy; by what the
            network gives to the one that counts expect most, and the entropy of counts. The sum of all three is taken.
        longest: ids of the longest contexts that are looked at.

    Raises:
        ValueError: the weights have another shape, or one is out of its range.
    """

    tree: ContextTree
    cells: Floats
    longest: int = MAX_ORDER

    def __post_init__(self) -> None:
        object.__setattr__(self, "longest", min(self.longest, self.tree.order - 1))
        needed = cell_count(self.tree.order), 2
        if self.cells.dtype != np.float64 or self.cells.shape != needed:
            raise ValueError(f"weights of {self.cells.dtype} in the shape {self.cells.shape}: needed is {needed}")
        if not (np.abs(self.cells) <= MAX_WEIGHT).all():
            raise ValueError(f"weights that are not {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}")

    @classmethod
    def of(cls, tree: ContextTree) -> "Mixture":
        """A mixture before its weights are fitted: the network alone.

        Args:
            tree: the contexts.
        """
        return cls(tree, everywhere(tree.order, (1.0, 0.0)))

    def __repr__(self) -> str:
        return f"Mixture({self.tree!r})"

    def limited(self, longest: int) -> "Mixture":
        """The same mixture, which looks back less.

        Args:
            longest: ids of the longest contexts; 0 leaves all to the network.
        """
        if longest >= self.longest:
            return self
        return Mixture(self.tree, self.cells, longest)

    @property
    def context(self) -> int:
        """The ids that an engine keeps, 1 or more; as many however far counts look back."""
        return max(1, self.tree.order - 1)

    @cached_property
    def compiled(self) -> "tuple[Tree, Tables]":
        """What compiled code reads: copies, so that it is compiled once for arrays of files and for others."""
        from chargen.kernels.mixture import Tables

        cells = np.array(self.cells, order="C")
        return compile_tree(self.tree), Tables(cells, self.tree.order, self.longest, np.array(KNOTS), np.array(LOGS))

    def weigh(self, length: int, entropies: tuple[float, float], logs: tuple[float, float]) -> Weights:
        """The weights of one prediction; the arguments are those of `find_cells`."""
        cells, shares = zip(*find_cells(self.tree.order, length, entropies, logs), strict=True)
        first, second = np.array(shares) @ self.cells[list(cells)]
        return float(first), float(second)

    def nats(self, ids: NDArray[Any], places: NDArray[np.int64], logits: NDArray[Any]) -> Floats:
        """What ids of a text cost the mixture.

        Args:
            ids: (N,), the text in the order of reading.
            places: (n,), of the ids.
            logits: (n, V), the network's there.

        Returns:
            (n,), in nats; not finite where logits are not.
        """
        return costs_of(self, ids, places, logits)[0]

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
            from chargen.kernels.mixture import mix_rows

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
        network, path = log_softmax(logits.astype(np.float64)), self.tree.path(ids, self.longest)
        if begins_text(self.tree, ids, path, self.longest):
            return np.exp(network)
        counted, features = compare(self.tree, path, network)
        first, second = self.weigh(*features)
        mixed, predicted = np.zeros(len(logits)), self.tree.predictable
        mixed[:predicted] = np.exp(log_softmax(first * network[:predicted] + second * counted[:predicted]))
        return mixed


def compile_tree(tree: ContextTree) -> "Tree":
    """A tree as compiled code reads it.

    Args:
        tree: the contexts.
    """
    from chargen.kernels.context_tree import Tree

    totals = np.add.reduceat(CODES[tree.shares], tree.first_predictions[:-1])
    labels, ids = (values.astype(np.int32) for values in (tree.labels, tree.ids))
    return Tree(
        tree.first_children, labels, tree.first_predictions, CODES[tree.rests], totals, ids, tree.shares.copy(), CODES,
        tree.predictable,
    )  # fmt: skip


def cell_count(order: int) -> int:
    """How many cells the tables of a mixture have.

    Args:
        order: of the tree.
    """
    return (order + 2 * len(LOGS)) * len(KNOTS)


def everywhere(order: int, weights: Weights) -> Floats:
    """The cells of a mixture (C, 2) whose weights are the same everywhere.

    Args:
        order: of the tree.
        weights: of the network and of counts.
    """
    cells = np.zeros((cell_count(order), 2))
    cells[: order * len(KNOTS)] = weights
    return cells


def log_softmax(logits: Floats) -> Floats:
    """Turn logits (V,) into logarithms of probabilities."""
    values = logits - logits.max()
    return np.asarray(np.maximum(values - np.log(np.exp(values).sum()), np.log(LEAST)))


def compare(
    tree: ContextTree, path: list[int], network: Floats
) -> tuple[Floats, tuple[int, tuple[float, float], tuple[float, float]]]:
    """Compare what counts predict with what a network does.

    Args:
        tree: the counts.
        path: the contexts of a place.
        network: (V,), logarithms of the network's probabilities.

    Returns:
        Logarithms of the probabilities by counts (V,), and what the weights depend on: the arguments of `find_cells`
        behind the order.
    """
    probabilities = np.maximum(tree.distribution(path), LEAST)
    counted: Floats = np.log(probabilities)
    predicted = counted[: tree.predictable]
    entropies = -float(np.exp(network) @ network), -float(probabilities[: tree.predictable] @ predicted)
    expected = min(int(network.argmax()), tree.predictable - 1)
    return counted, (len(path) - 1, entropies, (float(counted[expected]), float(network[predicted.argmax()])))


def find_cells(
    order: int, length: int, entropies: tuple[float, float], logs: tuple[float, float]
) -> list[tuple[int, float]]:
    """The cells on which the weights of one prediction depend, and their shares, which sum to 1 in each table.

    Args:
        order: of the tree.
        length: of the longest context that was counted.
        entropies: of the network's prediction, and of that of counts, in nats.
        logs: ln p: what counts give to the network's most probable id, and the network to that of counts.
    """
    sure, sure_too = (between(KNOTS, entropy) for entropy in entropies)
    rows = [(length, 1.0)], between(LOGS, logs[0]), between(LOGS, logs[1])
    firsts = 0, order, order + len(LOGS)
    return [
        ((first + row) * len(KNOTS) + column, vertical * horizontal)
        for first, rows_of, columns in zip(firsts, rows, (sure, sure, sure_too), strict=True)
        for row, vertical in rows_of
        for column, horizontal in columns
    ]


def between(knots: tuple[float, ...], value: float) -> list[tuple[int, float]]:
    """The numbers of the two knots beside a value, and their shares; of the first or last two, where it is outside.

    Args:
        knots: ascending.
        value: any number.
    """
    lower = min(max(int(np.searchsorted(knots, value, side="right")) - 1, 0), len(knots) - 2)
    share = min(max((value - knots[lower]) / (knots[lower + 1] - knots[lower]), 0.0), 1.0)
    return [(lower, 1 - share), (lower + 1, share)]


def begins_text(tree: ContextTree, ids: NDArray[Any], path: list[int], longest: int) -> bool:
    """Whether a context is short only because the text begins there: it says nothing of how rare it is.

    Args:
        tree: the contexts.
        ids: (N,), those before the place.
        path: the contexts there.
        longest: ids of the longest that are looked at; of 0 none says anything.
    """
    length = len(path) - 1
    if longest == 0:
        return True
    if length >= longest or (length < len(ids) and ids[len(ids) - 1 - length] >= 0):
        return False
    # A record is whole: it begins with the end symbol, the last id that is predicted.
    return length == 0 or bool(min(ids[len(ids) - length], tree.predictable - 1) != tree.predictable - 1)


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
            windows, ends = cut_windows(ids, places[part], longest)
            fill_targets(compiled, windows, ends, longest, lengths[part], counted[part])
        return counted, lengths
    for row, place in enumerate(places.tolist()):
        path = tree.path(ids[:place], longest)
        lengths[row] = -1 if begins_text(tree, ids[:place], path, longest) else len(path) - 1
        counted[row] = tree.distribution(path)[min(ids[place], tree.predictable - 1)]
    return counted, lengths


def cut_windows(ids: NDArray[Any], places: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut out what stands before places of a text, which may be large, and need not lie in memory.

    Args:
        ids: (N,), the text.
        places: (n,), in it.
        size: ids before each.

    Returns:
        The windows (n * (size + 1),) one behind the other, with the id of each place as the last one, and `NO_ID`
        before the text; and where these are (n,).
    """
    at = places[:, None] + np.arange(-size, 1)
    windows = np.where(at >= 0, ids[np.maximum(at, 0)].astype(np.int64), NO_ID)
    return windows.ravel(), np.arange(1, len(windows) + 1) * (size + 1) - 1


def costs_of(
    mixture: Mixture, ids: NDArray[Any], places: NDArray[np.int64], logits: NDArray[Any], slopes: bool = False
) -> tuple[Floats, Floats, Floats]:
    """What ids of a text cost a mixture, and how the sum changes with its weights.

    Args:
        mixture: the mixture.
        ids: (N,), the text in the order of reading.
        places: (n,), of the ids.
        logits: (n, V), the network's there.
        slopes: whether to tell how it changes.

    Returns:
        The nats (n,); first derivatives (C + 1, 2), the last of what all cells have in common; and second ones
        (C + 1, 2, C + 1, 2). The derivatives are empty where they are not asked for.
    """
    number = (len(mixture.cells) + 1) * slopes
    slope, curvature = np.zeros((number, 2)), np.zeros((number, 2, number, 2))
    costs = np.zeros(len(places))
    if available():
        from chargen.kernels.mixture import add_costs
        from chargen.kernels.threads import parallel_for

        compiled, values = mixture.compiled, np.ascontiguousarray(logits, np.float32)

        def run(chosen: slice) -> None:
            for begin in range(chosen.start, chosen.stop, TOGETHER):
                part = slice(begin, min(begin + TOGETHER, chosen.stop))
                windows, ends = cut_windows(ids, places[part], mixture.longest)
                add_costs(*compiled, windows, ends, values[part], costs[part], slope, curvature)

        if slopes:
            run(slice(0, len(places)))
        else:
            parallel_for(run, len(places), microseconds=2 + 0.01 * mixture.tree.size)
        return costs, slope, curvature
    for row, place in enumerate(places.tolist()):
        costs[row] = _add_cost(mixture, ids, place, logits[row].astype(np.float64), slope, curvature)
    return costs, slope, curvature


def _add_cost(
    mixture: Mixture, ids: NDArray[Any], place: int, logits: Floats, slope: Floats, curvature: Floats
) -> float:
    """What one id costs, and what it adds to the derivatives."""
    tree, target = mixture.tree, min(int(ids[place]), mixture.tree.predictable - 1)
    network, path = log_softmax(logits), mixture.tree.path(ids[:place], mixture.longest)
    if begins_text(tree, ids[:place], path, mixture.longest) or not np.isfinite(logits).all():
        return -float(network[target])
    counted, features = compare(tree, path, network)
    both = np.stack([network, counted])[:, : tree.predictable]
    mixed = log_softmax(np.array(mixture.weigh(*features)) @ both)
    if len(slope):
        mean = both @ np.exp(mixed)
        covariance = both * np.exp(mixed) @ both.T - np.outer(mean, mean)
        shares = np.zeros(len(slope))
        shares[-1] = 1.0
        for cell, share in find_cells(tree.order, *features):
            shares[cell] += share
        slope += np.outer(shares, mean - both[:, target])
        curvature += np.einsum("i,ab,j->iajb", shares, covariance, shares)
    return -float(mixed[target])


def fit_weights(
    tree: ContextTree, ids: NDArray[Any], places: NDArray[np.int64], logits: NDArray[Any],
    add: Callable[[Floats], Floats] = lambda sums: sums,
) -> Mixture:  # fmt: skip
    """Find the weights with which a mixture predicts some ids best, by Newton's method.

    Weights are held at being the same everywhere, and these at the network alone; so few ids are enough.

    Args:
        tree: the counts.
        ids: (N,), the text in the order of reading.
        places: (n,), of the ids.
        logits: (n, V), the network's there.
        add: sums an array over all processes, where each has some of the ids.

    Returns:
        The mixture; the network alone where that predicts nothing that is finite.
    """
    cells = np.vstack([np.zeros((cell_count(tree.order), 2)), [[1.0, 0.0]]])
    centre, held = cells.copy(), np.full(cells.size, PRIOR)
    held[-2:] = LOOSE
    (count,) = add(np.array([float(len(places))]))

    def mixture_of(cells: Floats) -> Mixture:
        weights = np.clip(cells[:-1] + everywhere(tree.order, tuple(cells[-1])), -MAX_WEIGHT, MAX_WEIGHT)
        return Mixture(tree, weights)

    def look(cells: Floats) -> tuple[float, Floats, Floats]:
        """The loss and its derivatives, with what holds the weights."""
        sums = add(_sum_costs(mixture_of(cells), ids, places, logits))
        slope, curvature = sums[1 : 1 + cells.size], sums[1 + cells.size :].reshape(cells.size, -1)
        away = (cells - centre).ravel()
        curvature[np.diag_indices(cells.size)] += held
        return float(sums[0] + (held * away**2).sum() / 2), slope + held * away, curvature

    loss, slope, curvature = look(cells)
    seen = np.flatnonzero(curvature.diagonal() > held)  # the others stay where they are held
    length = 1.0
    for _ in range(ROUNDS if np.isfinite(loss) else 0):
        step = np.zeros(cells.size)
        step[seen] = np.linalg.solve(curvature[np.ix_(seen, seen)], slope[seen])
        tried = cells - length * step.reshape(cells.shape)
        after = look(tried)
        if not after[0] <= loss:  # too far
            length /= 4
            continue
        saved = loss - after[0]
        cells, (loss, slope, curvature), length = tried, after, 1.0
        if saved <= ENOUGH * count + LITTLE:
            break
    return mixture_of(cells)


def _sum_costs(mixture: Mixture, ids: NDArray[Any], places: NDArray[np.int64], logits: NDArray[Any]) -> Floats:
    """The costs of all ids and their derivatives, one behind the other; the same however many threads add them up."""
    number = max(1, len(places) // PART)
    parts = np.linspace(0, len(places), number + 1).astype(int)
    sums: list[Any] = [None] * number

    def run(chosen: slice) -> None:
        for part in range(chosen.start, chosen.stop):
            own = slice(parts[part], parts[part + 1])
            costs, slope, curvature = costs_of(mixture, ids, places[own], logits[own], slopes=True)
            sums[part] = np.concatenate([[costs.sum()], slope.ravel(), curvature.ravel()])

    if available():
        from chargen.kernels.threads import parallel_for

        parallel_for(run, number)
    else:
        run(slice(0, number))
    return np.asarray(sum(sums[1:], sums[0]))
