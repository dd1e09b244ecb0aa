"""Checks that arrays are the weights of a model, because compiled code reads them by address."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import Arrays, check_array
from chargen.errors import ArgumentError
from chargen.model.config import ModelConfig, check_direction, parameter_shapes
from chargen.storage.quantize import SCALE


def as_weights(config: Any, arrays: Any, *prefixes: str) -> Arrays:
    """Check the weights of a model, and convert them to a form that compiled code can read.

    Args:
        config: the model's shape.
        arrays: the weights by name; others are ignored.
        *prefixes: with which the names of those that are needed start; without any, all are needed.

    Returns:
        Weights by name, float32, bf16 bits or int8, with the scales of int8.

    Raises:
        ArgumentError: `config` is no ModelConfig, or a weight is missing or has another shape or type.
    """
    if not isinstance(config, ModelConfig):
        raise ArgumentError(f"config is of type {type(config).__name__}: it must be a ModelConfig")
    size = len(as_weight(arrays, "output.bias", (None,)))
    shapes = {name: shape for name, shape in parameter_shapes(config, size).items() if name.startswith(prefixes or "")}
    weights = {name: as_weight(arrays, name, shape) for name, shape in shapes.items()}
    scaled = [name for name, array in weights.items() if array.dtype == np.int8]
    return weights | {name + SCALE: arrays[name + SCALE] for name in scaled}


def as_stack_weights(config: Any, arrays: Any, direction: str) -> Arrays:
    """Check the weights of one direction's layers, of the embedding and of the output layer, and convert them.

    Args:
        config: the model's shape.
        arrays: the weights by name; others are ignored.
        direction: "forward", or "backward" where the model is bidirectional.

    Returns:
        Weights by name, float32, bf16 bits or int8, with the scales of int8.

    Raises:
        ArgumentError: `config` is no ModelConfig, or a weight is missing or has another shape or type.
        SettingError: the model does not read in this direction.
    """
    if isinstance(config, ModelConfig):
        check_direction(config, direction)
    return as_weights(config, arrays, "embedding.", "output.", f"{direction}_layers.")


def as_weight(arrays: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Check a weight, and convert floats to float32.

    Args:
        arrays: all weights by name.
        name: the name of the weight.
        shape: the shape that it must have; None where any number fits.

    Returns:
        Float32; or, unchanged, bf16 bits in uint16, or a matrix in int8 that has scales.

    Raises:
        ArgumentError: it is missing, empty, or has another shape or type.
    """
    if not isinstance(arrays, Mapping):
        raise ArgumentError(f"weights are of type {type(arrays).__name__}: needed are arrays by name")
    array = arrays.get(name)
    dtype = array.dtype if isinstance(array, np.ndarray) else None
    quantized = dtype == np.uint16 or (dtype == np.int8 and len(shape) == 2)
    if array is None or dtype is None or not (quantized or dtype.kind == "f"):
        wrong = "missing" if array is None else f"of type {dtype or type(array).__name__}"
        raise ArgumentError(f"weights {name} are {wrong}: needed are float32, bf16 bits in uint16, or int8 with scales")
    check_array(f"weights {name}", array, shape, np.int64 if quantized else np.float32)
    if dtype == np.int8:
        as_weight(arrays, name + SCALE, shape[:1])
    if not len(array):
        raise ArgumentError(f"weights {name} are empty: a model has at least one character")
    with np.errstate(over="ignore"):  # infinite weights show in the logits, which the caller checks
        return array if quantized else np.ascontiguousarray(array, np.float32)
