"""Whole chunks of compiled code against the slow, obvious ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.decoding.choose import SampleConfig
from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.rules import Rules
from chargen.errors import ArgumentError
from chargen.kernels import NONE_ALLOWED, NOT_FINITE
from chargen.sampling.sampler import Sampler
from tests import naive
from tests.decoding.engines import (
    CELLS,
    CLOSE,
    DIRECTIONS,
    ODD,
    STORED,
    apart,
    both,
    chunk_to_write,
    chunks,
    free,
    model,
    random_seeds,
    same,
)
from tests.small_models import small_model


@settings(max_examples=75)
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


@pytest.mark.parametrize("cell", CELLS)
def test_weights_that_are_too_large_saturate_without_a_warning(cell: str) -> None:
    file = model(cell, 2, 12, scale=1e4)
    logits, state = naive.walk(CompiledEngine(file.config, file.arrays), np.arange(16).reshape(2, 8))
    assert np.isfinite(logits).all()
    assert all(np.isfinite(layer).all() for layer in state)


def test_biases_whose_sum_overflows_give_no_warning() -> None:
    file = small_model(characters=ODD)
    for name in ("ih", "hh"):
        file.arrays[f"forward_layers.0.bias_{name}_l0"][:] = 3e38
    ids = np.arange(16).reshape(2, 8)
    expected, _ = naive.walk(NumpyEngine(file.config, file.arrays), ids)
    assert np.abs(naive.walk(CompiledEngine(file.config, file.arrays), ids)[0] - expected).max() < CLOSE


def test_any_top_k_that_the_settings_allow_can_be_used() -> None:
    file = model("gru", 1, 12)
    plain, all_kept = Sampler(file, seed=1), Sampler(file, seed=1, top_k=2**63)
    assert all_kept.generate(9) == plain.generate(9)


def test_an_id_that_the_model_does_not_have_is_refused_and_nothing_is_fed() -> None:
    sampler, twin = (Sampler(model("gru", 1, 12), seed=1) for _ in range(2))
    with pytest.raises(ArgumentError):
        sampler.feed_ids(np.array([31]))
    assert sampler.generate(20) == twin.generate(20)
