"""A text as an array of code points, and the marks between records in it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CODE_POINTS = 0x110000
END_MARK = "\udfff"
"""Stands for the end symbol in a text of records: a lone surrogate, which no text holds."""
LONG_TEXT = 1 << 28
"""Characters that NumPy's type of a text need not hold."""


def code_points(text: str) -> NDArray[np.uint32]:
    """The code points of a text (N,), lone surrogates included.

    Args:
        text: of N characters.
    """
    if not 0 < len(text) < LONG_TEXT:
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return np.array([text]).view(np.uint32)  # fifty times as fast where there are lone surrogates


def latin_bytes(text: str) -> bytes | None:
    """The code points of a text as bytes (N,), where none is above U+00FF: what follows is then several times as fast.

    Args:
        text: of N characters.
    """
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return None


def count_line_ends(text: str) -> int:
    """Count the line feeds of a text: `str.count` takes ten times as long where there are many.

    Args:
        text: of N characters.
    """
    latin = latin_bytes(text)
    return text.count("\n") if latin is None else int(np.count_nonzero(np.frombuffer(latin, np.uint8) == 0x0A))


def from_code_points(codes: NDArray[Any]) -> str:
    """The text of code points.

    Args:
        codes: (N,).
    """
    if not 0 < len(codes) < LONG_TEXT:
        return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    ended = np.append(codes.astype(np.uint32), np.uint32(1))  # NumPy drops zeros at the end of a text
    text: str = ended.view(f"U{len(ended)}").item()
    return text[:-1]


def count_code_points(text: str) -> NDArray[np.int64]:
    """Count how often each code point occurs in a text.

    Args:
        text: any.

    Returns:
        Counts (C,), with C above the highest code point of the text.
    """
    latin = latin_bytes(text)
    if latin is None:
        return np.bincount(code_points(text))
    codes = np.frombuffer(latin, np.uint8)
    pairs = np.bincount(codes[: len(codes) // 2 * 2].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts: NDArray[np.int64] = pairs.sum(0) + pairs.sum(1)
    counts[codes[len(codes) // 2 * 2 :]] += 1
    return counts


def label_mark(number: int) -> str:
    """The character that stands for a label's begin symbol in a text of records: a lone surrogate, which no text holds.

    Args:
        number: of the label, from 0.
    """
    return chr(0xD800 + number)
