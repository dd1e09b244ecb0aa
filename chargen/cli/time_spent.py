"""What a run spent its time on, for runs whose budget did not go to training."""

import time
from typing import Protocol

MAX_OTHER_SHARE = 0.2
"""Share of a budget up to which other work than training is not worth a line."""


class Compiling(Protocol):
    """A clock of the seconds that compiling took so far."""

    seconds: float


class TimeSpent:
    """Seconds of a run, by activity.

    Args:
        started: `time.monotonic()` when the run's clock began.
    """

    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = {}
        self.compiling: Compiling | None = None
        self._seen_compiling = 0.0
        self._marked_at = started

    def mark(self, activity: str, training: float = 0.0) -> None:
        """Count the time since the last mark for an activity, without what compiling and training took of it.

        Args:
            activity: in words.
            training: seconds of that time spent on training steps.
        """
        time_now, compiling = time.monotonic(), 0.0 if self.compiling is None else self.compiling.seconds
        compiled = compiling - self._seen_compiling
        self._add("compiling (once per machine)", compiled)
        in_training = min(compiled, training)  # kernels are compiled where they are first called
        self._add("training", training - in_training)
        self._add(activity, max(0.0, time_now - self._marked_at - training - (compiled - in_training)))
        self._marked_at, self._seen_compiling = time_now, compiling

    def describe(self, budget: float) -> str:
        """Describe where the time went, the longest first.

        Args:
            budget: of the run, in seconds.

        Returns:
            A line, empty where enough of the budget was training.
        """
        training = self.seconds.get("training", 0.0)
        others = {name: seconds for name, seconds in self.seconds.items() if name != "training" and seconds >= 0.5}
        if sum(self.seconds.values()) - training <= MAX_OTHER_SHARE * budget or not others:
            return ""
        parts = [f"{seconds:.0f} s {name}" for name, seconds in sorted(others.items(), key=lambda item: -item[1])]
        return f"{training:.0f} s of {sum(self.seconds.values()):.0f} were training; {', '.join(parts)}"

    def _add(self, activity: str, seconds: float) -> None:
        self.seconds[activity] = self.seconds.get(activity, 0.0) + seconds
