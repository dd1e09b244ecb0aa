"""Finds what texts have in common with a corpus, by a suffix array over both.

The suffixes of the corpus that stand next to a position of the text share the longest match with it. The share of novel
n-grams is that of McCoy et al., "How much do language models copy from their training data?" (2023).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.counting.near_copies import Chain, Span, chain_spans
from chargen.counting.novelty import Copy, Figures, Loop, NearCopy
from chargen.counting.placed_texts import PlacedTexts, begins_character
from chargen.data.code_points import code_points
from chargen.errors import ChargenError
from chargen.kernels import SEPARATOR, available

LENGTHS = (*range(1, 21), 30, 50)
"""Of n-grams."""
MIN_LENGTH = 20
"""Characters of the shortest span that is a copy."""
MAX_PERIOD, LOOP_LENGTH, LOOP_TIMES = 1000, 20, 3
"""A loop repeats at most so many characters, has so many at least, and repeats them so often or more often."""
BLANKS = np.frombuffer(b" \t\r\n", np.uint8)
"""Of several copies, those with the most other characters are named: programs are full of equal indentation."""
MAX_SOURCES = 1000
"""Places of a copy in the corpus from which near-copies are followed."""
Integers = NDArray[np.int64]
Skip = tuple[int, int]


@dataclass(frozen=True)
class Part:
    """Characters of some texts.

    Args:
        starts: where each begins, in bytes (M,), ascending.
        stops: where each ends (M,).
        pieces: the number of the text that each is in, ascending (M,).
    """

    starts: Integers
    stops: Integers
    pieces: Integers

    @property
    def borders(self) -> Integers:
        """The first character of each text, and M."""
        return np.append(np.flatnonzero(np.diff(self.pieces, prepend=-1)), len(self.pieces))

    @classmethod
    def of(cls, texts: PlacedTexts, first: int, last: int) -> "Part":
        """Number the characters of some texts.

        Args:
            texts: all.
            first: where the first of these begins.
            last: behind the separator of the last one.
        """
        data = np.frombuffer(texts.data, np.uint8)[first:last]
        starts = np.flatnonzero(begins_character(data))
        leads = data[starts]
        sizes = 1 + (leads >= 0xC0) + (leads >= 0xE0).astype(np.int64) + (leads >= 0xF0)
        return cls(starts + first, starts + first + sizes, np.cumsum(data == SEPARATOR)[starts])

    def cut_like(self, sizes: Sequence[int], *, whole: bool) -> "Part":
        """Cut as many texts of the same lengths from the middle; or choose as many records.

        Args:
            sizes: characters of the texts that these are to be compared with.
            whole: whether texts are records, of which evenly spaced ones are chosen.
        """
        if not whole:
            total = min(sum(sizes), len(self.starts))
            first = (len(self.starts) - total) // 2
            numbers = np.repeat(np.arange(len(sizes)), sizes)[:total]
            last = first + total
            # Both numbers only rise, so their sum rises at every border.
            return Part(self.starts[first:last], self.stops[first:last], self.pieces[first:last] + numbers)
        borders = self.borders
        spaced = np.linspace(0, len(borders) - 2, min(len(sizes), len(borders) - 1)).astype(np.int64)
        ranges = [np.arange(borders[number], borders[number + 1]) for number in np.unique(spaced)]
        index = np.concatenate([np.zeros(0, np.int64), *ranges])
        return Part(self.starts[index], self.stops[index], self.pieces[index])


class CopyFinder:
    """Finds what texts have in common with a corpus. It holds five bytes for each byte of both.

    Args:
        texts: the corpus and, behind it, texts that are looked up in it.
        corpus_stop: where these begin.

    Raises:
        ChargenError: packages are missing.
    """

    def __init__(self, texts: PlacedTexts, corpus_stop: int) -> None:
        require_packages()
        from pydivsufsort import divsufsort

        self.texts, self.corpus_stop = texts, corpus_stop
        self.data = np.frombuffer(texts.data, np.uint8)
        self.order: NDArray[Any] = divsufsort(texts.data)

    def measure(
        self, part: Part, skip: Skip = (0, 0), *, min_length: int = MIN_LENGTH, show: int = 10, whole: bool = False
    ) -> Figures:
        """Look up texts in the corpus.

        Args:
            part: these texts, behind the corpus or within what is skipped.
            skip: where in the corpus no copy may begin: from one place to before another.
            min_length: characters of the shortest copy.
            show: how many copies, near-copies and loops to name, at most.
            whole: whether texts are records, which may stand in the corpus as a whole.
        """
        borders, total = part.borders, len(part.starts)
        lengths = self.match(part, skip)
        remaining = np.repeat(borders[1:], np.diff(borders)) - np.arange(total)
        novel: dict[int, float | None] = {}
        for n in LENGTHS:
            grams = lengths[remaining >= n]
            novel[n] = float((grams < n).mean()) if len(grams) else None
        begins = np.diff(lengths, prepend=0) >= 0  # else it is the rest of the match before
        firsts = np.flatnonzero(begins & (lengths >= min_length))
        copies = [
            (first, first + length) for first, length in zip(firsts.tolist(), lengths[firsts].tolist(), strict=True)
        ]
        chains = {
            (chain.start, chain.stop): chain for chain in chain_spans(self.texts.data, self.spans(part, copies, skip))
        }
        inked = np.append(0, np.cumsum(~np.isin(self.data[part.starts], BLANKS)))
        loops = {(start, start + length): period for start, length, period in reversed(self._loops(part))}
        return Figures(
            texts=len(borders) - 1,
            characters=total,
            longest=int(lengths.max(initial=0)),
            copied=_cover(copies, total),
            nearly_copied=_cover(chains, total),
            looped=_cover(loops, total),
            novel=novel,
            whole=self._count_whole(part, lengths, skip) if whole else None,
            copies=tuple(self._describe(part, span, skip) for span in _choose(copies, show, inked)),
            near_copies=tuple(self._describe_chain(part, chains[span]) for span in _choose(chains, show, inked)),
            loops=tuple(self._describe_loop(part, span, loops[span]) for span in _choose(loops, show, inked)),
        )

    def match(self, part: Part, skip: Skip = (0, 0)) -> Integers:
        """Find the longest match of each position.

        Args:
            part: as `measure` has it.
            skip: as `measure` has it.

        Returns:
            How many characters from each on (M,), within its text, stand in the corpus.
        """
        from chargen.kernels.copies import find_neighbours, raise_lengths

        if not len(part.starts):
            return np.zeros(0, np.int64)
        first, last = int(part.starts[0]), int(part.stops[-1])
        sizes = np.zeros(last - first, self.order.dtype)
        for neighbours in find_neighbours(self.order, first, last, self.corpus_stop, *skip):
            raise_lengths(self.data, first, neighbours, skip[0], sizes)
        ends = part.starts + sizes[part.starts - first]
        borders = part.borders
        stops = np.minimum(np.searchsorted(part.stops, ends, side="right"), np.repeat(borders[1:], np.diff(borders)))
        return stops - np.arange(len(stops))

    def _intervals(self, starts: Integers, stops: Integers) -> list[list[int]]:
        """For each stretch of bytes, which ranks of the suffix array begin with it."""
        from chargen.kernels.copies import find_intervals

        intervals: list[list[int]] = find_intervals(self.data, self.order, starts, stops - starts).tolist()
        return intervals

    def _sources(self, interval: Sequence[int], skip: Skip, shift: int = 0) -> NDArray[Any]:
        """Where in the corpus the suffixes of some ranks stand, so many bytes behind their beginning."""
        places = self.order[interval[0] : interval[1]] + shift
        return places[(places < self.corpus_stop) & ((places < skip[0]) | (places >= skip[1]))]

    def spans(self, part: Part, copies: Sequence[tuple[int, int]], skip: Skip) -> Iterator[Span]:
        """Copies with the places from which near-copies are followed."""
        bounds = np.array(copies, np.int64).reshape(-1, 2)
        starts, stops = part.starts[bounds[:, 0]], part.stops[bounds[:, 1] - 1]
        for (first, stop), interval, size in zip(
            copies, self._intervals(starts, stops), (stops - starts).tolist(), strict=True
        ):
            sources = self._sources((interval[0], min(interval[1], interval[0] + 10 * MAX_SOURCES)), skip)
            ranked = tuple(np.sort(sources[:MAX_SOURCES]).tolist())
            yield Span(int(part.pieces[first]), first, stop - first, size, ranked)

    def _count_whole(self, part: Part, lengths: Integers, skip: Skip) -> int:
        """How many texts stand between two separators of the corpus."""
        borders = part.borders
        equal = np.flatnonzero(lengths[borders[:-1]] == np.diff(borders))
        starts, stops = part.starts[borders[equal]] - 1, part.stops[borders[equal + 1] - 1] + 1
        return sum(len(self._sources(interval, skip, 1)) > 0 for interval in self._intervals(starts, stops))

    def _loops(self, part: Part) -> list[tuple[int, int, int]]:
        from chargen.kernels.copies import find_loops

        borders = part.borders
        text = "".join(self._text(part, first, last) for first, last in pairwise(borders))
        return find_loops(code_points(text).astype(np.uint32), part.pieces, MAX_PERIOD, LOOP_LENGTH, LOOP_TIMES)

    def _text(self, part: Part, first: int, stop: int) -> str:
        """Characters of one text."""
        return self.data[part.starts[first] : part.stops[stop - 1]].tobytes().decode("utf-8", "surrogatepass")

    def _describe(self, part: Part, span: tuple[int, int], skip: Skip) -> Copy:
        start, stop = part.starts[span[0]], part.stops[span[1] - 1]
        sources = self._sources(self._intervals(np.array([start]), np.array([stop]))[0], skip)
        return Copy(
            length=span[1] - span[0],
            text=self._text(part, *span),
            place=self.texts.place(int(start)),
            source=self.texts.place(int(sources.min())),
            sources=len(sources),
        )

    def _describe_chain(self, part: Part, chain: Chain) -> NearCopy:
        return NearCopy(
            length=chain.stop - chain.start,
            differing=chain.differing,
            text=self._text(part, chain.start, chain.stop),
            place=self.texts.place(int(part.starts[chain.start])),
            source=self.texts.place(chain.source),
        )

    def _describe_loop(self, part: Part, span: tuple[int, int], period: int) -> Loop:
        place = self.texts.place(int(part.starts[span[0]]))
        return Loop(span[1] - span[0], period, self._text(part, span[0], span[0] + period), place)


def require_packages() -> None:
    """Check that the packages are there that copies are found with.

    Raises:
        ChargenError: they are not.
    """
    missing = [
        name for name, there in (("pydivsufsort", find_spec("pydivsufsort")), ("numba", available())) if not there
    ]
    if missing:
        raise ChargenError(f"finding copies needs {' and '.join(missing)}: pip install 'chargen[novelty]'")


def _cover(spans: Iterable[tuple[int, int]], total: int) -> float:
    """The share of so many characters that stand in at least one span."""
    bounds = np.array([*spans], np.int64).reshape(-1, 2)
    depth = np.bincount(bounds[:, 0], minlength=total + 1) - np.bincount(bounds[:, 1], minlength=total + 1)
    return float(np.count_nonzero(np.cumsum(depth))) / max(total, 1)


def _choose(spans: Iterable[tuple[int, int]], count: int, inked: Integers) -> list[tuple[int, int]]:
    """The spans with the most characters that are no blanks, at least one, of which none overlaps another.

    Args:
        spans: from a character to before another.
        count: of spans, at most.
        inked: how many characters before each, and in all, are no blanks (M + 1,).
    """
    chosen: list[tuple[int, int]] = []
    sizes = {(first, stop): int(inked[stop] - inked[first]) for first, stop in spans}
    for first, stop in sorted(sizes, key=lambda span: (-sizes[span], span)):
        if len(chosen) == count or not sizes[first, stop]:
            break
        if all(stop <= other_first or first >= other_stop for other_first, other_stop in chosen):
            chosen.append((first, stop))
    return chosen
