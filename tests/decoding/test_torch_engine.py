"""Whole chunks on a torch device write what the reference writes. A GPU only repeats the same time step by itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.decoding import torch_engine
from chargen.decoding.choose import SampleConfig, choose
from chargen.decoding.compiled_engine import compiled_filters
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.torch_engine import TorchEngine, choose_rows
from chargen.errors import ArgumentError
from chargen.kernels import NOT_FINITE
from chargen.kernels.decode_step import pick
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import build_model
from tests.decoding.engines import (
    CELLS,
    DIRECTIONS,
    ODD,
    apart,
    chunk_to_write,
    chunks,
    configs,
    free,
    random_seeds,
    same,
)
from tests.small_models import small_model


def both(cell, layers=2, direction="forward", characters=ODD):
    file = small_model(cell, num_layers=layers, characters=characters, scale=1.5, bidirectional=direction == "backward")
    return TorchEngine(build_model(file), direction), NumpyEngine(file.config, file.arrays, direction)


@settings(max_examples=75)
@given(st.sampled_from(CELLS), st.sampled_from([1, 2, 3]), st.sampled_from(DIRECTIONS), *chunks)
def test_a_chunk_is_what_the_reference_writes(
    cell, layers, direction, config, seed, rows, length, number, allowed, paused, unknown, broken
):
    ours, theirs = both(cell, layers, direction)
    for again in range(2):  # the second time in the same memory
        given_ = chunk_to_write(theirs, config, seed + again, rows, length, number, allowed, paused, unknown, broken)
        same(ours.write(*given_), theirs.write(*given_))


@given(st.sampled_from(CELLS), st.sampled_from([1, 3]), random_seeds, st.lists(st.integers(0, 9), max_size=7))
def test_reading_is_what_the_reference_reads(cell, layers, seed, lengths):
    ours, theirs = both(cell, layers)
    random, counts = np.random.default_rng(seed), np.array(lengths, np.int64)
    rows, length = len(lengths), max(lengths, default=0)
    ids = random.integers(0, 31, (rows, length))
    ids[np.arange(length) >= counts[:, None]] = NOT_FINITE
    logits = random.normal(size=(rows, 31)).astype(np.float32)
    state = tuple(random.normal(size=part.shape).astype(np.float32) / 3 for part in ours.start(rows))
    logits_read, after = ours.read(ids, counts, logits, state)
    expected, expected_after = theirs.read(ids, counts, logits, state)
    assert np.abs(logits_read - expected).max(initial=0) < 1e-5
    assert apart(after, expected_after) < 1e-5


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_rows_that_read_as_many_are_read_in_one_go(cell, direction, monkeypatch):
    ours, theirs = both(cell, 2, direction)
    monkeypatch.setattr(ours, "advance", None)
    ids = np.random.default_rng(0).integers(0, 31, (3, 20))
    given_ = ids, np.full(3, 20), np.zeros((3, 31), np.float32), theirs.start(3)
    (logits_read, after), (expected, expected_after) = ours.read(*given_), theirs.read(*given_)
    assert np.abs(logits_read - expected).max() < 1e-5
    assert apart(after, expected_after) < 1e-5


@settings(max_examples=150)
@given(configs, random_seeds, st.integers(1, 40), st.floats(0, 1, exclude_max=True))
def test_every_row_is_chosen_as_choose_does(config, seed, size, uniform):
    random = np.random.default_rng(seed)
    logits = random.choice([0.0, 0.5, 1.0, 3.0, -2.0, 7.0], (4, size)) if seed % 2 else random.normal(size=(4, size))
    allowed = random.random((4, size)) < 0.7
    allowed[np.arange(4), random.integers(size, size=4)] = True
    uniforms = np.array([uniform, 0.0, 0.37, 1 - 2**-53])
    tensors = map(torch.from_numpy, (logits, allowed, uniforms[:, None]))
    chosen = choose_rows(*tensors, config=config)
    assert chosen.tolist() == [choose(*row, config) for row in zip(logits, allowed, uniforms, strict=True)]


@pytest.mark.parametrize("size", [3, 6, 9, 11, 23])
def test_equal_ids_are_drawn_alike_where_a_uniform_meets_a_border(size):
    config, logits, allowed = SampleConfig(top_p=0.75, temperature=1e308), np.zeros(size), np.ones(size, bool)
    for uniform in {border / number for number in range(1, size + 1) for border in range(number)}:
        row = logits, allowed, uniform
        tensors = (torch.from_numpy(np.array([values])) for values in (logits, allowed, [uniform]))
        picked, _ = pick(logits.astype(np.float32), allowed, uniform, 1e308, *compiled_filters(config), np.empty(size))
        assert choose(*row, config) == int(choose_rows(*tensors, config=config)) == picked


@pytest.mark.parametrize("settings_", [{}, {"top_k": 5, "min_p": 0.01}, {"no_repeat": 4}, {"stop": ("e",)}])
def test_a_sampler_writes_the_same_text_on_a_torch_device(settings_):
    file = small_model(scale=1.0)
    plain = Sampler(file, num=3, seed=1, engine=NumpyEngine(file.config, file.arrays), **settings_)
    other = Sampler(file, num=3, seed=1, engine=TorchEngine(build_model(file)), **settings_)
    for sampler in (plain, other):
        sampler.feed("abc")
    for length in (1, 50, 300):
        assert [sample.text for sample in plain.generate_all(length)] == [
            sample.text for sample in other.generate_all(length)
        ]


def test_memory_is_made_once_for_all_chunks_of_the_same_rules(monkeypatch):
    made = []
    plain = torch_engine._Writer

    def watched(*arguments):
        made.append(arguments[1:])
        return plain(*arguments)

    monkeypatch.setattr(torch_engine, "_Writer", watched)
    ours, theirs = both("gru")
    for rows, length, config in ((2, 3, {}), (2, 200, {}), (2, 300, {}), (2, 3, {"top_k": 1}), (3, 3, {"top_k": 1})):
        uniforms = np.random.default_rng(0).random((rows, length))
        given_ = np.zeros((rows, 31), np.float32), ours.start(rows), uniforms, free(31), np.zeros(rows, np.int64)
        same(ours.write(*given_, SampleConfig(**config)), theirs.write(*given_, SampleConfig(**config)))
    assert [room[:3] for room in made] == [(2, 1, 256), (2, 1, 300), (2, 1, 256), (4, 1, 256)]


def test_a_time_step_asks_the_host_nothing(monkeypatch):
    """What a graph could not hold: numbers that are brought back to the host."""
    ours, _ = both("lstm")
    writer = torch_engine._Writer(ours, 3, 1, 256, SampleConfig(top_p=0.9, top_k=20, min_p=0.01))

    def refuse(*_, **__):
        raise AssertionError("asked the host")

    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    with torch.inference_mode():
        writer._time_step()
    monkeypatch.undo()
    assert int(writer.column) == 1


def test_an_id_that_the_model_does_not_have_is_refused():
    ours, _ = both("gru")
    for wrong in (-1, 31):
        with pytest.raises(ArgumentError, match="needed is 0 to below 31"):
            ours.step(np.array([0, wrong]), ours.start(2))
