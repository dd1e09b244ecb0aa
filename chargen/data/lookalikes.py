"""Characters that look alike: which known character was probably meant by an unknown one."""

import sys
import unicodedata
from collections.abc import Collection, Iterator

LOOKALIKES = (
    "'\u2019\u2018\u201b\u2032\u02bc\u00b4`",
    '"\u201d\u201c\u201e\u201f\u2033\u00ab\u00bb',
    "-\u2013\u2014\u2010\u2011\u2012\u2015\u2212",
    " \u00a0\u202f\u2009\u2007\u2003\u2002\u3000\t",
    "\n\r\u2028\u2029\u0085",
)
"""Apostrophes, quotation marks, dashes, blanks, line ends; of each, the most likely first."""
ESCAPES = {r"\n": ("\n", "a line end"), r"\t": ("\t", "a tab"), r"\r": ("\r", "a carriage return")}
"""What was meant where a shell passed on a backslash and a letter."""
_FULL_WIDTH_OFFSET = 0xFEE0
"""From the code point of an ASCII character to that of its full-width form."""


def write_for_shell(escape: str) -> str:
    """Say how a person writes a character that a shell would pass on as a backslash and a letter.

    Args:
        escape: of `ESCAPES`.
    """
    return f'"`{escape[1]}", in PowerShell' if sys.platform == "win32" else f"$'{escape}', in most shells"


def find_lookalike(text: str, position: int, known: Collection[str]) -> tuple[str, str]:
    """Find the known characters that were probably meant by an unknown one.

    Args:
        text: holds the unknown character.
        position: of that character.
        known: characters that the model knows.

    Returns:
        The unknown character, with the letter before it where it is a combining mark; and the known ones, or "".
    """
    character = text[position]
    if unicodedata.combining(character) and position:
        pair = text[position - 1 : position + 1]
        composed = unicodedata.normalize("NFC", pair)
        return (pair, composed) if composed in known else (character, "")
    for candidate in _candidates(character):
        if candidate and all(part in known for part in candidate):
            return character, candidate
    return character, ""


def _candidates(character: str) -> Iterator[str]:
    """What may have been meant by a character, the most likely first."""
    for group in LOOKALIKES:
        if character in group:
            yield from group
    for form in ("NFC", "NFD", "NFKC"):
        yield unicodedata.normalize(form, character)
    if "!" <= character <= "~":
        yield chr(ord(character) + _FULL_WIDTH_OFFSET)
    yield character.lower()
    yield character.upper()
    parts = unicodedata.normalize("NFKD", character)
    yield "".join(part for part in parts if not unicodedata.combining(part))


def suggest_lookalikes(text: str, positions: Collection[int], known: Collection[str]) -> str:
    """Suggest what to write instead of unknown characters.

    Args:
        text: holds the unknown characters.
        positions: of those characters.
        known: characters that the model knows.

    Returns:
        A part of a message, such as "write '-' for '–'; "; or "" where nothing similar is known.
    """
    advice = {}
    for position in positions:
        escape = text[position : position + 2]
        character, name = ESCAPES.get(escape, ("", ""))
        if character and character in known:
            advice[escape] = f"{name} as {write_for_shell(escape)}"
            continue
        character, lookalike = find_lookalike(text, position, known)
        if lookalike:
            advice[character] = f"{lookalike!r} for {character!r}"
    return f"write {', '.join(advice.values())}; " if advice else ""
