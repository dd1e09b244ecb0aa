"""Every error a user can meet, each with the exit code of the command that meets it.

A message is one line: what was wrong, with the values, and what to do.
"""

from collections.abc import Callable


class ChargenError(Exception):
    """Something went wrong at run time; the base of every error chargen raises on purpose."""

    exit_code = 1


class WriteError(ChargenError):
    """The disk refused a file; the one that was there before is unchanged, and a run may go on without it."""


NOT_FINITE_MESSAGE = "the model's predictions are not finite: its weights are too large to compute with"


class SettingError(ChargenError):
    """A setting is out of its range or contradicts another; `setting` is its name, where one is to blame."""

    exit_code = 2

    def __init__(self, message: str, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


class ArgumentError(ChargenError, ValueError):
    """What a function was called with does not fit it: a value, a shape, a type or a device."""


class DataError(ChargenError):
    """A text cannot be read, or holds too little, or holds what the model does not know."""

    exit_code = 3


class ModelFileError(ChargenError):
    """A model file or a saved state is damaged, hostile, or belongs to something else."""

    exit_code = 4


class Diverged(ChargenError):
    """Training produced losses or gradients that are not finite and could not go on."""

    exit_code = 5


class Stopped(ChargenError):
    """A signal asked the command to stop; what was under way has been saved."""

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def truncate(value: object, length: int = 60, write: Callable[[object], str] = str) -> str:
    """A value as a message may show it: what a file or a person gives does not decide how long the message is."""
    try:
        text = write(value)
    except (RecursionError, ValueError):  # tables in tables, or thousands of digits
        return f"of type {type(value).__name__}, too large to show"
    text = text if len(text) <= length else f"{text[:length]}…"
    return "\\n".join(text.splitlines())


def repr_short(value: object) -> str:
    """A setting's value, in one line."""
    return truncate(value, 200, repr)


def amount(number: float, noun: str, plural: str = "") -> str:
    """A number of things, in words: 1 file, 2,000 files, 1.5 minutes.

    Args:
        plural: of the noun, where it does not just end in s.
    """
    digits = f"{number:,.10g}" if isinstance(number, float) else f"{number:,}"
    return f"{digits} {noun if number == 1 else plural or noun + 's'}"
