"""What names stand for: files, folders, patterns, standard input and named corpora."""

import contextlib
import fnmatch
import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import IO

from chargen.data.named_corpora import catalogue
from chargen.data.unpack import PACKING_BY_SUFFIX
from chargen.errors import DataError, quote_backticks, repr_short
from chargen.suggestions import similar_path

MAX_NAME = 255
"""Characters of the longest name of a file."""
_RECURSIVE = re.compile(rf"(|.*?[/{re.escape(os.sep)}])\*\*(?:[/{re.escape(os.sep)}]+(.*))?$", re.DOTALL)
"""A pattern, cut at its first `**`."""
RUN_FILES = ("state.safetensors", "model.safetensors", "metrics.jsonl")
"""Files of a run, of which its folder always holds the first: they are no texts, though files beside them may be."""


@dataclass(frozen=True)
class SourceFilter:
    """Which files of folders and archives are read, and how far packed ones are unpacked.

    Args:
        include: patterns, one of which a file must fit, where there are any.
        exclude: patterns, none of which it may fit. A pattern with / in it is for the end of the path, another for the
            name; * stands for any characters.
        max_bytes: bytes that a packed file may unpack to; None for a limit that grows with its size.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_bytes: int | None = None

    def takes(self, path: str) -> bool:
        """Whether a file is read.

        Args:
            path: of the file, or of a member of an archive as if that were unpacked.
        """
        path = PurePath(path).as_posix()
        paths = [path, *(path.removesuffix(end) for end in PACKING_BY_SUFFIX if path.endswith(end))]

        def fits(patterns: Iterable[str]) -> bool:
            wholes = ("*/" + pattern.lstrip("/") for pattern in patterns)
            return any(fnmatch.fnmatchcase(f"/{name}", whole) for whole in wholes for name in paths)

        return (not self.include or fits(self.include)) and not fits(self.exclude)


ALL = SourceFilter()


@dataclass(frozen=True)
class Source:
    """One file to read, or standard input.

    Args:
        name: for messages.
        path: None for standard input.
        named: whether a person named it; a file of a named folder is skipped where it is no text.
        copy: what is read instead, of bytes that can be read only once.
        filter: of the files in it.
    """

    name: str
    path: Path | None
    named: bool = True
    copy: Path | None = None
    filter: SourceFilter = ALL

    @property
    def is_stream(self) -> bool:
        """True where the bytes can be read only once: standard input, a pipe."""
        return self.path is None or not self.path.is_file()

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Open the source for reading.

        Returns:
            A context with its bytes, still packed where they are packed; standard input stays open after it.

        Raises:
            DataError: where it cannot be read.
        """
        path = self.copy or self.path
        if path is None:
            return contextlib.nullcontext(sys.stdin.buffer)
        try:
            return open(path, "rb")
        except OSError as error:
            raise DataError(f"cannot read {self.name}: {error.strerror or error}") from error


def find_sources(names: Iterable[str | os.PathLike[str]], filter: SourceFilter = ALL) -> tuple[list[Source], int]:
    """Expand names to the files that they stand for.

    Args:
        names: files, folders (taken recursively, sorted), patterns, `-` (standard input) or names of corpora; where a
            path and a corpus have the same name, the path is taken.
        filter: that the sources get.

    Returns:
        The sources in order, and how many hidden files, hidden folders, links to folders and files of runs are not
        among them.

    Raises:
        DataError: where a name leads to no file.
    """
    sources: list[Source] = []
    hidden = 0
    for name in names:
        if not isinstance(name, (str, os.PathLike)):
            raise DataError(f"{repr_short(name)} is no name of a file: give a file, a folder, a pattern or a corpus")
        expanded, skipped = _expand(os.fspath(name))
        if expanded[0].path is None and any(source.path is None for source in sources):
            raise DataError("standard input can be read only once; name - once")
        sources += [replace(source, filter=filter) for source in expanded]
        hidden += skipped
    return sources, hidden


def _expand(name: str) -> tuple[list[Source], int]:
    """The files that a name stands for, at least one, and how many entries of a folder are not among them."""
    if not name:
        raise DataError("an empty name is no file; give a file, a folder, a pattern or a corpus")
    if name == "-":
        return [Source("standard input", None)], 0
    if os.path.isdir(name):
        files, skipped = _list_files(Path(name))
        if not files:
            raise DataError(f"folder {name} holds no files ({skipped} hidden, linked or of a run); name another")
        return [Source(quote_backticks(file), file, named=False) for file in files], skipped
    if os.path.exists(name):
        return [Source(name, Path(name))], 0
    if name in catalogue():
        return [Source(str(file), file) for file in catalogue()[name].files()], 0
    matches = sorted(match for match in set(_match(name)) if os.path.isfile(match))
    if matches:
        return [Source(quote_backticks(match), Path(match)) for match in matches], 0
    if "\n" in name or len(name) > MAX_NAME:
        raise DataError(f"no file is named {repr_short(name)}: a text itself must be put into a file")
    corpora, advice = ", ".join(catalogue()), similar_path(name, names=catalogue())
    raise DataError(f"no file, folder or pattern {name!r}, and no corpus of that name (corpora: {corpora}){advice}")


def _match(pattern: str) -> Iterator[str]:
    """What fits a pattern, perhaps repeatedly. Like folders, `**` leads through no link: links may go in circles."""
    recursive = _RECURSIVE.match(pattern)
    if recursive is None:
        yield from glob.glob(pattern)
        return
    start, rest = recursive[1], recursive[2] or "*"
    for top in glob.glob(start) if start else [""]:
        for folder, folders, _ in os.walk(top or os.curdir):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _match(os.path.join(glob.escape(folder if top else folder[2:]), rest))


def _list_files(folder: Path) -> tuple[list[Path], int]:
    """The files below a folder, sorted, and how many hidden or linked entries and files of runs are not among them."""
    listed: list[Path] = []
    hidden = 0

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read {quote_backticks(error.filename)}: {error.strerror}") from error

    for root, folders, files in os.walk(folder, onerror=refuse):
        if RUN_FILES[0] in files:
            hidden += sum(name in RUN_FILES for name in files)
            files = [name for name in files if name not in RUN_FILES]
        hidden += sum(name.startswith(".") for name in (*folders, *files))
        hidden += sum(not name.startswith(".") and os.path.islink(os.path.join(root, name)) for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(root, name) for name in files if not name.startswith(".")):
            if not file.exists():
                raise DataError(f"cannot read {quote_backticks(file)}: it is a link that leads nowhere")
            if file.is_file():
                listed.append(file)
    return sorted(listed, key=lambda path: path.as_posix()), hidden
