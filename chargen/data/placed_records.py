"""Records of files, or lines, one after the other, each with its place."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from chargen.data.code_points import END_MARK
from chargen.data.normal_form import compose
from chargen.data.reading import file_texts
from chargen.data.reading_config import RAW, ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.records import check_no_surrogate, label_of_file, mark_separators
from chargen.data.sources import Source
from chargen.data.tables import TABLES, label_of, read_rows, text_of
from chargen.data.text_files import TextFile


class PlacedRecord(NamedTuple):
    """A record, or a line of running text.

    Args:
        text: the record's, never empty.
        name: of its file.
        line: the number of its first line there, from 1; of a row of a table, that of its last.
        label: "" for none.
    """

    text: str
    name: str = ""
    line: int = 0
    label: str = ""


def read_records(sources: Sequence[Source], config: ReadingConfig, report: ReadingReport) -> Iterator[PlacedRecord]:
    """Read records one by one, those that `read_text` marks; or lines, where a text has no records.

    Memory grows with the longest record only. A row of a table may lack its label.

    Args:
        sources: in order.
        config: how bytes become text, with LF at the ends of lines where there are no records.
        report: filled in while the texts are read.

    Raises:
        DataError: a text cannot be read, or holds a lone surrogate.
    """
    for file, texts in file_texts(sources, config, report):
        label = label_of_file(file.path, config.label_from)
        for line, text, own_label in _number_records(texts, config, file):
            text = compose(text) if config.normalize == "NFC" else text
            yield PlacedRecord(text, file.name, line, own_label or label)


def _number_records(texts: Iterable[str], config: ReadingConfig, file: TextFile) -> Iterator[tuple[int, str, str]]:
    """The line, the text and the label of each record of a file."""
    kind = "line" if config.records is None else config.records_of(file.path)
    if kind in TABLES:
        rows: Iterable[tuple[int, str, str]] = _number_rows(texts, kind, config, file.name)
    else:
        checked = texts if config.encoding == RAW else (check_no_surrogate(text, file.name) for text in texts)
        if kind == "file":
            pieces: Iterable[tuple[int, str]] = [(1, "".join(checked))]
        elif kind == "blank-line":
            pieces = _between_blank_lines(checked)
        else:
            pieces = between_separators(checked, "\n" if kind == "line" else kind)
        rows = ((line, text, "") for line, text in pieces)
    return (row for row in rows if row[1])


def _number_rows(texts: Iterable[str], kind: str, config: ReadingConfig, name: str) -> Iterator[tuple[int, str, str]]:
    """The line, the text and the label of each row of a table."""
    for line, row in read_rows(texts, kind, name):
        where, label = f"{name}: line {line}", ""
        text = check_no_surrogate(text_of(row, config.text_field, where, {config.label_field}), where)
        if config.label_field is not None and isinstance(row, dict) and config.label_field in row:
            label = check_no_surrogate(label_of(row, config.label_field, where), where)
        yield line, text, label


def between_separators(texts: Iterable[str], separator: str) -> Iterator[tuple[int, str]]:
    """Cut a text at separators.

    Args:
        texts: blocks.
        separator: what stands between two pieces.

    Returns:
        The number of the line where each piece begins, and the piece, which may be empty.
    """
    line, parts = 1, [""]
    for block in mark_separators(texts, separator, END_MARK):
        first, *others = block.split(END_MARK)
        parts.append(first)
        for other in others:
            piece = "".join(parts)
            yield line, piece
            line += piece.count("\n") + separator.count("\n")
            parts = [other]
    yield line, "".join(parts)


def _between_blank_lines(texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Cut a text at lines that are empty but for blanks."""
    lines: list[str] = []
    first = 1
    for number, line in chain(between_separators(texts, "\n"), [(0, "")]):
        if line.strip(" \t"):
            first = first if lines else number
            lines.append(line)
        elif lines:
            yield first, "\n".join(lines)
            lines = []
