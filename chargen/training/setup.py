"""Puts a run together from its settings: a new one, or one that was saved."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from chargen.data.batches import make_batches
from chargen.data.corpus import Corpus
from chargen.durable import make_folder, remove_leftovers
from chargen.errors import SettingError, amount, repr_short
from chargen.model.config import ModelConfig, parameter_shapes
from chargen.model.device import pick_device, pick_precision
from chargen.model.language_model import CharModel
from chargen.model.loss import cross_entropy
from chargen.model.weights import set_weights, weights_of
from chargen.storage.model_file import ModelFile, check_characters
from chargen.storage.run_state import read_run_state
from chargen.training.budget import Budget
from chargen.training.checkpoint import Checkpointer
from chargen.training.cloze_task import ClozeTask
from chargen.training.config import TrainConfig, changed_config
from chargen.training.counters import Counters
from chargen.training.cuda_graph import CapturedStep
from chargen.training.init_from import freeze, init_from
from chargen.training.metrics import Metrics
from chargen.training.run_folder import check_free, recover
from chargen.training.train_log import TrainLog
from chargen.training.train_step import LossFunction, StepReport, TrainState, TrainStep, adamw
from chargen.training.validator import SUBSET, Validator, scored_sizes

MAX_PENDING = 16
"""Steps that a GPU is given before the host asks how they went."""
MakeOptimizer = Callable[[CharModel, TrainConfig], torch.optim.Optimizer]


def _check_type(name: str, value: Any, kind: type, optional: bool = True) -> None:
    if not isinstance(value, kind) and not (optional and value is None):
        raise SettingError(f"{name} is of type {type(value).__name__}: it must be a {kind.__name__}", name)


@dataclass(frozen=True, eq=False)
class OwnParts:
    """What somebody may give in place of chargen's own.

    Args:
        model: a network; None for a new one.
        optimizer: makes the optimizer.
        loss: of one direction.

    Raises:
        SettingError: where one is of another kind.
    """

    model: CharModel | None = None
    optimizer: MakeOptimizer = adamw
    loss: LossFunction = cross_entropy

    def __post_init__(self) -> None:
        _check_type("model", self.model, CharModel)
        functions: dict[str, Any] = {"optimizer": self.optimizer, "loss": self.loss}
        for name, function in functions.items():
            if not callable(function) or isinstance(function, type):
                raise SettingError(f"{name} is {repr_short(function)}: it must be a function", name)

    def names(self) -> list[str]:
        """Those that are not chargen's own."""
        own = {"model": self.model and type(self.model) is not CharModel, "optimizer": self.optimizer is not adamw}
        own["loss"] = self.loss is not cross_entropy
        return [name for name, given in own.items() if given]


