"""Characters that are easily taken for each other: which known one was meant by an unknown one."""

import unicodedata
from collections.abc import Collection, Iterator

LOOKALIKES = (
    "'\u2019\u2018\u201b\u2032\u02bc\u00b4`",
    '"\u201d\u201c\u201e\u201f\u2033\u00ab\u00bb',
    "-\u2013\u2014\u2010\u2011\u2012\u2015\u2212",
    " \u00a0\u202f\u2009\u2007\u2003\u2002\u3000\t",
    "\n\r\u2028\u2029\u0085",
)
"""Apostrophes, quotation marks, dashes, blanks, line ends; the likeliest of each first."""
ESCAPES = {r"\n": ("\n", "a line end"), r"\t": ("\t", "a tab"), r"\r": ("\r", "a carriage return")}
"""What was meant where a shell has handed over a backslash and a letter."""
_WIDER = 0xFEE0
"""From an ASCII character to its full-width form."""


def find_lookalike(text: str, place: int, known: Collection[str]) -> tuple[str, str]:
    """An unknown character of a text, and the known characters that were likely meant, or nothing.

    A combining mark is taken together with the letter before it.
    """
    character = text[place]
    if unicodedata.combining(character) and place:
        pair = text[place - 1 : place + 1]
        whole = unicodedata.normalize("NFC", pair)
        return (pair, whole) if whole in known else (character, "")
    for candidate in _candidates(character):
        if candidate and all(part in known for part in candidate):
            return character, candidate
    return character, ""


def _candidates(character: str) -> Iterator[str]:
    for alike in LOOKALIKES:
        if character in alike:
            yield from alike
    for form in ("NFC", "NFD", "NFKC"):
        yield unicodedata.normalize(form, character)
    if "!" <= character <= "~":
        yield chr(ord(character) + _WIDER)
    yield character.lower()
    yield character.upper()
    parts = unicodedata.normalize("NFKD", character)
    yield "".join(part for part in parts if not unicodedata.combining(part))


def suggest_lookalikes(text: str, places: Collection[int], known: Collection[str]) -> str:
    """What to write instead of the unknown characters at some places, as a part of a message; or nothing."""
    meant = {}
    for place in places:
        escape = text[place : place + 2]
        character, name = ESCAPES.get(escape, ("", ""))
        if character and character in known:
            meant[escape] = f"{name} as $'{escape}', in most shells"
            continue
        character, instead = find_lookalike(text, place, known)
        if instead:
            meant[character] = f"{instead!r} for {character!r}"
    return f"write {', '.join(meant.values())}; " if meant else ""
