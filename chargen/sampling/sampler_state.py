"""A sampler's saved state: one file that says where every stream stands, and to which weights it belongs."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.choose import SampleConfig
from chargen.decoding.numpy_engine import State
from chargen.durable import explain_blocked_path
from chargen.errors import ChargenError, ModelFileError, repr_short, truncate
from chargen.rng import MAX_SEED
from chargen.sampling.stream import Stream
from chargen.storage import tensor_file

STATE_FORMAT = 1
STATE_KIND = "sampler state"
MAX_STREAM = 1_000
"""Bytes of a file's header for each stream."""
MAX_STREAMS = 50_000_000
"""Bytes of a file's header for the runs that all streams together remember, where they must not repeat themselves."""


@dataclass(frozen=True, eq=False)
class SamplerState:
    """Where every stream of a sampler stands, and what it belongs to.

    Args:
        weights: the model's arrays by name; a file holds their digest.
        direction: the direction in which the streams are written.
        config: how characters are chosen; a file holds it for whoever reads the file.
        seed: the seed of all draws.
        streams: R streams, each with its draws, its unfinished character and what it must not write.
        logits: (R, V), for the next id of each.
        layers: the model's state, one (R, S) a layer.
    """

    weights: Mapping[str, NDArray[Any]]
    direction: str
    config: SampleConfig
    seed: int
    streams: list[Stream]
    logits: NDArray[np.float32]
    layers: State

    @property
    def max_header(self) -> int:
        """The bytes that the header of a file may take; a hostile one may take up to 44 times as much memory."""
        return tensor_file.MAX_HEADER + MAX_STREAM * len(self.streams) + MAX_STREAMS * bool(self.config.no_repeat)


def check_state_path(path: str | os.PathLike[str], state: SamplerState) -> None:
    """Make sure that a state can be written to a path.

    Args:
        path: where the state would be written.
        state: a state of as many streams and the same config.

    Raises:
        ChargenError: `path` holds something else, or the disk refuses.
    """
    if os.path.exists(path) and not tensor_file.is_kind(path, STATE_KIND, state.max_header):
        raise ChargenError(f"{path} is not a sampler state and is not overwritten; choose another file")
    if reason := explain_blocked_path(Path(path)):
        raise ChargenError(f"cannot write {path}: {reason}; choose another file")


def save_state(path: str | os.PathLike[str], state: SamplerState) -> None:
    """Write a state, durably.

    Args:
        path: where to write; another state there is replaced.
        state: what to save.

    Raises:
        ChargenError: `path` holds something else, the disk refuses, or the streams remember more than a file may hold.
    """
    check_state_path(path, state)
    arrays = {f"state.{layer}": array for layer, array in enumerate(state.layers)}
    arrays |= {"logits": state.logits.astype(np.float64)}
    description = {
        "kind": STATE_KIND,
        "format": STATE_FORMAT,
        "direction": state.direction,
        "weights": _digest(state.weights),
        "seed": state.seed,
        "num": len(state.streams),
        "config": {**asdict(state.config), "stop": list(state.config.stop)},
        "streams": [stream.describe() for stream in state.streams],
    }
    advice = "so much text without repetition cannot be remembered: write less of it, or without `no_repeat`"
    tensor_file.save(path, arrays, description, smaller=advice, max_header=state.max_header)


def load_state(path: str | os.PathLike[str], fresh: SamplerState) -> SamplerState:
    """Read and check a state.

    Args:
        path: the file.
        fresh: what the file must belong to; its streams have written nothing and take over what the file says.

    Returns:
        The state, with the streams of `fresh`.

    Raises:
        ModelFileError: the file is damaged, or belongs to another model, direction or number of samples.
    """

    def expected(description: dict[str, Any]) -> tensor_file.Shapes:
        tensor_file.check_format(description, STATE_FORMAT)
        if description["weights"] != _digest(fresh.weights):
            raise ModelFileError("it was saved with another model")
        if description.get("direction", "forward") != fresh.direction:
            raise ModelFileError("it was saved by a sampler that writes in the other direction")
        if description["num"] != len(fresh.streams):
            held = truncate(description["num"], 20)
            raise ModelFileError(f"its number of samples is {held}; ask for as many (`num={held}`)")
        shapes = {f"state.{layer}": array.shape for layer, array in enumerate(fresh.layers)}
        return shapes | {"logits": fresh.logits.shape}

    arrays, description = tensor_file.load(path, STATE_KIND, expected, fresh.max_header)
    try:
        seed = description["seed"]
        if type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed {repr_short(seed)}")
        for stream, described in zip(fresh.streams, description["streams"], strict=True):
            stream.restore(described)
        layers = tuple(arrays[f"state.{layer}"].copy() for layer in range(len(fresh.layers)))
        for array, dtype in ((arrays["logits"], np.float64), *((layer, np.float32) for layer in layers)):
            with np.errstate(over="ignore"):  # logits are stored in float64, and were float32
                if array.dtype != dtype or not np.isfinite(array.astype(np.float32)).all():
                    raise ValueError("numbers that are not finite, or of another type")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ChargenError, RecursionError) as error:
        raise ModelFileError(f"{path} is not a good {STATE_KIND} file: {truncate(error, 200)}") from error
    return replace(fresh, seed=seed, logits=arrays["logits"].astype(np.float32), layers=layers)


def _digest(weights: Mapping[str, NDArray[Any]]) -> str:
    """The SHA-256, in hexadecimal digits, of all weights and their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].tobytes())
    return digest.hexdigest()
