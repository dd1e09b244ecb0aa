"""A disk that forgets: what is done below a folder is written down, and every folder that a crash could leave is made.

After a crash a file holds what was synced and any of what was written since: nothing, all, half, or zeros in its place.
Of what was done to names since their folder was synced, any part may be there, in any order but that of one name.
"""

import builtins
import contextlib
import io
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

MANY = 4
Names = dict[str, "int | None"]
"""Which inode a path stands for; None is a folder."""


@dataclass
class _File:
    synced: bytes = b""
    written: bytes = b""


@dataclass(frozen=True)
class _Renaming:
    """Something done to names of a folder: `gone` are no more, and `there` stands for an inode."""

    folders: tuple[str, ...]
    gone: tuple[str, ...]
    there: tuple[str, "int | None"] | None


@dataclass
class Disk:
    """Watches all that is done below `root` through Python's files and `os`; only bytes and names, no links.

    Args:
        root: an empty folder that is safe on the disk.
        operations: how many there have been.
    """

    root: Path
    operations: int = 0
    folders: list[tuple[int, dict[str, bytes | None]]] = field(default_factory=list)
    """What crashes could have left so far, each with the marks that had been passed: relative path to content."""
    passed: int = 0
    _files: dict[int, _File] = field(default_factory=dict)
    _safe: Names = field(default_factory=dict)
    _now: Names = field(default_factory=dict)
    _pending: list[_Renaming] = field(default_factory=list)
    _seen: set[Any] = field(default_factory=set)

    def mark(self) -> None:
        """Say that something has been promised to be on the disk."""
        self.passed += 1
        self._look()

    def _inside(self, path: Any) -> str | None:
        path = os.path.abspath(os.fspath(path)) if not isinstance(path, int) else ""
        return path if path.startswith(f"{self.root}{os.sep}") else None

    def _do(self, *, gone: tuple[str, ...] = (), there: tuple[str, "int | None"] | None = None) -> None:
        names = (*gone, *((there[0],) if there else ()))
        self._pending.append(_Renaming(tuple(os.path.dirname(name) for name in names), gone, there))
        _apply(self._now, self._pending[-1])
        self._look()

    def _sync_folder(self, folder: str) -> None:
        for change in [one for one in self._pending if folder in one.folders]:
            _apply(self._safe, change)
            self._pending.remove(change)
        self._look()

    def _look(self) -> None:
        """Add all folders that a crash at this moment could leave."""
        self.operations += 1
        for kept in _parts(self._pending):
            names = dict(self._safe)
            for change in kept:
                _apply(names, change)
            kinds = {inode: _contents(self._files[inode]) for inode in names.values() if inode is not None}
            for chosen in itertools.product(*kinds.values()):
                content: dict[int | None, bytes | None] = {None: None, **dict(zip(kinds, chosen, strict=True))}
                self._add({os.path.relpath(name, self.root): content[inode] for name, inode in names.items()})

    def _add(self, folder: dict[str, bytes | None]) -> None:
        # Without the folder above it nothing is there.
        whole = {
            name: content
            for name, content in folder.items()
            if all(str(above) in folder for above in Path(name).parents if str(above) != ".")
        }
        key = self.passed, frozenset(whole.items())
        if key not in self._seen:
            self._seen.add(key)
            self.folders.append((self.passed, whole))

    @contextlib.contextmanager
    def watch(self) -> Iterator["Disk"]:
        """Write down what is done while the block runs."""
        numbers = itertools.count(1)
        real_open, real_replace, real_unlink, real_mkdir = builtins.open, os.replace, os.unlink, os.mkdir
        real_sync, real_rmdir = os.fsync, os.rmdir
        opened: dict[int, int] = {}

        def open_(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            inside = self._inside(path)
            if inside is None or not set(mode) & set("wax+") or Path(inside).name == ".lock":
                return real_open(path, mode, *arguments, **named)
            assert "b" in mode, "text files below a watched folder are not written"
            new = not os.path.exists(inside)
            raw = _Watched(self, real_open(path, mode, buffering=0))
            if new:
                number = next(numbers)
                self._files[number] = _File()
                self._do(there=(inside, number))
            number = self._now[inside] or 0
            raw.number = opened[raw.fileno()] = number
            if "w" in mode:
                raw.changed()
            unbuffered = named.get("buffering", arguments[0] if arguments else -1) == 0
            return raw if unbuffered else io.BufferedWriter(raw)

        def fsync(descriptor: Any) -> None:
            real_sync(descriptor)
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            inside = self._inside(os.readlink(f"/proc/self/fd/{number}").removesuffix(" (deleted)"))
            if os.path.isdir(f"/proc/self/fd/{number}"):
                self._sync_folder(os.readlink(f"/proc/self/fd/{number}"))
            elif inside:
                file = self._files[opened[number]]
                file.synced = file.written
                self._look()

        def replace(source: Any, target: Any, **named: Any) -> None:
            real_replace(source, target, **named)
            before, after = self._inside(source), self._inside(target)
            if before and after:
                self._do(gone=(before,), there=(after, self._now[before]))

        def unlink(path: Any, **named: Any) -> None:
            real_unlink(path, **named)
            if (inside := self._inside(path)) in self._now:
                self._do(gone=(str(inside),))

        def mkdir(path: Any, *arguments: Any, **named: Any) -> None:
            real_mkdir(path, *arguments, **named)
            if inside := self._inside(path):
                self._do(there=(inside, None))

        def rmdir(path: Any, **named: Any) -> None:
            real_rmdir(path, **named)
            if inside := self._inside(path):
                self._do(gone=(inside,))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builtins, "open", open_)
            changes = {"replace": replace, "rename": replace, "unlink": unlink, "remove": unlink, "fsync": fsync}
            for name, change in {**changes, "mkdir": mkdir, "rmdir": rmdir}.items():
                patch.setattr(os, name, change)
            self._look()
            yield self


