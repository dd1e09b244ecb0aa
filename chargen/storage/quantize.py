"""Weights in fewer bits: bf16, or int8 with a scale for each row. Biases stay float32."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.errors import SettingError
from chargen.kernels.bf16 import to_bits, to_floats

KINDS = ("int8", "bf16")
SCALE = ".scale"
LARGEST = 127


def quantize(arrays: Mapping[str, NDArray[Any]], kind: str) -> dict[str, NDArray[Any]]:
    """The same weights in fewer bits.

    int8: a row's numbers are divided by its scale, its largest magnitude / 127, and rounded to whole numbers; scales
    (rows,) stand beside them, under the name with `.scale`. bf16: rounded to nearest. Biases stay as they are.

    Args:
        arrays: float32 weights by name.
        kind: "int8" or "bf16".

    Raises SettingError for another kind, or for weights that are quantized already.
    """
    if kind not in KINDS:
        raise SettingError(f"quantize is {kind!r}: it must be one of {', '.join(KINDS)}", "quantize")
    if found := kind_of(arrays):
        raise SettingError(f"the model is in {found} already: quantize the model that was trained")
    result = dict(arrays)
    for name, array in arrays.items():
        if array.ndim != 2:
            continue
        if kind == "bf16":
            rounded = to_bits(array)
            shortened = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
            # The largest numbers would round to infinity.
            result[name] = np.where((rounded & 0x7F80) == 0x7F80, shortened, rounded)
            continue
        scale = np.abs(array).max(axis=1, initial=0).astype(np.float32) / np.float32(LARGEST)
        scale[scale == 0] = 1
        result[name] = np.clip(np.rint(array / scale[:, None]), -LARGEST, LARGEST).astype(np.int8)
        result[name + SCALE] = scale
    return result


def kind_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    """How weights are stored: "int8", "bf16", or nothing for float32."""
    types = {array.dtype for array in arrays.values()}
    return "int8" if np.dtype(np.int8) in types else "bf16" if np.dtype(np.uint16) in types else ""


def as_float32(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    """Stored weights as float32."""
    array = arrays[name]
    if array.dtype == np.uint16:
        return to_floats(array)
    if array.dtype == np.int8:
        with np.errstate(over="ignore"):  # the caller looks at what comes of it
            scaled: NDArray[np.float32] = array * arrays[name + SCALE][:, None]
        return scaled
    return np.ascontiguousarray(array, np.float32)
