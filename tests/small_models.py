"""Small models with random weights."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chargen.counting.grow_tree import grow_tree
from chargen.counting.mixture import Mixture, everywhere
from chargen.data.borders import labels_before
from chargen.data.vocabulary import Vocabulary
from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.storage.model_file import ModelFile
from tests.trees import random_cells


def small_model(
    cell: str = "lstm",
    *,
    num_layers: int = 2,
    hidden_size: int = 12,
    characters: str = "abcdefgh \n",
    unit: str = "character",
    folded: str = "",
    seed: int = 0,
    scale: float = 3.0,
    bidirectional: bool = False,
    tie_weights: bool = False,
    cloze: float = 0.0,
) -> ModelFile:
    """A model with random weights, large enough that its predictions differ from character to character.

    Args:
        cell: "gru" or "lstm".
        num_layers: in each direction.
        hidden_size: of each layer.
        characters: of its vocabulary, whatever their order; ignored in bytes.
        unit: "character" or "byte".
        folded: characters that share the unknown symbol.
        seed: of the weights.
        scale: by which the first weights of a new model are multiplied.
        bidirectional: whether it reads both ways.
        tie_weights: whether embedding and output layer share a table.
        cloze: scale of random weights for the last of the cloze layer, which are zero in a new model.
    """
    vocabulary = Vocabulary(unit=unit) if unit == "byte" else Vocabulary("".join(sorted(characters)), folded=folded)
    config = ModelConfig(
        cell=cell,
        num_layers=num_layers,
        hidden_size=hidden_size,
        embedding_size=None if tie_weights else 8,
        tie_weights=tie_weights,
        bidirectional=bidirectional,
    )
    model = CharModel(config, len(vocabulary), seed)
    arrays = {name: weight.detach().numpy() * np.float32(scale) for name, weight in model.named_parameters()}
    for name in ("cloze.output.weight", "cloze.output.bias") if cloze else ():
        arrays[name] = (cloze * np.random.default_rng(1).normal(size=arrays[name].shape)).astype(np.float32)
    return ModelFile(config, vocabulary, arrays, np.arange(1, len(vocabulary) + 1))


def with_counts(
    file: ModelFile, text: str, order: int = 5, *, max_bytes: float = np.inf, weight: float | None = None
) -> ModelFile:
    """The same model with counts of a text beside each of its directions.

    Args:
        file: the model; its arrays are shared.
        text: what is counted, of characters that the model knows; of records, with their marks, from one on.
        order: one more than the ids of the longest contexts.
        max_bytes: of the tree of a direction.
        weight: of counts, everywhere; by default it differs from place to place, around 0.4. The network has the rest.
    """
    vocabulary = file.vocabulary
    ids = vocabulary.encode(text)
    mixtures = {}
    for number, direction in enumerate(file.config.directions):
        whole = ids if vocabulary.end_id is None else np.append(ids, ids.dtype.type(vocabulary.end_id))
        whole = whole if direction == "forward" else labels_before(whole, vocabulary.end_id)[::-1]
        tree = grow_tree(whole, len(vocabulary), order, max_bytes, end_id=vocabulary.end_id)
        cells = random_cells(number, order) if weight is None else everywhere(order, (1 - weight, weight))
        mixtures[direction] = Mixture(tree, cells)
    return replace(file, mixtures=mixtures)


def as_bf16(file: ModelFile) -> ModelFile:
    """The same model, its weights cut to bf16 and stored as bits."""
    bits = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in file.arrays.items()}
    return replace(file, arrays=bits)


def random_ids(rows: int, length: int, size: int) -> np.ndarray:
    """Ids (rows, length) below a size, always the same."""
    return np.random.default_rng(rows * 1000 + length).integers(0, size, (rows, length))


def count_ids_read(network: CharModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with how many ids each call lets a network read."""
    sizes: list[int] = []
    read = network.read

    def count_and_read(ids: Any, *rest: Any, **named: Any) -> Any:
        sizes.append(ids.numel())
        return read(ids, *rest, **named)

    monkeypatch.setattr(network, "read", count_and_read)
    return sizes
