"""A program on a pseudo-terminal, whose screen an emulator draws."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyte
import pytest

from tests.yardstick import HANG

fcntl = pytest.importorskip("fcntl")
pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")


class Screen:
    """A running command and what its terminal shows.

    Args:
        arguments: of chargen.
        columns: of the terminal.
        rows: of the terminal.
        options: of Popen.
    """

    def __init__(self, *arguments: Any, columns: int = 80, rows: int = 24, **options: Any) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.got = b""
        self._lock = threading.Lock()
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        words = [sys.executable, "-W", "error", "-m", "chargen", *map(str, arguments)]
        environment = {"TERM": "xterm-256color"} | options.pop("env", {**os.environ})
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs} | options
        self.process = subprocess.Popen(words, env=environment, start_new_session=True, **streams)
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Screen":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        with contextlib.suppress(OSError):
            os.close(self._ours)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(self._ours, 1 << 16):
                with self._lock:
                    self.got += data
                    self._stream.feed(data)

    def type(self, text: str) -> None:
        """Type keys; control characters stand for themselves."""
        os.write(self._ours, text.encode())

    @property
    def rows(self) -> list[str]:
        with self._lock:
            return [row.rstrip() for row in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    def attributes(self, character: str) -> set[tuple[Any, ...]]:
        """Colour, underline and reverse of all places where a character stands."""
        with self._lock:
            cells = [cell for row in self.screen.buffer.values() for cell in row.values()]
        return {(cell.fg, cell.underscore, cell.reverse) for cell in cells if cell.data == character}

    def wait(self, happened: Callable[[], Any] | str) -> None:
        """Until something is true, or a text is on the screen."""
        end = time.monotonic() + min(HANG, 60)
        test = (lambda: happened in self.text) if isinstance(happened, str) else happened
        while not test():
            assert time.monotonic() < end, f"waited for {happened!r}; the screen shows\n{self.text}"
            assert self.process.poll() is None or test(), f"it has ended; the screen shows\n{self.text}"
            time.sleep(0.01)

    def resize(self, columns: int, rows: int = 24) -> None:
        with self._lock:
            self.screen.resize(rows, columns)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.killpg(self.process.pid, signal.SIGWINCH)

    def leave(self) -> int:
        """Leave by ^X; the exit code."""
        self.type("\x18")
        return self.ended()

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(HANG)
        self._reader.join(5)
        return code


def shown(path: Path, *arguments: Any, **options: Any) -> Iterator[Screen]:
    with Screen("write", path, *arguments, **options) as screen:
        yield screen
