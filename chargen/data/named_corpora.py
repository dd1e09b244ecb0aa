"""Corpora known by name: what each is, and where its files are. Nothing is fetched here.

A name stands for a file of the catalogue, which lies in the cache once it was fetched or put there by hand; or, for
python, for files that are on the machine already.
"""

import functools
import hashlib
import os
import sysconfig
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from chargen.cache_folder import cache_folder
from chargen.errors import DataError, repr_short
from chargen.settings import check_text
from chargen.suggestions import did_you_mean

PYTHON = "python"
"""The corpus that needs no file of its own."""
PYTHON_BYTES = 4_000_000
"""Bytes of the corpus python, at most."""
_EXCLUDED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class NamedCorpus:
    """An entry of the catalogue.

    Args:
        name: by which it is known.
        what: it is, in a few words.
        licence: under which it may be used.
        address: where it is fetched from; "" for python.
        size: bytes of its file as it is served, packed or not; 0 for python.
        sha256: of its file; "" for python.
        settings: of `train`, with which figures were published: how it is split, and whether it is records.
        figures: what others reached on it, and how.
    """

    name: str
    what: str
    licence: str
    address: str = ""
    size: int = 0
    sha256: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where its file is, or is to be."""
        return cache_folder() / "corpora" / self.name / PurePosixPath(self.address).name

    @property
    def is_here(self) -> bool:
        """Whether its files are on this machine, as they should be."""
        return self.name == PYTHON or has_hash(self.path, self.size, self.sha256)

    def files(self) -> list[Path]:
        """List its files.

        Raises:
            DataError: where they are not on this machine, or are others than they should be.
        """
        if self.name == PYTHON:
            return python_sources()
        if self.is_here:
            return [self.path]
        get = f"get it with get_corpus({self.name!r})"
        if self.path.exists():
            raise DataError(f"{self.path} is not the file of the corpus {self.name}: its hash is another; {get}")
        raise DataError(f"the corpus {self.name} is not on this machine: {get}")


def has_hash(path: Path, size: int, sha256: str) -> bool:
    """Tell whether a file has a size and a hash.

    Args:
        path: the file; may be missing.
        size: bytes.
        sha256: 64 hexadecimal digits.

    Raises:
        OSError: where it cannot be read.
    """
    if not path.is_file() or path.stat().st_size != size:
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


@functools.cache
def catalogue() -> dict[str, NamedCorpus]:
    """Read the catalogue.

    Returns:
        All corpora that are known by name.
    """
    entries = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text("utf-8"))
    corpora = {PYTHON: NamedCorpus(PYTHON, "Python's standard library", "PSF")}
    for name, entry in entries.items():
        corpora[name] = NamedCorpus(name, **{**entry, "figures": tuple(entry.get("figures", ()))})
    return corpora


def find_corpus(name: str) -> NamedCorpus:
    """Look up a corpus.

    Args:
        name: by which it is known.

    Raises:
        DataError: where there is none of that name.
    """
    if check_text("name", name) not in catalogue():
        advice = did_you_mean(name, catalogue()) or f"; there are {', '.join(catalogue())}"
        raise DataError(f"there is no corpus {repr_short(name)}{advice}")
    return catalogue()[name]


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
