"""Files, folders, patterns, standard input and named corpora -> blocks of clean text.

Nothing is guessed and nothing is dropped silently: a byte that does not fit the encoding is an error that names it, or,
with errors="replace", becomes U+FFFD and is counted; what is no text is an error, or, in a folder or an archive, passed
over and told.
"""

import codecs
import contextlib
import functools
import glob
import io
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO

from chargen.data.file_kind import PEEK_SIZE, describe_non_text, detect_wide_encoding
from chargen.data.named_corpora import CATALOGUE
from chargen.data.unpack import File, peek, unpack_files
from chargen.errors import DataError, SettingError, amount
from chargen.settings import check_settings, check_text, setting
from chargen.suggestions import did_you_mean, similar_path

BLOCK_SIZE = 1 << 20
RAW = "raw"
"""The encoding that is none: each byte is a character, as Python's surrogateescape writes it (U+DC80 to U+DCFF where it
is not ASCII)."""
RUN_FILES = ("state.safetensors", "model.safetensors", "metrics.jsonl")
"""What a run leaves in its folder, the first of them always: no texts, though other files beside them may be."""


@dataclass(frozen=True)
class ReadingConfig:
    """How bytes become text."""

    encoding: str = setting(
        "utf-8",
        "encoding of the text files; raw, with bytes as the unit, takes any file as it is, .gz and the like unpacked",
    )
    errors: str = setting("strict", "a byte that does not fit the encoding stops, or becomes U+FFFD and is counted",
                          choices=("strict", "replace"))  # fmt: skip
    newline: str = setting("keep", "line ends: as they are, or every CR LF and CR becomes LF", choices=("keep", "lf"))
    normalize: str = setting("none", "Unicode normal form of the text", choices=("none", "NFC"))
    between: str | None = setting(None, "text between two files; by default a line end where a file lacks one")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.encoding == RAW:
            if self.normalize != "none":
                raise SettingError(f"normalize is {self.normalize}: raw bytes have no normal form", "normalize")
            return
        try:
            if codecs.lookup(self.encoding).name in ("idna", "punycode"):
                raise ValueError(self.encoding)
            "".encode(self.encoding)
        except (LookupError, ValueError) as error:
            raise SettingError(
                f"encoding is {self.encoding!r}: Python knows no such text encoding", "encoding"
            ) from error


@dataclass(frozen=True)
class Source:
    """One file to read, or standard input.

    Args:
        name: for messages.
        path: where it is; None for standard input.
        named: whether a person named it; a file that was found in a folder is passed over where it is no text.
    """

    name: str
    path: Path | None
    named: bool = True

    @property
    def is_stream(self) -> bool:
        """True where the bytes can be read only once: standard input, a pipe."""
        return self.path is None or not self.path.is_file()

    def open(self) -> IO[bytes]:
        """The bytes as they lie there."""
        if self.path is None:
            return sys.stdin.buffer
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise DataError(f"cannot read {self.name}: {error.strerror or error}") from error


@dataclass
class ReadingReport:
    """What reading met: filled in while the text is read.

    Args:
        joined: how often something was put between two files.
        passed_over: names of files that are no text, each with what it is.
    """

    files: int = 0
    bytes: int = 0
    replaced: int = 0
    carriage_returns: int = 0
    joined: int = 0
    passed_over: list[str] = field(default_factory=list)

    def check_files(self) -> None:
        """Raise DataError where all files were passed over."""
        if self.passed_over and not self.files:
            some = ", ".join(self.passed_over[:3]) + " …" * (len(self.passed_over) > 3)
            raise DataError(f"no text among {amount(len(self.passed_over), 'file')}: {some}")


def find_sources(names: Iterable[str | os.PathLike[str]]) -> tuple[list[Source], int]:
    """Expand files, folders (recursively, sorted), patterns, `-` and corpus names; an existing path wins over a name.

    Returns the sources in order, and how many hidden files, hidden folders, links to folders and files of runs were
    left out.
    Raises DataError where a name leads to nothing.
    """
    sources: list[Source] = []
    hidden = 0
    for name in (os.fspath(given) for given in names):
        path = Path(name)
        if not name:
            raise DataError("an empty name is no file; give a file, a folder, a pattern or a corpus")
        if name == "-":
            if any(source.path is None for source in sources):
                raise DataError("standard input can be read only once; name - once")
            sources.append(Source("standard input", None))
        elif os.path.isdir(name):
            found, skipped = _files_below(path)
            if not found:
                raise DataError(f"folder {name} holds no files ({skipped} hidden, linked or of a run)")
            sources += [Source(str(file), file, named=False) for file in found]
            hidden += skipped
        elif os.path.exists(name):
            sources.append(Source(name, path))
        elif name in CATALOGUE:
            sources += [Source(str(file), file) for file in CATALOGUE[name]()]
        else:
            matches = sorted(match for match in glob.glob(name, recursive=True) if os.path.isfile(match))
            if not matches:
                corpora = ", ".join(CATALOGUE)
                meant = similar_path(name) or did_you_mean(name, CATALOGUE)
                raise DataError(
                    f"no file, folder or pattern {name!r}, and no corpus of that name (corpora: {corpora}){meant}"
                )
            sources += [Source(match, Path(match)) for match in matches]
    return sources, hidden


