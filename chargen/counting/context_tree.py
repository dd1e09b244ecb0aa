"""What stood behind the contexts of a text, in few bytes: a tree of contexts, each with the ids that it predicts.

A context is the ids before a place, up to some number of them. It hangs below the one that is shorter by its first id,
so the contexts of a place are a path from the empty one down, and looking them up takes no more than the last ids.
Each predicts p(w | h) = (1 - r(h)) s(hw) / s(h) + r(h) p(w | h'), where h' is h without its first id, r is what is left
for it, the shares s are those of the ids that stood behind h, and the empty context leaves its rest to all ids alike.
So probabilities sum to one, whatever the numbers.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.errors import amount

STEP = 1 / 16
"""Shares and rests are powers of two to a multiple of this, stored as that multiple: at most 2.2 % off."""
CODES = np.exp2(-STEP * np.arange(256))
"""What the codes stand for: from 1 down to 2**-15.9."""
MAX_CONTEXTS = 2**24
MAX_ORDER = 32
"""One more than the ids of the longest contexts; of 16 and more hardly any context of a text repeats."""


@dataclass(frozen=True, eq=False)
class ContextTree:
    """Contexts by number: first the empty one, then those of one id, of two …, each one's children side by side.

    Args:
        size: V, the number of ids.
        order: one more than the ids of the longest contexts.
        predictable: how many ids, from 0 on, ever stand behind others: all but the labels of records.
        labels: (M,), the id that a context has before its parent's; ascending among the children of one.
        children: (M,), how many longer contexts hang below each.
        predictions: (M,), how many ids each predicts, 1 or more.
        rests: (M,) uint8, codes of what each leaves for its parent.
        ids: (P,), what is predicted, context after context; ascending in each.
        shares: (P,) uint8, codes of shares.

    Raises:
        ValueError: the arrays are no such tree.
    """

    size: int
    order: int
    predictable: int
    labels: NDArray[Any]
    children: NDArray[Any]
    predictions: NDArray[Any]
    rests: NDArray[np.uint8]
    ids: NDArray[Any]
    shares: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Check everything that compiled code relies on."""
        self._check_shapes()
        if min(self.labels.min(), self.ids.min(), self.children.min(), self.predictions.min()) < 0:
            raise ValueError("numbers below zero")
        if self.labels.max() >= self.size or self.ids.max() >= self.predictable:
            raise ValueError("ids that there are not, or that are never predicted")
        contexts = len(self.labels)
        # After the children of a context, and after its predictions.
        ends, stops = 1 + np.cumsum(self.children, dtype=np.int64), np.cumsum(self.predictions, dtype=np.int64)
        if ends[-1] != contexts or stops[-1] != len(self.ids) or not self.predictions.all():
            raise ValueError("numbers of children or predictions that are not those of all contexts")
        if (ends[:-1] < np.arange(2, contexts + 1)).any():
            raise ValueError("contexts that hang below none before them")
        _check_ascending(self.labels[1:], ends[:-1] - 1)
        _check_ascending(self.ids, stops[:-1])
        depth, last = 0, 1
        while last < contexts:
            depth, last = depth + 1, int(ends[last - 1])
            if depth >= self.order:
                raise ValueError(f"contexts of {amount(depth, 'id')} in a tree of order {self.order}")

    def _check_shapes(self) -> None:
        contexts, predictions = len(self.labels), len(self.ids)
        if not (1 <= self.order <= MAX_ORDER and 0 < self.predictable <= self.size and 0 < contexts <= MAX_CONTEXTS):
            sizes = f"{amount(contexts, 'context')} and {amount(predictions, 'prediction')}"
            raise ValueError(f"a tree of order {self.order} with {sizes}")
        for name, length in array_lengths(contexts, predictions).items():
            array = getattr(self, name)
            if array.dtype != self.dtype_of(name, self.size) or array.shape != (length,):
                raise ValueError(f"{name} of {array.dtype} in the shape {array.shape}")

    @staticmethod
    def dtype_of(name: str, size: int) -> Any:
        """The type of an array's numbers.

        Args:
            name: of the array.
            size: V.
        """
        largest = {"labels": size - 1, "ids": size - 1, "children": size, "predictions": size}.get(name, 255)
        return next(np.dtype(kind) for kind in (np.uint8, np.int16, np.int32) if largest <= np.iinfo(kind).max)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name."""
        return {name: getattr(self, name) for name in array_lengths(0, 0)}

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    @cached_property
    def first_children(self) -> NDArray[np.int32]:
        """(M + 1,), the number of each context's first child."""
        return np.cumsum(np.append(1, self.children), dtype=np.int32)

    @cached_property
    def first_predictions(self) -> NDArray[np.int32]:
        """(M + 1,), where the predictions of each context begin."""
        return np.cumsum(np.append(0, self.predictions), dtype=np.int32)

    def describe(self) -> dict[str, int]:
        """The numbers that say of which shapes the arrays are."""
        return {"order": self.order, "contexts": len(self.labels), "predictions": len(self.ids)}

    def __repr__(self) -> str:
        return f"ContextTree(order={self.order}, {len(self.labels):,} contexts, {self.nbytes / 1e6:.1f} MB)"

    def path(self, ids: NDArray[Any], longest: int = MAX_ORDER) -> list[int]:
        """Find the contexts of a place, from the empty one to the longest.

        Args:
            ids: (N,), those before the place; every begin symbol of a record counts as the end symbol.
            longest: ids of the longest context that is looked for.
        """
        path = [0]
        for id_ in np.minimum(ids[::-1][: min(longest, self.order - 1)], self.predictable - 1).tolist():
            first, last = self.first_children[path[-1] : path[-1] + 2].tolist()
            at = first + int(np.searchsorted(self.labels[first:last], id_))
            if at == last or self.labels[at] != id_:
                break
            path.append(at)
        return path

    def distribution(self, path: list[int]) -> NDArray[np.float64]:
        """The probabilities (V,) of all ids behind contexts.

        Args:
            path: those of 0, 1, 2 … ids.
        """
        result = np.zeros(self.size)
        result[: self.predictable] = 1 / self.predictable
        for context in path:
            first, last = self.first_predictions[context : context + 2]
            shares, rest = CODES[self.shares[first:last]], CODES[self.rests[context]]
            result *= rest
            result[self.ids[first:last]] += (1 - rest) * shares / shares.sum()
        return result


def array_lengths(contexts: int, predictions: int) -> dict[str, int]:
    """How many numbers the arrays of a tree have, by name.

    Args:
        contexts: M.
        predictions: P.
    """
    by_context = dict.fromkeys(("labels", "children", "predictions", "rests"), contexts)
    return by_context | dict.fromkeys(("ids", "shares"), predictions)


def _check_ascending(values: NDArray[Any], starts: NDArray[np.int64]) -> None:
    """Check that values ascend from each start to the next."""
    rises = np.diff(values.astype(np.int64)) > 0
    rises[starts[(starts > 0) & (starts < len(values))] - 1] = True
    if not rises.all():
        raise ValueError("ids of a context that do not ascend")
