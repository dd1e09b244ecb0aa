"""Whether what a stepper is called with fits its model: compiled code must touch nothing that is not its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.errors import ArgumentError
from chargen.model.config import ModelConfig, check_direction, parameter_shapes
from chargen.sampling.choose import SampleConfig
from chargen.sampling.rules import Rules
from chargen.storage.quantize import SCALE

Arrays = dict[str, NDArray[Any]]
_KINDS: dict[Any, tuple[str, str]] = {
    np.int64: ("iu", "whole numbers"), np.float32: ("fiu", "numbers"), np.float64: ("fiu", "numbers"),
    np.bool_: ("b", "true or false"),
}  # fmt: skip


def fitting(name: str, values: Any, shape: tuple[int | None, ...], kind: Any) -> NDArray[Any]:
    """Values as memory in order, of one type, that may be written. They are copied only where they are not.

    Args:
        shape: None where any number fits.
        kind: np.int64, np.float32, np.float64 or np.bool_.

    Raises ArgumentError where they have another shape, or are no such numbers.
    """
    if type(values) is np.ndarray and values.dtype == kind and values.flags.carray and values.shape == shape:
        return values
    found = checked(name, values, shape, kind)
    with np.errstate(over="ignore"):  # the caller looks at what comes of it
        return np.require(found, kind, ("C", "W", "A"))


def checked(name: str, values: Any, shape: tuple[int | None, ...], kind: Any) -> NDArray[Any]:
    """Values as an array, of whatever type and layout. Raises ArgumentError as `fitting`."""
    letters, words = _KINDS[kind]
    needed = "(" + ", ".join("any" if size is None else str(size) for size in shape) + f") of {words}"
    try:
        found = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"{name} of type {type(values).__name__}: needed is {needed}") from error
    fits = found.ndim == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(found.shape, shape, strict=True)
    )
    if not fits or found.dtype.kind not in letters:
        raise ArgumentError(f"{name} of shape {found.shape} and type {found.dtype}: needed is {needed}")
    return found


def within(name: str, values: NDArray[Any], low: float, below: float) -> None:
    """Raise ArgumentError where a number is beyond, or none."""
    if values.size and not (low <= values.min() and values.max() < below):
        raise ArgumentError(f"{name} from {values.min()} to {values.max()}: needed is {low} to below {below}")


def fitting_state(config: ModelConfig, state: Any, rows: int) -> tuple[NDArray[np.float32], ...]:
    """A state, one (R, S) a layer, in float32. Raises ArgumentError where it is not this model's."""
    if not isinstance(state, (tuple, list)) or len(state) != config.num_layers:
        found = f"state of {len(state)} parts" if isinstance(state, (tuple, list)) else "state that is no tuple"
        raise ArgumentError(
            f"{found}: needed are {config.num_layers}, one ({rows}, {config.state_size}) for each layer"
        )
    shape = rows, config.state_size
    return tuple(fitting(f"state[{layer}]", part, shape, np.float32) for layer, part in enumerate(state))


def fitting_reading(ids: Any, counts: Any, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids (R, T), and how many of them each row reads (R,). Raises ArgumentError for one that the model does not have.

    What stands behind the ids that a row reads is nobody's.
    """
    ids = fitting("ids", ids, (None, None), np.int64)
    counts = fitting("counts", counts, (len(ids),), np.int64)
    within("counts", counts, 0, ids.shape[1] + 1)
    within("ids", ids[np.arange(ids.shape[1]) < counts[:, None]], 0, size)
    return ids, counts


def fitting_rules(rules: Any, mask_of: Any, rows: int, turns: int, size: int) -> tuple[Rules, NDArray[np.int64]]:
    """Rules, and which mask holds for each row (R,). Raises ArgumentError where they do not fit."""
    if not isinstance(rules, Rules):
        raise ArgumentError(f"rules of type {type(rules).__name__}: needed are Rules")
    masks = fitting("masks", rules.masks, (None, size), np.bool_)
    follow = fitting("follow", rules.follow, masks.shape, np.int64)
    pause = fitting("pause", rules.pause, (size,), np.bool_)
    mask_of = fitting("mask_of", mask_of, (rows,), np.int64)
    within("mask_of", mask_of, 0, len(masks))
    if turns > 1:
        within("follow", follow, -np.inf, len(masks))
    return Rules(masks, follow, pause), mask_of


def fitting_uniforms(uniforms: Any, rows: int) -> NDArray[np.float64]:
    """Draws (R, T). Raises ArgumentError where they are not from 0 to below 1."""
    found = fitting("uniforms", uniforms, (rows, None), np.float64)
    within("uniforms", found, 0, 1)
    return found


def check_config(config: Any) -> None:
    """Raise ArgumentError where that is no SampleConfig."""
    if not isinstance(config, SampleConfig):
        raise ArgumentError(f"config of type {type(config).__name__}: needed is a SampleConfig")


def fitting_weights(config: Any, arrays: Any, direction: str) -> Arrays:
    """The weights of one direction, by name, with the scales of those that are quantized.

    Raises ArgumentError where one is missing, or has a shape or type that the model's have not; SettingError for a
    direction that the model lacks.
    """
    if not isinstance(config, ModelConfig) or not isinstance(arrays, Mapping):
        types = f"{type(config).__name__} and {type(arrays).__name__}"
        raise ArgumentError(f"a model of {types}: needed are a ModelConfig and arrays by name")
    check_direction(config, direction)
    size = len(_weights(arrays, "output.bias", (None,)))
    parts = "embedding.", "output.", f"{direction}_layers."
    shapes = {name: shape for name, shape in parameter_shapes(config, size).items() if name.startswith(parts)}
    found = {name: _weights(arrays, name, shape) for name, shape in shapes.items()}
    scaled = [name for name, array in found.items() if array.dtype == np.int8]
    return found | {name + SCALE: _weights(arrays, name + SCALE, shapes[name][:1]) for name in scaled}


def _weights(arrays: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Floats as float32; bf16 as bits, and int8 of a matrix, as they are."""
    array = arrays.get(name)
    quantized = isinstance(array, np.ndarray) and (
        array.dtype == np.uint16 or (array.dtype == np.int8 and len(shape) == 2)
    )
    if array is None or not (quantized or getattr(array, "dtype", np.dtype(int)).kind == "f"):
        found = "missing" if array is None else f"of type {getattr(array, 'dtype', type(array).__name__)}"
        raise ArgumentError(f"weights {name} are {found}: needed are float32, bf16 bits in uint16, or int8 with scales")
    checked(f"weights {name}", array, shape, np.int64 if quantized else np.float32)
    if not len(array):
        raise ArgumentError(f"weights {name} are empty: a model has at least one character")
    with np.errstate(over="ignore"):  # the caller looks at the logits
        return array if quantized else np.ascontiguousarray(array, np.float32)
