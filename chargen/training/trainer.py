"""The training loop, in the order things happen, and exact resume around it."""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from chargen.batches import Batch, Batches, ConsecutiveBatches, RandomBatches
from chargen.draws import Purpose, uniform
from chargen.durable import remove_leftovers
from chargen.errors import Diverged, SettingError
from chargen.model.config import ModelConfig
from chargen.model.device import autocast, pick_device, pick_precision
from chargen.model.dropout import Noise
from chargen.model.language_model import CharModel
from chargen.model.recurrent import State, detach, keep_rows
from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import RunState, read_run_state, save_run_state
from chargen.text.corpus import Corpus
from chargen.text.reading import ReadingConfig
from chargen.training.budget import Budget
from chargen.training.config import TrainConfig, changed_config
from chargen.training.counters import Counters
from chargen.training.evaluate import Loss, folding_nats, loss_windows
from chargen.training.metrics import FILE_NAME as METRICS_NAME
from chargen.training.metrics import Metrics
from chargen.training.progress import Progress
from chargen.training.schedule import learning_rate
from chargen.training.snapshot import Arrays, capture, restore, set_weights, weights_of

MAX_BAD_STEPS = 3
SUBSET = 24_000
"""Ids of the fixed part of the validation text that is scored while training."""
SUBSET_SHARE = 0.03
"""By default, ids scored per id trained: scoring with its warm-up costs half of training, so 1.5 % of the time."""


