"""Records: texts that stand for themselves, such as names, molecules or poems. Each follows its begin mark.

A mark stands for a begin symbol: `END_MARK` for the end symbol, which ends the record before it and begins the next, or
that of a label. So a text of records is a text; only marks say where a record begins. While lines without labels are
prepared, the line feed is their `end_mark`: most such texts then take a byte a character, which is twice as fast.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import END_MARK, code_points, from_code_points, label_mark, latin_bytes
from chargen.data.hashing import Hashes, mix, powers, terms
from chargen.data.tables import ENDINGS, TABLES, label_of, read_rows, text_of
from chargen.data.unpack import PACKING_BY_SUFFIX
from chargen.data.vocabulary import MAX_LABELS
from chargen.errors import DataError, repr_short

KINDS = ("line", "blank-line", "file", *TABLES)
"""What a record can be; any other text is one that stands between two records."""
BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
MARK = re.compile("[\ud800-\udfff]")
BLOCK = 1 << 20
"""Characters of records that are handed on together, about."""
HASHED = 1 << 18
"""Characters of records that are hashed together, about: what is computed of them then stays in the cache."""
Begin = Callable[[str], str]
"""The mark of a label."""


def begin_marks(labels: list[str], unknown: set[str] | None = None, end_mark: str = END_MARK) -> Begin:
    """Make a function that gives the mark of a label.

    Args:
        labels: those that are known, in the order of their symbols.
        unknown: gets other labels, whose records then have none; without it these are appended to `labels`.
        end_mark: of no label.

    Returns:
        The function; "" is no label.
    """
    numbers = {label: number for number, label in enumerate(labels)}

    def begin(label: str) -> str:
        if not label:
            return end_mark
        if label not in numbers:
            if unknown is not None:
                unknown.add(label)
                return end_mark
            if len(labels) >= MAX_LABELS:
                raise DataError(
                    f"records have more than {MAX_LABELS:,} different labels, such as {repr_short(label)}: choose a "
                    "field, or a folder or file, that many records have in common"
                )
            numbers[label] = len(labels)
            labels.append(label)
        return label_mark(numbers[label])

    return begin


def kind_of(path: str, kind: str, *, has_fields: bool) -> str:
    """Say what the records of a file are: where they have fields, the end of its name goes before what others are.

    Args:
        path: of the file; "" where it has none.
        kind: of the records of other files.
        has_fields: whether records have fields.

    Returns:
        One of `KINDS`, or the text between two records.
    """
    ends = (end.lower() for end in PurePath(path).suffixes) if has_fields else ()
    return next((ENDINGS[end] for end in ends if end in ENDINGS), kind)


def label_of_file(path: str, label_from: str | None) -> str:
    """The label of all records of a file; "" for none.

    Args:
        path: of the file; "" where it has none.
        label_from: "folder", "file" or None.

    Raises:
        DataError: the name holds bytes that are no text.
    """
    if label_from is None or not path:
        return ""
    name = PurePath(os.path.abspath(path))
    while label_from == "file" and name.suffix.lower() in PACKING_BY_SUFFIX:
        name = name.with_suffix("")
    return check_no_surrogate(name.stem if label_from == "file" else name.parent.name, "the name of a file or folder")


def mark_records(
    texts: Iterable[str], kind: str, name: str, begin: Begin, *, label: str = "",
    text_field: str | None = None, label_field: str | None = None,
) -> Iterator[str]:  # fmt: skip
    """Put a mark before each record of a file, in place of what stands between two. Empty records are left out.

    Args:
        texts: blocks of the file, with LF at line ends where records are lines or between blank lines.
        kind: one of `KINDS`, or the text between two records.
        name: of the file, for messages.
        begin: gives the mark of a label.
        label: of all records of the file; "" for none.
        text_field: of a table, the field that holds a record's text.
        label_field: of a table, the field that holds its label.

    Returns:
        Blocks of any size.

    Raises:
        DataError: a table cannot be read or lacks a field, or a text holds a lone surrogate.
    """
    if kind in TABLES:
        return _mark_rows(read_rows(texts, kind, name), name, begin, label, text_field, label_field)
    mark, checked = begin(label), map(partial(check_no_surrogate, name=name), texts)
    if kind == "file":
        return _collapse(checked, mark)
    if kind == "blank-line":
        return _collapse(_mark_blank_lines(checked, mark), mark)
    return _collapse(mark_separators(checked, "\n" if kind == "line" else kind, mark), mark)


def check_no_surrogate(text: str, name: str = "the text") -> str:
    """Return a text, which may be encoded: marks are lone surrogates, and no text of a person holds one.

    Args:
        text: any.
        name: for the message.

    Raises:
        DataError: it holds a lone surrogate.
    """
    try:
        text.isascii() or text.encode()
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
    if len(separator) == 1:
        yield from texts if separator == mark else (text.replace(separator, mark) for text in texts)
        return
    pending = ""
    for text in texts:
        *pieces, rest = (pending + text).split(separator)
        done = rest[: max(0, len(rest) + 1 - len(separator))]
        yield mark.join([*pieces, done])
        pending = rest[len(done) :]
    yield pending


def _mark_blank_lines(texts: Iterable[str], mark: str) -> Iterator[str]:
    """Blocks with a mark in place of blank lines, also where these begin or end the file."""
    pending, at_start = "\n", True
    for text in texts:
        pending += text
        end = len(pending.rstrip(" \t\n"))
        if end:
            yield BLANK_LINES.sub(mark, pending[:end])[at_start:]
            pending, at_start = pending[end:], False
    first, line_end, _ = pending.partition("\n")
    yield first if line_end else pending


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


def _mark_rows(
    rows: Iterable[tuple[int, Any]],
    name: str,
    begin: Begin,
    label: str,
    text_field: str | None,
    label_field: str | None,
) -> Iterator[str]:
    """The texts of a table's rows, each after its mark, many in a block."""
    block: list[str] = []
    size = 0
    for number, row in rows:
        where = f"{name}: line {number}"
        text = check_no_surrogate(text_of(row, text_field, where, {label_field}), where)
        if label_field:
            label = check_no_surrogate(label_of(row, label_field, where), where)
        if text:
            block += begin(label), text
            size += len(text)
        if size >= BLOCK:
            yield "".join(block)
            block, size = [], 0
    yield "".join(block)


