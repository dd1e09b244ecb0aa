"""The model file, which holds everything: weights, settings, vocabulary, character counts, results of training."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import Arrays, check_array
from chargen.cache_folder import CHECKPOINTS
from chargen.counting.mixture import Mixture
from chargen.data.begin import is_begin_text
from chargen.data.reading_config import RAW, ReadingConfig
from chargen.data.vocabulary import Vocabulary
from chargen.errors import ArgumentError, ModelFileError, SettingError, amount, quote_backticks, repr_short, truncate
from chargen.model.config import MAX_NETWORKS, ModelConfig, parameter_count, parameter_shapes
from chargen.settings import make_settings
from chargen.storage import tensor_file
from chargen.storage.named_models import named_models
from chargen.storage.quantize import SCALE, as_float32, quantization_of
from chargen.storage.run_state import can_be_resumed
from chargen.storage.stored_mixtures import check_mixture, mixture_shapes, take_mixtures
from chargen.storage.stored_vocabulary import describe_vocabulary, read_vocabulary
from chargen.storage.weight_checks import as_weights
from chargen.suggestions import similar_path

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

AnyModel: TypeAlias = "ModelFile | CharModel | str | os.PathLike[str]"
"""A model in any form: what a file holds, a torch model, or the path of a model file or a run folder."""
FORMAT = 1
RECORDS_FORMAT = 2
"""Of a file whose vocabulary has an end symbol, which older versions cannot read."""
COUNTS_FORMAT = 3
"""Of a file that holds counts or several networks, which older versions cannot read."""
KIND = "model"
FILE_NAME = "model.safetensors"
MAX_CHARACTERS = tensor_file.MAX_HEADER - 50_000
"""Bytes of a header that the vocabulary and its counts may take."""


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What a model file holds, in NumPy.

    Args:
        config: the model's shape.
        vocabulary: the characters, or bytes, that ids stand for.
        arrays: weights by the names of `parameter_shapes`, float32 or quantized.
        counts: (V,), how often each id occurred in training; without a begin text, they give a text's first id.
        reading: how the training text was read, so that other texts are read alike.
        training: steps, losses, settings, and the names of the texts; no path, and seconds only where the budget was
            in minutes.
        sha256: the file's checksum; empty where there is no file yet.
        begin: the begin text, a line end, which a fresh state reads first, before a text or, backward, behind it;
            empty where the training text had no lines.
        mixtures: by direction, what the network's predictions are mixed with; empty where nothing was counted.
        members: the weights of other networks of this shape, whose predictions are averaged with those of the first.
    """

    config: ModelConfig
    vocabulary: Vocabulary
    arrays: Arrays
    counts: NDArray[np.int64]
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    begin: str = ""
    mixtures: dict[str, Mixture] = field(default_factory=dict)
    members: tuple[Arrays, ...] = ()

    def __repr__(self) -> str:
        config, training = self.config, self.training
        weights = quantization_of(self.arrays)
        parts = [
            *([amount(len(self.networks), "network")] if self.members else []),
            f"{config.cell.upper()} {config.num_layers} x {config.hidden_size}",
            *(["both ways"] if config.bidirectional else []),
            amount(len(self.vocabulary), self.vocabulary.unit),
            f"{self.parameters:,} parameters" + f" in {weights}" * bool(weights),
            *([f"counts of order {mixture.tree.order}"] if (mixture := self.mixtures.get("forward")) else []),
            # The training summary of a file may hold anything.
            *([f"step {training['step']:,}"] if isinstance(training.get("step"), int) else []),
            *([f"valid loss {loss:.4f} nats"] if isinstance(loss := training.get("valid_loss"), float) else []),
        ]
        return f"ModelFile({', '.join(parts)})"

    @property
    def networks(self) -> tuple[Arrays, ...]:
        """The weights of all networks."""
        return self.arrays, *self.members

    @property
    def parameters(self) -> int:
        """How many weights and biases all networks have."""
        return len(self.networks) * parameter_count(self.config, len(self.vocabulary))

    @property
    def teachers(self) -> int:
        """How many networks wrote texts from which this model has learned, too."""
        teachers = self.training.get("teachers")
        return teachers if type(teachers) is int and 0 < teachers <= MAX_NETWORKS else 0

    @property
    def network_alone(self) -> str:
        """What is told of those who use one network only; empty where the model is no more than that."""
        counts = ", without the counts beside it" * bool(self.mixtures)
        if self.members:
            return f"the first of {len(self.networks)} networks alone{counts}"
        return f"the network alone{counts}" if counts else ""

    def with_networks(self, networks: Iterable[Arrays]) -> "ModelFile":
        """The same model with other weights.

        Args:
            networks: the weights of all networks, one or more.
        """
        first, *members = networks
        return replace(self, arrays=first, members=tuple(members))

    @property
    def first_logits(self) -> NDArray[np.float64]:
        """The logits (V,) of an id of which nothing is known."""
        logits: NDArray[np.float64] = np.log(np.maximum(np.asarray(self.counts), 1e-9))
        return logits

    def describe(self) -> dict[str, Any]:
        """The file's description, without the checksum."""
        quantization = quantization_of(self.arrays)
        mixtures = {direction: mixture.tree.describe() for direction, mixture in self.mixtures.items()}
        return {
            "kind": KIND,
            "format": self.format,
            **({"quantize": quantization} if quantization == "int8" else {}),
            "config": {name: value for name, value in asdict(self.config).items() if name != "begin_symbols"},
            "vocabulary": describe_vocabulary(self.vocabulary),
            "counts": [int(count) for count in self.counts],
            "reading": {name: value for name, value in asdict(self.reading).items() if value is not None},
            "training": self.training,
            **({"begin": self.begin} if self.begin else {}),
            **({"mixtures": mixtures} if mixtures else {}),
            **({"networks": len(self.networks)} if self.members else {}),
        }

    @property
    def format(self) -> int:
        """The number of the format, which rises with what older versions cannot read."""
        return COUNTS_FORMAT if self.mixtures or self.members else RECORDS_FORMAT if self.vocabulary.records else FORMAT

    @property
    def all_arrays(self) -> Arrays:
        """Every array of a file, by name: the weights of all networks, and those of the mixtures."""
        named = {
            name + _suffix(number): array
            for number, arrays in enumerate(self.networks, 1)
            for name, array in arrays.items()
        }
        return named | {
            f"{direction}_{name}": array
            for direction, mixture in self.mixtures.items()
            for name, array in {**mixture.tree.arrays, "mixture": mixture.cells}.items()
        }


