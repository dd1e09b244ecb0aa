"""Compiled steps against the slow, obvious ones, and bits that depend on nothing but what a row read."""

import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from yardstick import HANG

import chargen
from chargen.decoding import compiled_engine, pick_engine
from chargen.decoding.choose import FILTERS, SampleConfig, choose, log_softmax, probabilities
from chargen.decoding.compiled_engine import CompiledEngine, compiled_filters
from chargen.decoding.numpy_engine import Chunk, Engine, NumpyEngine, State
from chargen.decoding.rules import Rules
from chargen.errors import ArgumentError
from chargen.kernels import NONE_ALLOWED, NOT_FINITE, decode_gates, decode_step, filters, jit, threads
from chargen.kernels.cpu_features import amx
from chargen.kernels.decode_matmul import WIDTH, add_products, pack
from chargen.model.config import ModelConfig
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile, save_model
from chargen.storage.quantize import as_float32, quantize

CELLS = ("lstm", "gru")
DIRECTIONS = ("forward", "backward")
STORED = ("float32", "bf16", "int8")
ODD = "".join(map(chr, range(97, 97 + 31)))
CLOSE = 1e-5
LAST = 1 - 2**-53
"""The largest uniform."""

configs = st.builds(
    SampleConfig,
    temperature=st.sampled_from([0.0, 5e-324, 1e-300, 1e-6, 0.3, 1.0, 2.5, 1e6, 1e308]),
    top_k=st.sampled_from([0, 1, 2, 5, 40]),
    top_p=st.sampled_from([0.0, 1e-9, 0.5, 0.9, 1.0]) | st.floats(0, 1),
    min_p=st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1),
)
random_seeds = st.integers(0, 2**32)


@cache
def model(
    cell: str, layers: int, hidden: int, stored: str = "float32", scale: float = 1.0, characters: str = ODD
) -> ModelFile:
    file = small_model(
        cell, num_layers=layers, hidden_size=hidden, characters=characters, scale=scale, bidirectional=True
    )
    return file if stored == "float32" else replace(file, arrays=quantize(file.arrays, stored))


@cache
def both(*arguments: Any, direction: str = "forward", **more: Any) -> tuple[CompiledEngine, NumpyEngine]:
    file = model(*arguments, **more)
    return CompiledEngine(file.config, file.arrays, direction), NumpyEngine(file.config, file.arrays, direction)


def walk(engine: Engine, ids: np.ndarray) -> tuple[np.ndarray, State]:
    """Logits (R, T, V) after each of ids (R, T), and the last state."""
    state, logits = engine.start(len(ids)), []
    for column in ids.T:
        output, state = engine.step(column, state)
        logits.append(output)
    return np.stack(logits, axis=1), state


def apart(ours: State, theirs: State) -> float:
    return max(float(np.abs(a - b).max(initial=0)) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("hidden", [1, 12, 13, 64, 96, 130])
def test_steps_are_those_of_numpy(cell: str, layers: int, hidden: int) -> None:
    for stored in STORED:
        for scale in (1.0, 1.5):
            for direction in DIRECTIONS:
                ours, theirs = both(cell, layers, hidden, stored, scale, direction=direction)
                ids = np.random.default_rng(layers * 1000 + hidden).integers(0, 31, (2, 50))
                (logits, state), (expected, expected_state) = walk(ours, ids), walk(theirs, ids)
                assert logits.dtype == np.float32
                assert np.ptp(expected) > 0.1
                assert np.abs(logits - expected).max() < CLOSE
                assert apart(state, expected_state) < CLOSE
                assert all(layer.dtype == np.float32 for layer in state)


@pytest.mark.parametrize("cell", CELLS)
def test_bf16_weights_are_the_same_numbers_with_and_without_matrix_units(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, ids = model(cell, 2, 96, "bf16", 1.5), np.random.default_rng(0).integers(0, 31, (3, 50))
    expected, expected_state = walk(NumpyEngine(file.config, file.arrays), ids)
    for units in {False, amx()}:
        monkeypatch.setattr(compiled_engine, "amx", lambda units=units: units)
        logits, state = walk(CompiledEngine(file.config, file.arrays), ids)
        assert np.abs(logits - expected).max() < CLOSE
        assert apart(state, expected_state) < CLOSE


def test_the_two_directions_and_the_two_cells_differ() -> None:
    ids = np.arange(12).reshape(2, 6)
    walks = [
        walk(both(cell, 2, 12, direction=direction)[0], ids)[0].tobytes() for cell in CELLS for direction in DIRECTIONS
    ]
    assert len(set(walks)) == 4


# Bits


def free(size: int, pause: tuple[int, ...] = ()) -> Rules:
    """Rules that allow everything."""
    stops = np.zeros(size, bool)
    stops[list(pause)] = True
    return Rules(np.ones((1, size), bool), np.zeros((1, size), np.int64), stops)


class Case:
    """Rows that stand somewhere, and their draws."""

    def __init__(
        self, cell: str, hidden: int, rows: int, length: int, layers: int = 2, stored: str = "float32", seed: int = 0
    ) -> None:
        self.engine, _ = both(cell, layers, hidden, stored)
        random = np.random.default_rng(seed)
        self.logits = random.normal(size=(rows, 31)).astype(np.float32)
        self.state = tuple(random.normal(size=part.shape).astype(np.float32) / 3 for part in self.engine.start(rows))
        self.uniforms = random.random((rows, length))
        self.rules = free(31, (3, 17))
        self.rows = np.arange(rows)

    def write(self, rows: Any = None, columns: slice = slice(None), after: Chunk | None = None) -> Chunk:
        """Let some rows write some columns, from the beginning or after another chunk of theirs."""
        rows = self.rows if rows is None else np.atleast_1d(rows)
        logits, state = self.logits[rows], tuple(part[rows] for part in self.state)
        if after is not None:
            logits, state = after.logits, after.state
        mask_index = np.zeros(len(rows), np.int64)
        uniforms = np.ascontiguousarray(self.uniforms[rows][:, columns])
        return self.engine.write(logits, state, uniforms, self.rules, mask_index, SampleConfig())

    def read(self, ids: np.ndarray, counts: np.ndarray, rows: Any = None) -> tuple[np.ndarray, State]:
        rows = self.rows if rows is None else np.atleast_1d(rows)
        return self.engine.read(ids[rows], counts[rows], self.logits[rows], tuple(part[rows] for part in self.state))


def bits(chunk: Chunk, row: int) -> tuple[bytes, ...]:
    """Everything about a row."""
    parts = chunk.logits, *chunk.state, chunk.ids, chunk.log_probs, chunk.counts
    return tuple(part[row].tobytes() for part in parts)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("hidden", "stored"), [(13, "float32"), (96, "bf16"), (130, "float32")])
def test_what_a_row_writes_is_the_same_bits_whatever_rows_are_beside_it(cell: str, hidden: int, stored: str) -> None:
    case = Case(cell, hidden, 11, 20, stored=stored)
    alone = [bits(case.write(row), 0) for row in range(11)]
    whole = case.write()
    assert 0 < whole.counts.min() < 20
    assert whole.counts.max() == 20
    for rows in range(2, 12):
        for beside in (np.arange(rows), np.roll(np.arange(11), rows)[:rows], np.arange(11)[::-1][:rows]):
            chunk = case.write(beside)
            assert [bits(chunk, place) for place in range(rows)] == [alone[row] for row in beside]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hidden", [13, 130])
def test_what_a_row_reads_is_the_same_bits_whatever_rows_are_beside_it(cell: str, hidden: int) -> None:
    case = Case(cell, hidden, 9, 1)
    random = np.random.default_rng(3)
    ids, counts = random.integers(0, 31, (9, 12)), random.integers(0, 13, 9)
    alone = [case.read(ids, counts, row) for row in range(9)]
    for rows in range(1, 10):
        for beside in (np.arange(rows), np.arange(9)[::-1][:rows]):
            logits, state = case.read(ids, counts, beside)
            for place, row in enumerate(beside):
                assert logits[place].tobytes() == alone[row][0][0].tobytes()
                assert all(a[place].tobytes() == b[0].tobytes() for a, b in zip(state, alone[row][1], strict=True))


@settings(max_examples=25)
@given(st.sampled_from(CELLS), st.sampled_from([12, 130]), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_pieces_of_a_chunk_are_the_chunk(cell: str, hidden: int, pieces: list[int]) -> None:
    case = Case(cell, hidden, 3, sum(pieces), seed=sum(pieces))
    case.rules = free(31)
    whole, part = case.write(), None
    ids, log_probs = [], []
    borders = np.cumsum([0, *pieces])
    for begin, end in pairwise(borders):
        part = case.write(columns=slice(begin, end), after=part)
        ids.append(part.ids)
        log_probs.append(part.log_probs)
    assert part is not None
    assert np.array_equal(np.concatenate(ids, axis=1), whole.ids)
    assert np.concatenate(log_probs, axis=1).tobytes() == whole.log_probs.tobytes()
    assert part.logits.tobytes() == whole.logits.tobytes()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(part.state, whole.state, strict=True))
    read = case.read(whole.ids, whole.counts)
    assert read[0].tobytes() == whole.logits.tobytes()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(read[1], whole.state, strict=True))
    stepped, state = case.logits, case.state
    for column in whole.ids.T:
        stepped, state = case.engine.step(column, state)
    assert stepped.tobytes() == whole.logits.tobytes()


