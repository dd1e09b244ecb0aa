"""Quantization of weights to bf16, or to int8 with a scale for each row. Biases stay float32."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import Arrays
from chargen.errors import SettingError
from chargen.kernels.bf16 import to_bits, to_floats

QUANTIZATIONS = ("int8", "bf16")
SCALE = ".scale"
"""Appended to the name of an int8 array: the name of its scales."""
MAX_INT8 = 127


def quantize(arrays: Mapping[str, NDArray[Any]], kind: str) -> Arrays:
    """Quantize a model's weights.

    int8: the numbers of a row are divided by the row's scale, which is its largest magnitude / 127, and rounded to
    whole numbers. bf16: numbers are rounded to the nearest. Biases stay as they are.

    Args:
        arrays: float32 weights by name.
        kind: "int8" or "bf16".

    Returns:
        The arrays by name: int8 matrices, with their scales (rows,) under the name with `.scale`; or bf16 matrices as
        bits in uint16.

    Raises:
        SettingError: `kind` is another one, or the weights are quantized already.
    """
    if kind not in QUANTIZATIONS:
        raise SettingError(f"quantize is {kind!r}: it must be one of {', '.join(QUANTIZATIONS)}", "quantize")
    if existing := quantization_of(arrays):
        raise SettingError(f"the model is in {existing} already: quantize the model that was trained")
    quantized = dict(arrays)
    for name, array in arrays.items():
        if array.ndim != 2:
            continue
        if kind == "bf16":
            rounded = to_bits(array)
            quantized[name] = rounded - ((rounded & 0x7F80) == 0x7F80)  # the largest numbers would become infinite
            continue
        scale = np.abs(array).max(axis=1, initial=0).astype(np.float32) / np.float32(MAX_INT8)
        scale[scale == 0] = 1
        quantized[name] = np.clip(np.rint(array / scale[:, None]), -MAX_INT8, MAX_INT8).astype(np.int8)
        quantized[name + SCALE] = scale
    return quantized


def quantization_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    """The quantization of a model's weights: "int8", "bf16", or "" for float32.

    Args:
        arrays: weights by name.
    """
    dtypes = {array.dtype for array in arrays.values()}
    return "int8" if np.dtype(np.int8) in dtypes else "bf16" if np.dtype(np.uint16) in dtypes else ""


def as_float32(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float32]:
    """Convert a stored weight to float32.

    Args:
        arrays: weights by name, quantized or not.
        name: the name of the weight.
    """
    array = arrays[name]
    if array.dtype == np.uint16:
        return to_floats(array)
    if array.dtype == np.int8:
        with np.errstate(over="ignore"):  # infinite weights show in the logits, which the caller checks
            weight: NDArray[np.float32] = array * arrays[name + SCALE][:, None]
        return weight
    return np.ascontiguousarray(array, np.float32)
