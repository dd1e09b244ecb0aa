"""The parts of a run, made from its settings: those of a new one, or of one that was saved."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import torch

from chargen.data.batches import Batches, Resets
from chargen.data.begin import begin_text
from chargen.data.corpus import Corpus
from chargen.data.directions import make_batches
from chargen.durable import make_folder, remove_leftovers
from chargen.errors import SettingError, amount, repr_short
from chargen.model.config import DIRECTIONS, ModelConfig, parameter_shapes
from chargen.model.device import pick_device, pick_precision
from chargen.model.language_model import CharModel
from chargen.model.loss import cross_entropy
from chargen.model.weights import Arrays, set_weights, weights_of
from chargen.rng import MAX_SEED
from chargen.storage.model_file import ModelFile, check_characters, new_model
from chargen.storage.run_state import RunState, read_run_state
from chargen.training.budget import Budget
from chargen.training.checkpoint import Checkpointer
from chargen.training.cloze_task import ClozeTask
from chargen.training.config import TrainConfig, changed_config
from chargen.training.counters import Counters
from chargen.training.counts import seconds_to_count, seconds_to_mix
from chargen.training.cuda_graph import CapturedStep
from chargen.training.group import ALONE, Group
from chargen.training.init_from import freeze, init_from
from chargen.training.metrics import Metrics
from chargen.training.run_folder import check_free, holds_a_run, recover
from chargen.training.teachers import TaughtBatches, Teachers, weigh_begins
from chargen.training.train_step import LossFunction, TrainState, TrainStep, adamw
from chargen.training.validator import SUBSET, scored_sizes

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
        return [name for name, is_own in own.items() if is_own]


class RunSettings(NamedTuple):
    """What a run is made from.

    Args:
        corpus: what is learned.
        model_config: the model's shape.
        config: the budget and the method.
        out: the run folder, or None.
        counters: what is counted.
        own: what is not chargen's own.
        replaces: whether the folder holds an older run, which stays until the first save.
        group: the processes that train together.
    """

    corpus: Corpus
    model_config: ModelConfig
    config: TrainConfig
    out: Path | None
    counters: Counters
    own: OwnParts = OwnParts()
    replaces: bool = False
    group: Group = ALONE


def pick_hardware(run: RunSettings) -> tuple[torch.device, str]:
    """The device of this process, and the precision of all processes' matrix products, "fp32" or "bf16".

    Raises:
        SettingError: where there is no such device, or several processes cannot share it.
    """
    device = pick_device(run.config.device, run.group.local_rank)
    if device.type == "mps" and not run.group.alone:
        raise SettingError('several processes train on CPUs or CUDA devices: give `device="cpu"`', "device")
    return device, run.group.broadcast(pick_precision(run.config.precision, device))


def new_batches(
    run: RunSettings, device: torch.device, precision: str = "fp32", finished: Sequence[Arrays] = ()
) -> dict[str, Batches]:
    """What each direction reads, the rows of this process; a function of the step.

    Args:
        run: the run.
        device: of teachers, where the network under way has some.
        precision: of their matrix products.
        finished: the weights of the networks whose training is over.
    """
    config, rows = run.config, run.group.share_of(run.config.batch_size)
    if not config.is_taught(run.counters.network):
        return _text_batches(run, device, config.batch_size, rows)
    border = config.own_rows
    own = _text_batches(run, device, border, range(rows.start, min(rows.stop, border))) if rows.start < border else {}
    written, number = range(max(rows.start - border, 0), max(rows.stop - border, 0)), config.batch_size - border
    networks, end_id = build_finished(run, finished[: config.teachers], device), run.corpus.vocabulary.end_id
    steps_per_epoch, begun = len(run.corpus.train) / (config.batch_size * config.seq_length), run.counters.network_step
    seed = _network_seed(run)
    batches: dict[str, Batches] = {}
    for direction in run.model_config.directions:
        begins = weigh_begins(run.corpus, direction)
        teachers = Teachers(networks, begins, end_id, direction, precision, seed)
        others = own.get(direction), teachers, written, number, config.seq_length, steps_per_epoch, begun
        batches[direction] = TaughtBatches(*others)
    return batches


def _text_batches(run: RunSettings, device: torch.device, batch_size: int, rows: range) -> dict[str, Batches]:
    """What each direction reads of the text itself: some of `batch_size` rows."""
    corpus, config = run.corpus, run.config
    options: dict[str, Any] = {"end_id": corpus.vocabulary.end_id, "shuffle": corpus.config.shuffle, "rows": rows}
    if not corpus.vocabulary.records:
        options["resets"] = resets_of(corpus, config.state_reset, inside=device.type == "cpu")
    size = batch_size, config.seq_length, config.seed
    return make_batches(corpus.train, run.model_config.directions, config.batching, *size, **options)


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
        first = int(begin[0 if direction == "forward" else -1]) if len(begin) else None
        frequency = 0.0 if first is None else float(corpus.counts[first] / corpus.counts.sum())
        resets[direction] = Resets(share, first, frequency, stream)
    return resets


def _network_seed(run: RunSettings) -> int:
    """The seed of the network that the run is at."""
    return (run.config.seed + run.counters.network) % (MAX_SEED + 1)


def new_state(run: RunSettings, device: torch.device) -> TrainState:
    """The state before the first step of the network that the run is at, which has a seed of its own.

    Raises:
        SettingError: where somebody's own optimizer is none.
        DataError: where processes begin with other weights.
    """
    number = run.counters.network
    config = run.config.of_network(number)
    shape = config.shape_of(run.model_config, number)
    model = (run.own.model or CharModel(shape, len(run.corpus.vocabulary), _network_seed(run))).to(device)
    check_weights("the new network, made by this torch,", model, run.group)
    freeze(model, run.config.freeze)
    state = TrainState(model, run.own.optimizer(model, config))
    if not hasattr(state.optimizer, "param_groups"):
        kind = type(state.optimizer).__name__
        raise SettingError(f"optimizer makes a {kind}: it must make an optimizer", "optimizer")
    return state


def build_finished(run: RunSettings, finished: Sequence[Arrays], device: torch.device) -> list[CharModel]:
    """The networks of a run whose training is over.

    Args:
        run: the run.
        finished: their weights.
        device: where they will be.
    """
    return [new_model(run.model_config, len(run.corpus.vocabulary), weights, str(device)) for weights in finished]


def check_weights(name: str, model: CharModel, group: Group) -> None:
    """Check that all processes have the same weights.

    Args:
        name: of what has them.
        model: the network of this process.
        group: the processes.

    Raises:
        DataError: where they have not.
    """
    if not group.alone:
        digest = hashlib.sha256(b"".join(weights.tobytes() for weights in weights_of(model).values()))
        group.check_same(name, digest.hexdigest())


def new_step(run: RunSettings, device: torch.device, precision: str) -> tuple[TrainStep | CapturedStep, int]:
    """What makes a step, and how many steps may be under way at once.

    A GPU is not waited for, and replays the steps of a process alone that reset no state inside a window, as those of
    records do; other optimizers than AdamW need not know what that asks of them.
    """
    cloze = ClozeTask(run.corpus.train, run.config, run.group) if run.model_config.bidirectional else None
    on_device = device.type == "cuda" and run.own.optimizer is adamw
    vocabulary, group = run.corpus.vocabulary, run.group
    step = TrainStep(run.config, precision, cloze, run.own.loss, vocabulary, group, on_device)
    is_taught = run.config.is_taught(run.counters.network)
    replays = on_device and group.alone and not (vocabulary.records or is_taught)
    return CapturedStep(step, device) if replays else step, MAX_PENDING if on_device else 1


def new_budget(run: RunSettings, batches: Batches, started: float | None, max_pending: int) -> Budget:
    """The budget, whose clock in this process begins when `started`, or now."""
    sizes, started = scored_sizes(run.corpus), run.group.broadcast(time.monotonic() if started is None else started)
    count_seconds = seconds_to_count(run.corpus, run.config.counts, len(run.model_config.directions))
    subset = min(SUBSET, sizes[0])
    costs = count_seconds, seconds_to_mix(run.corpus, run.config.counts)
    return Budget(run.config, batches, run.counters, started, sizes, subset, *costs, max_pending, run.group.now)


def open_metrics(run: RunSettings) -> Metrics:
    """Make the folder of a run, and open its metrics."""
    out = run.out if run.group.leads else None
    if out:
        make_folder(out)
        remove_leftovers(out)
    metrics = Metrics(out, run.counters.metrics_bytes)
    metrics.only_queues = run.replaces
    return metrics


def new_checkpointer(run: RunSettings, precision: str, budget: Budget, metrics: Metrics) -> Checkpointer:
    """What saves the run; it remembers parts that are not chargen's own."""
    checkpointer = Checkpointer(run.out, run.corpus, run.model_config, precision, budget, metrics, run.group)
    checkpointer.own_parts = run.own.names()
    return checkpointer


