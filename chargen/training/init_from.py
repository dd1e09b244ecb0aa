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
    """The weights of `file`, with rows of `fresh` for new characters; their output biases are the least there is.

    Args:
        file: the model to start from.
        config: of the new model.
        vocabulary: of the new model; it knows at least what the old one knew.
        fresh: untrained weights of the new model.

    Raises:
        SettingError: where the shapes differ or a character would be lost.
    """
    _check_shape(file, config)
    before, size = file.vocabulary, len(file.vocabulary)
    if before.unit != vocabulary.unit:
        raise SettingError(f"unit is {vocabulary.unit!r}, but the model to start from reads {before.unit}s", "unit")
    places = np.arange(size)
    if before.unit == "character":
        if not set(before.characters) <= set(vocabulary.characters) or (before.folded and not vocabulary.folded):
            raise SettingError("the corpus was made without the vocabulary of the model to start from: give known=")
        if before.characters:
            places[: len(before.characters)] = vocabulary.encode(before.characters)
        if before.folded:
            places[-1] = len(vocabulary) - 1
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
