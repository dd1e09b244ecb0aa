"""One model file holds everything: weights, settings, vocabulary, character counts, what training reached."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import check_array
from chargen.cache_folder import CHECKPOINTS
from chargen.data.begin import is_begin_text
from chargen.data.reading import RAW, ReadingConfig
from chargen.data.vocabulary import Vocabulary
from chargen.errors import ArgumentError, ModelFileError, SettingError, amount, repr_short, truncate
from chargen.model.config import ModelConfig, parameter_count, parameter_shapes
from chargen.settings import make_settings
from chargen.storage import tensor_file
from chargen.storage.fitting_weights import fitting_weights
from chargen.storage.quantize import SCALE, as_float32, kind_of
from chargen.storage.run_state import can_be_resumed
from chargen.suggestions import similar_path

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

FORMAT = 1
KIND = "model"
FILE_NAME = "model.safetensors"
ROOM = tensor_file.MAX_HEADER - 50_000
"""Bytes of a header that characters may take."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What a model file holds, in NumPy.

    Args:
        config: the model's shape.
        vocabulary: its characters.
        arrays: weights by name, as `parameter_shapes` says; float32, or as `quantize` makes them.
        counts: how often each id occurred in training, (V,): the first character of a text without a prime.
        reading: how its text was read, so that another text can be read alike.
        training: what training reached: steps, losses, settings, and the names of its texts; never a path, and how long
            it took only where its budget was in minutes.
        sha256: the file's checksum; empty where there is no file yet.
        begin: the begin text: a line end, which a fresh state reads first, forward and, as what stands behind a text,
            backward; empty where the training text had no lines.
    """

    config: ModelConfig
    vocabulary: Vocabulary
    arrays: dict[str, NDArray[Any]]
    counts: NDArray[np.int64]
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    begin: str = ""

    def __repr__(self) -> str:
        config, training = self.config, self.training
        kind = kind_of(self.arrays)
        parts = [
            f"{config.cell.upper()} {config.num_layers} x {config.hidden_size}",
            *(["both ways"] if config.bidirectional else []),
            amount(len(self.vocabulary), self.vocabulary.unit),
            f"{parameter_count(config, len(self.vocabulary)):,} parameters{f' in {kind}' if kind else ''}",
            # What a file says of its training may be anything.
            *([f"step {training['step']:,}"] if isinstance(training.get("step"), int) else []),
            *([f"valid loss {loss:.4f} nats"] if isinstance(loss := training.get("valid_loss"), float) else []),
        ]
        return f"ModelFile({', '.join(parts)})"

    def describe(self) -> dict[str, Any]:
        """The description as stored, without the checksum."""
        kind = kind_of(self.arrays)
        return {
            "kind": KIND,
            "format": FORMAT,
            **({"quantize": kind} if kind == "int8" else {}),
            "config": asdict(self.config),
            "vocabulary": self.vocabulary.describe(),
            "counts": [int(count) for count in self.counts],
            "reading": {name: value for name, value in asdict(self.reading).items() if value is not None},
            "training": self.training,
            **({"begin": self.begin} if self.begin else {}),
        }


def save_model(path: str | os.PathLike[str], model: ModelFile) -> None:
    """Write one model file, durably; two equal models give identical files.

    Raises ChargenError where the disk refuses; ValueError, and the old file stays, for weights that are not finite or
    not those of `model.config`, and for a begin text that the model does not know.
    """
    check_array("counts", model.counts, (len(model.vocabulary),), np.int64)
    arrays = isinstance(model.arrays, dict) and all(isinstance(array, np.ndarray) for array in model.arrays.values())
    shapes = {name: array.shape for name, array in model.arrays.items()} if arrays else {}
    if not arrays or shapes != _stored_shapes(model.config, model.vocabulary, kind_of(model.arrays)):
        raise ValueError("the weights' names and shapes are not those of the model's config")
    if model.vocabulary.raw != (model.reading.encoding == RAW):
        raise ValueError(f"its reading has encoding {model.reading.encoding}: raw goes with a vocabulary of raw bytes")
    _check_weights(model.arrays, kind_of(model.arrays))
    if not is_begin_text(model.vocabulary, model.begin):
        raise ValueError(f"begin is {repr_short(model.begin)}: it is no short text of known characters")
    tensor_file.save(path, model.arrays, model.describe(), smaller=_advice(model.vocabulary))


def check_characters(vocabulary: Vocabulary, counts: NDArray[np.int64]) -> None:
    """Raise SettingError where a model file has no room for a vocabulary, and for what training will tell of itself."""
    described = {"vocabulary": vocabulary.describe(), "counts": [int(count) for count in counts]}
    if (size := tensor_file.header_size(described)) > ROOM:
        more = f"more than {ROOM:,}; {_advice(vocabulary)}"
        raise SettingError(f"the characters take {amount(size, 'byte')} of a model file's header, {more}")


def _advice(vocabulary: Vocabulary) -> str:
    return f"fold some of the {amount(len(vocabulary), 'character')} with --min-count, or train with --unit byte"


def _stored_shapes(config: ModelConfig, vocabulary: Vocabulary, kind: str) -> dict[str, tuple[int, ...]]:
    shapes = parameter_shapes(config, len(vocabulary))
    if kind == "int8":
        shapes |= {name + SCALE: shape[:1] for name, shape in shapes.items() if len(shape) == 2}
    return shapes


def _check_weights(arrays: Mapping[str, NDArray[Any]], kind: str) -> None:
    """Raise ValueError where an array has a type that weights do not have in this form, or is not finite."""
    for name, array in arrays.items():
        whole = kind == "int8" and array.ndim == 2
        allowed = [np.int8] if whole else [np.float32] if name.endswith(SCALE) else [np.float32, np.uint16]
        if array.dtype not in allowed:
            raise ValueError(f"{name} is {array.dtype}: weights are float32, bf16 bits in uint16, or int8 with scales")
        finite = (array & 0x7F80) != 0x7F80 if array.dtype == np.uint16 else np.isfinite(array)
        if not finite.all():
            raise ValueError(f"{name} holds numbers that are not finite: such a model is neither saved nor read")


def model_path(path: str | os.PathLike[str]) -> Path:
    """The model file meant by a path: itself, or the one in a run folder. Raises ModelFileError where there is none."""
    if not isinstance(path, (str, os.PathLike)):
        raise SettingError(f"path is {repr_short(path)}: it must be a path, a str or a Path", "path")
    given = Path(path)
    if os.path.isdir(given):
        given = given / FILE_NAME
        if not given.exists() and can_be_resumed(given.parent):
            raise ModelFileError(
                f"the run in {path} has no model yet: its first save writes one, so wait; resume it if it was stopped"
            )
        if not given.exists():
            raise ModelFileError(f"folder {path} holds no {FILE_NAME}; train one with chargen train … --out {path}")
    if not os.path.isfile(given):  # never raises, unlike Path.is_file
        advice = similar_path(path, CHECKPOINTS) or "; chargen train makes one"
        raise ModelFileError(f"no model file or run folder {truncate(path, 200)}{advice}")
    return given


def read_model(path: str | os.PathLike[str]) -> ModelFile:
    """Read and check a model file (or a run folder's) in NumPy alone. Nothing in the file is ever run.

    Raises ModelFileError in one line for anything that is not a whole and consistent model file.
    """
    file = model_path(path)
    parsed: dict[str, Any] = {}

    def expected(description: dict[str, Any]) -> tensor_file.Shapes:
        parsed.update(_parse(description))
        kind = description.get("quantize", "")
        if kind not in ("", "int8"):
            raise ModelFileError(f"weights in {repr_short(kind)} are not known to this version")
        return _stored_shapes(parsed["config"], parsed["vocabulary"], kind)

    arrays, description = tensor_file.load(file, KIND, expected)
    try:
        _check_weights(arrays, description.get("quantize", ""))
    except ValueError as error:
        raise ModelFileError(f"{file} is not a good model file: {error}") from error
    return ModelFile(arrays=arrays, sha256=description["sha256"], **parsed)


def _parse(description: Mapping[str, Any]) -> dict[str, Any]:
    tensor_file.check_format(description, FORMAT)
    config = make_settings(ModelConfig, description["config"])
    reading = make_settings(ReadingConfig, description["reading"])
    vocabulary = Vocabulary.from_description(description["vocabulary"], raw=reading.encoding == RAW)
    counts = description["counts"]
    if not isinstance(counts, list) or len(counts) != len(vocabulary):
        raise ModelFileError(f"its character counts do not fit its {amount(len(vocabulary), 'character')}")
    if not all(type(count) is int and count >= 0 for count in counts) or not 0 < sum(counts) < 2**63:
        raise ModelFileError("its character counts are not counts")
    training = description["training"]
    if not isinstance(training, dict):
        raise ModelFileError("its training summary is not a table")
    begin = description.get("begin", "")
    if not is_begin_text(vocabulary, begin):
        raise ModelFileError("its begin text is no short text of its own characters")
    return {
        "config": config,
        "vocabulary": vocabulary,
        "counts": np.array(counts, np.int64),
        "reading": reading,
        "training": training,
        "begin": begin,
    }


def as_model_file(
    model: "ModelFile | CharModel | str | os.PathLike[str]",
    vocabulary: Vocabulary | None = None,
    counts: NDArray[np.int64] | None = None,
) -> ModelFile:
    """A model as `read_model` returns it, however it is given.

    Args:
        model: the path of a model file or a run folder, what `read_model` returned, or a CharModel.
        vocabulary, counts: of a CharModel, which has none; all characters are as frequent where counts are left out.

    Raises SettingError for anything else, or where a vocabulary is missing or needless; ModelFileError as `read_model`.
    """
    if isinstance(model, (str, os.PathLike)):
        model = read_model(model)
    if isinstance(model, ModelFile):
        if vocabulary is not None or counts is not None:
            raise SettingError("a model file has its own vocabulary and counts: give none")
        check_array("counts", model.counts, (len(model.vocabulary),), np.int64)
        return model
    from chargen.model.weights import weights_of

    vocabulary = vocabulary_of(model, vocabulary)
    size = len(vocabulary)
    counts = np.ones(size, np.int64) if counts is None else np.asarray(counts)
    if counts.shape != (size,):
        raise SettingError(f"counts have shape {counts.shape}: the vocabulary has {amount(size, 'id')}")
    return ModelFile(model.config, vocabulary, weights_of(model), counts)


def check_char_model(model: Any) -> None:
    """Raise SettingError for what is no model."""
    from chargen.model.language_model import CharModel

    if not isinstance(model, CharModel):
        raise SettingError(
            f"model is {repr_short(model)}: it must be the path of a model file or a run folder, what read_model "
            "returned, or a CharModel",
            "model",
        )


def vocabulary_of(model: "CharModel", vocabulary: Vocabulary | None) -> Vocabulary:
    """The vocabulary given with a CharModel. Raises SettingError where it does not fit, or that is no model."""
    check_char_model(model)
    if not isinstance(vocabulary, Vocabulary) or len(vocabulary) != model.vocabulary_size:
        raise SettingError(
            f"give the vocabulary of this CharModel: it has {amount(model.vocabulary_size, 'id')}", "vocabulary"
        )
    return vocabulary


def load_model(path: str | os.PathLike[str], device: str = "cpu") -> "CharModel":
    """Read a model file and build the torch model, on `device`. Raises as `read_model`."""
    return build_model(read_model(path), device)


def build_model(file: ModelFile, device: str = "cpu") -> "CharModel":
    """The torch model of what `read_model` returned."""
    return new_model(file.config, len(file.vocabulary), file.arrays, device)


def new_model(config: ModelConfig, vocabulary_size: int, arrays: dict[str, NDArray[Any]], device: str) -> "CharModel":
    """A torch model with these weights, copied, in float32. Raises ArgumentError where they are not such a
    model's, SettingError for a device that is not there.
    """
    import torch

    from chargen.model.language_model import CharModel
    from chargen.model.weights import set_weights

    arrays = fitting_weights(config, arrays)
    if len(arrays["output.bias"]) != vocabulary_size:
        raise ArgumentError(
            f"weights of a model of {amount(len(arrays['output.bias']), 'id')}: the vocabulary has {vocabulary_size}"
        )
    model = CharModel(config, vocabulary_size)
    set_weights(model, {name: as_float32(arrays, name) for name, _ in model.named_parameters()})
    try:
        return model.to(torch.device(device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:  # none such, or not in this torch
        raise SettingError(f"device is {repr_short(device)}: {truncate(error, 200)}", "device") from error
