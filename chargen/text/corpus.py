"""A text as ids on disk: encoded once, cached under its content, and mapped into memory, never loaded."""

import glob
import hashlib
import json
import os
import secrets
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from chargen.durable import sync_folder, write_durably
from chargen.errors import ChargenError, DataError, SettingError
from chargen.settings import setting
from chargen.text.reading import ReadingConfig, ReadingReport, Source, clean, find_sources, read_bytes, read_text
from chargen.text.vocabulary import CODE_POINTS, UNITS, Vocabulary, count_code_points

ROLES = ("train", "valid", "test")
CACHE_FORMAT = 1
CHANGED = "a source changed while it was read; run the command again when it is complete"
Names = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
ProgressBar = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class CorpusConfig(ReadingConfig):
    """How a text becomes ids, and which part of it is for what."""

    unit: str = setting("character", "what an id stands for; bytes know every text", choices=UNITS)
    min_count: int = setting(1, "characters rarer than this share one unknown symbol", low=1)
    valid_fraction: float = setting(0.1, "share of the text, after the training part, that validates", low=0, below=1)
    test_fraction: float = setting(0.0, "share of the text, at its end, that tests", low=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.valid_fraction + self.test_fraction >= 1:
            raise SettingError(
                f"valid_fraction {self.valid_fraction} + test_fraction {self.test_fraction} leave nothing to train on",
                "valid_fraction",
            )
        if self.unit == "byte" and self.min_count > 1:
            raise SettingError(f"min_count is {self.min_count}: bytes are never folded, so it must be 1", "min_count")


@dataclass(frozen=True, eq=False)
class Corpus:
    """A vocabulary and three arrays of ids that follow one another and never overlap.

    Args:
        vocabulary: covers all three.
        train, valid, test: ids (N,), uint8, uint16 or uint32, usually mapped from the cache.
        key: names the content and every option that shaped it; equal keys mean equal ids.
        config: the options.
        sources: for each role, the names it was read from, as absolute paths; empty for a text given in memory.
        report: what reading met.
    """

    vocabulary: Vocabulary
    train: NDArray[Any]
    valid: NDArray[Any]
    test: NDArray[Any]
    key: str
    config: CorpusConfig
    sources: dict[str, list[str]]
    report: ReadingReport
    hidden: int = 0

    @classmethod
    def from_files(
        cls,
        sources: Names,
        *,
        valid: Names = (),
        test: Names = (),
        config: CorpusConfig | None = None,
        cache: str | os.PathLike[str] | None = None,
        progress: ProgressBar | None = None,
        **settings: Any,
    ) -> "Corpus":
        """Read files, folders, patterns, `-` or a corpus name; cut validation and test parts off, or read them apart.

        A fraction applies only to a role that has no sources of its own.

        Args:
            cache: the folder for encoded texts; by default $CHARGEN_CACHE or the system's place for caches.
            progress: called as (what, bytes done, bytes in all or None) after every block.
            settings: fields of CorpusConfig, where no `config` is given.

        Raises DataError for a text that cannot be read, SettingError for a setting out of range.
        """
        config = _one_config(config, settings)
        if not _as_list(sources):
            raise DataError("no text to learn: name a file, a folder, a pattern or a corpus")
        names = {role: _as_list(given) for role, given in zip(ROLES, (sources, valid, test), strict=True)}
        found = {role: find_sources(given) for role, given in names.items()}
        if sum(name == "-" for given in names.values() for name in given) > 1:
            raise DataError("standard input can be read only once; name - once")
        encoder = _Encoder(
            {role: files for role, (files, _) in found.items()},
            config,
            Path(cache) if cache is not None else cache_folder(),
            progress or (lambda what, done, total: None),
        )
        entry, key = encoder.entry()
        return cls._from_entry(
            entry,
            key,
            config,
            {role: _absolute(given) for role, given in names.items()},
            sum(h for _, h in found.values()),
        )

    @classmethod
    def from_text(cls, text: str, *, config: CorpusConfig | None = None, **settings: Any) -> "Corpus":
        """The same from a text in memory, without a cache; for examples, tests and notebooks."""
        config = _one_config(config, settings)
        text = clean(text, config)
        if any("\ud800" <= character <= "\udfff" for character in set(text)):
            raise DataError("the text holds a lone surrogate, which is not a character")
        vocabulary = Vocabulary.from_counts(count_code_points(text), unit=config.unit, min_count=config.min_count)
        ids = vocabulary.encode(text)
        key = hashlib.sha256(json.dumps([asdict(config), text]).encode()).hexdigest()
        sources: dict[str, list[str]] = {role: [] for role in ROLES}
        return cls(vocabulary, *split(ids, config, vocabulary.byte_mode), key, config, sources, ReadingReport())

    @classmethod
    def _from_entry(
        cls, entry: Path, key: str, config: CorpusConfig, sources: dict[str, list[str]], hidden: int = 0
    ) -> "Corpus":
        stored = json.loads((entry / "corpus.json").read_text("utf-8"))
        vocabulary = Vocabulary(stored["characters"], folded=stored["folded"], unit=config.unit)
        sizes = stored["sizes"]
        total = sum(sizes)
        ids: NDArray[Any] = np.zeros(0, vocabulary.dtype)
        if total:
            ids = np.memmap(entry / "ids", vocabulary.dtype, "r", shape=(total,))
        own, valid, test = np.split(ids, [sizes[0], sizes[0] + sizes[1]])
        train, cut_valid, cut_test = split(
            own, config, vocabulary.byte_mode, keep_valid=bool(sources["valid"]), keep_test=bool(sources["test"])
        )
        parts = train, valid if sources["valid"] else cut_valid, test if sources["test"] else cut_test
        return cls(vocabulary, *parts, key, config, sources, ReadingReport(**stored["report"]), hidden)

    @classmethod
    def from_description(cls, described: dict[str, Any], progress: ProgressBar | None = None) -> "Corpus":
        """Read again what `describe` named: from its sources, or from the cache where they are gone (standard input).

        Raises DataError where the text is gone or no longer the same.
        """
        config, sources, key = CorpusConfig(**described["config"]), described["sources"], described["key"]
        entry = cache_folder() / key
        named = [name for given in sources.values() for name in given]
        try:
            if not named or any(name == "-" or Path(name).is_fifo() for name in named):
                raise DataError(
                    f"the text of this run was given once and is no longer in the cache {entry}; start a new run"
                )
            train, valid, test = (sources[role] for role in ROLES)
            find_sources(named)
        except DataError:
            if not _is_whole(entry):
                raise
            return cls._from_entry(entry, key, config, sources)
        corpus = cls.from_files(train, valid=valid, test=test, config=config, progress=progress)
        if corpus.key != key:
            raise DataError(f"the text of this run has changed ({', '.join(named)}); restore it, or start a new run")
        return corpus

    def describe(self) -> dict[str, Any]:
        """What a run must remember to find this corpus again and to know that it is the same."""
        return {"key": self.key, "config": asdict(self.config), "sources": self.sources}

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How often each id occurs in the training part, (V,)."""
        counts = np.zeros(len(self.vocabulary), np.int64)
        for start in range(0, len(self.train), 1 << 24):
            counts += np.bincount(self.train[start : start + (1 << 24)], minlength=len(counts))
        return counts


def split(
    ids: NDArray[Any], config: CorpusConfig, byte_mode: bool, *, keep_valid: bool = False, keep_test: bool = False
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Cut ids (N,) into train = floor(N (1 - v - t)), valid, test, in this order, exactly (decimal fractions).

    In bytes, a border inside a character moves back to the character's first byte.
    """
    valid, test = (Fraction(str(value)) for value in (config.valid_fraction, config.test_fraction))
    valid, test = Fraction(0) if keep_valid else valid, Fraction(0) if keep_test else test
    borders = [int(len(ids) * (1 - valid - test)), int(len(ids) * (1 - test))]
    if byte_mode:
        borders = [_character_start(ids, border) for border in borders]
    return ids[: borders[0]], ids[borders[0] : borders[1]], ids[borders[1] :]


def _character_start(ids: NDArray[Any], border: int) -> int:
    while 0 < border < len(ids) and ids[border] & 0xC0 == 0x80:
        border -= 1
    return border


def cache_folder() -> Path:
    """Where encoded texts lie: $CHARGEN_CACHE, or the system's place for caches. It may be deleted at any time."""
    return Path(os.environ.get("CHARGEN_CACHE") or platformdirs.user_cache_dir("chargen", appauthor=False))


def _one_config(config: CorpusConfig | None, settings: dict[str, Any]) -> CorpusConfig:
    if config is not None and settings:
        raise SettingError(f"give {', '.join(settings)} in the config or beside it, not both")
    try:
        return config or CorpusConfig(**settings)
    except TypeError as error:
        raise SettingError(f"no such setting of a corpus: {error}") from error


def _as_list(names: Names) -> list[str]:
    return [os.fspath(names)] if isinstance(names, (str, os.PathLike)) else [os.fspath(name) for name in names]


def _absolute(names: Iterable[str]) -> list[str]:
    """Names that mean the same from another folder: paths and patterns absolute, `-` and corpus names as they are."""
    return [
        os.path.abspath(name) if (name != "-" and os.path.exists(name)) or glob.has_magic(name) else name
        for name in names
    ]


def _is_whole(entry: Path) -> bool:
    try:
        stored = json.loads((entry / "corpus.json").read_text("utf-8"))
        vocabulary = Vocabulary(stored["characters"], folded=stored["folded"], unit=stored["unit"])
        ReadingReport(**stored["report"])
        size = sum(stored["sizes"]) * vocabulary.dtype.itemsize
        return len(stored["sizes"]) == 3 and bool((entry / "ids").stat().st_size == size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _install(work: Path, entry: Path) -> None:
    """Move a finished entry into its place. Another process may have been faster; a damaged one is moved away."""
    try:
        os.replace(work, entry)
    except OSError:
        if _is_whole(entry):
            return
        damaged = work.with_name(f"{secrets.token_hex(8)}.tmp")
        os.replace(entry, damaged)
        os.replace(work, entry)
        shutil.rmtree(damaged, ignore_errors=True)
    sync_folder(entry.parent)


class _Encoder:
    """One trip from sources to a cache entry: hash the bytes; where they are new, count characters, then write ids."""

    def __init__(
        self, sources: dict[str, list[Source]], config: CorpusConfig, cache: Path, progress: ProgressBar
    ) -> None:
        self.sources = sources
        self.config = config
        self.cache = cache
        self.progress = progress
        self.spooled: dict[int, Path] = {}
        self.size: int | None = None

    def entry(self) -> tuple[Path, str]:
        """The folder of the encoded text, made where it is not there yet, and its key."""
        work = self.cache / f"{secrets.token_hex(8)}.tmp"
        try:
            work.mkdir(parents=True)
            self._remove_abandoned()
            try:
                content = self._read_once(work)
                entry = self.cache / self._key(content)
                if not _is_whole(entry):
                    self._encode(work, content)
                    for spool in self.spooled.values():
                        spool.unlink()
                    _install(work, entry)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        except OSError as error:
            advice = "set CHARGEN_CACHE to a folder with room"
            raise ChargenError(f"cannot write the cache {self.cache}: {error.strerror or error}; {advice}") from error
        return entry, entry.name

    def _remove_abandoned(self) -> None:
        """Remove what processes killed at least a day ago left half made."""
        for left in self.cache.glob("*.tmp"):
            if time.time() - left.stat().st_mtime > 86400:
                shutil.rmtree(left, ignore_errors=True)

    def _read_once(self, work: Path) -> str:
        """The hash of every source's bytes; what can be read only once is spooled on the way."""
        watch = _Pass("reading", self)
        for number, source in enumerate(source for role in ROLES for source in self.sources[role]):
            if source.once:
                self.spooled[id(source)] = work / f"spool{number}"
                with open(work / f"spool{number}", "wb") as spool:
                    for block in watch.blocks(source, read_bytes(source)):
                        spool.write(block)
            else:
                for _ in watch.blocks(source, read_bytes(source)):
                    pass
        self.size = watch.done
        return watch.digest.hexdigest()

    def _key(self, content: str) -> str:
        """Names content, roles and every option that shapes the ids; fractions only say where they are cut."""
        options = {name: value for name, value in asdict(self.config).items() if not name.endswith("_fraction")}
        roles = [len(self.sources[role]) for role in ROLES]
        described = json.dumps([CACHE_FORMAT, content, roles, options, unicodedata.unidata_version], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    def _texts(self, watch: "_Pass", role: str, report: ReadingReport) -> Iterator[str]:
        def blocks(source: Source) -> Iterator[bytes]:
            spool = self.spooled.get(id(source))
            return watch.blocks(source, read_bytes(Source(source.name, spool) if spool else source))

        return read_text(self.sources[role], self.config, report=report, blocks=blocks)

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
        if counts[0xD800:0xE000].any():
            raise DataError(f"the text holds a lone surrogate, which is not a character (in {self.config.encoding})")
        vocabulary = Vocabulary.from_counts(counts, unit=self.config.unit, min_count=self.config.min_count)
        sizes = [0, 0, 0]

        def encoded() -> Iterator[bytes]:
            for number, role in enumerate(ROLES):
                for text in self._texts(encoding, role, ReadingReport()):
                    try:
                        ids = vocabulary.encode(text)
                    except DataError as error:
                        raise DataError(CHANGED) from error
                    sizes[number] += len(ids)
                    yield ids.tobytes()
            encoding.check(content)

        write_durably(work / "ids", encoded())
        stored = {
            "characters": vocabulary.characters,
            "folded": vocabulary.folded,
            "sizes": sizes,
            "unit": vocabulary.unit,
            "report": asdict(report),
        }
        write_durably(work / "corpus.json", [json.dumps(stored).encode()])


class _Pass:
    """One pass over all bytes: shows progress, and hashes, so that a text that changes meanwhile is noticed."""

    def __init__(self, what: str, encoder: _Encoder) -> None:
        self.what = what
        self.encoder = encoder
        self.done = 0
        self.digest = hashlib.sha256()

    def blocks(self, source: Source, blocks: Iterable[bytes]) -> Iterator[bytes]:
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
            raise DataError(CHANGED)
