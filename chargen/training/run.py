"""A run between two steps: all it is made of, how it is saved, and how it is taken up again."""

import math
import os
import time
from dataclasses import asdict, fields
from pathlib import Path
from types import NoneType
from typing import Any, Self

import torch
from torch.nn import Parameter

from chargen.data.batches import BackwardBatches, Batches, ConsecutiveBatches, RandomBatches
from chargen.data.begin import begin_text
from chargen.data.corpus import Corpus
from chargen.data.reading import ReadingConfig
from chargen.durable import make_folder, remove_leftovers
from chargen.errors import Diverged, ModelFileError, SettingError, WriteError, amount, truncate
from chargen.model.config import ModelConfig
from chargen.model.device import pick_device, pick_precision
from chargen.model.dropout import DropoutKey
from chargen.model.language_model import CharModel
from chargen.model.layers import zero_state
from chargen.model.weights import Arrays, set_weights, weights_of
from chargen.storage.model_file import FILE_NAME, ModelFile, check_characters, read_model, save_model
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import RunState, read_run_state, save_run_state
from chargen.training.budget import Budget
from chargen.training.cloze_task import ClozeTask
from chargen.training.config import TrainConfig, changed_config
from chargen.training.counters import Counters
from chargen.training.init_from import init_from
from chargen.training.metrics import Metrics
from chargen.training.run_folder import check_free, holds_a_run, recover, replacing
from chargen.training.snapshot import Hidden, capture, restore

MAX_BAD_STEPS = 3
MAX_FAILED_SAVES = 3
"""In a row; then the run stops, with what the last good one holds."""
AHEAD = 16
"""Steps that a GPU is given before the host asks how they went."""
NAMES = 5
"""Texts that a model file names."""
SUBSET = 24_000
"""Ids of the fixed part of the validation text that is scored while training."""
SUBSET_SHARE = 0.03
"""By default, ids scored per id trained: scoring with its warm-up costs half of training, so 1.5 % of the time."""


