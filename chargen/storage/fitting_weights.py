"""Whether arrays are the weights of a model: compiled code reads them by address."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import check_array
from chargen.errors import ArgumentError
from chargen.model.config import ModelConfig, check_direction, parameter_shapes
from chargen.storage.quantize import SCALE

Arrays = dict[str, NDArray[Any]]


def fitting_weights(config: Any, arrays: Any) -> Arrays:
    """A model's weights, by name, with the scales of those that are quantized.

    Raises ArgumentError where one is missing, or has a shape or type that the model's have not.
    """
    return _fitting(config, arrays, "")


def fitting_stack(config: Any, arrays: Any, direction: str) -> Arrays:
    """The same of one direction: its layers, embedding and output. Raises SettingError where the model lacks it."""
    if isinstance(config, ModelConfig):
        check_direction(config, direction)
    return _fitting(config, arrays, "embedding.", "output.", f"{direction}_layers.")


def fitting_array(arrays: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Floats as float32; bf16 as bits, and int8 of a matrix, as they are. Raises ArgumentError as above."""
    if not isinstance(arrays, Mapping):
        raise ArgumentError(f"weights are of type {type(arrays).__name__}: needed are arrays by name")
    array = arrays.get(name)
    kind = array.dtype if isinstance(array, np.ndarray) else None
    quantized = kind == np.uint16 or (kind == np.int8 and len(shape) == 2)
    if array is None or kind is None or not (quantized or kind.kind == "f"):
        found = "missing" if array is None else f"of type {kind or type(array).__name__}"
        raise ArgumentError(f"weights {name} are {found}: needed are float32, bf16 bits in uint16, or int8 with scales")
    check_array(f"weights {name}", array, shape, np.int64 if quantized else np.float32)
    if kind == np.int8:
        fitting_array(arrays, name + SCALE, shape[:1])
    if not len(array):
        raise ArgumentError(f"weights {name} are empty: a model has at least one character")
    with np.errstate(over="ignore"):  # the caller looks at the logits
        return array if quantized else np.ascontiguousarray(array, np.float32)


def _fitting(config: Any, arrays: Any, *parts: str) -> Arrays:
    if not isinstance(config, ModelConfig):
        raise ArgumentError(f"config is of type {type(config).__name__}: it must be a ModelConfig")
    size = len(fitting_array(arrays, "output.bias", (None,)))
    shapes = {name: shape for name, shape in parameter_shapes(config, size).items() if name.startswith(parts)}
    found = {name: fitting_array(arrays, name, shape) for name, shape in shapes.items()}
    scaled = [name for name, array in found.items() if array.dtype == np.int8]
    return found | {name + SCALE: arrays[name + SCALE] for name in scaled}
