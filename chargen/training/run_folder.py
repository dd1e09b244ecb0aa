"""What a run leaves in its folder, and how a new run takes the place of an older one without losing it too early."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from chargen.durable import explain_blocked_path, make_folder
from chargen.errors import SettingError
from chargen.storage.model_file import FILE_NAME as MODEL_NAME
from chargen.storage.model_file import KIND as MODEL_KIND
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import KIND as STATE_KIND
from chargen.storage.run_state import REPLACED_FOLDER, REPLACING_FOLDER, can_be_resumed, folders_of_run
from chargen.storage.tensor_file import is_kind
from chargen.training.metrics import FILE_NAME as METRICS_NAME

FILES = (STATE_NAME, MODEL_NAME, METRICS_NAME)
"""The state is the last that a save writes and the first that is put aside: where it is, its run is whole."""


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


@contextlib.contextmanager
def replace_run(folder: Path) -> Iterator[None]:
    """While a new run saves for the first time, have the older one aside; where that fails, it is there again."""
    make_folder(folder / REPLACING_FOLDER)
    for name in _names_in(folder):
        os.replace(folder / name, folder / REPLACING_FOLDER / name)
    os.rename(folder / REPLACING_FOLDER, folder / REPLACED_FOLDER)
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


def _put_back(folder: Path) -> None:
    if (folder / REPLACED_FOLDER).is_dir():
        for name in _names_in(folder):
            (folder / name).unlink()
        os.rename(folder / REPLACED_FOLDER, folder / REPLACING_FOLDER)
    for name in reversed(_names_in(folder / REPLACING_FOLDER)):
        os.replace(folder / REPLACING_FOLDER / name, folder / name)
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
