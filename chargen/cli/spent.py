"""What the time of a run went on, where much of a budget was not training."""

import time
from typing import Protocol

MOST = 0.2
"""Share of a budget that may be anything but training without a word."""


class Compiling(Protocol):
    """Who knows how long compiling took so far."""

    seconds: float


class Spent:
    """Seconds of a run, by what they went on.

    Args:
        started: `time.monotonic()` when the run's clock began.
    """

    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = {}
        self.compiling: Compiling | None = None
        self._compiled = 0.0
        self._last = started

    def mark(self, what: str, training: float = 0.0) -> None:
        """All since the last mark went on this, but for what was compiled, and for seconds of training."""
        now, compiled = time.monotonic(), 0.0 if self.compiling is None else self.compiling.seconds
        fresh = compiled - self._compiled
        self._add("compiling (once per machine)", fresh)
        in_training = min(fresh, training)  # kernels are compiled where they are first called
        self._add("training", training - in_training)
        self._add(what, max(0.0, now - self._last - training - (fresh - in_training)))
        self._last, self._compiled = now, compiled

    def told(self, budget: float) -> str:
        """Where the time went, the most first; empty where enough of a budget in seconds was training."""
        training = self.seconds.get("training", 0.0)
        others = {what: spent for what, spent in self.seconds.items() if what != "training" and spent >= 0.5}
        if sum(self.seconds.values()) - training <= MOST * budget or not others:
            return ""
        parts = [f"{spent:.0f} s {what}" for what, spent in sorted(others.items(), key=lambda pair: -pair[1])]
        return f"{training:.0f} s of {sum(self.seconds.values()):.0f} were training; {', '.join(parts)}"

    def _add(self, what: str, seconds: float) -> None:
        self.seconds[what] = self.seconds.get(what, 0.0) + seconds
