"""Suggestions for names and paths that do not exist."""

import contextlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from chargen.errors import quote_backticks

MAX_NAMES = 10_000
"""Names of a folder that are compared; each takes some microseconds."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Suggest the choice that is most similar to a name.

    Args:
        name: what was asked for.
        choices: what exists.

    Returns:
        The end of a message, such as "; did you mean train?"; or "" where no choice is similar.
    """
    import difflib

    matches = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def similar_path(path: str | os.PathLike[str], *folders: Path, names: Iterable[str] = ()) -> str:
    """Suggest what exists for a missing path: the same name in one of some folders, or the most similar path or name.

    Args:
        path: what was asked for.
        folders: where the path may be meant to begin.
        names: what is known by name and may be meant instead.

    Returns:
        The end of a message, such as "; did you mean runs/shakespeare?"; or "" where nothing is similar.
    """
    with contextlib.suppress(OSError, ValueError):
        same_name = (folder / path for folder in folders if (folder / path).exists())
        if suggestion := next(same_name, None) or _nearest_path_or_name(Path(path), names):
            return f"; did you mean {quote_backticks(suggestion)}?"
    return ""


def _nearest_path_or_name(path: Path, names: Iterable[str]) -> Path | str | None:
    """The most similar of the existing paths and of the names."""
    import difflib

    nearest = _nearest(path)
    close = difflib.get_close_matches(str(path), names, n=1)
    if nearest is None or not close:
        return close[0] if close else nearest
    if nearest.stem == path.name:  # only its ending is missing
        return nearest
    return difflib.get_close_matches(str(path), [str(nearest), *close], n=1, cutoff=0)[0]


def _nearest(path: Path) -> Path | None:
    """The path itself where it exists; else the one whose parts are most similar, part by part."""
    if path.exists() or path.parent == path:
        return path
    folder = _nearest(path.parent)
    if folder is None or not folder.is_dir():
        return None
    import difflib

    with os.scandir(folder) as entries:
        names = [entry.name for entry in itertools.islice(entries, MAX_NAMES) if not entry.name.startswith(".")]
    matches = difflib.get_close_matches(path.name, names, n=1)
    return folder / matches[0] if matches else None
