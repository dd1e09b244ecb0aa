"""Compiled steps against the slow, obvious ones, and bits that depend on nothing but what a row read."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.decoding import pack_networks, pick_engine
from chargen.decoding.choose import SampleConfig
from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.rules import Rules
from chargen.kernels import decode_step
from chargen.kernels.cpu_features import amx
from chargen.sampling.sampler import Sampler
from tests import naive
from tests.decoding.engines import CELLS, CLOSE, DIRECTIONS, STORED, Case, apart, bits, both, free, model
from tests.pairs import all_pairs


@pytest.mark.parametrize(("cell", "layers", "hidden"), all_pairs(CELLS, (1, 2, 3), (1, 12, 13, 64, 96, 130)))
def test_steps_are_those_of_numpy(cell: str, layers: int, hidden: int) -> None:
    for stored in STORED:
        for scale in (1.0, 1.5):
            for direction in DIRECTIONS:
                ours, theirs = both(cell, layers, hidden, stored, scale, direction=direction)
                ids = np.random.default_rng(layers * 1000 + hidden).integers(0, 31, (2, 50))
                (logits, state), (expected, expected_state) = naive.walk(ours, ids), naive.walk(theirs, ids)
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
    expected, expected_state = naive.walk(NumpyEngine(file.config, file.arrays), ids)
    for units in {False, amx()}:
        monkeypatch.setattr(pack_networks, "amx", lambda units=units: units)
        logits, state = naive.walk(CompiledEngine(file.config, file.arrays), ids)
        assert np.abs(logits - expected).max() < CLOSE
        assert apart(state, expected_state) < CLOSE


def test_the_two_directions_and_the_two_cells_differ() -> None:
    ids = np.arange(12).reshape(2, 6)
    walks = [
        naive.walk(both(cell, 2, 12, direction=direction)[0], ids)[0].tobytes()
        for cell in CELLS
        for direction in DIRECTIONS
    ]
    assert len(set(walks)) == 4


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
        texts.append(sampler.generate_all(4000)[0])
    assert texts[0].text == texts[1].text
    assert texts[0].log_probs == pytest.approx(texts[1].log_probs, abs=CLOSE)
    assert len(set(texts[0].text)) == 31


# Compiled or not


def test_a_model_on_the_cpu_is_stepped_by_compiled_code() -> None:
    file = model("gru", 1, 12)
    assert type(pick_engine.new_engine(file, "cpu", "backward")) is CompiledEngine
    assert type(Sampler(file).engine) is CompiledEngine


def test_engines_share_one_compiled_function_for_each_kind_of_weights() -> None:
    for stored in STORED:
        for rows in (1, 3):
            case = Case("gru", 12, rows, 4, stored=stored)
            case.write()
            case.read(np.zeros((rows, 2), np.uint8), np.ones(rows, np.int32))
            case.engine.step(np.zeros(rows, np.int64), case.state)
        for options in ({}, {"temperature": 0, "top_k": 3}, {"no_repeat": 3, "ban": "a"}, {"num": 3, "stop": ("a",)}):
            Sampler(model("lstm", 2, 12, stored), seed=1, **options).generate_all(20)
    assert len(decode_step.read_or_write.signatures) == len(STORED)
