"""A cache of encoded texts on disk, each named by a hash of its content and options.

A text is encoded once, in memory that does not grow with it; from then on its ids are mapped from the disk.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import CODE_POINTS, count_code_points
from chargen.data.corpus_config import CorpusConfig
from chargen.data.reading import BLOCK_SIZE, read_text, text_files
from chargen.data.reading_config import RAW
from chargen.data.reading_report import ReadingReport
from chargen.data.records import label_of_file, split_records, whole_records
from chargen.data.sources import Source
from chargen.data.unpack import name_errors, read_blocks
from chargen.data.vocabulary import Vocabulary
from chargen.durable import describe_os_error, sync_folder, write_durably
from chargen.errors import ChargenError, DataError, WriteError, quote_backticks

ROLES = ("train", "valid", "test")
CACHE_FORMAT = 3
"""A part of every key: raised when entries of earlier versions are to be made anew."""
SOURCE_CHANGED = "a source changed while it was read; run the command again when it is complete"
ProgressCallback = Callable[[str, int, int | None], None]
"""Called as (activity, bytes done, bytes in total or None)."""


@dataclass(frozen=True, eq=False)
class EncodedText:
    """The content of a cache entry.

    Args:
        vocabulary: covers all parts.
        parts: ids (N,) of the train, the valid and the test sources, mapped from the disk; those of records are already
            split.
        report: what reading met.
    """

    vocabulary: Vocabulary
    parts: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    report: ReadingReport


def open_entry(entry: Path) -> EncodedText | None:
    """Open an entry of the cache.

    Args:
        entry: its folder, which its key names.

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
        if stored.pop("sha256") != _checksum(hashlib.sha256(ids.data), stored):
            return None
        train, valid, test = np.split(ids, [train_size, train_size + valid_size])
        return EncodedText(vocabulary, (train, valid, test), ReadingReport(**stored["report"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _checksum(ids_digest: "hashlib._Hash", stored: dict[str, Any]) -> str:
    """The checksum of an entry's ids and its description: a disk may return other bytes than were written to it."""
    digest = ids_digest.copy()
    digest.update(json.dumps(stored, sort_keys=True).encode())
    return digest.hexdigest()


def _install(work_folder: Path, entry: Path) -> None:
    """Move a finished entry to its place; another process may have been faster, a damaged entry is replaced."""
    try:
        os.replace(work_folder, entry)
    except OSError:
        if open_entry(entry) is not None:
            return
        damaged = work_folder.with_name(f"{secrets.token_hex(8)}.tmp")
        os.replace(entry, damaged)
        os.replace(work_folder, entry)
        shutil.rmtree(damaged, ignore_errors=True)
    sync_folder(entry.parent)


@dataclass(eq=False)
class Encoder:
    """Makes the cache entry of sources: hashes the bytes and, where they are new, counts characters and writes ids.

    Args:
        sources: by role; those that can be read only once are replaced by copies.
        config: how the text becomes ids.
        cache: the folder of the cache.
        progress: called after every block.
        known: a vocabulary whose characters have ids whether they occur or not.
    """

    sources: dict[str, list[Source]]
    config: CorpusConfig
    cache: Path
    progress: ProgressCallback
    known: Vocabulary | None = None

    def __post_init__(self) -> None:
        self.files = dict.fromkeys(ROLES, 0)
        self.kinds: list[tuple[str, str]] = []
        self.size: int | None = None

    def make_entry(self) -> tuple[EncodedText, str]:
        """Make the entry where there is none or a damaged one, and open it.

        Returns:
            The encoded text and the key of its entry.

        Raises:
            DataError: where a source cannot be read.
            ChargenError: where the cache cannot be written.
        """
        work_folder = self.cache / f"{secrets.token_hex(8)}.tmp"
        try:
            work_folder.mkdir(parents=True)
            self._remove_abandoned()
            try:
                content_hash = self._hash_sources(work_folder)
                entry = self.cache / self._key(content_hash)
                encoded = open_entry(entry)
                if encoded is None:
                    self._encode(work_folder, content_hash)
                    for spool in work_folder.glob("spool*"):
                        spool.unlink()
                    _install(work_folder, entry)
                    encoded = open_entry(entry)
            finally:
                shutil.rmtree(work_folder, ignore_errors=True)
        except (OSError, WriteError) as error:
            reason = str(error)
            if isinstance(error, OSError):
                reason = f"cannot write the cache {quote_backticks(self.cache)}: {describe_os_error(error, self.cache)}"
            raise ChargenError(f"{reason}; set CHARGEN_CACHE to a folder with room") from error
        if encoded is None:
            raise ChargenError(f"{entry} vanished from the cache while it was read; run the command again")
        encoded.report.passed_over = self.passed_over
        return encoded, entry.name

    def _remove_abandoned(self) -> None:
        """Remove unfinished entries of processes that were killed at least a day ago."""
        for abandoned in self.cache.glob(f"{'[0-9a-f]' * 16}.tmp"):
            with contextlib.suppress(FileNotFoundError):  # another process may remove it too
                if time.time() - abandoned.stat().st_mtime > 86400:
                    shutil.rmtree(abandoned, ignore_errors=True)

    def _spool(self, work_folder: Path) -> None:
        """Copy sources that can be read only once, and take the copies in their place."""
        copying = _Pass("copying", self)
        for role in ROLES:
            for number, source in enumerate(self.sources[role]):
                if source.is_stream:
                    copy = work_folder / f"spool-{role}-{number}"
                    with source.open() as stream, open(copy, "wb") as spool:
                        spool.writelines(copying.watch(name_errors(source.name, read_blocks(stream, BLOCK_SIZE))))
                    self.sources[role][number] = replace(source, copy=copy)

    def _hash_sources(self, work_folder: Path) -> str:
        """The hash of the bytes of all texts."""
        self._spool(work_folder)
        reading, report = _Pass("reading", self), ReadingReport()
        for role in ROLES:
            for source in self.sources[role]:
                for file in text_files(source, self.config, report):
                    self.files[role] += 1
                    if self.config.records is not None:
                        label = label_of_file(file.path, self.config.label_from)
                        self.kinds.append((self.config.records_of(file.path), label))
                    for _ in reading.watch(file.blocks):
                        pass
        report.files = sum(self.files.values())
        report.check_files()
        self.size, self.passed_over = reading.done, report.passed_over
        return reading.digest.hexdigest()

    def _shares(self) -> dict[str, float]:
        """The shares of the train sources that validate and test, by role."""
        return {role: 0.0 if self.sources[role] else share for role, share in self.config.fractions.items()}

    def _in_order_of_parts(
        self, work_folder: Path, vocabulary: Vocabulary, encoding: "_Pass"
    ) -> Iterator[tuple[int, str]]:
        """The texts of all roles, each block with the number of its part, those of train first.

        Records of the train sources are split by their hash; those that are not for training wait in files.
        """
        shares = self._shares()
        with contextlib.ExitStack() as stack:
            waiting = [
                stack.enter_context(open(work_folder / f"spool-{role}", "w+", -1, "utf-8", "surrogatepass", newline=""))
                for role in (shares if self.config.by_hash else ())
            ]
            for part, role in enumerate(ROLES):
                report = ReadingReport(labels=list(vocabulary.labels))
                texts = read_text(self.sources[role], self.config, report=report, watch=encoding.watch)
                if part == 0 and self.config.by_hash:
                    for text in whole_records(texts):
                        train, *others = split_records(text, shares["valid"], shares["test"], self.config.split_seed)
                        yield part, train
                        for file, other in zip(waiting, others, strict=True):
                            file.write(other)
                    continue
                if part and waiting:
                    waiting[part - 1].seek(0)
                    yield from ((part, text) for text in iter(partial(waiting[part - 1].read, BLOCK_SIZE), ""))
                yield from ((part, text) for text in texts)

    def _key(self, content_hash: str) -> str:
        """The hash of content, roles and every option that shapes the ids; of records, of what file names say too."""
        config, by_hash = self.config, self.config.by_hash
        options = {field.name: getattr(config, field.name) for field in fields(CorpusConfig)}
        shares = {f"{role}_fraction": share for role, share in self._shares().items()}
        splits = {**shares, "split_seed": config.split_seed if any(shares.values()) else 0}
        options |= {name: value if by_hash else None for name, value in splits.items()}
        roles = [self.files[role] for role in ROLES]
        identity = [CACHE_FORMAT, content_hash, roles, options, unicodedata.unidata_version, self.kinds]
        if self.known is not None:
            identity.append(self.known.arguments())
        described = json.dumps(identity, sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    def _encode(self, work_folder: Path, content_hash: str) -> None:
        """Count the characters, then write the ids; raises DataError where the bytes are no longer those hashed."""
        counts = np.zeros(CODE_POINTS, np.int64)
        report = ReadingReport(labels=list(self.known.labels) if self.known else [])
        counting, encoding = _Pass("counting", self), _Pass("encoding", self)
        for role in ROLES:
            for text in read_text(self.sources[role], self.config, report=report, watch=counting.watch):
                block_counts = count_code_points(text)
                counts[: len(block_counts)] += block_counts
        counting.check(content_hash)
        raw, records = self.config.encoding == RAW, self.config.records is not None
        if counts[0xD800:0xE000].any() and not (raw or records):  # marks of records are such
            raise DataError(f"the text holds a lone surrogate, which is not a character (in {self.config.encoding})")
        report.check_records(self.config, int(counts[0xD800:0xE000].sum()))
        vocabulary = Vocabulary.from_counts(
            counts, unit=self.config.unit, raw=raw, min_count=self.config.min_count, records=records,
            labels=report.labels, known=self.known,
        )  # fmt: skip
        if not vocabulary.characters and vocabulary.folded:
            raise DataError(f"no character occurs {self.config.min_count} times: choose a smaller `min_count`")
        sizes, digest = [0, 0, 0], hashlib.sha256()

        def encode_blocks() -> Iterator[bytes]:
            for part, text in self._in_order_of_parts(work_folder, vocabulary, encoding):
                try:
                    ids = vocabulary.encode(text)
                except DataError as error:
                    raise DataError(SOURCE_CHANGED) from error
                sizes[part] += len(ids)
                digest.update(ids.data)
                yield ids.tobytes()
            encoding.check(content_hash)

        # A byte vocabulary writes one byte more from each of these code points on, but one for a mark.
        longer_from = (0x80, 0x800, 0x10000) if vocabulary.byte_mode else ()
        size = sum(int(counts[first:].sum()) for first in (0, *longer_from))
        size -= 2 * int(counts[0xD800:0xE000].sum()) * (vocabulary.byte_mode and records)
        size *= vocabulary.dtype.itemsize
        write_durably(work_folder / "ids", encode_blocks(), size)
        stored = {
            "vocabulary": vocabulary.arguments(),
            "sizes": sizes,
            "report": asdict(replace(report, passed_over=[])),
        }
        stored["sha256"] = _checksum(digest, stored)
        write_durably(work_folder / "corpus.json", [json.dumps(stored).encode()])


class _Pass:
    """A pass over all bytes: reports progress, and hashes them, so that a text that changes meanwhile is noticed."""

    def __init__(self, activity: str, encoder: Encoder) -> None:
        self.activity = activity
        self.encoder = encoder
        self.done = 0
        self.digest = hashlib.sha256()

    def watch(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """The blocks of a text, counted and hashed as they pass."""
        size = 0
        for block in blocks:
            size += len(block)
            self.done += len(block)
            self.digest.update(block)
            self.encoder.progress(self.activity, self.done, self.encoder.size)
            yield block
        self.digest.update(f"\0{size}\0".encode())

    def check(self, content_hash: str) -> None:
        """Raise DataError where the bytes of this pass have another hash."""
        if self.digest.hexdigest() != content_hash:
            raise DataError(SOURCE_CHANGED)
