"""The first SIGINT or SIGTERM asks for a clean end; the second exits at once and harms nothing."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from chargen.errors import Stopped


class StopRequest:
    """Which signal has come, if any."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.deferred = False
        """True once there is something to save: then a signal waits for the end of the step."""

    def __bool__(self) -> bool:
        return self.number is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal, exit on the second."""
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        if not self.deferred:
            raise self.error()

    def error(self, saved: str = "") -> Stopped:
        """The error that ends the command with the signal's exit code."""
        word = "interrupted" if self.number == signal.SIGINT else "terminated"
        return Stopped(f"{word}{saved}", 128 + (self.number or 0))


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGINT and SIGTERM while the block runs."""
    request = StopRequest()
    before = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    except Exception as error:
        if request and not request.deferred:  # whatever the signal became on its way out of a half loaded module
            raise request.error() from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
