"""Interpolated modified Kneser-Ney: what counts of short stretches of characters predict, a baseline for networks.

Kneser and Ney, "Improved backing-off for m-gram language modeling" (1995); Chen and Goodman, "An empirical study of
smoothing techniques for language modeling" (1998), whose three discounts are estimated for each length.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import check_array, check_range
from chargen.counting.gram_counts import Counts, Floats, Integers, Weights, count_grams, is_border, weigh
from chargen.data.borders import as_targets
from chargen.errors import ArgumentError
from chargen.rng import Purpose, check_seed, uniform
from chargen.settings import check_int

MAX_ORDER = 100
"""Beyond it hardly any gram of a text repeats."""
MAX_IDS = 2**30
"""Their positions are stored in 32 bits."""
BLOCK = 1 << 20
"""Ids whose probabilities are computed at a time."""
NONE, ONCE = -1, -2
"""Of a gram that is not in the text; and, minus its position, of one that occurs once."""


class NGram:
    """An interpolated Kneser-Ney model of order n: it predicts each id from the n - 1 before it.

    p_n(w | h) = (c(hw) - D(c(hw))) / c(h) + r(h) p_(n-1)(w | h'), where h' is h without its first id, c counts
    occurrences for the longest grams and different ids before a gram for shorter ones, D is one of three discounts, for
    counts of 1, 2 and more, and r(h) is what they leave; p_0 = 1 / V. Where h is not in the text, p_n is p_(n-1).

    A context does not reach across the border of a record. Memory is some 50 bytes for each id of the text while grams
    are counted, and some 40 for each gram, of any length up to n, that differs from others and whose beginning repeats.

    Args:
        ids: of the text (N,), 0 to V - 1.
        size: V.
        order: n, 1 to 100.
        end_id: of records, the end symbol, which is the first of the begin symbols; `ids` then begins with one. None
            for running text.
        progress: called as (length, n) when the grams of a length are counted.

    Raises:
        ArgumentError: ids have another shape, type or range.
        SettingError: the order is out of its range.
    """

    def __init__(
        self,
        ids: NDArray[Any],
        size: int,
        order: int = 8,
        *,
        end_id: int | None = None,
        progress: Callable[[int, int], None] = lambda length, order: None,
    ) -> None:
        self.size = check_int("size", size, 0, 2**31)
        self.order = check_int("order", order, 1, MAX_ORDER)
        self.end_id = end_id if end_id is None else check_int("end_id", end_id, 0, self.size - 1)
        self.ids = self._check(ids)
        if len(self.ids) > MAX_IDS:
            raise ArgumentError(f"ids of length {len(self.ids):,}: needed is a part of at most {MAX_IDS:,}")
        self._targets = as_targets(self.ids, end_id)
        self._grams, self._variants = count_grams(self.ids, self.size, self.order, end_id, progress)

    def __repr__(self) -> str:
        return f"NGram(order={self.order}, size={self.size}, ids={len(self.ids):,})"

    def _check(self, ids: NDArray[Any]) -> NDArray[Any]:
        ids = check_array("ids", ids, (None,), np.int64)
        for start in range(0, len(ids), BLOCK):
            check_range("ids", ids[start : start + BLOCK], 0, self.size)
        whole = ids.dtype.kind in "iu" and ids.dtype != np.uint64 and np.iinfo(ids.dtype).max >= self.size - 1
        return ids if whole else ids.astype(np.int64)

    def _weigh(self, length: int, counts: Counts) -> Weights:
        """The weights of grams of some length by their counts, which are occurrences or variants."""
        shorter = len(self._grams[length - 2].counts) if length > 1 else 0
        return weigh(self._grams[length - 1], counts, self.size, shorter)

    @cached_property
    def _weights(self) -> list[Weights]:
        """Those of this model, by length: only its longest grams count by their occurrences."""
        longest = self._weigh(self.order, self._grams[-1].counts)
        return [self._weigh(length, counts) for length, counts in enumerate(self._variants, 1)] + [longest]

    @property
    def _uniform(self) -> float:
        """The probability of an id of which nothing is known: a label is never predicted."""
        return 1 / max(self.size if self.end_id is None else self.end_id + 1, 1)

    def _extend(self, length: int, contexts: Integers, targets: Integers) -> Integers:
        """Find the grams of ids behind contexts: entries, `ONCE` minus a position, or `NONE`."""
        grams = self._grams[length - 1]
        places = np.full(len(contexts), NONE, np.int64)
        if length == 1:
            return targets
        if len(grams.keys):
            listed = np.flatnonzero(contexts >= 0)
            keys = contexts[listed] * self.size + targets[listed]
            nearest = np.minimum(np.searchsorted(grams.keys, keys), len(grams.keys) - 1)
            places[listed] = np.where(grams.keys[nearest] == keys, nearest, NONE)
        once, following = self._following(contexts)
        places[once] = np.where(self._targets[following] == targets[once], ONCE - following, NONE)
        return places

    def _following(self, contexts: Integers) -> tuple[Integers, Integers]:
        """Which contexts occur once, but not at the end of the text; and the positions behind them."""
        once = np.flatnonzero(contexts <= ONCE)
        following = ONCE - contexts[once] + 1
        inside = following < len(self.ids)
        return once[inside], following[inside]

    def _as_contexts(self, length: int, places: Integers) -> Integers:
        """Grams as the contexts of those that are longer by one."""
        grams = self._grams[length - 1]
        if length > 1:  # all single ids have an entry
            listed = np.flatnonzero(places >= 0)
            once = listed[grams.counts[places[listed]] == 1]
            places = places.copy()
            places[once] = ONCE - grams.ends[places[once]]
        return places

    def _mix(self, contexts: Integers, places: Integers, lower: Floats, weights: Weights) -> Floats:
        """The probabilities of grams from those of shorter ones."""
        result = lower.copy()
        listed = np.flatnonzero(contexts >= 0)
        result[listed] *= weights.rest[contexts[listed]]
        in_table = np.flatnonzero(places >= 0)
        result[in_table] += weights.kept[places[in_table]]
        result[self._following(contexts)[0]] *= weights.discount
        result[np.flatnonzero(places <= ONCE)] += 1 - weights.discount
        return result

    def _predict(self, ids: NDArray[Any], orders: Sequence[int]) -> Iterator[Floats]:
        """The probabilities of ids (N,) in models of some orders, none above `self.order`."""
        targets = as_targets(ids, self.end_id).astype(np.int64)
        borders = np.flatnonzero(is_border(ids, self.end_id)) + 1
        contexts, lower = np.zeros(len(ids), np.int64), np.full(len(ids), self._uniform)
        for length in range(1, max(orders) + 1):
            places = self._extend(length, contexts, targets)
            if length in orders:
                own = length == self.order
                weights = self._weights[-1] if own else self._weigh(length, self._grams[length - 1].counts)
                yield self._mix(contexts, places, lower, weights)
            if length < max(orders):
                lower = self._mix(contexts, places, lower, self._weights[length - 1])
                before = self._as_contexts(length, places if length > 1 else ids.astype(np.int64))
                contexts = np.concatenate([[NONE], before])
                if length > 1:
                    contexts[borders] = NONE
                contexts = contexts[:-1]

    def log_probs(self, ids: NDArray[Any]) -> Floats:
        """The log-probability of each id behind those before it, in nats; a label counts as the end symbol.

        Args:
            ids: (N,), 0 to V - 1.

        Returns:
            (N,); of the first id without context.
        """
        return np.concatenate([block for (block,) in self._blocks(ids, [self.order])] or [np.zeros(0)])

    def log_probs_by_order(self, ids: NDArray[Any]) -> Iterator[Floats]:
        """The log-probabilities of ids in the models of all orders up to this one's, in nats, block by block.

        Args:
            ids: (N,), 0 to V - 1.

        Yields:
            (n, B), in the order of the text, one row for each order.
        """
        return self._blocks(ids, range(1, self.order + 1))

    def _blocks(self, ids: NDArray[Any], orders: Sequence[int]) -> Iterator[Floats]:
        """Blocks of log-probabilities, each from the ids in it and so many before it as contexts have."""
        ids = self._check(ids)
        for start in range(0, len(ids), BLOCK):
            before = min(start, self.order - 1)
            block = ids[start - before : start + BLOCK]
            yield np.log(np.array([probabilities[before:] for probabilities in self._predict(block, orders)]))

    def sample(self, length: int, seed: int = 0, context: Sequence[int] = ()) -> Integers:
        """Write ids, each drawn from its probabilities behind those before it.

        Behind an end symbol, a record begins with a begin symbol of the text, each as often as there.

        Args:
            length: how many.
            seed: 0 to 2**64 - 1; the same one writes the same.
            context: ids to go on from, such as the symbol before a record.

        Returns:
            (length,); without the context.
        """
        check_int("length", length, 0)
        seed = check_seed(seed)
        draws = uniform(seed, 0, np.arange(length), Purpose.SAMPLE).tolist() if length else []
        contexts = [NONE] * self.order
        for id_ in self._check(np.array(context, np.int64))[-self.order :].tolist():
            contexts = self._behind(contexts, id_)
        begins = self.ids[is_border(self.ids, self.end_id)] if len(self.ids) else np.array([self.end_id])
        places = (uniform(seed, 0, np.arange(length), Purpose.LABEL) * len(begins)).astype(np.int64)
        written = np.zeros(length, np.int64)
        for number, draw in enumerate(draws):
            written[number] = id_ = self._choose(contexts, draw)
            contexts = self._behind(contexts, int(begins[places[number]]) if id_ == self.end_id else id_)
        return written

    def _behind(self, contexts: list[int], id_: int) -> list[int]:
        """The grams of 0, 1, 2 … ids that end with an id, from those that end before it."""
        if is_border(np.array([id_]), self.end_id)[0]:
            return [0, id_, *[NONE] * self.order][: self.order]
        behind, target = [0], np.array([id_])
        for length in range(1, self.order):
            places = self._extend(length, np.array(contexts[length - 1 : length]), target)
            behind += self._as_contexts(length, places).tolist()
        return behind

    def _choose(self, contexts: list[int], draw: float) -> int:
        """The id at a place from 0 to 1, where the longest grams come first, then what they leave for shorter ones."""
        for length in range(self.order, 1, -1):
            context, weights, keys = contexts[length - 1], self._weights[length - 1], self._grams[length - 1].keys
            if context >= 0:
                first, last = np.searchsorted(keys, [context * self.size, (context + 1) * self.size]).tolist()
                reached = np.cumsum(weights.kept[first:last])
                if last > first and draw < reached[-1]:
                    return int(keys[first + np.searchsorted(reached, draw, "right")]) - context * self.size
                draw = (draw - float(reached[-1])) / float(weights.rest[context]) if last > first else draw
            elif context <= ONCE and (following := ONCE - context + 1) < len(self.ids):
                if draw < 1 - weights.discount:
                    return int(self._targets[following])
                draw = (draw - 1 + weights.discount) / weights.discount
        return min(int(np.searchsorted(self._cumulated, draw * self._cumulated[-1], "right")), len(self._cumulated) - 1)

    @cached_property
    def _cumulated(self) -> Floats:
        """The sums of the probabilities of ids up to each, without context."""
        last = self.size if self.end_id is None else self.end_id + 1
        weights = self._weights[0]
        cumulated: Floats = np.cumsum(weights.kept[:last] + weights.rest[0] * self._uniform)
        return cumulated
