"""Trees of contexts to test with: random ones, safe ones told from others, and compiled code under watch."""

from itertools import chain
from types import FunctionType
from typing import Any

import numpy as np

from chargen.counting.context_tree import ContextTree
from chargen.counting.mixture import Mixture, cell_count, everywhere
from chargen.kernels import context_tree
from chargen.kernels import mixture as mixing

CLOSE = 1e-12
NAMES = ("labels", "children", "predictions", "rests", "ids", "shares")


def random_arrays(seed: int, size: int, order: int, predictable: int, most: int = 3) -> dict[str, np.ndarray]:
    """The arrays of a random tree.

    Args:
        seed: of all draws.
        size: V.
        order: one more than the ids of the longest contexts.
        predictable: ids that are predicted.
        most: children of a context.
    """
    random = np.random.default_rng(seed)

    def ascending(below: int, number: int) -> list[int]:
        return sorted(random.choice(below, min(below, number), replace=False).tolist())

    labels, children, width = [0], [], 1
    for depth in range(order):
        level = [ascending(size, random.integers(0, most + 1)) if depth + 1 < order else [] for _ in range(width)]
        children += [len(of_one) for of_one in level]
        labels += [*chain(*level)]
        width = sum(map(len, level))
    predicted = [ascending(predictable, random.integers(1, predictable + 1)) for _ in labels]
    values: dict[str, Any] = {"labels": labels, "children": children, "predictions": list(map(len, predicted))}
    values |= {"ids": [*chain(*predicted)], "rests": random.integers(0, 256, len(labels))}
    values["shares"] = random.integers(0, 256, len(values["ids"]))
    return {name: np.array(values[name], ContextTree.dtype_of(name, size)) for name in NAMES}


def random_tree(seed: int, size: int = 6, order: int = 5, predictable: int | None = None) -> ContextTree:
    """A random tree, which is that of no text."""
    predictable = size if predictable is None else predictable
    return ContextTree(size, order, predictable, **random_arrays(seed, size, order, predictable))


def random_mixture(seed: int, size: int = 6, order: int = 5, predictable: int | None = None) -> Mixture:
    """A random tree with random weights."""
    return Mixture(random_tree(seed, size, order, predictable), random_cells(seed, order))


def random_cells(seed: int, order: int) -> np.ndarray:
    """Weights of a mixture, those of the network near 0.6 and those of counts near 0.4."""
    return everywhere(order, (0.6, 0.4)) + np.random.default_rng(seed).normal(size=(cell_count(order), 2)) * 0.1


def contexts_of(tree: ContextTree, most: int = 40) -> list[np.ndarray]:
    """The ids of contexts of a tree behind others that may be in longer ones, from the first contexts to the last.

    Args:
        tree: the contexts.
        most: contexts, at most.
    """
    contexts, parents = len(tree.labels), np.repeat(np.arange(len(tree.labels)), tree.children)
    result = []
    for number in np.unique(np.linspace(0, contexts - 1, most).astype(int)):
        ids, at = [], int(number)
        while at:
            ids.append(int(tree.labels[at]))
            at = int(parents[at - 1])
        result += [np.array([before, *ids], np.int64) for before in (-1, 0, tree.predictable - 1, tree.size - 1)]
    return result


class Watched(np.ndarray[Any, Any]):
    """An array that is neither read nor written outside, nor from its end."""

    def __getitem__(self, at: Any) -> Any:
        assert not isinstance(at, (int, np.integer)) or 0 <= at < len(self), f"{at} of {len(self)}"
        return super().__getitem__(at)

    def __setitem__(self, at: Any, value: Any) -> None:
        assert not isinstance(at, (int, np.integer)) or 0 <= at < len(self), f"{at} of {len(self)}"
        super().__setitem__(at, value)


def watched(values: Any) -> Any:
    """A tuple of arrays and numbers whose arrays are watched."""
    return type(values)(*(part.view(Watched) if isinstance(part, np.ndarray) else part for part in values))


def _as_python() -> dict[str, Any]:
    """The functions of compiled code by name, as Python runs them."""
    names: dict[str, Any] = {**vars(context_tree), **vars(mixing)}
    for name, value in list(names.items()):
        if hasattr(value, "py_func"):
            names[name] = FunctionType(value.py_func.__code__, names, name)
    return names


IN_PYTHON = _as_python()


def check_lookups(mixture: Mixture, contexts: list[np.ndarray]) -> None:
    """Check that all that compiled code reads and writes is inside, that it computes what Python does, and that
    probabilities sum to one.

    Args:
        mixture: the counts.
        contexts: ids (N,), of any value.
    """
    tree, size = mixture.tree, mixture.tree.size
    numbers, tables = mixture.compiled
    safe, safe_tables = watched(numbers), watched(tables)
    for ids in contexts:
        path, safe_path = np.zeros(mixture.longest + 1, np.int32), np.zeros(mixture.longest + 1, np.int32).view(Watched)
        length = IN_PYTHON["find_path"](safe, ids.view(Watched), len(ids), safe_path)
        assert length == context_tree.find_path(numbers, ids, len(ids), path)
        assert tree.path(ids, mixture.longest) == path[: length + 1].tolist() == safe_path[: length + 1].tolist()
        probabilities, out = np.full(size, np.nan), np.full(size, np.nan).view(Watched)
        IN_PYTHON["fill_distribution"](safe, safe_path, length, out)
        context_tree.fill_distribution(numbers, path, length, probabilities)
        np.testing.assert_allclose(probabilities, out, rtol=0, atol=CLOSE)
        np.testing.assert_allclose(probabilities, tree.distribution(path[: length + 1].tolist()), rtol=0, atol=CLOSE)
        assert abs(probabilities.sum() - 1) < CLOSE
        assert (probabilities[: tree.predictable] >= 0).all()
        assert not probabilities[tree.predictable :].any()
        for target in np.linspace(0, tree.predictable - 1, 5).astype(int).tolist():
            single = context_tree.probability_of(numbers, path, length, target)
            assert abs(single - probabilities[target]) < CLOSE
            assert abs(IN_PYTHON["probability_of"](safe, safe_path, length, target) - single) < CLOSE
    logits = np.linspace(-3, 4, size, dtype=np.float32)
    mixed, safe_logits = logits.copy(), logits.copy().view(Watched)
    IN_PYTHON["mix_row"](safe, safe_tables, safe_path, length, safe_logits, watched(mixing.new_scratch(size)))
    mixing.mix_row(numbers, tables, path, length, mixed, mixing.new_scratch(size))
    np.testing.assert_allclose(mixed, safe_logits, rtol=1e-6, atol=1e-6)
    assert abs(np.exp(mixed.astype(np.float64)).sum() - 1) < 1e-5
