"""Which bytes of UTF-8 may follow or precede others, and how many characters they can become."""

import re

SURROGATE = re.compile("[\ud800-\udfff]")
"""A lone surrogate: a code point that UTF-8 has no bytes for."""
_AFTER_LEAD = {b"\xe0": (0xA0, 0xBF), b"\xed": (0x80, 0x9F), b"\xf0": (0x90, 0xBF), b"\xf4": (0x80, 0x8F)}
"""The first and the last byte that may follow a lead byte which not every continuation byte may follow."""


def as_json_text(text: str, raw: bool) -> str:
    """Replace what JSON cannot hold: a lone surrogate, which is no text.

    Args:
        text: any.
        raw: whether it stands for a byte, which becomes the Latin-1 character; else it becomes U+FFFD.
    """
    return SURROGATE.sub(lambda match: chr(ord(match[0]) - 0xDC00) if raw else "\ufffd", text)


def utf8_range(partial: bytes) -> tuple[int, int]:
    """Return the bytes that may follow an unfinished character (Unicode 17, table 3-7).

    Args:
        partial: its bytes so far, 1 to 3 of them.

    Returns:
        The first and the last such byte.
    """
    return _AFTER_LEAD.get(partial, (0x80, 0xBF))


def utf8_length(lead: int) -> int:
    """Return how many bytes a character has.

    Args:
        lead: its first byte.
    """
    return 1 + (lead >= 0xC2) + (lead >= 0xE0) + (lead >= 0xF0)


def utf8_unfinished(part: bytes) -> bool:
    """Whether a part of a character is incomplete.

    Args:
        part: from its first byte on, or up to its last.
    """
    return part[0] & 0xC0 == 0x80 or len(part) < utf8_length(part[0])


def utf8_next(partial: bytes) -> list[int]:
    """List the bytes that may follow an unfinished character, or start one.

    Args:
        partial: its bytes so far, 0 to 3 of them.
    """
    if not partial:
        return [*range(0x80), *range(0xC2, 0xF5)]
    first, last = utf8_range(partial)
    return list(range(first, last + 1))


def utf8_capacity(prefix: bytes) -> int:
    """Count the characters that start with some bytes.

    Args:
        prefix: an unfinished or complete character.
    """
    missing = utf8_length(prefix[0]) - len(prefix)
    if missing == 0:
        return 1
    first, last = utf8_range(prefix)
    return int((last - first + 1) * 64 ** (missing - 1))


def utf8_before(partial: bytes) -> list[int]:
    """List the bytes that may precede the end of a character, for a text written from its end.

    Args:
        partial: the continuation bytes so far, 0 to 3 of them, in the order of the text.
    """
    if not partial:
        return [*range(0x80), *range(0x80, 0xC0)]
    leads = {1: range(0xC2, 0xE0), 2: range(0xE0, 0xF0), 3: range(0xF0, 0xF5)}[len(partial)]
    ranges = {lead: utf8_range(bytes([lead])) for lead in leads}
    fitting = [lead for lead, (first, last) in ranges.items() if first <= partial[0] <= last]
    return [*(range(0x80, 0xC0) if len(partial) < 3 else ()), *fitting]


def utf8_capacity_before(partial: bytes) -> int:
    """Count the characters that end with some bytes.

    Args:
        partial: a complete character, or 0 to 3 continuation bytes.
    """
    # Characters of one byte: 128. Lead bytes of two: 30. For each second byte there are 15 lead bytes of three and 4 of
    # four, since what E0 and F0 exclude, ED and F4 allow.
    if partial and not 0x80 <= partial[0] < 0xC0:
        return 1
    leads = 128, 30, 15, 4
    return sum(leads[length] * 64 ** (length - len(partial)) for length in range(len(partial), 4))