class Run:
    """Everything that a training run is, at the border of a step.

    Args: see Trainer.
    """

    def __init__(
        self,
        corpus: Corpus,
        model_config: ModelConfig | None = None,
        config: TrainConfig | None = None,
        out: str | Path | None = None,
        *,
        init: ModelFile | None = None,
        started: float | None = None,
        overwrite: bool = False,
    ) -> None:
        for name, value, kind in (
            ("corpus", corpus, Corpus), ("model_config", model_config, ModelConfig), ("config", config, TrainConfig),
            ("init", init, ModelFile),
        ):  # fmt: skip
            if not isinstance(value, kind) and (value is not None or name == "corpus"):
                raise SettingError(f"{name} is of type {type(value).__name__}: it must be a {kind.__name__}", name)
        if not isinstance(out, (str, Path, NoneType)):
            raise SettingError(f"out is of type {type(out).__name__}: it must be a path", "out")
        out = Path(out) if out is not None else None
        if out:
            check_free(out, overwrite)
            recover(out)
            check_characters(corpus.vocabulary, corpus.counts)
        if model_config is None:
            model_config = init.config if init else ModelConfig()
        if config and config.freeze and not init:
            raise SettingError("freeze keeps layers of a model to start from: give that one, or 0", "freeze")
        self._set_up(corpus, model_config, config or TrainConfig(), out, Counters(), started)
        self.metrics.held = self.replaces = bool(out and holds_a_run(out))
        if init:
            found = init_from(init, model_config, corpus.vocabulary, weights_of(self.model))
            set_weights(self.model, found.weights)
            self.origin |= {"step": init.training.get("step"), "characters": found.known, "new": found.new}

    def _set_up(
        self,
        corpus: Corpus,
        model_config: ModelConfig,
        config: TrainConfig,
        out: Path | None,
        counters: Counters,
        started: float | None,
    ) -> None:
        started = time.monotonic() if started is None else started
        self.corpus, self.model_config, self.config, self.out, self.counters = (
            corpus,
            model_config,
            config,
            out,
            counters,
        )
        self.take_rows(range(config.batch_size))
        self.cloze = ClozeTask(corpus.train, config) if model_config.bidirectional else None
        self.device = pick_device(config.device)
        self.ahead = AHEAD if self.device.type == "cuda" else 1
        self.precision = pick_precision(config.precision, self.device)
        vocabulary = corpus.vocabulary
        self.model = CharModel(model_config, len(vocabulary), config.seed).to(self.device)
        _freeze(self.model, config.freeze)
        self.origin: dict[str, Any] = {}
        self.optimizer = _adamw(self.model, config)
        self.parts = _parts(self.model)
        self.hidden: Hidden = {}
        self.best: Arrays | None = None
        self.validates = len(corpus.valid) > 1 and vocabulary.count_characters(corpus.valid) > 1
        tests = len(corpus.test) > 1 and vocabulary.count_characters(corpus.test) > 1
        targets = config.batch_size * config.seq_length
        # By default as often as the subset's cost allows: it depends on text and batch only, never on the budget.
        usual = max(10, math.ceil(min(len(corpus.valid), SUBSET) / (SUBSET_SHARE * targets)))
        self.eval_every = config.eval_every or usual
        self.budget = Budget(
            config,
            self.batches["forward"],
            counters,
            started,
            end_sizes=(len(corpus.valid) * self.validates, len(corpus.test) * tests),
            subset=min(SUBSET, len(corpus.valid)) * self.validates,
            ahead=self.ahead,
        )
        if out:
            make_folder(out)
            remove_leftovers(out)
        self.metrics = Metrics(out, counters.metrics_bytes)
        self.summary: dict[str, Any] = {}
        self._last_loss = math.nan
        self._validated: int | None = None  # the latest step, of this process
        self._last_losses: dict[str, float] = {}
        self._saved_best: int | None = None
        self._last_save = time.monotonic()
        self._failed_saves = 0
        self.warning = ""
        self.replaces = False

    def take_rows(self, rows: range) -> None:
        """Choose the rows of each minibatch that this process computes, by their numbers among those of all."""
        self.rows = rows
        self.batches = _batches(self.corpus, self.model_config, self.config, rows)

    def noise(self) -> DropoutKey:
        """The address of this step's dropout masks."""
        return DropoutKey(self.config.seed, self.counters.step, self.rows.start)

    def make_places(self, rows: int) -> None:
        """Make what a step reads and writes before the first one: the carried state, and AdamW's moments."""
        for direction in self.batches:
            self.hidden.setdefault(direction, zero_state(self.model_config, rows, self.device))
        for weight in self.model.parameters():
            if not self.optimizer.state[weight]:
                moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[weight] = {"step": torch.zeros((), device=self.device), **moments}

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        corpus: Corpus | None = None,
        *,
        changes: dict[str, Any] | None = None,
        started: float | None = None,
    ) -> Self:
        """Go on with a run as if it had never stopped.

        Args:
            folder: the run folder.
            corpus: the same corpus as before, wherever its text lies now; read again from where it lay, by default.
            changes: training settings to change; budget, learning rate, schedule, intervals and the like.

        Raises ModelFileError where the state is damaged, SettingError for a change that would make it another run,
        DataError where the text is gone or has changed.
        """
        recover(Path(folder))
        state = read_run_state(folder)
        config = changed_config(state.settings, changes or {})
        corpus = corpus or Corpus.from_description(state.settings["corpus"])
        if corpus.describe() != {**state.settings["corpus"], "sources": corpus.sources}:
            raise SettingError(f"the corpus is not the one that the run in {folder} was trained on; start a new run")
        run = cls.__new__(cls)
        counters = Counters.from_stored(state.progress)
        run._set_up(corpus, ModelConfig(**state.settings["model"]), config, Path(folder), counters, started)
        # What the folder's model file holds is at least as good as this best, and stays until a better one comes.
        run._saved_best = counters.best_step if run._holds_its_model() else None
        applied = counters.applied, counters.cloze_applied
        run.origin = state.settings.get("init", {})
        run.hidden, run.best = restore(state.arrays, *applied, run.model, run.optimizer)
        return run

    def _holds_its_model(self) -> bool:
        """Whether the folder's model can be read, and is of this shape and these characters."""
        assert self.out is not None
        try:
            found = read_model(self.out)
        except ModelFileError:
            return False
        return found.config == self.model_config and found.vocabulary == self.corpus.vocabulary

    def _summary(self, step: int) -> dict[str, Any]:
        """What the model file says of its training: no path, and no clock but that of a budget in minutes."""
        corpus = asdict(self.corpus.config)
        # A part that is a text of its own is no fraction of the training text.
        corpus |= {f"{role}_fraction": 0.0 for role in ("valid", "test") if self.corpus.sources[role]}
        return {
            "step": step,
            "epoch": step / self.batches["forward"].steps_per_epoch,
            "precision": self.precision,
            "sources": _names(self.corpus),
            **({"seconds": round(self.budget.seconds(), 1)} if self.config.minutes else {}),
            "settings": {**asdict(self.config), **{name: corpus[name] for name in sorted(corpus)}},
            **({"init": self.origin} if self.origin else {}),
        }

    def model_file(self, weights: Arrays | None = None, summary: dict[str, Any] | None = None) -> ModelFile:
        """The model as a value: these weights, or those of this moment."""
        reading = ReadingConfig(
            **{field.name: getattr(self.corpus.config, field.name) for field in fields(ReadingConfig)}
        )
        return ModelFile(
            self.model_config,
            self.corpus.vocabulary,
            weights_of(self.model) if weights is None else weights,
            self.corpus.counts,
            reading,
            self._summary(self.counters.step) if summary is None else summary,
            begin=begin_text(self.corpus.vocabulary, self.corpus.counts),
        )

    def save(self) -> None:
        """Save the run at this step, and the best model so far (this one, before the first validation).

        Raises Diverged where a weight is not finite: then nothing is saved.
        """
        assert self.out is not None, "a Trainer without a run folder saves nothing"
        if not all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters()):
            raise Diverged(self._divergence())
        begun = time.monotonic()
        if self.replaces:
            lines = self.metrics.size, self.metrics.waiting
            try:
                with replacing(self.out):
                    self._write()
            except BaseException:
                self.metrics.size, self.metrics.waiting = lines
                raise
            self.metrics.held = self.replaces = False
        else:
            self._write()
        self._last_save = time.monotonic()
        self._failed_saves, self.warning = 0, ""
        self.budget.save_seconds = max(self.budget.save_seconds, self._last_save - begun)

    def _write(self) -> None:
        """Put lines of metrics, model and state on the disk."""
        assert self.out is not None
        counters = self.counters
        counters.seconds, counters.metrics_bytes = self.budget.seconds(), self.metrics.sync()
        counters.complete = False
        # The model first: a kill in between leaves a state whose next steps make the same model again. At the start the
        # state first: a model alone could not be resumed.
        if counters.step == 0:
            save_run_state(self.out, self._state())
        if self.best is None or counters.best_step != self._saved_best or not (self.out / FILE_NAME).exists():
            summary = self._summary(counters.step if counters.best_step is None else counters.best_step)
            if counters.best_loss is not None:
                summary |= {"valid_loss": counters.best_loss, "valid_whole": False}
            save_model(self.out / FILE_NAME, self.model_file(self.best, summary))
            self._saved_best = counters.best_step
        save_run_state(self.out, self._state())

    def try_to_save(self) -> None:
        """As `save`, but where the disk refuses the run may go on, with a warning, and tries again after a while.

        Raises WriteError when it has refused three times in a row.
        """
        try:
            self.save()
        except WriteError as error:
            self._failed_saves += 1
            self._last_save = time.monotonic()
            if self._failed_saves >= MAX_FAILED_SAVES:
                raise WriteError(f"{error}; that was save {self._failed_saves} in a row that failed") from error
            self.warning = (
                f"save {self._failed_saves} of {MAX_FAILED_SAVES} failed at step {self.counters.step:,}, "
                f"training goes on: {error}; make room, or put the run folder back"
            )

    def _state(self) -> RunState:
        self.counters.hidden = bool(self.hidden)
        settings = {
            "model": asdict(self.model_config),
            "training": asdict(self.config),
            "corpus": self.corpus.describe(),
            "vocabulary_size": len(self.corpus.vocabulary),
            "machine": self.machine(),
            **({"init": self.origin} if self.origin else {}),
        }
        arrays = capture(self.model, self.optimizer, self.hidden, self.best)
        return RunState(arrays, asdict(self.counters), settings)

    def machine(self) -> dict[str, Any]:
        """What a byte-exact resume needs to find unchanged."""
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "precision": self.precision,
        }

    def _divergence(self) -> str:
        saved = self.out and not self.replaces and (self.out / STATE_NAME).exists()
        kept = f"; the last good state is in {self.out}" if saved else ""
        return (
            f"training diverged at step {self.counters.step}: loss or gradient not finite {MAX_BAD_STEPS} times "
            f"in a row{kept}; try a lower --lr than {self.config.lr:g}"
        )


