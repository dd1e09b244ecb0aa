"""Whether an array that somebody gives is what a function needs. What does not fit is told in one line."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.errors import ArgumentError

_KINDS: dict[Any, tuple[str, str]] = {
    np.int64: ("iu", "whole numbers"), np.float32: ("fiu", "numbers"), np.float64: ("fiu", "numbers"),
    np.bool_: ("b", "true or false"),
}  # fmt: skip


def as_array(name: str, values: Any, shape: tuple[int | None, ...], kind: Any) -> NDArray[Any]:
    """Values as memory in order, of one type, that may be written. They are copied only where they are not.

    Args:
        shape: None where any number fits.
        kind: np.int64, np.float32, np.float64 or np.bool_.

    Raises ArgumentError where they have another shape, or are no such numbers.
    """
    if type(values) is np.ndarray and values.dtype == kind and values.shape == shape and _in_order(values):
        return values
    found = check_array(name, values, shape, kind)
    with np.errstate(over="ignore"):  # the caller looks at what comes of it
        found = np.asarray(found, kind)
    return found if _in_order(found) else np.array(found, order="C")


def _in_order(values: NDArray[Any]) -> bool:
    """Whether that is memory in order that may be written; what has one row only might still step backwards."""
    return values.flags.carray and min(values.strides, default=0) >= 0


def check_array(name: str, values: Any, shape: tuple[int | None, ...], kind: Any) -> NDArray[Any]:
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
    if not fits or (found.size and found.dtype.kind not in letters):
        raise ArgumentError(f"{name} of shape {found.shape} and type {found.dtype}: needed is {needed}")
    return found


def check_range(name: str, values: NDArray[Any], low: float, below: float) -> None:
    """Raise ArgumentError where a number is beyond, or none."""
    if values.size and not (low <= values.min() and values.max() < below):
        raise ArgumentError(f"{name} from {values.min()} to {values.max()}: needed is {low} to below {below}")
