"""A small model that fills gaps, and ways to compare what it finds."""

from functools import cache
from typing import Any

import numpy as np

from chargen.decoding.numpy_engine import NumpyEngine
from chargen.infill.fill import Alternative, Fill
from chargen.infill.prefixes import Prefixes
from chargen.storage.model_file import ModelFile
from tests.small_models import small_model

ALL = 1_000_000
"""As many alternatives as there are."""
LETTERS = " abcd"


@cache
def model(cell: str = "lstm", unit: str = "character", *, num_layers: int = 1, scale: float = 1.5) -> ModelFile:
    """A small two-way model whose cloze layer has random weights, so that its proposals are wrong."""
    file = small_model(
        cell,
        num_layers=num_layers,
        hidden_size=8,
        characters=LETTERS,
        unit=unit,
        scale=scale,
        seed=3,
        bidirectional=True,
        cloze=0.4,
    )
    if unit == "byte":
        file.arrays["output.bias"][list(b"A\xc3\xe2\xf0\x82\x98\xa9\xac")] += 3  # characters of one to four bytes
    return file


def table(filled: Fill) -> dict[str, Alternative]:
    assert len({alternative.text for alternative in filled.alternatives}) == len(filled.alternatives)
    return {alternative.text: alternative for alternative in filled.alternatives}


CONFIGS: list[dict[str, Any]] = [
    {},
    {"ban": "bd"},
    {"top_k": 3},
    {"top_p": 0.8, "min_p": 0.02},
    {"stop": ("a", "cd")},
    {"no_repeat": 2},
    {"no_repeat": 1, "ban": "z", "top_k": 4},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 4},
    {"temperature": 0.5, "top_p": 0.7},
    {"temperature": 0.7, "stop": ("b",), "ban": "c", "no_repeat": 3},
]


def root_of(file: ModelFile, before: str) -> Prefixes:
    """The empty prefix behind a text, by hand."""
    engine = NumpyEngine(file.config, file.arrays)
    logits, state = np.log(file.counts)[None], engine.start(1)
    for read_id in file.vocabulary.encode(before):
        logits, state = engine.step(np.array([read_id]), state)
    return Prefixes([""], [b""], np.zeros(1), logits, state)
