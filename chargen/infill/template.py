"""Texts with several gaps, filled from left to right: between the filled text before and the text up to the next."""

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from chargen.data.reading import clean
from chargen.errors import DataError, SettingError
from chargen.infill.fill import Alternative, Fill, Filler
from chargen.sampling.start import encode_text

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
            text: the text.
            marker: what marks a gap.
            lengths: the shortest and longest length of gaps that do not say theirs.

        Returns:
            The text around the gaps, and their lengths.

        Raises:
            DataError: there is no gap.
            SettingError: a length is missing, or the marker is empty.
        """
        if not marker:
            raise SettingError("marker is '': give some text that marks the gaps", "marker")
        pieces = re.split(re.escape(marker) + r"(?:\{(\d{1,9})(?:-(\d{1,9}))?\})?", text)
        parts, shortest, longest = pieces[::3], pieces[1::3], pieces[2::3]
        shown = marker if marker.isprintable() else repr(marker)
        if len(parts) == 1:
            raise DataError(f"no gap in the text: mark it with {shown}, or give another `marker`")
        gap_lengths = []
        for number, (low, high) in enumerate(zip(shortest, longest, strict=True), start=1):
            if low is None and lengths is None:
                raise SettingError(
                    f"how long is gap {number}? Give `length`, or `min_length` and `max_length`, "
                    f"or write {shown}{{5}} or {shown}{{3-8}}",
                    "length",
                )
            if low is not None and high is not None and int(low) > int(high):
                raise SettingError(f"gap {number} is {shown}{{{low}-{high}}}: the smaller length comes first")
            gap_lengths.append((int(low), int(high or low)) if low is not None else lengths)
        return cls(tuple(parts), tuple(pair for pair in gap_lengths if pair is not None))


@dataclass(frozen=True)
class Filled:
    """A text whose gaps are filled.

    Args:
        text: all of it.
        gaps: what each gap is filled with.
        fills: the whole result for each gap.
    """

    text: str
    gaps: tuple[Alternative, ...]
    fills: tuple[Fill, ...]

    def describe(self) -> dict[str, Any]:
        """The text, and for each gap what it is filled with and the figures of the search, as values of JSON."""
        gaps = []
        for gap, fill in zip(self.gaps, self.fills, strict=True):
            fields = {**asdict(gap), "score": gap.score, "exact": fill.exact, "found": fill.found}
            gaps.append({**fields, "effective_sample_size": fill.effective_sample_size, "particles": fill.particles})
        return {"text": self.text, "gaps": gaps}


def fill_gaps(
    filler: Filler, template: Template, num: int = 1, progress: Callable[[], object] = lambda: None
) -> Iterator[Filled]:
    """Fill every gap of a text from left to right, in several ways that differ in the first gap.

    Args:
        filler: fills each gap.
        template: the text with gaps.
        num: how many ways; the i-th is the same whatever `num` is.
        progress: called after every gap.

    Returns:
        An iterator over the filled texts; fewer where there are fewer ways to fill the first gap.

    Raises:
        DataError: the model does not know some characters of the text.
        ChargenError: a gap is not allowed any text.
    """
    parts, lengths = [clean(part, filler.model.reading) for part in template.parts], template.lengths
    encode_text("".join(parts), filler.vocabulary, filler.unknown)  # unknown characters are an error before any work
    first = filler.fill(parts[0], parts[1], *lengths[0], num=num, last=len(lengths) == 1)
    progress()
    for way, alternative in enumerate(first.alternatives):
        text, gaps, fills = parts[0] + alternative.text + parts[1], [alternative], [first]
        for number in range(1, len(lengths)):
            last = number + 1 == len(lengths)
            fill = filler.fill(text, parts[number + 1], *lengths[number], number=(number << 32) + way, last=last)
            gaps.append(fill.alternatives[0])
            fills.append(fill)
            text += gaps[-1].text + parts[number + 1]
            progress()
        yield Filled(text, tuple(gaps), tuple(fills))
