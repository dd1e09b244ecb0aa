"""What a run leaves on the disk: the order of its files, failed saves, and exact resume from them."""

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chargen.data.begin import begin_text
from chargen.data.corpus import Corpus
from chargen.data.reading_config import ReadingConfig
from chargen.errors import Diverged, ModelFileError, WriteError, amount, truncate
from chargen.model.config import ModelConfig
from chargen.model.weights import Arrays, set_weights, weights_of
from chargen.settings import as_json
from chargen.storage.model_file import FILE_NAME, ModelFile, read_model, save_model
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import RunState, finished_prefix, hidden_prefix, save_run_state
from chargen.training.budget import Budget
from chargen.training.counters import Counters
from chargen.training.group import ALONE, Group
from chargen.training.metrics import Metrics
from chargen.training.run_folder import replace_run
from chargen.training.train_step import MAX_BAD_STEPS, TrainState

MAX_FAILED_SAVES = 3
"""In a row; then the run stops, with what the last good one holds."""
NAMES = 5
"""Texts that a model file names."""


@dataclass(eq=False)
class Checkpointer:
    """Saves a run, and its best model, into a folder.

    Args:
        out: the run folder; None where nothing is saved.
        corpus: what is learned.
        model_config: the model's shape.
        precision: of matrix products.
        budget: learns how long a save takes; its counters are stored with the run's state.
        metrics: whose lines are put on the disk with each save.
        group: the processes; each gives what it alone has, and the first one writes.
    """

    out: Path | None
    corpus: Corpus
    model_config: ModelConfig
    precision: str
    budget: Budget
    metrics: Metrics
    group: Group = ALONE

    def __post_init__(self) -> None:
        self.config, self.counters = self.budget.config, self.budget.counters
        self.own_parts: list[str] = []
        """What was given in place of chargen's own: such a run is not resumed."""
        self.origin: dict[str, Any] = {}
        """What the model that training started from was, if one."""
        self.warning = ""
        """Why the latest save failed, while the run goes on without it."""
        self.finished: list[Arrays] = []
        """The weights of networks whose training is over."""
        self._saved_best: int | None = None
        self._saved_networks = 0
        self._last_save = self.budget.now()
        self._failed_saves = 0

    @property
    def replaces(self) -> bool:
        """Whether the folder holds an older run, until the first save."""
        return self.metrics.only_queues

    @property
    def is_resumable(self) -> bool:
        """Whether the folder holds a state of this run."""
        return self.out is not None and not self.replaces and (self.out / STATE_NAME).exists()

    def begin(self, state: TrainState) -> None:
        """Begin or go on. From here on the run can be resumed, and a full disk is known before the work.

        Raises:
            WriteError: where the disk refuses.
        """
        self.counters.complete = False
        if self.replaces:
            return
        self.metrics.cut()
        if self.out and state.step == 0:
            self.save(state, None)

    def save(self, state: TrainState, best: Arrays | None) -> None:
        """Save the run at this step, and the best model so far (this one, before the first validation).

        Raises:
            Diverged: where a weight is not finite; then nothing is saved.
            WriteError: where the disk refuses.
        """
        assert self.out is not None, "a Trainer without a run folder saves nothing"
        if not all(bool(torch.isfinite(weight).all()) for weight in state.model.parameters()):
            raise Diverged(self.divergence())
        began = self.budget.now()
        arrays = self._capture(state, best)
        try:
            if self.group.leads:
                self._write(self.out, state, arrays, best)
            self.metrics.only_queues = False
        finally:
            self.group.exchange()  # the others wait for the file, and take it for written: so it takes as long for all
            self._last_save = self.budget.now()
            self.budget.save_seconds = max(self.budget.save_seconds, self._last_save - began)
        self._failed_saves, self.warning = 0, ""

    def due(self) -> bool:
        """Whether the latest save is as old as it may be."""
        return self.out is not None and self.budget.now() - self._last_save > 60 * self.config.save_minutes

    def try_to_save(self, state: TrainState, best: Arrays | None) -> None:
        """Save; where the disk refuses the run goes on, with a warning, and tries again when the next save is due.

        Raises:
            WriteError: when it has refused three times in a row.
        """
        try:
            self.save(state, best)
        except WriteError as error:
            self._failed_saves += 1
            if self._failed_saves >= MAX_FAILED_SAVES:
                raise WriteError(f"{error}; that was save {self._failed_saves} in a row that failed") from error
            self.warning = (
                f"save {self._failed_saves} of {MAX_FAILED_SAVES} failed at step {self.counters.step:,}, "
                f"training goes on: {error}; make room, or put the run folder back"
            )

    def save_end(self, state: TrainState, best: Arrays | None, model: ModelFile, line: dict[str, Any]) -> None:
        """Save a finished run, where there is a run folder: its model, the last line of metrics, its state."""
        if not self.out:
            return
        arrays = self._capture(state, best)
        self.counters.seconds = self.budget.seconds()
        try:
            if not self.group.leads:
                return
            self.metrics.sync()
            # The state last: a kill before it leaves a run that ends again, and its metrics are cut before they go on.
            save_model(self.out / FILE_NAME, model)
            self.metrics.write(line)
            self.metrics.sync()
            save_run_state(self.out, self._run_state(state, arrays))
        finally:
            self.group.exchange()

    def _capture(self, state: TrainState, best: Arrays | None) -> Arrays:
        arrays = capture(state, best, self.group, self.config.batch_size)
        for number, weights in enumerate(self.finished):
            arrays |= {f"{finished_prefix(number)}.{name}": array for name, array in weights.items()}
        return arrays

    def begin_network(self, finished: Arrays) -> None:
        """From here on another network is trained.

        Args:
            finished: the weights of the one before.
        """
        self.finished.append(finished)

    def _write(self, out: Path, state: TrainState, arrays: Arrays, best: Arrays | None) -> None:
        """Put lines of metrics, model and state on the disk, in place of an older run at first."""
        if not self.replaces:
            self._write_files(out, state, arrays, best)
            return
        lines = self.metrics.size, self.metrics.waiting
        try:
            with replace_run(out):
                self._write_files(out, state, arrays, best)
        except BaseException:
            self.metrics.size, self.metrics.waiting = lines
            raise

    def _write_files(self, out: Path, state: TrainState, arrays: Arrays, best: Arrays | None) -> None:
        counters = self.counters
        counters.seconds, counters.metrics_bytes = self.budget.seconds(), self.metrics.sync()
        counters.complete = False
        # The model first: a kill in between leaves a state whose next steps make the same model again. At the start the
        # state first: a model alone could not be resumed.
        if counters.step == 0:
            save_run_state(out, self._run_state(state, arrays))
        if self.finished:
            if self._saved_networks != len(self.finished):
                taught = self.finished[self.config.teachers :]
                kept = taught or self.finished  # teachers until there is another
                last = len(self.finished) - 1
                file = self.model_file(kept[0], self.summary(counters.network_step, last), last)
                save_model(out / FILE_NAME, file.with_networks(kept))
                self._saved_networks = len(self.finished)
        elif best is None or counters.best_step != self._saved_best or not (out / FILE_NAME).exists():
            summary = self.summary(counters.step if counters.best_step is None else counters.best_step)
            if counters.best_loss is not None:
                summary |= {"valid_loss": counters.best_loss, "valid_whole": False}
            save_model(out / FILE_NAME, self.model_file(weights_of(state.model) if best is None else best, summary))
            self._saved_best = counters.best_step
        save_run_state(out, self._run_state(state, arrays))

    def model_file(
        self, weights: Arrays, summary: dict[str, Any] | None = None, network: int | None = None
    ) -> ModelFile:  # fmt: skip
        """A model file as a value.

        Args:
            weights: by name.
            summary: what it says of its training; that of this step by default.
            network: whose weights they are; of the one under way by default.
        """
        shape = self.config.shape_of(self.model_config, self.counters.network if network is None else network)
        corpus = self.corpus
        reading = ReadingConfig(**{field.name: getattr(corpus.config, field.name) for field in fields(ReadingConfig)})
        summary = self.summary(self.counters.step) if summary is None else summary
        begin = begin_text(corpus.vocabulary, corpus.counts)
        return ModelFile(shape, corpus.vocabulary, weights, corpus.counts, reading, summary, begin=begin)

    def summary(self, step: int, network: int | None = None) -> dict[str, Any]:
        """What a model file says of its training: no path, and no clock but that of a budget in minutes.

        Args:
            step: which weights it has.
            network: whose; of the one under way by default.
        """
        network = self.counters.network if network is None else network
        corpus = as_json(self.corpus.config)
        # A part that is a text of its own is no fraction of the training text.
        corpus |= {f"{role}_fraction": 0.0 for role in ("valid", "test") if self.corpus.sources[role]}
        return {
            "step": step,
            "epoch": self.budget.epochs(step),
            "precision": self.precision,
            "sources": _source_names(self.corpus),
            **({"seconds": round(self.budget.seconds(), 1)} if self.config.minutes else {}),
            "settings": {**asdict(self.config.of_network(network)), **{name: corpus[name] for name in sorted(corpus)}},
            **({"init": self.origin} if self.origin else {}),
            **({"teachers": self.config.teachers} if self.config.is_taught(network) else {}),
        }

    def describe(self) -> dict[str, str]:
        """What matters of the run, by name, for a person."""
        shape, counters, vocabulary = self.model_config, self.counters, self.corpus.vocabulary
        ways = ", both ways" if shape.bidirectional else ""
        described = {
            "model": f"{shape.cell.upper()} {shape.num_layers} x {shape.hidden_size}{ways}",
            "text": f"{amount(len(self.corpus.train), vocabulary.unit)}, {len(vocabulary):,} different",
            "step": f"{counters.step:,}" + ("" if self.budget.steps is None else f" of {self.budget.steps:,}"),
        }
        if self.config.minutes is not None:
            described["minutes"] = f"{self.budget.seconds() / 60:.1f} of {self.config.minutes:g}"
        if self.config.networks > 1:
            described["network"] = f"{counters.network + 1} of {self.config.networks}"
        if counters.best_loss is not None:
            described["best"] = f"{counters.best_loss:.4f} nats at step {counters.best_step:,}"
        return described | {"in": "memory only" if self.out is None else truncate(self.out, 200)}

    def machine(self, device: torch.device) -> dict[str, Any]:
        """What a byte-exact resume needs to find unchanged."""
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "processes": self.group.size,
            "device": device.type,
            "precision": self.precision,
        }

    def divergence(self) -> str:
        """What is said of a run that diverged."""
        kept = f"; the last good state is in {self.out}" if self.is_resumable else ""
        return (
            f"training diverged at step {self.counters.step}: loss or gradient not finite {MAX_BAD_STEPS} times "
            f"in a row{kept}; try a lower `lr` than {self.config.lr:g}"
        )

    def resume(self, stored: RunState, state: TrainState) -> Arrays | None:
        """Put what a run's state holds into `state`.

        Returns:
            The best weights so far.
        """
        self.origin = stored.settings.get("init", {})
        # What the folder's model file holds is at least as good as this best, and stays until a better one comes.
        holds_it = self.group.leads and self._holds_its_model()
        self._saved_best = self.counters.best_step if holds_it else None
        self._saved_networks = self.counters.network if holds_it else 0
        state.step = self.counters.step
        for number in range(self.counters.network):
            prefix = finished_prefix(number) + "."
            own = {name.removeprefix(prefix): array for name, array in stored.arrays.items() if name.startswith(prefix)}
            self.finished.append(own)
        rows = self.group.share_of(self.config.batch_size)
        return restore(stored.arrays, self.counters, state, rows)

    def _holds_its_model(self) -> bool:
        """Whether the folder's model can be read, and is of this shape and these characters."""
        assert self.out is not None
        try:
            file = read_model(self.out)
        except ModelFileError:
            return False
        shapes = [self.config.shape_of(self.model_config, number) for number in range(self.config.networks)]
        return file.config in shapes and file.vocabulary == self.corpus.vocabulary

    def _run_state(self, state: TrainState, arrays: Arrays) -> RunState:
        self.counters.hidden = bool(state.hidden)
        settings = {
            "model": asdict(self.model_config),
            "training": asdict(self.config),
            "corpus": self.corpus.describe(),
            "vocabulary_size": len(self.corpus.vocabulary),
            "machine": self.machine(state.model.device),
            **({"init": self.origin} if self.origin else {}),
            **({"own_parts": self.own_parts} if self.own_parts else {}),
        }
        return RunState(arrays, asdict(self.counters), settings)


