"""Packed files and archives -> the bytes of the files in them.

An archive may come from anybody. Only the contents of its regular members are read: their names sort them and stand in
messages, and nothing is ever written where a name, a link or a device points. What unpacks to more than any text does
is refused.
"""

import bz2
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
from pathlib import PurePosixPath
from typing import IO, Any, TypeVar, cast

from chargen.data.file_kind import PEEK_SIZE, classify_zip, detect_packing, is_tar, is_zip
from chargen.errors import DataError, amount

ALLOWED_SIZE, ALLOWED_RATIO = 1 << 26, 1000
"""A file may unpack to 64 MiB, or to a thousand times its own size; logs packed well reach some hundred times."""
MAX_MEMBERS = 200_000
MAX_HEADER_SIZE = 1 << 20
"""Bytes of one header of a tar archive: a long name."""
_CLAIMS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
_OPENERS: dict[str, Callable[[Any], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
_DAMAGE = (
    OSError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, tarfile.TarError, NotImplementedError,
    struct.error, ValueError, OverflowError, LookupError, RuntimeError,
)  # fmt: skip

_T = TypeVar("_T")


@dataclass
class File:
    """A file that a source holds: the source itself, or a member of an archive.

    Args:
        name: for messages.
        blocks: its bytes, to be read before the next file is asked for.
        member: whether it lies in an archive.
        why_not: what it is instead of a text, or why it is not read.
        advice: what to do then.
    """

    name: str
    blocks: Iterator[bytes]
    member: bool = False
    why_not: str = ""
    advice: str = ""


def unpack_files(name: str, stream: IO[bytes], suffix: str, block: int, archives: bool = True) -> Iterator[File]:
    """The files in a stream of bytes: one, unpacked where it is packed; or those of an archive, sorted by name.

    Args:
        name: for messages.
        stream: closed by the caller.
        suffix: of its name; .gz, .bz2, .xz and .zst must be what they say.
        block: bytes to read at a time.
        archives: whether packed files and archives are recognised by content; else by those suffixes alone.

    Raises DataError naming the file where it is damaged or unpacks to more than it may.
    """
    return _naming(name, _files_in(name, stream, suffix, block, archives))


def _files_in(name: str, stream: IO[bytes], suffix: str, block: int, archives: bool) -> Iterator[File]:
    start, _ = peek(_blocks(stream, min(block, PEEK_SIZE)))
    claimed, found = _CLAIMS.get(suffix, ""), detect_packing(start)
    if archives and start and claimed not in ("", found):
        what = f"packed with {found}, not" if found else "not packed"
        raise DataError(f"cannot read {name}: it is {what} with {claimed}, as its name says; give it another name")
    packed = claimed or found
    if not archives and claimed != found:  # only what is named and made so
        packed = ""
    if packed:
        again = _Replayed(start, stream)
        unpacked = _zstd(again, name) if packed == "zstd" else _blocks(_OPENERS[packed](again), block)
        start, blocks = peek(_Total(name, lambda: again.count).of(unpacked))
    else:
        first = (start[at : at + block] for at in range(0, len(start), block))
        blocks = itertools.chain(first, _blocks(stream, block))
    if not archives or not (is_tar(start) or is_zip(start)):
        yield File(name, _naming(name, blocks))
        return
    with tempfile.TemporaryFile() as held:
        seekable = not packed and stream.seekable()
        if not seekable:
            for one in blocks:
                held.write(one)
        whole: IO[bytes] = stream if seekable else held
        size = whole.seek(0, io.SEEK_END)
        whole.seek(0)
        tar = is_tar(start)
        # Of members of one name the last one counts, as where they are unpacked.
        members = _tar_members(whole, size, block) if tar else _zip_members(whole, block)
        last = {member: (contents, why_not) for member, contents, why_not in members}
        if not tar and (kind := classify_zip(list(last))):
            yield File(name, iter(()), False, *kind)
            return
        read = _Total(name, lambda: size)
        for member, (contents, why_not) in sorted(last.items()):
            full = f"{name}: {member}"
            yield File(full, _naming(full, read.of(contents())), True, why_not or _hidden(member))


def _hidden(member: str) -> str:
    """Why a member is not read whose name, or folder, says that it is no text of its own; as in folders."""
    hidden = any((part[:1] == "." and part != "..") or part == "__MACOSX" for part in PurePosixPath(member).parts)
    return "hidden" if hidden else ""


Member = tuple[str, Callable[[], Iterator[bytes]], str]


def _tar_members(whole: IO[bytes], size: int, block: int) -> Iterator[Member]:
    """The members of a tar archive, whatever their order. Directories are none."""
    with tarfile.open(fileobj=cast(Any, _Headers(whole)), mode="r:") as archive:
        for count in itertools.count():
            if (member := archive.next()) is None:
                break
            _check_number(count)
            if member.isdir():
                continue
            regular = member.isreg() and not member.issparse()

            def contents(at: int = member.offset_data, length: int = member.size) -> Iterator[bytes]:
                return _stretch(whole, at, length, block)

            yield member.name, contents, "" if regular else "a link or a device"
        whole.seek(archive.offset)
        if whole.read(512).strip(b"\0"):
            raise OSError("a header of the archive is damaged")


def _stretch(whole: IO[bytes], at: int, length: int, block: int) -> Iterator[bytes]:
    while length > 0:
        whole.seek(at)
        content = whole.read(min(block, length))
        if not content:
            raise EOFError("the archive ends within it")
        at, length = at + len(content), length - len(content)
        yield content


def _zip_members(whole: IO[bytes], block: int) -> Iterator[Member]:
    """The members of a zip archive, whatever their order. Directories are none."""
    archive = zipfile.ZipFile(cast(Any, _Directory(whole)))
    for info in archive.infolist():
        if info.is_dir():
            continue
        why_not = "under a password" if info.flag_bits & 1 else ""
        if stat.S_ISLNK(info.external_attr >> 16):
            why_not = "a link"

        def contents(info: zipfile.ZipInfo = info) -> Iterator[bytes]:
            with archive.open(info) as stream:
                yield from _blocks(stream, block)

        yield info.filename, contents, why_not


def _check_number(members: int) -> None:
    if members > MAX_MEMBERS:
        raise OSError(f"it holds more than {MAX_MEMBERS:,} members; unpack it first")


class _Directory:
    """What `zipfile` reads an archive through: the whole directory at once, then each member for long."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(size)
        _check_number(content.count(b"PK\1\2"))  # with which each member's entry begins
        return content


class _Headers:
    """What `tarfile` may read of an archive: headers, none of which is large."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER_SIZE:
            raise tarfile.ReadError(f"a header of {amount(size, 'byte')}")
        return self.stream.read(size)


class _Replayed(io.RawIOBase):
    """A stream whose first bytes were read already; counts what is read of it.

    Args:
        start: those bytes.
        stream: the rest.
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


class _Total:
    """Counts what a packed file, or all members of an archive, unpack to.

    Args:
        name: for messages.
        packed: how many bytes they took so far.
    """

    def __init__(self, name: str, packed: Callable[[], int]) -> None:
        self.name = name
        self.packed = packed
        self.total = 0

    def of(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """The same blocks, as long as they stay within what is allowed."""
        for block in blocks:
            self.total += len(block)
            if self.total > ALLOWED_SIZE and self.total > ALLOWED_RATIO * self.packed():
                raise DataError(
                    f"{self.name} unpacks to more than {ALLOWED_RATIO:,} times its size, which no text does: "
                    "unpack it yourself, and look"
                )
            yield block


def _naming(name: str, parts: Iterator[_T]) -> Iterator[_T]:
    """The same parts; damage is told with the file's name."""
    while True:
        try:
            part = next(parts)
        except StopIteration:
            return
        except EOFError as error:
            raise DataError(f"cannot read {name}: it is cut off ({error}); take a fresh copy") from error
        except _DAMAGE as error:
            raise DataError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from error
        yield part


def peek(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, `LOOK` of them or some more or all there are; and all blocks."""
    read: list[bytes] = []
    size = 0
    while size < PEEK_SIZE and (block := next(blocks, b"")):
        read.append(block)
        size += len(block)
    return b"".join(read), itertools.chain(read, blocks)


def _blocks(stream: Any, size: int) -> Iterator[bytes]:
    while block := stream.read(size):
        yield block


def _zstd(stream: Any, name: str) -> Iterator[bytes]:
    """The bytes of zstd frames. A kilobyte at a time, since nothing else bounds what it unpacks to (32 MB)."""
    try:
        import zstandard
    except ImportError as error:
        raise DataError(f"{name} is packed with zstd, which one more package reads: pip install zstandard") from error
    try:
        frame, left = zstandard.ZstdDecompressor().decompressobj(), b""
        begun = False
        while left or (left := stream.read(1024)):
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            if content := frame.decompress(left):
                yield content
            left, begun = frame.unused_data, True
        if begun and not frame.eof:
            raise EOFError("it ends within a frame")
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error
