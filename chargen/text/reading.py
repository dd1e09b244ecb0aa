"""Files, folders, patterns, standard input and named corpora -> blocks of clean text.

Nothing is guessed and nothing is dropped silently: a byte that does not fit the encoding is an error that
names it, or, with errors="replace", becomes U+FFFD and is counted.
"""

import bz2
import codecs
import contextlib
import functools
import glob
import gzip
import io
import lzma
import os
import sys
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from chargen.errors import DataError, SettingError
from chargen.settings import check_settings, setting
from chargen.text.catalogue import CATALOGUE

BLOCK = 1 << 20
_RUN_FILE = "state.safetensors"
_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@dataclass(frozen=True)
class ReadingConfig:
    """How bytes become text."""

    encoding: str = setting("utf-8", "encoding of the text files")
    errors: str = setting("strict", "a byte that does not fit the encoding stops, or becomes U+FFFD and is counted",
                          choices=("strict", "replace"))  # fmt: skip
    newline: str = setting("keep", "line ends: as they are, or every CR LF and CR becomes LF", choices=("keep", "lf"))
    normalize: str = setting("none", "Unicode normal form of the text", choices=("none", "NFC"))

    def __post_init__(self) -> None:
        check_settings(self)
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
    """One file to read, or standard input: a name for messages, and the path (None for standard input)."""

    name: str
    path: Path | None

    @property
    def once(self) -> bool:
        """True where the bytes can be read only once: standard input, a pipe."""
        return self.path is None or not self.path.is_file()

    def open(self) -> IO[bytes]:
        """The bytes, decompressed where the name ends in .gz, .bz2 or .xz."""
        if self.path is None:
            return sys.stdin.buffer
        try:
            stream: IO[bytes] = _OPENERS.get(self.path.suffix, open)(self.path, "rb")  # type: ignore[operator]
        except OSError as error:
            raise DataError(f"cannot read {self.name}: {error.strerror or error}") from error
        return stream


@dataclass
class ReadingReport:
    """What reading met: filled in while the text is read."""

    files: int = 0
    bytes: int = 0
    replaced: int = 0
    carriage_returns: int = 0


