"""Texts with several gaps: each is filled in turn, with what stands before it, filled, and what follows to the next."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from chargen.data.reading import clean
from chargen.errors import DataError, SettingError
from chargen.infill.fill import Alternative, Fill, Filler

MARKER = "___"


@dataclass(frozen=True)
class Template:
    """A text with gaps.

    Args:
        parts: the text between the gaps, one more than there are gaps.
        lengths: each gap's shortest and longest length in characters.
    """

    parts: tuple[str, ...]
    lengths: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str, marker: str = MARKER, lengths: tuple[int, int] | None = None) -> "Template":
        """Find the gaps in a text. A marker may be followed by its own length, as in ___{5} or ___{3-8}.

        Args:
            lengths: the shortest and longest length of gaps that do not say theirs.

        Raises DataError where there is no gap, SettingError where a length is missing or the marker empty.
        """
        if not marker:
            raise SettingError("marker is '': give some text that marks the gaps", "marker")
        found = re.split(re.escape(marker) + r"(?:\{(\d{1,9})(?:-(\d{1,9}))?\})?", text)
        parts, shortest, longest = found[::3], found[1::3], found[2::3]
        if len(parts) == 1:
            raise DataError(f"no gap in the text: mark it with {marker}, or give another --marker")
        own = []
        for number, (low, high) in enumerate(zip(shortest, longest, strict=True), start=1):
            if low is None and lengths is None:
                raise SettingError(
                    f"how long is gap {number}? Give length, or min_length and max_length, or write {marker}{{5}} or "
                    f"{marker}{{3-8}}",
                    "length",
                )
            if low is not None and high is not None and int(low) > int(high):
                raise SettingError(f"gap {number} is {marker}{{{low}-{high}}}: the smaller length comes first")
            own.append((int(low), int(high or low)) if low is not None else lengths)
        return cls(tuple(parts), tuple(one for one in own if one is not None))


@dataclass(frozen=True)
class Filled:
    """A text whose gaps are filled.

    Args:
        text: all of it.
        gaps: what stands in each gap.
        fills: how each was found.
    """

    text: str
    gaps: tuple[Alternative, ...]
    fills: tuple[Fill, ...]


def fill_gaps(
    filler: Filler, template: Template, num: int = 1, progress: Callable[[], object] = lambda: None
) -> Iterator[Filled]:
    """Fill every gap of a text from left to right, in `num` ways that differ in the first gap.

    Fewer are returned where fewer ways to fill the first gap were found. The i-th is the same whatever `num` is.

    Args:
        progress: called after every gap.
    """
    parts, lengths = [clean(part, filler.model.reading) for part in template.parts], template.lengths
    filler.vocabulary.encode("".join(parts), filler.unknown)  # what is unknown is told before any work
    first = filler.fill(parts[0], parts[1], *lengths[0], num=num)
    progress()
    for way, alternative in enumerate(first.alternatives):
        text, gaps, fills = parts[0] + alternative.text + parts[1], [alternative], [first]
        for number in range(1, len(lengths)):
            fill = filler.fill(text, parts[number + 1], *lengths[number], number=(number << 32) + way)
            gaps.append(fill.alternatives[0])
            fills.append(fill)
            text += gaps[-1].text + parts[number + 1]
            progress()
        yield Filled(text, tuple(gaps), tuple(fills))
