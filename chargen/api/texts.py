"""The text that a call is given: as it is, or in files."""

import os
from collections.abc import Sequence
from dataclasses import replace

from chargen.data.reading import ReadingConfig, ReadingReport, clean, find_sources, read_like
from chargen.errors import SettingError, repr_short
from chargen.settings import check_text

Path = str | os.PathLike[str]
Sources = Path | Sequence[Path]
"""Files, folders, patterns, names of corpora, or "-" for standard input."""


def read_given(
    text: Path | None,
    reading: ReadingConfig,
    encoding: str | None,
    errors: str,
    *,
    sources: Sources | None = None,
    report: ReadingReport | None = None,
    name: str = "text",
) -> str:
    """Read a text that is given, or files, cleaned as the text that a model learned.

    Args:
        text: a str is the text itself, a Path a file.
        reading: how the model's text was read.
        encoding: of files; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".
        sources: files to read instead.
        report: counts what reading meets.
        name: of the argument that is the text, for messages.

    Raises:
        DataError: a file cannot be read.
        SettingError: there is no text, or there are two.
    """
    if sources is None and isinstance(text, os.PathLike):
        text, sources = None, text
    if sources is None:
        return clean(check_text(name, text), reading)
    if text is not None:
        raise SettingError("`text` and `sources` are two texts: give one", "sources")
    names = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    if not isinstance(names, (list, tuple)) or not names:
        raise SettingError(f"sources is {repr_short(names)}: it must be a path or a list of paths", "sources")
    return read_like(find_sources(names)[0], reading, encoding, errors, report)


def read_single(text: Path, reading: ReadingConfig, encoding: str | None, errors: str, name: str = "text") -> str:
    """Read a text that is a single record, or a part of it, where a model has records: a prime, a text with gaps.

    Args:
        text: a str is the text itself, a Path a file.
        reading: how the model's text was read.
        encoding: of the file; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".
        name: of the argument, for messages.

    Returns:
        The text; that of a file without the line end behind it, where records are lines.

    Raises:
        DataError: the file cannot be read.
    """
    line_ends = "lf" if reading.has_lf else reading.newline
    whole = replace(reading, records=None, text_field=None, label_field=None, label_from=None, newline=line_ends)
    read = read_given(text, whole, encoding, errors, name=name)
    return read.removesuffix("\n") if reading.records == "line" and isinstance(text, os.PathLike) else read
