"""The begin text: what a fresh state reads first, so that a text begins where a line begins."""

from typing import Any

from numpy.typing import NDArray

from chargen.data.vocabulary import Vocabulary

MAX_LINE_LENGTH = 10_000
"""Characters per line, on average: a text of longer lines counts as one without lines."""
MAX_BEGIN_LENGTH = 16
"""Characters of a begin text."""


def begin_text(vocabulary: Vocabulary, counts: NDArray[Any]) -> str:
    """Choose the begin text of a model from its training text.

    Args:
        vocabulary: V ids.
        counts: how often each id occurs in the text, (V,).

    Returns:
        The usual line end of the text, or "" where it has no lines or consists of records.
    """
    if vocabulary.records:
        return ""
    line_feeds, carriage_returns = (_count(vocabulary, counts, character) for character in "\n\r")
    if not line_feeds + carriage_returns or MAX_LINE_LENGTH * max(line_feeds, carriage_returns) < counts.sum():
        return ""
    if 2 * carriage_returns <= line_feeds:
        return "\n"
    return "\r\n" if 2 * line_feeds >= carriage_returns else "\r"


def _count(vocabulary: Vocabulary, counts: NDArray[Any], character: str) -> int:
    return int(counts[vocabulary.encode(character)[0]]) if vocabulary.writes(character) else 0


def is_begin_text(vocabulary: Vocabulary, begin: Any) -> bool:
    """Whether a value is a begin text that a model of this vocabulary can read.

    Args:
        vocabulary: of the model.
        begin: what a model file holds.
    """
    return isinstance(begin, str) and len(begin) <= MAX_BEGIN_LENGTH and vocabulary.writes(begin)
