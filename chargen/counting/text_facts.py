"""One pass over the ids of a corpus: its characters, lines, line ends and normal form. Memory does not grow with it."""

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.counting.characters import Characters, describe_characters
from chargen.counting.lines import LineHashes, Lines, describe_lines
from chargen.data.code_points import CODE_POINTS, code_points, count_code_points
from chargen.data.corpus import Corpus, character_start
from chargen.data.corpus_cache import ROLES
from chargen.data.normal_form import compose, is_boundary, last_boundary
from chargen.data.vocabulary import Vocabulary

BLOCK = 1 << 20
"""Ids that are looked at together."""
_FIRST_COMPOSED = 0x300
"""Below this code point, every text is in NFC."""
_LINE_ENDS = {"LF": "\n", "CR": "\r", "U+0085": "\u0085", "U+2028": "\u2028", "U+2029": "\u2029"}


@dataclass(frozen=True)
class TextFacts:
    """What one pass over a text tells.

    Args:
        characters: its characters; None of raw bytes.
        lines: its lines, or records.
        line_ends: how often each occurs, by name: "LF", "CR LF", "CR", "U+0085", "U+2028", "U+2029".
        not_nfc: where the text is not in Unicode's normal form NFC, the first characters that would change; else "".
    """

    characters: Characters | None
    lines: Lines
    line_ends: dict[str, int]
    not_nfc: str


def read_facts(corpus: Corpus, progress: Callable[[str, int, int], None]) -> TextFacts:
    """Look through all parts of a text.

    Args:
        corpus: the text.
        progress: called as ("looking", ids done, ids in all) after every block.
    """
    vocabulary, done = corpus.vocabulary, 0
    total = sum(len(getattr(corpus, role)) for role in ROLES)
    counts = sum(corpus.counts_by_role.values(), np.zeros(len(vocabulary), np.int64))
    line_feed, carriage_return = (
        vocabulary.encode(character).tolist() if vocabulary.writes(character) else [] for character in "\n\r"
    )
    ends = _line_ends(vocabulary, counts, line_feed, carriage_return)
    decoded = _DecodedText(vocabulary, counts)
    lines, before = {role: LineHashes(*ends) for role in ROLES}, "train"
    for role in ROLES:
        ids, is_cut_off = getattr(corpus, role), role != "train" and not corpus.sources[role]
        if len(ids) and is_cut_off and not vocabulary.records:
            lines[role].go_on(lines[before])
            before = role
        for block in _blocks(ids, vocabulary):
            lines[role].add(block)
            decoded.add(block)
            done += len(block)
            progress("looking", done, total)
    characters, not_nfc = decoded.finish()
    pairs = sum(part.pairs for part in lines.values())
    line_ends = {name: int(characters[ord(end)]) for name, end in _LINE_ENDS.items()}
    line_ends |= {"LF": line_ends["LF"] - pairs, "CR": line_ends["CR"] - pairs, "CR LF": pairs}
    described = describe_lines(lines)
    return TextFacts(
        characters=None if vocabulary.raw else describe_characters(characters),
        lines=replace(described, empty=0) if vocabulary.records else described,  # no record is empty
        line_ends={name: count for name, count in line_ends.items() if count},
        not_nfc=not_nfc,
    )


def _line_ends(
    vocabulary: Vocabulary, counts: NDArray[np.int64], line_feed: list[int], carriage_return: list[int]
) -> tuple[int, int, int]:
    """The first and the last id that ends a line, or begins a record, and the one that may stand before it."""
    if vocabulary.end_id is not None:
        return vocabulary.end_id, len(vocabulary) - 1, -1
    if line_feed and counts[line_feed[0]]:
        return line_feed[0], line_feed[0], (carriage_return or [-1])[0]
    if carriage_return and counts[carriage_return[0]]:  # a lone CR ends a line where there is no LF
        return carriage_return[0], carriage_return[0], -1
    return len(vocabulary), len(vocabulary), -1


def _blocks(ids: NDArray[Any], vocabulary: Vocabulary) -> Iterator[NDArray[Any]]:
    """Blocks of ids, cut where a character begins."""
    start = 0
    while start < len(ids):
        end = min(start + BLOCK, len(ids))
        if vocabulary.byte_mode:
            end = max(start + 1, character_start(ids, end))
        yield ids[start:end]
        start = end


class _DecodedText:
    """Counts code points and looks at the normal form, of which blocks of ids are decoded only where that takes it."""

    def __init__(self, vocabulary: Vocabulary, counts: NDArray[np.int64]) -> None:
        self.vocabulary = vocabulary
        self.counts = np.zeros(CODE_POINTS, np.int64)
        self.not_nfc, self._pending = "", ""
        if vocabulary.byte_mode:
            is_ascii = not counts[0x80:0xFF].any()
            self.counts[:0x80] = counts[:0x80] * is_ascii
            self.needs_counts, self.needs_form = not is_ascii, bool(counts[0xCC:0xFF].any())  # U+0300 begins with CC
        elif vocabulary.raw:
            self.counts[:0x80] = counts[:0x80]
            self.needs_counts = self.needs_form = False
        else:
            self.counts[code_points(vocabulary.characters)] = counts[: len(vocabulary.characters)]
            self.needs_counts, self.needs_form = False, bool(self.counts[_FIRST_COMPOSED:].any())

    def add(self, ids: NDArray[Any]) -> None:
        """Take a block of ids."""
        if not (self.needs_counts or (self.needs_form and not self.not_nfc)):
            return
        text = self.vocabulary.decode(ids)
        if self.needs_counts:
            block = count_code_points(text)
            self.counts[: len(block)] += block
        if self.needs_form and not self.not_nfc:
            text, seen = self._pending + text, len(self._pending)
            cut = last_boundary(text, seen)
            self._check(text[:cut])
            self._pending = text[cut:]

    def _check(self, text: str) -> None:
        if not unicodedata.is_normalized("NFC", text):
            normalized = compose(text)
            start = next(
                (at for at, (a, b) in enumerate(zip(text, normalized, strict=False)) if a != b), len(normalized)
            )
            end = start + 1
            while end < len(text) and not is_boundary(text[end]):
                end += 1
            self.not_nfc = text[start:end]

    def finish(self) -> tuple[NDArray[np.int64], str]:
        """The counts by code point, and the first characters that are not in NFC."""
        self._check(self._pending)
        self.counts[0xD800:0xE000] = 0  # marks of records are no characters
        return self.counts, self.not_nfc
