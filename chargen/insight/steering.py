"""A model some of whose hidden units are held at a value: what reads them reads a number instead.

A weight times a number that stays is a bias. So the column of a held hidden unit in everything that reads it becomes
zero, and the column times the value goes to the bias beside it: all engines compute such a model as they are.
"""

import numbers
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from chargen.arguments import Arrays
from chargen.errors import SettingError, repr_short
from chargen.insight.activations import check_neuron
from chargen.model.config import ModelConfig, check_direction, parameter_shapes
from chargen.storage.model_file import ModelFile
from chargen.storage.quantize import as_float32

Neurons = Mapping[tuple[int, int], float]
"""Values of hidden units, by layer, counted from 1, and number, counted from 0."""
LARGEST = float(np.finfo(np.float32).max)


def set_neurons(file: ModelFile, neurons: Neurons | None, direction: str = "forward") -> ModelFile:
    """Hold hidden units of a model at values, whatever it reads, before the first character too.

    The file is for reading in this direction: where a hidden unit of the last layer is held in a model that reads both
    ways, the output layer no longer fits the other direction.

    Args:
        file: the model; weights of the new one are float32.
        neurons: the value of each hidden unit by (layer, unit), such as {(1, 37): 0.9}: layers count from 1, hidden
            units from 0. A hidden unit's own values are between -1 and 1. None holds none.
        direction: whose hidden units they are: "forward", or "backward" where the model reads both ways.

    Raises:
        SettingError: there is no such layer or hidden unit, a value is not finite, the model does not read in this
            direction, or has several networks.
    """
    check_direction(file.config, direction)
    held = {} if neurons is None else _check_neurons(file.config, neurons)
    if not held:
        return file
    if file.members:
        raise SettingError(f"neurons are held in one network: this model has {len(file.networks)}", "set_neurons")
    config, last = file.config, file.config.num_layers
    shapes = parameter_shapes(config, len(file.vocabulary))
    arrays: Arrays = {name: as_float32(file.arrays, name) for name in shapes}
    if config.tie_weights and any(layer == last for layer, _ in held):
        config = replace(config, tie_weights=False, embedding_size=config.hidden_size)
        arrays = {
            name: arrays.get(name, arrays["embedding.weight"])
            for name in parameter_shapes(config, len(file.vocabulary))
        }
    for (layer, unit), value in held.items():
        reads = f"{direction}_layers.{layer}.weight_ih_l0", f"{direction}_layers.{layer}.bias_ih_l0"
        own = f"{direction}_layers.{layer - 1}.weight_hh_l0", f"{direction}_layers.{layer - 1}.bias_hh_l0"
        for weight, bias in (own, reads if layer < last else ("output.weight", "output.bias")):
            _hold(arrays, weight, bias, unit, value)
    return replace(file, config=config, arrays=arrays)


def _hold(arrays: Arrays, weight: str, bias: str, unit: int, value: float) -> None:
    """Replace the product of a column and a hidden unit by a bias."""
    columns = arrays[weight].copy()
    with np.errstate(over="ignore"):  # infinite weights show in the logits, which the sampler checks
        arrays[bias] = (arrays[bias] + value * columns[:, unit].astype(np.float64)).astype(np.float32)
    columns[:, unit] = 0
    arrays[weight] = columns


def _check_neurons(config: ModelConfig, neurons: Any) -> dict[tuple[int, int], float]:
    """The values by layer and number; SettingError where they do not fit a model."""
    needed = "needed are values by layer and hidden unit, such as {(1, 37): 0.9}"
    if not isinstance(neurons, Mapping):
        raise SettingError(f"set_neurons is {repr_short(neurons)}: {needed}", "set_neurons")
    held = {}
    for place, value in neurons.items():
        if not isinstance(place, tuple) or len(place) != 2:
            raise SettingError(f"set_neurons has {repr_short(place)}: {needed}", "set_neurons")
        layer, unit = check_neuron(*place, config.num_layers, config.hidden_size)
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not abs(value) <= LARGEST:
            message = f"hidden unit {layer}:{unit} is to be {repr_short(value)}: it must be a finite number"
            raise SettingError(message, "set_neurons")
        held[layer, unit] = float(value)
    return held
