"""Checks of what callers pass in: arrays, of which a misfit is an ArgumentError of one line, and a config."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from chargen.errors import ArgumentError, SettingError
from chargen.settings import make_settings

_Config = TypeVar("_Config")
Arrays = dict[str, NDArray[Any]]
"""By name, such as a model's weights."""
_ACCEPTED: dict[Any, tuple[str, str]] = {
    np.int64: ("iu", "whole numbers"), np.float32: ("fiu", "numbers"), np.float64: ("fiu", "numbers"),
    np.bool_: ("b", "true or false"),
}  # fmt: skip
"""For each dtype that may be asked for: the kinds of dtype (NumPy's letters) that are converted, and their name."""


def choose_config(cls: type[_Config], config: _Config | None, settings: dict[str, Any]) -> _Config:
    """Take the config that was passed in, or make one of the fields that were passed in its place.

    Args:
        cls: the dataclass of the config.
        config: one that is complete already, or None.
        settings: fields by name.

    Raises:
        SettingError: where both were passed in, or a field is unknown or out of range.
    """
    if config is not None and settings:
        raise SettingError(f"give {', '.join(settings)} in the config or beside it, not both")
    return config or make_settings(cls, settings)


def as_array(name: str, values: Any, shape: tuple[int | None, ...], dtype: Any) -> NDArray[Any]:
    """Return values as a writable C-contiguous array; they are copied only where they are not one already.

    Args:
        name: of the argument, for messages.
        values: an array, or what NumPy makes one of.
        shape: the shape needed; None where any size fits.
        dtype: np.int64, np.float32, np.float64 or np.bool_.

    Returns:
        An array of exactly that shape and dtype.

    Raises:
        ArgumentError: where the values have another shape, or are no such numbers.
    """
    if type(values) is np.ndarray and values.dtype == dtype and values.shape == shape and _is_plain(values):
        return values
    array = check_array(name, values, shape, dtype)
    with np.errstate(over="ignore"):  # the caller checks for infinities
        array = np.asarray(array, dtype)
    return array if _is_plain(array) else np.array(array, order="C")


def _is_plain(array: NDArray[Any]) -> bool:
    """Whether an array is writable and C-contiguous, without a negative stride, which one row alone may have."""
    return array.flags.carray and min(array.strides, default=0) >= 0


def check_array(name: str, values: Any, shape: tuple[int | None, ...], dtype: Any) -> NDArray[Any]:
    """Return values as an array of the shape needed; its dtype and layout stay what they are.

    Args:
        name: of the argument, for messages.
        values: an array, or what NumPy makes one of.
        shape: the shape needed; None where any size fits.
        dtype: np.int64, np.float32, np.float64 or np.bool_: what the numbers must be convertible to.

    Raises:
        ArgumentError: where the values have another shape, or are no such numbers.
    """
    kinds, words = _ACCEPTED[dtype]
    needed = "(" + ", ".join("any" if size is None else str(size) for size in shape) + f") of {words}"
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(f"{name} of type {type(values).__name__}: needed is {needed}") from error
    fits = array.ndim == len(shape) and all(
        needed_size in (None, size) for size, needed_size in zip(array.shape, shape, strict=True)
    )
    if not fits or (array.size and array.dtype.kind not in kinds):
        raise ArgumentError(f"{name} of shape {array.shape} and type {array.dtype}: needed is {needed}")
    return array


def check_range(name: str, values: NDArray[Any], low: float, below: float) -> None:
    """Check that all numbers of an array are in a range.

    Args:
        name: of the argument, for messages.
        values: the numbers, of any shape.
        low: the least allowed number.
        below: what every number must be less than.

    Raises:
        ArgumentError: where a number is outside the range, or NaN.
    """
    if values.size and not (low <= values.min() and values.max() < below):
        raise ArgumentError(f"{name} from {values.min()} to {values.max()}: needed is {low} to below {below}")
