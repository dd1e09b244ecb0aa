"""Files written so that a kill at any instant leaves either the complete old file or the complete new one.

The order is: a temporary file in the same folder, fsync, rename, fsync of the folder. The umask is honoured, and a file
that is replaced keeps its owner and its permissions.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from chargen.errors import ChargenError, WriteError, format_size

if sys.platform == "darwin":
    import fcntl

_TEMPORARY = re.compile(r"\.([^/]+)\.[0-9a-f]{16}\.tmp")
_WAITS = [0.01 * 2**number for number in range(8)]
"""Seconds between tries to move a file on Windows; two and a half in all."""


def write_durably(path: str | os.PathLike[str], blocks: Iterable[bytes | memoryview], size: int | None = None) -> None:
    """Write a file: when this returns it is on the disk, and at no moment is it half written.

    Args:
        path: the file; where it is a link, the file that it leads to.
        blocks: its content.
        size: bytes of all blocks, for the message; of a sequence it is computed.

    Raises:
        WriteError: with the path and the reason (disk full, no permission). The previous file is then untouched,
            unless the message says that the new one is written.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    exists = os.path.exists(target)
    if exists and not os.path.isfile(target):
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
                if exists:
                    _copy_permissions(target, temporary)
                file.flush()
                sync_file(file.fileno())
            rename(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        unchanged = "; the previous file is unchanged" * exists
        raise WriteError(
            f"cannot write {target}: {describe_os_error(error, target.parent, size)}{unchanged}"
        ) from error
    try:
        sync_folder(target.parent)
    except OSError as error:
        reason = str(error.strerror or error)
        raise WriteError(f"{target} is written, but its folder cannot be synced ({reason})") from error


def _copy_permissions(source: Path, target: Path) -> None:
    """Give a file the owner and the permissions of another one, as far as this user and the disk can."""
    status = os.stat(source)
    if sys.platform != "win32":  # which has neither, and removes no file that may not be written
        with contextlib.suppress(PermissionError):
            os.chown(target, status.st_uid, status.st_gid)
        with contextlib.suppress(PermissionError):
            os.chmod(target, stat.S_IMODE(status.st_mode))


def describe_os_error(error: OSError, folder: Path, size: int | None = None) -> str:
    """Say why a write failed, as part of a message; of a full disk also the size needed and what is free.

    Args:
        error: what the system raised.
        folder: where the file was to be.
        size: bytes of the file, where known.
    """
    reason = str(error.strerror or error)
    facts = []
    if error.errno in (errno.ENOSPC, errno.EDQUOT) and size is not None:
        facts.append(f"{format_size(size)} needed")
    if error.errno == errno.ENOSPC:
        with contextlib.suppress(OSError):
            facts.append(f"{format_size(shutil.disk_usage(folder).free)} free")
    return reason + f" ({', '.join(facts)})" * bool(facts)


def explain_blocked_path(path: Path) -> str:
    """Say why no file can be at a path, as part of a message: a file is where a folder above it must be.

    Args:
        path: where a file is to be.

    Returns:
        The reason, or "" where there is none.
    """
    nearest = next((parent for parent in Path(os.path.abspath(path)).parents if os.path.lexists(parent)), None)
    if nearest is None or nearest.is_dir():
        return ""
    with contextlib.suppress(ValueError):  # on Windows, where it is on another drive
        nearest = Path(os.path.relpath(nearest))
    return f"{nearest} is no folder"


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it; when this returns a crash cannot take them away.

    Args:
        folder: may exist already.

    Raises:
        OSError: where the system refuses.
    """
    if not folder.is_dir():
        if folder.parent != folder:
            make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def move_durably(source: Path, target: Path) -> None:
    """Move a file that is complete to where it is to be; when this returns a crash cannot undo it.

    Args:
        source: in the folder of `target`.
        target: is replaced where it exists.

    Raises:
        OSError: where the system refuses.
    """
    with open(source, "rb+") as file:
        sync_file(file.fileno())
    rename(source, target)
    sync_folder(target.parent)


def sync_file(descriptor: int) -> None:
    """Put a file on the disk. On macOS fsync leaves it in the drive's own memory, which a power cut empties.

    Args:
        descriptor: of the file.

    Raises:
        OSError: where the disk refuses.
    """
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):  # not every file system there knows it
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename a file or a folder. Windows refuses it while a program, such as a virus scanner, has it open: then wait.

    Args:
        source: on the disk of `target`.
        target: a file is replaced where it exists.

    Raises:
        OSError: where the system refuses.
    """
    for seconds in _WAITS if sys.platform == "win32" else ():
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(seconds)
    return os.replace(source, target)


class FolderGuard:
    """Notices when the folder at a path is replaced by another one.

    The folder is held open, so that the system gives its inode number to no other.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):  # on Windows, or where it is not readable, only its absence is noticed
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))

    def check(self) -> None:
        """Check that the path still leads to the folder.

        Raises:
            OSError: where the folder is gone.
            WriteError: where another folder is in its place.
        """
        status = os.stat(self.path)
        if self._descriptor is not None and not os.path.samestat(status, os.fstat(self._descriptor)):
            raise WriteError(f"cannot write into {self.path}: it is another folder than the one that this run began in")

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def sync_folder(folder: Path) -> None:
    """Put the entries of a folder on the disk, where that is possible.

    It is not on Windows, in a folder that this process may not read, and on file systems that sync no folders.

    Args:
        folder: must exist.

    Raises:
        OSError: where the disk refuses.
    """
    with contextlib.suppress(PermissionError):  # Windows opens no folder either
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def leftover_of(path: Path) -> str | None:
    """The name of the file that a killed writer was to write, where a path is the temporary file that it left.

    Args:
        path: in the folder of that file.
    """
    match = _TEMPORARY.fullmatch(path.name)
    return match[1] if match and path.is_file() else None


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove temporary files that a killed writer left behind.

    Args:
        folder: the caller holds its lock.
        name: of the file that the writer wrote, of which the caller holds the lock; "" for all files of the folder.
    """
    for entry in folder.iterdir():
        if (target := leftover_of(entry)) and name in ("", target):
            entry.unlink(missing_ok=True)


@contextlib.contextmanager
def wait_for_folder(folder: Path) -> Iterator[None]:
    """Lock a folder for this process while the context lasts, once no other process or thread has it.

    Args:
        folder: must exist.

    Raises:
        OSError: where no lock can be made.
    """
    with FileLock(folder / ".lock"):
        yield


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder for this process while the context lasts; the lock dies with the process.

    Args:
        folder: must exist.

    Raises:
        ChargenError: where another process holds the lock, or none can be made.
    """
    path = folder / ".lock"
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file() or path.stat().st_size):
        raise ChargenError(f"{path} is not a lock that chargen made; choose another `out`")
    in_use = f"{folder} is in use by another run; wait for it or choose another `out`"
    lock = _acquire(path, in_use, f"cannot write in {folder}", "choose another `out`")
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Lock a file for this process while the context lasts, by one beside it; the lock dies with the process.

    Args:
        path: the file, which need not exist; its folder must.

    Raises:
        ChargenError: where another process holds the lock, or none can be made.
    """
    beside = path.with_name(f".{path.name}.lock")
    in_use = f"{path} is open in another chargen: close it there, or name another file"
    lock = _acquire(beside, in_use, f"cannot write beside {path}", "name another file")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            beside.unlink()
        lock.release()


def _acquire(path: Path, in_use: str, refused: str, advice: str) -> FileLock:
    """Lock a file, or say who has it, or that the system refuses it and what to do."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ChargenError(in_use) from error
    except OSError as error:
        raise ChargenError(f"{refused}: {error.strerror or error}; {advice}") from error
    return lock
