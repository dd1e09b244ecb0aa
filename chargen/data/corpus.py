"""A text as ids in three parts: train, valid and test."""

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import choose_config
from chargen.cache_folder import cache_folder
from chargen.data.code_points import count_code_points
from chargen.data.corpus_cache import ROLES, EncodedText, open_entry
from chargen.data.corpus_config import CorpusConfig
from chargen.data.encoder import Encoder, ProgressCallback, make_vocabulary, split_ids
from chargen.data.reading import clean, mark_text
from chargen.data.reading_report import ReadingReport
from chargen.data.records import choose_parts
from chargen.data.repeats import copied_shares
from chargen.data.sorted_lines import are_sorted
from chargen.data.sources import find_sources
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError, ModelFileError, SettingError, amount, repr_short, truncate
from chargen.settings import as_json, check_text, make_settings

CHUNK = 1 << 20
"""Ids in which the beginning of a record is looked for at a time."""
SourceNames = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A vocabulary and three arrays of ids that follow one another and never overlap.

    Args:
        vocabulary: covers all three parts.
        train: ids (N,), uint8, uint16 or uint32, usually mapped from the cache.
        valid: ids of the validation part, of the same type.
        test: ids of the test part, of the same type.
        key: a hash of the content and of every option that shaped the ids; equal keys mean equal ids.
        config: the options.
        sources: for each role, the names it was read from, as absolute paths; empty for a text from memory.
        report: what reading met.
        hidden_entries: how many hidden or linked entries of folders, and files of runs, were not read.
        known: the vocabulary of a model to start from, all of which `vocabulary` contains.
        totals: how often each id occurs in all parts (V,); None where that is not known.
    """

    vocabulary: Vocabulary
    train: NDArray[Any]
    valid: NDArray[Any]
    test: NDArray[Any]
    key: str
    config: CorpusConfig
    sources: dict[str, list[str]]
    report: ReadingReport
    hidden_entries: int = 0
    known: Vocabulary | None = None
    totals: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        vocabulary = self.vocabulary
        parts = {name: len(getattr(self, name)) for name in ROLES}
        sizes = ", ".join(f"{name} {size:,}" for name, size in parts.items() if size or name != "test")
        total = amount(sum(parts.values()), vocabulary.unit)
        if vocabulary.records:
            sizes = ", ".join(f"{name} {self.count_records(name):,}" for name, size in parts.items() if size)
            return f"Corpus({amount(sum(map(self.count_records, ROLES)), 'record')} of {total}: {sizes})"
        if vocabulary.unit == "character":
            total += f", {len(vocabulary.characters) + len(vocabulary.folded):,} different"
        return f"Corpus({total}: {sizes})"

    @classmethod
    def from_files(
        cls,
        sources: SourceNames,
        *,
        valid: SourceNames = (),
        test: SourceNames = (),
        config: CorpusConfig | None = None,
        cache: str | os.PathLike[str] | None = None,
        progress: ProgressCallback | None = None,
        known: Vocabulary | None = None,
        **settings: Any,
    ) -> "Corpus":
        """Read and encode texts, or map them from the cache where they are encoded already.

        Args:
            sources: files, folders, patterns, `-` (standard input) or names of corpora.
            valid: sources of the validation part; without them it is cut off `sources` by `valid_fraction`.
            test: sources of the test part; without them it is cut off `sources` by `test_fraction`.
            config: how the text becomes ids.
            cache: the folder for encoded texts; by default $CHARGEN_CACHE or the system's place for caches.
            progress: called as (activity, bytes done, bytes in total or None) after every block.
            known: the vocabulary of a model to start from, whose characters have ids whether they occur or not.
            settings: fields of CorpusConfig, instead of `config`.

        Raises:
            DataError: where a text cannot be read.
            SettingError: where a setting is out of range.
            ChargenError: where the cache cannot be written.
        """
        config = choose_config(CorpusConfig, config, settings)
        if not _as_list(sources):
            raise DataError("no text to learn: name a file, a folder, a pattern or a corpus")
        names = {role: _as_list(values) for role, values in zip(ROLES, (sources, valid, test), strict=True)}
        expanded = {role: find_sources(role_names, config.filter) for role, role_names in names.items()}
        if sum(role_names.count("-") for role_names in names.values()) > 1:
            raise DataError("standard input can be read only once; name - once")
        found_sources = {role: role_sources for role, (role_sources, _) in expanded.items()}
        cache = cache_folder() if cache is None else Path(cache)
        progress = progress or (lambda activity, done, total: None)
        encoded, key = Encoder(found_sources, config, cache, progress, known).make_entry()
        absolute = {role: absolute_names(role_names) for role, role_names in names.items()}
        return cls._from_encoded(encoded, key, config, absolute, sum(count for _, count in expanded.values()), known)

    @classmethod
    def from_text(
        cls, text: str, *, config: CorpusConfig | None = None, known: Vocabulary | None = None, **settings: Any
    ) -> "Corpus":
        """Encode a text in memory, without a cache; for examples, tests and notebooks.

        Args:
            text: all three parts.
            config: how the text becomes ids.
            known: the vocabulary of a model to start from, whose characters have ids whether they occur or not.
            settings: fields of CorpusConfig, instead of `config`.

        Raises:
            DataError: where the text holds a lone surrogate.
            SettingError: where a setting is out of range, or the text is no str.
        """
        config = choose_config(CorpusConfig, config, settings)
        report = ReadingReport(labels=list(known.labels) if known else [])
        records = config.records is not None
        text = mark_text(text, config, report) if records else clean(check_text("text", text), config)
        counts = count_code_points(text)
        vocabulary = make_vocabulary(counts, config, report, known)
        identity = [asdict(config), text, report.labels] + ([known.arguments()] if known is not None else [])
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        sources: dict[str, list[str]] = {role: [] for role in ROLES}
        ids = vocabulary.encode(text)
        if config.by_hash:
            parts = choose_parts(text, config.valid_fraction, config.test_fraction, config.split_seed)
            train, valid, test = split_ids(ids, parts, len(vocabulary) - vocabulary.begin_symbols)
        else:
            train, valid, test = split(ids, config, vocabulary.byte_mode, vocabulary.end_id)
        totals = vocabulary.count_ids(counts)
        return cls(vocabulary, train, valid, test, key, config, sources, report, known=known, totals=totals)

    @classmethod
    def _from_encoded(
        cls,
        encoded: EncodedText,
        key: str,
        config: CorpusConfig,
        sources: dict[str, list[str]],
        hidden_entries: int = 0,
        known: Vocabulary | None = None,
    ) -> "Corpus":
        """Split the train sources by fractions, for every role that has no sources of its own."""
        vocabulary, (train, valid, test) = encoded.vocabulary, encoded.parts
        if not config.by_hash:
            nothing: dict[str, Any] = {f"{role}_fraction": 0.0 for role in ("valid", "test") if sources[role]}
            train, *cut_off = split(train, replace(config, **nothing), vocabulary.byte_mode, vocabulary.end_id)
            # Of the two, one is empty.
            valid, test = (max(both, key=len) for both in zip((valid, test), cut_off, strict=True))
        return cls(
            vocabulary, train, valid, test, key, config, sources, encoded.report, hidden_entries, known, encoded.counts
        )

    @classmethod
    def from_description(
        cls,
        described: dict[str, Any],
        progress: ProgressCallback | None = None,
        elsewhere: Mapping[str, SourceNames] | None = None,
    ) -> "Corpus":
        """Read a described corpus again: from its sources or, where they are gone (standard input), from the cache.

        Args:
            described: what `describe` returned, perhaps damaged since.
            progress: called as (activity, bytes done, bytes in total or None) after every block.
            elsewhere: new sources for roles whose text was moved, by "train", "valid" or "test".

        Raises:
            DataError: where the text is gone or no longer the same.
            ModelFileError: where `described` is not what `describe` returns.
        """
        moved = {role: _as_list(names) for role, names in (elsewhere or {}).items() if _as_list(names)}
        try:
            config = make_settings(CorpusConfig, described["config"])
            sources, key = described["sources"], described["key"]
            known = Vocabulary(**described["known"]) if "known" in described else None
            train, valid, test = ({**sources, **moved}[role] for role in ROLES)
            names = [os.fspath(name) for role_names in (train, valid, test) for name in role_names]
            if not re.fullmatch("[0-9a-f]{64}", key):
                raise ValueError(f"key {repr_short(key)}")
        except (KeyError, TypeError, ValueError, AttributeError, SettingError) as error:
            raise ModelFileError(
                f"the run does not remember its text as chargen does: {truncate(error, 200)}"
            ) from error
        try:
            if not names or any(source.is_stream for source in find_sources(names)[0]):
                raise DataError("the text of this run was given once and is no longer in the cache; start a new run")
        except DataError:
            encoded = None if moved else open_entry(cache_folder() / key)
            if encoded is None:
                raise
            return cls._from_encoded(encoded, key, config, sources, known=known)
        corpus = cls.from_files(train, valid=valid, test=test, config=config, progress=progress, known=known)
        if corpus.key != key:
            listed = ", ".join(names[:3]) + " …" * (len(names) > 3)
            if moved:
                raise DataError(f"the text in {listed} is not the one that this run learned; name that, unchanged")
            raise DataError(f"the text of this run has changed ({listed}); restore it, or start a new run")
        return corpus

    def describe(self) -> dict[str, Any]:
        """Describe this corpus, so that a run can find it again and notice a change.

        Returns:
            JSON data for `from_description`: its key, config and sources.
        """
        described = {"key": self.key, "config": as_json(self.config), "sources": self.sources}
        if self.known is not None:
            described["known"] = self.known.arguments()
        return described

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How often each id occurs in the training part, (V,)."""
        return self.counts_by_role["train"]

    @cached_property
    def counts_by_role(self) -> dict[str, NDArray[np.int64]]:
        """How often each id occurs in each part, (V,)."""
        counts = {role: _count(getattr(self, role), len(self.vocabulary)) for role in ROLES[1:]}
        if self.totals is None:
            return {"train": _count(self.train, len(self.vocabulary)), **counts}
        return {"train": self.totals - sum(counts.values()), **counts}

    def count_records(self, role: str) -> int:
        """How many records a part has; 0 for running text.

        Args:
            role: "train", "valid" or "test".
        """
        return int(self.counts_by_role[role][self.vocabulary.end_id :].sum()) if self.vocabulary.records else 0

    @cached_property
    def occurring(self) -> int:
        """How many different characters, or bytes, occur in all parts, folded characters included."""
        counts, vocabulary = np.sum(list(self.counts_by_role.values()), 0), self.vocabulary
        symbols = [self.vocabulary.unknown_id, self.vocabulary.end_id]
        characters = slice(min((symbol for symbol in symbols if symbol is not None), default=None))
        return int(np.count_nonzero(counts[characters])) + len(vocabulary.folded)

    @cached_property
    def repeated(self) -> dict[str, float]:
        """The share of "valid" and "test" that is copied in an earlier part, and of "train" that occurs in it twice.

        Near 1 for a text that is named in two roles, or twice in one; 0 for a text that only repeats itself.
        """
        return dict(zip(ROLES, copied_shares([self.train, self.valid, self.test]), strict=True))

    @cached_property
    def sorted_lines(self) -> bool:
        """True where the validation part is the end of a sorted list, whose lines begin like none in training."""
        if self.config.by_hash:
            return False
        return not self.sources["valid"] and are_sorted(self.train, self.valid, self.vocabulary)


