"""A command on a pseudo-terminal, whose screen an emulator draws: in this process, or in one of its own."""

import contextlib
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any
from unittest import mock

import pyte
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_input
from prompt_toolkit.output.vt100 import Vt100_Output

from chargen.cli.main import main

fcntl = pytest.importorskip("fcntl")
pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")

PATIENCE = 60
"""Seconds after which what is waited for is given up."""
LEAVE = "\x18"


class Screen:
    """A terminal: keys go in, and what is drawn on it can be read.

    Args:
        columns: of the terminal.
        rows: of the terminal.
    """

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.got = b""
        self._lock = threading.Lock()
        self._hung_up = False
        self._ours, self.theirs = pty.openpty()
        self._set_size(columns, rows)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.failure: BaseException | None = None

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while not self._hung_up:
                if not select.select([self._ours], [], [], 0.02)[0]:
                    continue
                if not (data := os.read(self._ours, 1 << 16)):
                    break
                with self._lock:
                    self.got += data
                    self._stream.feed(data)

    def close(self) -> None:
        for number in (self.theirs, self._ours):
            with contextlib.suppress(OSError):
                os.close(number)
        self._reader.join(5)

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

    @property
    def cursor(self) -> tuple[int, int]:
        """Its column and row."""
        with self._lock:
            return self.screen.cursor.x, self.screen.cursor.y

    def attributes(self, character: str) -> set[tuple[Any, ...]]:
        """Colour, underline and reverse of all places where a character stands."""
        with self._lock:
            cells = [cell for row in self.screen.buffer.values() for cell in row.values()]
        return {(cell.fg, cell.underscore, cell.reverse) for cell in cells if cell.data == character}

    def wait(self, happened: Callable[[], Any] | str) -> None:
        """Until something is true, or a text is on the screen, perhaps in several rows."""
        end = time.monotonic() + PATIENCE
        test = (
            (lambda: happened in self.text or happened in " ".join(self.text.split()))
            if isinstance(happened, str)
            else happened
        )
        while not test():
            assert time.monotonic() < end, f"waited for {happened!r}; the screen shows\n{self.text}"
            assert not self.has_ended() or test(), f"it has ended; the screen shows\n{self.text}"
            time.sleep(0.01)

    def has_ended(self) -> bool:
        return False

    def resize(self, columns: int, rows: int = 24) -> None:
        with self._lock:
            self.screen.resize(rows, columns)
        self._set_size(columns, rows)
        os.kill(os.getpid(), signal.SIGWINCH)


def on_screen(
    do: Callable[[Screen], None] | None, *arguments: Any, columns: int = 80, rows: int = 24
) -> tuple[int, Screen]:
    """Run a command in this process, whose terminal somebody uses until they leave.

    Args:
        do: what they do, in a thread of its own; None where the command ends by itself.
        arguments: of the command.
        columns: of the terminal.
        rows: of the terminal.

    Returns:
        The exit code, and the terminal with all that is drawn on it.
    """
    screen = Screen(columns, rows)

    def use() -> None:
        if do is None:
            return
        try:
            do(screen)
        except BaseException as error:
            screen.failure = error
        screen.type(LEAVE)

    user = threading.Thread(target=use)
    with terminal_streams(screen):
        user.start()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
    user.join(PATIENCE)
    if screen.failure:
        raise screen.failure
    time.sleep(0.05)  # what is drawn last
    screen.close()
    return int(ended.value.code or 0), screen


@contextlib.contextmanager
def terminal_streams(screen: Screen) -> Iterator[None]:
    """Let the standard streams of this process be a terminal."""
    stdin, stdout = (os.fdopen(os.dup(screen.theirs), mode, encoding="utf-8") for mode in ("r", "w"))

    def size() -> Size:
        columns, rows = os.get_terminal_size(screen.theirs)
        return Size(rows, columns)

    output = Vt100_Output(stdout, size, term="xterm-256color")
    with stdin, stdout, create_app_session(create_input(stdin), output):
        with mock.patch.object(sys, "stdin", stdin), contextlib.redirect_stdout(stdout):
            with contextlib.redirect_stderr(stdout):
                yield


class OwnProcess(Screen):
    """A terminal with a command that runs in a process of its own.

    Args:
        arguments: of the command.
        columns: of the terminal.
        rows: of the terminal.
    """

    def __init__(self, *arguments: Any, columns: int = 80, rows: int = 24) -> None:
        super().__init__(columns, rows)
        words = [sys.executable, "-W", "error", "-m", "chargen", *map(str, arguments)]
        streams = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs}
        environment = {**os.environ, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(words, env=environment, start_new_session=True, **streams)
        os.close(self.theirs)

    def __enter__(self) -> "OwnProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.has_ended():
            self.process.kill()
        self.process.wait()
        self.close()

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def hang_up(self) -> None:
        """Close the terminal, which stays open as long as something reads from it."""
        self._hung_up = True
        self._reader.join()
        os.close(self._ours)

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(5)
        return code
