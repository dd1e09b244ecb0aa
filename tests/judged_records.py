"""Small models of records with random weights, and texts of records to judge with them."""

from dataclasses import replace

import numpy as np

from chargen.data.reading_config import ReadingConfig
from chargen.data.vocabulary import Vocabulary
from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.storage.model_file import ModelFile

LETTERS = "abcdefgh "


def record_model(
    cell: str = "lstm",
    *,
    labels: tuple[str, ...] = (),
    unit: str = "character",
    characters: str = LETTERS,
    folded: str = "",
    bidirectional: bool = False,
    records: str = "line",
    scale: float = 1.5,
) -> ModelFile:
    """A model of records, large enough that its predictions differ from character to character.

    Args:
        cell: "gru" or "lstm".
        labels: of its records.
        unit: "character" or "byte".
        characters: of its vocabulary; ignored in bytes.
        folded: characters that share the unknown symbol.
        bidirectional: whether it reads both ways.
        records: what a record is.
        scale: by which the first weights of a new model are multiplied.
    """
    if unit == "byte":
        vocabulary = Vocabulary(unit=unit, records=True, labels=labels)
    else:
        vocabulary = Vocabulary("".join(sorted(characters)), folded=folded, records=True, labels=labels)
    config = ModelConfig(cell=cell, num_layers=2, hidden_size=12, embedding_size=8, bidirectional=bidirectional)
    config = replace(config, begin_symbols=vocabulary.begin_symbols)
    network = CharModel(config, len(vocabulary), seed=0)
    arrays = {name: weight.detach().numpy() * np.float32(scale) for name, weight in network.named_parameters()}
    reading = ReadingConfig(records=records, label_from="file" if labels else None)
    return ModelFile(config, vocabulary, arrays, np.arange(1, len(vocabulary) + 1), reading)


def random_records(count: int, letters: str = LETTERS, seed: int = 0, longest: int = 12) -> list[str]:
    """Texts of one character and more, always the same."""
    draws = np.random.default_rng(seed)
    return ["".join(draws.choice(list(letters), draws.integers(1, longest + 1))) for _ in range(count)]
