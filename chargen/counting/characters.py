"""Which characters a text has: scripts, the most and the least common, and what nobody sees."""

import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import from_code_points

LISTED = 20
"""Characters that are listed as the most, or the least, common."""
_KINDS = {"N": "digits", "P": "punctuation", "S": "symbols", "Z": "blanks"}
"""By the first letter of their general category, what many scripts share; line ends and tabs are blanks."""
_OTHERS = {"Cc": "controls", "Cf": "invisible", "Zl": "invisible", "Zp": "invisible", "Co": "private use",
           "Cn": "unassigned", "Cs": "unassigned"}  # fmt: skip
_BLANK_CONTROLS = "\n\r\t"
_JOINERS = "\u200c\u200d"
"""Parts of words in several scripts, and of emoji."""
_TWO_WORDS = {"OLD", "NEW", "TAI", "LINEAR"}
_NO_SCRIPTS = {
    *("MATHEMATICAL", "MODIFIER", "COMBINING", "VARIATION", "MUSICAL", "DOUBLE", "SCRIPT", "VERTICAL", "BLACK"),
    *("SUPERSCRIPT", "PLANCK", "TURNED", "FEMININE", "MASCULINE", "MICRO", "CARON", "EULER", "OHM", "KELVIN"),
    *("ANGSTROM", "ALEF", "BET", "GIMEL", "DALET", "INFORMATION", "ROMAN", "MASU"),
}
"""First words of names of letters and marks that name no script."""


@dataclass(frozen=True)
class CharacterCount:
    """How often a character occurs.

    Args:
        character: that.
        count: how often.
    """

    character: str
    count: int


@dataclass(frozen=True)
class CharacterGroup:
    """The characters of a script, or of a kind that many scripts share.

    Args:
        name: such as "Latin", "Han" or "punctuation".
        count: how many characters the text has of it.
        distinct: how many different ones.
    """

    name: str
    count: int
    distinct: int


@dataclass(frozen=True)
class Characters:
    """The characters of a text.

    Args:
        distinct: how many different ones there are.
        once: how many of these occur once.
        groups: by script or kind, the most frequent first.
        common: the 20 most common ones, with counts.
        rare: the 20 least common ones, the least first, without those in `common`.
        controls: control characters but for line ends and tabs.
        invisible: format characters but for joiners, such as soft hyphens, zero-width spaces and directions.
        replaced: how often U+FFFD occurs, which stands for what could not be read.
    """

    distinct: int
    once: int
    groups: tuple[CharacterGroup, ...]
    common: tuple[CharacterCount, ...]
    rare: tuple[CharacterCount, ...]
    controls: tuple[CharacterCount, ...]
    invisible: tuple[CharacterCount, ...]
    replaced: int


def group_of(character: str) -> str:
    """Name the script of a letter or mark, or the kind of any other character.

    The script is the first word of the character's Unicode name, which is so for nearly all of them ("Han" for what the
    standard calls CJK).

    Args:
        character: one.
    """
    category = unicodedata.category(character)
    if character in _BLANK_CONTROLS:
        return _KINDS["Z"]
    if category in _OTHERS and unicodedata.bidirectional(character) != "AN":  # such as U+0600, which are seen
        return _OTHERS[category]
    if category[0] in _KINDS:
        return _KINDS[category[0]]
    words = unicodedata.name(character, "MODIFIER").replace("-", " ").split()  # new ideographs may have no name
    words = words[words[0] in ("HALFWIDTH", "FULLWIDTH") :]
    if words[0] in ("CJK", "IDEOGRAPHIC"):
        return "Han"
    if words[0] in _NO_SCRIPTS:
        return "accents" if category[0] == "M" else "other letters"
    return " ".join(words[: 1 + (words[0] in _TWO_WORDS)]).title()


def describe_characters(counts: NDArray[Any]) -> Characters:
    """Describe the characters of a text by how often each occurs.

    Args:
        counts: by code point (M,).
    """
    codes = np.flatnonzero(counts)
    ranked = codes[np.argsort(-counts[codes], kind="stable")]
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    hidden: dict[str, list[str]] = {"controls": [], "invisible": []}
    for character, count in zip(from_code_points(codes), counts[codes].tolist(), strict=True):
        name = group_of(character)
        sums[name][0] += count
        sums[name][1] += 1
        if name in hidden and character not in _JOINERS:
            hidden[name].append(character)
    groups = [CharacterGroup(name, *numbers) for name, numbers in sums.items()]

    def count_each(characters: str) -> tuple[CharacterCount, ...]:
        return tuple(CharacterCount(character, int(counts[ord(character)])) for character in characters)

    return Characters(
        distinct=len(codes),
        once=int(np.count_nonzero(counts == 1)),
        groups=tuple(sorted(groups, key=lambda group: (-group.count, group.name))),
        common=count_each(from_code_points(ranked[:LISTED])),
        rare=count_each(from_code_points(ranked[LISTED:][::-1][:LISTED])),
        controls=count_each("".join(hidden["controls"])),
        invisible=count_each("".join(hidden["invisible"])),
        replaced=int(counts[0xFFFD]) if len(counts) > 0xFFFD else 0,
    )
