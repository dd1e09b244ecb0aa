"""How much of a run's budget is used, and what must be kept back for its end."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from chargen.data.batches import Batches
from chargen.training.config import TrainConfig
from chargen.training.counters import Counters
from chargen.training.group import ALONE

END_SHARE = 0.035
"""The most of a time budget that the whole splits may take at the end; validating while training takes about 1.5 %."""
ROUNDING = 1e-9
"""A share that is no farther from all is all."""
MOST_VALIDATING = 0.2
"""The most of a time budget that validating while training may take, on a machine that is slow at it."""


@dataclass(eq=False)
class Budget:
    """Steps or epochs, minutes, or both, as one share from 0 to 1.

    Args:
        config: says which budgets.
        batches: say how many steps are an epoch.
        counters: the run's.
        started: `now()` when the clock of this process began.
        end_sizes: ids of the validation and test parts, which are scored at the end.
        subset: ids of the validation part that are scored while training.
        count_seconds: that counting takes at the end.
        mix_seconds: that it takes there to mix counts into what a network predicts for an id.
        max_pending: steps that may be under way at once.
        now: the time in seconds; a `Group` has one for all processes.
    """

    config: TrainConfig
    batches: Batches
    counters: Counters
    started: float
    end_sizes: tuple[int, int]
    subset: int
    count_seconds: float = 0.0
    mix_seconds: float = 0.0
    max_pending: int = 1
    now: Callable[[], float] = ALONE.now

    def __post_init__(self) -> None:
        config = self.config
        self.steps = config.steps
        if config.epochs is not None:
            self.steps = math.ceil(config.epochs * self.batches.steps_per_epoch)
        self.total_seconds = None if config.minutes is None else config.minutes * 60
        self.save_seconds = 0.3
        self.train_seconds = 0.0
        self.train_steps = 0
        self.train_targets = 0
        self.train_characters = 0
        self._latest_speed = math.inf
        self._rested_at = -math.inf
        self._offset = self.counters.seconds - self.started

    def epochs(self, step: int) -> float:
        """Passes over the training text that so many steps are."""
        return step / self.batches.steps_per_epoch

    def seconds(self) -> float:
        """Spent by the run so far, in this process and in those it was resumed from."""
        return self.now() + self._offset

    def trained(self, seconds: float) -> None:
        """Learn how long a step has taken."""
        self.counters.since_seconds += seconds
        self.train_seconds += seconds
        self.train_steps += 1

    def share(self) -> float:
        """The share used: of the steps, or of the minutes without what the end will take; the larger one of both."""
        return self._share_at(self.counters.step, self.seconds())

    def network_share(self) -> float:
        """The share that the network under way has used of its part; those to come have their parts of the rest."""
        counters = self.counters
        before = self._share_at(counters.network_step, counters.network_seconds)
        parts = self.config.parts[counters.network :]
        part = (1 - before) * parts[0] / sum(parts)
        share = (self.share() - before) / part if part > 0 else 1.0
        return share if share < 1 - ROUNDING else 1.0

    def _share_at(self, step: int, seconds: float) -> float:
        shares = [] if self.steps is None else [step / self.steps]
        if self.total_seconds is not None:
            shares.append(seconds / max(self.total_seconds - self.end_seconds(), 1e-3))
        return min(1.0, max(shares))

    def seconds_left(self) -> float:
        """Until the budget is used, at the latest speed."""
        share = self.share()
        return 0.0 if share <= 0 else max(0.0, self.seconds() / share - self.seconds())

    def end_seconds(self, total: float | None = None) -> float:
        """What the end will take: the last validation, the whole splits, two saves, and the step under way.

        Args:
            total: seconds of the budget, where it is another one.
        """
        speed = self._eval_speed()
        scored = self.subset * (self.counters.best_loss is not None) + self.config.members * sum(
            limit or size for limit, size in zip(self.end_limits(total), self.end_sizes, strict=True)
        )
        step = self.train_seconds / max(self.train_steps, 1)
        return (
            self.count_seconds
            + 2 * self.save_seconds
            + self.max_pending * step
            + (1.2 * scored / speed if speed else 0)
        )

    def used_seconds(self) -> float:
        """The shortest time budget that is longer than what is spent, with what its end would take."""
        total = self.seconds()
        for _ in range(10):  # a longer budget scores more at its end, but far less than it is longer
            total = self.seconds() + self.end_seconds(total)
        return total

    def scored(self, ids: int, seconds: float) -> None:
        """Learn how long it has just taken to score so many ids."""
        self.counters.evaluated += ids
        self.counters.eval_seconds += seconds
        self._latest_speed = ids / max(seconds, 1e-9)
        self._rested_at = self.now() + seconds * (1 / MOST_VALIDATING - 1)

    def may_validate(self) -> bool:
        """False where a validation now would take more than its share of a time budget."""
        return self.total_seconds is None or self.now() >= self._rested_at

    def end_limits(self, total: float | None = None) -> tuple[int | None, int | None]:
        """How many ids of the validation and test parts can be scored at the end; None is all of them.

        Only a time budget limits them, so that validation keeps to its share of the time.

        Args:
            total: seconds of the budget, where it is another one.
        """
        speed = self._eval_speed()
        total = self.total_seconds if total is None else total
        if total is None or not speed:
            return None, None
        parts = self.config.members * (2 if all(self.end_sizes) else 1)
        room = max(1, int(END_SHARE * total * speed / parts))
        first, second = (room if size > room else None for size in self.end_sizes)
        return first, second

    def _eval_speed(self) -> float:
        """Ids scored per second at the end, by the speed lately or in all, whichever is slower, and what counts take.

        Before anything is scored, twice the speed of training.
        """
        counters = self.counters
        speed = 2 * self.train_targets / self.train_seconds if self.train_seconds else 0.0
        if counters.evaluated and counters.eval_seconds:
            speed = min(self._latest_speed, counters.evaluated / counters.eval_seconds)
        return speed / (1 + speed * self.mix_seconds)
