"""What was likely meant by a name that is not there."""

import contextlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

MAX_NAMES = 10_000
"""Names of a folder that are looked at: comparing takes some microseconds each."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A question for the end of a message, "; did you mean train?"; or nothing where no choice is near."""
    import difflib

    close = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def similar_path(path: str | os.PathLike[str], *elsewhere: Path) -> str:
    """The same question for a path that leads nowhere, of what is there; or elsewhere, where that has its very name."""
    with contextlib.suppress(OSError, ValueError):
        there = (place / path for place in elsewhere if (place / path).exists())
        if near := next(there, None) or _nearest(Path(path)):
            return f"; did you mean {near}?"
    return ""


def _nearest(path: Path) -> Path | None:
    """The path itself where it is there; else the one whose parts are nearest, one by one."""
    if path.exists() or path.parent == path:
        return path
    folder = _nearest(path.parent)
    if folder is None or not folder.is_dir():
        return None
    import difflib

    with os.scandir(folder) as entries:
        names = [entry.name for entry in itertools.islice(entries, MAX_NAMES) if not entry.name.startswith(".")]
    close = difflib.get_close_matches(path.name, names, n=1)
    return folder / close[0] if close else None
