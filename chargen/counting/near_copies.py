"""Near-copies: copied spans that follow one another in a corpus as they do in a text, with little between them."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from chargen.kernels import SEPARATOR

GAP = 10
"""Characters that may stand between two spans, in the text and in the corpus."""
_MOST_BYTES = 4
"""Of a character."""


class Span(NamedTuple):
    """A stretch of a text that stands in a corpus.

    Args:
        piece: the number of the text that it is in.
        start: its first character.
        length: in characters.
        size: in bytes.
        sources: where it stands in the corpus, in bytes, ascending.
    """

    piece: int
    start: int
    length: int
    size: int
    sources: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The character behind it."""
        return self.start + self.length


class Chain(NamedTuple):
    """A near-copy: where it stands in the text, in characters, and in the corpus, in bytes.

    Args:
        start: its first character in the text.
        differing: characters between its spans, in the text or in the corpus, wherever more are.
        source: where it begins in the corpus.
        stop: the character of the text behind it.
    """

    start: int
    differing: int
    source: int
    stop: int


class _State(NamedTuple):
    """A span, and for each of its sources the best chain that ends there; sources at which a later span goes on."""

    span: Span
    chains: Mapping[int, Chain]
    continued: set[int]


def chain_spans(data: bytearray, spans: Iterable[Span]) -> Iterator[Chain]:
    """Find the near-copies of a text: two or more spans in a row, each at most `GAP` characters behind another one.

    A span may begin within the one before it; then only the rest of it counts.

    Args:
        data: of the corpus, with separators between its texts.
        spans: in the order of the text, none within another.

    Returns:
        Each that does not go on, the longest that ends there; the one that stands first, where there are several.
    """
    recent: deque[_State] = deque()
    for span in spans:
        while recent and (recent[0].span.piece != span.piece or span.start - recent[0].span.stop > GAP):
            yield from _finish(recent.popleft())
        chains = {source: Chain(span.start, 0, source, span.stop) for source in span.sources}
        for state in recent:
            _continue(data, state, span, chains)
        recent.append(_State(span, chains, set()))
    for state in recent:
        yield from _finish(state)


def _continue(data: bytearray, state: _State, span: Span, chains: dict[int, Chain]) -> None:
    """Let the chains that end with an earlier span go on with another one, where they can."""
    before, gap = state.span, span.start - state.span.stop
    farthest = _MOST_BYTES * (GAP - min(gap, 0))
    for source in span.sources:
        ends = source - before.size
        first = bisect_left(before.sources, ends - _MOST_BYTES * GAP)
        last = bisect_right(before.sources, ends + farthest)
        for earlier in before.sources[first:last]:
            source_gap = _count(data, earlier + before.size, source)
            if source_gap is None:
                continue
            overlap = -min(gap, source_gap, 0)
            differing = max(gap, source_gap) + overlap
            if differing > GAP or overlap >= span.length:
                continue
            chain = state.chains[earlier]
            longer = Chain(chain.start, chain.differing + differing, chain.source, span.stop)
            chains[source] = min(chains[source], longer)
            state.continued.add(earlier)


def _finish(state: _State) -> Iterator[Chain]:
    """The best chain that ends with a span and goes on nowhere."""
    ended = [chain for source, chain in state.chains.items() if source not in state.continued]
    best = min((chain for chain in ended if chain.start != state.span.start), default=None)
    if best:
        yield best


def _count(data: bytearray, first: int, last: int) -> int | None:
    """Characters from one place of the corpus to another, negative where that is before it; None across texts."""
    between = data[min(first, last) : max(first, last)]
    if SEPARATOR in between:
        return None
    count = len(between.decode("utf-8", "surrogatepass"))
    return count if first <= last else -count
