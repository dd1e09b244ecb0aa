"""Unicode's normal form NFC of a text, whole or block by block, in time that grows with its length."""

import functools
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator

_SAMPLED, _RUN = 64, 15
"""Every so many characters it is looked for a run of marks; so many of them behind one another are a run."""

_TWO_MARKS = "\u0f73\u0f75\u0f81"
"""Characters that are no marks, but decompose to two."""


def compose(text: str) -> str:
    """Convert a text to NFC.

    Args:
        text: any.
    """
    if unicodedata.is_normalized("NFC", text):
        return text
    # Python's own takes time that grows with the square of a run of marks, where these are not in order.
    if _runs().search(text[::_SAMPLED]):
        text = _runs().sub(lambda run: _order(run[0]), text)
    return unicodedata.normalize("NFC", text)


def _order(marks: str) -> str:
    """Decomposed marks in their canonical order."""
    parts = (part for mark in marks for part in unicodedata.normalize("NFD", mark))
    return "".join(sorted(parts, key=unicodedata.combining))


@functools.cache
def _runs() -> re.Pattern[str]:
    """Matches runs of combining marks."""
    characters = map(chr, range(0x300, sys.maxunicode + 1))
    marks = (each for each in characters if unicodedata.combining(each) or each in _TWO_MARKS)
    return re.compile(f"[{re.escape(''.join(marks))}]{{{_RUN},}}")


def normalize_blocks(blocks: Iterable[str]) -> Iterator[str]:
    """Convert a text to NFC, block by block; it is cut only where no composition can cross.

    Args:
        blocks: of a text.

    Returns:
        Blocks of other sizes, which together are the NFC form of the complete text.
    """
    pending = ""
    for block in blocks:
        pending, seen = pending + block, len(pending)
        if cut := last_boundary(pending, seen):
            yield compose(pending[:cut])
            pending = pending[cut:]
    yield compose(pending)


def last_boundary(text: str, start: int) -> int:
    """Find the last place where a text can be cut.

    Args:
        text: any.
        start: before it there is none.

    Returns:
        The place; 0 for none.
    """
    return next((at for at in range(len(text) - 1, max(start, 1) - 1, -1) if is_boundary(text[at])), 0)


def is_boundary(character: str) -> bool:
    """Whether a character neither composes nor reorders with what stands before it, under NFC.

    Args:
        character: one.
    """
    return character < "\u0300" or (not unicodedata.combining(character) and character not in _second_parts())


@functools.cache
def _second_parts() -> frozenset[str]:
    """Characters that can be the second part of a composition: from the decompositions, and the Hangul jamo."""
    characters = set(map(chr, (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))))
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            characters.add(chr(int(parts[1], 16)))
    return frozenset(characters.union(_TWO_MARKS))
