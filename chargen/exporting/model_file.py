"""A model file in fewer bits."""

import os
from dataclasses import replace
from pathlib import Path

from chargen.errors import DataError, SettingError
from chargen.storage.model_file import KIND, ModelFile, save_model
from chargen.storage.quantize import QUANTIZATIONS
from chargen.storage.quantize import quantize as quantize_weights
from chargen.storage.tensor_file import is_kind


def write_model_file(path: Path, file: ModelFile, quantize: str | None = None) -> None:
    """Write a model file, its weights in fewer bits.

    Args:
        path: the file; an older one is replaced where it is a model file.
        file: the model.
        quantize: "int8" or "bf16".

    Raises:
        SettingError: `quantize` is missing or another one, or the model is quantized already.
        DataError: there is a file that is no model file.
        WriteError: the disk refuses the file.
    """
    if quantize is None:
        choices = " or ".join(QUANTIZATIONS)
        raise SettingError(f"{path} would be a copy of the model: give `quantize`, {choices}, or copy the file")
    file = replace(file, arrays=quantize_weights(file.arrays, quantize))
    if os.path.exists(path) and not is_kind(path, KIND):
        raise DataError(f"{path} is not a model file and is not overwritten; choose another name")
    save_model(path, file)
