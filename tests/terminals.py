"""What stands for a terminal, and what must never reach one."""

import io
import os
import re
import subprocess
import unicodedata
from typing import Any

import pytest


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def run_on_terminal(words: list[str], **options: Any) -> str:
    """What a program writes to a pseudo-terminal that is its standard output; `options` are those of Popen."""
    ours, theirs = pytest.importorskip("pty").openpty()
    process = subprocess.Popen(words, stdout=theirs, **{"stderr": theirs} | options)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def harmful(text: str, passed: str = "\n\t\u200c\u200d") -> set[str]:
    """The characters that steer a terminal or hide on it, but for those that may pass."""
    return {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - set(passed)


def without_colors(text: str) -> str:
    """The text without the sequences that colour it."""
    return re.sub(r"\x1b\[(?:3[0-9]|0|1)m", "", text)
