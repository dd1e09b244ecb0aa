"""Corpora known by name. A name stands for files that are already on the machine; nothing is downloaded."""

import os
import sysconfig
from collections.abc import Callable
from pathlib import Path

from chargen.errors import DataError

PYTHON_BYTES = 4_000_000
"""Bytes of the corpus python, at most."""
_EXCLUDED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


def python_sources(limit: int = PYTHON_BYTES) -> list[Path]:
    """List the Python files of the standard library without its tests: modules before packages, sorted.

    Args:
        limit: bytes of all files together; only complete files are taken.

    Raises:
        DataError: where this Python comes without sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _EXCLUDED]
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
