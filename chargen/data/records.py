"""Records: texts that stand for themselves, such as names, molecules or poems. Each follows its begin mark.

A mark stands for a begin symbol: `END_MARK` for the end symbol, which ends the record before it and begins the next, or
that of a label. So a text of records is a text; only marks say where a record begins.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.vocabulary import END_MARK, MAX_LABELS, code_points, from_code_points, label_mark
from chargen.errors import DataError, repr_short, truncate
from chargen.suggestions import did_you_mean

KINDS = ("line", "blank-line", "file", "jsonl", "csv")
"""What a record can be; any other text is one that stands between two records."""
TABLES = ("jsonl", "csv")
"""Kinds whose records have fields."""
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}
"""Ends of names of files that are read as tables where records have fields, whatever the others are."""
BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
MARK = re.compile("[\ud800-\udfff]")
MAX_FIELD = 2**31 - 1
"""Characters of a field of a table, at most."""
ROWS = 10_000
"""Rows of a table that are handed on together."""
Hashes = NDArray[np.uint64]
Begin = Callable[[str], str]
"""The mark of a label."""


def begin_marks(labels: list[str]) -> Begin:
    """Make a function that gives the mark of a label; new labels are appended.

    Args:
        labels: those that are known, in the order of their symbols; changed.

    Returns:
        The function; "" is no label.
    """
    numbers = {label: number for number, label in enumerate(labels)}

    def begin(label: str) -> str:
        if not label:
            return END_MARK
        if label not in numbers:
            if len(labels) >= MAX_LABELS:
                raise DataError(f"there are more than {MAX_LABELS:,} labels: give a field with fewer")
            numbers[label] = len(labels)
            labels.append(label)
        return label_mark(numbers[label])

    return begin


def mark_records(
    texts: Iterable[str], kind: str, name: str, begin: Begin, *, label: str = "",
    text_field: str | None = None, label_field: str | None = None,
) -> Iterator[str]:  # fmt: skip
    """Put a mark before each record of a file, in place of what stands between two. Empty records are left out.

    Args:
        texts: blocks of the file, with LF at line ends where records are lines or between blank lines.
        kind: one of `KINDS`, or the text between two records.
        name: of the file.
        begin: gives the mark of a label.
        label: of all records of the file; "" for none.
        text_field: of a table, the field that holds a record's text.
        label_field: of a table, the field that holds its label.

    Returns:
        Blocks of any size.

    Raises:
        DataError: a table cannot be read or lacks a field, or a text holds a lone surrogate.
    """
    mark = begin(label)
    if table := table_kind(kind, name, bool(text_field or label_field)):
        rows = read_rows(texts, table, name, text_field, label_field)
        return _mark_rows(rows, begin, mark, labelled=bool(label_field))
    checked = (check_no_surrogate(text, name) for text in texts)
    if kind == "file":
        return chain([mark], checked)
    if kind == "blank-line":
        return _collapse(_mark_blank_lines(checked, mark), mark)
    return _collapse(mark_separators(checked, "\n" if kind == "line" else kind, mark), mark)


def table_kind(kind: str, name: str, has_fields: bool) -> str:
    """Tell what kind of table a file is; "" where it is none.

    Args:
        kind: one of `KINDS`, or the text between two records.
        name: of the file.
        has_fields: whether a field of the records is named.
    """
    if not has_fields and kind not in TABLES:
        return ""
    ends = (end.lower() for end in PurePath(name).suffixes)
    ending = next((ENDINGS[end] for end in ends if end in ENDINGS), kind)
    return ending if ending in TABLES else ""


def check_no_surrogate(text: str, name: str = "the text") -> str:
    """Return a text, which may be encoded: marks are lone surrogates, and no text of a person holds one.

    Args:
        text: any.
        name: for the message.

    Raises:
        DataError: it holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name} holds a lone surrogate, which is not a character") from error
    return text


