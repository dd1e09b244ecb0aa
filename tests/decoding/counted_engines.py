"""Engines with counts to compare, and ids of the text that was counted."""

from functools import cache

import numpy as np
import pytest

from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.mixed_engine import MixedEngine
from chargen.decoding.numpy_engine import Engine, NumpyEngine, State
from chargen.storage.model_file import ModelFile
from tests.counting.test_ngram import random_ids
from tests.decoding.engines import CELLS, DIRECTIONS, ODD, STORED, model
from tests.small_models import with_counts

V = len(ODD)
TEXT = "".join(ODD[id_] for id_ in random_ids(0, 900, V, 0.8))
KINDS = (CELLS, STORED, DIRECTIONS)
all_kinds = pytest.mark.parametrize(
    ("cell", "stored", "direction"),
    [
        ("lstm", "float32", "forward"),
        ("gru", "int8", "backward"),
        ("lstm", "int8", "forward"),
        ("gru", "bf16", "backward"),
    ],
)


@cache
def counted(cell: str = "gru", stored: str = "float32", order: int = 5, hidden: int = 12) -> ModelFile:
    return with_counts(model(cell, 2, hidden, stored, 1.5), TEXT, order)


def pair(file: ModelFile, direction: str = "forward") -> tuple[Engine, Engine]:
    """The compiled engine and the reference."""
    mixture = file.mixtures[direction]
    plain = NumpyEngine(file.config, file.arrays, direction)
    return CompiledEngine(file.config, file.arrays, direction, mixture), MixedEngine(plain, mixture)


@cache
def both(cell: str, stored: str, direction: str, order: int = 5) -> tuple[Engine, Engine]:
    return pair(counted(cell, stored, order), direction)


def pieces(seed: int, rows: int, length: int, direction: str = "forward") -> np.ndarray:
    """Rows of ids from the text that was counted, some of them replaced."""
    random = np.random.default_rng(seed)
    ids = model("gru", 1, 12).vocabulary.encode(TEXT).astype(np.int64)[:: 1 if direction == "forward" else -1]
    starts = random.integers(0, len(ids) - length, rows)
    rows_of_ids = ids[starts[:, None] + np.arange(length)] if length else np.zeros((rows, 0), np.int64)
    return np.where(random.random((rows, length)) < 0.05, random.integers(0, V, (rows, length)), rows_of_ids)


def in_the_middle(state: State, seed: int, direction: str) -> State:
    """The same state, whose last ids are those of the text, or of its begin."""
    rows, length = state[0].shape
    context = pieces(seed, rows, length, direction).astype(np.float32)
    context[: rows // 2, : length // 2] = -1
    return (context, *state[1:])
