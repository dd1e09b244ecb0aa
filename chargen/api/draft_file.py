"""The file of a draft, kept byte for byte where nobody changes it, and the small file beside it."""

import codecs
import hashlib
import itertools
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from chargen.durable import lock_file, remove_leftovers, write_durably
from chargen.errors import ChargenError, DataError, SettingError, format_size, repr_short, truncate
from chargen.rng import MAX_SEED
from chargen.settings import check_path

MAX_DRAFT = 20_000_000
"""Bytes of a draft."""
MAX_BOOKMARK = 10_000
"""Bytes of the small file beside it."""
SUFFIX = ".chargen.json"
"""Behind the draft's name it is that of the small file."""
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks and what they say, the longer ones first."""
_Stamp = tuple[int, int, int] | None
"""Inode, size and time of a file; None where there is none."""


@dataclass(frozen=True)
class Bookmark:
    """What a draft goes on with tomorrow.

    Args:
        seed: of all pieces.
        pieces: how many there have been.
        temperature: of the next one.
        label: of the record that is written.
        model: the SHA-256 of the model file.
        cursor: where the person writes.
    """

    seed: int
    pieces: int = 0
    temperature: float = 1.0
    label: str | None = None
    model: str = ""
    cursor: int = 0


class DraftFile:
    """A file that holds a text: its encoding, byte order mark and line ends stay what they are.

    Args:
        path: the file, which need not exist; its folder must.
        encoding: of the text; None: what its byte order mark says, or UTF-8.

    Raises:
        DataError: there is something else than a file, it is too large, or could not be written as it is.
        SettingError: there is no such encoding.
    """

    def __init__(self, path: str | os.PathLike[str], encoding: str | None = None) -> None:
        self.path = check_path("path", path)
        _check_encoding(encoding)
        _check_place(self.path)
        data = _read(self.path, MAX_DRAFT)
        self._stamp = _stamp(self.path)
        mark = b"", encoding or "utf-8"
        if encoding is None or codecs.lookup(encoding).name.startswith(("utf-8", "utf-16", "utf-32")):
            mark = next((mark for mark in _MARKS if data.startswith(mark[0])), mark)
        self._mark, self.encoding = mark
        if not self._mark and codecs.lookup(self.encoding).name == "utf-8-sig":
            self.encoding = "utf-8"
        self.line_end = "\n"
        """Of the file: LF or CR LF; "\\n" stands for it in the text. Where both occur, each CR is a character."""
        self.text = self._decode(data)
        if "\r\n" in self.text and not re.search("(?<!\r)\n|\r(?!\n)", self.text):
            self.line_end = "\r\n"
            self.text = self.text.replace("\r\n", "\n")
        if self._encode(self.text) != data:
            raise DataError(f"{self.path}: {self.encoding} would not give the same bytes again; save it as UTF-8 first")
        self._saved = data if self._stamp else None
        self.bookmark = self._read_bookmark()

    @property
    def beside(self) -> Path:
        """The small file."""
        return self.path.with_name(self.path.name + SUFFIX)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the file, so that no other chargen opens it.

        Raises:
            ChargenError: another one holds it, or its folder cannot be written to.
        """
        with lock_file(self.path):
            if _stamp(self.path) != self._stamp:
                raise ChargenError(f"{self.path} has changed since it was read: open it again")
            for name in (self.path.name, self.beside.name):
                remove_leftovers(self.path.parent, name)
            yield

    def missing(self, text: str) -> str:
        """List the characters that the encoding does not have.

        Args:
            text: any.

        Returns:
            Each of them once, sorted.
        """
        try:
            text.encode(self.encoding)
        except UnicodeError:
            return "".join(sorted(character for character in set(text) if not self._has(character)))
        return ""

    def _has(self, character: str) -> bool:
        try:
            character.encode(self.encoding)
        except UnicodeError:
            return False
        return True

    def save(self, text: str) -> None:
        """Write a text, durably, where it is not what the file holds already.

        A file that another program has changed is left to that: the text goes to a new one beside it, and so does all
        that comes later.

        Args:
            text: without characters that are `missing`.

        Raises:
            WriteError: the disk refuses.
        """
        data = self._encode(text)
        if data == self._saved or (not data and self._saved is None):
            return
        there = _stamp(self.path)
        if there and there != self._stamp and _read(self.path, MAX_DRAFT) != self._saved:
            self.path = free_path(self.path)
        write_durably(self.path, [data])
        self._saved, self._stamp = data, _stamp(self.path)

    def save_bookmark(self, bookmark: Bookmark, text: str, *, leaving: bool = True) -> None:
        """Write the small file, durably, where there is a draft; not over a link, and no label of thousands of letters.

        Args:
            bookmark: what it is to say.
            text: what the draft holds.
            leaving: whether it is written where nothing but the cursor has moved, too.

        Raises:
            WriteError: the disk refuses.
        """
        is_new = self.bookmark is None or replace(bookmark, cursor=0) != replace(self.bookmark, cursor=0)
        if self._saved is None or not (is_new or leaving):
            return
        digest = hashlib.sha256(self._encode(text)).hexdigest()
        said = {"kind": "chargen draft", "format": 1, **asdict(bookmark), "draft": digest}
        data = json.dumps(said, indent=1).encode() + b"\n"
        if len(data) <= MAX_BOOKMARK and not os.path.islink(self.beside):
            write_durably(self.beside, [data])
            self.bookmark = bookmark

    def _decode(self, data: bytes) -> str:
        try:
            return data[len(self._mark) :].decode(self.encoding)
        except UnicodeError as error:
            place = ""
            if isinstance(error, UnicodeDecodeError):
                wrong = error.object[error.start : error.start + 4].hex(" ")
                place = f": offset {len(self._mark) + error.start}, bytes {wrong}"
            raise DataError(f"{self.path} is not {self.encoding}{place}; give its `encoding=NAME`") from error

    def _encode(self, text: str) -> bytes:
        return self._mark + text.replace("\n", self.line_end).encode(self.encoding)

    def _read_bookmark(self) -> Bookmark | None:
        """What the small file says, once it is checked."""
        if not os.path.lexists(self.beside):
            return None
        try:
            if os.path.islink(self.beside) or not os.path.isfile(self.beside):
                raise ValueError("it is no file")
            said = json.loads(_read(self.beside, MAX_BOOKMARK))
            if said.pop("kind") != "chargen draft" or said.pop("format") != 1:
                raise ValueError("it is of another kind or format")
            digest = said.pop("draft")
            bookmark = _check_bookmark(Bookmark(**said))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError, DataError) as error:
            reason = f"missing {error}" if isinstance(error, KeyError) else truncate(error, 100)
            raise DataError(
                f"{self.beside} is not what chargen writes beside a draft ({reason}); move it away to begin anew"
            ) from error
        unchanged = digest == hashlib.sha256(self._encode(self.text)).hexdigest()
        return bookmark if unchanged else replace(bookmark, cursor=len(self.text))