def _suffix(number: int) -> str:
    """What stands behind the names of a network's weights; nothing behind those of the first, as in a file of one."""
    return f":{number}" if number > 1 else ""


def save_model(path: str | os.PathLike[str], model: ModelFile) -> None:
    """Write a model file durably; equal models give identical files.

    Args:
        path: the file.
        model: what to write.

    Raises:
        WriteError: the disk refuses the file, or the path is a link to a file of another kind.
        SettingError: the description is too large for the file's header.
        ValueError: weights are not finite or not those of `model.config`, or counts, reading or begin text do not fit
            the vocabulary. The old file stays.
    """
    check_array("counts", model.counts, (len(model.vocabulary),), np.int64)
    quantization = quantization_of(model.arrays)
    if len(model.networks) > MAX_NETWORKS:
        raise ValueError(f"{amount(len(model.networks), 'network')}: a file holds up to {MAX_NETWORKS}")
    for arrays in model.networks:
        valid = isinstance(arrays, dict) and all(isinstance(array, np.ndarray) for array in arrays.values())
        shapes = {name: array.shape for name, array in arrays.items()} if valid else {}
        if not valid or shapes != _stored_shapes(model.config, model.vocabulary, quantization):
            raise ValueError("the weights' names and shapes are not those of the model's config")
        _check_weights(arrays, quantization)
    if model.vocabulary.raw != (model.reading.encoding == RAW):
        raise ValueError(f"its reading has encoding {model.reading.encoding}: raw goes with a vocabulary of raw bytes")
    if not is_begin_text(model.vocabulary, model.begin):
        raise ValueError(f"begin is {repr_short(model.begin)}: it is no short text of known characters")
    if not set(model.mixtures) <= set(model.config.directions):
        raise ValueError(f"mixtures are those of {', '.join(model.mixtures)}: the model reads otherwise")
    for mixture in model.mixtures.values():
        check_mixture(mixture, model.vocabulary)
    tensor_file.save(path, model.all_arrays, model.describe(), smaller=_advise_smaller(model.vocabulary))


def check_characters(vocabulary: Vocabulary, counts: NDArray[np.int64]) -> None:
    """Check that a model file's header has room for a vocabulary beside the settings and the training summary.

    Args:
        vocabulary: the vocabulary.
        counts: (V,), how often each id occurs.

    Raises:
        SettingError: the vocabulary is too large.
    """
    description = {"vocabulary": describe_vocabulary(vocabulary), "counts": [int(count) for count in counts]}
    if (size := tensor_file.header_size(description)) > MAX_CHARACTERS:
        limit = f"more than {MAX_CHARACTERS:,}; {_advise_smaller(vocabulary)}"
        raise SettingError(f"the characters take {amount(size, 'byte')} of a model file's header, {limit}")


