"""Tables: JSON lines, and CSV or TSV with a header, row by row, and the fields of a row."""

import csv
import json
import re
from collections.abc import Container, Iterable, Iterator
from typing import Any

from chargen.errors import DataError, amount, repr_short, truncate
from chargen.suggestions import did_you_mean

TABLES = ("jsonl", "csv", "tsv")
"""Kinds of tables."""
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}
"""Ends of the names of files that are tables."""
MAX_FIELD = 2**31 - 1
"""Characters of a field, at most."""


def read_rows(texts: Iterable[str], kind: str, name: str) -> Iterator[tuple[int, Any]]:
    """Read the rows of a table.

    Args:
        texts: blocks of the file.
        kind: one of `TABLES`.
        name: of the file.

    Yields:
        The number of a row's line, its last one, and the row: any JSON value, or texts by the names of the header.

    Raises:
        DataError: a line is no JSON, or no row of the table.
    """
    return (
        _read_json_lines(texts, name) if kind == "jsonl" else _read_table(texts, "\t" if kind == "tsv" else ",", name)
    )


def _read_json_lines(texts: Iterable[str], name: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_lines(texts), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}: line {number} is no JSON ({truncate(error, 80)}): mend that line") from error
        yield number, value


def _read_table(texts: Iterable[str], delimiter: str, name: str) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(_lines(texts), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for row in filter(None, reader):
            where = f"{name}: line {reader.line_num}"
            if not header:
                header = row
                if len(header) == 1 and delimiter == "," and (mark := re.search(r"[;\t]", header[0])):
                    advice = 'give `records="tsv"`' if mark[0] == "\t" else "put commas or tabs between its fields"
                    raise DataError(f"{where} names one field, {repr_short(header[0])}, and should name all: {advice}")
                if len(set(header)) < len(header):
                    raise DataError(f"{where} names a field twice ({', '.join(map(repr_short, header[:8]))}): mend it")
            elif len(row) != len(header):
                raise DataError(
                    f"{where} has {amount(len(row), 'field')}, the header {len(header)}: "
                    f"put a field with a {'tab' if delimiter == chr(9) else 'comma'} between double quotes"
                )
            else:
                yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{name}: line {reader.line_num} is no row of a table ({error}): mend that line") from error


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """The lines of a file with their ends; the last one may lack it."""
    pending: list[str] = []
    for text in texts:
        *lines, rest = text.split("\n")
        for line in lines:
            yield "".join([*pending, line, "\n"])
            pending.clear()
        pending.append(rest)
    yield from filter(None, ["".join(pending)])


def text_of(row: Any, field: str | None, where: str, others: Container[str | None] = ()) -> str:
    """The text of a row.

    Args:
        row: of a table.
        field: that holds it; None: the one called "text", or the only text of the row.
        where: the row is, for messages.
        others: fields that hold something else.

    Raises:
        DataError: there is no such field, or it is no text.
    """
    if field is None and isinstance(row, str):
        return row
    if field is None and isinstance(row, dict):
        fields = ["text"] if "text" in row else [key for key in row if isinstance(row[key], str) and key not in others]
        if len(fields) != 1:
            raise DataError(f"{where} has {_names(row)}: say by `text_field` which one holds the text")
        field = fields[0]
    value = _value(row, field, where, "text_field")
    if not isinstance(value, str):
        raise DataError(f"{where}: {field} is {repr_short(value)}: it must be text; put it between double quotes")
    return value


def label_of(row: Any, field: str, where: str) -> str:
    """The label of a row, as the file writes it; "" for none.

    Args:
        row: of a table.
        field: that holds it.
        where: the row is, for messages.

    Raises:
        DataError: there is no such field, or it is a list or an object.
    """
    value = _value(row, field, where, "label_field")
    if isinstance(value, (list, dict)):
        raise DataError(f"{where}: {field} is {repr_short(value)}: a label must be text, a number, or true or false")
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _value(row: Any, field: str | None, where: str, setting: str) -> Any:
    if not isinstance(row, dict):
        raise DataError(f"{where} is {repr_short(row)}: it must be an object with fields")
    if field not in row:
        advice = did_you_mean(str(field), list(row)) or f"; choose another `{setting}`"
        raise DataError(f"{where} has no field {field!r}; it has {_names(row)}{advice}")
    return row[field]


def _names(row: dict[str, Any]) -> str:
    """The names of a row's fields, for messages."""
    return f"fields {', '.join(map(repr_short, list(row)[:8]))}{' …' * (len(row) > 8)}" if row else "no fields"
