"""One character further: NumPy, row by row, against the torch model."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chargen.decoding.choose import SampleConfig
from chargen.decoding.cloze import NumpyCloze
from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.numpy_engine import Engine, NumpyEngine
from chargen.decoding.rules import Rules
from chargen.decoding.torch_engine import TorchEngine
from chargen.errors import ArgumentError, ChargenError, SettingError
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile, build_model
from chargen.storage.quantize import quantize
from tests import naive
from tests.small_models import as_bf16, random_ids, small_model

CELLS = ("lstm", "gru")
ODD = "".join(map(chr, range(97, 97 + 31)))


def numpy_engine(model: ModelFile) -> NumpyEngine:
    return NumpyEngine(model.config, model.arrays)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_numpy_steps_give_the_logits_and_states_of_the_torch_model(cell: str, layers: int) -> None:
    model = small_model(cell, num_layers=layers, hidden_size=24, scale=1.0)
    ids = random_ids(3, 25, len(model.vocabulary))
    with torch.inference_mode():
        expected, state = build_model(model)(torch.from_numpy(ids))
    logits, carried = naive.walk(numpy_engine(model), ids)
    assert np.ptp(logits) > 0.1
    assert np.abs(logits - expected.numpy()).max() < 1e-5
    for ours, theirs in zip(carried, state, strict=True):
        assert ours.shape == (3, model.config.state_size)
        assert np.abs(ours - theirs.numpy()).max() < 1e-5


@pytest.mark.parametrize("cell", CELLS)
def test_both_engines_agree_and_take_over_each_others_state(cell: str) -> None:
    model = small_model(cell, scale=1.0)
    ours, theirs = numpy_engine(model), TorchEngine(build_model(model))
    ids = random_ids(4, 20, len(model.vocabulary))
    expected, end = naive.walk(ours, ids)
    there, state = naive.walk(theirs, ids[:, :10])
    back, last = naive.walk(ours, ids[:, 10:], state)
    assert np.abs(np.concatenate([there, back], axis=1) - expected).max() < 1e-5
    again, _ = naive.walk(theirs, ids[:, 10:], naive.walk(ours, ids[:, :10])[1])
    assert np.abs(again - expected[:, 10:]).max() < 1e-5
    for array, other in zip(last, end, strict=True):
        assert array.dtype == other.dtype == np.float32
        assert np.abs(array - other).max() < 1e-5
    for array, other in zip(ours.start(5), theirs.start(5), strict=True):
        assert np.array_equal(array, other)
        assert not array.any()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hidden", [13, 96])
def test_logits_are_the_same_bits_whatever_the_number_of_rows(cell: str, hidden: int) -> None:
    model = small_model(cell, hidden_size=hidden, characters=ODD, scale=1.0)
    engine = numpy_engine(model)
    ids = random_ids(17, 6, 31)
    alone = [naive.walk(engine, ids[row : row + 1]) for row in range(17)]
    for rows in range(1, 18):
        logits, state = naive.walk(engine, ids[:rows])
        assert logits.dtype == np.float32
        for row in range(rows):
            assert logits[row].tobytes() == alone[row][0][0].tobytes()
            assert all(a[row].tobytes() == b[0].tobytes() for a, b in zip(state, alone[row][1], strict=True))


@given(st.permutations(range(5)), st.sampled_from(CELLS))
def test_rows_never_mix(order: list[int], cell: str) -> None:
    model = small_model(cell)
    ids = random_ids(5, 6, len(model.vocabulary))
    logits, _ = naive.walk(numpy_engine(model), ids)
    shuffled, _ = naive.walk(numpy_engine(model), ids[order])
    assert np.array_equal(shuffled, logits[order])
    changed = ids.copy()
    changed[order[0]] = (changed[order[0]] + 1) % len(model.vocabulary)
    other, _ = naive.walk(numpy_engine(model), changed)
    assert [np.array_equal(other[row], logits[row]) for row in range(5)] == [row != order[0] for row in range(5)]


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_changes_none_of_its_arguments(cell: str) -> None:
    model = small_model(cell)
    for engine in (numpy_engine(model), TorchEngine(build_model(model))):
        _, state = naive.walk(engine, random_ids(2, 3, len(model.vocabulary)))
        ids = np.array([1, 2])
        copies = [layer.copy() for layer in state]
        first, after = engine.step(ids, state)
        second, _ = engine.step(ids, state)
        assert np.array_equal(first, second)
        assert all(np.array_equal(layer, copy) for layer, copy in zip(state, copies, strict=True))
        assert not any(np.shares_memory(array, other) for array, other in zip(state, after, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_bf16_bits_are_read_as_their_numbers(cell: str) -> None:
    model = small_model(cell)
    stored = as_bf16(model)
    bits = stored.arrays
    plain = {name: (array.astype(np.uint32) << 16).view(np.float32) for name, array in bits.items()}
    ids = random_ids(2, 8, len(model.vocabulary))
    logits, _ = naive.walk(NumpyEngine(model.config, bits), ids)
    assert np.array_equal(logits, naive.walk(NumpyEngine(model.config, plain), ids)[0])
    assert not np.array_equal(logits, naive.walk(numpy_engine(model), ids)[0])
    assert np.abs(naive.walk(TorchEngine(build_model(stored)), ids)[0] - logits).max() < 1e-4


@pytest.mark.parametrize("cell", CELLS)
def test_large_weights_saturate_without_a_warning(cell: str) -> None:
    logits, state = naive.walk(numpy_engine(small_model(cell, scale=1e4)), random_ids(2, 8, 10))
    assert np.isfinite(logits).all()
    assert all(np.isfinite(layer).all() for layer in state)


@pytest.mark.parametrize("kind", [NumpyEngine, CompiledEngine])
def test_one_lstm_step_by_hand(kind: type[NumpyEngine | CompiledEngine]) -> None:
    """One hidden unit, one number per character, every weight written out."""
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
    engine = kind(config, {name: array.astype(np.float32) for name, array in arrays.items()})
    logits, (after,) = engine.step(np.array([1]), (np.array([[0.5, -0.5]], np.float32),))
    enter, forget, new, leave = (
        number + 0.5 * weight + bias
        for number, weight, bias in zip((1, 2, 3, 4), (0.1, 0.2, 0.3, 0.4), (0.51, 0.62, 0.73, 0.84), strict=True)
    )
    enter, forget, leave = (1 / (1 + np.exp(-gate)) for gate in (enter, forget, leave))
    cell = forget * -0.5 + enter * np.tanh(new)
    hidden = leave * np.tanh(cell)
    assert after[0] == pytest.approx([hidden, cell], abs=1e-6)
    assert logits[0] == pytest.approx([hidden + 0.25, -2 * hidden + 0.5], abs=1e-6)


# What does not fit is refused in the same line by every engine.

V, R, T = 10, 3, 4


@cache
def every_engine(cell: str = "lstm") -> tuple[Engine, ...]:
    file = small_model(cell)
    return (
        NumpyEngine(file.config, file.arrays),
        CompiledEngine(file.config, file.arrays),
        TorchEngine(build_model(file)),
    )


def fitting(rows: int = R) -> dict[str, Any]:
    """Arguments of all methods, by name."""
    random = np.random.default_rng(0)
    state = tuple(random.normal(size=(rows, 24)).astype(np.float32) for _ in range(2))
    return {
        "ids": random.integers(0, V, (rows, T)), "counts": np.arange(rows) % (T + 1), "state": state,
        "logits": random.normal(size=(rows, V)).astype(np.float32), "uniforms": random.random((rows, T)),
        "masks": random.random((2, V)) < 0.9, "next_mask": random.integers(-1, 2, (2, V)),
        "stop_after": np.zeros(V, bool),
        "mask_index": random.integers(0, 2, rows), "config": SampleConfig(),
    }  # fmt: skip


def call(engine: Engine, method: str, given_: dict[str, Any]) -> list[np.ndarray]:
    """All that a method returns."""
    if method == "step":
        logits, state = engine.step(given_["ids"], given_["state"])
        return [logits, *state]
    if method == "read":
        logits, state = engine.read(*(given_[name] for name in ("ids", "counts", "logits", "state")))
        return [logits, *state]
    rules = Rules(given_["masks"], given_["next_mask"], given_["stop_after"])
    names = "logits", "state", "uniforms", "mask_index", "config"
    logits, state, uniforms, mask_index, config = (given_[name] for name in names)
    chunk = engine.write(logits, state, uniforms, rules, mask_index, config)
    return [chunk.logits, *chunk.state, chunk.ids, chunk.log_probs, chunk.counts]


WRONG: list[tuple[str, Callable[[Any], Any]]] = [
    ("ids", lambda ids: np.where(ids >= 0, V, ids)), ("ids", lambda ids: np.full_like(ids, -1)),
    ("ids", lambda ids: np.full_like(ids, 10**9)), ("ids", lambda ids: ids.astype(float)),
    ("ids", lambda ids: np.full(ids.shape, 2**64 - 1, np.uint64)), ("ids", lambda ids: ids.astype(object)),
    ("ids", lambda ids: ids[None]), ("ids", lambda ids: ids > 3), ("ids", lambda ids: None),
    ("ids", lambda ids: [[1], [1, 2]]), ("ids", lambda ids: "abc"),
    ("counts", lambda counts: counts[:-1]), ("counts", lambda counts: counts + T + 1),
    ("counts", lambda counts: counts - 9), ("counts", lambda counts: counts.astype(float)),
    ("counts", lambda counts: counts[:, None]),
    ("logits", lambda logits: logits[:, :-1]), ("logits", lambda logits: logits[0]),
    ("logits", lambda logits: logits[:-1]), ("logits", lambda logits: logits.astype(complex)),
    ("logits", lambda logits: torch.from_numpy(logits).to("meta")),
    ("state", lambda state: state[:1]), ("state", lambda state: state * 2), ("state", lambda state: ()),
    ("state", lambda state: tuple(layer[:-1] for layer in state)), ("state", lambda state: None),
    ("state", lambda state: tuple(layer[:, :-1] for layer in state)),
    ("state", lambda state: tuple(np.concatenate([layer, layer]) for layer in state)),
    ("state", lambda state: tuple(layer[None] for layer in state)), ("state", lambda state: np.stack(state)[0, 0]),
    ("state", lambda state: tuple(layer > 0 for layer in state)),
    ("uniforms", lambda uniforms: uniforms[0]), ("uniforms", lambda uniforms: uniforms + 1),
    ("uniforms", lambda uniforms: uniforms - 1), ("uniforms", lambda uniforms: uniforms * np.nan),
    ("uniforms", lambda uniforms: uniforms[:-1]),
    ("masks", lambda masks: masks[:, :-1]), ("masks", lambda masks: masks.astype(int)),
    ("masks", lambda masks: masks[0]), ("masks", lambda masks: masks[:0]), ("masks", lambda masks: masks[:1]),
    ("next_mask", lambda follow: follow + 2), ("next_mask", lambda follow: follow[:1]),
    ("next_mask", lambda follow: follow[:, :-1]), ("next_mask", lambda follow: follow * 1.0),
    ("stop_after", lambda pause: pause[:-1]), ("stop_after", lambda pause: pause.astype(int)),
    ("mask_index", lambda mask_index: mask_index + 2), ("mask_index", lambda mask_index: mask_index - 2),
    ("mask_index", lambda mask_index: mask_index[:-1]), ("mask_index", lambda mask_index: mask_index.astype(float)),
    ("config", lambda config: None), ("config", lambda config: {"temperature": 1}),
]  # fmt: skip
USED = {
    "step": {"ids", "state"}, "read": {"ids", "counts", "logits", "state"},
    "write": {"logits", "state", "uniforms", "masks", "next_mask", "stop_after", "mask_index", "config"},
}  # fmt: skip


@pytest.mark.parametrize("rows", [1, R, 9])
@pytest.mark.parametrize("method", USED)
def test_what_does_not_fit_is_refused_in_the_same_line_by_every_engine(method: str, rows: int) -> None:
    for name, change in WRONG:
        if name not in USED[method]:
            continue
        given_ = fitting(rows)
        if method == "step":
            given_["ids"] = given_["ids"][:, 0]
        if method == "read" and name == "ids":
            given_["counts"][:] = T
        given_[name] = change(given_[name])
        messages = set()
        for engine in every_engine():
            with pytest.raises(ArgumentError) as error:
                call(engine, method, given_)
            messages.add(str(error.value))
        assert len(messages) == 1, (method, name, messages)
        assert "\n" not in messages.pop()


@pytest.mark.parametrize("rows", [1, R])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("method", USED)
def test_arrays_of_any_layout_and_type_give_the_same(cell: str, method: str, rows: int) -> None:
    def spread(array: Any) -> Any:
        """The same numbers, every second one of an array."""
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]

    def read_only(array: Any) -> Any:
        array = array.copy()
        array.flags.writeable = False
        return array

    changes: list[Callable[[Any], Any]] = [
        spread, read_only, np.asfortranarray, lambda array: array[::-1].copy()[::-1], torch.from_numpy,
        lambda array: array.tolist(),
        lambda array: array.astype({"i": np.int32, "f": np.float64, "b": bool}[array.dtype.kind]),
        lambda array: array.astype(array.dtype.newbyteorder()),
    ]  # fmt: skip
    given_ = fitting(rows)
    if method == "step":
        given_["ids"] = given_["ids"][:, 0]
    given_["state"] = tuple(layer[:, : {"lstm": 24, "gru": 12}[cell]].copy() for layer in given_["state"])
    for engine in every_engine(cell):
        expected = call(engine, method, given_)
        for change in changes:
            other = dict(given_)
            for name in USED[method] - {"config"}:
                value = given_[name]
                other[name] = tuple(map(change, value)) if name == "state" else change(value)
            results = call(engine, method, other)
            assert all(np.array_equal(ours, theirs) for ours, theirs in zip(results, expected, strict=True))


@pytest.mark.parametrize("kind", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("cell", CELLS)
def test_weights_of_another_model_are_refused_by_every_engine(cell: str, kind: str) -> None:
    file = small_model(cell, bidirectional=True)
    arrays = file.arrays if kind == "float32" else quantize(file.arrays, kind)
    for direction in file.config.directions:
        for make in (NumpyEngine, CompiledEngine):
            make(file.config, arrays, direction)
            for name in arrays:
                other = "backward" if direction == "forward" else "forward"
                if name.startswith(("cloze.", f"{other}_layers.")):
                    continue
                for wrong in (
                    None, arrays[name][:-1], np.concatenate([arrays[name]] * 2), arrays[name][..., None],
                    arrays[name].astype(complex), arrays[name].astype(np.int32), arrays[name].tolist(),
                ):  # fmt: skip
                    broken = dict(arrays)
                    if wrong is None:
                        del broken[name]
                    else:
                        broken[name] = wrong
                    with pytest.raises(ArgumentError) as error:
                        make(file.config, broken, direction)
                    assert "\n" not in str(error.value)


def test_weights_in_float64_and_in_any_layout_are_read() -> None:
    file = small_model()
    other = {name: np.asfortranarray(array.astype(np.float64)) for name, array in file.arrays.items()}
    ids = random_ids(3, 5, V)
    for make in (NumpyEngine, CompiledEngine):
        expected, _ = naive.walk(make(file.config, file.arrays), ids)
        assert np.array_equal(naive.walk(make(file.config, other), ids)[0], expected)


def test_other_things_than_models_have_no_engine() -> None:
    file = small_model()
    for config, arrays in ((None, file.arrays), (file.config, None), (file.config, {}), ("lstm", file.arrays)):
        for make in (NumpyEngine, CompiledEngine):
            with pytest.raises(ArgumentError):
                make(config, arrays)
    for direction in ("backward", "up", None):
        for make in (NumpyEngine, CompiledEngine):
            with pytest.raises(ChargenError):
                make(file.config, file.arrays, direction)
    empty = replace(file, arrays={name: array[:0] for name, array in file.arrays.items()})
    with pytest.raises(ArgumentError):
        CompiledEngine(file.config, empty.arrays)


def test_a_cloze_layer_in_numpy_reads_only_what_fits_it() -> None:
    cloze = NumpyCloze(small_model(bidirectional=True).arrays)
    fits = np.zeros((2, 12)), np.zeros((3, 12)), np.zeros((2, V)), np.zeros((3, V))
    assert cloze.logits(*fits).shape == (2, 3, V)
    for place in range(4):
        for wrong in (fits[place][:1], fits[place][:, :-1], fits[place][0], fits[place] > 0, None):
            given_ = [*fits[:place], wrong, *fits[place + 1 :]]
            with pytest.raises(ArgumentError):
                cloze.logits(*given_)
    with pytest.raises(ArgumentError, match=r"cloze\.output\.bias are missing"):
        NumpyCloze(small_model().arrays)


def test_a_model_without_memory_writes_nothing() -> None:
    file = small_model()
    with pytest.raises(ArgumentError, match="the model is on meta"):
        Sampler(build_model(file, "meta"), vocabulary=file.vocabulary)


@pytest.mark.parametrize("other", [{"characters": "abc"}, {"hidden_size": 40}, {"num_layers": 1}, {"cell": "gru"}])
def test_a_sampler_takes_no_engine_of_another_model(other: dict[str, Any]) -> None:
    file = small_model(**other)
    with pytest.raises(SettingError, match="engine is of another model"):
        Sampler(small_model(), seed=1, engine=CompiledEngine(file.config, file.arrays))
