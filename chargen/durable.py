"""Files written so that a kill at any instant leaves either the old file or the new one, whole.

A temporary file in the same folder, fsync, rename, fsync of the folder. The umask is honoured.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from chargen.errors import ChargenError, WriteError, amount

_TEMPORARY = re.compile(r"\.[^/]+\.[0-9a-f]{16}\.tmp")


def write_durably(path: str | os.PathLike[str], blocks: Iterable[bytes], size: int | None = None) -> None:
    """Write `blocks` to `path`: when this returns the file is on the disk, and at no moment is `path` half written.

    Args:
        size: of all blocks, in bytes, for the message; a sequence's is known.

    Raises WriteError with the path and the reason (disk full, no permission); the previous file is then untouched.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    before = os.path.exists(target)
    if before and not os.path.isfile(target):
        raise WriteError(f"cannot write {path}: there is something else than a file")
    if isinstance(blocks, Sequence):
        size = sum(map(len, blocks))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        make_folder(target.parent)
        try:
            with open(temporary, "xb") as file:
                for block in blocks:
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        unchanged = "; the previous file is unchanged" * before
        raise WriteError(
            f"cannot write {target}: {describe_os_error(error, target.parent, size)}{unchanged}"
        ) from error
    try:
        sync_folder(target.parent)
    except OSError as error:
        reason = str(error.strerror or error)
        raise WriteError(f"{target} is written, but its folder cannot be synced ({reason})") from error


def describe_os_error(error: OSError, folder: Path, size: int | None = None) -> str:
    """What the system says of a write that failed; of a full disk also what was needed, and how much is free."""
    reason = str(error.strerror or error)
    facts = []
    if error.errno in (errno.ENOSPC, errno.EDQUOT) and size is not None:
        facts.append(f"{_measured(size)} needed")
    if error.errno == errno.ENOSPC:
        with contextlib.suppress(OSError):
            facts.append(f"{_measured(shutil.disk_usage(folder).free)} free")
    return reason + f" ({', '.join(facts)})" * bool(facts)


def _measured(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 10**6 else amount(size, "byte")


def explain_blocked_path(path: Path) -> str:
    """Why no file can be at `path`: another one is where a folder above it must be. Nothing where none is."""
    above = next((parent for parent in Path(os.path.abspath(path)).parents if os.path.lexists(parent)), None)
    return "" if above is None or above.is_dir() else f"{os.path.relpath(above)} is no folder"


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that a crash cannot take away. Raises OSError."""
    if not folder.is_dir():
        if folder.parent != folder:
            make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


class FolderGuard:
    """A folder that is written by its name for as long as that names the same folder.

    While it is held open, the system gives its number to no other one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        if hasattr(os, "O_DIRECTORY"):
            with contextlib.suppress(OSError):  # it can be written, but not read: then nobody can tell
                self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def check(self) -> None:
        """Raise OSError where it is gone, WriteError where another one has taken its place."""
        found = os.stat(self.path)
        if self._descriptor is not None and not os.path.samestat(found, os.fstat(self._descriptor)):
            raise WriteError(f"cannot write into {self.path}: it is another folder than the one that this run began in")

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def sync_folder(folder: Path) -> None:
    """Put the folder's entries on the disk, where that can be done.

    Windows opens no folder, nor is one opened by who may write but not read there; some file systems sync none.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed writer left in `folder`; call it while holding the folder's lock."""
    for entry in folder.iterdir():
        if _TEMPORARY.fullmatch(entry.name) and entry.is_file():
            entry.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the lock dies with the process. Raises ChargenError where another holds it."""
    path = folder / ".lock"
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file() or path.stat().st_size):
        raise ChargenError(f"{path} is not a lock that chargen made; choose another --out")
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ChargenError(
            f"{folder} is in use by another chargen train; wait for it or choose another --out"
        ) from error
    except OSError as error:
        raise ChargenError(f"cannot write in {folder}: {error.strerror or error}; choose another --out") from error
    try:
        yield
    finally:
        lock.release()
