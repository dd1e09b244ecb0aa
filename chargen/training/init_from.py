"""What a model takes over from one that was trained before, on a text with other characters."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.vocabulary import Vocabulary
from chargen.errors import SettingError, amount
from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.model.weights import Arrays, weights_of
from chargen.storage.model_file import ModelFile, build_model

BY_CHARACTER = ("embedding.weight", "output.weight", "output.bias", "cloze.output.weight", "cloze.output.bias")
"""Arrays with a row for each id."""


@dataclass(frozen=True)
class StartWeights:
    """A model's first weights.

    Args:
        weights: every array, by name.
        known: how many ids are taken over.
        new: characters that it meets for the first time.
    """

    weights: Arrays
    known: int
    new: str


def init_from(file: ModelFile, config: ModelConfig, vocabulary: Vocabulary, fresh: Arrays) -> StartWeights:
    """The weights of `file`, with rows of `fresh` for new ids; output biases of new characters are the least there is.

    Args:
        file: the model to start from.
        config: of the new model.
        vocabulary: of the new model; it knows at least what the old one knew.
        fresh: untrained weights of the new model.

    Raises:
        SettingError: where the shapes differ, or a character or the records would be lost.
    """
    _check_shape(file, config)
    before, size = file.vocabulary, len(file.vocabulary)
    if before.unit != vocabulary.unit:
        raise SettingError(f"unit is {vocabulary.unit!r}, but the model to start from reads {before.unit}s", "unit")
    if before.records and not vocabulary.records:
        raise SettingError("the model to start from learned records: say by `records` what they are here", "records")
    names = {name: place for place, name in enumerate(vocabulary.names())}
    if not set(before.names()) <= names.keys():
        raise SettingError("the corpus was made without the vocabulary of the model to start from: give known=")
    places = np.array([names[name] for name in before.names()], np.intp)
    old = weights_of(build_model(file))
    rows = {name: _copy_rows(old[name], fresh[name], places) for name in BY_CHARACTER if name in old}
    new = set(vocabulary.characters) - set(before.characters) if before.unit == "character" else ()
    return StartWeights(old | rows, size, "".join(sorted(new)))


def freeze(model: CharModel, layers: int) -> None:
    """Let the lowest recurrent layers of each stack stay as they are.

    Args:
        model: is changed.
        layers: how many.

    Raises:
        SettingError: where the model has fewer.
    """
    if layers > model.config.num_layers:
        raise SettingError(
            f"freeze is {layers}, but the model has {amount(model.config.num_layers, 'recurrent layer')}", "freeze"
        )
    for direction in model.config.directions:
        for layer in model.stack(direction)[:layers]:
            layer.requires_grad_(False)


def _check_shape(file: ModelFile, config: ModelConfig) -> None:
    """Raise SettingError where a model of this shape cannot start from the file's weights."""
    for name in ("cell", "num_layers", "hidden_size", "embedding_size", "tie_weights", "bidirectional"):
        read = "input_size" if name == "embedding_size" else name  # which it may leave open
        asked, there = getattr(config, read), getattr(file.config, read)
        if asked != there:
            raise SettingError(
                f"{name} is {asked!r}, but the model to start from has {there!r}: leave it out, or train from nothing",
                name,
            )


def _copy_rows(old: NDArray[Any], fresh: NDArray[Any], places: NDArray[np.intp]) -> NDArray[Any]:
    weights = fresh.copy()
    if fresh.ndim == 1:
        weights[:] = old.min()
    weights[places] = old
    return weights
