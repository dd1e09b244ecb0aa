"""The begin text: what a state that knows nothing reads first, so that a text begins where a line does."""

from typing import Any

from numpy.typing import NDArray

from chargen.data.vocabulary import Vocabulary

MAX_LINE_LENGTH = 10_000
"""Characters a line, on average: a text of longer ones has no lines."""
MAX_BEGIN_LENGTH = 16
"""Characters."""


def begin_text(vocabulary: Vocabulary, counts: NDArray[Any]) -> str:
    """The line end of a text, or nothing where it has no lines.

    Args:
        counts: how often each id occurs in it, (V,).
    """
    feeds, returns = (_count(vocabulary, counts, character) for character in "\n\r")
    if MAX_LINE_LENGTH * max(feeds, returns) < counts.sum():
        return ""
    if 2 * returns <= feeds:
        return "\n"
    return "\r\n" if 2 * feeds >= returns else "\r"


def _count(vocabulary: Vocabulary, counts: NDArray[Any], character: str) -> int:
    if not vocabulary.byte_mode and character not in vocabulary.characters:
        return 0
    return int(counts[vocabulary.encode(character)[0]])


def is_begin_text(vocabulary: Vocabulary, begin: Any) -> bool:
    """Whether something is a begin text that a model of this vocabulary can read."""
    if not isinstance(begin, str) or len(begin) > MAX_BEGIN_LENGTH:
        return False
    if vocabulary.byte_mode:
        return not any("\ud800" <= character <= "\udfff" for character in begin)
    return set(begin) <= set(vocabulary.characters)
