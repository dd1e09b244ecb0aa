"""The text that a call is given: as it is, or in files."""

import os
from collections.abc import Sequence
from dataclasses import replace

from chargen.data.reading import clean, mark_text, read_like
from chargen.data.reading_config import ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.records import check_no_surrogate
from chargen.data.sources import Source, find_sources
from chargen.errors import SettingError, repr_short
from chargen.settings import check_text
from chargen.storage.model_file import ModelFile

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
    return read_like(find_files(sources), reading, encoding, errors, report)


def find_files(sources: Sources) -> list[Source]:
    """Find the files that a call is to read.

    Args:
        sources: a path or several.

    Raises:
        DataError: a name leads to no file.
        SettingError: they are no paths.
    """
    names = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    if not isinstance(names, (list, tuple)) or not names:
        raise SettingError(f"sources is {repr_short(names)}: it must be a path or a list of paths", "sources")
    return find_sources(names)[0]


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


def clean_for_model(file: ModelFile, text: str) -> str:
    """Clean a text, which of records is one of them, as the text that a model learned.

    Args:
        file: the model.
        text: from anywhere.

    Raises:
        DataError: it holds a lone surrogate, which among records stands for a symbol.
        SettingError: it is no str.
    """
    reading = file.reading
    if not file.vocabulary.records:
        return clean(text, reading)
    reading = replace(reading, newline="lf") if reading.has_lf else reading
    return clean(check_no_surrogate(check_text("text", text)), reading)


def read_for_model(
    file: ModelFile,
    text: Path | None,
    encoding: str | None,
    errors: str,
    *,
    sources: Sources | None = None,
    report: ReadingReport | None = None,
) -> str:
    """Read a text that is given, or files, as a model read its own: a text of records has the marks of its labels.

    Args:
        file: the model.
        text: a str is the text itself, which of records is that of a file; a Path is a file.
        encoding: of files; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".
        sources: files to read instead.
        report: counts what reading meets; one of `ReadingReport.of_model`.

    Raises:
        DataError: a file cannot be read.
        SettingError: there is no text, or there are two, or nothing says what a record is.
    """
    reading, report = file.reading, report or ReadingReport.of_model(file.vocabulary.labels)
    if (reading.records is not None) != file.vocabulary.records:
        raise SettingError("reading must say what the records of this model are, and only of such a model", "reading")
    if reading.records is not None and sources is None and isinstance(text, str):
        return mark_text(text, reading, report)
    return read_given(text, reading, encoding, errors, sources=sources, report=report)
