"""Files, folders, patterns, standard input and named corpora -> the bytes of the texts in them.

A file that is no text is an error or, in a folder or an archive, skipped and reported.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from chargen.data.documents import convert, document_kind
from chargen.data.file_kind import PEEK_SIZE, describe_non_text, detect_wide_encoding
from chargen.data.reading_config import RAW, ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.records import kind_of
from chargen.data.sources import Source
from chargen.data.unpack import ARCHIVES, File, peek, unpack_files
from chargen.errors import DataError

BLOCK_SIZE = 1 << 20
"""Bytes read at a time."""
Blocks = Iterator[bytes]


class TextFile(NamedTuple):
    """A text that is to be read.

    Args:
        name: for messages.
        path: where it is, or would be if its archive were unpacked beside itself; empty for standard input.
        blocks: its bytes.
        converted: whether they are the UTF-8 of a document's text.
    """

    name: str
    path: str
    blocks: Blocks
    converted: bool = False


def text_files(source: Source, config: ReadingConfig, report: ReadingReport) -> Iterator[TextFile]:
    """Open the texts of a source.

    Args:
        source: one file, an archive or standard input.
        config: how bytes become text.
        report: gets the files that are no texts, or are left out.

    Raises:
        DataError: where a named source is no text or holds none, saying what it is; and for UTF-16 and UTF-32 that
            would be read in another encoding.
    """
    takes, own_path = source.filter.takes, str(source.path or "")
    if not source.named and not own_path.endswith(ARCHIVES) and not takes(own_path):
        report.excluded += 1
        return
    skipped: list[str] = []
    num_texts = 0
    for file in _read_files(source, config):
        path = str((source.path or Path()).parent / file.member) if file.member else own_path
        if (file.member or not source.named) and not takes(path):
            report.excluded += 1
            continue
        if config.encoding == RAW:
            yield TextFile(file.name, path, file.blocks)
            continue
        opened = _open_text(file, path, config, report)
        if isinstance(opened, TextFile):
            num_texts += 1
            yield opened
            continue
        problem, advice = opened
        if source.named and not file.member:
            if config.documents is False and "chargen[documents]" in advice:
                advice = "leave out `documents=False`"
            advice = advice or 'give a text, or learn its bytes with `unit="byte", encoding="raw"`'
            raise DataError(f"{file.name} is {problem}; {advice}")
        skipped.append(f"{file.name} ({problem.split(':')[0]})")
    if source.named and skipped and not num_texts:
        raise DataError(f"{source.name} holds no text: {', '.join(skipped[:3])}{' …' * (len(skipped) > 3)}")
    report.passed_over += skipped


def _read_files(source: Source, config: ReadingConfig) -> Iterator[File]:
    """The files of a source: the source itself, or the members of an archive."""
    suffix = source.path.suffix if source.path else ""
    archives = config.encoding != RAW and not document_kind(suffix, config.documents)
    with source.open() as stream:
        yield from unpack_files(source.name, stream, suffix, BLOCK_SIZE, archives, source.filter.max_bytes)


def _open_text(file: File, path: str, config: ReadingConfig, report: ReadingReport) -> TextFile | tuple[str, str]:
    """The text in a file; or what it is instead, and what to do."""
    if file.problem:
        return file.problem, file.advice
    if kind := document_kind(path, config.documents):
        try:
            text = convert(b"".join(file.blocks), kind)
        except DataError as error:
            return f"no document that can be read: {error}", "take a fresh copy, or save it as plain text"
        return TextFile(file.name, path, iter([text.encode()]), converted=True)
    start, blocks = peek(file.blocks)
    start = start[:PEEK_SIZE]
    if wide := detect_wide_encoding(start, config.encoding):
        raise DataError(f'{file.name} is text in {wide}, not in {config.encoding}: give `encoding="{wide}"`')
    report.html += config.documents is None and document_kind(path, True) == "html"
    report.plain_tables += config.records is None and kind_of(path, "", has_fields=True) != ""
    return describe_non_text(start, config.encoding) or TextFile(file.name, path, blocks)
