"""Encoded texts on disk, named after content and options: a text is encoded once, in flat memory, then only mapped."""

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
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from chargen.cache_folder import cache_folder
from chargen.data.reading import BLOCK_SIZE, RAW, ReadingConfig, ReadingReport, Source, read_text, text_files
from chargen.data.vocabulary import CODE_POINTS, UNITS, Vocabulary, count_code_points
from chargen.durable import describe_os_error, sync_folder, write_durably
from chargen.errors import ChargenError, DataError, SettingError, WriteError
from chargen.settings import setting

ROLES = ("train", "valid", "test")
CACHE_FORMAT = 2
SOURCE_CHANGED = "a source changed while it was read; run the command again when it is complete"
ProgressBar = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class EncodingConfig(ReadingConfig):
    """How a text becomes ids."""

    unit: str = setting("character", "what an id stands for; bytes know every text", choices=UNITS)
    min_count: int = setting(1, "characters rarer than this share one unknown symbol", low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit == "byte" and self.min_count > 1:
            raise SettingError(f"min_count is {self.min_count}: bytes are never folded, so it must be 1", "min_count")
        if self.encoding == RAW and self.unit != "byte":
            raise SettingError(f"encoding is raw: it needs unit byte, not {self.unit}", "encoding")


@dataclass(frozen=True, eq=False)
class EncodedText:
    """What an entry of the cache holds.

    Args:
        vocabulary: covers all parts.
        parts: ids (N,) of the train, valid and test sources, mapped from the disk.
        report: what reading met.
    """

    vocabulary: Vocabulary
    parts: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    report: ReadingReport


def open_entry(key: str, folder: Path | None = None) -> EncodedText | None:
    """The encoded text of that key, or None where it is not in the cache or not whole."""
    entry = (folder or cache_folder()) / key
    try:
        stored = json.loads((entry / "corpus.json").read_text("utf-8"))
        vocabulary = Vocabulary(stored["characters"], folded=stored["folded"], unit=stored["unit"])
        first, second, third = stored["sizes"]
        total = first + second + third
        if (entry / "ids").stat().st_size != total * vocabulary.dtype.itemsize or min(first, second, third) < 0:
            return None
        ids: NDArray[Any] = np.zeros(0, vocabulary.dtype)
        if total:
            ids = np.memmap(entry / "ids", vocabulary.dtype, "r", shape=(total,))
        if stored.pop("sha256") != _sealed(hashlib.sha256(ids.data), stored):
            return None
        train, valid, test = np.split(ids, [first, first + second])
        return EncodedText(vocabulary, (train, valid, test), ReadingReport(**stored["report"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sealed(ids: "hashlib._Hash", stored: dict[str, Any]) -> str:
    """The checksum of an entry's ids and its description: a disk may give back other bytes than it was given."""
    whole = ids.copy()
    whole.update(json.dumps(stored, sort_keys=True).encode())
    return whole.hexdigest()


def encode_sources(
    sources: dict[str, list[Source]],
    config: EncodingConfig,
    folder: Path | None,
    progress: ProgressBar,
    known: Vocabulary | None = None,
) -> tuple[EncodedText, str]:
    """Encode the sources of each role, or find them encoded. Returns the text and its key.

    Args:
        known: characters that have ids whether they occur or not.

    Raises DataError for what cannot be read, ChargenError where the cache cannot be written.
    """
    encoder = _Encoder(sources, config, folder or cache_folder(), progress, known)
    text, key = encoder.make_entry()
    if text is None:
        raise ChargenError(f"{encoder.cache / key} vanished from the cache while it was read; run the command again")
    return text, key


def _install(work: Path, entry: Path) -> None:
    """Move a finished entry into its place. Another process may have been faster; a damaged one is moved away."""
    try:
        os.replace(work, entry)
    except OSError:
        if open_entry(entry.name, entry.parent) is not None:
            return
        damaged = work.with_name(f"{secrets.token_hex(8)}.tmp")
        os.replace(entry, damaged)
        os.replace(work, entry)
        shutil.rmtree(damaged, ignore_errors=True)
    sync_folder(entry.parent)


class _Encoder:
    """One trip from sources to a cache entry: hash the bytes; where they are new, count characters, then write ids."""

    def __init__(
        self,
        sources: dict[str, list[Source]],
        config: EncodingConfig,
        cache: Path,
        progress: ProgressBar,
        known: Vocabulary | None,
    ) -> None:
        self.sources = sources
        self.config = config
        self.cache = cache
        self.progress = progress
        self.known = known
        self.spooled: dict[int, Path] = {}
        self.files = dict.fromkeys(ROLES, 0)
        self.passed_over: list[str] = []
        self.size: int | None = None

    def make_entry(self) -> tuple[EncodedText | None, str]:
        """The encoded text and its key, after making its entry where there is no whole one."""
        work = self.cache / f"{secrets.token_hex(8)}.tmp"
        try:
            work.mkdir(parents=True)
            self._remove_abandoned()
            try:
                content = self._read_once(work)
                entry = self.cache / self._key(content)
                text = open_entry(entry.name, self.cache)
                if text is None:
                    self._encode(work, content)
                    for spool in self.spooled.values():
                        spool.unlink()
                    _install(work, entry)
                    text = open_entry(entry.name, self.cache)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        except (OSError, WriteError) as error:
            what = str(error)
            if isinstance(error, OSError):
                what = f"cannot write the cache {self.cache}: {describe_os_error(error, self.cache)}"
            raise ChargenError(f"{what}; set CHARGEN_CACHE to a folder with room") from error
        if text is not None:
            text.report.passed_over = self.passed_over
        return text, entry.name

    def _remove_abandoned(self) -> None:
        """Remove what processes killed at least a day ago left half made."""
        for left in self.cache.glob(f"{'[0-9a-f]' * 16}.tmp"):
            with contextlib.suppress(FileNotFoundError):  # another process may remove it too
                if time.time() - left.stat().st_mtime > 86400:
                    shutil.rmtree(left, ignore_errors=True)

    def _spool(self, work: Path) -> None:
        """Copy what can be read only once."""
        copying = _Pass("copying", self)
        for source in (source for role in ROLES for source in self.sources[role] if source.is_stream):
            stream = source.open()
            self.spooled[id(source)] = work / f"spool{len(self.spooled)}"
            with open(self.spooled[id(source)], "wb") as spool:
                for block in copying.blocks(_read(source, stream)):
                    spool.write(block)
            if source.path is not None:
                stream.close()

    def _read_once(self, work: Path) -> str:
        """The hash of every text's bytes."""
        self._spool(work)
        watch, report = _Pass("reading", self), ReadingReport()
        for role in ROLES:
            for source in self.sources[role]:
                for _, blocks in self._files(watch, source, report):
                    self.files[role] += 1
                    for _ in blocks:
                        pass
        report.files = sum(self.files.values())
        report.check_files()
        self.size, self.passed_over = watch.done, report.passed_over
        return watch.digest.hexdigest()

    def _key(self, content: str) -> str:
        """Names content, roles and every option that shapes the ids."""
        options = {field.name: getattr(self.config, field.name) for field in fields(EncodingConfig)}
        roles = [self.files[role] for role in ROLES]
        named = [CACHE_FORMAT, content, roles, options, unicodedata.unidata_version]
        if self.known is not None:
            named += [self.known.characters, self.known.folded]
        described = json.dumps(named, sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    def _files(self, watch: "_Pass", source: Source, report: ReadingReport) -> Iterator[tuple[str, Iterator[bytes]]]:
        spool = self.spooled.get(id(source))
        for name, blocks in text_files(replace(source, path=spool) if spool else source, self.config, report):
            yield name, watch.blocks(blocks)

    def _texts(self, watch: "_Pass", role: str, report: ReadingReport) -> Iterator[str]:
        return read_text(
            self.sources[role], self.config, report=report, files=lambda source: self._files(watch, source, report)
        )

    def _encode(self, work: Path, content: str) -> None:
        """Two more passes: count the characters, then write the ids. The bytes must stay what was hashed."""
        counts = np.zeros(CODE_POINTS, np.int64)
        report = ReadingReport()
        counting, encoding = _Pass("counting", self), _Pass("encoding", self)
        for role in ROLES:
            for text in self._texts(counting, role, report):
                found = count_code_points(text)
                counts[: len(found)] += found
        counting.check(content)
        raw = self.config.encoding == RAW
        if counts[0xD800:0xE000].any() and not raw:
            raise DataError(f"the text holds a lone surrogate, which is not a character (in {self.config.encoding})")
        vocabulary = Vocabulary.from_counts(
            counts, unit=self.config.unit, raw=raw, min_count=self.config.min_count, known=self.known
        )
        if not vocabulary.characters and vocabulary.folded:
            raise DataError(f"no character occurs {self.config.min_count} times: choose a smaller --min-count")
        sizes, digest = [0, 0, 0], hashlib.sha256()

        def encoded() -> Iterator[bytes]:
            for number, role in enumerate(ROLES):
                for text in self._texts(encoding, role, ReadingReport()):
                    try:
                        ids = vocabulary.encode(text)
                    except DataError as error:
                        raise DataError(SOURCE_CHANGED) from error
                    sizes[number] += len(ids)
                    digest.update(ids.data)
                    yield ids.tobytes()
            encoding.check(content)

        # A byte vocabulary writes one byte more from each of these code points on.
        longer = (0x80, 0x800, 0x10000) if vocabulary.byte_mode else ()
        size = sum(int(counts[first:].sum()) for first in (0, *longer)) * vocabulary.dtype.itemsize
        write_durably(work / "ids", encoded(), size)
        stored = {
            "characters": vocabulary.characters,
            "folded": vocabulary.folded,
            "sizes": sizes,
            "unit": vocabulary.unit,
            "report": asdict(replace(report, passed_over=[])),
        }
        stored["sha256"] = _sealed(digest, stored)
        write_durably(work / "corpus.json", [json.dumps(stored).encode()])


class _Pass:
    """One pass over all bytes: shows progress, and hashes, so that a text that changes meanwhile is noticed."""

    def __init__(self, what: str, encoder: _Encoder) -> None:
        self.what = what
        self.encoder = encoder
        self.done = 0
        self.digest = hashlib.sha256()

    def blocks(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """The same blocks of one text."""
        size = 0
        for block in blocks:
            size += len(block)
            self.done += len(block)
            self.digest.update(block)
            self.encoder.progress(self.what, self.done, self.encoder.size)
            yield block
        self.digest.update(f"\0{size}\0".encode())

    def check(self, content: str) -> None:
        if self.digest.hexdigest() != content:
            raise DataError(SOURCE_CHANGED)


def _read(source: Source, stream: IO[bytes]) -> Iterator[bytes]:
    try:
        while block := stream.read(BLOCK_SIZE):
            yield block
    except OSError as error:
        raise DataError(f"cannot read {source.name}: {error.strerror or error}") from error
