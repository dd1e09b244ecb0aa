"""What each direction of a run reads, and what its cloze layer does."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from chargen.data.batches import RandomBatches
from chargen.data.corpus import Corpus
from chargen.data.directions import BackwardBatches
from chargen.errors import DataError
from chargen.model.config import DIRECTIONS, ModelConfig
from chargen.rng import Purpose
from chargen.storage.model_file import read_model
from chargen.training.cloze_task import CHARACTERS_SHARE, MARGIN, ROWS, WINDOW, ClozeTask, even_windows
from chargen.training.group import Group
from chargen.training.trainer import Trainer
from tests import naive
from tests.two_ways import SMALL, config, corpus


def places(length):
    """A text that is its own positions: every character occurs once, and its id is where it stands."""
    found = Corpus.from_text("".join(map(chr, range(0x4E00, 0x4E00 + length))), valid_fraction=0)
    assert found.train.tolist() == list(range(length))
    return found


@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_backward_batches_are_the_same_windows_read_from_their_end(window, more, seed, step):
    ahead = RandomBatches(np.arange(window + more), 5, window, seed)
    behind = BackwardBatches(ahead)
    one, other = ahead.batch(step), behind.batch(step)
    assert behind.steps_per_epoch == ahead.steps_per_epoch
    for row in range(5):
        whole = [*one.inputs[row], one.targets[row, -1]]
        assert [*other.inputs[row], other.targets[row, -1]] == whole[::-1]
    assert np.array_equal(other.inputs - 1, other.targets)
    assert other.fresh[:, 0].all()
    assert np.array_equal(other.fresh, one.fresh)
    assert other.inputs.dtype == other.targets.dtype == np.int64
    torch.from_numpy(other.inputs), torch.from_numpy(other.targets)  # which takes no negative strides


@given(st.integers(33, 60), st.integers(1, 7), st.integers(1, 13), st.integers(0, 2**64 - 1))
def test_both_ways_every_position_is_a_target_equally_often_or_once_more(length, rows, window, seed):
    trainer = Trainer(places(length), SMALL, config(batch_size=rows, seq_length=window, seed=seed, state_reset=0))
    assert list(trainer.batches) == ["forward", "backward"]
    for direction, by in (("forward", 1), ("backward", -1)):
        counts, last = np.zeros(length, int), None
        for step in range(2 * length // (rows * window) + 2):
            batch = trainer.batches[direction].batch(step)
            assert np.array_equal((batch.inputs + by) % length, batch.targets)
            assert batch.fresh[:, 0].tolist() == [step == 0] * rows
            assert not batch.fresh[:, 1:].any()
            assert last is None or np.array_equal(batch.inputs[:, 0], last)
            last = batch.targets[:, -1]
            counts += np.bincount(batch.targets.ravel(), minlength=length)
            assert np.ptp(counts) <= 1


def test_random_windows_are_read_from_both_ends():
    batches = Trainer(places(50), SMALL, config(batching="random", seq_length=6)).batches
    for step in (0, 1, 17):
        ahead, behind = (batches[direction].batch(step) for direction in DIRECTIONS)
        assert np.array_equal(behind.inputs, ahead.targets[:, ::-1])
        assert np.array_equal(behind.targets, ahead.inputs[:, ::-1])


def test_a_one_way_run_reads_one_way():
    trainer = Trainer(corpus(), ModelConfig(num_layers=1, hidden_size=4, embedding_size=3), config())
    assert list(trainer.batches) == ["forward"]
    assert trainer.train_step.cloze is None


@given(st.integers(33, 400), st.integers(1, 300), st.integers(0, 2**64 - 1), st.integers(0, 2**40 - 3))
def test_cloze_windows_are_a_pure_function_of_seed_and_step(length, trained, seed, step):
    ids = np.arange(length)
    task = ClozeTask(ids, config(batch_size=trained, seq_length=3, seed=seed))
    window = min(length, WINDOW)
    rows = max(1, 3 * trained // window)
    task.batches.windows(step + 3)
    found = task.batches.windows(step)
    starts = naive.window_starts(length - window + 1, rows, seed, step, Purpose.CLOZE)
    assert found.tolist() == [list(range(start, start + window)) for start in starts]


def test_processes_share_the_cloze_windows_of_a_step():
    ids, settings = np.arange(1000), config(batch_size=64, seq_length=20)
    whole = ClozeTask(ids, settings)
    parts = [ClozeTask(ids, settings, Group(rank, 2)) for rank in range(2)]
    assert [part.every for part in parts] == [whole.every] * 2
    assert np.array_equal(np.concatenate([part.batches.windows(4) for part in parts]), whole.batches.windows(4))


def test_cloze_windows_are_not_those_of_training():
    ids = np.arange(10**6)
    task = ClozeTask(ids, config(batch_size=256, seq_length=WINDOW))
    trained = RandomBatches(ids, 256, WINDOW - 1, 0)
    for step in range(3):
        assert not (task.batches.windows(step)[:, 0] == trained.windows(step)[:, 0]).any()


@pytest.mark.parametrize("length", [33, 40, 127, 128, 129, 5000])
@pytest.mark.parametrize(
    ("batch_size", "seq_length"), [(1, 1), (1, 2), (3, 7), (4, 32), (1, 128), (5, 26), (32, 128), (64, 256), (7, 333)]
)
def test_the_cloze_layer_reads_nearly_its_share_of_what_is_trained(length, batch_size, seq_length):
    task = ClozeTask(np.zeros(length, np.uint8), config(batch_size=batch_size, seq_length=seq_length))
    period = next(step for step in range(1, 10_000) if task.due(step))
    assert [step for step in range(4 * period) if task.due(step)] == [0, period, 2 * period, 3 * period]
    share = task.batches.windows(0).size / (period * batch_size * seq_length)
    assert share <= CHARACTERS_SHARE * (1 + 1e-12) <= 0.2
    assert share > CHARACTERS_SHARE * (period - 1) / period - 1e-12


@pytest.mark.parametrize("length", [2, 20, 32])
def test_a_text_too_short_for_the_cloze_layer_is_named(length, tmp_path):
    with pytest.raises(
        DataError, match=rf"^[^\n]*at least 33 characters of training text, found {length}; [^\n]*one way$"
    ):
        Trainer(places(length), SMALL, config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batching", ["consecutive", "random"])
def test_a_text_of_33_characters_is_long_enough(batching, tmp_path):
    settings = config(steps=3, batch_size=3, seq_length=11, batching=batching)
    trainer = Trainer(places(33), SMALL, settings, tmp_path)
    assert all(math.isfinite(loss) for progress in trainer.run() for loss in progress.train_losses.values())
    assert trainer.counters.cloze_applied == 1
    assert read_model(tmp_path).training["step"] == 3


@given(st.integers(0, 9000), st.integers(0, 9000))
@example(32, 9000)
@example(33, 9000)
@example(8192, 8192)
@example(8320, 8320)
def test_windows_to_validate_on_are_even_and_no_more_than_asked_for(length, size):
    window, blocks = min(length, WINDOW), list(even_windows(np.arange(length), size))
    if length < 2 * MARGIN + 1:
        assert blocks == []
        return
    assert [len(block) for block in blocks[:-1]] == [ROWS] * (len(blocks) - 1)
    found = np.concatenate(blocks)
    assert found.shape == (max(1, min(size, length) // window), window)
    assert len(blocks) == math.ceil(len(found) / ROWS)
    assert found.dtype == np.int64
    assert np.array_equal(found, found[:, :1] + np.arange(window))
    assert found[0, 0] == 0
    assert len(found) == 1 or found[-1, -1] == length - 1
    assert len(found) == 1 or np.ptp(np.diff(found[:, 0])) <= 1