def _files_below(folder: Path) -> tuple[list[Path], int]:
    found: list[Path] = []
    hidden = 0

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error

    for root, folders, files in os.walk(folder, onerror=refuse):
        if RUN_FILES[0] in files:
            hidden += sum(name in RUN_FILES for name in files)
            files = [name for name in files if name not in RUN_FILES]
        hidden += sum(name.startswith(".") for name in (*folders, *files))
        hidden += sum(not name.startswith(".") and os.path.islink(os.path.join(root, name)) for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(root, name) for name in files if not name.startswith(".")):
            if not file.exists():
                raise DataError(f"cannot read {file}: it is a link that leads nowhere")
            if file.is_file():
                found.append(file)
    return sorted(found, key=lambda path: path.as_posix()), hidden


def read_files(source: Source, raw: bool = False) -> Iterator[File]:
    """The files that a source holds, unpacked: itself, or the members of an archive. Raises DataError for damage.

    Args:
        raw: take archives as the bytes they are.
    """
    stream = source.open()
    try:
        yield from unpack_files(
            source.name, stream, source.path.suffix if source.path else "", BLOCK_SIZE, archives=not raw
        )
    finally:
        if source.path is not None:
            stream.close()


Blocks = Iterator[bytes]


def text_files(source: Source, config: ReadingConfig, report: ReadingReport) -> Iterator[tuple[str, Blocks]]:
    """The name and the bytes of each text that a source holds; what is no text goes to `report.passed_over`.

    Raises DataError, saying what it is, for a named source that is no text or holds none, and for UTF-16 and UTF-32
    that would be read as another encoding.
    """
    raw = config.encoding == RAW
    passed: list[str] = []
    texts = 0
    for file in read_files(source, raw):
        if raw:
            yield file.name, file.blocks
            continue
        what, advice, blocks = file.why_not, file.advice, file.blocks
        if not what:
            start, blocks = peek(file.blocks)
            start = start[:PEEK_SIZE]
            if wide := detect_wide_encoding(start, config.encoding):
                raise DataError(f"{file.name} is text in {wide}, not in {config.encoding}: give --encoding {wide}")
            what, advice = describe_non_text(start, config.encoding) or ("", "")
        if not what:
            texts += 1
            yield file.name, blocks
        elif source.named and not file.member:
            advice = advice or "give a text, or learn its bytes with --unit byte --encoding raw"
            raise DataError(f"{file.name} is {what}; {advice}")
        else:
            passed.append(f"{file.name} ({what.split(':')[0]})")
    if source.named and passed and not texts:
        raise DataError(f"{source.name} holds no text: {', '.join(passed[:3])}{' …' * (len(passed) > 3)}")
    report.passed_over += passed


def read_text(
    sources: Sequence[Source],
    config: ReadingConfig | None = None,
    *,
    report: ReadingReport | None = None,
    files: Callable[[Source], Iterable[tuple[str, Iterable[bytes]]]] | None = None,
) -> Iterator[str]:
    """The text of all sources, one after the other, in blocks of any size; memory does not grow with the text.

    Each file's byte order mark is removed once, and `config.between` stands between two files. `report` is filled in
    while reading; `files` says where a source's texts come from. Raises DataError naming file, line, offset and bytes
    where the encoding does not fit, and as `text_files`.
    """
    config = config or ReadingConfig()
    report = report if report is not None else ReadingReport()
    text = _decoded_files(sources, config, report, files or functools.partial(text_files, config=config, report=report))
    return normalize_blocks(text) if config.normalize == "NFC" else text


def clean(text: str, config: ReadingConfig | None) -> str:
    """A text in memory as training would have read it: with line ends and normal form as `config` says; None: as it is.

    Whatever takes a model and a text does this for each call. Where a text comes in pieces, clean it whole first: a cut
    between a letter and its accent, or between CR and LF, would part them. Where training read raw bytes, the text's
    UTF-8, with a character for each byte; raises DataError for what has none.
    """
    check_text("text", text)
    if config is None:
        return text
    if not isinstance(config, ReadingConfig):
        raise SettingError(f"config is of type {type(config).__name__}: it must be a ReadingConfig, or None", "config")
    if config.newline == "lf":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if config.encoding == RAW:
        try:
            return text.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")
        except UnicodeEncodeError as error:
            raise DataError(f"a lone surrogate, position {error.start}, is no character") from error
    return unicodedata.normalize("NFC", text) if config.normalize == "NFC" else text