def _count(ids: NDArray[Any], size: int) -> NDArray[np.int64]:
    counts = np.zeros(size, np.int64)
    for start in range(0, len(ids), 1 << 24):
        counts += np.bincount(ids[start : start + (1 << 24)], minlength=size)
    return counts


def split(ids: Any, config: CorpusConfig, byte_mode: bool, first_begin: int | None = None) -> tuple[Any, Any, Any]:
    """Split ids into train, of floor(N (1 - v - t)) ids, valid and test, in this order; fractions are exact decimals.

    A border inside a character, of bytes, moves back to its first byte, and one inside a record to its begin symbol.

    Args:
        ids: of the text (N,); or a running text, a str, itself.
        config: holds v, `valid_fraction`, and t, `test_fraction`.
        byte_mode: whether ids are bytes of UTF-8.
        first_begin: of records, the first of the begin symbols, which are the last ids.

    Returns:
        The ids of train, valid and test.
    """
    valid, test = (Fraction(str(value)) for value in (config.valid_fraction, config.test_fraction))
    borders = [int(len(ids) * (1 - valid - test)), int(len(ids) * (1 - test))]
    if first_begin is not None:
        borders = [_record_start(ids, border, first_begin) for border in borders]
    elif byte_mode:
        borders = [character_start(ids, border) for border in borders]
    return ids[: borders[0]], ids[borders[0] : borders[1]], ids[borders[1] :]