def whole_records(blocks: Iterable[str], end_mark: str = END_MARK) -> Iterator[str]:
    """Cut a text of records anew, where records begin. A record that is longer than a block is held in memory.

    Args:
        blocks: of a text that begins with a mark.
        end_mark: the only mark, where it is another character.

    Returns:
        Blocks of whole records.
    """
    pending: list[str] = []
    for block in blocks:
        last = _last_mark(block) if end_mark == END_MARK else block.rfind(end_mark)
        if last < 0:
            pending.append(block)
        else:
            yield from filter(None, ["".join(pending) + block[:last]])
            pending = [block[last:]]
    yield from filter(None, ["".join(pending)])


def _last_mark(text: str) -> int:
    """Where the last mark is; -1 for nowhere."""
    for start in range(len(text) - 1 & -1024, -1, -1024):
        if places := [mark.start() for mark in MARK.finditer(text, start, start + 1024)]:
            return places[-1]
    return -1


def hash_records(text: str, end_mark: str = END_MARK) -> tuple[NDArray[np.int64], Hashes]:
    """Hash each record by its characters; its label takes no part.

    Args:
        text: whole records; begins with a mark.
        end_mark: the only mark, where it is another character.

    Returns:
        Where the records begin, and the hash of each, a mixed polynomial of its characters.
    """
    latin = None if end_mark == END_MARK else latin_bytes(text)
    codes: NDArray[Any] = code_points(text) if latin is None else np.frombuffer(latin, np.uint8)
    is_mark = (codes >= 0xD800) & (codes <= 0xDFFF) if end_mark == END_MARK else codes == ord(end_mark)
    starts = np.flatnonzero(is_mark)
    if not len(starts):
        return starts, np.zeros(0, np.uint64)
    values = terms(codes)
    values[starts] = 0
    return starts, mix(np.add.reduceat(values, starts) * powers(len(codes), inverse=True)[starts])


def choose_parts(text: str, valid: float, test: float, seed: int, end_mark: str = END_MARK) -> NDArray[np.int8]:
    """Choose the part of each record by a hash of its text: equal records go to the same part.

    A record's part depends on nothing but its text, the seed and the shares; a larger share of valid or test only adds
    records to that part.

    Args:
        text: whole records; begins with a mark.
        valid: the share of records that validate.
        test: the share of records that test.
        seed: 0 to 2**64 - 1; another one makes other parts.
        end_mark: the only mark, where it is another character.

    Returns:
        The number of each record's part (R,): 0 train, 1 valid, 2 test.
    """
    offset = mix(np.array([seed], np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    valid_limit, test_limit = (int(2**64 * Fraction(str(share))) for share in (valid, test))
    pieces = (text[start : start + HASHED] for start in range(0, len(text), HASHED))
    blocks = whole_records(pieces, end_mark)
    hashes = [np.zeros(0, np.uint64), *(hash_records(block, end_mark)[1] for block in blocks)]
    draws = mix(np.concatenate(hashes) + offset)
    return np.where(draws < test_limit, 2, ~draws < valid_limit).astype(np.int8)


def split_records(text: str, valid: float, test: float, seed: int) -> tuple[str, str, str]:
    """Split records into train, valid and test as `choose_parts` does.

    Args:
        text: whole records; begins with a mark.
        valid: the share of records that validate.
        test: the share of records that test.
        seed: 0 to 2**64 - 1.

    Returns:
        The three parts, each a text of records in the old order.
    """
    codes = code_points(text)
    starts = np.flatnonzero((codes >= 0xD800) & (codes <= 0xDFFF))
    part_of_code = np.repeat(choose_parts(text, valid, test, seed), np.diff(starts, append=len(codes)))
    train_part, valid_part, test_part = (from_code_points(codes[part_of_code == part]) for part in range(3))
    return train_part, valid_part, test_part
