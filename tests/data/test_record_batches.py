"""Batches of records: every id a target once an epoch, in an order of its own, and a pure function of the step."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from chargen.data import record_batches
from chargen.data.batches import Batch, RandomBatches
from chargen.data.borders import as_targets, labels_before, leave_out_labels
from chargen.data.directions import make_batches
from chargen.data.record_batches import RecordBatches, find_blocks
from chargen.errors import DataError

END, LABELS = 5000, 3
"""Ids of records below END are places in the text, so that each says where it was read."""
seeds = st.integers(0, 2**64 - 1)
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=12)
shapes = st.tuples(st.integers(1, 7), st.integers(1, 12))


def records(lengths: list[int], labels: bool = False) -> NDArray[np.uint16]:
    """Records of these lengths, whose ids are their places."""
    ids = np.arange(sum(lengths) + len(lengths), dtype=np.uint16)
    begins = np.cumsum([0, *lengths[:-1]]) + np.arange(len(lengths))
    ids[begins] = END + (1 + np.arange(len(lengths)) % LABELS if labels else 0)
    return ids


def rows_of(batches: RecordBatches, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """All inputs, targets and fresh states of so many steps, a row each."""
    read = [batches.batch(step) for step in range(steps)]
    inputs, targets, fresh = (np.concatenate([getattr(each, name) for each in read], 1)
                              for name in ("inputs", "targets", "fresh"))  # fmt: skip
    return inputs, targets, fresh


def are_equal(batch: Batch, other: Batch) -> bool:
    return all(np.array_equal(getattr(batch, name), getattr(other, name)) for name in ("inputs", "targets", "fresh"))


def order(batches: RecordBatches, epoch: int) -> NDArray[np.int64]:
    return batches.positions(epoch, np.arange(len(batches.ids)))


@given(sizes, shapes, seeds, st.booleans(), st.integers(1, 5))
@example([1], (1, 1), 0, True, 1)
@example([1], (7, 12), 0, True, 1)
def test_an_epochs_order_is_one_of_whole_blocks(
    lengths: list[int], shape: tuple[int, int], seed: int, shuffle: bool, most: int
) -> None:
    ids = records(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_batches, "find_blocks", lambda ids, first: find_blocks(ids, first, most))
        batches = RecordBatches(ids, END, *shape, seed, shuffle=shuffle)
    begins = find_blocks(ids, END, most)
    for epoch in range(3):
        places = order(batches, epoch)
        assert sorted(places.tolist()) == list(range(len(ids)))
        breaks = np.flatnonzero(np.diff(places) != 1) + 1
        assert set(places[[0, *breaks]].tolist()) <= set(begins.tolist())
        if not shuffle:
            assert places.tolist() == list(range(len(ids)))


@given(sizes, shapes, seeds, st.booleans())
@example([1, 1], (5, 9), 0, True)
def test_every_id_is_a_target_once_an_epoch_and_some_twice(
    lengths: list[int], shape: tuple[int, int], seed: int, backward: bool
) -> None:
    ids = records(lengths)[:: -1 if backward else 1]
    rows, window = shape
    batches = RecordBatches(ids, END, rows, window, seed)
    part = -(-len(ids) // rows)
    inputs, targets, fresh = rows_of(batches, -(-3 * part // window))
    assert batches.steps_per_epoch == len(ids) / (rows * window)
    assert fresh[:, : 3 * part].tolist() == [[place % part == 0 for place in range(3 * part)]] * rows
    for epoch in range(3):
        read = targets[:, epoch * part : (epoch + 1) * part]
        counts = np.bincount(read.ravel(), minlength=END + 1)
        assert set(counts[ids[ids < END]].tolist()) <= {1, 2}
        assert len(lengths) <= counts[END] <= 2 * len(lengths)
        assert (counts > 1).sum() <= rows
        places = order(batches, epoch)
        for row in range(rows):
            at = (row * len(ids) // rows + np.arange(-1, part)) % len(ids)
            assert targets[row, epoch * part : (epoch + 1) * part].tolist() == ids[places[at[1:]]].tolist()
            assert inputs[row, epoch * part : (epoch + 1) * part].tolist() == ids[places[at[:-1]]].tolist()


@given(sizes, shapes, seeds, st.integers(0, 2**40), st.booleans(), st.booleans())
def test_a_batch_is_a_pure_function_of_its_step_and_rows_are_those_of_the_whole(
    lengths: list[int], shape: tuple[int, int], seed: int, step: int, labels: bool, shuffle: bool
) -> None:
    ids, (rows, window) = records(lengths, labels), shape
    used = RecordBatches(ids, END, rows, window, seed, shuffle=shuffle)
    for other in (step // 2, 0, 3):
        used.batch(other)
    batch = used.batch(step)
    assert are_equal(batch, RecordBatches(ids, END, rows, window, seed, shuffle=shuffle).batch(step))
    assert batch.inputs.dtype == batch.targets.dtype == np.int64
    first = rows // 2
    pieces = [RecordBatches(ids, END, rows, window, seed, range(*part), shuffle).batch(step)
              for part in ((0, first), (first, rows))]  # fmt: skip
    for name in ("inputs", "targets", "fresh"):
        assert np.array_equal(np.concatenate([getattr(piece, name) for piece in pieces]), getattr(batch, name))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    ids = records([3] * 300)
    orders = {
        tuple(order(RecordBatches(ids, END, 2, 5, seed), epoch).tolist()) for seed in (0, 1) for epoch in range(3)
    }
    assert len(orders) == 6
    firsts = [order(RecordBatches(ids, END, 2, 5), epoch)[0] // 4 for epoch in range(400)]
    assert np.ptp(firsts) > 250
    assert abs(np.mean(firsts) - 150) < 20


@given(sizes, st.integers(1, 14), st.sampled_from([1, 2, 3, 50]))
def test_blocks_begin_at_every_so_many_records(lengths: list[int], most: int, chunk: int) -> None:
    ids = records(lengths, labels=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_batches, "CHUNK", chunk)
        blocks = find_blocks(ids, END, most)
    begins = np.flatnonzero(ids >= END)
    stride = next(n for n in range(1, 99) if -(-len(begins) // n) <= most)
    assert blocks.tolist() == begins[::stride].tolist()


def test_texts_without_a_record_are_named() -> None:
    for ids in (np.zeros(0, np.uint8), np.full(1, END), np.zeros(5, np.uint8)):
        with pytest.raises(DataError, match="at least one record"):
            RecordBatches(ids, END, 1, 1)


# Labels.


@given(sizes, shapes, seeds, st.sampled_from(["consecutive", "random"]))
def test_no_target_is_a_label_and_a_border_carries_that_of_the_record_read_next(
    lengths: list[int], shape: tuple[int, int], seed: int, batching: str
) -> None:
    ids, (rows, window) = records([*lengths, 40], labels=True), shape
    by_place = ids[np.maximum.accumulate(np.where(ids >= END, np.arange(len(ids)), 0))]
    batches = make_batches(ids, ["forward", "backward"], batching, rows, window, seed, end_id=END)
    for batch, by in zip((batches[way].batch(3) for way in ("forward", "backward")), (1, -1), strict=True):
        assert batch.targets.max() <= END
        for row, fresh_row, target_row in zip(batch.inputs, batch.fresh, batch.targets, strict=True):
            pairs = list(zip(row.tolist(), fresh_row.tolist(), strict=True))
            for (read, _), target in zip(pairs, target_row.tolist(), strict=True):
                if read > END and target < END:  # a label stands for the record that is read next
                    assert read == by_place[target]
                if read < END and target < END:
                    assert target == read + by
            for (after, fresh), target in zip(pairs[1:], target_row.tolist(), strict=False):
                assert fresh or min(after, END) == target


def test_a_tenth_of_labels_is_left_out_and_nothing_else_changes() -> None:
    ids = records([1] * 400, labels=True)
    whole = RecordBatches(ids, END, 8, 100, 7)
    left = total = 0
    for step in range(40):
        batch = whole.batch(step)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(record_batches, "leave_out_labels", lambda inputs, *rest: inputs)
            full = whole.batch(step)
        changed = batch.inputs != full.inputs
        assert (batch.inputs[changed] == END).all()
        assert (full.inputs[changed] > END).all()
        assert np.array_equal(batch.targets, full.targets)
        left, total = left + changed.sum(), total + (full.inputs > END).sum()
    assert abs(left / total - 0.1) < 4 * (0.09 / total) ** 0.5
    plain = records([3, 4]).astype(np.int64)[None]
    assert leave_out_labels(plain, END, 0, np.zeros(1, np.int64), 0) is plain
    assert leave_out_labels(plain, None, 0, np.zeros(1, np.int64), 0) is plain


@given(sizes)
def test_read_from_behind_each_border_carries_the_label_of_the_record_before_it(lengths: list[int]) -> None:
    ids = records(lengths, labels=True)
    behind = labels_before(np.append(ids, np.uint16(END)), END)
    borders = np.flatnonzero(np.append(ids, END) >= END)
    assert behind[borders].tolist() == [END, *ids[borders[:-1]].tolist()]
    assert np.array_equal(np.delete(behind, borders), np.delete(ids, borders[:-1]))
    assert as_targets(behind, END)[borders].tolist() == [END] * len(borders)
    plain = records(lengths)
    assert labels_before(plain, END) is plain
    assert labels_before(ids, None) is ids


@given(sizes, st.integers(1, 12), seeds, st.integers(0, 2**40))
def test_random_windows_stay_as_they_are_but_for_labels(lengths: list[int], window: int, seed: int, step: int) -> None:
    ids = records([*lengths, 12], labels=True)
    batch = RandomBatches(ids, 3, window, seed, end_id=END).batch(step)
    plain = RandomBatches(ids, 3, window, seed).batch(step)
    assert np.array_equal(batch.targets, np.minimum(plain.targets, END))
    changed = batch.inputs != plain.inputs
    assert (batch.inputs[changed] == END).all()
    assert (plain.inputs[changed] > END).all()
    assert np.array_equal(batch.fresh, plain.fresh)
    assert np.array_equal(np.flatnonzero(batch.fresh), np.arange(3) * window)
