"""chargen: learn a text, one character at a time, and write more of it.

Names are imported when they are first used, so that what needs no torch never loads it.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "ArgumentError": "chargen.errors",
    "ChargenError": "chargen.errors",
    "Corpus": "chargen.text.corpus",
    "CorpusConfig": "chargen.text.corpus",
    "Vocabulary": "chargen.text.vocabulary",
    "clean": "chargen.text.reading",
    "ConsecutiveBatches": "chargen.batches",
    "RandomBatches": "chargen.batches",
    "ModelConfig": "chargen.model.config",
    "CharModel": "chargen.model.language_model",
    "ModelFile": "chargen.storage.model_file",
    "load_model": "chargen.storage.model_file",
    "read_model": "chargen.storage.model_file",
    "save_model": "chargen.storage.model_file",
    "SampleConfig": "chargen.sampling.choose",
    "Sampler": "chargen.sampling.sampler",
    "Filler": "chargen.sampling.fill",
    "fill": "chargen.sampling.fill",
    "score": "chargen.insight.score",
    "check": "chargen.insight.causality",
    "check_causality": "chargen.insight.causality",
    "TrainConfig": "chargen.training.config",
    "Trainer": "chargen.training.trainer",
    "evaluate": "chargen.training.evaluate",
}
__all__ = ["__version__", *_WHERE]  # noqa: PLE0604

if TYPE_CHECKING:
    from chargen.batches import ConsecutiveBatches, RandomBatches
    from chargen.errors import ArgumentError, ChargenError
    from chargen.insight.causality import check, check_causality
    from chargen.insight.score import score
    from chargen.model.config import ModelConfig
    from chargen.model.language_model import CharModel
    from chargen.sampling.choose import SampleConfig
    from chargen.sampling.fill import Filler, fill
    from chargen.sampling.sampler import Sampler
    from chargen.storage.model_file import ModelFile, load_model, read_model, save_model
    from chargen.text.corpus import Corpus, CorpusConfig
    from chargen.text.reading import clean
    from chargen.text.vocabulary import Vocabulary
    from chargen.training.config import TrainConfig
    from chargen.training.evaluate import evaluate
    from chargen.training.trainer import Trainer


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'chargen' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