def mark_separators(texts: Iterable[str], separator: str, mark: str) -> Iterator[str]:
    """Put a mark in place of each separator, which may lie across two blocks.

    Args:
        texts: blocks.
        separator: what stands between two records.
        mark: a character.

    Returns:
        Blocks.
    """
    pending = ""
    for text in texts:
        *pieces, rest = (pending + text).split(separator)
        done = rest[: max(0, len(rest) + 1 - len(separator))]
        yield mark.join([*pieces, done])
        pending = rest[len(done) :]
    yield pending


def _mark_blank_lines(texts: Iterable[str], mark: str) -> Iterator[str]:
    """Blocks with a mark in place of blank lines, and without white space at either end of the file."""
    pending, at_start = "", True
    for text in texts:
        pending += text
        if at_start:
            pending = re.sub(r"^(?:[ \t]*\n)+", "", pending)
        end = len(pending.rstrip(" \t\n"))
        if end:
            yield BLANK_LINES.sub(mark, pending[:end])
            pending, at_start = pending[end:], False


def _collapse(texts: Iterable[str], mark: str) -> Iterator[str]:
    """Blocks that begin with a mark, where no mark follows another or ends the file: no record is empty."""
    pending = True
    for text in texts:
        text = mark * pending + text
        while mark * 2 in text:
            text = text.replace(mark * 2, mark)
        pending = text.endswith(mark)
        if text := text[: len(text) - pending]:
            yield text


def _read_json_lines(texts: Iterable[str], name: str) -> Iterator[tuple[int, Any]]:
    """The values of a file of JSON lines, each with its line's number."""
    for number, line in _lines(texts):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}: line {number} is no JSON ({truncate(error, 80)})") from error