class Trainer:
    """Trains a model on a corpus; `run` yields after every step, and may be left and entered again at any yield.

    Args:
        corpus: what to learn.
        model_config: the model's shape.
        config: the budget and the method.
        out: the run folder: model.safetensors (the best model), metrics.jsonl, state.safetensors. None writes nothing.
        started: `time.monotonic()` when the clock of a time budget began; now, by default.

    Raises DataError where the corpus is too small, SettingError where `out` already holds a run.
    """

    def __init__(
        self,
        corpus: Corpus,
        model_config: ModelConfig | None = None,
        config: TrainConfig | None = None,
        out: str | Path | None = None,
        *,
        started: float | None = None,
    ) -> None:
        out = Path(out) if out is not None else None
        if out and holds_a_run(out):
            raise SettingError(f"{out} already holds a run: go on with --resume, or choose another --out", "out")
        self._set_up(corpus, model_config or ModelConfig(), config or TrainConfig(), out, Counters(), started)

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
        kind: type[ConsecutiveBatches | RandomBatches]
        kind = ConsecutiveBatches if config.batching == "consecutive" else RandomBatches
        self.batches: Batches = kind(corpus.train, config.batch_size, config.seq_length, config.seed)
        self.device = pick_device(config.device)
        self.precision = pick_precision(config.precision, self.device)
        vocabulary = corpus.vocabulary
        self.model = CharModel(model_config, len(vocabulary), config.seed).to(self.device)
        self.optimizer = _adamw(self.model, config)
        self.hidden: State | None = None
        self.best: Arrays | None = None
        self.validates = len(corpus.valid) > 1 and vocabulary.count_characters(corpus.valid) > 1
        tests = len(corpus.test) > 1 and vocabulary.count_characters(corpus.test) > 1
        targets = config.batch_size * config.seq_length
        # By default as often as the subset's cost allows: it depends on text and batch only, never on the budget.
        usual = max(10, math.ceil(min(len(corpus.valid), SUBSET) / (SUBSET_SHARE * targets)))
        self.eval_every = config.eval_every or usual
        self.budget = Budget(
            config,
            self.batches,
            counters,
            started,
            end_sizes=(len(corpus.valid) * self.validates, len(corpus.test) * tests),
            subset=min(SUBSET, len(corpus.valid)) * self.validates,
        )
        if out:
            out.mkdir(parents=True, exist_ok=True)
            remove_leftovers(out)
        self.metrics = Metrics(out, counters.metrics_bytes)
        self.summary: dict[str, Any] = {}
        self._last_loss = math.nan
        self._saved_best: int | None = None
        self._last_save = time.monotonic()

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        corpus: Corpus,
        *,
        changes: dict[str, Any] | None = None,
        started: float | None = None,
    ) -> "Trainer":
        """Go on with a run as if it had never stopped.

        Args:
            folder: the run folder.
            corpus: the same corpus as before.
            changes: training settings to change; budget, learning rate, schedule, intervals and the like.

        Raises ModelFileError where the state is damaged, SettingError for a change that would make it another run.
        """
        state = read_run_state(folder)
        config = changed_config(state.settings, changes or {})
        if corpus.describe() != {**state.settings["corpus"], "sources": corpus.sources}:
            raise SettingError(f"the corpus is not the one that the run in {folder} was trained on; start a new run")
        trainer = cls.__new__(cls)
        counters = Counters.from_stored(state.progress)
        trainer._set_up(corpus, ModelConfig(**state.settings["model"]), config, Path(folder), counters, started)
        # What the folder's model file holds is at least as good as this best, and stays until a better one comes.
        trainer._saved_best = counters.best_step
        trainer.hidden, trainer.best = restore(state.arrays, counters.applied, trainer.model, trainer.optimizer)
        return trainer

    @property
    def finished(self) -> bool:
        """True where the budget is used, or patience is."""
        return self.budget.share() >= 1 or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """True where too many validations in a row brought no new best."""
        return 0 < self.config.patience <= self.counters.evaluations_since_best

    def run(self) -> Iterator[Progress]:
        """Train until the budget or patience ends, then score the best weights on the whole splits and save.

        Raises Diverged after three steps in a row whose loss or gradient is not finite; they are never applied.
        """
        config, counters, model = self.config, self.counters, self.model
        self.metrics.cut()
        if self.out and counters.step == 0:
            self.save()  # from here on the run can be resumed, and a full disk is known before the work
        yield from self._measure()
        while not self.finished or counters.step == 0:
            begun = time.monotonic()
            batch = self.batches.batch(counters.step)
            rate = learning_rate(config, counters.step, self.budget.share())
            targets = torch.from_numpy(batch.targets).to(self.device)

            with autocast(self.precision, self.device):
                logits, hidden = model(
                    torch.from_numpy(batch.inputs).to(self.device),
                    self._carried(batch),
                    Noise(config.seed, counters.step),
                )
            loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            norm = clip_grad_norm_(model.parameters(), config.clip_norm or math.inf)

            if math.isfinite(loss.item()) and math.isfinite(norm.item()):
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                self.optimizer.step()
                self.hidden = detach(hidden)
                counters.bad_steps = 0
                counters.applied += 1
                self._count(batch, loss.item(), norm.item(), rate)
            else:
                # The step never happened, except that its text is passed over: weights and state stay as they were.
                counters.bad_steps += 1
                self._last_loss = math.nan
            self.optimizer.zero_grad(set_to_none=True)
            counters.step += 1
            counters.since_seconds += time.monotonic() - begun
            self.budget.train_seconds += time.monotonic() - begun
            self.budget.train_steps += 1
            if counters.bad_steps == MAX_BAD_STEPS:
                raise Diverged(self._divergence())

            yield from self._measure()
            if self.out and time.monotonic() - self._last_save > 60 * config.save_minutes:
                self.save()
            yield self._progress("training")
        yield from self._finish()

    def _carried(self, batch: Batch) -> State | None:
        """The state of the rows that continue; the others start fresh, and a few that could continue with them."""
        if self.hidden is None:
            return None
        rows = np.arange(len(batch.continues))
        drawn = uniform(self.config.seed, rows, self.counters.step, Purpose.FRESH)
        kept = batch.continues & (drawn >= self.config.state_reset)
        return keep_rows(self.hidden, torch.from_numpy(kept).to(self.device))

    def _count(self, batch: Batch, loss: float, norm: float, rate: float) -> None:
        counters = self.counters
        characters = self.corpus.vocabulary.count_characters(batch.targets)
        nats = loss * batch.targets.size + folding_nats(self.corpus.vocabulary, batch.targets)
        counters.since_nats += nats
        counters.since_characters += characters
        counters.trained += batch.targets.size
        counters.grad_norm = norm
        self.budget.train_targets += batch.targets.size
        self.budget.train_characters += characters
        self._last_loss = nats / max(characters, 1)
        counters.lr = rate

    def _measure(self) -> Iterator[Progress]:
        """Where this step is due for it: validate, and write a line of metrics. Done at most once for a step."""
        counters = self.counters
        validate = self.validates and counters.step % self.eval_every == 0
        if counters.logged_step == counters.step or not (validate or counters.step % self.config.log_every == 0):
            return
        loss = None
        if validate:
            loss = (yield from self._score(self.model, self.corpus.valid, SUBSET, "validating")).mean
            counters.valid_loss = loss
            if math.isfinite(loss) and (counters.best_loss is None or loss < counters.best_loss):
                counters.best_loss, counters.best_step, counters.evaluations_since_best = loss, counters.step, 0
                self.best = weights_of(self.model)
            else:
                counters.evaluations_since_best += 1
        self.metrics.write(self._line(loss))
        counters.logged_step = counters.step
        counters.since_nats = counters.since_seconds = 0.0
        counters.since_characters = 0

    def _line(self, valid_loss: float | None) -> dict[str, Any]:
        counters = self.counters
        return {
            "step": counters.step,
            "epoch": counters.step / self.batches.steps_per_epoch,
            "seconds": round(self.budget.seconds(), 3),
            "train_loss": counters.since_nats / counters.since_characters if counters.since_characters else None,
            "valid_loss": valid_loss,
            "lr": self.counters.lr,
            "grad_norm": counters.grad_norm,
            "chars_per_second": round(counters.since_characters / max(counters.since_seconds, 1e-9), 1),
        }

    def _score(
        self, model: CharModel, ids: NDArray[Any], limit: int | None, doing: str
    ) -> Generator[Progress, None, Loss]:
        """The loss on `ids`, or on `limit` of them, yielding between windows."""
        parts = []
        begun = time.monotonic()
        for part in loss_windows(model, ids, vocabulary=self.corpus.vocabulary, limit=limit, precision=self.precision):
            parts.append(part)
            yield self._progress(doing)
        self.counters.eval_seconds += time.monotonic() - begun
        self.counters.evaluated += min(len(ids), limit or len(ids))
        return Loss(math.fsum(part.nats for part in parts), sum(part.characters for part in parts))

    def _finish(self) -> Iterator[Progress]:
        """Choose the best weights, score them on the whole splits, and save them with the figures.

        Nothing here changes what a longer run would do: its state is saved before, and its metrics end before.
        """
        counters = self.counters
        if self.out:
            self.save()
        valid_limit, test_limit = self.budget.end_limits()
        best, best_step = self.best, counters.best_step
        if counters.best_loss is not None and counters.step % self.eval_every:
            last = yield from self._score(self.model, self.corpus.valid, SUBSET, "finishing")
            if last.mean < counters.best_loss:
                best = None
        judged = self.model
        if best is not None:
            judged = CharModel(self.model_config, len(self.corpus.vocabulary)).to(self.device)
            set_weights(judged, best)
        else:
            best_step = counters.step
        assert best_step is not None
        self.summary = self._summary(best_step)
        for name, ids, limit, size in (
            ("valid", self.corpus.valid, valid_limit, self.budget.end_sizes[0]),
            ("test", self.corpus.test, test_limit, self.budget.end_sizes[1]),
        ):
            if size:
                loss = yield from self._score(judged, ids, limit, "finishing")
                self.summary |= {
                    f"{name}_loss": loss.mean,
                    f"{name}_characters": loss.characters,
                    f"{name}_whole": limit is None,
                }
        counters.complete = True
        if self.out:
            # The state last: a kill before it leaves a run that ends again, and its metrics are cut before they go on.
            save_model(self.out / FILE_NAME, self.model_file(weights_of(judged), self.summary))
            self.metrics.write({**self._line(self.summary.get("valid_loss")), "final": True})
            counters.seconds = self.budget.seconds()
            save_run_state(self.out, self._state())
        yield self._progress("finishing")

    def _summary(self, step: int) -> dict[str, Any]:
        """What the model file says of its training: no clock, no path."""
        corpus = asdict(self.corpus.config)
        # A part that is a text of its own is no fraction of the training text.
        corpus |= {f"{role}_fraction": 0.0 for role in ("valid", "test") if self.corpus.sources[role]}
        return {
            "step": step,
            "epoch": step / self.batches.steps_per_epoch,
            "precision": self.precision,
            "settings": {**asdict(self.config), **{name: corpus[name] for name in sorted(corpus)}},
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
        )

    def save(self) -> None:
        """Save the run at this step, and the best model so far (this one, before the first validation).

        Raises Diverged where a weight is not finite: then nothing is saved.
        """
        assert self.out is not None, "a Trainer without a run folder saves nothing"
        if not all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters()):
            raise Diverged(self._divergence())
        begun = time.monotonic()
        counters = self.counters
        counters.seconds, counters.metrics_bytes = self.budget.seconds(), self.metrics.sync()
        counters.complete = False
        # The model first: a kill in between leaves a state whose next steps make the same model again. At the start the
        # state first: a model alone could not be resumed.
        if counters.step == 0:
            save_run_state(self.out, self._state())
        if self.best is None or counters.best_step != self._saved_best:
            summary = self._summary(counters.step if counters.best_step is None else counters.best_step)
            if counters.best_loss is not None:
                summary |= {"valid_loss": counters.best_loss, "valid_whole": False}
            save_model(self.out / FILE_NAME, self.model_file(self.best, summary))
            self._saved_best = counters.best_step
        save_run_state(self.out, self._state())
        self._last_save = time.monotonic()
        self.budget.save_seconds = max(self.budget.save_seconds, self._last_save - begun)

    def _state(self) -> RunState:
        self.counters.hidden = self.hidden is not None
        settings = {
            "model": asdict(self.model_config),
            "training": asdict(self.config),
            "corpus": self.corpus.describe(),
            "vocabulary_size": len(self.corpus.vocabulary),
            "machine": self.machine(),
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
        kept = f"; the last good state is in {self.out}" if self.out and (self.out / STATE_NAME).exists() else ""
        return (
            f"training diverged at step {self.counters.step}: loss or gradient not finite {MAX_BAD_STEPS} times "
            f"in a row{kept}; try a lower --lr than {self.config.lr:g}"
        )

    def _progress(self, doing: str) -> Progress:
        counters, budget = self.counters, self.budget
        speed = counters.since_characters / counters.since_seconds if counters.since_seconds else 0.0
        if not speed and budget.train_seconds:
            speed = budget.train_characters / budget.train_seconds
        return Progress(
            step=counters.step,
            epoch=counters.step / self.batches.steps_per_epoch,
            seconds=budget.seconds(),
            train_loss=self._last_loss,
            valid_loss=counters.valid_loss,
            lr=self.counters.lr,
            grad_norm=counters.grad_norm,
            chars_per_second=speed,
            share=min(1.0, budget.share()),
            seconds_left=budget.seconds_left(),
            doing=doing,
        )


def holds_a_run(folder: Path) -> bool:
    """True where a new run would overwrite what an older one left."""
    files = (folder / name for name in (STATE_NAME, FILE_NAME, METRICS_NAME))
    return any(file.exists() and file.stat().st_size > 0 for file in files)


def _adamw(model: CharModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019), fused where there is one; biases are not decayed."""
    groups = [
        {"params": [weight for weight in model.parameters() if weight.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [weight for weight in model.parameters() if weight.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=model.device.type in ("cpu", "cuda", "mps"))
