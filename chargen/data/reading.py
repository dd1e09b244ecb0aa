"""The bytes of texts -> blocks of clean text.

Nothing is guessed and nothing is dropped silently. A byte that does not fit the encoding is an error that names it or,
with errors="replace", becomes U+FFFD and is counted.
"""

import codecs
import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from chargen.data.code_points import END_MARK, count_line_ends
from chargen.data.normal_form import compose, normalize_blocks
from chargen.data.reading_config import RAW, ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.records import begin_marks, label_of_file, mark_records
from chargen.data.sources import Source
from chargen.data.tables import TABLES
from chargen.data.text_files import Blocks, TextFile, text_files
from chargen.errors import DataError, SettingError
from chargen.settings import check_text

DETECTED, MIN_WRONG, MIN_KINDS = 1 << 16, 5, 3
"""Bytes around one that does not fit of which the encoding is detected; how many of them must not be UTF-8, and of how
many kinds, to tell anything."""


def read_text(
    sources: Sequence[Source],
    config: ReadingConfig | None = None,
    *,
    report: ReadingReport | None = None,
    watch: Callable[[TextFile], Blocks] = lambda file: file.blocks,
    end_mark: str = END_MARK,
) -> Iterator[str]:
    """Read the text of all sources, one after the other; memory does not grow with the text.

    Each file's byte order mark is removed once, and `config.between` stands between two files; a record stands behind
    its begin mark.

    Args:
        sources: in order.
        config: how bytes become text.
        report: filled in while the text is read.
        watch: passes on the blocks of bytes of each text.
        end_mark: stands for the end symbol of records.

    Returns:
        Blocks of text, of any size.

    Raises:
        DataError: where bytes do not fit the encoding, naming file, line, offset and bytes; where a file cannot be
            read; and where a named source is no text.
    """
    config = config or ReadingConfig()
    report = report if report is not None else ReadingReport()
    text = _decode_files(sources, config, report, watch, end_mark)
    return normalize_blocks(text) if config.normalize == "NFC" else text


def clean(text: str, config: ReadingConfig | None) -> str:
    """Change line ends and normal form of a text in memory as training did when it read its files.

    Every function that takes a model and a text does this. A text that is to be fed in parts must be cleaned before it
    is cut: a cut between a letter and its accent, or between CR and LF, would separate them.

    Args:
        text: from anywhere.
        config: of the training text; None leaves a text as it is.

    Returns:
        The text; where training read raw bytes, its UTF-8 with a character for each byte.

    Raises:
        SettingError: where the text is no str, or the config no ReadingConfig.
        DataError: where raw bytes are needed and the text holds a lone surrogate, which has none.
    """
    check_text("text", text)
    if config is None:
        return text
    if not isinstance(config, ReadingConfig):
        raise SettingError(f"config is of type {type(config).__name__}: it must be a ReadingConfig, or None", "config")
    if config.has_lf:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if config.encoding == RAW:
        try:
            return text.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")
        except UnicodeEncodeError as error:
            raise DataError(f"a lone surrogate, position {error.start}, is no character") from error
    return compose(text) if config.normalize == "NFC" else text


def mark_text(text: str, config: ReadingConfig, report: ReadingReport | None = None) -> str:
    """Read the records of a text in memory as those of a file: each gets its mark, in place of what separates them.

    Args:
        text: a file's, not cleaned.
        config: of the training text, which has records.
        report: filled in; without it no record has a label.

    Raises:
        DataError: the text is no table where records are in one, or it holds a lone surrogate.
        SettingError: the text is no str.
    """
    check_text("text", text)
    report = report or ReadingReport.of_model(())
    report.files += 1
    texts = _convert_line_ends([text], config, report)
    marked = "".join(_mark_file(texts, TextFile("the text", "", iter(())), config, report))
    return compose(marked) if config.normalize == "NFC" else marked


def _decode_files(
    sources: Sequence[Source], config: ReadingConfig, report: ReadingReport, watch: Callable[[TextFile], Blocks],
    end_mark: str,
) -> Iterator[str]:  # fmt: skip
    """The text of all sources, before normalization."""
    last_character = ""
    for file, texts in file_texts(sources, config, report, watch):
        at_start = True
        if config.records is not None:
            yield from _mark_file(texts, file, config, report, end_mark)
            continue
        for text in texts:
            if at_start and last_character and (separator := _separator(last_character, config)):
                report.joined += 1
                yield separator
            at_start, last_character = False, text[-1]
            yield text


def file_texts(
    sources: Sequence[Source],
    config: ReadingConfig,
    report: ReadingReport,
    watch: Callable[[TextFile], Blocks] = lambda file: file.blocks,
) -> Iterator[tuple[TextFile, Iterator[str]]]:
    """Read the texts of all sources one by one, before normalization.

    Args:
        sources: in order.
        config: how bytes become text.
        report: filled in while the texts are read.
        watch: passes on the blocks of bytes of each text.

    Returns:
        Each text, and its blocks of characters, to be read before the next is requested.

    Raises:
        DataError: where bytes do not fit the encoding, or no source is a text.
    """
    for file in chain.from_iterable(text_files(source, config, report) for source in sources):
        report.files += 1
        own = replace(config, encoding="utf-8") if file.converted else config
        texts = _remove_mark(_decode(file.name, watch(file), own, report), own)
        yield file, _convert_line_ends(texts, config, report)
    report.check_files()


