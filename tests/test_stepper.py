"""One character further: NumPy, row by row, against the torch model."""

import numpy as np
import pytest
import torch
from conftest import small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.sampling.stepper import NumpyStepper, State, Stepper
from chargen.sampling.torch_stepper import TorchStepper
from chargen.storage.model_file import ModelFile, build_model

CELLS = ("lstm", "gru")
ODD = "".join(map(chr, range(97, 97 + 31)))


def numpy_stepper(model: ModelFile) -> NumpyStepper:
    return NumpyStepper(model.config, model.arrays)


def walk(stepper: Stepper, ids: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
    """Logits (R, T, V) after each of ids (R, T), and the last state."""
    state = stepper.start(len(ids)) if state is None else state
    logits = []
    for column in ids.T:
        one, state = stepper.step(column, state)
        logits.append(one)
    return np.stack(logits, axis=1), state


def some_ids(rows: int, length: int, size: int) -> np.ndarray:
    return np.random.default_rng(rows * 1000 + length).integers(0, size, (rows, length))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_numpy_steps_give_the_logits_and_states_of_the_torch_model(cell: str, layers: int) -> None:
    model = small_model(cell, num_layers=layers, hidden_size=24, scale=1.0)
    ids = some_ids(3, 25, len(model.vocabulary))
    with torch.inference_mode():
        expected, state = build_model(model)(torch.from_numpy(ids))
    logits, carried = walk(numpy_stepper(model), ids)
    assert np.ptp(logits) > 0.1
    assert np.abs(logits - expected.numpy()).max() < 1e-5
    for ours, theirs in zip(carried, state, strict=True):
        assert ours.shape == (3, model.config.state_size)
        assert np.abs(ours - theirs.numpy()).max() < 1e-5


@pytest.mark.parametrize("cell", CELLS)
def test_both_steppers_agree_and_take_over_each_others_state(cell: str) -> None:
    model = small_model(cell, scale=1.0)
    ours, theirs = numpy_stepper(model), TorchStepper(build_model(model))
    ids = some_ids(4, 20, len(model.vocabulary))
    expected, end = walk(ours, ids)
    there, state = walk(theirs, ids[:, :10])
    back, last = walk(ours, ids[:, 10:], state)
    assert np.abs(np.concatenate([there, back], axis=1) - expected).max() < 1e-5
    again, _ = walk(theirs, ids[:, 10:], walk(ours, ids[:, :10])[1])
    assert np.abs(again - expected[:, 10:]).max() < 1e-5
    for one, other in zip(last, end, strict=True):
        assert one.dtype == other.dtype == np.float32
        assert np.abs(one - other).max() < 1e-5
    for one, other in zip(ours.start(5), theirs.start(5), strict=True):
        assert np.array_equal(one, other)
        assert not one.any()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hidden", [13, 96])
def test_logits_are_the_same_bits_whatever_the_number_of_rows(cell: str, hidden: int) -> None:
    model = small_model(cell, hidden_size=hidden, characters=ODD, scale=1.0)
    stepper = numpy_stepper(model)
    ids = some_ids(17, 6, 31)
    alone = [walk(stepper, ids[row : row + 1]) for row in range(17)]
    for rows in range(1, 18):
        logits, state = walk(stepper, ids[:rows])
        assert logits.dtype == np.float32
        for row in range(rows):
            assert logits[row].tobytes() == alone[row][0][0].tobytes()
            assert all(a[row].tobytes() == b[0].tobytes() for a, b in zip(state, alone[row][1], strict=True))


@settings(max_examples=25)
@given(st.permutations(range(5)), st.sampled_from(CELLS))
def test_rows_never_mix(order: list[int], cell: str) -> None:
    model = small_model(cell)
    ids = some_ids(5, 6, len(model.vocabulary))
    logits, _ = walk(numpy_stepper(model), ids)
    shuffled, _ = walk(numpy_stepper(model), ids[order])
    assert np.array_equal(shuffled, logits[order])
    changed = ids.copy()
    changed[order[0]] = (changed[order[0]] + 1) % len(model.vocabulary)
    other, _ = walk(numpy_stepper(model), changed)
    assert [np.array_equal(other[row], logits[row]) for row in range(5)] == [row != order[0] for row in range(5)]


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_changes_nothing_it_was_given(cell: str) -> None:
    model = small_model(cell)
    for stepper in (numpy_stepper(model), TorchStepper(build_model(model))):
        _, state = walk(stepper, some_ids(2, 3, len(model.vocabulary)))
        ids = np.array([1, 2])
        copies = [layer.copy() for layer in state]
        first, after = stepper.step(ids, state)
        second, _ = stepper.step(ids, state)
        assert np.array_equal(first, second)
        assert all(np.array_equal(layer, copy) for layer, copy in zip(state, copies, strict=True))
        assert not any(np.shares_memory(one, other) for one, other in zip(state, after, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_bf16_bits_are_read_as_their_numbers(cell: str) -> None:
    model = small_model(cell)
    bits = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in model.arrays.items()}
    plain = {name: (array.astype(np.uint32) << 16).view(np.float32) for name, array in bits.items()}
    ids = some_ids(2, 8, len(model.vocabulary))
    logits, _ = walk(NumpyStepper(model.config, bits), ids)
    assert np.array_equal(logits, walk(NumpyStepper(model.config, plain), ids)[0])
    assert not np.array_equal(logits, walk(numpy_stepper(model), ids)[0])
    stored = ModelFile(model.config, model.vocabulary, bits, model.counts)
    assert np.abs(walk(TorchStepper(build_model(stored)), ids)[0] - logits).max() < 1e-4


@pytest.mark.parametrize("cell", CELLS)
def test_large_weights_saturate_without_a_warning(cell: str) -> None:
    logits, state = walk(numpy_stepper(small_model(cell, scale=1e4)), some_ids(2, 8, 10))
    assert np.isfinite(logits).all()
    assert all(np.isfinite(layer).all() for layer in state)


def test_one_lstm_step_by_hand() -> None:
    """One unit, one number per character, every weight written out."""
    config = small_model(num_layers=1, hidden_size=1).config
    layer = "forward_layers.0."
    arrays = {
        "embedding.weight": np.array([[0.0] * 8, [1.0] + [0.0] * 7]),
        f"{layer}weight_ih_l0": np.array([[gate] + [0.0] * 7 for gate in (1.0, 2.0, 3.0, 4.0)]),
        f"{layer}weight_hh_l0": np.array([[0.1], [0.2], [0.3], [0.4]]),
        f"{layer}bias_ih_l0": np.array([0.01, 0.02, 0.03, 0.04]),
        f"{layer}bias_hh_l0": np.array([0.5, 0.6, 0.7, 0.8]),
        "output.weight": np.array([[1.0], [-2.0]]),
        "output.bias": np.array([0.25, 0.5]),
    }
    logits, (after,) = NumpyStepper(config, arrays).step(np.array([1]), (np.array([[0.5, -0.5]], np.float32),))
    enter, forget, new, leave = (
        number + 0.5 * weight + bias
        for number, weight, bias in zip((1, 2, 3, 4), (0.1, 0.2, 0.3, 0.4), (0.51, 0.62, 0.73, 0.84), strict=True)
    )
    enter, forget, leave = (1 / (1 + np.exp(-gate)) for gate in (enter, forget, leave))
    cell = forget * -0.5 + enter * np.tanh(new)
    hidden = leave * np.tanh(cell)
    assert after[0] == pytest.approx([hidden, cell], abs=1e-6)
    assert logits[0] == pytest.approx([hidden + 0.25, -2 * hidden + 0.5], abs=1e-6)
