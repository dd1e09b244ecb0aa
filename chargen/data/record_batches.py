"""Minibatches of records, which every epoch reads in another order.

An epoch's order is a permutation, by seed and epoch, of at most 2**20 blocks of consecutive records, so that memory
stays flat and a batch is a pure function of its step. Letters: B rows, T characters per row, N ids of all records.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import check_array
from chargen.data.batches import MAX_STEP, Batch
from chargen.data.borders import as_targets, leave_out_labels
from chargen.errors import DataError
from chargen.rng import Purpose, uniform
from chargen.settings import check_int

MAX_BLOCKS = 2**20
"""Blocks whose order is drawn: up to a million records, a block is a record."""
CHUNK = 2**24
"""Ids in which begin symbols are looked for at a time."""


def find_blocks(ids: NDArray[Any], first_begin: int, most: int = MAX_BLOCKS) -> NDArray[np.int64]:
    """Find where blocks of records begin: all of them of equally many records, but for the last.

    Args:
        ids: (N,), records behind their begin symbols.
        first_begin: the first of the begin symbols, which are the last ids.
        most: how many blocks there may be.

    Returns:
        Positions (K,), rising; with one record a block where there are at most `most`.
    """
    chunks = range(0, len(ids), CHUNK)
    number = sum(int(np.count_nonzero(ids[start : start + CHUNK] >= first_begin)) for start in chunks)
    stride, skipped, blocks = -(-number // most), 0, []
    for start in chunks:
        begins = start + np.flatnonzero(ids[start : start + CHUNK] >= first_begin)
        blocks.append(begins[-skipped % max(stride, 1) :: max(stride, 1)])
        skipped += len(begins)
    return np.concatenate([np.zeros(0, np.int64), *blocks])


class RecordBatches:
    """Batches in which every row reads its own part of each epoch's order; every part begins with a fresh state.

    In epoch e, row i reads S = ceil(N / B) targets from place floor(i N / B) of the records in the order of e, as a
    ring. So every id is a target once an epoch, up to B of them twice.

    Args:
        ids: (N,), records behind their begin symbols; N >= 2.
        end_id: the end symbol, from which on all ids are begin symbols.
        batch_size: B, over all processes.
        seq_length: T.
        seed: fixes the orders, and which labels are left out.
        rows: which rows this process takes; all by default.
        shuffle: whether epochs have orders of their own; otherwise all have that of the ids.

    Raises:
        DataError: where there is too little text.
    """

    def __init__(
        self,
        ids: NDArray[Any],
        end_id: int,
        batch_size: int,
        seq_length: int,
        seed: int = 0,
        rows: range | None = None,
        shuffle: bool = True,
    ) -> None:
        ids = check_array("ids", ids, (None,), np.int64)
        batch_size, seq_length = check_int("batch_size", batch_size, 1), check_int("seq_length", seq_length, 1)
        blocks = find_blocks(ids, end_id)
        if len(ids) < 2 or not len(blocks):
            raise DataError("training needs at least one record; give more, or a smaller `valid_fraction`")
        self.ids, self.end_id, self.blocks = ids, end_id, blocks
        self.seq_length, self.seed, self.shuffle = seq_length, seed, shuffle
        self.lengths = np.diff(blocks, append=blocks[0] + len(ids))
        self.steps_per_epoch = len(ids) / (batch_size * seq_length)
        rows = range(batch_size) if rows is None else rows
        self.rows = np.array(rows, np.int64)
        self.starts = np.array([row * len(ids) // batch_size for row in rows], np.int64)
        self.part = -(-len(ids) // batch_size)
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def _draw_order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """An epoch's blocks: their place in its order, rising from 0, and what to add to a place for its position."""
        order = np.arange(len(self.blocks))
        if self.shuffle:
            order = np.argsort(uniform(self.seed, order, epoch, Purpose.ORDER), kind="stable")
        lengths = self.lengths[order]
        places = np.cumsum(lengths) - lengths
        return places, self.blocks[order] - places

    def positions(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the ids are that an epoch reads.

        Args:
            epoch: counted from 0.
            places: in its order; it is a ring.

        Returns:
            Positions, of the same shape.
        """
        places = places % len(self.ids)
        begins, shifts = self._order(epoch)
        return (places + shifts[np.searchsorted(begins, places, "right") - 1]) % len(self.ids)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; rows start fresh where their part of an epoch begins.

        Args:
            step: counted from 0.
        """
        step = check_int("step", step, 0, MAX_STEP)
        epochs, offsets = divmod(step * self.seq_length + np.arange(self.seq_length), self.part)
        places = self.starts[:, None] + offsets
        inputs, targets = (np.empty(places.shape, np.int64) for _ in range(2))
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            columns = np.flatnonzero(epochs == epoch)
            window = np.concatenate([places[:, columns[:1]] - 1, places[:, columns]], 1)
            read = self.ids[self.positions(epoch, window)].astype(np.int64)
            inputs[:, columns], targets[:, columns] = read[:, :-1], read[:, 1:]
        inputs = leave_out_labels(inputs, self.end_id, self.seed, self.rows, step)
        return Batch(inputs, as_targets(targets, self.end_id), np.broadcast_to(offsets == 0, places.shape).copy())
