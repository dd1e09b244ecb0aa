"""Write a model for other programs, in one call."""

import os
import pathlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from chargen.api.texts import Path
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError, SettingError, truncate
from chargen.exporting.folder import write_folder
from chargen.exporting.model_file import write_model_file
from chargen.exporting.onnx import write_onnx
from chargen.exporting.page import write_page_file
from chargen.settings import check_path
from chargen.storage.model_file import FILE_NAME, AnyModel, as_model_file, model_path

Writer = Callable[..., None]
FORMS: dict[str, tuple[str, Writer, tuple[str, ...]]] = {
    ".safetensors": ("model files", write_model_file, ("quantize", "no_counts")),
    ".onnx": ("ONNX files", write_onnx, ("direction",)),
    ".html": ("pages", write_page_file, ()),
    "/": ("folders", write_folder, ("quantize", "no_counts")),
}
"""By the ending of a name: what is so called, what writes it, and the settings that are for it."""


def holds_network_alone(path: pathlib.Path) -> bool:
    """Whether what was written holds one network only, without others or counts beside it.

    Args:
        path: as `export` returned it.
    """
    return not path.is_dir() and path.suffix.lower() in (".onnx", ".html")


def export(
    model: AnyModel,
    out: Path,
    *,
    quantize: str | None = None,
    direction: str | None = None,
    no_counts: bool = False,
    vocabulary: Vocabulary | None = None,
    counts: NDArray[np.int64] | None = None,
) -> pathlib.Path:
    """Write a model for other programs, in the form that the ending of a name says.

    `.safetensors` is a model file in fewer bits, or without counts. `.onnx` is an ONNX file, for any program that runs
    such: a graph that reads any number of ids, with the state before and after them. `.html` is a page, named as the
    file is, that writes in any browser. Both hold one network alone, without others and without counts. A folder, which
    has no ending or is there already, gets a model file, the vocabulary as a `tokenizers` file and a model card: ready
    for a hub or a release.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        out: the file or folder. An older one is replaced where chargen wrote it in the same form.
        quantize: "int8", with a scale for each row, or "bf16"; None leaves the weights as they are.
        direction: of an ONNX file: "forward", which is the default, "backward", or "both", which predicts each
            character of a text from both sides.
        no_counts: of a model file or a folder: whether to write the network alone, without the counts beside it.
        vocabulary: the vocabulary of a CharModel, which has none of its own.
        counts: (V,), how often each id of a CharModel occurs; without them all are taken to be equally frequent.

    Returns:
        The path of what is written.

    Raises:
        SettingError: an argument is wrong, or the ending says no form that is written, or a package is missing.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        DataError: `out` is the model itself, or something of another form.
        WriteError: the disk refuses it.
    """
    path = check_path("out", out)
    suffix = path.suffix or (path.name if path.name.lower() in FORMS else "")
    is_folder = os.path.isdir(path) or not suffix or os.fspath(out).endswith(("/", os.sep))
    ending = "/" if is_folder else suffix.lower()
    if ending not in FORMS:
        forms = ", ".join(f"{name} ({end})" for end, (name, _, _) in FORMS.items())
        raise SettingError(f"{truncate(path, 200)} has another ending than what export writes: {forms}")
    form, write, allowed = FORMS[ending]
    settings = {"quantize": quantize, "direction": direction, "no_counts": no_counts or None}
    settings = {name: value for name, value in settings.items() if value is not None}
    if others := settings.keys() - allowed:
        raise SettingError(f"`{min(others)}` is not for {form}, such as {truncate(path, 200)}; leave it out")
    file = as_model_file(model, vocabulary, counts)
    written = path / FILE_NAME if is_folder else path
    if isinstance(model, (str, os.PathLike)) and os.path.exists(written) and written.samefile(model_path(model)):
        raise DataError(f"{written} is the model itself; choose another name")
    write(path, file, **settings)
    return path
