"""Packed files and archives -> the bytes of the files in them.

An archive may be hostile. Only the contents of its regular members are read. Their names sort them and stand in
messages; nothing is ever written where a name, a link or a device points. A file that unpacks to more than any text
does is refused.
"""

import bz2
import functools
import gzip
import io
import itertools
import lzma
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar, cast

from chargen.data.file_kind import PEEK_SIZE, classify_zip, detect_packing, is_tar, is_zip
from chargen.durable import describe_os_error
from chargen.errors import ChargenError, DataError, amount, quote_backticks

ALLOWED_SIZE, ALLOWED_RATIO = 1 << 26, 1000
"""A file may unpack to 64 MiB, or to a thousand times its own size; well packed logs reach some hundred times."""
MAX_MEMBERS = 200_000
"""Members of an archive."""
MAX_HEADER_SIZE = 1 << 20
"""Bytes of a header of a tar archive, which may hold a long name."""
PACKING_BY_SUFFIX = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", *(f".tar{packing}" for packing in PACKING_BY_SUFFIX))
"""How names of archives end."""
_OPENERS: dict[str, Callable[[Any], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
_DAMAGE_ERRORS = (
    OSError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, tarfile.TarError, NotImplementedError,
    struct.error, ValueError, OverflowError, LookupError, RuntimeError,
)  # fmt: skip

_T = TypeVar("_T")


@dataclass
class File:
    """A file of a source: the source itself, or a member of an archive.

    Args:
        name: for messages.
        blocks: its bytes, to be read before the next file is requested.
        member: its name in an archive; empty for the source itself.
        problem: what it is instead of a readable file, such as "a link"; "" for a readable one.
        advice: what to do about the problem.
    """

    name: str
    blocks: Iterator[bytes]
    member: str = ""
    problem: str = ""
    advice: str = ""


def unpack_files(
    name: str, stream: IO[bytes], suffix: str, block_size: int, archives: bool = True, max_bytes: int | None = None
) -> Iterator[File]:
    """Unpack the files in a stream of bytes: the stream itself, or the members of an archive, sorted by name.

    Args:
        name: for messages.
        stream: closed by the caller.
        suffix: of its name; after .gz, .bz2, .xz and .zst the content must be packed so.
        block_size: bytes to read at a time.
        archives: whether packed files and archives are recognised by content; else by those suffixes alone.
        max_bytes: what a packed file, or all members of an archive, may unpack to; None for `ALLOWED_SIZE` or
            `ALLOWED_RATIO` times its size.

    Raises:
        DataError: naming the file, where it is damaged or unpacks to more than it may.
    """
    return name_errors(name, _unpack_files(name, stream, suffix, block_size, archives, max_bytes))


def _unpack_files(
    name: str, stream: IO[bytes], suffix: str, block_size: int, archives: bool, max_bytes: int | None
) -> Iterator[File]:
    start, blocks = peek(read_blocks(stream, block_size))
    claimed, detected = PACKING_BY_SUFFIX.get(suffix, ""), detect_packing(start)
    if archives and start and claimed not in ("", detected):
        actual = f"packed with {detected}, not" if detected else "not packed"
        raise DataError(f"cannot read {name}: it is {actual} with {claimed}, as its name says; give it another name")
    packing = claimed or detected
    if not archives and claimed != detected:  # a file is unpacked only where both agree
        packing = ""
    if packing:
        packed = _Replayed(start, stream)
        content = _read_zstd(packed, name) if packing == "zstd" else read_blocks(_OPENERS[packing](packed), block_size)
        start, blocks = peek(_SizeLimit(name, lambda: packed.count, max_bytes).check(content))
    if not archives or not (is_tar(start) or is_zip(start)):
        yield File(name, name_errors(name, blocks))
        return
    with tempfile.TemporaryFile() as copy:
        seekable = not packing and stream.seekable()
        if not seekable:
            _write_copy(copy, blocks, name)
        archive: IO[bytes] = stream if seekable else copy
        size = archive.seek(0, io.SEEK_END)
        archive.seek(0)
        tar = is_tar(start)
        # Of members of the same name the last one counts, as in programs that write them to a disk.
        members = _tar_members(archive, size, block_size) if tar else _zip_members(archive, block_size)
        by_name = {member: (read_content, problem) for member, read_content, problem in members}
        if not tar and (kind := classify_zip(list(by_name))):
            yield File(name, iter(()), "", *kind)
            return
        limit = _SizeLimit(name, lambda: size, max_bytes)
        for member, (read_content, problem) in sorted(by_name.items()):
            label = f"{name}: {quote_backticks(member)}"
            yield File(label, name_errors(label, limit.check(read_content())), member, problem or _hidden(member))


def _write_copy(copy: IO[bytes], blocks: Iterable[bytes], name: str) -> None:
    """Write an archive to where its members can be read; raises ChargenError where the disk refuses."""
    for block in blocks:
        try:
            copy.write(block)
            copy.flush()
        except OSError as error:
            folder = tempfile.gettempdir()
            reason = describe_os_error(error, Path(folder))
            raise ChargenError(
                f"cannot unpack {name} in {folder}: {reason}; set TMPDIR to a folder with room"
            ) from error


def _hidden(member: str) -> str:
    """The problem of a member whose name, or folder, is hidden as it would be in a folder."""
    hidden = any((part[:1] == "." and part != "..") or part == "__MACOSX" for part in PurePosixPath(member).parts)
    return "hidden" if hidden else ""


Member = tuple[str, Callable[[], Iterator[bytes]], str]
"""Its name, what reads its content, and the problem that prevents that."""


def _tar_members(archive: IO[bytes], size: int, block_size: int) -> Iterator[Member]:
    """The members of a tar archive but its directories, in the order of the archive."""
    with tarfile.open(fileobj=cast(Any, _TarReader(archive)), mode="r:") as headers:
        for count in itertools.count():
            if (member := headers.next()) is None:
                break
            _check_number(count)
            if member.isdir():
                continue
            regular = member.isreg() and not member.issparse()
            read_content = functools.partial(_read_range, archive, member.offset_data, member.size, block_size)
            yield member.name, read_content, "" if regular else "a link or a device"
        archive.seek(headers.offset)
        if archive.read(512).strip(b"\0"):
            raise OSError("a header of the archive is damaged")


def _read_range(archive: IO[bytes], offset: int, length: int, block_size: int) -> Iterator[bytes]:
    while length > 0:
        archive.seek(offset)
        content = archive.read(min(block_size, length))
        if not content:
            raise EOFError("the archive ends within it")
        offset, length = offset + len(content), length - len(content)
        yield content


def _zip_members(archive: IO[bytes], block_size: int) -> Iterator[Member]:
    """The members of a zip archive but its directories, in the order of the archive."""
    directory = zipfile.ZipFile(cast(Any, _ZipReader(archive)))
    for info in directory.infolist():
        if info.is_dir():
            continue
        problem = "under a password" if info.flag_bits & 1 else ""
        if stat.S_ISLNK(info.external_attr >> 16):
            problem = "a link"

        def read_content(info: zipfile.ZipInfo = info) -> Iterator[bytes]:
            with directory.open(info) as stream:
                yield from read_blocks(stream, block_size)

        yield info.filename, read_content, problem


def _check_number(members: int) -> None:
    if members > MAX_MEMBERS:
        raise OSError(f"it holds more than {MAX_MEMBERS:,} members; unpack it first")


class _ZipReader:
    """The archive as `zipfile` reads it; refuses a directory, which is read at once, of too many members."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(size)
        _check_number(content.count(b"PK\1\2"))  # the entry of each member begins so
        return content


class _TarReader:
    """The archive as `tarfile` reads it, header by header; refuses large headers."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER_SIZE:
            raise tarfile.ReadError(f"a header of {amount(size, 'byte')}")
        return self.stream.read(size)


class _Replayed(io.RawIOBase):
    """A stream read from its start again, although its first bytes were read; counts the bytes read again.

    Args:
        start: the bytes that were read.
        stream: continues after them.
    """

    def __init__(self, start: bytes, stream: IO[bytes]) -> None:
        self.start = start
        self.stream = stream
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.start[self.count : self.count + len(buffer)] or self.stream.read(len(buffer))
        buffer[: len(content)] = content
        self.count += len(content)
        return len(content)


class _SizeLimit:
    """Limits the size that a packed file, or all members of an archive together, may unpack to.

    Args:
        name: for messages.
        packed_size: returns how many packed bytes were read so far.
        max_bytes: the limit; None for one that grows with the packed size.
    """

    def __init__(self, name: str, packed_size: Callable[[], int], max_bytes: int | None) -> None:
        self.name = name
        self.packed_size = packed_size
        self.max_bytes = max_bytes
        self.total = 0

    def check(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """The blocks; raises DataError where they exceed the limit."""
        for block in blocks:
            self.total += len(block)
            if self.max_bytes is not None and self.total > self.max_bytes:
                raise DataError(f"{self.name} unpacks to more than `max_bytes={self.max_bytes}`; is that a text?")
            allowed = max(ALLOWED_SIZE, ALLOWED_RATIO * self.packed_size())
            if self.max_bytes is None and self.total > allowed:
                raise DataError(
                    f"{self.name} unpacks to more than {ALLOWED_RATIO:,} times its size, which no text does: "
                    "unpack it yourself, and look, or allow more with `max_bytes=N`"
                )
            yield block


def name_errors(name: str, items: Iterator[_T]) -> Iterator[_T]:
    """Pass items on; errors of reading them become a DataError with the file's name.

    Args:
        name: of the file.
        items: such as its blocks.

    Raises:
        DataError: where the next item cannot be read.
    """
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except EOFError as error:
            raise DataError(
                f"cannot read {name}: it is cut off ({error}); take a fresh copy, or leave it out"
            ) from error
        except _DAMAGE_ERRORS as error:
            raise DataError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from error
        yield item


def peek(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Read the first bytes without consuming them.

    Args:
        blocks: of a file.

    Returns:
        At least `PEEK_SIZE` bytes, or all where there are fewer; and all blocks, the first ones included.
    """
    first_blocks: list[bytes] = []
    size = 0
    while size < PEEK_SIZE and (block := next(blocks, b"")):
        first_blocks.append(block)
        size += len(block)
    return b"".join(first_blocks), itertools.chain(first_blocks, blocks)


def read_blocks(stream: Any, size: int) -> Iterator[bytes]:
    """Read a stream of bytes to its end.

    Args:
        stream: closed by the caller.
        size: bytes of a block, at most.
    """
    while block := stream.read(size):
        yield block


def _read_zstd(stream: Any, name: str) -> Iterator[bytes]:
    """The bytes of zstd frames, read by the kilobyte: that alone limits what is unpacked at once (to 32 MB)."""
    try:
        import zstandard
    except ImportError as error:
        raise DataError(f"{name} is packed with zstd, which one more package reads: pip install zstandard") from error
    try:
        frame, packed = zstandard.ZstdDecompressor().decompressobj(), b""
        begun = False
        while packed or (packed := stream.read(1024)):
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            if content := frame.decompress(packed):
                yield content
            packed, begun = frame.unused_data, True
        if begun and not frame.eof:
            raise EOFError("it ends within a frame")
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error
