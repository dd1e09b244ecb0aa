"""Small models of records with random weights."""

from dataclasses import replace
from functools import cache

import numpy as np

from chargen.data.vocabulary import Vocabulary
from chargen.storage.model_file import ModelFile
from tests.small_models import small_model

LABELS = ("sea", "sun")
LETTERS = "abcdef "


@cache
def record_model(
    cell: str = "gru",
    unit: str = "character",
    labels: tuple[str, ...] = LABELS,
    letters: str = LETTERS,
    hidden_size: int = 12,
    scale: float = 2.0,
    end: float = 0.0,
) -> ModelFile:
    """A two-way model whose records have a handful of characters.

    Args:
        cell: "gru" or "lstm".
        unit: "character" or "byte".
        labels: of records.
        letters: its characters; in bytes the likely ones.
        hidden_size: of its only layer, in each direction.
        scale: of the weights of a new model.
        end: added to the logit of the end symbol.
    """
    characters = "" if unit == "byte" else "".join(sorted(letters))
    vocabulary = Vocabulary(characters, unit=unit, records=True, labels=labels)
    places = "".join(map(chr, range(0x4E00, 0x4E00 + len(vocabulary))))
    sizes = {"num_layers": 1, "hidden_size": hidden_size}
    file = small_model(cell, characters=places, scale=scale, bidirectional=True, **sizes)
    bias = file.arrays["output.bias"].copy()
    bias[vocabulary.end_id] += end
    if unit == "byte":
        bias[[*letters.encode()]] += 3
        bias[0xFF] += 4
    config = replace(file.config, begin_symbols=vocabulary.begin_symbols)
    return replace(file, config=config, vocabulary=vocabulary, arrays=file.arrays | {"output.bias": np.float32(bias)})