def _mark_file(
    texts: Iterable[str], file: TextFile, config: ReadingConfig, report: ReadingReport, end_mark: str = END_MARK
) -> Iterator[str]:
    """The records of a file, each behind its mark."""
    kind = config.records_of(file.path)
    report.tables += kind in TABLES
    return mark_records(
        texts, kind, file.name, begin_marks(report.labels, report.unknown_labels, end_mark),
        label=label_of_file(file.path, config.label_from), text_field=config.text_field, label_field=config.label_field,
    )  # fmt: skip


def _separator(last_character: str, config: ReadingConfig) -> str:
    """What stands between two files, the first of which ends with a character."""
    if config.between is None:
        return "" if last_character in "\r\n\u0085\u2028\u2029" else "\n"
    return clean(config.between, config)


def _convert_line_ends(texts: Iterable[str], config: ReadingConfig, report: ReadingReport) -> Iterator[str]:
    """A file's blocks without empty ones, with line ends as `config` says."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    for text in texts:
        report.carriage_returns += text.count("\r")
        if converted := newlines.decode(text) if config.has_lf else text:
            yield converted
    if config.has_lf and (rest := newlines.decode("", final=True)):
        yield rest


def _remove_mark(texts: Iterable[str], config: ReadingConfig) -> Iterator[str]:
    """Remove one byte order mark, unless the codec has already taken it."""
    by_codec = config.encoding == RAW or codecs.lookup(config.encoding).name in ("utf-16", "utf-32")
    at_start = True
    for text in texts:
        yield text.removeprefix("\ufeff") if at_start and not by_codec else text
        at_start = at_start and not text


def _decode(name: str, blocks: Iterable[bytes], config: ReadingConfig, report: ReadingReport) -> Iterator[str]:
    """The text of a file, block by block; raises DataError where bytes do not fit the encoding."""
    if config.encoding == RAW:
        for block in blocks:
            report.bytes += len(block)
            yield block.decode("ascii", "surrogateescape")
        return
    # The mark is removed later: the codec utf-8-sig does not count its bytes, and drops half a mark silently.
    with_mark = codecs.lookup(config.encoding).name == "utf-8-sig"
    new_decoder = codecs.getincrementaldecoder("utf-8" if with_mark else config.encoding)
    decoder = new_decoder(config.errors)
    ignoring_decoder = new_decoder("ignore")
    offset, line = 0, 1
    for block in chain(blocks, (b"",)):
        final = not block
        pending, mode = decoder.getstate()
        try:
            text = decoder.decode(block, final)
        except UnicodeError as error:
            if not isinstance(error, UnicodeDecodeError) or "BOM" in error.reason:  # until Python 3.12, and from 3.13
                raise DataError(
                    f"{name}: no byte order mark, which {config.encoding} needs; "
                    f'give `encoding="{config.encoding}-le"` or {config.encoding}-be'
                ) from error
            with contextlib.suppress(UnicodeError):  # a codec that waits for its byte order mark
                decoder.setstate((b"", mode))
                line += decoder.decode(error.object[: error.start]).count("\n")
            raise _bad_bytes(name, error, config.encoding, offset - len(pending), line) from error
        if config.errors == "replace":
            # "ignore" drops exactly what "replace" marks, so the lengths differ by the number of replacements.
            report.replaced += len(text) - len(ignoring_decoder.decode(block, final))
        offset += len(block)
        report.bytes += len(block)
        line += count_line_ends(text)
        yield text


def _bad_bytes(name: str, error: UnicodeDecodeError, encoding: str, start: int, line: int) -> DataError:
    """The error for bytes that do not fit the encoding."""
    wrong = error.object[error.start : error.start + 4]
    advice = _suggest_encoding(error)
    if start == 0 and codecs.lookup(encoding).name == "utf-8" and error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
        advice = '`encoding="utf-16"`'
    return DataError(
        f"{name}: line {line}, offset {start + error.start}: bytes {wrong.hex(' ')} "
        f'are not {encoding} ({error.reason}); give {advice} or `errors="replace"`; '
        '`unit="byte", encoding="raw"` learns any bytes'
    )


def _suggest_encoding(error: UnicodeDecodeError) -> str:
    """The encoding that the bytes around an error look like, as advice: it is never taken without being asked for."""
    import chardet

    first = max(0, error.start - DETECTED // 2)
    around, known = error.object[first : first + DETECTED], ""
    as_utf8 = around.decode("utf-8", "replace")
    wrong = as_utf8.count("\ufffd")
    kinds = len({byte for byte in around if byte > 0x7F})
    if wrong >= MIN_WRONG and kinds >= MIN_KINDS and 2 * wrong > sum(character > "\x7f" for character in as_utf8):
        with contextlib.suppress(LookupError, UnicodeError):
            detected = codecs.lookup(chardet.detect(around)["encoding"] or "")
            detected.incrementaldecoder().decode(around)
            known = detected.name
    if known in ("", "ascii", "utf-8", codecs.lookup(error.encoding).name):
        return "`encoding=NAME` (cp1252, latin-1, gb18030 …)"
    return f'`encoding="{known}"`, which it may be,'


def read_like(
    sources: Sequence[Source],
    config: ReadingConfig,
    encoding: str | None = None,
    errors: str = "strict",
    report: "ReadingReport | None" = None,
) -> str:
    """Read texts whole, the way a model's training text was read.

    Args:
        sources: what to read, in order.
        config: of the training text.
        encoding: of the texts; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".
        report: counts what reading meets.

    Returns:
        All texts, joined and cleaned.

    Raises:
        DataError: where a text cannot be read.
    """
    reading = replace(config, encoding=encoding or config.encoding, errors=errors)
    text = "".join(read_text(sources, reading, report=report))
    return text if config.records else clean(text, config)
