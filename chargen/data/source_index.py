"""Remembers which entry of the cache the files of a corpus had, so that they are read again only where they changed.

A file counts as unchanged while its path, size, times to the nanosecond and inode are. Clocks of file systems may be
coarse: files that changed less than two seconds before they were read are not remembered. On Windows one
of the times is that of the file's creation: a change by a program that sets the other one back is not noticed.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chargen.data.sources import Source
from chargen.durable import write_durably
from chargen.errors import WriteError

MIN_AGE = 2 * 10**9
"""Nanoseconds: the coarsest clock of a file system in use, that of FAT, has steps of two seconds."""
MAX_NAMES = 20
"""Names of files that are remembered for a person."""


def stamp_of(path: Path) -> list[int]:
    """What tells whether a file has changed: its size, times in nanoseconds, inode and device.

    Args:
        path: of the file.

    Raises:
        OSError: there is none.
    """
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


class SourceIndex:
    """What a cache remembers of files.

    Args:
        cache: the folder of the cache.
    """

    def __init__(self, cache: Path) -> None:
        self.folder = cache / "sources"

    def stamp(self, roles: dict[str, list[Source]], options: Any) -> str | None:
        """Describe the files of a corpus as they are now.

        Args:
            roles: the sources of each role.
            options: that shape the ids, as JSON data.

        Returns:
            A hash of their names, stamps and options; None where bytes can be read only once, a file is too young, or
            one cannot be read.
        """
        files: list[Any] = []
        try:
            for role, sources in roles.items():
                for source in sources:
                    if source.path is None or source.is_stream:
                        return None
                    stamp = stamp_of(source.path)
                    if time.time_ns() - max(stamp[1:3]) < MIN_AGE:
                        return None
                    files.append([role, os.path.abspath(source.path), source.named, stamp])
        except OSError:
            return None
        return hashlib.sha256(json.dumps([files, options], sort_keys=True).encode()).hexdigest()

    def find(self, stamp: str) -> tuple[str, dict[str, Any]] | None:
        """Find the entry of files that are as they were.

        Args:
            stamp: of `stamp`.

        Returns:
            The key of the entry, which may be gone, and what was met among the files; None where the files are not
            remembered.
        """
        try:
            stored = json.loads((self.folder / f"{stamp}.json").read_text("utf-8"))
            return str(stored["key"]), dict(stored["met"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember(self, stamp: str, key: str, met: Mapping[str, Any], names: Sequence[str]) -> None:
        """Remember the entry of files; where that cannot be written they are read again.

        Args:
            stamp: of `stamp`, the same before and after they were read.
            key: of the entry.
            met: among the files, as JSON data by name.
            names: of the sources, for a person.
        """
        stored = {"key": key, "met": dict(met), "names": list(names[:MAX_NAMES])}
        with contextlib.suppress(WriteError):
            write_durably(self.folder / f"{stamp}.json", [json.dumps(stored).encode()])

    def sources(self) -> dict[str, list[str]]:
        """The names of the files of each entry, by key."""
        names: dict[str, list[str]] = {}
        for stored in self._read().values():
            listed = names.setdefault(stored["key"], [])
            listed += [name for name in stored["names"] if name not in listed]
        return names

    def forget(self, keys: Iterable[str]) -> None:
        """Forget the files of some entries.

        Args:
            keys: of the entries.
        """
        keys = set(keys)
        for path, stored in self._read().items():
            if stored["key"] in keys:
                path.unlink(missing_ok=True)

    def _read(self) -> dict[Path, dict[str, Any]]:
        stored = {}
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                content = json.loads(path.read_text("utf-8"))
                if isinstance(content, dict) and {"key", "names"} <= content.keys():
                    stored[path] = content
        return stored
