"""Texts in one array of bytes, of which each character's place is known: its file, line and column."""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import END_MARK
from chargen.data.corpus import split
from chargen.data.corpus_config import CorpusConfig
from chargen.data.normal_form import normalize_blocks
from chargen.data.placed_records import read_records
from chargen.data.reading import file_texts
from chargen.data.reading_config import ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.records import choose_parts
from chargen.data.sources import Source
from chargen.kernels import SEPARATOR

BLOCK = 1 << 20
"""Bytes of which characters are counted at a time."""
TOGETHER = 1000
"""Records whose parts are chosen together."""
Progress = Callable[[str, int, int | None], object]


@dataclass(frozen=True)
class Place:
    """Where something stands.

    Args:
        name: of the file; "" for a text in memory.
        line: from 1; of written samples, from the beginning of each.
        column: characters from the line's beginning, from 1.
        sample: of written samples, the number of the sample, from 1; else 0.
    """

    name: str
    line: int
    column: int
    sample: int = 0


class PlacedTexts:
    """UTF-8 of texts, each ended by `SEPARATOR`, which also stands before the first."""

    def __init__(self) -> None:
        self.data = bytearray([SEPARATOR])
        self._names: list[str] = []
        self._starts, self._lines, self._samples = (array("q") for _ in range(3))

    def add(self, blocks: Iterable[str], place: Place) -> None:
        """Add a text.

        Args:
            blocks: of the text; lone surrogates are allowed.
            place: of its first character, which begins a line.
        """
        self._starts.append(len(self.data))
        self._names.append(place.name)
        self._lines.append(place.line)
        self._samples.append(place.sample)
        for block in blocks:
            self.data += block.encode("utf-8", "surrogatepass")
        self.data.append(SEPARATOR)

    def extend(self, other: "PlacedTexts") -> None:
        """Add all texts of another one.

        Args:
            other: whose texts are added.
        """
        shift = len(self.data) - 1
        self.data += memoryview(other.data)[1:]
        self._starts.extend(start + shift for start in other._starts)
        self._names += other._names
        self._lines += other._lines
        self._samples += other._samples

    def place(self, offset: int) -> Place:
        """Tell where a character stands.

        Args:
            offset: of its first byte.
        """
        number = bisect_right(self._starts, offset) - 1
        start = self._starts[number]
        line_start = (self.data.rfind(b"\n", start, offset) + 1) or start
        column = 1 + len(self.data[line_start:offset].decode("utf-8", "surrogatepass"))
        line = self._lines[number] + self.data.count(b"\n", start, offset)
        return Place(self._names[number], line, column, self._samples[number])

    def count(self, first: int, last: int) -> int:
        """Count characters.

        Args:
            first: a byte.
            last: the byte behind the last one.
        """
        blocks = (self.data[start : min(start + BLOCK, last)] for start in range(first, last, BLOCK))
        return sum(int(begins_character(np.frombuffer(bytes(block), np.uint8)).sum()) for block in blocks)


def begins_character(data: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which bytes begin a character.

    Args:
        data: bytes of UTF-8, and separators (N,).

    Returns:
        A bool for each (N,); False for separators.
    """
    begins: NDArray[np.bool_] = ((data & 0xC0) != 0x80) & (data != SEPARATOR)
    return begins


def read_placed(
    sources: Sequence[Source], reading: ReadingConfig, config: CorpusConfig | None, report: ReadingReport,
    progress: Progress = lambda task, done, total: None,
) -> tuple[PlacedTexts, tuple[int, int]]:  # fmt: skip
    """Read texts, or records, with their places, and find the validation part.

    Args:
        sources: in order.
        reading: how bytes become text.
        config: how the validation part is cut; None cuts none.
        report: filled in while the texts are read.
        progress: called with a task, bytes, and None.

    Returns:
        The texts, and where the validation part begins and ends among them.

    Raises:
        DataError: a text cannot be read.
    """
    if reading.records is not None:
        return _read_records(sources, reading, config, report, progress)
    texts = PlacedTexts()
    for file, blocks in file_texts(sources, reading, report):
        clean = normalize_blocks(blocks) if reading.normalize == "NFC" else blocks

        def watched(clean: Iterable[str] = clean) -> Iterable[str]:
            for block in clean:
                progress("reading", len(texts.data), None)
                yield block

        texts.add(watched(), Place(file.name, 1, 1))
    return texts, _find_valid(texts, config)


def _find_valid(texts: PlacedTexts, config: CorpusConfig | None) -> tuple[int, int]:
    """Where the validation part begins and ends that is cut in the order of texts, as in training.

    A separator stands for the mark of the record behind it. Of running text it does not count, nor does what training
    puts between two files.
    """
    if config is None:
        return 0, 0
    records = config.records is not None

    def counted(data: bytearray) -> NDArray[np.bool_]:
        codes = np.frombuffer(bytes(data), np.uint8)
        begins: NDArray[np.bool_] = ((codes & 0xC0 != 0x80) | (config.unit == "byte")) & (
            records | (codes != SEPARATOR)
        )
        return begins

    blocks = range(0, len(texts.data) - 1, BLOCK)  # the last separator begins no record
    ends = [min(start + BLOCK, len(texts.data) - 1) for start in blocks]
    sizes = [int(counted(texts.data[start:end]).sum()) for start, end in zip(blocks, ends, strict=True)]
    totals = np.cumsum([0, *sizes])

    def offset(index: int) -> int:
        block = int(np.searchsorted(totals, index, side="right")) - 1
        if block == len(sizes):
            return len(texts.data)
        data = texts.data[blocks[block] : ends[block]]
        byte = blocks[block] + int(np.flatnonzero(counted(data))[index - totals[block]])
        if records:
            return texts.data.rfind(SEPARATOR, 0, byte + 1) + 1
        while texts.data[byte] & 0xC0 == 0x80:
            byte -= 1
        return byte

    valid = split(range(int(totals[-1])), config, False)[1]
    return offset(valid.start), offset(valid.stop)


def _read_records(
    sources: Sequence[Source], reading: ReadingConfig, config: CorpusConfig | None, report: ReadingReport,
    progress: Progress,
) -> tuple[PlacedTexts, tuple[int, int]]:  # fmt: skip
    """Read records; those that validate stand behind the others."""
    rest, valid = PlacedTexts(), PlacedTexts()
    records = read_records(sources, reading, report)
    while some := list(islice(records, TOGETHER)):
        parts = np.zeros(len(some), np.int8)
        if config is not None and config.by_hash:
            marked = "".join(END_MARK + record.text for record in some)
            parts = choose_parts(marked, config.valid_fraction, config.test_fraction, config.split_seed)
        for record, part in zip(some, parts.tolist(), strict=True):
            (valid if part == 1 else rest).add([record.text], Place(record.name, record.line, 1))
        progress("reading", len(rest.data), None)
    if config is not None and not config.by_hash:
        return rest, _find_valid(rest, config)
    first = len(rest.data)
    rest.extend(valid)
    return rest, (first, len(rest.data))
