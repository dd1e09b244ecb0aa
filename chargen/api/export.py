"""Write a model for other programs, in one call."""

import os
import pathlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from chargen.api.texts import Path
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError, SettingError, truncate
from chargen.exporting.model_file import write_model_file
from chargen.settings import check_path
from chargen.storage.model_file import AnyModel, ModelFile, as_model_file, model_path

Writer = Callable[[pathlib.Path, ModelFile, str | None], None]
FORMS: dict[str, tuple[str, Writer]] = {".safetensors": ("model files", write_model_file)}
"""What is written by the ending of its name: what such files are called, and what writes them."""


def export(
    model: AnyModel,
    out: Path,
    *,
    quantize: str | None = None,
    vocabulary: Vocabulary | None = None,
    counts: NDArray[np.int64] | None = None,
) -> pathlib.Path:
    """Write a model for other programs, in the form that the ending of a name says.

    `.safetensors` is a model file in fewer bits.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        out: the file. An older one is replaced where it is of the same form.
        quantize: "int8", with a scale for each row, or "bf16"; None leaves the weights as they are.
        vocabulary: the vocabulary of a CharModel, which has none of its own.
        counts: (V,), how often each id of a CharModel occurs; without them all are taken to be equally frequent.

    Returns:
        The path of what is written.

    Raises:
        SettingError: an argument is wrong, or the ending says no form that is written.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        DataError: `out` is the model itself, or something of another form.
        WriteError: the disk refuses it.
    """
    path = check_path("out", out)
    file = as_model_file(model, vocabulary, counts)
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file, such as {path / 'model.safetensors'}")
    if path.suffix.lower() not in FORMS:
        forms = ", ".join(f"{name} ({ending})" for ending, (name, _) in FORMS.items())
        raise SettingError(f"{truncate(path, 200)} has another ending than what export writes: {forms}")
    if isinstance(model, (str, os.PathLike)) and path.exists() and path.samefile(model_path(model)):
        raise DataError(f"{path} is the model itself; choose another name")
    _, write = FORMS[path.suffix.lower()]
    write(path, file, quantize)
    return path