def capture(state: TrainState, best: Arrays | None, group: Group = ALONE, rows: int = 0) -> Arrays:
    """Every array of a run between two steps, by name; AdamW's moments are zeros before the first step.

    Args:
        state: of this process.
        best: the best weights so far.
        group: the processes, each of which has the carried state of its rows.
        rows: how many these are in all.
    """
    arrays = {f"weights.{name}": array for name, array in weights_of(state.model).items()}
    arrays |= {f"best.{name}": array for name, array in (best or {}).items()}
    for direction, layers in state.hidden.items():
        prefix = hidden_prefix(direction)
        whole = (group.gather(layer, rows) for layer in layers)
        arrays |= {f"{prefix}.{number}": layer.cpu().numpy() for number, layer in enumerate(whole)}
    for name, weight in state.model.named_parameters():
        moments = state.optimizer.state[weight]
        for part, key in (("first", "exp_avg"), ("second", "exp_avg_sq")):
            moment = moments.get(key)
            arrays[f"{part}.{name}"] = np.zeros(weight.shape, np.float32) if moment is None else moment.cpu().numpy()
    return arrays


def restore(arrays: Arrays, counters: Counters, state: TrainState, rows: range) -> Arrays | None:
    """Put what `capture` took into a state.

    Args:
        arrays: by name.
        counters: how many steps the optimizer has made.
        state: its weights, moments and carried state are set.
        rows: those of this process.

    Returns:
        The best weights so far.
    """
    device = state.model.device
    parts: dict[str, Arrays] = {}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = array.copy()
    set_weights(state.model, parts["weights"])
    for name, weight in state.model.named_parameters():
        steps = counters.cloze_applied if name.startswith("cloze.") else counters.applied
        if steps:
            moments = {"exp_avg": parts["first"][name], "exp_avg_sq": parts["second"][name]}
            state.optimizer.state[weight] = {key: torch.from_numpy(array).to(device) for key, array in moments.items()}
            # where fused AdamW keeps it
            state.optimizer.state[weight]["step"] = torch.tensor(float(steps), device=device)
    for direction in state.model.config.directions:
        if stored := parts.get(hidden_prefix(direction)):
            layers = (torch.from_numpy(stored[str(number)][rows.start : rows.stop]) for number in range(len(stored)))
            state.hidden[direction] = tuple(layer.to(device) for layer in layers)
    return parts.get("best")


def _source_names(corpus: Corpus) -> dict[str, list[str]]:
    """What the texts of each role are called, without their folders; of many texts the first five."""
    names_by_role = {}
    for role, sources in corpus.sources.items():
        names = [os.path.basename(os.path.normpath(name)) if name != "-" else "standard input" for name in sources]
        more = [f"and {len(names) - NAMES:,} more"] if len(names) > NAMES else []
        if names:
            names_by_role[role] = [truncate(name, 100) for name in names[:NAMES]] + more
    return names_by_role
