"""What a run must remember to go on as if it had never stopped: one file, written whole or not at all."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.errors import ModelFileError
from chargen.model.config import ModelConfig, parameter_shapes
from chargen.settings import check_int, make_settings
from chargen.storage import tensor_file

FORMAT = 3
"""1 was 0.1.0's, which had other counters; in 2 dropout masks had other addresses."""
KIND = "run"
FILE_NAME = "state.safetensors"
ASIDE, MOVING = ".replaced", ".replacing"
"""A folder within, where the older run's files are while a new run saves for the first time; and its name while only
some of them are there, and those beside it are that run's too.
"""


@dataclass(frozen=True, eq=False)
class RunState:
    """A run at the border of a step.

    Args:
        arrays: "weights.NAME", "best.NAME" (once there is a best), "first.NAME" and "second.NAME" (AdamW's moments),
            "hidden.LAYER" and "hidden_backward.LAYER" (B, S) (where state is carried).
        progress: counters and figures at that step; see Trainer.
        settings: the resolved settings, and where the corpus is.
    """

    arrays: dict[str, NDArray[Any]]
    progress: dict[str, Any]
    settings: dict[str, Any]


def places_of_a_run(folder: Path) -> tuple[Path, ...]:
    """Where the files of a run, or of one that is being replaced, may be."""
    return folder, folder / ASIDE, folder / MOVING


def can_be_resumed(folder: Path) -> bool:
    """True where there is a run's state, perhaps of one that was about to be replaced."""
    return any((place / FILE_NAME).is_file() for place in places_of_a_run(folder))


def save_run_state(folder: str | os.PathLike[str], state: RunState) -> None:
    """Write the state durably into a run folder."""
    description = {"kind": KIND, "format": FORMAT, "progress": state.progress, "settings": state.settings}
    advice = "give a folder instead of its files"
    tensor_file.save(Path(folder) / FILE_NAME, state.arrays, description, smaller=advice)


def read_run_state(folder: str | os.PathLike[str]) -> RunState:
    """Read and check the state in a run folder.

    Raises ModelFileError where there is none, or where it is damaged or does not fit its own settings.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        raise ModelFileError(
            f"no {FILE_NAME} in {folder}: there is nothing to resume; start with chargen train SOURCE --out DIR"
        )
    arrays, description = tensor_file.load(path, KIND, _expected)
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ModelFileError(f"{path}: array {name} is not finite float32")
    return RunState(arrays, description["progress"], description["settings"])


def _expected(description: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    tensor_file.check_format(description, FORMAT, ", and a run resumes only with the version that wrote it")
    settings, progress = description["settings"], description["progress"]
    config = make_settings(ModelConfig, settings["model"])
    for name in ("corpus", "training", "machine"):
        dict(**settings[name])
    shapes = parameter_shapes(config, check_int("vocabulary_size", settings["vocabulary_size"], 1))
    parts = ["weights", "first", "second"] + ["best"] * bool(progress["best_step"] is not None)
    expected = {f"{part}.{name}": shape for part in parts for name, shape in shapes.items()}
    if progress["hidden"]:
        rows = check_int("batch_size", settings["training"]["batch_size"], 1)
        for direction in config.directions:
            prefix = hidden_name(direction)
            expected |= {f"{prefix}.{layer}": (rows, config.state_size) for layer in range(config.num_layers)}
    return expected


def hidden_name(direction: str) -> str:
    """Under which name a direction's carried state is stored."""
    return "hidden" if direction == "forward" else "hidden_backward"
