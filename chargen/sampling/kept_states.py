"""States after many places of a text, so that reading it again after a change begins at the nearest of them."""

import time
from bisect import bisect_right, insort
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from chargen.data.vocabulary import Ids
from chargen.decoding.numpy_engine import Engine, State
from chargen.sampling.start import Start

MAX_KEPT = 512
"""States at most: where there are more, those before the last quarter are thinned out, evenly."""
MAX_BLOCK = 1_024
"""Ids between two states."""
BLOCK_SECONDS = 0.05
"""Seconds that reading a block should take: between two, a program can do something else."""

_Place = tuple[int, NDArray[np.float32], State]
"""How many ids were read; logits (1, V); state, one (1, S) a layer."""


class KeptStates:
    """Reads texts, each of which has much in common with the one before.

    Args:
        engine: of the model.
        start: what stands before every text.
    """

    def __init__(self, engine: Engine, start: Start) -> None:
        self.engine = engine
        self.ids_read = 0
        """How many ids have been read in all."""
        self._places: list[_Place] = [(0, start.logits, start.state)]
        self._ids: Ids = np.zeros(0, np.uint8)
        """The text that the places are in."""
        self._block = 64
        self._spacing = 1
        self._reading = object()
        """Of the reading that began last."""

    def read(self, ids: Ids) -> Iterator[int]:
        """Read a text from the last place that it has in common with the text before; may be left at any time.

        A reading that was left does not go on once another has begun.

        Args:
            ids: (N,).

        Returns:
            An iterator over how many ids have been read, after each block.
        """
        self._reading = reading = object()
        common = self.common_length(ids)
        if common < len(ids):
            self._places = [place for place in self._places if place[0] <= common]
            self._ids = ids
        while self._reading is reading and self.nearest(len(ids))[0] < len(ids):
            position, logits, state = self.nearest(len(ids))
            block = ids[None, position : position + self._block].astype(np.int64)
            begun = time.perf_counter()
            logits, state = self.engine.read(block, np.array([block.size]), logits, state)
            seconds = time.perf_counter() - begun + 1e-9
            self._block = max(16, min(MAX_BLOCK, 2 * self._block, int(block.size * BLOCK_SECONDS / seconds)))
            self.ids_read += block.size
            insort(self._places, (position + block.size, logits, state), key=lambda place: place[0])
            if len(self._places) > MAX_KEPT:
                self._thin_out()
            yield position + block.size

    def common_length(self, ids: Ids) -> int:
        """Count the ids that a text has in common with the text before, at their beginning.

        Args:
            ids: (N,), of the text.
        """
        return _common_length(self._ids, ids)

    def _thin_out(self) -> None:
        """Drop places before the last quarter until a quarter of what may be kept is free, evenly over the text."""
        recent = MAX_KEPT // 4
        while len(self._places) > MAX_KEPT - recent:
            kept = self._places[:1]
            for place in self._places[1:-recent]:
                if place[0] - kept[-1][0] >= self._spacing:
                    kept.append(place)
            self._places = kept + self._places[-recent:]
            self._spacing *= 1 + (len(self._places) > MAX_KEPT - recent)

    def nearest(self, position: int) -> _Place:
        """Look up the last place that is kept at a position or before it.

        Args:
            position: ids before it.

        Returns:
            Its position, the logits (1, V) of what comes next, and the state, one (1, S) a layer.
        """
        return self._places[bisect_right(self._places, position, key=lambda place: place[0]) - 1]


def _common_length(first: Ids, second: Ids) -> int:
    """How many ids two texts have in common at their beginning."""
    size = min(len(first), len(second))
    different = np.flatnonzero(first[:size] != second[:size])
    return int(different[0]) if len(different) else size