class _Watched(io.RawIOBase):
    """A file whose every change is written down."""

    def __init__(self, disk: Disk, file: Any) -> None:
        self.disk, self.file, self.number = disk, file, 0

    def changed(self) -> None:
        """Look at what the file holds now."""
        self.disk._files[self.number].written = Path(self.file.name).read_bytes()
        self.disk._look()

    def write(self, data: Any) -> int:
        written: int = self.file.write(data)
        self.changed()
        return written

    def truncate(self, size: int | None = None) -> int:
        after: int = self.file.truncate(size)
        self.changed()
        return after

    def tell(self) -> int:
        return int(self.file.tell())

    def seek(self, *arguments: Any) -> int:
        return int(self.file.seek(*arguments))

    def fileno(self) -> int:
        return int(self.file.fileno())

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.file.close()


def _apply(names: Names, change: _Renaming) -> None:
    for name in change.gone:
        names.pop(name, None)
    if change.there:
        names[change.there[0]] = change.there[1]


def _parts(pending: list[_Renaming]) -> Iterator[tuple[_Renaming, ...]]:
    """Any part of what is not synced. Of much of it, which careful writers never have: beginnings, and gaps of one."""
    if len(pending) <= MANY:
        for size in range(len(pending) + 1):
            yield from itertools.combinations(pending, size)
        return
    for at in range(len(pending) + 1):
        yield tuple(pending[:at])
        yield tuple(pending[:at] + pending[at + 1 :])


def _contents(file: _File) -> set[bytes]:
    """What a crash can leave of a file: what was synced, with nothing, all, half, or zeros of what came since."""
    old, new = file.synced, file.written
    common = len(old) if new.startswith(old) else 0
    half = new[: (common + len(new)) // 2]
    return {old, new, half, new[:common] + bytes(len(new) - common), half + bytes(len(new) - len(half))}


def put(folder: Path, files: dict[str, bytes | None]) -> None:
    """Make a folder that a crash left."""
    for name, content in sorted(files.items()):
        if content is None:
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).write_bytes(content)
