"""Engines reset a row's state before a begin symbol is read, alone, among others, and by a team of threads."""

from dataclasses import replace

import numpy as np
import pytest

from chargen.decoding import compiled_engine
from chargen.decoding.choose import SampleConfig
from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.numpy_engine import Engine, NumpyEngine
from chargen.decoding.torch_engine import TorchEngine
from chargen.kernels.threads import AutoTuner
from chargen.storage.model_file import new_model
from tests import naive
from tests.decoding.engines import CELLS, CLOSE, DIRECTIONS, ODD, STORED, apart, free, model
from tests.pairs import all_pairs

V = len(ODD)
BEGINS = 3
KINDS = ("numpy", "compiled", "torch")


def new_engine(kind: str, cell: str, stored: str = "float32", direction: str = "forward", hidden: int = 64) -> Engine:
    file = model(cell, 2, hidden, stored)
    config = replace(file.config, begin_symbols=BEGINS)
    if kind == "torch":
        return TorchEngine(new_model(config, V, file.arrays, "cpu"), direction)
    return (NumpyEngine if kind == "numpy" else CompiledEngine)(config, file.arrays, direction)


@pytest.mark.parametrize(("kind", "cell", "stored", "direction"), all_pairs(KINDS, CELLS, STORED, DIRECTIONS))
def test_a_row_forgets_what_it_read_before_a_begin_symbol(kind, cell, stored, direction):
    engine, random = new_engine(kind, cell, stored, direction), np.random.default_rng(0)
    ids = random.integers(0, V - BEGINS, (5, 12))
    borders = [0, 11, 4, 7, 3]
    ids[range(5), borders] = V - 1 - np.arange(5) % BEGINS
    zeros = np.zeros((5, V))
    logits, state = engine.read(ids, np.full(5, 12), zeros, engine.start(5))
    walked, walked_state = naive.walk(engine, ids)
    assert np.abs(walked[:, -1] - logits).max() < CLOSE
    assert apart(state, walked_state) < CLOSE
    for row, border in enumerate(borders):
        record = ids[row : row + 1, border:]
        alone, alone_state = engine.read(record, np.array([12 - border]), zeros[:1], engine.start(1))
        assert np.abs(alone - logits[row]).max() < CLOSE
        assert apart(alone_state, tuple(layer[row : row + 1] for layer in state)) < CLOSE


@pytest.mark.parametrize(("kind", "cell"), all_pairs(KINDS, CELLS))
def test_what_is_written_behind_a_begin_symbol_knows_nothing_of_before(kind, cell):
    engine, random = new_engine(kind, cell), np.random.default_rng(1)
    first = random.standard_normal((4, V)).astype(np.float32)
    first[range(4), [V - 1, V - 2, V - BEGINS, V - BEGINS]] = 1e4  # every row writes a begin symbol first
    state = tuple(random.standard_normal(layer.shape).astype(np.float32) for layer in engine.start(4))
    uniforms, begins = random.random((4, 20)), np.zeros(4, np.int64)
    rules, config = free(V), SampleConfig(temperature=1.0)
    written, other = (
        engine.write(first, before, uniforms, rules, begins, config) for before in (state, engine.start(4))
    )
    assert np.array_equal(written.ids, other.ids)
    assert apart(written.state, other.state) == 0


def test_each_thread_of_a_team_resets_its_part(monkeypatch):
    monkeypatch.setattr(compiled_engine, "threads", lambda: 2)
    monkeypatch.setattr(compiled_engine, "TEAM_BYTES", 0)
    monkeypatch.setattr(compiled_engine, "MIN_TIMED_LENGTH", 1)
    for cell in CELLS:
        team, alone = (new_engine("compiled", cell, hidden=128) for _ in range(2))
        assert set(team._tuner.seconds) == {1, 2}
        team._tuner, alone._tuner = AutoTuner({2: 0.0}), AutoTuner({1: 0.0})
        ids = np.random.default_rng(2).integers(0, V, (1, 400))
        (logits, state), (expected, expected_state) = (
            engine.read(ids, np.array([400]), np.zeros((1, V)), engine.start(1)) for engine in (team, alone)
        )
        assert np.array_equal(logits, expected)
        assert apart(state, expected_state) == 0
