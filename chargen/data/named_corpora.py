"""Corpora known by name. A name leads to files that are already on the machine; nothing is downloaded."""

import os
import sysconfig
from collections.abc import Callable
from pathlib import Path

from chargen.errors import DataError

PYTHON_BYTES = 4_000_000
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


def python_sources(limit: int = PYTHON_BYTES) -> list[Path]:
    """The standard library's own Python files without its tests: modules before packages, sorted, the first 4 MB.

    Whole files only, at most `limit` bytes together. Raises DataError where this Python carries no sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    chosen: list[Path] = []
    total = 0
    for file in sorted(files, key=lambda path: (len(path.parts), path.as_posix())):
        total += file.stat().st_size
        if total > limit:
            break
        chosen.append(file)
    if not chosen:
        raise DataError(f"corpus python: no Python sources below {root}; give a text file instead")
    return chosen


CATALOGUE: dict[str, Callable[[], list[Path]]] = {"python": python_sources}