def free_path(path: Path) -> Path:
    """Find a name for a new draft: the one that is asked for, or the first with a number that nothing has.

    Args:
        path: such as draft.txt; the next is draft-2.txt.
    """
    names = itertools.chain(
        [path], (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    )
    return next(name for name in names if not os.path.lexists(name))


def _check_bookmark(bookmark: Bookmark) -> Bookmark:
    """The bookmark, where every value is one that it can have; ValueError or TypeError otherwise."""
    for name, high in (("seed", MAX_SEED), ("pieces", 2**62), ("cursor", MAX_DRAFT)):
        value = getattr(bookmark, name)
        if type(value) is not int or not 0 <= value <= high:
            raise ValueError(f"{name} {repr_short(value)}")
    temperature, label, model = bookmark.temperature, bookmark.label, bookmark.model
    if type(temperature) not in (int, float) or not 0 <= temperature < math.inf:
        raise ValueError(f"temperature {repr_short(temperature)}")
    if not (label is None or isinstance(label, str)) or not isinstance(model, str):
        raise ValueError("label or model is no text")
    return replace(bookmark, temperature=float(temperature))


def _check_encoding(encoding: str | None) -> None:
    try:
        if encoding is not None:
            "".encode(encoding)
    except (LookupError, TypeError, ValueError) as error:
        raise SettingError(
            f"encoding is {repr_short(encoding)}: Python knows no such text encoding", "encoding"
        ) from error


def _check_place(path: Path) -> None:
    """Check that a draft can be at a path."""
    reason = ""
    if os.path.islink(path):
        reason = f"it is a link; give the path of the file that it leads to, {os.path.realpath(path)}"
    elif os.path.isdir(path):
        reason = "it is a folder; give the path of a file in it"
    elif os.path.lexists(path):
        if not os.path.isfile(path):
            reason = "it is something else than a file"
        elif not os.access(path, os.R_OK):
            reason = "this user may not read it"
        elif not os.access(path, os.W_OK) or not os.stat(path).st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
            reason = "it is read-only; copy it first, or give another path"
    elif not os.path.isdir(path.parent):
        reason = f"there is no folder {path.parent}; make it first"
    elif len(os.fsencode(path.name)) > 200:
        reason = "its name is too long"
    if reason:
        raise DataError(f"cannot open {truncate(path, 300)} as a draft: {reason}")


def _read(path: Path, limit: int) -> bytes:
    """The bytes of a file; none where it is not there."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > limit:
        raise DataError(f"{path} has more than {format_size(limit)}: write in a part of it")
    return data


def _stamp(path: Path) -> _Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
