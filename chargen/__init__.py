"""chargen: learn a text, one character at a time, and write more of it.

A name is imported when it is first used, so that programs that need no torch never load it.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = {
    "ArgumentError": "chargen.errors",
    "ChargenError": "chargen.errors",
    "Corpus": "chargen.data.corpus",
    "CorpusConfig": "chargen.data.corpus",
    "Vocabulary": "chargen.data.vocabulary",
    "clean": "chargen.data.reading",
    "ConsecutiveBatches": "chargen.data.batches",
    "RandomBatches": "chargen.data.batches",
    "ModelConfig": "chargen.model.config",
    "CharModel": "chargen.model.language_model",
    "ModelFile": "chargen.storage.model_file",
    "load_model": "chargen.storage.model_file",
    "read_model": "chargen.storage.model_file",
    "save_model": "chargen.storage.model_file",
    "SampleConfig": "chargen.decoding.choose",
    "Sampler": "chargen.sampling.sampler",
    "Filler": "chargen.infill.fill",
    "fill": "chargen.infill.fill",
    "fill_text": "chargen.api.fill",
    "generate": "chargen.api.generate",
    "train": "chargen.api.train",
    "Run": "chargen.api.train",
    "score": "chargen.api.judge",
    "check": "chargen.evaluation.causality",
    "check_causality": "chargen.evaluation.causality",
    "TrainConfig": "chargen.training.config",
    "Trainer": "chargen.training.trainer",
    "evaluate": "chargen.api.judge",
}
__all__ = ["__version__", *_MODULES]  # noqa: PLE0604

if TYPE_CHECKING:
    from chargen.api.fill import fill_text
    from chargen.api.generate import generate
    from chargen.api.judge import evaluate, score
    from chargen.api.train import Run, train
    from chargen.data.batches import ConsecutiveBatches, RandomBatches
    from chargen.data.corpus import Corpus, CorpusConfig
    from chargen.data.reading import clean
    from chargen.data.vocabulary import Vocabulary
    from chargen.decoding.choose import SampleConfig
    from chargen.errors import ArgumentError, ChargenError
    from chargen.evaluation.causality import check, check_causality
    from chargen.infill.fill import Filler, fill
    from chargen.model.config import ModelConfig
    from chargen.model.language_model import CharModel
    from chargen.sampling.sampler import Sampler
    from chargen.storage.model_file import ModelFile, load_model, read_model, save_model
    from chargen.training.config import TrainConfig
    from chargen.training.trainer import Trainer


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'chargen' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
