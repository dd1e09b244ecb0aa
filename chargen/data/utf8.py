"""Which bytes of UTF-8 may follow or precede others, and how many characters they can still become."""


def utf8_range(partial: bytes) -> tuple[int, int]:
    """The bytes that may follow an unfinished character, from and to inclusive (Unicode 17, table 3-7).

    For an empty `partial` the range is 0x00 to 0xF4, of which 0x80 to 0xC1 start nothing.
    """
    if not partial:
        return 0x00, 0xF4
    if len(partial) == 1:
        return {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(
            partial[0], (0x80, 0xBF)
        )
    return 0x80, 0xBF


def utf8_length(lead: int) -> int:
    """How many bytes the character has that starts with `lead`."""
    return 1 + (lead >= 0xC2) + (lead >= 0xE0) + (lead >= 0xF0)


def utf8_unfinished(part: bytes) -> bool:
    """Whether a part of a character, from its first byte on or up to its last, is not all of it."""
    return part[0] & 0xC0 == 0x80 or len(part) < utf8_length(part[0])


def utf8_next(partial: bytes) -> list[int]:
    """The bytes that may follow an unfinished character."""
    first, last = utf8_range(partial)
    return [byte for byte in range(first, last + 1) if partial or not 0x80 <= byte < 0xC2]


def utf8_capacity(prefix: bytes) -> int:
    """How many characters start with `prefix`, an unfinished or whole character."""
    missing = utf8_length(prefix[0]) - len(prefix)
    if missing == 0:
        return 1
    first, last = utf8_range(prefix)
    return int((last - first + 1) * 64 ** (missing - 1))


def utf8_before(partial: bytes) -> list[int]:
    """The bytes that may stand before the end of a character, for a text written from its end.

    Args:
        partial: the continuation bytes so far, 0 to 3 of them, in the order of the text.
    """
    if not partial:
        return [*range(0x80), *range(0x80, 0xC0)]
    leads = {1: range(0xC2, 0xE0), 2: range(0xE0, 0xF0), 3: range(0xF0, 0xF5)}[len(partial)]
    fitting = [lead for lead in leads if partial[0] in range(*_closed(*utf8_range(bytes([lead]))))]
    return [*(range(0x80, 0xC0) if len(partial) < 3 else ()), *fitting]


def utf8_capacity_before(partial: bytes) -> int:
    """How many characters end with `partial`: a whole character, or 0 to 3 continuation bytes.

    There are 128 characters of one byte; 30 lead bytes of two; and for each second byte 15 lead bytes of three and 4 of
    four, since what E0 and F0 exclude, ED and F4 allow.
    """
    if partial and not 0x80 <= partial[0] < 0xC0:
        return 1
    leads = 128, 30, 15, 4
    return sum(leads[length] * 64 ** (length - len(partial)) for length in range(len(partial), 4))


def _closed(first: int, last: int) -> tuple[int, int]:
    return first, last + 1
