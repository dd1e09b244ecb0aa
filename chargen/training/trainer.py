"""The training loop, in the order things happen."""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from chargen.data.batches import Batch, draw_resets
from chargen.errors import NOT_FINITE, Diverged, amount, truncate
from chargen.evaluation.loss import Loss, folding_nats, loss_windows, sum_losses
from chargen.model.device import autocast, float32_products, to_device
from chargen.model.dropout import Masks
from chargen.model.language_model import CharModel
from chargen.model.layers import State, detach, reset_rows
from chargen.model.loss import cross_entropy
from chargen.model.weights import set_weights, weights_of
from chargen.storage.model_file import FILE_NAME, save_model
from chargen.storage.run_state import save_run_state
from chargen.training.cloze_task import cloze_loss, even_windows
from chargen.training.cuda_graph import CapturedStep, Figures, Given
from chargen.training.metrics import is_logged_step
from chargen.training.progress import Progress, as_table
from chargen.training.run import MAX_BAD_STEPS, SUBSET, Run
from chargen.training.schedule import learning_rate

Losses = dict[str, Loss]
"""By "forward", "backward" and "cloze"."""


@dataclass(frozen=True, eq=False)
class _Step:
    """A step whose figures may still be on their way.

    Args:
        batches: what it read.
        names, figures: of its losses; these losses, and then the norms of their gradients, on the device.
        rate: its learning rate.
        cloze_characters: how many the cloze layer learned from.
    """

    batches: dict[str, Batch]
    names: tuple[str, ...]
    figures: Tensor
    rate: float
    cloze_characters: int