def _decoded_files(
    sources: Sequence[Source],
    config: ReadingConfig,
    report: ReadingReport,
    files: Callable[[Source], Iterable[tuple[str, Iterable[bytes]]]],
) -> Iterator[str]:
    last = ""
    for name, blocks in chain.from_iterable(map(files, sources)):
        report.files += 1
        begun = False
        for text in _with_line_ends(_without_mark(_decoded(name, blocks, config, report), config), config, report):
            if not begun and last and (between := _between(last, config)):
                report.joined += 1
                yield between
            begun, last = True, text[-1]
            yield text
    report.check_files()


def _between(last: str, config: ReadingConfig) -> str:
    """What stands between two files, the first of which ends with the character `last`."""
    if config.between is None:
        return "" if last in "\r\n\u0085\u2028\u2029" else "\n"
    return clean(config.between, config)


def _with_line_ends(texts: Iterable[str], config: ReadingConfig, report: ReadingReport) -> Iterator[str]:
    """A file's blocks without empty ones, with line ends as `config` says."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    for text in texts:
        report.carriage_returns += text.count("\r")
        if whole := newlines.decode(text) if config.newline == "lf" else text:
            yield whole
    if config.newline == "lf" and (rest := newlines.decode("", final=True)):
        yield rest


def _without_mark(texts: Iterable[str], config: ReadingConfig) -> Iterator[str]:
    """Remove one byte order mark, unless the codec has already taken it."""
    taken = config.encoding == RAW or codecs.lookup(config.encoding).name in ("utf-16", "utf-32")
    start = True
    for text in texts:
        yield text.removeprefix("\ufeff") if start and not taken else text
        start = start and not text


def _decoded(name: str, blocks: Iterable[bytes], config: ReadingConfig, report: ReadingReport) -> Iterator[str]:
    if config.encoding == RAW:
        for block in blocks:
            report.bytes += len(block)
            yield block.decode("ascii", "surrogateescape")
        return
    # The mark is removed by us: the codec loses count of its bytes, and drops half a mark silently.
    marked = codecs.lookup(config.encoding).name == "utf-8-sig"
    new_decoder = codecs.getincrementaldecoder("utf-8" if marked else config.encoding)
    decoder = new_decoder(config.errors)
    without = new_decoder("ignore")
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
                    f"give --encoding {config.encoding}-le or {config.encoding}-be"
                ) from error
            with contextlib.suppress(UnicodeError):  # a codec that waits for its byte order mark
                decoder.setstate((b"", mode))
                line += decoder.decode(error.object[: error.start]).count("\n")
            raise _bad_bytes(name, error, config.encoding, offset - len(pending), line) from error
        if config.errors == "replace":
            # "ignore" drops exactly what "replace" marks, so the lengths differ by the number of replacements.
            report.replaced += len(text) - len(without.decode(block, final))
        offset += len(block)
        report.bytes += len(block)
        line += text.count("\n")
        yield text


def _bad_bytes(name: str, error: UnicodeDecodeError, encoding: str, start: int, line: int) -> DataError:
    wrong = error.object[error.start : error.start + 4]
    advice = "--encoding NAME (cp1252, latin-1, gb18030 …)"
    if start == 0 and codecs.lookup(encoding).name == "utf-8" and error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
        advice = "--encoding utf-16"
    return DataError(
        f"{name}: line {line}, offset {start + error.start}: bytes {wrong.hex(' ')} "
        f"are not {encoding} ({error.reason}); give {advice} or --errors replace; "
        "--unit byte --encoding raw learns any bytes"
    )


def normalize_blocks(blocks: Iterable[str]) -> Iterator[str]:
    """The NFC form of the whole text, block by block: each cut lies where no composition can cross it."""
    held = ""
    for block in blocks:
        held += block
        cut = next((at for at in range(len(held) - 1, 0, -1) if _starts_afresh(held[at])), 0)
        if cut:
            yield unicodedata.normalize("NFC", held[:cut])
            held = held[cut:]
    yield unicodedata.normalize("NFC", held)


def _starts_afresh(character: str) -> bool:
    """True where `character` neither joins nor reorders with what stands before it, under NFC."""
    return character < "\u0300" or (not unicodedata.combining(character) and character not in _seconds())


@functools.cache
def _seconds() -> frozenset[str]:
    """Characters that can be the second part of a composition: from the decompositions, and the Hangul jamo."""
    found = set(map(chr, (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))))
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(chr(int(parts[1], 16)))
            if unicodedata.combining(chr(int(parts[0], 16))):  # U+0F73, U+0F75, U+0F81: two marks in one
                found.add(chr(code))
    return frozenset(found)
