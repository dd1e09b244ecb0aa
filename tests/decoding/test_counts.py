"""Engines that mix in counts: the compiled one beside the reference, whatever is read or written, in pieces too."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.data.borders import labels_before
from chargen.decoding import compiled_engine
from chargen.decoding.choose import SampleConfig
from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.kernels.threads import AutoTuner
from tests import naive
from tests.decoding.counted_engines import KINDS, V, all_kinds, both, counted, in_the_middle, pair, pieces
from tests.decoding.engines import (
    CLOSE,
    DIRECTIONS,
    apart,
    chunk_to_write,
    chunks,
    free,
    random_seeds,
    same,
)
from tests.record_models import record_model
from tests.small_models import with_counts


@settings(max_examples=40)
@given(*map(st.sampled_from, KINDS), st.sampled_from([1, 2, 5, 12]), *chunks)
def test_a_chunk_is_what_the_reference_writes(
    cell: str, stored: str, direction: str, order: int, config: SampleConfig, seed: int, rows: int, length: int,
    number: int, allowed: float, paused: float, unknown: float, broken: bool,
) -> None:  # fmt: skip
    ours, theirs = both(cell, stored, direction, order)
    logits, state, *rest = chunk_to_write(theirs, config, seed, rows, length, number, allowed, paused, unknown, broken)
    state = in_the_middle(state, seed, direction)
    chunk, expected = (engine.write(logits, state, *rest) for engine in (ours, theirs))
    same(chunk, expected)
    assert chunk.state[0].tobytes() == expected.state[0].tobytes()


@given(*map(st.sampled_from, KINDS), random_seeds, st.lists(st.integers(0, 14), max_size=7))
def test_reading_is_what_the_reference_reads(cell: str, stored: str, direction: str, seed: int, lengths: Any) -> None:
    ours, theirs = both(cell, stored, direction)
    rows, counts = len(lengths), np.array(lengths, np.int64)
    ids = pieces(seed, rows, max(lengths, default=0), direction)
    logits = np.random.default_rng(seed).normal(size=(rows, V)).astype(np.float32)
    state = in_the_middle(ours.start(rows), seed, direction)
    read, after = ours.read(ids, counts, logits, state)
    expected, expected_after = theirs.read(ids, counts, logits, state)
    assert np.abs(read - expected).max(initial=0) < CLOSE
    assert apart(after, expected_after) < CLOSE
    assert read[counts == 0].tobytes() == logits[counts == 0].tobytes(), "what reads nothing is not mixed again"


@all_kinds
def test_logits_are_the_logarithms_of_the_mixture_of_network_and_counts(cell: str, stored: str, direction: str) -> None:
    file, ids = counted(cell, stored), pieces(1, 3, 30, direction)
    mixture = file.mixtures[direction]
    network, _ = naive.walk(NumpyEngine(file.config, file.arrays, direction), ids)
    for engine in both(cell, stored, direction):
        logits, state = naive.walk(engine, ids)
        for row in range(3):
            for place in range(30):
                expected = mixture.probabilities(ids[row, : place + 1], network[row, place])
                np.testing.assert_allclose(np.exp(logits[row, place]), expected, rtol=1e-4)
        assert state[0].tolist() == ids[:, -4:].tolist(), "a state holds as many ids as contexts have"
        assert len(state) == 3
        assert engine.start(2)[0].tolist() == [[-1] * 4] * 2


@all_kinds
def test_a_text_may_be_cut_anywhere_and_taken_over_by_the_other_engine(cell: str, stored: str, direction: str) -> None:
    engines, ids = both(cell, stored, direction), pieces(2, 4, 14, direction)
    zeros = np.zeros((4, V), np.float32)
    expected, end = engines[1].read(ids, np.full(4, 14), zeros, engines[1].start(4))
    for cut in range(15):
        for first in engines:
            logits, state = first.read(ids[:, :cut], np.full(4, cut), zeros, first.start(4))
            for second in engines:
                after, last = second.read(ids[:, cut:], np.full(4, 14 - cut), logits, state)
                assert np.abs(after - expected).max() < CLOSE
                assert apart(last, end) < CLOSE


@all_kinds
def test_a_row_is_the_same_bits_among_others_and_alone(cell: str, stored: str, direction: str) -> None:
    engine, _ = both(cell, stored, direction)
    ids, counts = pieces(3, 70, 9, direction), np.random.default_rng(3).integers(0, 10, 70)
    zeros, start = np.zeros((70, V), np.float32), in_the_middle(engine.start(70), 3, direction)
    logits, state = engine.read(ids, counts, zeros, start)
    uniforms, rules, masks = np.random.default_rng(4).random((70, 20)), free(V, (3,)), np.zeros(70, np.int64)
    chunk = engine.write(logits, state, uniforms, rules, masks, SampleConfig())
    for row in (0, 1, 33, 69):
        part = slice(row, row + 1)
        alone, own = engine.read(ids[part], counts[part], zeros[part], tuple(layer[part] for layer in start))
        assert alone.tobytes() == logits[part].tobytes()
        written = engine.write(alone, own, uniforms[part], rules, masks[part], SampleConfig())
        assert written.ids.tobytes() == chunk.ids[part].tobytes()
        for layer, whole in zip(written.state, chunk.state, strict=True):
            assert layer.tobytes() == whole[part].tobytes()


def test_threads_that_share_a_row_mix_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_engine, "threads", lambda: 2)
    monkeypatch.setattr(compiled_engine, "TEAM_BYTES", 0)
    monkeypatch.setattr(compiled_engine, "MIN_TIMED_LENGTH", 1)
    file = counted(hidden=128)
    team, alone = (CompiledEngine(file.config, file.arrays, "forward", file.mixtures["forward"]) for _ in range(2))
    team._tuner, alone._tuner = AutoTuner({2: 0.0}), AutoTuner({1: 0.0})
    random, mask = np.random.default_rng(0), np.zeros(1, np.int64)
    logits, uniforms = random.normal(size=(1, V)), random.random((1, 300))
    state = in_the_middle(team.start(1), 5, "forward")
    ours, theirs = (engine.write(logits, state, uniforms, free(V), mask, SampleConfig()) for engine in (team, alone))
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert ours.logits.tobytes() == theirs.logits.tobytes()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_records_are_read_as_by_the_reference_and_know_nothing_of_those_before(direction: str) -> None:
    vocabulary, random = record_model().vocabulary, np.random.default_rng(7)
    end, size = vocabulary.end_id, len(vocabulary)
    assert end is not None
    marks = [vocabulary.begin_mark(label) for label in (None, *vocabulary.labels)]
    text = "".join(marks[random.integers(3)] + "abcdef "[at:] for at in random.integers(0, 6, 80))
    engines = pair(with_counts(record_model(), text, order=6), direction)
    whole = vocabulary.encode(text).astype(np.int64)
    ids = whole if direction == "forward" else labels_before(np.append(whole, end), end)[::-1]
    rows = np.stack([ids[start : start + 40] for start in (0, 9, 50, 90)])
    (logits, state), (expected, end_state) = (naive.walk(engine, rows) for engine in engines)
    assert np.abs(logits - expected).max() < CLOSE
    assert apart(state, end_state) < CLOSE
    for row in range(4):
        border = int(np.flatnonzero(rows[row] >= end)[-2])
        alone, _ = naive.walk(engines[0], rows[row : row + 1, border:])
        assert np.abs(alone[0] - logits[row, border:]).max() < CLOSE
    assert size - end == 3
