"""What a run leaves in its folder, and how a new run takes the place of an older one without losing it too early."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from chargen.cache_folder import CHECKPOINTS
from chargen.durable import describe_os_error, explain_blocked_path, lock_folder, make_folder, rename
from chargen.errors import ModelFileError, SettingError, WriteError
from chargen.storage.model_file import FILE_NAME as MODEL_NAME
from chargen.storage.model_file import KIND as MODEL_KIND
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import KIND as STATE_KIND
from chargen.storage.run_state import (
    REPLACED_FOLDER,
    REPLACING_FOLDER,
    RunState,
    can_be_resumed,
    folders_of_run,
    read_run_state,
)
from chargen.storage.tensor_file import is_kind
from chargen.suggestions import similar_path
from chargen.training.group import ALONE, Group
from chargen.training.metrics import FILE_NAME as METRICS_NAME

FILES = (STATE_NAME, MODEL_NAME, METRICS_NAME)
"""The state is the last that a save writes and the first that is put aside: where it is, its run is whole."""
_DEVICE = re.compile(r"|con|prn|aux|nul|(com|lpt)[0-9¹²³]", re.IGNORECASE)
"""No name, or that of a device: Windows makes no folder of such a name."""


def holds_a_run(folder: Path) -> bool:
    """True where a new run would overwrite what an older one left."""
    files = (place / name for place in folders_of_run(folder) for name in FILES)
    return any(file.exists() and file.stat().st_size > 0 for file in files)


def check_free(folder: Path, overwrite: bool = False) -> None:
    """Raise SettingError where a folder cannot be or holds a run; with `overwrite`, where its files are no run's."""
    if reason := explain_blocked_path(folder / STATE_NAME):
        raise SettingError(f"cannot make the run folder {folder}: {reason}; choose another place", "out")
    if not holds_a_run(folder):
        return
    if not overwrite:
        go_on = "go on with `resume`, " if can_be_resumed(folder) else ""
        raise SettingError(
            f"{folder} already holds a run: {go_on}choose another `out`, or replace it with `overwrite`", "out"
        )
    if not any(map(_is_a_run, folders_of_run(folder))):
        raise SettingError(
            f"{folder} holds no run of chargen's, but {', '.join(_names_in(folder))}: choose another `out`", "out"
        )


def free_folder(source: str, overwrite: bool = False) -> Path:
    """Choose checkpoints/NAME, or NAME-2, NAME-3 … where there is a run of that name that must stay.

    Args:
        source: the text that is learned; gives the name.
        overwrite: whether any run may be replaced.
    """
    name = "stdin" if source == "-" else Path(source).resolve().name.split(".")[0]
    name = "".join(character for character in name if character.isalnum() or character in "-_ ").strip()
    name = f"run{name}" if _DEVICE.fullmatch(name) else name
    number = 1
    while (folder := CHECKPOINTS / (name if number == 1 else f"{name}-{number}")).exists() and not overwrite:
        number += 1
    return folder


@contextlib.contextmanager
def new_run_folder(folder: Path, group: Group = ALONE) -> Iterator[None]:
    """Make and lock the folder of a new run; remove it where the run fails before it has saved anything.

    Args:
        folder: the run folder; may exist.
        group: the processes, the first of which does it.

    Raises:
        SettingError: where it cannot be made.
        ChargenError: where another process holds its lock.
    """
    if not group.leads:
        yield
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            make_folder(folder)
        except OSError as error:
            raise SettingError(
                f"cannot make the run folder {folder}: {error.strerror}; choose another `out`", "out"
            ) from error
        with lock_folder(folder):
            yield
    except BaseException:
        _remove_if_empty(new)
        raise


def _remove_if_empty(folders: list[Path]) -> None:
    """Remove what a run without saved files left behind. No folder is listed: that takes memory, which may be full."""
    for folder in folders:
        for file in (folder / METRICS_NAME, folder / ".lock"):
            with contextlib.suppress(OSError):
                if file.stat().st_size == 0 and not (folder / STATE_NAME).exists():
                    file.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def open_run(folder: Path, group: Group = ALONE) -> Iterator[RunState]:
    """Lock the folder of a saved run while the context lasts, and read the run's state.

    Args:
        folder: the run folder.
        group: the processes, the first of which does it; the others get no arrays here.

    Raises:
        ModelFileError: where there is no run to resume, or its state is damaged.
        ChargenError: where another process holds the lock.
    """
    if not group.leads:
        progress, settings = group.broadcast(None)
        yield RunState({}, progress, settings)
        return
    if not can_be_resumed(folder):
        if not folder.exists():
            advice = similar_path(folder, CHECKPOINTS)
            raise ModelFileError(f"no run folder {folder}{advice or '; training on a text makes one'}")
        raise ModelFileError(f"{folder} holds no {STATE_NAME} to resume; training on a text makes a run folder")
    with lock_folder(folder):
        recover(folder)
        state = read_run_state(folder)
        group.broadcast([state.progress, state.settings])
        yield state


@contextlib.contextmanager
def replace_run(folder: Path) -> Iterator[None]:
    """While a new run saves for the first time, have the older one aside; where that fails, it is there again."""
    try:
        with contextlib.suppress(FileNotFoundError):
            (folder / REPLACED_FOLDER).rmdir()  # empty, where an earlier one was not removed
        _put_aside(folder)
    except OSError as error:
        reason = describe_os_error(error, folder)
        raise WriteError(f"cannot put the older run in {folder} aside: {reason}; is a file of it open?") from error
    try:
        yield
    except BaseException:
        _put_back(folder)
        raise
    _remove(folder / REPLACED_FOLDER)


def recover(folder: Path) -> None:
    """End what a kill in the midst of `replace_run` has left; call it while holding the folder's lock."""
    if (folder / REPLACED_FOLDER).is_dir() and (folder / STATE_NAME).exists():
        _remove(folder / REPLACED_FOLDER)
    else:
        _put_back(folder)


def _put_aside(folder: Path) -> None:
    try:
        make_folder(folder / REPLACING_FOLDER)
        for name in _names_in(folder):
            rename(folder / name, folder / REPLACING_FOLDER / name)
        rename(folder / REPLACING_FOLDER, folder / REPLACED_FOLDER)
    except BaseException:
        _put_back(folder)
        raise


def _put_back(folder: Path) -> None:
    if (folder / REPLACED_FOLDER).is_dir():
        for name in _names_in(folder):
            (folder / name).unlink()
        rename(folder / REPLACED_FOLDER, folder / REPLACING_FOLDER)
    for name in reversed(_names_in(folder / REPLACING_FOLDER)):
        rename(folder / REPLACING_FOLDER / name, folder / name)
    _remove(folder / REPLACING_FOLDER)


def _remove(aside: Path) -> None:
    for name in _names_in(aside):
        (aside / name).unlink()
    with contextlib.suppress(OSError):
        aside.rmdir()


def _names_in(folder: Path) -> list[str]:
    return [name for name in FILES if os.path.lexists(folder / name)]


def _is_a_run(folder: Path) -> bool:
    """Whether its files are a run's, of any version: another program's model may have the same name."""
    files = all((folder / name).is_file() for name in _names_in(folder))
    return files and (is_kind(folder / STATE_NAME, STATE_KIND) or is_kind(folder / MODEL_NAME, MODEL_KIND))
