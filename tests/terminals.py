"""What stands for a terminal, and what must never reach one."""

import io
import re
import unicodedata


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def harmful(text: str, passed: str = "\n\t\u200c\u200d") -> set[str]:
    """The characters that steer a terminal or hide on it, but for those that may pass."""
    return {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - set(passed)


def without_colors(text: str) -> str:
    """The text without the sequences that colour it."""
    return re.sub(r"\x1b\[(?:3[0-9]|0|1)m", "", text)
