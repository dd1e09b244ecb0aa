"""Many rows against one row, and engines against each other, in either direction."""

from typing import Any

import numpy as np
import pytest

from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.pick_engine import new_engine
from chargen.decoding.torch_engine import TorchEngine
from chargen.storage.model_file import build_model
from tests import naive
from tests.small_models import as_bf16, random_ids, small_model

CELLS = ("lstm", "gru")

DIRECTIONS = ("forward", "backward")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("stored", ["float32", "bf16"])
def test_all_engines_agree_and_take_over_each_others_state(cell: str, layers: int, direction: str, stored: str) -> None:
    file = small_model(cell, num_layers=layers, scale=1.0, bidirectional=True)
    file = as_bf16(file) if stored == "bf16" else file
    plain = NumpyEngine(file.config, file.arrays, direction)
    ids = random_ids(35, 12, len(file.vocabulary))
    expected, end = naive.walk(plain, ids)
    other = NumpyEngine(file.config, file.arrays, DIRECTIONS[direction == "forward"])
    assert np.abs(naive.walk(other, ids[:3])[0] - expected[:3]).max() > 0.01
    twins: list[Any] = [
        new_engine(file, "cpu", direction),
        TorchEngine(build_model(file), direction),
    ]
    for twin in twins:
        there, state = naive.walk(twin, ids[:, :6])
        back, last = naive.walk(plain, ids[:, 6:], state)
        again, _ = naive.walk(twin, ids[:, 6:], naive.walk(plain, ids[:, :6])[1])
        assert np.abs(np.concatenate([there, back], axis=1) - expected).max() < 1e-5
        assert np.abs(again - expected[:, 6:]).max() < 1e-5
        for ours, theirs in zip(last, end, strict=True):
            assert ours.shape == theirs.shape == (35, file.config.state_size)
            assert ours.dtype == theirs.dtype == np.float32
            assert np.abs(ours - theirs).max() < 1e-5


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("hidden", "characters"), [(12, 10), (13, 31), (96, 5)])
def test_a_rows_logits_are_the_same_bits_whatever_stands_beside_it(cell: str, hidden: int, characters: int) -> None:
    letters = "".join(map(chr, range(97, 97 + characters)))
    file = small_model(cell, hidden_size=hidden, characters=letters, scale=1.0, bidirectional=True)
    random = np.random.default_rng(0)
    ids = random_ids(100, 5, characters)
    for direction in DIRECTIONS:
        engine = new_engine(file, "cpu", direction)
        alone = [naive.walk(engine, ids[row : row + 1]) for row in range(100)]
        assert len({logits.tobytes() for logits, _ in alone}) > 80
        for rows in (1, 7, 32, 33, 100):
            chosen = random.permutation(100)[:rows]
            logits, state = naive.walk(engine, ids[chosen])
            assert logits.shape == (rows, 5, characters)
            for at, row in enumerate(chosen):
                assert logits[at].tobytes() == alone[row][0][0].tobytes()
                assert all(a[at].tobytes() == b[0].tobytes() for a, b in zip(state, alone[row][1], strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_of_many_rows_changes_none_of_its_arguments(cell: str) -> None:
    file = small_model(cell, bidirectional=True)
    engine = new_engine(file, "cpu", "backward")
    for rows in (2, 32):
        _, state = naive.walk(engine, random_ids(rows, 3, 10))
        copies, ids = [layer.copy() for layer in state], np.arange(rows) % 10
        first, after = engine.step(ids, state)
        assert np.array_equal(first, engine.step(ids, state)[0])
        assert all(np.array_equal(layer, copy) for layer, copy in zip(state, copies, strict=True))
        assert not any(np.shares_memory(layer, changed) for layer, changed in zip(state, after, strict=True))
        assert ids.tolist() == [row % 10 for row in range(rows)]


def test_no_rows_at_all_are_a_step_too() -> None:
    file = small_model(bidirectional=True)
    engine = new_engine(file, "cpu")
    logits, state = engine.step(np.zeros(0, np.int64), engine.start(0))
    assert logits.shape == (0, 10)
    assert [layer.shape for layer in state] == [(0, 24)] * 2


@pytest.mark.parametrize("cell", CELLS)
def test_large_weights_saturate_without_a_warning(cell: str) -> None:
    file = small_model(cell, scale=1e4, bidirectional=True)
    logits, state = naive.walk(new_engine(file, "cpu"), random_ids(2, 8, 10))
    assert np.isfinite(logits).all()
    assert all(np.isfinite(layer).all() for layer in state)
