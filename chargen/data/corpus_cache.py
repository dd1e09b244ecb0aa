"""A cache of encoded texts on disk. An entry is a folder, named by its key: a hash of the content and the options.

A text is encoded once; from then on its ids are mapped from the disk.
"""

import contextlib
import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.reading_report import ReadingReport
from chargen.data.source_index import SourceIndex, stamp_of
from chargen.data.vocabulary import Vocabulary
from chargen.durable import rename, sync_folder, wait_for_folder, write_durably
from chargen.errors import WriteError

ROLES = ("train", "valid", "test")
WORK_FOLDERS, KEYS = f"{'[0-9a-f]' * 16}.tmp", "[0-9a-f]" * 64
"""Patterns of the names of unfinished entries, and of entries."""
ABANDONED = 86_400
"""Seconds after which unfinished work is that of a process that was killed."""


@dataclass(frozen=True, eq=False)
class EncodedText:
    """The content of an entry.

    Args:
        vocabulary: covers all parts.
        parts: ids (N,) of the train, the valid and the test sources, mapped from the disk; those of records are already
            split.
        counts: how often each id occurs in them (V,).
        report: what reading met.
    """

    vocabulary: Vocabulary
    parts: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    counts: NDArray[np.int64]
    report: ReadingReport


def open_entry(entry: Path, *, verify: bool = False) -> EncodedText | None:
    """Open an entry. Its checksum is verified unless that was done since its files changed.

    Args:
        entry: its folder.
        verify: whether the checksum is verified in any case.

    Returns:
        The encoded text, or None where there is no such entry or it is damaged.
    """
    try:
        stored = json.loads((entry / "corpus.json").read_text("utf-8"))
        vocabulary = Vocabulary(**stored["vocabulary"])
        train_size, valid_size, test_size = stored["sizes"]
        total = train_size + valid_size + test_size
        if (entry / "ids").stat().st_size != total * vocabulary.dtype.itemsize or min(stored["sizes"]) < 0:
            return None
        ids: NDArray[Any] = np.zeros(0, vocabulary.dtype)
        if total:
            ids = np.memmap(entry / "ids", vocabulary.dtype, "r", shape=(total,))
        if verify or not _is_verified(entry):
            if stored.pop("sha256") != _checksum(hashlib.sha256(ids.data), stored):
                return None
            _mark_verified(entry)
        train, valid, test = np.split(ids, [train_size, train_size + valid_size])
        counts = np.array(stored["counts"], np.int64)
        return EncodedText(vocabulary, (train, valid, test), counts, ReadingReport(**stored["report"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def describe_entry(
    entry: Path,
    vocabulary: Vocabulary,
    sizes: list[int],
    counts: NDArray[np.int64],
    report: ReadingReport,
    ids_digest: "hashlib._Hash",
) -> None:
    """Complete an entry whose ids are written.

    Args:
        entry: its folder.
        vocabulary: of the ids.
        sizes: of the three parts.
        counts: how often each id occurs in them (V,).
        report: what reading met.
        ids_digest: the SHA-256 of the bytes of the ids.

    Raises:
        WriteError: the disk refuses.
    """
    stored = {"vocabulary": vocabulary.arguments(), "sizes": sizes, "counts": counts.tolist(), "report": asdict(report)}
    stored["sha256"] = _checksum(ids_digest, stored)
    write_durably(entry / "corpus.json", [json.dumps(stored).encode()])
    _mark_verified(entry)


def _checksum(ids_digest: "hashlib._Hash", stored: dict[str, Any]) -> str:
    """The checksum of an entry's ids and its description: a disk may return other bytes than were written to it."""
    digest = ids_digest.copy()
    digest.update(json.dumps(stored, sort_keys=True).encode())
    return digest.hexdigest()


def _mark_verified(entry: Path) -> None:
    """Note that the checksum fits the files as they are; where that cannot be written it is verified each time."""
    stamps = json.dumps([stamp_of(entry / name) for name in ("ids", "corpus.json")])
    try:
        (entry / "verified.json").write_text(stamps)
    except OSError:
        return


def _is_verified(entry: Path) -> bool:
    try:
        stamps = json.loads((entry / "verified.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(stamps == [stamp_of(entry / name) for name in ("ids", "corpus.json")])


def install_entry(work_folder: Path, entry: Path) -> None:
    """Move a finished entry to its place; another process may have been faster, a damaged entry is replaced.

    Args:
        work_folder: the finished entry.
        entry: its place.

    Raises:
        OSError: the disk refuses.
    """
    try:
        rename(work_folder, entry)
    except OSError:
        with wait_for_folder(entry.parent):  # of those that see the damage, the first one mends it
            if open_entry(entry) is not None:
                return
            with contextlib.suppress(FileNotFoundError):
                _remove(entry)
            try:
                rename(work_folder, entry)
            except OSError:
                if open_entry(entry) is None:
                    raise
    sync_folder(entry.parent)


def _remove(entry: Path) -> None:
    """Remove an entry at once, whoever opens it."""
    removed = entry.with_name(f"{secrets.token_hex(8)}.tmp")
    rename(entry, removed)
    shutil.rmtree(removed, ignore_errors=True)


def remove_abandoned(cache: Path) -> None:
    """Remove unfinished entries of processes that were killed at least a day ago.

    Args:
        cache: the folder of the cache.
    """
    for abandoned in cache.glob(WORK_FOLDERS):
        try:
            if time.time() - abandoned.stat().st_mtime > ABANDONED:
                shutil.rmtree(abandoned, ignore_errors=True)
        except FileNotFoundError:  # another process may remove it too
            continue


@dataclass(frozen=True)
class CacheEntry:
    """What is known of an entry without reading it.

    Args:
        path: its folder.
        bytes: of its files.
        used: when it was last opened, in seconds since 1970.
        sources: the names of the files that it was made of, as far as they are remembered.
    """

    path: Path
    bytes: int
    used: float
    sources: list[str]


def list_entries(cache: Path) -> list[CacheEntry]:
    """List the entries of a cache.

    Args:
        cache: its folder, which need not exist.

    Returns:
        The entries, the last used one first.
    """
    sources = SourceIndex(cache).sources()
    entries = []
    for path in cache.glob(KEYS):
        try:
            sizes = [file.stat().st_size for file in path.iterdir()]
            entries.append(CacheEntry(path, sum(sizes), path.stat().st_mtime, sources.get(path.name, [])))
        except OSError:  # another process may remove it
            continue
    return sorted(entries, key=lambda entry: (-entry.used, entry.path.name))


def folder_size(folder: Path) -> int:
    """Add up the bytes of the files in a folder.

    Args:
        folder: which need not exist.
    """
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def remove_entries(cache: Path, entries: Iterable[CacheEntry]) -> int:
    """Remove entries, and what is remembered of the files that they were made of.

    Who has one open keeps it; Windows does not remove it.

    Args:
        cache: the folder of the cache.
        entries: of it.

    Returns:
        The bytes that are free again.

    Raises:
        WriteError: there is no permission, or on Windows a program has one open.
        OSError: the disk refuses.
    """
    freed, keys = 0, set()
    for entry in entries:
        try:
            _remove(entry.path)
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise WriteError(
                f"cannot remove {entry.path}: {error.strerror}; on Windows a program that learns from it must end first"
            ) from error
        freed += entry.bytes
        keys.add(entry.path.name)
    SourceIndex(cache).forget(keys)
    return freed