def _advise_smaller(vocabulary: Vocabulary) -> str:
    return f'fold some of the {amount(len(vocabulary), "character")} with `min_count`, or train with `unit="byte"`'


def _stored_shapes(config: ModelConfig, vocabulary: Vocabulary, quantization: str) -> dict[str, tuple[int, ...]]:
    """The name and shape of every array of a model file."""
    shapes = parameter_shapes(config, len(vocabulary))
    if quantization == "int8":
        shapes |= {name + SCALE: shape[:1] for name, shape in shapes.items() if len(shape) == 2}
    return shapes


def _check_weights(arrays: Mapping[str, NDArray[Any]], quantization: str) -> None:
    """Check that every array has a type of this quantization and is finite; ValueError otherwise."""
    for name, array in arrays.items():
        is_int8 = quantization == "int8" and array.ndim == 2
        allowed = [np.int8] if is_int8 else [np.float32] if name.endswith(SCALE) else [np.float32, np.uint16]
        if array.dtype not in allowed:
            raise ValueError(f"{name} is {array.dtype}: weights are float32, bf16 bits in uint16, or int8 with scales")
        finite = (array & 0x7F80) != 0x7F80 if array.dtype == np.uint16 else np.isfinite(array)
        if not finite.all():
            raise ValueError(f"{name} holds numbers that are not finite: such a model is neither saved nor read")


def model_path(path: str | os.PathLike[str]) -> Path:
    """Find the model file that a path or a name stands for; a path that exists goes before a name.

    Args:
        path: a model file, a run folder, or the name of a model that comes with chargen, such as "shakespeare".

    Raises:
        SettingError: it is no path.
        ModelFileError: there is no model file.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise SettingError(f"path is {repr_short(path)}: it must be a path, a str or a Path", "path")
    file = Path(path)
    if os.path.isdir(file):
        file = file / FILE_NAME
        if not file.exists() and can_be_resumed(file.parent):
            raise ModelFileError(
                f"the run in {path} has no model yet: its first save writes one, so wait; resume it if it was stopped"
            )
        if not file.exists():
            raise ModelFileError(f"folder {path} holds no {FILE_NAME}; train one there with `out`")
    if not os.path.isfile(file):  # never raises, unlike Path.is_file
        name, models = os.fspath(path), named_models()
        if name in models and not os.path.lexists(file):
            return models[name]
        advice = similar_path(path, CHECKPOINTS, names=models) or "; training on a text makes one"
        raise ModelFileError(f"no model file or run folder {quote_backticks(truncate(path, 200))}{advice}")
    return file


def read_model(path: str | os.PathLike[str]) -> ModelFile:
    """Read and check a model file without torch. Nothing in the file is ever run.

    Args:
        path: a model file, a run folder, or the name of a model that comes with chargen.

    Raises:
        SettingError: it is no path.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
    """
    file = model_path(path)
    model: ModelFile

    def expected_shapes(description: dict[str, Any]) -> tensor_file.Shapes:
        nonlocal model
        model = _parse_description(description)
        quantization = description.get("quantize", "")
        if quantization not in ("", "int8"):
            raise ModelFileError(f"weights in {repr_short(quantization)} are not known to this version")
        number = description.get("networks", 1)
        if type(number) is not int or not 1 <= number <= MAX_NETWORKS:
            raise ModelFileError(f"{repr_short(number)} networks: a model file holds 1 to {MAX_NETWORKS}")
        shapes = {
            name + _suffix(network): shape
            for network in range(1, number + 1)
            for name, shape in _stored_shapes(model.config, model.vocabulary, quantization).items()
        }
        return shapes | mixture_shapes(description.get("mixtures", {}), model.config)

    arrays, description = tensor_file.load(file, KIND, expected_shapes)
    try:
        mixtures = take_mixtures(arrays, description.get("mixtures", {}), model.vocabulary)
        networks = [
            {name.removesuffix(_suffix(number)): arrays[name] for name in arrays if name.endswith(_suffix(number))}
            for number in range(2, description.get("networks", 1) + 1)
        ]
        networks.insert(0, {name: array for name, array in arrays.items() if ":" not in name})
        for own in networks:
            _check_weights(own, description.get("quantize", ""))
    except ValueError as error:
        raise ModelFileError(f"{file} is not a good model file: {error}") from error
    return replace(model, mixtures=mixtures, sha256=description["sha256"]).with_networks(networks)


def _parse_description(description: Mapping[str, Any]) -> ModelFile:
    """What a model file's description says of the model, without its arrays."""
    known = description["format"] if description["format"] in (RECORDS_FORMAT, COUNTS_FORMAT) else FORMAT
    tensor_file.check_format(description, known)
    config = make_settings(ModelConfig, description["config"])
    reading = make_settings(ReadingConfig, description["reading"])
    vocabulary = read_vocabulary(description["vocabulary"], raw=reading.encoding == RAW)
    has_more = bool(description.get("mixtures", {})) or description.get("networks", 1) != 1
    if known != (COUNTS_FORMAT if has_more else RECORDS_FORMAT if vocabulary.records else FORMAT):
        raise ModelFileError("its format number does not fit its vocabulary, its counts and its networks")
    config = replace(config, begin_symbols=vocabulary.begin_symbols)
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
    return ModelFile(config, vocabulary, {}, np.array(counts, np.int64), reading, training, begin=begin)