class Trainer(Run):
    """Trains a model on a corpus; `run` yields after every step, and may be left and entered again at any yield.

    Args:
        corpus: what to learn.
        model_config: the model's shape.
        config: the budget and the method.
        out: the run folder: model.safetensors (the best model), metrics.jsonl, state.safetensors. None writes nothing.
        init: start from these weights; the corpus must know its characters (`Corpus.from_files(..., known=)`).
        started: `time.monotonic()` when the clock of a time budget began; now, by default.
        overwrite: replace the run that `out` holds; it stays until this one saves what it has learned.

    Raises DataError where the corpus is too small, SettingError where `out` already holds a run (with `overwrite`:
    files of such names that are none).
    """

    def __len__(self) -> int:
        """Steps of the budget. Raises TypeError where it is one of minutes only."""
        if self.budget.steps is None:
            raise TypeError("how many steps a budget in minutes has is not known beforehand; give steps or epochs")
        return self.budget.steps

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Trainer({', '.join(f'{name} {value}' for name, value in self._told().items())})"

    def _repr_html_(self) -> str:
        return as_table(self._told())

    def _told(self) -> dict[str, str]:
        """What matters, by name."""
        shape, counters, vocabulary = self.model_config, self.counters, self.corpus.vocabulary
        ways = ", both ways" if shape.bidirectional else ""
        told = {
            "model": f"{shape.cell.upper()} {shape.num_layers} x {shape.hidden_size}{ways}",
            "text": f"{amount(len(self.corpus.train), vocabulary.unit)}, {len(vocabulary):,} different",
            "step": f"{counters.step:,}" + ("" if self.budget.steps is None else f" of {self.budget.steps:,}"),
        }
        if self.config.minutes is not None:
            told["minutes"] = f"{self.budget.seconds() / 60:.1f} of {self.config.minutes:g}"
        if counters.best_loss is not None:
            told["best"] = f"{counters.best_loss:.4f} nats at step {counters.best_step:,}"
        return told | {"in": "memory only" if self.out is None else truncate(self.out, 200)}

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
        config, counters = self.config, self.counters
        counters.complete = False
        if not self.replaces:
            self.metrics.cut()
        if self.out and counters.step == 0 and not self.replaces:
            self.save()  # from here on the run can be resumed, and a full disk is known before the work
        valid = yield from self._measure()
        if valid:
            yield self._progress("validating", valid)
        while not self.finished or counters.step == 0:
            begun = time.monotonic()
            rate = learning_rate(config, counters.step, self.budget.share())
            batches = {direction: batches.batch(counters.step) for direction, batches in self.batches.items()}
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(rate)
            given = {direction: self._on_device(direction, batch) for direction, batch in batches.items()}
            learns_cloze = self.cloze is not None and self.cloze.due(counters.step)
            step = self.step if learns_cloze or self.captured is None else self.captured
            names, figures, cloze_characters = step(given, self.noise())
            self.pending.append(_Step(batches, names, figures, rate, cloze_characters))
            counters.step += 1
            # The first one tells how fast it goes.
            if len(self.pending) >= self.ahead or self._due() or not self.budget.train_steps:
                self._settle()
            counters.since_seconds += time.monotonic() - begun
            self.budget.train_seconds += time.monotonic() - begun
            self.budget.train_steps += 1

            valid = yield from self._measure()
            if self.out and time.monotonic() - self._last_save > 60 * config.save_minutes:
                self.try_to_save()
            yield self._progress("training", valid)
        yield from self._finish()

    def save(self) -> None:
        """As `Run.save`; steps whose figures are still on their way are counted first."""
        self._settle()
        super().save()

    def _set_up(self, *arguments: Any) -> None:
        super()._set_up(*arguments)
        self.pending: list[_Step] = []
        self.captured = CapturedStep(self) if self.device.type == "cuda" else None

    def step(self, given: dict[str, Given], noise: Masks) -> Figures:
        """Learn from a minibatch of each direction: forward, loss, backward, clip, update."""
        losses, norms, hidden = self.gradients(given, noise)
        cloze_characters = 0
        if self.cloze and self.cloze.due(self.counters.step):
            with autocast(self.precision, self.device):
                losses["cloze"], cloze_characters = self.cloze.loss(self.model, self.counters.step)
            norms["cloze"] = self._add_gradient(losses["cloze"], "cloze")
            if not (math.isfinite(losses["cloze"].item()) and math.isfinite(norms["cloze"].item())):
                # The cloze layer may harm nothing but itself.
                del losses["cloze"], norms["cloze"]
                cloze_characters = 0
                for weight in self.parts["cloze"]:
                    weight.grad = None

        figures = torch.stack([*losses.values(), *norms.values()]).detach()
        self._apply(torch.isfinite(figures).all(), hidden)
        self.optimizer.zero_grad(set_to_none=True)
        return tuple(losses), figures, cloze_characters

    def gradients(
        self, given: dict[str, Given], noise: Masks
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, State]]:
        """Forward, loss, backward and clip for each direction: its loss, its gradient's norm, the state after it."""
        losses: dict[str, Tensor] = {}
        norms: dict[str, Tensor] = {}
        hidden: dict[str, State] = {}
        for direction, (inputs, targets, kept) in given.items():
            state = self._carried(direction, kept)
            with autocast(self.precision, self.device):
                values, hidden[direction] = self.model.read(inputs, state, noise, direction)
                losses[direction] = cross_entropy(values, self.model.output, targets)
            norms[direction] = self._add_gradient(losses[direction], direction)
        return losses, norms, hidden

    def _carried(self, direction: str, kept: Tensor) -> State | None:
        """The state of the rows that go on; the others start fresh."""
        return reset_rows(self.hidden[direction], kept) if direction in self.hidden else None

    def _on_device(self, direction: str, batch: Batch) -> Given:
        """A minibatch there, and which rows go on from the state before: all that can but for a few, drawn anew."""
        config = self.config
        address = config.seed, self.counters.step, self.rows, config.batch_size, direction
        kept = batch.continues & ~draw_resets(config.state_reset, *address)
        return to_device(batch.inputs, self.device), to_device(batch.targets, self.device), to_device(kept, self.device)

    def _rate(self, rate: float) -> float | Tensor:
        """A learning rate as the optimizer takes it: where a graph is replayed, in a place that it can read."""
        return rate if self.captured is None else self.captured.rate.fill_(rate)

    def _add_gradient(self, loss: Tensor, part: str) -> Tensor:
        """Add the gradient of a loss, clipped by its own norm, to what the weights have; return the norm before."""
        weights = self.parts[part]
        before = [weight.grad for weight in weights]
        for weight in weights:
            weight.grad = None
        with float32_products(self.precision, self.device):
            loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_grad_norm_(weights, self.config.clip_norm or math.inf)
        for weight, gradient in zip(weights, before, strict=True):
            if gradient is not None:
                assert weight.grad is not None
                weight.grad += gradient
        return norm

    def _apply(self, good: Tensor, hidden: dict[str, State]) -> None:
        """Take the step where all its figures are finite; otherwise weights and state stay as they were.

        Args:
            good: whether they are, on the device.
            hidden: the states after the step's text.
        """
        if self.ahead == 1:
            if good:
                self.optimizer.step()
                self.hidden = {direction: detach(state) for direction, state in hidden.items()}
            return
        # The device decides, so that the host need not wait.
        self.optimizer.found_inf = 1 - good.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        for direction, state in hidden.items():
            before = self.hidden.setdefault(direction, tuple(torch.zeros_like(layer) for layer in state))
            for place, new in zip(before, detach(state), strict=True):
                place.copy_(torch.where(good, new, place))

    def _settle(self) -> None:
        """Learn from the device how the steps went that are not counted yet, and count them.

        Raises Diverged after three in a row that were not finite.
        """
        counters, pending, diverged = self.counters, self.pending, False
        self.pending = []
        if not pending:
            return
        values = iter(torch.cat([step.figures for step in pending]).tolist())
        for step in pending:
            found = {name: next(values) for name in step.names}
            lengths = {name: next(values) for name in step.names}
            if all(map(math.isfinite, (*found.values(), *lengths.values()))):
                counters.bad_steps = 0
                counters.applied += 1
                counters.cloze_applied += step.cloze_characters > 0
                counters.lr = step.rate
                counters.grad_norm = math.hypot(*(lengths[direction] for direction in step.batches))
                self._count(step.batches, found, step.cloze_characters)
            else:
                # It never happened, except that its text was passed over.
                counters.bad_steps += 1
                self._last_loss, self._last_losses = math.nan, {}
            diverged = diverged or counters.bad_steps >= MAX_BAD_STEPS
        if diverged:
            raise Diverged(self._divergence())

    def _count(self, batches: dict[str, Batch], losses: dict[str, float], cloze_characters: int) -> None:
        counters, vocabulary = self.counters, self.corpus.vocabulary
        self._last_losses = dict(losses)
        for direction, batch in batches.items():
            characters = vocabulary.count_characters(batch.targets)
            nats = losses[direction] * batch.targets.size + folding_nats(vocabulary, batch.targets)
            self._last_losses[direction] = nats / max(characters, 1)
            if direction == "backward":
                counters.since_backward_nats += nats
                counters.since_backward_characters += characters
                continue
            counters.since_nats += nats
            counters.since_characters += characters
            counters.trained += batch.targets.size
            self.budget.train_targets += batch.targets.size
            self.budget.train_characters += characters
        counters.since_cloze_nats += losses.get("cloze", 0.0) * cloze_characters
        counters.since_cloze_characters += cloze_characters
        self._last_loss = sum(self._last_losses[direction] for direction in batches) / len(batches)

    def _measure(self) -> Generator[Progress, None, Losses]:
        """Where this step is due for it: validate, and write a line of metrics. Done at most once for a step.

        Returns what the validation found; nothing where there was none.
        """
        counters = self.counters
        losses: Losses = {}
        if not self._due():
            return losses
        self._settle()
        validates = self._validation_due()
        writes = self._line_due(validates)
        if validates:
            losses = yield from self._score(self.model, self.corpus.valid, SUBSET, "validating")
            if not math.isfinite(self._mean(losses)):
                losses = {}  # overflowing weights: it says nothing, and the next steps decide whether the run goes on
            loss = self._mean(losses) if losses else None
            if loss is not None and (counters.best_loss is None or loss < counters.best_loss):
                counters.best_loss, counters.best_step, counters.evaluations_since_best = loss, counters.step, 0
                self.best = weights_of(self.model)
            else:
                counters.evaluations_since_best += 1
            self._validated = counters.step
        counters.logged_step = counters.step
        if not writes:
            return losses
        self.metrics.write(self._line(losses))
        counters.since_nats = counters.since_backward_nats = counters.since_cloze_nats = counters.since_seconds = 0.0
        counters.since_characters = counters.since_backward_characters = counters.since_cloze_characters = 0
        return losses

    def _validation_due(self) -> bool:
        """True at multiples of `eval_every`; where that is the usual one, of those that a time budget has time for."""
        if not self.validates or self.counters.step % self.eval_every:
            return False
        return self.config.eval_every is not None or self.budget.may_validate()

    def _due(self) -> bool:
        """True where this step's figures are to be written, and are not yet."""
        step = self.counters.step
        validates = self._validation_due()
        return self.counters.logged_step != step and (validates or self._line_due(validates))

    def _line_due(self, validates: bool) -> bool:
        step = self.counters.step
        return is_logged_step(step, self.config.log_every) or (validates and is_logged_step(step, self.eval_every))

    def _line(self, valid: Losses) -> dict[str, Any]:
        """A line of metrics; where the model is bidirectional, with the parts of both losses behind."""
        counters = self.counters
        sums = {"forward": (counters.since_nats, counters.since_characters)}
        if self.cloze:
            sums["backward"] = counters.since_backward_nats, counters.since_backward_characters
            sums["cloze"] = counters.since_cloze_nats, counters.since_cloze_characters
        train = {name: Loss(*found) for name, found in sums.items() if found[1]}
        line = {
            "step": counters.step,
            "epoch": counters.step / self.batches["forward"].steps_per_epoch,
            "seconds": round(self.budget.seconds(), 3),
            "train_loss": self._mean(train) if "forward" in train else None,
            "valid_loss": self._mean(valid) if valid else None,
            "lr": self.counters.lr,
            "grad_norm": counters.grad_norm,
            "chars_per_second": round(counters.since_characters / max(counters.since_seconds, 1e-9), 1),
        }
        if self.cloze:
            for role, losses in (("train", train), ("valid", valid)):
                line |= {f"{role}_loss_{name}": None for name in self.batches} | {f"{role}_cloze": None}
                line |= self._named(role, losses)
        return line

    def _mean(self, losses: Losses) -> float:
        """The mean over the directions; the cloze layer's loss is another thing and stays out."""
        return sum(losses[direction].mean for direction in self.batches) / len(self.batches)

    def _named(self, role: str, losses: Losses) -> dict[str, float]:
        """A bidirectional model's losses under the names that files have for them."""
        return {
            f"{role}_cloze" if name == "cloze" else f"{role}_loss_{name}": loss.mean for name, loss in losses.items()
        }

    def _score(
        self, model: CharModel, ids: NDArray[Any], limit: int | None, doing: str
    ) -> Generator[Progress, None, Losses]:
        """The losses on `ids`, or on `limit` of them, yielding between windows.

        Cloze on a quarter as many, from fresh states, in nats per id: of a byte, or of an unknown symbol as it is.
        """
        found = {}
        begun = time.monotonic()
        size = min(len(ids), limit or len(ids))
        options: dict[str, Any] = {"vocabulary": self.corpus.vocabulary, "limit": limit, "precision": self.precision}
        for direction in self.batches:
            parts = []
            for part in loss_windows(model, ids, **options, direction=direction):
                parts.append(part)
                yield self._progress(doing)
            found[direction] = sum_losses(parts)
        if self.cloze:
            parts = []
            for windows in even_windows(ids, size // 4):
                with torch.inference_mode(), autocast(self.precision, self.device):
                    loss, count = cloze_loss(model, windows)
                parts.append(Loss(loss.item() * count, count))
                yield self._progress(doing)
            cloze = Loss(sum(part.nats for part in parts), sum(part.characters for part in parts))
            if parts and math.isfinite(cloze.nats):
                found["cloze"] = cloze
        self.budget.scored(size, time.monotonic() - begun)
        return found

    def _finish(self) -> Iterator[Progress]:
        """Choose the best weights, score them on the whole splits, and save them with the figures.

        Nothing here changes what a longer run would do: its state is saved before, and its metrics end before.
        """
        counters = self.counters
        self._settle()
        if self.out:
            self.save()
        valid_limit, test_limit = self.budget.end_limits()
        best, best_step = self.best, counters.best_step
        if counters.best_loss is not None and counters.step != self._validated:
            last = yield from self._score(self.model, self.corpus.valid, SUBSET, "finishing")
            if self._mean(last) < counters.best_loss:
                best = None
        judged = self.model
        if best is not None:
            judged = CharModel(self.model_config, len(self.corpus.vocabulary)).to(self.device)
            set_weights(judged, best)
        else:
            best_step = counters.step
        assert best_step is not None
        self.summary = self._summary(best_step)
        scored: dict[str, Losses] = {"valid": {}, "test": {}}
        for name, ids, limit, size in (
            ("valid", self.corpus.valid, valid_limit, self.budget.end_sizes[0]),
            ("test", self.corpus.test, test_limit, self.budget.end_sizes[1]),
        ):
            if size:
                losses = yield from self._score(judged, ids, limit, "finishing")
                if not math.isfinite(self._mean(losses)):
                    raise Diverged(NOT_FINITE)
                scored[name] = losses
                self.summary |= {
                    f"{name}_loss": self._mean(losses),
                    f"{name}_characters": losses["forward"].characters,
                    f"{name}_whole": limit is None,
                }
                if self.corpus.vocabulary.unit == "byte":
                    self.summary[f"{name}_bytes"] = losses["forward"].ids
                self.summary |= self._named(name, losses) if self.cloze else {}
        counters.complete = True
        if self.out:
            self.metrics.sync()
            # The state last: a kill before it leaves a run that ends again, and its metrics are cut before they go on.
            save_model(self.out / FILE_NAME, self.model_file(weights_of(judged), self.summary))
            line = self._line(scored["valid"])
            if scored["test"]:
                line |= {"test_loss": self._mean(scored["test"])}
                line |= self._named("test", scored["test"]) if self.cloze else {}
            self.metrics.write({**line, "final": True})
            self.metrics.sync()
            counters.seconds = self.budget.seconds()
            save_run_state(self.out, self._state())
        yield self._progress("finishing", scored["valid"], scored["test"])

    def _progress(self, doing: str, valid: Losses | None = None, test: Losses | None = None) -> Progress:
        """Where the run stands, with the losses that this moment brings."""
        counters, budget = self.counters, self.budget
        speed = counters.since_characters / counters.since_seconds if counters.since_seconds else 0.0
        if not speed and budget.train_seconds:
            speed = budget.train_characters / budget.train_seconds
        valid_losses, test_losses = (
            {name: loss.mean for name, loss in (losses or {}).items()} if self.cloze else {} for losses in (valid, test)
        )
        return Progress(
            step=counters.step,
            epoch=counters.step / self.batches["forward"].steps_per_epoch,
            seconds=budget.seconds(),
            train_loss=self._last_loss,
            valid_loss=self._mean(valid) if valid else None,
            test_loss=self._mean(test) if test else None,
            lr=self.counters.lr,
            grad_norm=counters.grad_norm,
            chars_per_second=speed,
            share=min(1.0, budget.share()),
            seconds_left=budget.seconds_left(),
            doing=doing,
            train_losses=self._last_losses if self.cloze else {},
            valid_losses=valid_losses,
            test_losses=test_losses,
            warning=self.warning,
        )
