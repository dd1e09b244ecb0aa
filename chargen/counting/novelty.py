"""How much of a text stands in a corpus: the figures, beside those of held-out text of that corpus."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from chargen.counting.placed_texts import Place
from chargen.errors import amount

SHOWN_LENGTHS = (5, 8, 10, 15, 20, 30, 50)
"""Of n-grams, those that a table has."""


@dataclass(frozen=True)
class Copy:
    """A span that stands in the corpus, and as part of a longer one nowhere.

    Args:
        length: characters.
        text: the span.
        place: in the text.
        source: its first place in the corpus.
        sources: how often it stands there.
    """

    length: int
    text: str
    place: Place
    source: Place
    sources: int


@dataclass(frozen=True)
class NearCopy:
    """Copies that follow one another in the corpus too, with at most 10 characters between each two.

    Args:
        length: characters from the first one's beginning to the last one's end.
        differing: characters between them, in the text or in the corpus, wherever more are.
        text: all that.
        place: in the text.
        source: its first place in the corpus.
    """

    length: int
    differing: int
    text: str
    place: Place
    source: Place


@dataclass(frozen=True)
class Loop:
    """A stretch in which the same characters stand three times in a row, or more often.

    Args:
        length: its characters.
        period: how many are repeated.
        text: these.
        place: in the text.
    """

    length: int
    period: int
    text: str
    place: Place


@dataclass(frozen=True)
class Figures:
    """What is copied in a text.

    Args:
        texts: how many there are: samples, records, files.
        characters: of all of them.
        longest: characters of the longest span that stands in the corpus.
        copied: share of the characters that stand in copies.
        nearly_copied: in near-copies.
        looped: in loops.
        novel: by n, the share of the n-grams that stand nowhere in the corpus; None where the text has none.
        whole: how many texts are records of the corpus; None for running text.
        copies: those with the most characters that are no blanks, none of which overlaps one with more.
        near_copies: those with the most characters that are no blanks, none of which overlaps one with more.
        loops: those with the most characters that are no blanks, none of which overlaps one with more.
    """

    texts: int
    characters: int
    longest: int
    copied: float
    nearly_copied: float
    looped: float
    novel: dict[int, float | None]
    whole: int | None
    copies: tuple[Copy, ...]
    near_copies: tuple[NearCopy, ...]
    loops: tuple[Loop, ...]


@dataclass(frozen=True, repr=False)
class Novelty:
    """What `novelty` tells of a text.

    Args:
        text: the figures of the text, looked up in the whole corpus.
        held_out: those of real text of about the same size, looked up in the corpus without its validation part; None
            where there is none.
        corpus_characters: of the whole corpus.
        min_length: characters of the shortest copy.
        seed: of what a model wrote; None for a text.
        replaced: bytes that did not fit the encoding.
        passed_over: files that are no text.
    """

    text: Figures
    held_out: Figures | None
    corpus_characters: int
    min_length: int
    seed: int | None
    replaced: int = 0
    passed_over: int = 0

    def __repr__(self) -> str:
        beside = f", {self.held_out.longest:,} in held-out text" * (self.held_out is not None) if self.held_out else ""
        return f"Novelty({amount(self.text.characters, 'character')}, longest copy {self.text.longest:,}{beside})"

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """The figures as a table: what each is, of the text, and of the held-out text or "".

        Returns:
            The rows, the first of which has the headings.
        """
        columns = [self.text, *([self.held_out] if self.held_out else [])]

        def row(name: str, values: Sequence[str]) -> tuple[str, str, str]:
            return name, values[0], values[1] if len(values) > 1 else ""

        yield row("", ["text", "held out"][: len(columns)])
        yield row("texts", [f"{figures.texts:,}" for figures in columns])
        yield row("characters", [f"{figures.characters:,}" for figures in columns])
        yield row("longest copy", [f"{figures.longest:,}" for figures in columns])
        yield row(f"in copies of {self.min_length:,}+", [f"{figures.copied:.1%}" for figures in columns])
        yield row("in near-copies", [f"{figures.nearly_copied:.1%}" for figures in columns])
        yield row("in loops", [f"{figures.looped:.1%}" for figures in columns])
        if self.text.whole is not None:
            yield row("whole copies", [f"{figures.whole or 0:,}" for figures in columns])
        for n in SHOWN_LENGTHS:
            shares = [figures.novel[n] for figures in columns]
            if any(share is not None for share in shares):
                yield row(f"novel {n}-grams", ["" if share is None else f"{share:.1%}" for share in shares])

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """The table and the longest copies, for a notebook."""
        head, *rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self.rows()]
        copies = "".join(
            f"<li>{copy.length:,}: {escape(describe_place(copy.place))} = {escape(describe_place(copy.source))}: "
            f"<code>{escape(repr(copy.text))}</code></li>"
            for copy in self.text.copies
        )
        table = "".join(f"<tr>{row}</tr>" for row in [head, *rows])
        return f"<table>{table}</table>" + (f"<ol>{copies}</ol>" if copies else "")


def describe_place(place: Place) -> str:
    """Write a place in words.

    Args:
        place: of a text.
    """
    names = [f"sample {place.sample:,}"] if place.sample else [place.name] if place.name else []
    return ", ".join([*names, f"line {place.line:,}, column {place.column:,}"])
