"""The first SIGINT, SIGTERM or SIGHUP asks for a clean end; the second exits at once and harms nothing."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from chargen.errors import Stopped

_WORDS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
if _HANG_UP is not None:
    _WORDS[_HANG_UP] = "hung up"


def leave_if_loading(number: int, frame: FrameType | None) -> None:
    """End the process where a module is being loaded: no exception leaves that cleanly, and C++ may even abort."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            with contextlib.suppress(OSError):
                os.write(2, f"chargen: {_WORDS[number]}\n".encode())  # whatever was just being printed
            os._exit(128 + number)
        frame = frame.f_back


def interrupt(number: int, frame: FrameType | None) -> None:
    """Python's own answer to SIGINT, except while a module is being loaded."""
    leave_if_loading(number, frame)
    raise KeyboardInterrupt


class StopRequest:
    """Which signal has come, if any."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.deferred = False
        """True once there is something to save: then a signal waits for the end of the step."""

    def __bool__(self) -> bool:
        return self.number is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal, exit on the second, unless that is one more from a terminal that closes."""
        if self.number is not None:
            if number == _HANG_UP:
                return
            os._exit(128 + number)
        self.number = number
        if not self.deferred:
            leave_if_loading(number, frame)
            raise self.error()

    def error(self, saved: str = "") -> Stopped:
        """The error that ends the command with the signal's exit code."""
        assert self.number is not None
        return Stopped(f"{_WORDS[self.number]}{saved}", 128 + self.number)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM and SIGHUP while the block runs; not SIGHUP where nohup has it ignored."""
    request, before = StopRequest(), {}
    for number in _WORDS:
        if number != _HANG_UP or signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, request.handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