def start_from(init: ModelFile, model: CharModel, corpus: Corpus, group: Group) -> dict[str, Any]:
    """Take over the weights of a model that was trained before; return what a run remembers of it."""
    start = init_from(init, model.config, corpus.vocabulary, weights_of(model))
    set_weights(model, start.weights)
    check_weights("the model to start from", model, group)
    return {"step": init.training.get("step"), "characters": start.known, "new": start.new}


def read_run(
    folder: Path, corpus: Corpus | None, changes: dict[str, Any], group: Group = ALONE
) -> tuple[RunState, RunSettings]:
    """Read a saved run in the first process: its state, and its settings with changes.

    Raises:
        SettingError: for another text, a change that would make it another run, or a run with parts of its own.
    """
    stored = RunState({}, {}, {})
    if group.leads:
        recover(folder)
        stored = read_run_state(folder)
    progress, settings = group.broadcast([stored.progress, stored.settings])
    stored = RunState(group.broadcast_arrays(stored.arrays), progress, settings)
    config = changed_config(stored.settings, changes)
    corpus = corpus or Corpus.from_description(stored.settings["corpus"])
    if corpus.describe() != {**stored.settings["corpus"], "sources": corpus.sources}:
        raise SettingError(f"the corpus is not the one that the run in {folder} was trained on; start a new run")
    if own := stored.settings.get("own_parts"):
        raise SettingError(f"the run in {folder} had its own {' and '.join(own)}: such a run is not resumed")
    shape = replace(ModelConfig(**stored.settings["model"]), begin_symbols=corpus.vocabulary.begin_symbols)
    counters = Counters.from_stored(stored.progress, shape.directions)
    _check_group(corpus, shape, config, group)
    return stored, RunSettings(corpus, shape, config, folder, counters, group=group)