def as_model_file(
    model: AnyModel, vocabulary: Vocabulary | None = None, counts: NDArray[np.int64] | None = None
) -> ModelFile:
    """Convert any form of a model to a ModelFile.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        vocabulary: the vocabulary of a CharModel, which has none of its own.
        counts: (V,), how often each id of a CharModel occurs; without them all are taken to be equally frequent.

    Raises:
        SettingError: it is no model, or vocabulary or counts are missing, needless, or do not fit it.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
    """
    if isinstance(model, (str, os.PathLike)):
        model = read_model(model)
    if isinstance(model, ModelFile):
        if vocabulary is not None or counts is not None:
            raise SettingError("a model file has its own vocabulary and counts: give none")
        check_array("counts", model.counts, (len(model.vocabulary),), np.int64)
        return model
    from chargen.model.weights import weights_of

    check_char_model(model)
    size = model.vocabulary_size
    if not isinstance(vocabulary, Vocabulary) or len(vocabulary) != size:
        raise SettingError(f"give the vocabulary of this CharModel: it has {amount(size, 'id')}", "vocabulary")
    counts = np.ones(size, np.int64) if counts is None else np.asarray(counts)
    if model.config.begin_symbols != vocabulary.begin_symbols:
        begins = amount(model.config.begin_symbols, "begin symbol")
        raise SettingError(f"the CharModel has {begins}, the vocabulary {vocabulary.begin_symbols}: give its own")
    if counts.shape != (size,):
        raise SettingError(f"counts have shape {counts.shape}: the vocabulary has {amount(size, 'id')}")
    return ModelFile(model.config, vocabulary, weights_of(model), counts)


def check_char_model(model: Any) -> None:
    """Check that a value is a CharModel.

    Args:
        model: the value.

    Raises:
        SettingError: it is none.
    """
    from chargen.model.language_model import CharModel

    if not isinstance(model, CharModel):
        raise SettingError(
            f"model is {repr_short(model)}: it must be the path of a model file or a run folder, a model's name, "
            "what read_model returned, or a CharModel",
            "model",
        )


def load_model(path: str | os.PathLike[str], device: str = "cpu") -> "CharModel":
    """Read a model file and build the torch model.

    Args:
        path: a model file, a run folder, or the name of a model that comes with chargen.
        device: the device of the model, in torch's words.

    Raises:
        SettingError: it is no path, or this torch has no such device.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
    """
    return build_model(read_model(path), device)


def build_model(file: ModelFile, device: str = "cpu") -> "CharModel":
    """Build the torch model of a model file; of several networks the first.

    Args:
        file: what `read_model` returned.
        device: the device of the model, in torch's words.

    Raises:
        ArgumentError: the arrays are not the weights of the model.
        SettingError: this torch has no such device.
    """
    return new_model(file.config, len(file.vocabulary), file.arrays, device)


def build_networks(file: ModelFile, device: str = "cpu") -> list["CharModel"]:
    """Build the torch models of all networks of a model file.

    Args:
        file: what `read_model` returned.
        device: the device of the models, in torch's words.

    Raises:
        ArgumentError: the arrays are not the weights of such models.
        SettingError: this torch has no such device.
    """
    return [new_model(file.config, len(file.vocabulary), arrays, device) for arrays in file.networks]


def new_model(config: ModelConfig, vocabulary_size: int, arrays: Arrays, device: str) -> "CharModel":
    """Build a torch model with copies of weights, in float32.

    Args:
        config: the model's shape.
        vocabulary_size: V.
        arrays: weights by name, quantized or not.
        device: the device of the model, in torch's words.

    Raises:
        ArgumentError: the arrays are not the weights of such a model.
        SettingError: this torch has no such device.
    """
    import torch

    from chargen.model.language_model import CharModel
    from chargen.model.weights import set_weights

    arrays = as_weights(config, arrays)
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
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:  # unknown, or not in this torch
        raise SettingError(f"device is {repr_short(device)}: {truncate(error, 200)}", "device") from error