def character_start(ids: NDArray[Any], border: int) -> int:
    """Move a border back to where the character begins that it cuts.

    Args:
        ids: bytes of UTF-8 (N,).
        border: 0 to N.
    """
    while 0 < border < len(ids) and ids[border] & 0xC0 == 0x80:
        border -= 1
    return border


def _record_start(ids: NDArray[Any], border: int, first_begin: int) -> int:
    while border and border < len(ids):
        start = max(0, border - CHUNK)
        begins = np.flatnonzero(ids[start : border + 1] >= first_begin)
        if len(begins):
            return start + int(begins[-1])
        border = start
    return border


def _as_list(names: Any) -> list[str]:
    """One name or several, as a list of str; raises SettingError for what is no name."""
    if isinstance(names, (str, os.PathLike, bytes)) or not isinstance(names, Iterable):
        names = [names]
    listed = []
    for name in names:
        if not isinstance(name, (str, os.PathLike)):
            raise SettingError(
                f"{repr_short(name)} must be the name of a text, a str or a Path; give one, or a list of such"
            )
        listed.append(os.fspath(name))
    return listed


def absolute_names(sources: SourceNames) -> list[str]:
    """Names that mean the same from another folder: paths and patterns absolute, `-` and corpus names as they are.

    Args:
        sources: as `Corpus.from_files` is given them.

    Raises:
        SettingError: where one is no name.
    """
    return [
        os.path.abspath(name) if (name != "-" and os.path.exists(name)) or glob.has_magic(name) else name
        for name in _as_list(sources)
    ]
