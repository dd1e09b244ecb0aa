"""Held hidden units: as a loop that overwrites them after every step, in every engine, by every door."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chargen
from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.errors import SettingError
from chargen.insight.steering import set_neurons
from chargen.kernels import available
from chargen.storage.model_file import ModelFile, build_model, read_model, save_model
from chargen.storage.quantize import quantization_of, quantize
from tests import naive
from tests.commands import Run
from tests.record_models import record_model
from tests.small_models import random_ids, small_model

CLOSE = {"rtol": 2e-4, "atol": 2e-4}


def held_in(layers: int) -> list[dict[tuple[int, int], float]]:
    """Hidden units of one layer each, and of all."""
    each = [{(layer, 4 * layer - 2): 0.9 - 0.7 * layer} for layer in range(1, layers + 1)]
    return [*each, {place: value for held in each for place, value in held.items()} | {(1, 0): 2.5, (layers, 0): -1.0}]


def assert_held(file: ModelFile, neurons: dict[tuple[int, int], float], direction: str = "forward") -> None:
    """Engines and the network compute of the file what the loop computes of the hidden units."""
    steered = set_neurons(file, neurons, direction)
    ids = random_ids(1, 25, len(file.vocabulary))
    expected = naive.logits(file, ids[0].tolist(), direction, neurons)
    assert np.abs(expected - naive.logits(file, ids[0].tolist(), direction)).max() > 0.01, "holding changes something"
    engines = [NumpyEngine, *([CompiledEngine] if available() else [])]
    for engine in engines:
        logits, _ = naive.walk(engine(steered.config, steered.arrays, direction), ids)
        np.testing.assert_allclose(logits[0], expected, **CLOSE)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_holding_is_overwriting_after_every_step(cell: str, layers: int, direction: str, tied: bool) -> None:
    file = small_model(cell, num_layers=layers, bidirectional=True, tie_weights=tied, scale=1.5)
    before = {name: array.copy() for name, array in file.arrays.items()}
    for neurons in held_in(layers):
        assert_held(file, neurons, direction)
    assert file.arrays.keys() == before.keys()
    assert all(np.array_equal(file.arrays[name], array) for name, array in before.items()), "the model stays"


@pytest.mark.parametrize("kind", ["int8", "bf16"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_quantized_weights_become_floats(cell: str, kind: str) -> None:
    for tied in (False, True):
        file = small_model(cell, tie_weights=tied, scale=1.5)
        file = replace(file, arrays=quantize(file.arrays, kind))
        for neurons in held_in(2):
            assert_held(file, neurons)
            assert quantization_of(set_neurons(file, neurons).arrays) == ""


def test_records_begin_with_the_held_value_too() -> None:
    file = replace(record_model(), arrays=record_model().arrays)
    ids = [file.vocabulary.begin_id("sun"), 1, 2, file.vocabulary.begin_id(), 3, 1]
    neurons = {(1, 3): 0.8}
    steered = set_neurons(file, neurons)
    logits, _ = naive.walk(NumpyEngine(steered.config, steered.arrays), np.array([ids]))
    np.testing.assert_allclose(logits[0], naive.logits(file, ids, neurons=neurons), **CLOSE)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_value_that_a_hidden_unit_has_anyway_changes_nothing(cell: str) -> None:
    file, ids = small_model(cell, scale=1.5), random_ids(1, 30, 10)
    arrays = {name: array.copy() for name, array in file.arrays.items()}
    # Gates that are wide open or shut, and no weights: the hidden unit is tanh(0.7), or tanh of that, for ever.
    gates = {"gru": [0.0, -40.0, 0.7], "lstm": [40.0, -40.0, 0.7, 40.0]}[cell]
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        rows = arrays[f"forward_layers.0.{name}_l0"].reshape(len(gates), 12, -1)
        rows[:, 5] = np.array(gates)[:, None] if name == "bias_ih" else 0
    arrays["forward_layers.0.weight_hh_l0"][:, 5] = 0  # its layer would read zero at the first step
    still = replace(file, arrays=arrays)
    values = chargen.activations(still, file.vocabulary.decode(ids[0])).unit(1, 5)
    value = np.tanh(0.7) if cell == "gru" else np.tanh(np.tanh(0.7))
    np.testing.assert_allclose(values, value, atol=3e-3)
    models = still, set_neurons(still, {(1, 5): float(value)}), set_neurons(still, {(1, 5): 0.9})
    same, held, other = (naive.walk(NumpyEngine(model.config, model.arrays), ids)[0] for model in models)
    np.testing.assert_allclose(held, same, atol=1e-5)
    assert np.abs(other - same).max() > 0.01


def test_a_steered_model_is_a_model(tmp_path: Path) -> None:
    file = small_model(tie_weights=True, scale=1.5)
    steered = set_neurons(file, {(2, 3): 0.5})
    assert set_neurons(file, {}) is file
    save_model(tmp_path / "steered.safetensors", steered)
    again = read_model(tmp_path / "steered.safetensors")
    assert not again.config.tie_weights
    assert build_model(again).output.weight is not build_model(again).embedding.weight
    values = chargen.activations(again, "abcdef", precision="fp32")
    assert np.abs(values.unit(2, 3) - 0.5).max() > 0.01, "its own value goes on, but nothing reads it"
    settings: dict[str, Any] = {"seed": 3, "length": 60, "temperature": 1.0}
    assert chargen.generate(again, **settings) == chargen.generate(file, set_neurons={(2, 3): 0.5}, **settings)


@pytest.mark.parametrize("options", [{}, {"num": 2}, {"quantize": "int8"}, {"reverse": True, "prime": "abc"}])
def test_sample_writes_what_generate_and_a_sampler_write(run: Run, options: dict[str, Any]) -> None:
    file = small_model(scale=2.0, bidirectional=True)
    save_model("model.safetensors", file)
    neurons, settings = {(1, 4): 0.9, (2, 0): -0.75}, {"seed": 1, "length": 80, "temperature": 1.0}
    words = [word for name, value in (settings | options).items() for word in (f"--{name}", value) if value is not True]
    words += ["--reverse"] * ("reverse" in options)
    result = run("sample", "model.safetensors", "--set-neuron", "1:4=0.9", "--set-neuron", "2:0=-.75", *words)
    assert result.code == 0, result.err
    if "num" in options:
        written = chargen.generate(file, set_neurons=neurons, **settings, **options)
        assert result.out == "\0".join(written)
    else:
        written = chargen.generate(file, set_neurons=neurons, **settings, **options)
        assert result.out == written
        assert written != chargen.generate(file, **settings, **options)
    direction = "backward" if "reverse" in options else "forward"
    if "num" not in options and "quantize" not in options:
        sampler = chargen.Sampler(set_neurons(file, neurons, direction), seed=1, direction=direction)
        sampler.feed(options.get("prime", ""))
        assert sampler.generate(80) == written.removesuffix(options.get("prime", ""))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("3:0=1", "there is no layer 3: this model has layers 1 to 2"),
        ("0:0=1", "there is no layer 0: this model has layers 1 to 2"),
        ("1:12=1", "there is no hidden unit 12 in layer 1: its hidden units are 0 to 11"),
        ("1:4=nan", "hidden unit 1:4 is to be nan: it must be a finite number"),
        ("1:4=-inf", "hidden unit 1:4 is to be -inf: it must be a finite number"),
        ("1:4=1e39", "hidden unit 1:4 is to be 1e+39: it must be a finite number"),
        ("1:4=x", "--set-neuron is '1:4=x': it must be a layer, a hidden unit and a number, such as 1:37=0.9"),
        ("14=1", "--set-neuron is '14=1': it must be a layer"),
        ("", "--set-neuron is '': it must be a layer"),
        ("-1:2=3", "--set-neuron is '-1:2=3': it must be a layer"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(run: Run, word: str, message: str) -> None:
    save_model("model.safetensors", small_model())
    result = run("sample", "model.safetensors", "--length", "3", "--set-neuron", word)
    assert (result.code, result.one_line()) == (2, True)
    assert message in result.err


def test_a_hidden_unit_has_one_value(run: Run) -> None:
    save_model("model.safetensors", small_model())
    result = run("sample", "model.safetensors", "--length", "3", "--set-neuron", "1:4=1", "--set-neuron", "1:04=2")
    assert (result.code, result.one_line()) == (2, True)
    assert "--set-neuron names hidden unit 1:4 twice: give it one value" in result.err


@pytest.mark.parametrize("wrong", [3, [], {1: 0.5}, {(1,): 0.5}, {(1, "a"): 0.5}, {(1, 2): True}, {(1, 2): "0.5"}])
def test_what_is_no_value_of_a_hidden_unit_is_refused(wrong: Any) -> None:
    with pytest.raises(SettingError) as refused:
        chargen.generate(small_model(), set_neurons=wrong, length=2)
    assert "\n" not in str(refused.value)


def test_a_settings_file_has_them_too(run: Run) -> None:
    save_model("model.safetensors", small_model(scale=2.0))
    Path("settings.toml").write_text('set_neuron = ["1:4=0.9"]\nlength = 50\nseed = 2\n')
    by_file = run("sample", "model.safetensors", "--config", "settings.toml")
    by_flag = run("sample", "model.safetensors", "--length", 50, "--seed", 2, "--set-neuron", "1:4=0.9")
    assert by_file.code == 0, by_file.err
    assert by_file.out == by_flag.out