def find_sources(names: Iterable[str | os.PathLike[str]]) -> tuple[list[Source], int]:
    """Expand files, folders (recursively, sorted), patterns, `-` and corpus names; an existing path wins over a name.

    Returns the sources in order, and how many hidden files, hidden folders, links to folders and
    run folders were left out.
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
                raise DataError(f"folder {name} holds no files ({skipped} hidden ones are not read)")
            sources += [Source(str(file), file) for file in found]
            hidden += skipped
        elif os.path.exists(name):
            sources.append(Source(name, path))
        elif name in CATALOGUE:
            sources += [Source(str(file), file) for file in CATALOGUE[name]()]
        else:
            matches = sorted(match for match in glob.glob(name, recursive=True) if os.path.isfile(match))
            if not matches:
                corpora = ", ".join(CATALOGUE)
                raise DataError(f"no file, folder or pattern {name!r}, and no corpus of that name (corpora: {corpora})")
            sources += [Source(match, Path(match)) for match in matches]
    return sources, hidden


def _files_below(folder: Path) -> tuple[list[Path], int]:
    found: list[Path] = []
    hidden = 0

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error

    for root, folders, files in os.walk(folder, onerror=refuse):
        if _RUN_FILE in files:  # a run's own folder is not its text
            hidden += 1
            folders.clear()
            continue
        hidden += sum(name.startswith(".") for name in (*folders, *files))
        hidden += sum(not name.startswith(".") and os.path.islink(os.path.join(root, name)) for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(root, name) for name in files if not name.startswith(".")):
            if not file.exists():
                raise DataError(f"cannot read {file}: it is a link that leads nowhere")
            if file.is_file():
                found.append(file)
    return sorted(found, key=lambda path: path.as_posix()), hidden


def read_bytes(source: Source) -> Iterator[bytes]:
    """The decompressed bytes of a source, in blocks. Raises DataError naming the file where it is damaged."""
    stream = source.open()
    try:
        while block := stream.read(BLOCK):
            yield block
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"cannot read {source.name}: {error}") from error
    finally:
        if source.path is not None:
            stream.close()


def read_text(
    sources: Sequence[Source],
    config: ReadingConfig | None = None,
    *,
    report: ReadingReport | None = None,
    blocks: Callable[[Source], Iterable[bytes]] = read_bytes,
) -> Iterator[str]:
    """The text of all sources, one after the other, in blocks of any size; memory does not grow with the text.

    Each file's byte order mark is removed once. `report` is filled in while reading; `blocks` says where a source's
    bytes come from. Raises DataError naming file, line, offset and bytes where the encoding does not fit.
    """
    config = config or ReadingConfig()
    report = report if report is not None else ReadingReport()
    text = _decoded_files(sources, config, report, blocks)
    return normalized(text) if config.normalize == "NFC" else text


def clean(text: str, config: ReadingConfig | None) -> str:
    """A text in memory as training would have read it: with line ends and normal form as `config` says; None: as it is.

    Whatever takes a model and a text does this for each call. Where a text comes in pieces, clean it whole first: a cut
    between a letter and its accent, or between CR and LF, would part them.
    """
    if config is None:
        return text
    if config.newline == "lf":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text) if config.normalize == "NFC" else text


def _decoded_files(
    sources: Sequence[Source],
    config: ReadingConfig,
    report: ReadingReport,
    blocks: Callable[[Source], Iterable[bytes]],
) -> Iterator[str]:
    for source in sources:
        report.files += 1
        newlines = io.IncrementalNewlineDecoder(None, translate=True)
        start = True
        for text in _decoded(source, blocks(source), config, report):
            if start and text:
                text, start = _without_mark(text, config.encoding), False
            report.carriage_returns += text.count("\r")
            yield newlines.decode(text) if config.newline == "lf" else text
        if config.newline == "lf":
            yield newlines.decode("", final=True)


def _without_mark(text: str, encoding: str) -> str:
    """Remove one byte order mark, unless the codec has already taken it."""
    taken = codecs.lookup(encoding).name in ("utf-16", "utf-32")
    return text if taken else text.removeprefix("\ufeff")


def _decoded(source: Source, blocks: Iterable[bytes], config: ReadingConfig, report: ReadingReport) -> Iterator[str]:
    # The mark is removed by us: the codec loses count of its bytes, and drops half a mark silently.
    marked = codecs.lookup(config.encoding).name == "utf-8-sig"
    new_decoder = codecs.getincrementaldecoder("utf-8" if marked else config.encoding)
    decoder = new_decoder(config.errors)
    without = new_decoder("ignore")
    offset, line = 0, 1
    for block in _then(blocks, b""):
        final = not block
        pending, mode = decoder.getstate()
        try:
            text = decoder.decode(block, final)
        except UnicodeError as error:
            if not isinstance(error, UnicodeDecodeError) or "BOM" in error.reason:  # until Python 3.12, and from 3.13
                raise DataError(
                    f"{source.name}: no byte order mark, which {config.encoding} needs; "
                    f"give --encoding {config.encoding}-le or {config.encoding}-be"
                ) from error
            with contextlib.suppress(UnicodeError):  # a codec that waits for its byte order mark
                decoder.setstate((b"", mode))
                line += decoder.decode(error.object[: error.start]).count("\n")
            raise _bad_bytes(source, error, config.encoding, offset - len(pending), line) from error
        if config.errors == "replace":
            # "ignore" drops exactly what "replace" marks, so the lengths differ by the number of replacements.
            report.replaced += len(text) - len(without.decode(block, final))
        offset += len(block)
        report.bytes += len(block)
        line += text.count("\n")
        yield text


def _then(blocks: Iterable[bytes], last: bytes) -> Iterator[bytes]:
    yield from blocks
    yield last


def _bad_bytes(source: Source, error: UnicodeDecodeError, encoding: str, start: int, line: int) -> DataError:
    wrong = error.object[error.start : error.start + 4]
    advice = "--encoding NAME (cp1252, latin-1, gb18030 …)"
    if start == 0 and codecs.lookup(encoding).name == "utf-8" and error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
        advice = "--encoding utf-16"
    return DataError(
        f"{source.name}: line {line}, offset {start + error.start}: bytes {wrong.hex(' ')} "
        f"are not {encoding} ({error.reason}); give {advice} or --errors replace"
    )


def normalized(blocks: Iterable[str]) -> Iterator[str]:
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