def _read_table(texts: Iterable[str], name: str) -> Iterator[tuple[int, Any]]:
    """The rows of a table with a header, each with the number of its last line."""
    csv.field_size_limit(MAX_FIELD)
    delimiter = "\t" if ".tsv" in name.lower() else ","
    reader = csv.DictReader((line for _, line in _lines(texts)), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                size, needed = _count_fields(row), len(reader.fieldnames or ())
                raise DataError(f"{name}: line {reader.line_num} has {size} fields, the header {needed}")
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{name}: line {reader.line_num} is no row of a table ({error})") from error


def _count_fields(row: dict[Any, Any]) -> int:
    """How many fields a row of a table has, more or fewer than the header."""
    return sum(value is not None for key, value in row.items() if key is not None) + len(row.get(None) or ())


def _lines(texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines of a file with their ends, numbered from 1."""
    pending, number = "", 0
    for text in chain(texts, [None]):
        lines = (pending + (text or "")).split("\n")
        pending = lines.pop() if text is not None else ""
        for line in lines:
            number += 1
            if text is not None or line:
                yield number, line + "\n" * (text is not None)


def read_rows(
    texts: Iterable[str], table: str, name: str, text_field: str | None, label_field: str | None, strict: bool = True
) -> Iterator[tuple[int, str, str]]:
    """Read the rows of a table, empty ones too.

    Args:
        texts: blocks of the file, with LF at line ends.
        table: "jsonl" or "csv".
        name: of the file.
        text_field: the field that holds a record's text.
        label_field: the field that holds its label.
        strict: whether each row must have that field.

    Returns:
        The number of each row's line, which is its last, its text and its label.

    Raises:
        DataError: the table cannot be read or lacks a field, or a text holds a lone surrogate.
    """
    for number, row in _read_json_lines(texts, name) if table == "jsonl" else _read_table(texts, name):
        where, label = f"{name}: line {number}", ""
        text = check_no_surrogate(_field(row, text_field, where, "text_field"), where)
        if label_field and (strict or label_field in row):
            label = check_no_surrogate(_field(row, label_field, where, "label_field"), where)
        yield number, text, label


def _mark_rows(rows: Iterable[tuple[int, str, str]], begin: Begin, mark: str, *, labelled: bool) -> Iterator[str]:
    """The texts of a table's rows, each after its mark, many in a block."""
    block: list[str] = []
    for _, text, label in rows:
        mark = begin(label) if labelled else mark
        if text:
            block += mark, text
        if len(block) >= ROWS:
            yield "".join(block)
            block = []
    yield "".join(block)


def _field(row: Any, field: str | None, where: str, setting: str) -> str:
    """A field of a row; without its name, that of a row with one text."""
    if field is None and isinstance(row, str):
        return row
    if not isinstance(row, dict):
        raise DataError(f"{where} is {repr_short(row)}: it must be an object with fields")
    names = ", ".join(map(repr_short, list(row)[:8]))
    if field is None:
        fields = ["text"] if "text" in row else [key for key, value in row.items() if isinstance(value, str)]
        if len(fields) != 1:
            raise DataError(f"{where} has fields {names}: say by `{setting}` which one holds the text")
        field = fields[0]
    if field not in row:
        raise DataError(f"{where} has no field {field!r}; it has {names}{did_you_mean(field, list(map(str, row)))}")
    value = row[field]
    if setting == "label_field" and isinstance(value, (int, float, bool)):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: {field} is {repr_short(value)}: it must be text")
    return value


def whole_records(blocks: Iterable[str]) -> Iterator[str]:
    """Cut a text of records anew, where records begin. A record that is longer than a block is held in memory.

    Args:
        blocks: of a text that begins with a mark.

    Returns:
        Blocks of whole records.
    """
    pending: list[str] = []
    for block in blocks:
        marks = np.flatnonzero(_is_mark(code_points(block)))
        if len(marks):
            yield from filter(None, ["".join(pending) + block[: marks[-1]]])
            pending = [block[marks[-1] :]]
        else:
            pending.append(block)
    yield from filter(None, ["".join(pending)])


def _is_mark(codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    return (codes >= 0xD800) & (codes <= 0xDFFF)


def _mix(values: Hashes) -> Hashes:
    """Mix 64 bits, as in SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hash_records(text: str) -> tuple[NDArray[np.int64], Hashes]:
    """Hash each record by its characters; its label takes no part.

    Args:
        text: whole records; begins with a mark.

    Returns:
        Where the records begin, and the hash of each: for a character c at place n, the sum of a mix of both.
    """
    codes = code_points(text)
    marks = _is_mark(codes)
    starts = np.flatnonzero(marks)
    if not len(starts):
        return starts, np.zeros(0, np.uint64)
    places = np.arange(len(codes)) - np.repeat(starts, np.diff(starts, append=len(codes)))
    values = np.where(marks, 0, codes).astype(np.uint64) | (places.astype(np.uint64) << np.uint64(21))
    return starts, _mix(np.add.reduceat(_mix(values + np.uint64(1)), starts))


def split_records(text: str, valid: float, test: float, seed: int) -> tuple[str, str, str]:
    """Split records into train, valid and test by a hash of their text: equal records go to the same part.

    A record's part depends on nothing but its text, the seed and the shares; a larger share only adds records.

    Args:
        text: whole records; begins with a mark.
        valid: the share of records that validate.
        test: the share of records that test.
        seed: 0 to 2**64 - 1; another one makes other parts.

    Returns:
        The three parts, each a text of records in the old order.
    """
    starts, hashes = hash_records(text)
    draws = _mix(hashes + _mix(np.array([seed], np.uint64) + np.uint64(0x9E3779B97F4A7C15)))
    limits = [int(2**64 * share) for share in (Fraction(str(test)), Fraction(str(test)) + Fraction(str(valid)))]
    part = np.where(draws < limits[0], 2, np.where(draws < limits[1], 1, 0)) if len(draws) else draws
    codes = code_points(text)
    part_of_code = np.repeat(part, np.diff(starts, append=len(codes)))
    train_part, valid_part, test_part = (from_code_points(codes[part_of_code == number]) for number in range(3))
    return train_part, valid_part, test_part