@pytest.fixture
def use_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[str]]]:
    """Compute in so many threads, all there at once; returns the names of those that ran."""
    pools, compiled_run = [], compiled_engine.read_or_write

    def use(number: int) -> list[str]:
        pool, ran = ThreadPoolExecutor(number, f"one of {number}"), []
        all_there = threading.Barrier(number)
        pools.append(pool)

        def run(*arguments: Any) -> None:
            ran.append(threading.current_thread().name)
            all_there.wait(30)
            compiled_run(*arguments)

        monkeypatch.setattr(threads, "threads", lambda: number)
        monkeypatch.setattr(threads, "_pool", lambda: pool)
        monkeypatch.setattr(compiled_engine, "read_or_write", run)
        return ran

    yield use
    for pool in pools:
        pool.shutdown()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("rows", [3, 8])
def test_bits_do_not_depend_on_the_number_of_threads(
    use_threads: Callable[[int], list[str]], cell: str, rows: int
) -> None:
    case = Case(cell, 13, rows, 25)
    alone = [bits(case.write(row), 0) for row in range(rows)]
    for number in (1, 2, 3):
        ran = use_threads(number)
        chunk = case.write()
        assert len(set(ran)) == len(ran) == number
        assert [bits(chunk, row) for row in range(rows)] == alone
        logits, state = case.read(chunk.ids, chunk.counts)
        assert logits.tobytes() == chunk.logits.tobytes()
        assert all(a.tobytes() == b.tobytes() for a, b in zip(state, chunk.state, strict=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_bits_do_not_depend_on_the_threads_that_share_a_row(
    use_threads: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch, cell: str, stored: str, layers: int
) -> None:
    case = Case(cell, 192, 1, 25, layers, stored)
    case.rules = free(31)
    counts = np.array([20])
    alone = case.write()
    read_alone = case.read(alone.ids, counts)
    for number in (1, 2, 3):
        ran = use_threads(number)
        monkeypatch.setattr(case.engine, "_team_size", number)
        monkeypatch.setattr(case.engine._tuner, "choose", lambda: True)
        chunk = case.write()
        assert len(set(ran)) == len(ran) == number
        assert bits(chunk, 0) == bits(alone, 0)
        logits, state = case.read(alone.ids, counts)
        assert logits.tobytes() == read_alone[0].tobytes()
        assert all(a.tobytes() == b.tobytes() for a, b in zip(state, read_alone[1], strict=True))


def test_a_large_model_has_a_team_for_a_single_row(monkeypatch: pytest.MonkeyPatch) -> None:
    file, odd = model("gru", 1, 192), model("gru", 1, 300)
    monkeypatch.setattr(compiled_engine, "threads", lambda: 2)
    assert CompiledEngine(file.config, file.arrays)._team_size == 1
    monkeypatch.setattr(compiled_engine, "TEAM_BYTES", 4 * 192 * 192 * 3)
    for number, most in ((1, 1), (2, 2), (3, 3), (8, 3)):
        monkeypatch.setattr(compiled_engine, "threads", lambda number=number: number)
        assert CompiledEngine(file.config, file.arrays)._team_size == most
        assert CompiledEngine(odd.config, odd.arrays)._team_size == 1


def test_a_team_is_as_large_as_was_fastest_last(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("gru", 192, 1, 25, 1, "float32")
    case.rules = free(31)
    chosen, timings, choices = [], [], iter([True, False, True])
    monkeypatch.setattr(compiled_engine, "run_team", lambda run, members: chosen.append(members) or run(0))
    monkeypatch.setattr(compiled_engine, "read_or_write", lambda *arguments: None)
    monkeypatch.setattr(case.engine, "_team_size", 4)
    monkeypatch.setattr(case.engine._tuner, "choose", lambda: next(choices))
    monkeypatch.setattr(case.engine._tuner, "record", lambda *arguments: timings.append(arguments))
    for _ in range(3):
        case.write()
    assert chosen == [4, 1, 4]
    assert [(way, size) for way, _, size in timings] == [(True, 25), (False, 25), (True, 25)]
    assert all(seconds > 0 for _, seconds, _ in timings)


@pytest.mark.parametrize(
    ("rows", "length", "team"), [(2, 25, 4), (1, compiled_engine.MIN_TIMED_LENGTH - 1, 4), (1, 25, 1)]
)
def test_several_rows_short_chunks_and_small_models_have_no_team(
    rows: int, length: int, team: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("gru", 192, rows, length, 1, "float32")
    case.rules = free(31)
    chosen = []
    monkeypatch.setattr(compiled_engine, "run_team", lambda run, members: chosen.append(members) or run(0))
    monkeypatch.setattr(compiled_engine, "read_or_write", lambda *arguments: None)
    monkeypatch.setattr(case.engine, "_team_size", team)
    monkeypatch.setattr(case.engine._tuner, "choose", lambda: True)
    before = dict(case.engine._tuner.seconds)
    case.write()
    assert set(chosen) == {1}
    assert case.engine._tuner.seconds == before


def test_an_error_in_a_thread_is_raised(
    use_threads: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_threads(2)
    monkeypatch.setattr(compiled_engine, "read_or_write", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Case("gru", 12, 4, 2).write()


@pytest.mark.parametrize("cell", CELLS)
def test_no_argument_is_changed_or_kept(cell: str) -> None:
    case = Case(cell, 12, 3, 6)
    case.rules = Rules(np.ones((2, 31), bool), np.ones((2, 31), np.int64), np.zeros(31, bool))
    counts, mask_index = np.array([2, 0, 6]), np.zeros(3, np.int64)
    ids = np.arange(18).reshape(3, 6)
    arguments = [case.logits, *case.state, case.uniforms, counts, mask_index, ids]
    copies = [array.copy() for array in arguments]
    chunk = case.engine.write(case.logits, case.state, case.uniforms, case.rules, mask_index, SampleConfig())
    read = case.engine.read(ids, counts, case.logits, case.state)
    step = case.engine.step(ids[:, 0], case.state)
    assert all(np.array_equal(array, copy) for array, copy in zip(arguments, copies, strict=True))
    made = [chunk.logits, *chunk.state, chunk.ids, chunk.counts, read[0], *read[1], step[0], *step[1]]
    assert not any(np.shares_memory(output, argument) for output in made for argument in arguments)


# Whole chunks against the reference


def same(ours: Chunk, theirs: Chunk) -> None:
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert ours.counts.tolist() == theirs.counts.tolist()
    assert np.abs(ours.log_probs - theirs.log_probs).max(initial=0) < CLOSE
    assert np.allclose(ours.logits, theirs.logits, rtol=0, atol=CLOSE, equal_nan=True)
    for ours_layer, theirs_layer in zip(ours.state, theirs.state, strict=True):
        assert np.allclose(ours_layer, theirs_layer, rtol=0, atol=CLOSE, equal_nan=True)


def chunk_to_write(
    engine: Engine, config: SampleConfig, seed: int, rows: int, length: int, number: int, allowed: float,
    paused: float, unknown: float, broken: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """Arguments for `write`: random logits and states, and rules with `number` masks; shares are of ids."""
    random = np.random.default_rng(seed)
    masks = random.random((number, 31)) < allowed
    follow = random.integers(0, number, (number, 31))
    follow[random.random(follow.shape) < unknown] = -random.integers(1, 9)
    rules = Rules(masks, follow, random.random(31) < paused)
    logits = random.normal(size=(rows, 31)).astype(np.float32) * 2
    if broken:
        logits[random.integers(rows), random.integers(31)] = random.choice([np.inf, -np.inf, np.nan])
    state = tuple(random.normal(size=part.shape).astype(np.float32) / 3 for part in engine.start(rows))
    return logits, state, random.random((rows, length)), rules, random.integers(0, number, rows), config


chunks = (
    configs, random_seeds, st.integers(1, 6), st.integers(0, 12), st.integers(1, 4),
    st.sampled_from([0.05, 0.3, 0.9, 1.0]), st.sampled_from([0.0, 0.1, 0.4]), st.sampled_from([0.0, 0.1]),
    st.booleans(),
)  # fmt: skip


@settings(max_examples=150)
@given(
    st.sampled_from(CELLS), st.sampled_from([1, 2, 3]), st.sampled_from(STORED), st.sampled_from(DIRECTIONS), *chunks
)
def test_a_chunk_is_what_the_reference_writes(
    cell: str, layers: int, stored: str, direction: str, config: SampleConfig, seed: int, rows: int, length: int,
    number: int, allowed: float, paused: float, unknown: float, broken: bool,
) -> None:  # fmt: skip
    ours, theirs = both(cell, layers, 12, stored, 1.5, direction=direction)
    arguments = chunk_to_write(theirs, config, seed, rows, length, number, allowed, paused, unknown, broken)
    same(ours.write(*arguments), theirs.write(*arguments))


def test_rows_stop_where_their_rules_or_numbers_stop_them() -> None:
    """Row 0 has nothing allowed, 1 no numbers, 2 pauses, 3 comes where no mask is known, 4 where nothing is allowed."""
    for engine in both("lstm", 1, 12):
        masks = np.zeros((4, 31), bool)
        masks[1, 7] = masks[2, 8] = masks[3, [9, 10]] = True
        follow = np.full((4, 31), -1, np.int64)
        follow[1, 7], follow[3, 9], follow[3, 10] = 1, 0, 3
        pause = np.zeros(31, bool)
        logits = np.zeros((5, 31), np.float32)
        logits[1, 30] = np.nan
        logits[4, 9] = 5
        rules = Rules(masks, follow, pause)
        mask_index, uniforms = np.array([0, 1, 1, 2, 3]), np.full((5, 3), 0.3)
        chunk = engine.write(logits, engine.start(5), uniforms, rules, mask_index, SampleConfig())
        assert chunk.ids[:, :2].tolist() == [[NONE_ALLOWED, 0], [NOT_FINITE, 0], [7, 7], [8, 0], [9, NONE_ALLOWED]]
        assert chunk.counts.tolist() == [0, 0, 3, 1, 1]
        pause[7] = True
        paused = engine.write(logits, engine.start(5), uniforms, rules, mask_index, SampleConfig())
        assert paused.ids[2].tolist() == [7, 0, 0]
        assert paused.counts.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("cell", CELLS)
def test_numbers_that_overflow_stop_their_own_row_only(cell: str) -> None:
    """Whoever reads character 5 has no numbers any more."""
    file = small_model(cell, characters=ODD, scale=1.0)
    file.arrays["embedding.weight"][5] = np.inf
    random = np.random.default_rng(0)
    uniforms, mask_index = random.random((9, 30)), np.zeros(9, np.int64)
    logits = random.normal(size=(9, 31)).astype(np.float32)
    ours, theirs = (
        engine.write(logits, engine.start(9), uniforms, free(31), mask_index, SampleConfig())
        for engine in (CompiledEngine(file.config, file.arrays), NumpyEngine(file.config, file.arrays))
    )
    same(ours, theirs)
    reached = [row.tolist().index(NOT_FINITE) if NOT_FINITE in row else 30 for row in ours.ids]
    assert ours.counts.tolist() == reached
    assert 30 in reached
    assert len(set(reached)) > 2
    assert all(ours.ids[row, at - 1] == 5 for row, at in enumerate(reached) if at < 30)
    assert np.isfinite(ours.logits).all(axis=1).tolist() == [at == 30 for at in reached]


@settings(max_examples=60)
@given(st.sampled_from(CELLS), st.sampled_from([1, 2, 3]), random_seeds, st.lists(st.integers(0, 9), max_size=7))
def test_reading_is_what_the_reference_reads(cell: str, layers: int, seed: int, lengths: list[int]) -> None:
    ours, theirs = both(cell, layers, 12, "float32", 1.5)
    random, counts = np.random.default_rng(seed), np.array(lengths, np.int64)
    rows, length = len(lengths), max(lengths, default=0)
    ids = random.integers(0, 31, (rows, length))
    ids[np.arange(length) >= counts[:, None]] = NOT_FINITE  # behind the ids that are read anything may stand
    logits = random.normal(size=(rows, 31)).astype(np.float32)
    state = tuple(random.normal(size=part.shape).astype(np.float32) / 3 for part in ours.start(rows))
    logits_read, after = ours.read(ids, counts, logits, state)
    expected, expected_after = theirs.read(ids, counts, logits, state)
    assert np.abs(logits_read - expected).max(initial=0) < CLOSE
    assert apart(after, expected_after) < CLOSE
    for row in np.flatnonzero(counts == 0):
        assert logits_read[row].tobytes() == logits[row].tobytes()
        assert all(layer[row].tobytes() == before[row].tobytes() for layer, before in zip(after, state, strict=True))


def test_one_lstm_step_by_hand() -> None:
    """One hidden unit, one number per character, every weight written out."""
    config = ModelConfig(cell="lstm", num_layers=1, hidden_size=1, embedding_size=8)
    layer = "forward_layers.0."
    arrays: dict[str, Any] = {
        "embedding.weight": [[0.0] * 8, [1.0] + [0.0] * 7],
        f"{layer}weight_ih_l0": [[gate] + [0.0] * 7 for gate in (1.0, 2.0, 3.0, 4.0)],
        f"{layer}weight_hh_l0": [[0.1], [0.2], [0.3], [0.4]],
        f"{layer}bias_ih_l0": [0.01, 0.02, 0.03, 0.04],
        f"{layer}bias_hh_l0": [0.5, 0.6, 0.7, 0.8],
        "output.weight": [[1.0], [-2.0]],
        "output.bias": [0.25, 0.5],
    }
    engine = CompiledEngine(config, {name: np.array(value, np.float32) for name, value in arrays.items()})
    logits, (after,) = engine.step(np.array([1]), (np.array([[0.5, -0.5]], np.float32),))
    enter, forget, new, leave = 1.56, 2.72, 3.88, 5.04
    enter, forget, leave = (1 / (1 + math.exp(-gate)) for gate in (enter, forget, leave))
    cell = forget * -0.5 + enter * math.tanh(new)
    hidden = leave * math.tanh(cell)
    assert after[0] == pytest.approx([hidden, cell], abs=1e-6)
    assert logits[0] == pytest.approx([hidden + 0.25, -2 * hidden + 0.5], abs=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_weights_that_are_too_large_saturate_without_a_warning(cell: str) -> None:
    file = model(cell, 2, 12, scale=1e4)
    logits, state = walk(CompiledEngine(file.config, file.arrays), np.arange(16).reshape(2, 8))
    assert np.isfinite(logits).all()
    assert all(np.isfinite(layer).all() for layer in state)


def test_biases_whose_sum_overflows_give_no_warning() -> None:
    file = small_model(characters=ODD)
    for name in ("ih", "hh"):
        file.arrays[f"forward_layers.0.bias_{name}_l0"][:] = 3e38
    ids = np.arange(16).reshape(2, 8)
    expected, _ = walk(NumpyEngine(file.config, file.arrays), ids)
    assert np.abs(walk(CompiledEngine(file.config, file.arrays), ids)[0] - expected).max() < CLOSE


def test_any_top_k_that_the_settings_allow_can_be_used() -> None:
    file = model("gru", 1, 12)
    plain, all_kept = Sampler(file, seed=1), Sampler(file, seed=1, top_k=2**63)
    assert all_kept.generate(9) == plain.generate(9)


def test_an_id_that_the_model_does_not_have_is_refused_and_nothing_is_fed() -> None:
    sampler, twin = (Sampler(model("gru", 1, 12), seed=1) for _ in range(2))
    with pytest.raises(ArgumentError):
        sampler.feed_ids(np.array([31]))
    assert sampler.generate(20) == twin.generate(20)


# The choice


def pick(
    logits: np.ndarray, allowed: np.ndarray, uniform: float, config: SampleConfig, scratch: np.ndarray | None = None
) -> tuple[int, float]:
    scratch = np.full(len(logits), np.nan) if scratch is None else scratch
    return decode_step.pick(logits, allowed, uniform, config.temperature, *compiled_filters(config), scratch)


@st.composite
def choices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, SampleConfig]:
    """Logits with ties, allowed ids, any settings."""
    size = draw(st.integers(1, 12))
    logit = (
        st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-20, 20, width=32) | st.sampled_from([0.0, -0.0, 1.5])
    )
    logits = np.array(draw(st.lists(logit, min_size=size, max_size=size)), np.float32)
    allowed = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    allowed[draw(st.integers(0, size - 1))] = True
    return logits, allowed, draw(configs)


@settings(max_examples=400)
@given(choices(), st.floats(0, 1, exclude_max=True))
def test_the_id_picked_is_that_of_choose(case: tuple[np.ndarray, np.ndarray, SampleConfig], uniform: float) -> None:
    logits, allowed, config = case
    distribution = probabilities(logits, allowed, config)
    running = np.cumsum(distribution)
    for point in (0.0, uniform, LAST):
        picked, log_prob = pick(logits, allowed, point, config)
        assert allowed[picked]
        assert distribution[picked] > 0
        # Within rounding of a border the two sums may fall on its two sides.
        if np.abs(running[:-1] - point).min(initial=1) > 1e-12 or point == 0:
            assert picked == choose(logits, allowed, point, config)
        assert log_prob == pytest.approx(log_softmax(logits)[picked], rel=1e-13, abs=1e-13)


@given(st.integers(1, 40), random_seeds, st.sampled_from([1.0, 0.7, 3.0]), st.floats(0, 1, exclude_max=True))
def test_one_allowed_id_is_always_picked(size: int, seed: int, temperature: float, uniform: float) -> None:
    random = np.random.default_rng(seed)
    logits, allowed = random.normal(size=size).astype(np.float32) * 30, np.zeros(size, bool)
    only = int(random.integers(size))
    allowed[only] = True
    for draw in (0.0, uniform, LAST):
        for config in (SampleConfig(temperature=temperature), SampleConfig(0.0), SampleConfig(top_k=3, min_p=0.5)):
            picked, log_prob = pick(logits, allowed, draw, config)
            assert picked == only
            assert log_prob == pytest.approx(log_softmax(logits)[only], rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("config", [SampleConfig(), SampleConfig(0.0), SampleConfig(top_k=2, top_p=0.5, min_p=0.1)])
def test_what_cannot_be_picked_from_has_a_code(config: SampleConfig) -> None:
    logits, none = np.zeros(5, np.float32), np.zeros(5, bool)
    assert pick(logits, none, 0.5, config) == (NONE_ALLOWED, 0.0)
    for number in (np.nan, np.inf, -np.inf):
        for at in range(5):
            broken = logits.copy()
            broken[at] = number
            for allowed in (none, ~none, np.arange(5) != at, np.arange(5) == at):
                assert pick(broken, allowed, 0.5, config) == (NOT_FINITE, 0.0)


@pytest.mark.parametrize(
    "config",
    [
        SampleConfig(), SampleConfig(temperature=0.5), SampleConfig(temperature=0), SampleConfig(top_k=40),
        SampleConfig(top_p=0.9), SampleConfig(min_p=1e-3), SampleConfig(1.3, 5000, 0.95, 1e-5),
    ],
)  # fmt: skip
def test_a_huge_vocabulary_is_picked_from(config: SampleConfig) -> None:
    random = np.random.default_rng(5)
    size = 70_000
    logits = np.round(random.normal(size=size) * 2, 3).astype(np.float32)  # with many ties
    allowed = random.random(size) < 0.8
    running = np.cumsum(probabilities(logits, allowed, config))
    for uniform in (0.0, *random.random(5), LAST):
        picked, log_prob = pick(logits, allowed, uniform, config)
        assert log_prob == pytest.approx(log_softmax(logits)[picked], rel=1e-12)
        if 0 < uniform < LAST:
            assert np.abs(running - uniform).min() > 1e-10
        assert picked == choose(logits, allowed, uniform, config)


def test_draws_at_a_border_go_to_the_next_id() -> None:
    below = np.nextafter
    logits = np.array([1, 0, 2, 1, 0], np.float32) * np.float32(math.log(2))
    even, allowed = np.zeros(4, np.float32), np.array([True, False, True, True])
    borders = [(0.0, 0), (below(0.25, 0), 0), (0.25, 1), (0.5, 2), (below(0.75, 0), 2), (0.75, 3), (LAST, 3)]
    assert [pick(even, ~np.zeros(4, bool), uniform, SampleConfig())[0] for uniform, _ in borders] == [
        expected for _, expected in borders
    ]
    assert [pick(even, allowed, uniform, SampleConfig())[0] for uniform in (0.0, 0.3, 0.4, 0.6, 0.7)] == [0, 0, 2, 2, 3]
    assert pick(logits, np.array([False, True, True, True, True]), 0.0, SampleConfig())[0] == 1


def test_ties_go_to_the_lower_id() -> None:
    even, all_ = np.zeros(6, np.float32), np.ones(6, bool)
    uniforms = (np.arange(600) + 0.5) / 600

    def drawn(allowed: np.ndarray = all_, **options: Any) -> list[int]:
        return sorted({pick(even, allowed, uniform, SampleConfig(**options))[0] for uniform in uniforms})

    assert drawn(temperature=0) == [0]
    assert drawn(all_ & (np.arange(6) > 1), temperature=0) == [2]
    assert drawn(top_k=2) == drawn(top_p=1 / 3) == [0, 1]
    assert drawn(top_k=2, allowed=np.arange(6) != 0) == [1, 2]
    assert drawn(top_p=0) == [0]
    assert drawn(min_p=1) == drawn(top_k=6) == drawn(top_k=99) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "config",
    [
        SampleConfig(), SampleConfig(temperature=0.7), SampleConfig(temperature=2, top_k=7), SampleConfig(top_p=0.8),
        SampleConfig(min_p=0.2), SampleConfig(temperature=0.9, top_k=9, top_p=0.9, min_p=0.05),
    ],
)  # fmt: skip
def test_evenly_spread_uniforms_meet_the_probabilities(config: SampleConfig) -> None:
    random = np.random.default_rng(2)
    logits, allowed = random.normal(size=20).astype(np.float32) * 2, random.random(20) < 0.7
    allowed[np.argmax(logits)] = False  # the rest is relative to the most likely that is allowed
    count, scratch = 4000, np.empty(20)
    drawn = [pick(logits, allowed, (number + 0.5) / count, config, scratch)[0] for number in range(count)]
    shares = np.bincount(drawn, minlength=20) / count
    assert np.abs(shares - probabilities(logits, allowed, config)).max() <= 1 / count
    assert drawn == sorted(drawn)


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_has_a_compiled_twin_in_the_place_of_its_name(name: str) -> None:
    random = np.random.default_rng(4)
    for value in (1, 0.3, 0.04) if name != "top_k" else (1, 3, 50):
        weights = np.sort(random.random(20))[::-1].copy()
        weights /= weights[0]
        expected = FILTERS[name](weights, value)
        assert (weights > 0).all(), "a filter changes nothing in place"
        twin = weights.copy()
        getattr(filters, name)(twin, float(value))
        filters.apply_filters(weights, np.array([float(value) if other == name else np.nan for other in FILTERS]))
        assert twin.tobytes() == weights.tobytes() == expected.tobytes()


def test_scratch_of_an_earlier_choice_changes_nothing() -> None:
    random, allowed = np.random.default_rng(0), np.arange(9) % 3 > 0
    for config in (SampleConfig(), SampleConfig(0.5, top_k=2), SampleConfig(top_p=0.5)):
        for _ in range(20):
            logits, uniform = random.normal(size=9).astype(np.float32), random.random()
            fresh = pick(logits, allowed, uniform, config)
            assert pick(logits, allowed, uniform, config, random.normal(size=9) * 100) == fresh


# Activations


def call_each(function: Callable[..., Any], values: np.ndarray) -> np.ndarray:
    return np.array([function(value) for value in values], np.float32)


GRID = np.unique(
    np.concatenate(
        [
            np.linspace(-90, 90, 20_001),
            np.linspace(-1, 1, 8_001),
            *(sign * np.geomspace(1e-45, 1e38, 2_000) for sign in (-1, 1)),
            *(np.arange(-126, 127)[:, None] * math.log(2) + np.linspace(-0.5, 0.5, 11) * math.log(2)),
        ]
    ).astype(np.float32)
)


def test_exp_is_within_two_units_in_the_last_place() -> None:
    inside = GRID[np.abs(GRID) <= 87]
    results, exact = call_each(decode_gates.exp, inside), np.exp(inside.astype(np.float64))
    assert (np.abs(results - exact) / np.spacing(exact.astype(np.float32))).max() < 2
    assert decode_gates.exp(np.float32(0)) == decode_gates.exp(np.float32(-0.0)) == 1


def test_exp_beyond_its_limits_is_what_it_is_there() -> None:
    for sign in (-1, 1):
        limit = decode_gates.exp(np.float32(87 * sign))
        beyond = sign * np.array([np.nextafter(np.float32(87), np.float32(88)), 88, 89, 1e3, 3e38, np.inf], np.float32)
        assert np.array_equal(call_each(decode_gates.exp, beyond), np.full(6, limit))
        assert limit == pytest.approx(math.exp(87 * sign), rel=3e-7)
        assert limit != decode_gates.exp(np.nextafter(np.float32(87 * sign), np.float32(0)))


def test_sigmoid_and_tanh_are_those_of_float64() -> None:
    exact = GRID.astype(np.float64)
    sigmoids = 1 / (1 + np.exp(-np.maximum(exact, -700)))
    results = call_each(decode_gates.sigmoid, GRID)
    assert np.abs(results - sigmoids).max() < 1e-7
    assert (np.abs(results - sigmoids) / sigmoids)[GRID >= -87].max() < 3e-7
    assert ((results >= 0) & (results <= 1)).all()
    results = call_each(decode_gates.tanh, GRID)
    assert np.abs(results - np.tanh(exact)).max() < 2e-7
    assert (np.abs(results) <= 1).all()
    assert decode_gates.sigmoid(np.float32(0)) == 0.5
    assert decode_gates.tanh(np.float32(0)) == 0


def test_infinities_saturate_and_what_is_no_number_stays_none() -> None:
    infinity, nothing = np.float32(np.inf), np.float32(np.nan)
    assert decode_gates.tanh(infinity) == decode_gates.sigmoid(infinity) == 1
    assert decode_gates.tanh(-infinity) == -1
    assert 0 <= decode_gates.sigmoid(-infinity) < 2e-38
    for function in (decode_gates.exp, decode_gates.sigmoid, decode_gates.tanh):
        assert np.isnan(function(nothing))
        assert np.isnan(function(-nothing))
    many = np.full(37, np.nan, np.float32)  # whole vectors and a rest
    decode_gates.tanhs(many)
    assert np.isnan(many).all()
    decode_gates.sigmoids(many)
    assert np.isnan(many).all()


def exp_by_hand(x: np.ndarray) -> np.ndarray:
    """The operations of `decode_gates.exp` in NumPy, each rounded to float32."""
    x = np.clip(x, np.float32(-87), np.float32(87))
    rounded = np.rint(x * np.float32(1 / math.log(2)))
    r = (x - rounded * np.float32(0.693359375)) - rounded * np.float32(-2.12194440e-4)
    series = np.float32(1 / 5040)
    for factorial in (720, 120, 24, 6, 2, 1, 1):
        series = np.float32(1 / factorial) + r * series
    result: np.ndarray = np.ldexp(series, rounded.astype(np.int32))
    return result


def test_activations_are_the_same_bits_on_every_machine_alone_and_in_vectors() -> None:
    """Nothing is fused, reordered or left to a library: the bits are those of the operations as they are written."""
    unity = np.float32(1)
    with np.errstate(over="ignore"):
        exps, doubled = exp_by_hand(GRID), exp_by_hand(np.float32(2) * GRID)
    assert call_each(decode_gates.exp, GRID).tobytes() == exps.tobytes()
    for alone, together, expected in (
        (decode_gates.sigmoid, decode_gates.sigmoids, unity / (unity + exp_by_hand(-GRID))),
        (decode_gates.tanh, decode_gates.tanhs, unity - np.float32(2) / (unity + doubled)),
    ):
        assert call_each(alone, GRID).tobytes() == expected.tobytes()
        for size in (1, 15, 16, 17, len(GRID)):
            values = GRID[:size].copy()
            together(values)
            assert values.tobytes() == expected[:size].tobytes()


@pytest.mark.parametrize(("size", "start", "stop"), [(1, 0, 1), (13, 0, 13), (64, 0, 64), (192, 64, 192), (40, 3, 21)])
def test_gates_with_scales_are_those_of_float64(size: int, start: int, stop: int) -> None:
    """Those of some hidden units; the others do not change."""
    random = np.random.default_rng(size)
    part = slice(start, stop)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    def sigmoid(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-values.astype(np.float64)))

    input_sums, state_sums, input_scale, state_scale, bias = (draw(4 * size + 3) for _ in range(5))
    state, out = draw(2 * size), draw(size)
    before, out_before = state.copy(), out.copy()
    gates = (input_sums.astype(np.float64) * input_scale + state_sums * state_scale + bias)[: 4 * size].reshape(4, size)
    cell = sigmoid(gates[1]) * state[size:] + sigmoid(gates[0]) * np.tanh(gates[2])
    decode_gates.lstm(input_sums.copy(), state_sums.copy(), input_scale, state_scale, bias, start, stop, state, out)
    assert np.abs(out - sigmoid(gates[3]) * np.tanh(cell))[part].max() < 2e-6
    assert np.abs(state[size:] - cell)[part].max() < 2e-6
    others = np.setdiff1d(np.arange(size), np.arange(start, stop))
    assert np.array_equal(out[others], out_before[others])
    assert np.array_equal(state[size + others], before[size + others])

    hidden, new_bias, out = draw(size), draw(size), draw(size)
    before, out_before = hidden.copy(), out.copy()
    scaled_state, biases = (
        values.astype(np.float64)[: 3 * size].reshape(3, size) for values in (state_sums * state_scale, bias)
    )
    scaled_inputs = (input_sums.astype(np.float64) * input_scale)[: 3 * size].reshape(3, size)
    reset, update = (sigmoid(scaled_inputs[gate] + scaled_state[gate] + biases[gate]) for gate in (0, 1))
    new = np.tanh(scaled_inputs[2] + biases[2] + reset * (scaled_state[2] + new_bias))
    decode_gates.gru(
        input_sums.copy(), state_sums.copy(), input_scale, state_scale, bias, new_bias, start, stop, hidden, out
    )
    assert np.abs(out - (1 - update) * new - update * hidden)[part].max() < 2e-6
    assert np.array_equal(out[others], out_before[others])
    assert np.array_equal(hidden, before)


# Products


def some_weights(dtype: str, random: np.random.Generator, outputs: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (N, K) as stored, and their numbers."""
    if dtype == "int8":
        stored = random.integers(-128, 128, (outputs, size)).astype(np.int8)
        return stored, stored.astype(np.float32)
    numbers = random.normal(size=(outputs, size)).astype(np.float32)
    if dtype == "float32":
        return numbers, numbers
    stored = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return stored, as_float32({"w": stored}, "w")


def fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """A float32 fused multiply-add: the product is exact in float64, the sum is rounded to odd and then to float32."""
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + c
    part = total - product
    rest = (product - (total - part)) + (c - part)
    places = total.view(np.int64)
    inexact = (rest != 0) & (places % 2 == 0)
    odd = places + np.where(inexact, np.where((rest > 0) == (total > 0), 1, -1), 0)
    return odd.view(np.float64).astype(np.float32)


def multiply(
    stored: np.ndarray, inputs: np.ndarray, rows: int, before: np.ndarray, blocks: tuple[int, int], offset: int = 0
) -> np.ndarray:
    """`before` with the products of some blocks added; `offset` other weights stand before the packed ones."""
    out = before.copy()
    flat = np.concatenate([np.full(offset, 77, stored.dtype), pack(stored).ravel()])
    add_products(flat, offset, *blocks, inputs, rows, stored.shape[1], out)
    return out


@pytest.mark.parametrize("dtype", ["float32", "uint16", "int8"])
@pytest.mark.parametrize("size", [1, 5, 127, 128, 129, 256, 300])
def test_products_are_chains_of_fused_multiply_adds(dtype: str, size: int) -> None:
    random = np.random.default_rng(size)
    for outputs in (1, 63, 64, 65, 130):
        stored, numbers = some_weights(dtype, random, outputs, size)
        inputs = random.normal(size=(10, size + 3)).astype(np.float32)  # rows are wider than what is read of them
        blocks = -(-outputs // WIDTH)
        width = blocks * WIDTH + 5
        before = random.normal(size=(10, width)).astype(np.float32)
        chain = before[:, :outputs]
        for k in range(size):
            chain = fused(np.broadcast_to(numbers[:, k], chain.shape), inputs[:, k : k + 1], chain)
        exact = before[:, :outputs] + inputs[:, :size].astype(np.float64) @ numbers.T
        magnitude = np.abs(before[:, :outputs]) + np.abs(inputs[:, :size]).astype(np.float64) @ np.abs(numbers.T)
        for rows in range(1, 10):
            out = multiply(stored, inputs, rows, before, (0, blocks), offset=rows * 3)
            assert (np.abs(out[:rows, :outputs] - exact[:rows]) / magnitude[:rows]).max() < 1e-6
            assert out[:rows, :outputs].tobytes() == chain[:rows].tobytes()
            # Zeros are added in the padding, and nothing else is touched.
            assert np.array_equal(out[:rows, outputs:], before[:rows, outputs:])
            assert np.array_equal(out[rows:], before[rows:])
        for start, stop in ((0, 1), (blocks - 1, blocks), (blocks, blocks)):
            out_part = multiply(stored, inputs, 6, before, (start, stop))
            columns = slice(start * WIDTH, stop * WIDTH)
            assert (
                out_part[:6, columns].tobytes()
                == multiply(stored, inputs, 6, before, (0, blocks))[:6, columns].tobytes()
            )
            out_part[:, columns] = before[:, columns]
            assert np.array_equal(out_part, before)


def test_products_of_whole_numbers_are_exact() -> None:
    random = np.random.default_rng(0)
    for dtype in (np.float32, np.int8):
        weights = random.integers(-9, 10, (70, 140)).astype(dtype)
        inputs = random.integers(-9, 10, (5, 140)).astype(np.float32)
        out = multiply(weights, inputs, 5, np.zeros((5, 128), np.float32), (0, 2))
        assert np.array_equal(out[:, :70], inputs @ weights.T.astype(np.float32))


def test_packed_weights_stand_in_blocks_of_outputs() -> None:
    weights = np.arange(70 * 3, dtype=np.float32).reshape(70, 3)
    packed = pack(weights)
    assert packed.shape == (2, 3, 64)
    assert packed.flags.c_contiguous
    assert packed[0, 2, 5] == weights[5, 2]
    assert packed[1, 1, 5] == weights[69, 1]
    assert not packed[1, :, 6:].any()
    assert np.array_equal(packed.transpose(0, 2, 1).reshape(128, 3)[:70], weights)


# Texts


@pytest.mark.parametrize(
    ("cell", "layers", "hidden", "stored", "direction", "seed"),
    [
        ("lstm", 2, 24, "float32", "forward", 1),
        ("gru", 1, 24, "bf16", "forward", 2),
        ("gru", 3, 13, "float32", "backward", 3),
        ("lstm", 1, 64, "bf16", "backward", 4),
    ],
)
def test_long_texts_are_those_of_the_numpy_engine(
    cell: str, layers: int, hidden: int, stored: str, direction: str, seed: int
) -> None:
    file = model(cell, layers, hidden, stored, 1.5)
    texts = []
    for engine in both(cell, layers, hidden, stored, 1.5, direction=direction):
        sampler = Sampler(file, seed=seed, direction=direction, engine=engine)
        texts.append(sampler.generate_all(10_000)[0])
    assert texts[0].text == texts[1].text
    assert texts[0].log_probs == pytest.approx(texts[1].log_probs, abs=CLOSE)
    assert len(set(texts[0].text)) == 31


# Compiled or not


def test_a_model_on_the_cpu_is_stepped_by_compiled_code() -> None:
    file = model("gru", 1, 12)
    assert type(pick_engine.new_engine(file.config, file.arrays, "cpu", "backward")) is CompiledEngine
    assert type(Sampler(file).engine) is CompiledEngine


def test_uses_of_a_decoder_share_one_compiled_function_for_each_kind_of_weights() -> None:
    for stored in STORED:
        for rows in (1, 3):
            case = Case("gru", 12, rows, 4, stored=stored)
            case.write()
            case.read(np.zeros((rows, 2), np.uint8), np.ones(rows, np.int32))
            case.engine.step(np.zeros(rows, np.int64), case.state)
        for options in ({}, {"temperature": 0, "top_k": 3}, {"no_repeat": 3, "ban": "a"}, {"num": 3, "stop": ("a",)}):
            Sampler(model("lstm", 2, 12, stored), seed=1, **options).generate_all(20)
    assert len(decode_step.read_or_write.signatures) == len(STORED)


def run_python(code: str, *, folder: Path | None = None, **environment: str) -> str:
    """What a fresh process prints that starts in a folder."""
    whole_environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, env=whole_environment, cwd=folder, capture_output=True, text=True, timeout=HANG)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_without_numba_the_same_text_is_written_in_numpy(tmp_path: Path) -> None:
    file = small_model(scale=1.0)
    save_model(tmp_path / "m", file)
    code = f"""
import sys
sys.modules["numba"] = None
from chargen.cli.main import main
from chargen.sampling.sampler import Sampler
sampler = Sampler.from_file({str(tmp_path / "m")!r}, seed=5, num=2)
print(type(sampler.engine).__name__, [sample.text for sample in sampler.generate_all(40)])
assert "chargen.decoding.compiled_engine" not in sys.modules
main(["sample", {str(tmp_path / "m")!r}, "--seed", "5", "--length", "40", "--temperature", "1"])
"""
    texts = [sample.text for sample in Sampler(file, seed=5, num=2).generate_all(40)]
    assert run_python(code) == f"NumpyEngine {texts}\n{texts[0]}"


SIGMOID = "import numpy; from chargen.kernels import decode_gates; print(decode_gates.sigmoid(numpy.float32(1)))"


def machine_code(folder: Path) -> dict[Path, tuple[int, int]]:
    """Files of machine code, each with its size and when it was written."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*.nb?")}


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def blanked(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2] + bytes(size - size // 2))


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), halved, blanked, Path.unlink])
def test_machine_code_that_a_crash_has_cut_is_compiled_again(
    damage: Callable[[Path], object], pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(number: int) -> int:
        return 3 * number + 1

    def run() -> tuple[int, int]:
        """The result, and how many times machine code was taken from the cache."""
        new: Any = jit.compiled(function)
        return new(5), sum(new.stats.cache_hits.values())

    monkeypatch.setattr(jit, "MACHINE_CODE_FOLDER", str(tmp_path))
    assert [run(), run()] == [(16, 0), (16, 1)]
    (path,) = tmp_path.rglob(pattern)
    damage(path)
    assert [run(), run()] == [(16, 0), (16, 1)]


def test_kernels_are_compiled_once_for_all_processes(tmp_path: Path) -> None:
    assert float(run_python(SIGMOID, NUMBA_CACHE_DIR=str(tmp_path))) == pytest.approx(0.7310586, abs=1e-7)
    first = machine_code(tmp_path)
    assert len(first) >= 4
    assert {path.relative_to(tmp_path).parts[0] for path in first} == {Path(jit.MACHINE_CODE_FOLDER).name}
    run_python(SIGMOID, NUMBA_CACHE_DIR=str(tmp_path))
    assert machine_code(tmp_path) == first


def test_kernels_are_kept_in_the_cache_of_chargen(own_cache: Path) -> None:
    run_python("import os; os.environ.pop('NUMBA_CACHE_DIR', None); " + SIGMOID, CHARGEN_CACHE=str(own_cache))
    assert {path.relative_to(own_cache).parts[:2] for path in machine_code(own_cache)} == {
        ("kernels", Path(jit.MACHINE_CODE_FOLDER).name)
    }


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    """What this process has compiled, a sampler in another finds."""
    save_model(tmp_path / "m", model("gru", 2, 12))
    code = f"""
from chargen.kernels.decode_step import read_or_write
from chargen.sampling.sampler import Sampler
print(len(Sampler.from_file({str(tmp_path / "m")!r}, seed=1, num=2).generate_all(30)))
print(sum(read_or_write.stats.cache_misses.values()))
"""
    Sampler(model("gru", 2, 12), seed=1).generate(3)
    assert run_python(code).split() == ["2", "0"]


def test_a_change_of_any_kernel_is_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in Path(jit.__file__).parent.glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    assert jit._machine_code_folder() == jit.MACHINE_CODE_FOLDER
    for path in sorted(tmp_path.glob("*.py")):
        before = jit._machine_code_folder()
        path.write_text(path.read_text() + "\n")
        assert jit._machine_code_folder() != before


def copied_package(folder: Path) -> dict[str, str]:
    """Copy chargen there; the environment of a process that has no place for a cache but its own folder."""
    shutil.copytree(Path(chargen.__file__).parent, folder / "chargen", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "file").touch()
    nowhere = str(folder / "file" / "below")
    return {"NUMBA_CACHE_DIR": nowhere, "CHARGEN_CACHE": nowhere, "HOME": nowhere, "XDG_CACHE_HOME": nowhere}


def test_where_nothing_can_be_written_every_process_compiles(tmp_path: Path) -> None:
    environment = copied_package(tmp_path)
    (tmp_path / "chargen" / "kernels" / "__pycache__").touch()
    code = f"import chargen; assert chargen.__file__.startswith({str(tmp_path)!r}); {SIGMOID}"
    assert float(run_python(code, folder=tmp_path, **environment)) == pytest.approx(0.7310586, abs=1e-7)
    assert not machine_code(tmp_path)


def test_where_the_cache_cannot_be_written_nothing_is_kept_beside_the_sources(tmp_path: Path) -> None:
    run_python(SIGMOID, folder=tmp_path, **copied_package(tmp_path))
    assert not machine_code(tmp_path)


def test_the_setting_of_numba_is_given_back() -> None:
    code = "from numba import config as c; c.CACHE_DIR = 'mine'; import chargen.kernels.decode_step; print(c.CACHE_DIR)"
    assert run_python(code).split() == ["mine"]
