"""A model file in fewer bits."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from chargen.errors import DataError, SettingError
from chargen.model.config import DIRECTIONS
from chargen.storage.model_file import KIND, ModelFile, save_model
from chargen.storage.quantize import QUANTIZATIONS
from chargen.storage.quantize import quantize as quantize_weights
from chargen.storage.tensor_file import is_kind


def write_model_file(path: Path, file: ModelFile, quantize: str | None = None, no_counts: bool = False) -> None:
    """Write a model file, its weights in fewer bits or without its counts.

    Args:
        path: the file; an older one is replaced where it is a model file.
        file: the model.
        quantize: "int8" or "bf16"; None leaves the weights as they are.
        no_counts: whether to leave the counts out.

    Raises:
        SettingError: `quantize` is another one, or the model is quantized already; or nothing would change.
        DataError: there is a file that is no model file.
        WriteError: the disk refuses the file.
    """
    smaller = shrink(file, quantize, no_counts)
    if smaller is file:
        choices = " or ".join(QUANTIZATIONS)
        raise SettingError(f"{path} would be a copy of the model: give `quantize`, {choices}, or copy the file")
    if os.path.exists(path) and not is_kind(path, KIND):
        raise DataError(f"{path} is not a model file and is not overwritten; choose another name")
    save_model(path, smaller)


def shrink(file: ModelFile, quantize: str | None, no_counts: bool) -> ModelFile:
    """A model in fewer bytes.

    Args:
        file: the model.
        quantize: "int8" or "bf16"; None leaves the weights as they are.
        no_counts: whether to leave the counts out.

    Returns:
        The model; the same object where nothing changes.

    Raises:
        SettingError: `quantize` is another one, or the model is quantized already; or it has no counts to leave out.
    """
    if no_counts and not file.mixtures:
        raise SettingError("this model has no counts: leave `no_counts` out", "no_counts")
    if no_counts:
        file = replace(file, mixtures={}, training=_figures_without_counts(file.training))
    return file if quantize is None else file.with_networks(quantize_weights(each, quantize) for each in file.networks)


def _figures_without_counts(training: dict[str, Any]) -> dict[str, Any]:
    """What a training tells of the network alone; of each direction it has told losses with counts only."""
    figures = dict(training)
    for part in ("valid", "test"):
        if f"{part}_loss_network" in figures:
            figures[f"{part}_loss"] = figures.pop(f"{part}_loss_network")
            for direction in DIRECTIONS:
                figures.pop(f"{part}_loss_{direction}", None)
    return figures