def _names(corpus: Corpus) -> dict[str, list[str]]:
    """What the texts of each role are called, without their folders; of many texts the first five."""
    found = {}
    for role, sources in corpus.sources.items():
        names = [os.path.basename(os.path.normpath(one)) if one != "-" else "standard input" for one in sources]
        more = [f"and {len(names) - NAMES:,} more"] if len(names) > NAMES else []
        if names:
            found[role] = [truncate(name, 100) for name in names[:NAMES]] + more
    return found


def _freeze(model: CharModel, layers: int) -> None:
    """Let the lowest recurrent layers of each stack stay as they are."""
    if layers > model.config.num_layers:
        raise SettingError(
            f"freeze is {layers}, but the model has {amount(model.config.num_layers, 'recurrent layer')}", "freeze"
        )
    for direction in model.config.directions:
        for layer in model.stack(direction)[:layers]:
            layer.requires_grad_(False)


def _adamw(model: CharModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019), fused where there is one.

    Biases are not decayed, nor is the embedding: a row learns only where its character is read, and would fade between.
    """
    table = model.embedding.weight
    decayed = [weight for weight in model.parameters() if weight.ndim > 1 and weight is not table]
    others = [weight for weight in model.parameters() if weight.ndim == 1 or weight is table]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    kind = model.device.type
    return torch.optim.AdamW(groups, lr=config.lr, fused=kind in ("cpu", "cuda", "mps"), capturable=kind == "cuda")


def _batches(corpus: Corpus, model_config: ModelConfig, config: TrainConfig, rows: range) -> dict[str, Batches]:
    """What each direction reads in these rows: its own position in the text, or the same random windows, either way."""
    size = config.batch_size, config.seq_length, config.seed, rows
    if config.batching == "random":
        windows = RandomBatches(corpus.train, *size)
        found: dict[str, Batches] = {"forward": windows, "backward": BackwardBatches(windows)}
    else:
        found = {"forward": ConsecutiveBatches(corpus.train, *size)}
        found["backward"] = ConsecutiveBatches(corpus.train[::-1], *size)
    return {direction: found[direction] for direction in model_config.directions}


def _parts(model: CharModel) -> dict[str, list[Parameter]]:
    """The weights that each loss moves: a direction's stack with embedding and output layer, or the cloze layer."""
    named = list(model.named_parameters())
    parts = {
        direction: [
            weight for name, weight in named if name.split(".")[0] in ("embedding", "output", f"{direction}_layers")
        ]
        for direction in model.config.directions
    }
    return parts | {"cloze": [weight for name, weight in named if name.startswith("cloze.")]}
