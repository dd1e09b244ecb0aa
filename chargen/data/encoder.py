"""Sources -> an entry of the cache, in two passes over the bytes and in memory that does not grow with them."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import CODE_POINTS, END_MARK, count_code_points
from chargen.data.corpus_cache import ROLES, EncodedText, describe_entry, install_entry, open_entry, remove_abandoned
from chargen.data.corpus_config import CorpusConfig
from chargen.data.reading import read_text
from chargen.data.reading_config import RAW
from chargen.data.reading_report import ReadingReport
from chargen.data.records import choose_parts, label_of_file, whole_records
from chargen.data.source_index import SourceIndex
from chargen.data.sources import Source
from chargen.data.text_files import BLOCK_SIZE, TextFile
from chargen.data.unpack import ARCHIVES, PACKING_BY_SUFFIX, name_errors, read_blocks
from chargen.data.vocabulary import Vocabulary
from chargen.durable import describe_os_error, write_durably
from chargen.errors import ChargenError, DataError, WriteError, quote_backticks

CACHE_FORMAT = 5
"""A part of every key: raised when entries of earlier versions are to be made anew."""
SOURCE_CHANGED = "a source changed while it was read; run the command again when it is complete"
AHEAD = 2
"""Threads that encode blocks while the next ones are read; NumPy lets them run side by side."""
PACKED = (*PACKING_BY_SUFFIX, *ARCHIVES)
"""Ends of names of files that may hold more text than they have bytes."""
CHOICES = ("include", "exclude", "max_bytes", "documents")
"""Settings that only choose what is read: the same bytes, chosen otherwise, are the same text."""
MET = ("passed_over", "excluded", "html", "plain_tables")
"""What is reported of files that does not follow from the bytes that were read."""
ProgressCallback = Callable[[str, int, int | None], None]
"""Called as (activity, bytes done, bytes in total or None)."""
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Content(NamedTuple):
    """What the bytes of all sources are.

    Args:
        hash: of them, of what separates them, and of what the names of files say of their records.
        counts: of code points.
        report: what reading met.
    """

    hash: str
    counts: NDArray[np.int64]
    report: ReadingReport


@dataclass(eq=False)
class Encoder:
    """Makes the cache entry of sources: counts their characters and, where they are new, writes their ids.

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

    def make_entry(self) -> tuple[EncodedText, str]:
        """Make the entry where there is none or a damaged one, and open it.

        Returns:
            The encoded text and the key of its entry.

        Raises:
            DataError: where a source cannot be read.
            ChargenError: where the cache cannot be written.
        """
        index = SourceIndex(self.cache)
        options = [self._options(), *(getattr(self.config, name) for name in CHOICES)]
        stamp = index.stamp(self.sources, options)
        if stamp is not None and (remembered := index.find(stamp)):
            key, met = remembered
            if (encoded := self._open(key)) is not None and met.keys() == set(MET):
                return replace(encoded, report=replace(encoded.report, **met)), key
        encoded, key = self._read_sources()
        if stamp is not None and stamp == index.stamp(self.sources, options):
            names = [os.path.abspath(source.path) for role in ROLES for source in self.sources[role] if source.path]
            index.remember(stamp, key, _met(encoded.report), names)
        return encoded, key

    def _open(self, key: str) -> EncodedText | None:
        encoded = open_entry(self.cache / key)
        if encoded is not None:
            with contextlib.suppress(OSError):
                os.utime(self.cache / key)  # when it was last used
        return encoded

    def _read_sources(self) -> tuple[EncodedText, str]:
        """Read the sources, and encode them where no entry has their content."""
        work_folder = self.cache / f"{secrets.token_hex(8)}.tmp"
        try:
            work_folder.mkdir(parents=True)
            remove_abandoned(self.cache)
            try:
                self._spool(work_folder)
                content = self._count()
                key = self._key(content.hash)
                encoded = self._open(key)
                if encoded is None:
                    self._encode(work_folder, content)
                    for spool in work_folder.glob("spool*"):
                        spool.unlink()
                    install_entry(work_folder, self.cache / key)
                    encoded = self._open(key)
            finally:
                shutil.rmtree(work_folder, ignore_errors=True)
        except (OSError, WriteError) as error:
            reason = str(error)
            if isinstance(error, OSError):
                reason = f"cannot write the cache {quote_backticks(self.cache)}: {describe_os_error(error, self.cache)}"
            advice = "make room, or set CHARGEN_CACHE to a folder with room"
            raise ChargenError(f"{reason}; {advice}") from error
        if encoded is None:
            raise ChargenError(f"{self.cache / key} vanished from the cache while it was read; run the command again")
        return replace(encoded, report=replace(encoded.report, **_met(content.report))), key

    def _spool(self, work_folder: Path) -> None:
        """Copy sources that can be read only once, and take the copies in their place."""
        copying = _Pass("copying", self)
        for role in ROLES:
            for number, source in enumerate(self.sources[role]):
                if source.is_stream:
                    copy = work_folder / f"spool-{role}-{number}"
                    with source.open() as stream, open(copy, "wb") as spool:
                        blocks = name_errors(source.name, read_blocks(stream, BLOCK_SIZE))
                        spool.writelines(copying.watch(TextFile(source.name, "", blocks)))
                    self.sources[role][number] = replace(source, copy=copy)

    def _size(self) -> int | None:
        """The bytes of all texts, where none is packed."""
        paths = [source.copy or source.path for role in ROLES for source in self.sources[role]]
        if any(path is None or path.name.endswith(PACKED) for path in paths):
            return None
        return sum(path.stat().st_size for path in paths if path)

    def _count(self) -> Content:
        """Count the characters, and hash the bytes."""
        counts = np.zeros(CODE_POINTS, np.int64)
        report = ReadingReport(labels=list(self.known.labels) if self.known else [])
        counting = _Pass("counting", self, self._size())
        for role in ROLES:
            counting.begin(role)
            for block_counts in map_ahead(count_code_points, self._read(role, report, counting)):
                counts[: len(block_counts)] += block_counts
        mark = ord(self._end_mark)  # vocabularies count ends of records under END_MARK
        counts[[ord(END_MARK), mark]] = counts[mark], counts[ord(END_MARK)]
        return Content(counting.digest.hexdigest(), counts, report)

    @property
    def _end_mark(self) -> str:
        """What stands for the end symbol in blocks of text."""
        config = self.config
        fields = config.text_field, config.label_field, config.label_from
        return "\n" if config.records == "line" and not any(fields) else END_MARK

    def _read(self, role: str, report: ReadingReport, reading: "_Pass") -> Iterator[str]:
        """Blocks of the text of a role."""
        config = self.config
        return read_text(self.sources[role], config, report=report, watch=reading.watch, end_mark=self._end_mark)

    def _shares(self) -> dict[str, float]:
        """The shares of the train sources that validate and test, by role."""
        return {role: 0.0 if self.sources[role] else share for role, share in self.config.fractions.items()}

    def _options(self) -> list[Any]:
        """Every option that shapes the ids, as JSON data."""
        config, by_hash = self.config, self.config.by_hash
        names = {field.name for field in fields(CorpusConfig)}.difference(CHOICES)
        options = {name: getattr(config, name) for name in names}
        shares = {f"{role}_fraction": share for role, share in self._shares().items()}
        splits = {**shares, "split_seed": config.split_seed if any(shares.values()) else 0}
        options |= {name: value if by_hash else None for name, value in splits.items()}
        return [CACHE_FORMAT, options, unicodedata.unidata_version, self.known and self.known.arguments()]

    def _key(self, content_hash: str) -> str:
        """The hash of the content and the options."""
        described = json.dumps([content_hash, self._options()], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    def _encode(self, work_folder: Path, content: Content) -> None:
        """Write the ids; raises DataError where the bytes are no longer those that were counted."""
        counts, report = content.counts, content.report
        vocabulary = make_vocabulary(counts, self.config, report, self.known)
        totals = vocabulary.count_ids(counts)
        sizes, digest, encoding = [0, 0, 0], hashlib.sha256(), _Pass("encoding", self, report.bytes)

        def encode_blocks() -> Iterator[memoryview]:
            for part, ids in self._in_order_of_parts(work_folder, vocabulary, encoding):
                sizes[part] += len(ids)
                digest.update(ids.data)
                yield ids.data
            encoding.check(content.hash)

        write_durably(work_folder / "ids", encode_blocks(), int(totals.sum()) * vocabulary.dtype.itemsize)
        describe_entry(work_folder, vocabulary, sizes, totals, report, digest)

    def _in_order_of_parts(
        self, work_folder: Path, vocabulary: Vocabulary, encoding: "_Pass"
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """The ids of all roles, each block with the number of its part, those of train first.

        Records of the train sources are split by their hash; those that are not for training wait in files.
        """
        shares, split, end_mark = self._shares(), self.config.by_hash, self._end_mark

        def encode(text: str) -> NDArray[Any]:
            try:
                return vocabulary.encode(text, end_mark=end_mark)
            except DataError as error:
                raise DataError(SOURCE_CHANGED) from error

        def encode_and_split(text: str) -> list[NDArray[Any]]:
            parts = choose_parts(text, shares["valid"], shares["test"], self.config.split_seed, end_mark)
            return split_ids(encode(text), parts, len(vocabulary) - vocabulary.begin_symbols)

        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(open(work_folder / f"spool-{role}", "w+b")) for role in shares if split]
            for part, role in enumerate(ROLES):
                encoding.begin(role)
                report = ReadingReport(labels=list(vocabulary.labels))
                texts = self._read(role, report, encoding)
                if part == 0 and split:
                    for train, *others in map_ahead(encode_and_split, whole_records(texts, end_mark)):
                        yield part, train
                        for file, ids in zip(waiting, others, strict=True):
                            file.write(ids.data)
                    continue
                if part and split:
                    waiting[part - 1].seek(0)
                    for block in read_blocks(waiting[part - 1], BLOCK_SIZE):
                        yield part, np.frombuffer(block, vocabulary.dtype)
                yield from ((part, ids) for ids in map_ahead(encode, texts))


def _met(report: ReadingReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in MET}


def make_vocabulary(
    counts: NDArray[np.int64], config: CorpusConfig, report: ReadingReport, known: Vocabulary | None
) -> Vocabulary:
    """Make the vocabulary of a text that was read.

    Args:
        counts: of its code points; those of records count their marks.
        config: how the text becomes ids.
        report: what reading met.
        known: a vocabulary whose characters have ids whether they occur or not.

    Raises:
        DataError: the text holds a lone surrogate, no character is frequent enough, or a setting did nothing.
    """
    raw, records = config.encoding == RAW, config.records is not None
    surrogates = int(counts[0xD800:0xE000].sum())
    if surrogates and not (raw or records):  # marks of records are such
        raise DataError(f"the text holds a lone surrogate, which is not a character (in {config.encoding})")
    report.check_records(config, surrogates)
    vocabulary = Vocabulary.from_counts(
        counts, unit=config.unit, raw=raw, min_count=config.min_count, records=records, labels=report.labels,
        known=known,
    )  # fmt: skip
    if not vocabulary.characters and vocabulary.folded:
        raise DataError(f"no character occurs {config.min_count} times: choose a smaller `min_count`")
    return vocabulary


def split_ids(ids: NDArray[Any], parts: NDArray[Any], first_begin: int) -> list[NDArray[Any]]:
    """Split the ids of records into train, valid and test.

    Args:
        ids: (N,), of whole records; begins with a begin symbol.
        parts: of each record (R,), its number.
        first_begin: the first of the begin symbols, which are the last ids.

    Returns:
        The ids of the three parts, each in the old order.
    """
    starts = np.flatnonzero(ids >= first_begin)
    part_of_id = np.repeat(parts, np.diff(starts, append=len(ids)))
    present = np.bincount(parts, minlength=len(ROLES)) > 0
    return [ids[part_of_id == part] if present[part] else ids[:0] for part in range(len(ROLES))]


def map_ahead(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Apply a function to items in their order, in threads, while the next items are made.

    Args:
        function: mostly NumPy.
        items: are made in this thread.

    Returns:
        An iterator over the results.
    """
    with ThreadPoolExecutor(AHEAD) as threads:
        pending: deque[Future[_Out]] = deque()
        for item in items:
            pending.append(threads.submit(function, item))
            if len(pending) > AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _Pass:
    """A pass over all bytes: reports progress, and hashes them, so that a text that changes meanwhile is noticed."""

    def __init__(self, activity: str, encoder: Encoder, size: int | None = None) -> None:
        self.activity = activity
        self.encoder = encoder
        self.size = size or 0
        self.done = 0
        self.digest = hashlib.sha256()

    def begin(self, role: str) -> None:
        """Begin with the sources of a role."""
        self.digest.update(f"\0{role}\0".encode())

    def watch(self, file: TextFile) -> Iterator[bytes]:
        """The blocks of a text, counted and hashed as they pass; of records, with what the name of the file says."""
        config, size = self.encoder.config, 0
        for block in file.blocks:
            size += len(block)
            self.done += len(block)
            self.digest.update(block)
            self.encoder.progress(self.activity, self.done, self.size if self.done <= self.size else None)
            yield block
        said = [config.records_of(file.path), label_of_file(file.path, config.label_from)] if config.records else []
        self.digest.update(json.dumps(["", size, *said]).encode())

    def check(self, content_hash: str) -> None:
        """Raise DataError where the bytes of this pass have another hash."""
        if self.digest.hexdigest() != content_hash:
            raise DataError(SOURCE_CHANGED)
