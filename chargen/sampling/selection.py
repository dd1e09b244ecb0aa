"""Which records are kept of many: each once, none that a text holds, what a function accepts, the best of some."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import END_MARK
from chargen.data.hashing import Hashes
from chargen.data.reading import read_text
from chargen.data.reading_config import ReadingConfig
from chargen.data.records import hash_records, whole_records
from chargen.data.sources import find_sources
from chargen.errors import ArgumentError, ChargenError, SettingError, amount, repr_short
from chargen.sampling.sample import Sample
from chargen.settings import check_int

Accept = Callable[[list[str]], Sequence[bool]]
"""Tells for each of some texts whether it is kept."""
MAX_TRIES = 10_000
"""Records in a row of which none is kept before writing gives up."""


class Selection:
    """Filters for records, in this order: those that are known, that have come before, that are not accepted; and of
    each K that are left the best one.

    Args:
        known: hashes of records that are thrown away, sorted; None for none.
        unique: whether each record is kept once.
        accept: is called with the texts of many records at once; those of False are thrown away.
        best_of: K: of so many records the one with the highest mean log-probability of a symbol, its end included.
        prime: what all records begin with (backward: end with), which the filters look at, too.
        backward: whether records are written from their end.

    Raises:
        SettingError: `best_of` is no whole number from 1.
        ArgumentError: `accept` cannot be called.
    """

    def __init__(
        self,
        *,
        known: Hashes | None = None,
        unique: bool = False,
        accept: Accept | None = None,
        best_of: int = 1,
        prime: str = "",
        backward: bool = False,
    ) -> None:
        if accept is not None and not callable(accept):
            raise ArgumentError(f"accept is {repr_short(accept)}: needed is a function of a list of texts")
        self.known = known
        self.unique = unique
        self.accept = accept
        self.best_of = check_int("best_of", best_of, 1)
        self.prime = prime
        self.backward = backward
        self.thrown_away: Counter[str] = Counter()
        """How many records, by what was wrong with them."""
        self._seen: set[int] = set()
        self._candidates: list[Sample] = []
        self._tries = 0
        """Records in a row that did not pass the filters."""

    @property
    def filters(self) -> bool:
        """Whether records may be thrown away for what they are."""
        return self.known is not None or self.unique or self.accept is not None

    def select(self, samples: list[Sample]) -> list[Sample]:
        """Choose which records are kept.

        Args:
            samples: the next ones.

        Returns:
            Those that are kept; a group of `best_of` may be completed by a later call.

        Raises:
            ArgumentError: `accept` returned something else than a truth value for each text.
        """
        passed = self._filter(samples)
        self._tries = 0 if passed else self._tries + len(samples)
        if self.best_of == 1:
            return passed
        self._candidates += passed
        chosen = []
        while len(self._candidates) >= self.best_of:
            group, self._candidates = self._candidates[: self.best_of], self._candidates[self.best_of :]
            chosen.append(max(group, key=_mean_log_prob))
            self.thrown_away["worse than another"] += self.best_of - 1
        return chosen

    def check(self, kept: int, num: int) -> None:
        """Give up where nothing has been kept for long.

        Args:
            kept: how many records have been kept.
            num: how many are wanted.

        Raises:
            ChargenError: of the last `MAX_TRIES` none has passed.
        """
        if self._tries >= MAX_TRIES:
            raise ChargenError(
                f"{amount(kept, 'record')} of {num:,} kept, and none of the last {self._tries:,} ({self}); "
                "ask for fewer, or for a higher `temperature`"
            )

    def __str__(self) -> str:
        return "thrown away: " + ", ".join(f"{count:,} {reason}" for reason, count in self.thrown_away.items())

    def _filter(self, samples: list[Sample]) -> list[Sample]:
        if not self.filters:
            return samples
        texts = [sample.text + self.prime if self.backward else self.prime + sample.text for sample in samples]
        hashes = hash_records("".join(END_MARK + text for text in texts))[1]
        keep = np.ones(len(texts), bool)
        if self.known is not None:
            self._drop(keep, _are_among(hashes, self.known), "known")
        if self.unique:
            repeated = []
            for value in hashes.tolist():
                repeated.append(value in self._seen)
                self._seen.add(value)
            self._drop(keep, np.array(repeated, bool), "repeated")
        if self.accept and keep.any():
            refused = keep.copy()
            refused[keep] = ~self._call_accept([text for text, kept in zip(texts, keep, strict=True) if kept])
            self._drop(keep, refused, "not accepted")
        return [sample for sample, kept in zip(samples, keep, strict=True) if kept]

    def _drop(self, keep: NDArray[np.bool_], dropped: NDArray[np.bool_], reason: str) -> None:
        """Keep no record that is dropped, and count these."""
        if count := int((keep & dropped).sum()):
            self.thrown_away[reason] += count
        keep &= ~dropped

    def _call_accept(self, texts: list[str]) -> NDArray[np.bool_]:
        assert self.accept is not None
        answer: Any = np.asarray(self.accept(texts))
        if answer.shape != (len(texts),) or answer.dtype != bool:
            actual = f"an array {answer.shape} of {answer.dtype}"
            raise ArgumentError(f"accept returned {actual} for {amount(len(texts), 'text')}: needed is a bool for each")
        return np.asarray(answer, bool)


def _mean_log_prob(sample: Sample) -> float:
    """The mean log-probability of a symbol."""
    values = sample.log_probs if sample.end_log_prob is None else (*sample.log_probs, sample.end_log_prob)
    return math.fsum(values) / max(len(values), 1)


def _are_among(hashes: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Which of some hashes (N,) are among sorted ones (M,)."""
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return known[places] == hashes if len(known) else np.zeros(len(hashes), bool)


def hash_sources(
    names: Sequence[str | PathLike[str]], reading: ReadingConfig, encoding: str | None = None, errors: str = "strict"
) -> Hashes:
    """Read the records of files once, to know them again; they take 8 bytes each.

    Args:
        names: files, folders, patterns, `-` or names of corpora.
        reading: how records are read.
        encoding: of the files; None: that of `reading`.
        errors: what to do with bytes that do not fit it, "strict" or "replace".

    Returns:
        The hash of each, sorted.

    Raises:
        DataError: a file cannot be read.
        SettingError: it is not said how records are read.
    """
    if reading.records is None:
        raise SettingError("novel needs to know what a record is: this model does not say it", "novel")
    reading = replace(reading, encoding=encoding or reading.encoding, errors=errors)
    blocks = whole_records(read_text(find_sources(names)[0], reading))
    hashes = np.concatenate([np.zeros(0, np.uint64), *(hash_records(block)[1] for block in blocks)])
    hashes.sort()
    return hashes
