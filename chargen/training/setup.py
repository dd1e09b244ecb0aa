"""Puts a run together from its settings: a new one, or one that was saved."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from chargen.data.batches import Batches, Resets, make_batches
from chargen.data.begin import begin_text
from chargen.data.corpus import Corpus
from chargen.durable import make_folder, remove_leftovers
from chargen.errors import SettingError, amount, repr_short
from chargen.model.config import DIRECTIONS, ModelConfig, parameter_shapes
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
from chargen.training.run_folder import check_free, holds_a_run, recover
from chargen.training.train_log import TrainLog
from chargen.training.train_step import LossFunction, StepReport, TrainState, TrainStep, adamw
from chargen.training.validator import SUBSET, Validator, scored_sizes

MAX_PENDING = 16
"""Steps that a GPU is given before the host asks how they went."""
MakeOptimizer = Callable[[CharModel, TrainConfig], torch.optim.Optimizer]


@dataclass(eq=False)
class RunParts:
    """The parts of a run.

    Args:
        corpus: what is learned.
        model_config: the model's shape.
        config: the budget and the method.
        out: the run folder, or None.
        counters: what is counted.
        device: where the model computes.
        precision: of matrix products, "fp32" or "bf16".
        max_pending: steps that may be under way at once.
        batches: of each direction; a function of the step.
        state: what a step changes.
        train_step: makes a step.
        budget: how much of it is used.
        validator: scores, and keeps the best weights.
        metrics: where lines go.
        log: counts steps and writes lines.
        checkpointer: saves.
    """

    corpus: Corpus
    model_config: ModelConfig
    config: TrainConfig
    out: Path | None
    counters: Counters
    device: torch.device
    precision: str
    max_pending: int
    batches: dict[str, Batches]
    state: TrainState
    train_step: Callable[..., StepReport]
    budget: Budget
    validator: Validator
    metrics: Metrics
    log: TrainLog
    checkpointer: Checkpointer


def new_run(
    corpus: Corpus,
    model_config: ModelConfig | None,
    config: TrainConfig | None,
    out: str | Path | None,
    init: ModelFile | None,
    started: float | None,
    overwrite: bool,
    model: CharModel | None,
    optimizer: MakeOptimizer,
    loss: LossFunction,
) -> RunParts:
    """Check what a new Trainer is given, and build the parts of its run."""
    for name, value, kind in (
        ("corpus", corpus, Corpus), ("model_config", model_config, ModelConfig), ("config", config, TrainConfig),
        ("init", init, ModelFile), ("model", model, CharModel),
    ):  # fmt: skip
        if not isinstance(value, kind) and (value is not None or name == "corpus"):
            raise SettingError(f"{name} is of type {type(value).__name__}: it must be a {kind.__name__}", name)
    functions: dict[str, Any] = {"optimizer": optimizer, "loss": loss}
    for name, function in functions.items():
        if not callable(function) or isinstance(function, type):
            raise SettingError(f"{name} is {repr_short(function)}: it must be a function", name)
    if init and model:
        raise SettingError("init and model are two models to start from: give one", "model")
    if not isinstance(out, (str, Path, NoneType)):
        raise SettingError(f"out is of type {type(out).__name__}: it must be a path", "out")
    out = Path(out) if out is not None else None
    if out:
        check_free(out, overwrite)
        recover(out)
        check_characters(corpus.vocabulary, corpus.counts)
    if config and config.freeze and not init:
        raise SettingError("freeze keeps layers of a model to start from: give that one, or 0", "freeze")
    shape = model_config or (model.config if model else init.config if init else ModelConfig())
    if model:
        _check_model(model, shape, corpus, saved=out is not None)
    setup = build_parts(corpus, shape, config or TrainConfig(), out, Counters(), started, model, optimizer, loss)
    own = {"model": model and type(model) is not CharModel, "optimizer": optimizer is not adamw}
    own["loss"] = loss is not cross_entropy
    setup.checkpointer.own_parts = [name for name, given in own.items() if given]
    setup.metrics.only_queues = setup.checkpointer.replaces = bool(out and holds_a_run(out))
    if init:
        start = init_from(init, shape, corpus.vocabulary, weights_of(setup.state.model))
        set_weights(setup.state.model, start.weights)
        setup.checkpointer.origin |= {"step": init.training.get("step"), "characters": start.known, "new": start.new}
    return setup


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


def saved_run(folder: Path, corpus: Corpus | None, changes: dict[str, Any], started: float | None) -> RunParts:
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
    counters = Counters.from_stored(stored.progress, shape.directions)
    setup = build_parts(corpus, shape, config, folder, counters, started)
    setup.validator.best = setup.checkpointer.resume(stored, setup.state)
    return setup


def resets_of(corpus: Corpus, share: float, *, inside: bool) -> dict[str, Resets]:
    """The fresh states of each direction, at line ends where texts begin with one.

    Args:
        corpus: what is learned.
        share: fresh states in a row's window, on average.
        inside: whether they may be inside a window; cuDNN and a captured step know no such thing.
    """
    begin = corpus.vocabulary.encode(begin_text(corpus.vocabulary, corpus.counts)) if inside else ()
    resets = {}
    for stream, direction in enumerate(DIRECTIONS):
        first = int(begin[-stream]) if len(begin) else None
        frequency = 0.0 if first is None else float(corpus.counts[first] / corpus.counts.sum())
        resets[direction] = Resets(share, first, frequency, stream)
    return resets


def build_parts(
    corpus: Corpus,
    model_config: ModelConfig,
    config: TrainConfig,
    out: Path | None,
    counters: Counters,
    started: float | None = None,
    model: CharModel | None = None,
    optimizer: MakeOptimizer = adamw,
    loss: LossFunction = cross_entropy,
) -> RunParts:
    """Build all parts of a run."""
    device = pick_device(config.device)
    precision = pick_precision(config.precision, device)
    on_gpu = device.type == "cuda" and optimizer is adamw  # others need not know what a captured step asks of them
    max_pending = MAX_PENDING if on_gpu else 1
    size = config.batch_size, config.seq_length, config.seed
    resets = resets_of(corpus, config.state_reset, inside=device.type == "cpu")
    batches = make_batches(corpus.train, model_config.directions, config.batching, *size, resets=resets)
    cloze = ClozeTask(corpus.train, config) if model_config.bidirectional else None
    model = (model or CharModel(model_config, len(corpus.vocabulary), config.seed)).to(device)
    freeze(model, config.freeze)
    state = TrainState(model, optimizer(model, config))
    if not hasattr(state.optimizer, "param_groups"):
        raise SettingError(
            f"optimizer makes a {type(state.optimizer).__name__}: it must make an optimizer", "optimizer"
        )
    step = TrainStep(config, precision, cloze, loss, on_device=on_gpu)
    sizes = scored_sizes(corpus)
    started = time.monotonic() if started is None else started
    budget = Budget(config, batches["forward"], counters, started, sizes, min(SUBSET, sizes[0]), max_pending)
    validator = Validator(corpus, config, precision, budget, counters)
    if out:
        make_folder(out)
        remove_leftovers(out)
    metrics, epoch = Metrics(out, counters.metrics_bytes), batches["forward"].steps_per_epoch
    log = TrainLog(config, corpus.vocabulary, model_config.directions, epoch, counters, budget, metrics)
    checkpointer = Checkpointer(out, corpus, model_config, config, precision, epoch, counters, budget, metrics)
    return RunParts(
        corpus, model_config, config, out, counters, device, precision, max_pending, batches, state,
        CapturedStep(step, device) if on_gpu else step, budget, validator, metrics, log, checkpointer,
    )  # fmt: skip