class RunParts:
    """The parts of a run, put together from its settings.

    Args:
        corpus: what is learned.
        model_config: the model's shape.
        config: the budget and the method.
        out: the run folder, or None.
        counters: what is counted.
        started: `time.monotonic()` when the clock of this process began; now, by default.
        own: what is not chargen's own.
    """

    def __init__(
        self,
        corpus: Corpus,
        model_config: ModelConfig,
        config: TrainConfig,
        out: Path | None,
        counters: Counters,
        started: float | None = None,
        own: OwnParts = OwnParts(),
    ) -> None:
        self.corpus, self.model_config, self.config = corpus, model_config, config
        self.out, self.counters = out, counters
        self.device = pick_device(config.device)
        self.precision = pick_precision(config.precision, self.device)
        # Other optimizers need not know what a captured step asks of them.
        on_gpu = self.device.type == "cuda" and own.optimizer is adamw
        self.max_pending = MAX_PENDING if on_gpu else 1
        """Steps that may be under way at once."""
        size = config.batch_size, config.seq_length, config.seed
        self.batches = make_batches(corpus.train, model_config.directions, config.batching, *size)
        """Of each direction; a function of the step."""
        cloze = ClozeTask(corpus.train, config) if model_config.bidirectional else None
        model = (own.model or CharModel(model_config, len(corpus.vocabulary), config.seed)).to(self.device)
        freeze(model, config.freeze)
        self.state = TrainState(model, own.optimizer(model, config))
        """What a step changes."""
        if not hasattr(self.state.optimizer, "param_groups"):
            kind = type(self.state.optimizer).__name__
            raise SettingError(f"optimizer makes a {kind}: it must make an optimizer", "optimizer")
        step = TrainStep(config, self.precision, cloze, own.loss, on_device=on_gpu)
        self.train_step: TrainStep | CapturedStep = CapturedStep(step, self.device) if on_gpu else step
        sizes, started = scored_sizes(corpus), time.monotonic() if started is None else started
        subset = min(SUBSET, sizes[0])
        self.budget = Budget(config, self.batches["forward"], counters, started, sizes, subset, self.max_pending)
        self.validator = Validator(corpus, config, self.precision, self.budget, counters)
        if out:
            make_folder(out)
            remove_leftovers(out)
        metrics = Metrics(out, counters.metrics_bytes)
        self.log = TrainLog(corpus.vocabulary, model_config.directions, self.budget, metrics)
        self.checkpointer = Checkpointer(out, corpus, model_config, self.precision, self.budget, metrics)
        self.checkpointer.own_parts = own.names()
        self.pending: list[StepReport] = []
        """Of steps that are made but not counted."""
        self.summary: dict[str, Any] = {}
        """At the end of the run: what the model file says of it."""
        self.best_model: ModelFile | None = None
        """At the end of the run."""

    def _restore(self, folder: Path, corpus: Corpus | None, changes: dict[str, Any], started: float | None) -> None:
        """Read a saved run and build its parts as they were, with changed settings."""
        recover(folder)
        stored = read_run_state(folder)
        config = changed_config(stored.settings, changes)
        corpus = corpus or Corpus.from_description(stored.settings["corpus"])
        if corpus.describe() != {**stored.settings["corpus"], "sources": corpus.sources}:
            raise SettingError(f"the corpus is not the one that the run in {folder} was trained on; start a new run")
        if own := stored.settings.get("own_parts"):
            raise SettingError(f"the run in {folder} had its own {' and '.join(own)}: such a run is not resumed")
        shape = ModelConfig(**stored.settings["model"])
        RunParts.__init__(
            self, corpus, shape, config, folder, Counters.from_stored(stored.progress, shape.directions), started
        )
        self.validator.best = self.checkpointer.resume(stored, self.state)

    def _start_from(self, init: ModelFile) -> None:
        """Take over the weights of a model that was trained before."""
        start = init_from(init, self.model_config, self.corpus.vocabulary, weights_of(self.state.model))
        set_weights(self.state.model, start.weights)
        origin = {"step": init.training.get("step"), "characters": start.known, "new": start.new}
        self.checkpointer.origin = origin


def check_new_run(
    corpus: Corpus,
    model_config: ModelConfig | None,
    config: TrainConfig | None,
    out: str | Path | None,
    init: ModelFile | None,
    overwrite: bool,
    own: OwnParts,
) -> ModelConfig:
    """Check what a new Trainer is given, and return its model's shape."""
    _check_type("corpus", corpus, Corpus, optional=False)
    _check_type("model_config", model_config, ModelConfig)
    _check_type("config", config, TrainConfig)
    _check_type("init", init, ModelFile)
    if init and own.model:
        raise SettingError("init and model are two models to start from: give one", "model")
    if not isinstance(out, (str, Path, NoneType)):
        raise SettingError(f"out is of type {type(out).__name__}: it must be a path", "out")
    if out is not None:
        check_free(Path(out), overwrite)
        recover(Path(out))
        check_characters(corpus.vocabulary, corpus.counts)
    if config and config.freeze and not init:
        raise SettingError("freeze keeps layers of a model to start from: give that one, or 0", "freeze")
    shape = model_config or (own.model.config if own.model else init.config if init else ModelConfig())
    if own.model:
        _check_model(own.model, shape, corpus, saved=out is not None)
    return shape


def _check_model(model: CharModel, shape: ModelConfig, corpus: Corpus, saved: bool) -> None:
    """Refuse a network that is none of this shape and of these characters, or cannot be saved as one."""
    size = len(corpus.vocabulary)
    if model.config != shape or model.vocabulary_size != size:
        raise SettingError(
            f"model is {model.config!r} of {amount(model.vocabulary_size, 'id')}: needed is {shape!r} of {size:,}",
            "model",
        )
    if any(weight.dtype != torch.float32 or weight.is_meta for weight in model.parameters()):
        raise SettingError("model has weights that are not float32 or have no values: give one that has", "model")
    if not any(weight.requires_grad for weight in model.parameters()):
        raise SettingError("model has no weight that learns: let some require gradients", "model")
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    if saved and shapes != parameter_shapes(shape, size):
        raise SettingError("model has other weights than a model file holds: leave out the run folder", "model")
