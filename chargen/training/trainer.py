"""The training loop, in the order things happen."""

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from chargen.data.corpus import Corpus
from chargen.errors import Diverged
from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.model.loss import cross_entropy
from chargen.model.weights import weights_of
from chargen.storage.model_file import ModelFile
from chargen.training import setup
from chargen.training.config import TrainConfig
from chargen.training.group import ALONE, Group
from chargen.training.losses import Losses
from chargen.training.progress import Progress, as_table, tell_while
from chargen.training.schedule import learning_rate
from chargen.training.setup import MakeOptimizer, OwnParts, RunSettings
from chargen.training.train_log import TrainLog
from chargen.training.train_step import LossFunction, StepReport, adamw
from chargen.training.validator import Validator


class Trainer:
    """Trains a model on a corpus; `run` yields after every step, and may be left and entered again at any yield.

    Args:
        corpus: what to learn.
        model_config: the model's shape.
        config: the budget and the method.
        out: the run folder: model.safetensors (the best model), metrics.jsonl, state.safetensors. None writes nothing.
        init: start from these weights; the corpus must know its characters (`Corpus.from_files(..., known=)`).
        started: `time.monotonic()` when the clock of a time budget began; now, by default.
        overwrite: replace the run that `out` holds; it stays until this one saves what it has learned.
        model: a network of that shape to train; a new one by default.
        optimizer: a function (model, config) -> torch optimizer; AdamW by default.
        loss: a function (values (B, T, H), output layer, targets (B, T)) -> scalar in nats; cross-entropy by default.
        group: the processes that train together (`join_group`); this one alone by default.

    Raises:
        DataError: where the corpus is too small.
        SettingError: where `out` already holds a run (with `overwrite`: files of such names that are none).
    """

    def __init__(
        self, corpus: Corpus, model_config: ModelConfig | None = None, config: TrainConfig | None = None,
        out: str | Path | None = None, *, init: ModelFile | None = None, started: float | None = None,
        overwrite: bool = False, model: CharModel | None = None, optimizer: MakeOptimizer = adamw,
        loss: LossFunction = cross_entropy, group: Group = ALONE,
    ) -> None:  # fmt: skip
        own = OwnParts(model, optimizer, loss)
        self._build(setup.check_new_run(corpus, model_config, config, out, init, overwrite, own, group), started)
        if init:
            self.checkpointer.origin = setup.start_from(init, self.model, corpus, group)

    def _build(self, run: RunSettings, started: float | None) -> None:
        """Put the parts together, in the order in which they need each other."""
        self._settings = run
        self.corpus, self.model_config, self.config, self.out, self.counters = run[:5]
        self.group = run.group
        self.device, self.precision = setup.pick_hardware(run)
        self.batches = setup.new_batches(run, self.device)
        self.state = setup.new_state(run, self.device)
        self.train_step, self.max_pending = setup.new_step(run, self.device, self.precision)
        self.budget = setup.new_budget(run, self.batches["forward"], started, self.max_pending)
        self.validator = Validator(self.corpus, self.config, self.precision, self.budget, self.counters, self.group)
        metrics = setup.open_metrics(run)
        self.log = TrainLog(self.corpus.vocabulary, self.model_config.directions, self.budget, metrics, self.group)
        self.checkpointer = setup.new_checkpointer(run, self.precision, self.budget, metrics)
        self.pending: list[StepReport] = []
        self.summary: dict[str, Any] = {}
        self.best_model: ModelFile | None = None  # at the end of the run

    @classmethod
    def resume(
        cls, folder: str | Path, corpus: Corpus | None = None, *,
        changes: dict[str, Any] | None = None, started: float | None = None, group: Group = ALONE,
    ) -> Self:  # fmt: skip
        """Go on with a run as if it had never stopped.

        Args:
            folder: the run folder.
            corpus: the same corpus as before, wherever its text lies now; read again from where it lay, by default.
            changes: training settings to change; budget, learning rate, schedule, intervals and the like.
            started: `time.monotonic()` when the clock of this process began; now, by default.
            group: the processes that train together; this one alone by default.

        Raises:
            ModelFileError: where the state is damaged.
            SettingError: for a change that would make it another run.
            DataError: where the text is gone or has changed.
        """
        trainer = cls.__new__(cls)
        stored, run = setup.read_run(Path(folder), corpus, changes or {}, group)
        trainer._build(run, started)
        trainer.validator.best = trainer.checkpointer.resume(stored, trainer.state)
        trainer._begin_batches()
        return trainer

    def run(self) -> Iterator[Progress]:
        """Train until the budget or patience ends, then score the best weights on the whole splits and save; once.

        Raises:
            Diverged: after three steps in a row whose loss or gradient is not finite; they are never applied.
        """
        counters, checkpointer = self.counters, self.checkpointer
        if counters.complete and self.summary:
            return
        if counters.step == 0:
            counters.network_seconds = self.budget.seconds()  # what the start has taken is no network's part
        checkpointer.begin(self.state)
        valid = yield from self._validate_and_log()
        if valid:
            yield self._progress("validating", valid)
        while not self.finished or self.state.step == 0:
            if self._network_finished and not self._is_last:
                yield from self._begin_network()
            began, state = self.budget.now(), self.state
            batches = {direction: batches.batch(state.step) for direction, batches in self.batches.items()}
            lr = learning_rate(self.config, state.step - counters.network_step, self.budget.network_share())
            self.pending.append(self.train_step(state, batches, lr))
            counters.step = state.step
            reads_now = len(self.pending) >= self.max_pending or not self.budget.train_steps  # it needs a speed
            if reads_now or any(self.log.due(self.validator)):
                self._read_reports()
            self.budget.trained(self.budget.now() - began)
            valid = yield from self._validate_and_log()
            if checkpointer.due():
                self._read_reports()
                checkpointer.try_to_save(state, self.validator.best)
            yield self._progress("training", valid)
        yield from self._finish()

    def save(self) -> None:
        """Save the run at this step, and the best model so far; see `Checkpointer.save`."""
        self._read_reports()
        self.checkpointer.save(self.state, self.validator.best)

    def _validate_and_log(self) -> Generator[Progress, None, Losses]:
        """Where this step is due for it, validate and write a line of metrics; return what the validation found."""
        validates, writes = self.log.due(self.validator)
        if not (validates or writes):
            return {}
        self._read_reports()
        losses: Losses = {}
        if validates:
            losses = yield from tell_while(self.validator.validate(self.model), self._progress, "validating")
        self.counters.logged_step = self.state.step
        if writes:
            self.log.write_line(losses)
        return losses

    def _read_reports(self) -> None:
        """Count the steps that are made but not counted; a GPU is waited for."""
        pending, self.pending = self.pending, []
        if self.log.record(pending):
            raise Diverged(self.checkpointer.divergence())

    def _begin_network(self) -> Iterator[Progress]:
        """Keep the best weights of the network that is trained, and begin to train another one."""
        self._read_reports()
        best, _ = yield from tell_while(self.validator.choose_best(self.model), self._progress, "validating")
        self.checkpointer.begin_network(weights_of(best))
        self.counters.begin_network(self.budget.seconds())
        self.validator.begin_network()
        self.state = setup.new_state(self._settings, self.device)
        self.state.step = self.counters.step
        self._begin_batches()
        self.train_step, self.max_pending = setup.new_step(self._settings, self.device, self.precision)

    def _begin_batches(self) -> None:
        """What the network under way learns from: the text, and what teachers write."""
        finished = self.checkpointer.finished
        self.batches = setup.new_batches(self._settings, self.device, self.precision, finished)

    def _finish(self) -> Iterator[Progress]:
        """Choose the best weights, score them on the whole splits, and save them with the figures.

        Nothing here changes what a longer run would do: its state is saved before, and its metrics end before.
        """
        self._read_reports()
        if self.out:
            self.save()
        limits = self.budget.end_limits()
        best, step = yield from tell_while(self.validator.choose_best(self.model), self._progress, "finishing")
        self.summary = self.checkpointer.summary(step)
        finished = self.checkpointer.finished[self.config.teachers :]
        networks = [*setup.build_finished(self._settings, finished, self.device), best]
        scoring = self.validator.score_whole(networks, limits)
        losses, figures, mixtures = yield from tell_while(scoring, self._progress, "finishing")
        self.summary |= figures
        model = self.checkpointer.model_file(weights_of(best), self.summary)
        self.best_model = replace(model, mixtures=mixtures).with_networks(map(weights_of, networks))
        self.counters.complete = True
        line = {**self.log.line(losses["valid"], losses["test"]), "final": True}
        self.checkpointer.save_end(self.state, self.validator.best, self.best_model, line)
        yield self._progress("finishing", losses["valid"], losses["test"])

    def _progress(self, doing: str, valid: Losses | None = None, test: Losses | None = None) -> Progress:
        return self.log.progress(doing, valid, test, self.checkpointer.warning)

    @property
    def model(self) -> CharModel:
        """The network, as it is at this step."""
        return self.state.model

    @property
    def finished(self) -> bool:
        """True where the budget is used, or the patience with the last network."""
        return self.budget.share() >= 1 or (self._network_finished and self._is_last)

    @property
    def _network_finished(self) -> bool:
        return self.budget.network_share() >= 1 or self.validator.out_of_patience

    @property
    def _is_last(self) -> bool:
        return self.counters.network + 1 >= self.config.networks

    def model_file(self) -> ModelFile:
        """The model of this step as a value."""
        return self.checkpointer.model_file(weights_of(self.model))

    def __len__(self) -> int:
        """Steps of the budget; a TypeError where it is one of minutes only."""
        if self.budget.steps is None:
            raise TypeError("how many steps a budget in minutes has is not known beforehand; give steps or epochs")
        return self.budget.steps

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Trainer({', '.join(f'{name} {value}' for name, value in self.checkpointer.describe().items())})"

    def _repr_html_(self) -> str:
        return as_table(self.checkpointer.describe())