def _check_group(corpus: Corpus, shape: ModelConfig, config: TrainConfig, group: Group) -> None:
    """Check that all processes learn the same text with the same settings, and that each has a row of it."""
    if config.batch_size < group.size:
        raise SettingError(
            f"batch_size is {config.batch_size}, but there are {group.size} processes: give each a row", "batch_size"
        )
    group.check_same("the text", corpus.key)
    group.check_same("model and training", repr((shape, config)))


def check_new_run(
    corpus: Corpus,
    model_config: ModelConfig | None,
    config: TrainConfig | None,
    out: str | Path | None,
    init: ModelFile | None,
    overwrite: bool,
    own: OwnParts,
    group: Group,
) -> RunSettings:
    """Check what a new Trainer is given, and complete it."""
    _check_type("corpus", corpus, Corpus, optional=False)
    _check_type("model_config", model_config, ModelConfig)
    _check_type("config", config, TrainConfig)
    _check_type("init", init, ModelFile)
    if init and own.model:
        raise SettingError("init and model are two models to start from: give one", "model")
    if not isinstance(out, (str, Path, NoneType)):
        raise SettingError(f"out is of type {type(out).__name__}: it must be a path", "out")
    folder = None if out is None else Path(out)
    if folder and group.leads:
        check_free(folder, overwrite)
        recover(folder)
    if folder:
        check_characters(corpus.vocabulary, corpus.counts)
    if corpus.vocabulary.records and config and config.state_reset != TrainConfig.state_reset:
        raise SettingError("state_reset is for running text: records begin with a fresh state", "state_reset")
    if config and config.counts and not scored_sizes(corpus)[0]:
        raise SettingError(
            'counts needs a validation part, on which counts are weighed: give `valid`, or `counts="off"`', "counts"
        )
    _check_start(config or TrainConfig(), init, own)
    shape = model_config or (own.model.config if own.model else init.config if init else ModelConfig())
    inherited = init.config.begin_symbols if init else 0
    if shape.begin_symbols not in (0, inherited, corpus.vocabulary.begin_symbols):
        begins, needed = shape.begin_symbols, corpus.vocabulary.begin_symbols
        raise SettingError(f"begin_symbols is {begins}: leave it out, the corpus has {needed}", "begin_symbols")
    shape = replace(shape, begin_symbols=corpus.vocabulary.begin_symbols)
    if own.model:
        _check_model(own.model, shape, corpus, saved=out is not None)
    config = config or TrainConfig()
    _check_group(corpus, shape, config, group)
    replaces = group.broadcast(folder is not None and group.leads and holds_a_run(folder))
    return RunSettings(corpus, shape, config, folder, Counters(), own, replaces, group)


def _check_start(config: TrainConfig, init: ModelFile | None, own: OwnParts) -> None:
    """Check that what training starts from fits how it goes on."""
    if config.teachers and own.loss is not cross_entropy:
        raise SettingError(
            "a loss of your own learns no probabilities, as teachers give: leave one of both out", "loss"
        )
    for name, number in ("members", config.members - 1), ("teachers", config.teachers):
        if number and (init or own.model):
            raise SettingError(
                f"{name} is {getattr(config, name)}, but a model to start from makes one network: leave it out", name
            )
    if config.freeze and not init:
        raise SettingError("freeze keeps layers of a model to start from: give that one, or 0", "freeze")


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
