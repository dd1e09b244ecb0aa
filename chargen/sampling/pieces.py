"""Samples in pieces, as they are written, whether they are running text or records."""

from collections.abc import Iterator
from typing import NamedTuple

from chargen.sampling.records import write_records
from chargen.sampling.rounding import default_length
from chargen.sampling.sample import Character, Sample
from chargen.sampling.sampler import Sampler
from chargen.sampling.selection import Selection


class Piece(NamedTuple):
    """A piece of a sample.

    Args:
        number: of the sample, from 0.
        sample: the piece; stopped where the sample is.
    """

    number: int
    sample: Sample


def write_pieces(
    sampler: Sampler, length: int | None = None, *, num: int = 1, selection: Selection | None = None
) -> Iterator[list[Piece]]:
    """Write samples, and hand over what is there whenever the next piece is not written yet.

    Args:
        sampler: stands behind the prime.
        length: characters of a sample, of a record at most; None: 500, and on to the end of the line or word, or to the
            end of the record, which is cut at 10,000.
        num: how many records, where a selection is made.
        selection: which whole records are written, by a sampler of one sample; None lets every stream write on.

    Returns:
        An iterator over lists of pieces, each of another sample. Backward, a piece stands before those that came
        earlier.

    Raises:
        SettingError: the model has no records to choose from, or a number is out of its range.
        ChargenError: no character may be written, no record is kept of very many, or the model's numbers overflow.
    """
    if selection is not None:
        for number, record in enumerate(write_records(sampler, num, length=length, selection=selection)):
            yield [Piece(number, record)]
        return
    longest = default_length(sampler.vocabulary) if length is None else length
    written: dict[int, list[Character]] = {}
    for characters in sampler.write(longest, rounded=length is None):
        for character in characters:
            written.setdefault(character.stream, []).append(character)
        if not sampler.ahead:
            yield _take(written, sampler)
    yield _take(written, sampler)


def _take(written: dict[int, list[Character]], sampler: Sampler) -> list[Piece]:
    """What was written, which is forgotten."""
    backward = sampler.direction == "backward"
    pieces = [Piece(number, Sample.of(characters, backward)) for number, characters in written.items()]
    written.clear()
    return pieces
