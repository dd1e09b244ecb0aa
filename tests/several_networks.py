"""Runs of several networks: a text to learn, and whether two runs have left the same."""

from typing import Any

import numpy as np

from chargen.data.corpus import Corpus
from chargen.storage.model_file import ModelFile
from chargen.training.trainer import Trainer

TEXT = "the cat sat on the mat\nthe dog ate the hat\na cat is no dog\n" * 60


def corpus(text: str = TEXT, **options: Any) -> Corpus:
    """A text, a fifth of which is held out."""
    return Corpus.from_text(text, **{"valid_fraction": 0.2, **options})


def finish(trainer: Trainer) -> Trainer:
    """Train to the end of the budget."""
    for _ in trainer.run():
        pass
    return trainer


def have_same_weights(first: ModelFile, second: ModelFile) -> bool:
    """Whether all networks of two models are the same to the last bit."""
    return len(first.networks) == len(second.networks) and all(
        np.array_equal(own[name], others[name])
        for own, others in zip(first.networks, second.networks, strict=True)
        for name in own
    )
