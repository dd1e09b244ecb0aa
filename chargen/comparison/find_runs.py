"""Which runs some paths stand for, and what each is called beside the others."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from chargen.comparison.run_summary import RunSummary, read_run
from chargen.errors import ModelFileError, amount
from chargen.storage.model_file import FILE_NAME, model_path
from chargen.training.run_folder import holds_a_run

MAX_RUNS = 1_000


def find_runs(paths: Iterable[Path]) -> tuple[list[RunSummary], list[str]]:
    """Read runs, each once.

    Args:
        paths: run folders, model files, and folders of run folders.

    Returns:
        The runs; and which of those that were met in a folder are left out, and why.

    Raises:
        ModelFileError: a run that is named cannot be read, or a folder holds none.
    """
    named: dict[str, bool] = {}
    places: dict[str, Path] = {}
    for path in paths:
        is_named = not path.is_dir() or holds_a_run(path)
        for place in [_place(path)] if is_named else _runs_in(path):
            key = os.path.realpath(place)
            named[key], places[key] = is_named or named.get(key, False), min(place, places.get(key, place))
            if len(places) > MAX_RUNS:
                raise ModelFileError(f"these are more than {amount(MAX_RUNS, 'run')}: compare fewer")
    runs, left_out = [], []
    for (key, place), name in zip(places.items(), distinct_names([*places.values()]), strict=True):
        try:
            runs.append(read_run(place, name))
        except ModelFileError as error:
            if named[key]:
                raise
            left_out.append(f"{name} is left out: {error}")
    if not runs:
        raise ModelFileError(left_out[0] if left_out else "no run to compare: name run folders")
    return runs, left_out


def _place(path: Path) -> Path:
    """A run folder, or a model file that lies in none."""
    if path.is_dir():
        return Path(os.path.abspath(path))
    file = Path(os.path.abspath(model_path(path)))
    return file.parent if file.name == FILE_NAME else file


def _runs_in(folder: Path) -> Iterator[Path]:
    try:
        inside = sorted(entry for entry in Path(os.path.abspath(folder)).iterdir() if not entry.name.startswith("."))
        runs = [entry for entry in inside if entry.is_dir() and holds_a_run(entry)]
    except OSError as error:
        raise ModelFileError(f"cannot read {folder}: {error.strerror or error}") from error
    if not runs:
        raise ModelFileError(f"folder {folder} holds no run: name run folders, or a folder in which they are")
    yield from runs


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Name each path by its last part without .safetensors or, where others have that too, by more of them in full.

    Args:
        paths: absolute ones, each different.
    """
    names = [path.name.removesuffix(".safetensors") or str(path) for path in paths]
    for depth in range(2, 1 + max((len(path.parts) for path in paths), default=0)):
        for name in {name for name in names if names.count(name) > 1}:
            for number in [number for number, other in enumerate(names) if other == name]:
                names[number] = str(Path(*paths[number].parts[-depth:]))
    return names
