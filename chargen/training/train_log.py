"""What training tells: sums over steps since the last line of metrics, that line, and a Progress for every step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chargen.data.vocabulary import Vocabulary
from chargen.evaluation.loss import Loss, charge
from chargen.training.budget import Budget
from chargen.training.group import ALONE, Group
from chargen.training.loss_parts import Counts
from chargen.training.losses import Losses, mean_loss, named_losses
from chargen.training.metrics import Metrics, is_logged_step
from chargen.training.progress import Progress
from chargen.training.train_step import MAX_BAD_STEPS, StepReport, read_figures
from chargen.training.validator import Validator


@dataclass(eq=False)
class TrainLog:
    """Counts steps and writes lines of metrics.

    Args:
        vocabulary: counts characters among ids.
        directions: of the model.
        budget: learns how much was trained; its counters are changed here.
        metrics: where lines go.
        group: the processes that train together.
    """

    vocabulary: Vocabulary
    directions: tuple[str, ...]
    budget: Budget
    metrics: Metrics
    group: Group = ALONE

    def __post_init__(self) -> None:
        self.counters = self.budget.counters
        self.speed = 0.0
        """Characters a second before the latest line of metrics."""
        self.losses: dict[str, float] = {}
        """Of the latest step, in nats per character; none where it was not finite."""

    def record(self, reports: Iterable[StepReport]) -> bool:
        """Count steps. A step that was not finite never happened, except that its text was passed over.

        Returns:
            Whether training has diverged: too many steps in a row were not finite.
        """
        counters, diverged, reports = self.counters, False, list(reports)
        for report, (losses, norms, counts) in zip(reports, read_figures(reports, self.group), strict=True):
            if all(map(math.isfinite, (*losses.values(), *norms.values()))):
                counters.bad_steps = 0
                counters.applied += 1
                counters.cloze_applied += "cloze" in counts
                counters.lr = report.lr
                counters.grad_norm = math.hypot(*(norms[direction] for direction in self.directions))
                self._add(losses, counts)
            else:
                counters.bad_steps += 1
                self.losses = {}
            diverged = diverged or counters.bad_steps >= MAX_BAD_STEPS
        return diverged

    def _add(self, losses: dict[str, float], counts: dict[str, Counts]) -> None:
        """Count a step.

        Args:
            losses: in nats per id, by name.
            counts: of their targets.
        """
        counters, budget, self.losses = self.counters, self.budget, dict(losses)
        for name, (targets, characters, unknown) in counts.items():
            nats = charge(losses[name] * targets, unknown, self.vocabulary)
            self.losses[name] = nats / max(characters, 1)
            counters.add(name, nats, characters)
        targets, characters, _ = counts["forward"]
        counters.trained += targets
        budget.train_targets += targets
        budget.train_characters += characters

    def due(self, validator: Validator) -> tuple[bool, bool]:
        """Whether this step is to be validated, and whether it is to have a line of metrics; once each.

        Args:
            validator: knows when it is its turn.
        """
        step, log_every = self.counters.step, self.budget.config.log_every
        if self.counters.logged_step == step:
            return False, False
        validates = validator.due(step)
        return validates, is_logged_step(step, log_every) or (validates and is_logged_step(step, validator.every))

    def write_line(self, valid: Losses) -> None:
        """Write a line of metrics, and begin new sums."""
        self.metrics.write(self.line(valid))
        if self.counters.since_seconds:
            self.speed = self._forward_characters / self.counters.since_seconds
        self.counters.begin_sums()

    def line(self, valid: Losses, test: Losses | None = None) -> dict[str, Any]:
        """A line of metrics; of a bidirectional model with every loss by name behind."""
        counters, two_ways = self.counters, len(self.directions) > 1
        train = {
            name: Loss(counters.since_nats[name], characters)
            for name, characters in counters.since_characters.items()
            if characters
        }
        line = {
            "step": counters.step,
            "epoch": self.budget.epochs(counters.step),
            "seconds": round(self.budget.seconds(), 3),
            "train_loss": mean_loss(train) if train.keys() >= {*self.directions} else None,
            "valid_loss": mean_loss(valid) if valid else None,
            "lr": counters.lr,
            "grad_norm": counters.grad_norm,
            "chars_per_second": round(self._forward_characters / max(counters.since_seconds, 1e-9), 1),
        }
        if self.budget.config.networks > 1:
            line["network"] = counters.network + 1
        for role, losses in (("train", train), ("valid", valid)) if two_ways else ():
            line |= {f"{role}_loss_{name}": None for name in self.directions} | {f"{role}_cloze": None}
            line |= named_losses(role, losses)
        if test:
            line |= {"test_loss": mean_loss(test)} | (named_losses("test", test) if two_ways else {})
        return line

    def progress(
        self, doing: str, valid: Losses | None = None, test: Losses | None = None, warning: str = ""
    ) -> Progress:
        """Where the run stands, with the losses that this moment brings."""
        counters, budget, two_ways = self.counters, self.budget, len(self.directions) > 1
        speed = self._forward_characters / counters.since_seconds if counters.since_seconds else self.speed
        if not speed and budget.train_seconds:
            speed = budget.train_characters / budget.train_seconds
        train = [self.losses[direction] for direction in self.directions if direction in self.losses]
        by_name = [{name: loss.mean for name, loss in (losses or {}).items()} for losses in (valid, test)]
        return Progress(
            step=counters.step,
            epoch=budget.epochs(counters.step),
            seconds=budget.seconds(),
            train_loss=sum(train) / len(train) if train else math.nan,
            valid_loss=mean_loss(valid) if valid else None,
            test_loss=mean_loss(test) if test else None,
            lr=counters.lr,
            grad_norm=counters.grad_norm,
            chars_per_second=speed,
            share=min(1.0, budget.share()),
            seconds_left=budget.seconds_left(),
            doing=doing,
            train_losses=self.losses if two_ways else {},
            valid_losses=by_name[0] if two_ways else {},
            test_losses=by_name[1] if two_ways else {},
            warning=warning,
        )

    @property
    def _forward_characters(self) -> int:
        return self.counters.since_characters.get("forward", 0)
