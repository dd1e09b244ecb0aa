"""Every error that chargen raises on purpose, each with the exit code of the command that it ends.

A message is one line: what was wrong, with the values, and what to do. It names settings as Python does, in backticks:
`min_count` or `unit="byte"`; the command line writes them as its flags.
"""

import shlex
import sys
from collections.abc import Callable


class ChargenError(Exception):
    """Something went wrong at run time; the base of every error chargen raises on purpose."""

    exit_code = 1


class WriteError(ChargenError):
    """A file could not be written; the previous one is unchanged, and a run may continue without it."""


NOT_FINITE_MESSAGE = "the model's predictions are not finite: its weights are too large to compute with"


class SettingError(ChargenError):
    """A setting is out of its range or contradicts another.

    Args:
        message: one line.
        setting: its name, where a single setting is wrong.
    """

    exit_code = 2

    def __init__(self, message: str, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class ArgumentError(ChargenError, ValueError):
    """An argument of a function has a wrong value, shape, type or device."""


class DataError(ChargenError):
    """A text cannot be read, is too short, or holds characters that the model does not know."""

    exit_code = 3


class ModelFileError(ChargenError):
    """A model file or a saved state is damaged, hostile, or belongs to something else."""

    exit_code = 4


class Diverged(ChargenError):
    """Training produced losses or gradients that are not finite and could not go on."""

    exit_code = 5


class Stopped(ChargenError):
    """A signal asked the command to stop; its work has been saved.

    Args:
        message: one line.
        exit_code: 130 after an interrupt, 143 after a termination.
    """

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LostProcess(ChargenError):
    """Another process of a job has failed, or is gone.

    Args:
        message: one line.
        is_known: whether another process says so already.
    """

    def __init__(self, message: str, is_known: bool) -> None:
        super().__init__(message)
        self.is_known = is_known


def truncate(value: object, length: int = 60, write: Callable[[object], str] = str) -> str:
    """Format a value for a message, in one line of limited length, whatever a file or a person put into it.

    Args:
        value: anything.
        length: characters to keep.
        write: formats it, such as `repr`.
    """
    try:
        text = write(value)
    except (RecursionError, ValueError):  # deeply nested tables, or thousands of digits
        return f"of type {type(value).__name__}, too large to show"
    text = text if len(text) <= length else f"{text[:length]}…"
    return "\\n".join(text.splitlines())


def repr_short(value: object) -> str:
    """Format a value for a message as Python writes it, in one line of at most about 200 characters.

    Args:
        value: anything.
    """
    return truncate(value, 200, repr)


def quote_backticks(name: object) -> str:
    """Format a name that was found, such as a file's, for a message; what could be taken for a setting's is quoted.

    Args:
        name: anything whose `str` is a name.
    """
    return repr(str(name)) if "`" in str(name) else str(name)


def quote_argument(text: str) -> str:
    """Write a text as one argument for the shells of this system; those of Windows take no single quotes.

    Args:
        text: such as a path.
    """
    if sys.platform == "win32":
        from subprocess import list2cmdline

        return list2cmdline([text])
    else:  # noqa: RET505  # what a type checker sees on either system
        return shlex.quote(text)


def format_size(size: int) -> str:
    """Format a number of bytes for a person.

    Args:
        size: in bytes.
    """
    return f"{size / 1e6:,.1f} MB" if size >= 10**6 else amount(size, "byte")


def amount(number: float, noun: str, plural: str = "") -> str:
    """Format a number of things: 1 file, 2,000 files, 1.5 minutes.

    Args:
        number: how many.
        noun: the singular.
        plural: of the noun, where it does not just end in s.
    """
    digits = f"{number:,.10g}" if isinstance(number, float) else f"{number:,}"
    return f"{digits} {noun if number == 1 else plural or noun + 's'}"
