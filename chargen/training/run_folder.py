"""What a run leaves in its folder, and how a new run takes the place of an older one without losing it too early."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from chargen.durable import explain_blocked_path, make_folder
from chargen.errors import ModelFileError, SettingError
from chargen.storage.model_file import FILE_NAME as MODEL_NAME
from chargen.storage.model_file import read_model
from chargen.storage.run_state import ASIDE, MOVING, can_be_resumed, places_of_a_run, read_run_state
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.training.metrics import FILE_NAME as METRICS_NAME

FILES = (STATE_NAME, MODEL_NAME, METRICS_NAME)
"""The state is the last that a save writes and the first that is put aside: where it is, its run is whole."""


def holds_a_run(folder: Path) -> bool:
    """True where a new run would overwrite what an older one left."""
    files = (place / name for place in places_of_a_run(folder) for name in FILES)
    return any(file.exists() and file.stat().st_size > 0 for file in files)


def check_free(folder: Path, overwrite: bool = False) -> None:
    """Raise SettingError where a folder cannot be or holds a run; with `overwrite`, where its files are no run's."""
    if reason := explain_blocked_path(folder / STATE_NAME):
        raise SettingError(f"cannot make the run folder {folder}: {reason}; choose another place", "out")
    if not holds_a_run(folder):
        return
    if not overwrite:
        go_on = "go on with --resume, " if can_be_resumed(folder) else ""
        raise SettingError(
            f"{folder} already holds a run: {go_on}choose another --out, or replace it with --overwrite", "out"
        )
    if not any(map(_is_a_run, places_of_a_run(folder))):
        raise SettingError(
            f"{folder} holds no run of chargen's, but {', '.join(_names_in(folder))}: choose another --out", "out"
        )


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """While a new run saves for the first time, have the older one aside; where that fails, it is there again."""
    make_folder(folder / MOVING)
    for name in _names_in(folder):
        os.replace(folder / name, folder / MOVING / name)
    os.rename(folder / MOVING, folder / ASIDE)
    try:
        yield
    except BaseException:
        _put_back(folder)
        raise
    _remove(folder / ASIDE)


def recover(folder: Path) -> None:
    """End what a kill in the midst of `replacing` has left; call it while holding the folder's lock."""
    if (folder / ASIDE).is_dir() and (folder / STATE_NAME).exists():
        _remove(folder / ASIDE)
    else:
        _put_back(folder)


def _put_back(folder: Path) -> None:
    if (folder / ASIDE).is_dir():
        for name in _names_in(folder):
            (folder / name).unlink()
        os.rename(folder / ASIDE, folder / MOVING)
    for name in reversed(_names_in(folder / MOVING)):
        os.replace(folder / MOVING / name, folder / name)
    _remove(folder / MOVING)


def _remove(aside: Path) -> None:
    for name in _names_in(aside):
        (aside / name).unlink()
    with contextlib.suppress(OSError):
        aside.rmdir()


def _names_in(folder: Path) -> list[str]:
    return [name for name in FILES if os.path.lexists(folder / name)]


def _is_a_run(folder: Path) -> bool:
    """Whether its files are a run's: another program's model may have the same name."""
    if not all((folder / name).is_file() for name in _names_in(folder)):
        return False
    for read in (read_run_state, read_model):
        with contextlib.suppress(ModelFileError):
            read(folder)
            return True
    return False
