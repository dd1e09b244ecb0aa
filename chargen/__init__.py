"""chargen: learn a text, one character at a time, and write more of it.

A name is imported when it is first used, so that programs that need no torch never load it.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "errors": ("ArgumentError", "ChargenError"),
    "data.corpus": ("Corpus",),
    "data.corpus_config": ("CorpusConfig",),
    "data.vocabulary": ("Vocabulary",),
    "data.reading": ("clean",),
    "data.batches": ("ConsecutiveBatches", "RandomBatches"),
    "model.config": ("ModelConfig",),
    "model.language_model": ("CharModel",),
    "storage.model_file": ("ModelFile", "load_model", "read_model", "save_model"),
    "decoding.choose": ("SampleConfig",),
    "sampling.sampler": ("Sampler",),
    "infill.fill": ("Filler", "fill"),
    "api.compare": ("Comparison", "compare"),
    "api.corpus_info": ("CorpusInfo", "corpus_info"),
    "api.export": ("export",),
    "api.fill": ("fill_text",),
    "api.generate": ("generate",),
    "api.train": ("train", "Run"),
    "api.draft": ("Draft",),
    "api.writer": ("Writer",),
    "api.inspect": ("inspect",),
    "api.judge": ("evaluate",),
    "api.novelty": ("novelty",),
    "api.corpora": ("MadeCorpus", "get_corpus", "list_corpora", "make_corpus"),
    "data.named_corpora": ("NamedCorpus",),
    "api.score": ("score",),
    "api.records": ("score_records",),
    "api.activations": ("activations", "stream_activations"),
    "api.neurons": ("rank_neurons",),
    "exporting.torch_modules": ("to_torch",),
    "insight.neurons": ("Neuron", "Neurons"),
    "insight.gates": ("Saturation", "gate_saturation"),
    "insight.activations": ("Activations", "load_activations"),
    "counting.ngram": ("NGram",),
    "counting.novelty": ("Novelty",),
    "insight.steering": ("set_neurons",),
    "evaluation.causality": ("check", "check_causality"),
    "kernels.threads": ("set_threads",),
    "training.config": ("TrainConfig",),
    "training.trainer": ("Trainer",),
}
_MODULES = {name: f"chargen.{module}" for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_MODULES]  # noqa: PLE0604

if TYPE_CHECKING:
    from chargen.api.activations import activations, stream_activations
    from chargen.api.compare import Comparison, compare
    from chargen.api.corpora import MadeCorpus, get_corpus, list_corpora, make_corpus
    from chargen.api.corpus_info import CorpusInfo, corpus_info
    from chargen.api.draft import Draft
    from chargen.api.export import export
    from chargen.api.fill import fill_text
    from chargen.api.generate import generate
    from chargen.api.inspect import inspect
    from chargen.api.judge import evaluate
    from chargen.api.neurons import rank_neurons
    from chargen.api.novelty import novelty
    from chargen.api.records import score_records
    from chargen.api.score import score
    from chargen.api.train import Run, train
    from chargen.api.writer import Writer
    from chargen.counting.ngram import NGram
    from chargen.counting.novelty import Novelty
    from chargen.data.batches import ConsecutiveBatches, RandomBatches
    from chargen.data.corpus import Corpus
    from chargen.data.corpus_config import CorpusConfig
    from chargen.data.named_corpora import NamedCorpus
    from chargen.data.reading import clean
    from chargen.data.vocabulary import Vocabulary
    from chargen.decoding.choose import SampleConfig
    from chargen.errors import ArgumentError, ChargenError
    from chargen.evaluation.causality import check, check_causality
    from chargen.exporting.torch_modules import to_torch
    from chargen.infill.fill import Filler, fill
    from chargen.insight.activations import Activations, load_activations
    from chargen.insight.gates import Saturation, gate_saturation
    from chargen.insight.neurons import Neuron, Neurons
    from chargen.insight.steering import set_neurons
    from chargen.kernels.threads import set_threads
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
