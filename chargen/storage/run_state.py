"""The state from which a run resumes as if it had never stopped: one file, written completely or not at all."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chargen.arguments import Arrays
from chargen.errors import ModelFileError, repr_short
from chargen.model.config import MAX_NETWORKS, ModelConfig, parameter_shapes
from chargen.settings import check_int, make_settings
from chargen.storage import tensor_file

FORMAT = 3
"""Format 1, of version 0.1.0, has other counters; in format 2, dropout masks have other addresses."""
KIND = "run"
FILE_NAME = "state.safetensors"
REPLACED_FOLDER, REPLACING_FOLDER = ".replaced", ".replacing"
"""The subfolder that holds an older run's files until the new run has saved; and its name while only some of the files
have been moved, so that those still outside it belong to the older run, too."""


@dataclass(frozen=True, eq=False)
class RunState:
    """A run between two optimizer steps.

    Args:
        arrays: "weights.NAME"; "first.NAME" and "second.NAME", AdamW's moments; "best.NAME", the best weights, once
            there are any; "hidden.LAYER" and "hidden_backward.LAYER" (B, S), where state is carried.
        progress: the counters and figures of training.
        settings: the resolved settings, and the place of the corpus.
    """

    arrays: Arrays
    progress: dict[str, Any]
    settings: dict[str, Any]


def folders_of_run(folder: Path) -> tuple[Path, ...]:
    """The folders that may hold the files of a run, or of an older run that it is replacing.

    Args:
        folder: the run folder.
    """
    return folder, folder / REPLACED_FOLDER, folder / REPLACING_FOLDER


def can_be_resumed(folder: Path) -> bool:
    """Whether there is the state of a run, or of an older run that was being replaced.

    Args:
        folder: the run folder.
    """
    return any((place / FILE_NAME).is_file() for place in folders_of_run(folder))


def save_run_state(folder: str | os.PathLike[str], state: RunState) -> None:
    """Write the state durably into a run folder.

    Args:
        folder: the run folder.
        state: the state.

    Raises:
        WriteError: the disk refuses the file.
        SettingError: the settings are too large for the file's header.
    """
    description = {"kind": KIND, "format": FORMAT, "progress": state.progress, "settings": state.settings}
    advice = "give a folder instead of its files"
    tensor_file.save(Path(folder) / FILE_NAME, state.arrays, description, smaller=advice)


def read_run_state(folder: str | os.PathLike[str]) -> RunState:
    """Read and check the state in a run folder.

    Args:
        folder: the run folder.

    Raises:
        ModelFileError: there is no state, or it is damaged or does not fit its own settings.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        raise ModelFileError(
            f"no {FILE_NAME} in {folder}: there is nothing to resume; start a new run there with `out`"
        )
    arrays, description = tensor_file.load(path, KIND, _expected_shapes)
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ModelFileError(f"{path}: array {name} is not finite float32")
    return RunState(arrays, description["progress"], description["settings"])


def peek_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the settings in a run's state without its arrays. Nothing is checked: they may be anything.

    Args:
        folder: the run folder.

    Returns:
        The settings; empty where there are none.
    """
    settings = tensor_file.peek(Path(folder) / FILE_NAME).get("settings")
    return settings if isinstance(settings, dict) else {}


def _expected_shapes(description: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The name and shape of every array that a state with this description holds."""
    tensor_file.check_format(description, FORMAT, ", and a run resumes only with the version that wrote it")
    settings, progress = description["settings"], description["progress"]
    config = make_settings(ModelConfig, settings["model"])
    for name in ("corpus", "training", "machine"):
        dict(**settings[name])
    own_parts = settings.get("own_parts", [])
    if not isinstance(own_parts, list) or not {*own_parts} <= {"model", "optimizer", "loss"}:
        raise ModelFileError(f"own_parts is {repr_short(own_parts)}: such parts a run has not")
    shapes = parameter_shapes(config, check_int("vocabulary_size", settings["vocabulary_size"], 1))
    parts = ["weights", "first", "second"] + ["best"] * bool(progress["best_step"] is not None)
    expected = {f"{part}.{name}": shape for part in parts for name, shape in shapes.items()}
    networks = check_int("network", progress["network"], 0, MAX_NETWORKS)
    expected |= {
        f"{finished_prefix(number)}.{name}": shape for number in range(networks) for name, shape in shapes.items()
    }
    if progress["hidden"]:
        rows = check_int("batch_size", settings["training"]["batch_size"], 1)
        for direction in config.directions:
            prefix = hidden_prefix(direction)
            expected |= {f"{prefix}.{layer}": (rows, config.state_size) for layer in range(config.num_layers)}
    return expected


def finished_prefix(network: int) -> str:
    """The prefix of the names of the arrays that hold the weights of a network whose training is over.

    Args:
        network: its number, from 0.
    """
    return f"network{network}"


def hidden_prefix(direction: str) -> str:
    """The prefix of the names of the arrays that hold a direction's carried state.

    Args:
        direction: "forward" or "backward".
    """
    return "hidden" if direction == "forward" else "hidden_backward"
