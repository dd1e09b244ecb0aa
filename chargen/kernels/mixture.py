"""Mixing what a network predicts with what counts do.

`chargen.counting.mixture` explains it, and has the slow version of each function.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.kernels.context_tree import Tree, begins_text, fill_distribution, find_path
from chargen.kernels.jit import compiled

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
LEAST = 1e-300
"""In place of a probability that is smaller: its logarithm is finite."""
LOG_LEAST = np.log(LEAST)
CELLS = 10
"""Cells of the tables on which the weights of one prediction depend."""


class Tables(NamedTuple):
    """Weights of the network and of counts.

    Args:
        cells: (C, 2), in three tables one behind the other.
        order: of the tree: the first table has so many rows.
        longest: ids of the longest contexts that are looked at.
        entropies: (K,), knots in nats, ascending: the columns of all tables.
        logs: (A,), knots of logarithms of probabilities, ascending: the rows of the second and of the third.
    """

    cells: Floats
    order: int
    longest: int
    entropies: Floats
    logs: Floats


class Scratch(NamedTuple):
    """Memory for one prediction.

    Args:
        network: (V,), logarithms of the network's probabilities.
        counted: (V,), of those of counts; then of what both predict together.
        cells: (10,), numbers of cells.
        shares: (10,), their shares.
    """

    network: Floats
    counted: Floats
    cells: Integers
    shares: Floats


@compiled
def new_scratch(size: int) -> Scratch:
    """Memory for predictions of so many ids."""
    return Scratch(np.empty(size), np.empty(size), np.empty(CELLS, np.int64), np.empty(CELLS))


@compiled
def between(knots: Floats, value: float) -> tuple[int, float]:
    """Find a value between two knots.

    Args:
        knots: two or more, ascending.
        value: any number.

    Returns:
        The number of the knot below it, but for the last, and how far it is on the way to the next one, 0 to 1.
    """
    lower = 0
    while lower < len(knots) - 2 and value >= knots[lower + 1]:
        lower += 1
    share = (value - knots[lower]) / (knots[lower + 1] - knots[lower])
    return lower, min(max(share, 0.0), 1.0)


@compiled
def normalize(logits: NDArray[Any], out: Floats) -> tuple[float, int]:
    """Turn logits into logarithms of probabilities.

    Args:
        logits: (V,), finite.
        out: (V,), filled.

    Returns:
        Their entropy in nats, and the most probable id.
    """
    best = 0
    for v in range(len(logits)):
        if logits[v] > logits[best]:
            best = v
    total, mean = 0.0, 0.0
    for v in range(len(logits)):
        out[v] = np.float64(logits[v]) - np.float64(logits[best])
        weight = np.exp(out[v])
        total += weight
        mean += weight * out[v]
    scale = np.log(total)
    for v in range(len(logits)):
        out[v] = max(out[v] - scale, LOG_LEAST)
    return scale - mean / total, best


@compiled
def take_logs(counted: Floats, size: int) -> tuple[float, int]:
    """Turn probabilities into their logarithms.

    Args:
        counted: (V,), changed.
        size: how many ids are ever predicted.

    Returns:
        Their entropy in nats, and the most probable id.
    """
    best, smallest, entropy = 0, counted[0], 0.0
    for v in range(size):
        smallest = min(smallest, counted[v])
        if counted[v] > counted[best]:
            best = v
    log_smallest = np.log(max(smallest, LEAST))  # of all that no context holds, and so of most, where there are many
    for v in range(size):
        probability = max(counted[v], LEAST)
        counted[v] = log_smallest if counted[v] == smallest else np.log(probability)
        entropy -= probability * counted[v]
    return entropy, best


@compiled
def find_cells(
    tables: Tables, length: int, entropies: tuple[float, float], logs: tuple[float, float], cells: Integers,
    shares: Floats,
) -> None:  # fmt: skip
    """Find the cells on which the weights of one prediction depend.

    Args:
        tables: the weights.
        length: of the longest context that was counted.
        entropies: of the network's prediction, and of that of counts.
        logs: ln p: what counts give to the network's most probable id, and the network to that of counts.
        cells: (10,), filled with numbers of cells.
        shares: (10,), filled with their shares.
    """
    columns, at = len(tables.entropies), 0
    for table in range(3):
        column, right = between(tables.entropies, entropies[1] if table == 2 else entropies[0])
        row, below = length, 0.0
        if table > 0:
            row, below = between(tables.logs, logs[table - 1])
            row += tables.order + (table - 1) * len(tables.logs)
        for down in range(1 + (table > 0)):
            for across in range(2):
                cells[at] = (row + down) * columns + column + across
                shares[at] = (below if down else 1 - below) * (right if across else 1 - right)
                at += 1


@compiled
def compare(
    tree: Tree, tables: Tables, path: NDArray[np.int32], length: int, logits: NDArray[Any], scratch: Scratch
) -> tuple[float, float]:
    """Compare what a network and counts predict.

    Args:
        tree: all contexts.
        tables: the weights.
        path: the contexts of 0 to `length` ids.
        length: of the longest one.
        logits: (V,), the network's, finite.
        scratch: filled with what both predict; only ids that counts ever predict are of use there.

    Returns:
        The weights of both.
    """
    network, counted, cells, shares = scratch
    sure, expected = normalize(logits, network)
    fill_distribution(tree, path, length, counted)
    sure_too, expected_too = take_logs(counted, tree.predictable)
    first = counted[min(expected, tree.predictable - 1)]
    find_cells(tables, length, (sure, sure_too), (first, network[expected_too]), cells, shares)
    weights = 0.0, 0.0
    for at in range(CELLS):
        cell = tables.cells[cells[at]]
        weights = weights[0] + shares[at] * cell[0], weights[1] + shares[at] * cell[1]
    return weights


@compiled
def mix_row(
    tree: Tree, tables: Tables, path: NDArray[np.int32], length: int, logits: NDArray[np.float32], scratch: Scratch
) -> None:
    """Turn a network's logits into logarithms of a mixture's probabilities; what is not finite stays as it is.

    Args:
        tree: all contexts.
        tables: the weights.
        path: the contexts of 0 to `length` ids.
        length: of the longest one; -1 where the text begins, and the network is alone.
        logits: (V,), changed.
        scratch: changed.
    """
    for v in range(len(logits)):
        if not np.isfinite(logits[v]):
            return
    if length < 0:
        normalize(logits, scratch.network)
        logits[:] = scratch.network
        return
    first, second = compare(tree, tables, path, length, logits, scratch)
    mixed, largest = scratch.counted, -np.inf
    for v in range(tree.predictable):
        mixed[v] = first * scratch.network[v] + second * mixed[v]
        largest = max(largest, mixed[v])
    total = 0.0
    for v in range(tree.predictable):
        total += np.exp(mixed[v] - largest)
    scale = largest + np.log(total)
    for v in range(len(logits)):
        logits[v] = max(mixed[v] - scale, LOG_LEAST) if v < tree.predictable else LOG_LEAST


@compiled
def mix_rows(tree: Tree, tables: Tables, ids: Integers, places: Integers, logits: NDArray[np.float32]) -> None:
    """Mix what a network predicts at places of a text with what contexts predict there.

    Args:
        tree: all contexts.
        tables: the weights.
        ids: (N,), the text.
        places: (n,), how many ids of it there are before each.
        logits: (n, V), changed.
    """
    path, scratch = np.empty(tables.longest + 1, np.int32), new_scratch(logits.shape[1])
    for row in range(len(places)):
        length = find_path(tree, ids, places[row], path)
        if begins_text(tree, ids, places[row], length, tables.longest):
            length = -1
        mix_row(tree, tables, path, length, logits[row], scratch)


@compiled
def add_costs(
    tree: Tree, tables: Tables, ids: Integers, places: Integers, logits: NDArray[np.float32], costs: Floats,
    slope: Floats, curvature: Floats,
) -> None:  # fmt: skip
    """What ids of a text cost a mixture, and how that changes with the weights.

    A cell behind those of the tables has a share of one in all weights. Where the text begins nothing is added.

    Args:
        tree: all contexts.
        tables: the weights.
        ids: (N,), the text.
        places: (n,), of the ids.
        logits: (n, V), the network's.
        costs: (n,), filled: nats.
        slope: (C + 1, 2), added to: first derivatives.
        curvature: (C + 1, 2, C + 1, 2), added to: second ones. Where both are empty they are not asked for.
    """
    size, everywhere = tree.predictable, len(tables.cells)
    path, scratch = np.empty(tables.longest + 1, np.int32), new_scratch(logits.shape[1])
    network, counted = scratch.network, scratch.counted
    for row in range(len(places)):
        target = min(ids[places[row]], size - 1)
        length = find_path(tree, ids, places[row], path)
        if begins_text(tree, ids, places[row], length, tables.longest) or not np.isfinite(logits[row]).all():
            normalize(logits[row], network)
            costs[row] = -network[target]
            continue
        first, second = compare(tree, tables, path, length, logits[row], scratch)
        largest = -np.inf
        for v in range(size):
            largest = max(largest, first * network[v] + second * counted[v])
        total, x, y, xx, xy, yy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for v in range(size):
            weight = np.exp(first * network[v] + second * counted[v] - largest)
            total += weight
            if not len(slope):
                continue
            x += weight * network[v]
            y += weight * counted[v]
            xx += weight * network[v] ** 2
            xy += weight * network[v] * counted[v]
            yy += weight * counted[v] ** 2
        costs[row] = largest + np.log(total) - first * network[target] - second * counted[target]
        if not len(slope):
            continue
        x, y = x / total, y / total
        xx, xy, yy = xx / total - x * x, xy / total - x * y, yy / total - y * y
        x, y = x - network[target], y - counted[target]
        for i in range(CELLS + 1):
            cell, share = everywhere, 1.0
            if i < CELLS:
                cell, share = scratch.cells[i], scratch.shares[i]
            slope[cell, 0] += share * x
            slope[cell, 1] += share * y
            for j in range(CELLS + 1):
                other, both = everywhere, share
                if j < CELLS:
                    other, both = scratch.cells[j], share * scratch.shares[j]
                curvature[cell, 0, other, 0] += both * xx
                curvature[cell, 0, other, 1] += both * xy
                curvature[cell, 1, other, 0] += both * xy
                curvature[cell, 1, other, 1] += both * yy
