"""The first SIGINT, SIGTERM or SIGHUP asks for a clean end; the second exits at once and harms nothing.

On Windows Ctrl-C and Ctrl-Break do; what kills a process there gives it no time.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from chargen.errors import Stopped
from chargen.launch import read_launch

_ENDINGS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
if _HANG_UP is not None:
    _ENDINGS[_HANG_UP] = "hung up"
if sys.platform == "win32":
    _ENDINGS[signal.SIGBREAK] = "interrupted"


REPEAT = 0.01
"""Seconds after which a signal comes again whose exception Python dropped."""


def is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported.

    Args:
        frame: what runs at this moment.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def exit_if_importing(number: int, frame: FrameType | None) -> None:
    """End the process where a module is being imported: no exception leaves that cleanly, and C++ may even abort.

    Args:
        number: the signal's.
        frame: where it came.
    """
    if is_importing(frame):
        with contextlib.suppress(OSError):
            os.write(2, f"chargen: {_ENDINGS[number]}\n".encode())  # print may be what was interrupted
        os._exit(128 + number)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle SIGINT as Python does, except while a module is being imported.

    Args:
        number: the signal's.
        frame: where it came.

    Raises:
        KeyboardInterrupt: always, where the process goes on.
    """
    exit_if_importing(number, frame)
    raise KeyboardInterrupt


class StopRequest:
    """Which signal has come, if any.

    Args:
        is_repeated: whether more signals are the same request: a launcher sends its processes what it was sent itself,
            and a terminal has sent it to all of them.
    """

    def __init__(self, is_repeated: bool = False) -> None:
        self.number: int | None = None
        self.is_repeated = is_repeated
        self.deferred = False
        """True once there is something to save: then the signal only sets `number`, to be read after a step."""

    def __bool__(self) -> bool:
        return self.number is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; exit on the second, unless it is one more from a terminal that closes.

        Args:
            number: the signal's.
            frame: where it came.

        Raises:
            Stopped: for the first, unless signals are deferred.
        """
        if self.number is not None:
            if number == _HANG_UP or self.is_repeated:
                return
            os._exit(128 + number)
        self.number = number
        if not self.deferred:
            exit_if_importing(number, frame)
            raise self.error()

    def error(self, saved: str = "") -> Stopped:
        """Make the error that ends the command with the signal's exit code.

        Args:
            saved: words on what was saved, with how to go on.
        """
        assert self.number is not None
        return Stopped(f"{_ENDINGS[self.number]}{saved}", 128 + self.number)


def _send(number: int) -> None:
    """Send this process a signal, which may end what the main thread waits for."""
    if sys.platform == "win32":
        signal.raise_signal(number)  # os.kill would end the process
    else:
        os.kill(os.getpid(), number)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM and SIGHUP while the block runs; not SIGHUP where nohup has it ignored."""
    request, handlers, report = StopRequest(not read_launch().alone), {}, sys.unraisablehook
    repeats: list[threading.Timer] = []

    def report_others(dropped: "sys.UnraisableHookArgs") -> None:
        # Python drops what is raised while it closes a generator: the signal comes again.
        if not isinstance(dropped.exc_value, Stopped):
            report(dropped)
        elif request.number is not None:
            number, request.number = request.number, None
            repeats.append(threading.Timer(REPEAT, _send, (number,)))
            repeats[-1].start()

    sys.unraisablehook = report_others
    for number in _ENDINGS:
        if number != _HANG_UP or signal.getsignal(number) is not signal.SIG_IGN:
            handlers[number] = signal.signal(number, request.handle)
    try:
        yield request
    finally:
        request.deferred = True
        for repeat in repeats:
            repeat.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook = report
