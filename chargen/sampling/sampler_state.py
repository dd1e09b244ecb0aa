"""A sampler's saved state: one file that says where every stream stands, and to which weights it belongs."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import Arrays
from chargen.decoding.choose import SampleConfig
from chargen.decoding.numpy_engine import State
from chargen.durable import explain_blocked_path
from chargen.errors import ChargenError, ModelFileError, SettingError, amount, repr_short, truncate
from chargen.rng import MAX_SEED
from chargen.sampling.stream import Stream
from chargen.storage import tensor_file

STATE_FORMAT = 1
PICKED_FORMAT = 2
"""Of a file whose samples have other numbers than 0, 1, 2 …, which older versions cannot read."""
STATE_KIND = "sampler state"
MAX_INDEX = 2**63 - 1
"""The largest number of a sample."""
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
        return self.max_header_of(len(self.streams))

    def max_header_of(self, streams: int) -> int:
        """The same of a file of the same config with another number of streams."""
        return tensor_file.MAX_HEADER + MAX_STREAM * streams + MAX_STREAMS * bool(self.config.no_repeat)


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
    streams = [stream.describe() for stream in state.streams]
    for row, (stream, described) in enumerate(zip(state.streams, streams, strict=True)):
        described |= {"index": stream.index} if stream.index != row else {}
    description = {
        "kind": STATE_KIND,
        "format": PICKED_FORMAT if any("index" in described for described in streams) else STATE_FORMAT,
        "direction": state.direction,
        "weights": _digest(state.weights),
        "seed": state.seed,
        "num": len(state.streams),
        "config": {**asdict(state.config), "stop": list(state.config.stop)},
        "streams": streams,
    }
    advice = "so much text without repetition cannot be remembered: write less of it, or without `no_repeat`"
    tensor_file.save(path, arrays, description, smaller=advice, max_header=state.max_header)


def load_state(path: str | os.PathLike[str], fresh: SamplerState, pick: int | None = None) -> SamplerState:
    """Read and check a state.

    Args:
        path: the file.
        fresh: what the file must belong to; its streams have written nothing and take over what the file says.
        pick: which of the file's samples the only stream of `fresh` takes over, counted from 1; None: all.

    Returns:
        The state, with the streams of `fresh`.

    Raises:
        ModelFileError: the file is damaged, or belongs to another model, direction or number of samples.
        SettingError: the file has no such sample.
    """
    max_header = fresh.max_header
    if pick is not None and os.path.isfile(path):  # as many samples as such a file can hold
        stream_size = 8 * fresh.logits.shape[1] + sum(4 * layer.shape[1] for layer in fresh.layers)
        max_header = fresh.max_header_of(os.path.getsize(path) // stream_size)

    arrays, description = tensor_file.load(
        path, STATE_KIND, lambda description: _expected_shapes(description, fresh, pick), max_header
    )
    num = description["num"]
    if pick is not None and pick > num:
        raise SettingError(f"pick is {pick}: {path} holds {amount(num, 'sample')}, so give 1 to {num:,}", "pick")
    try:
        return _take_over(arrays, description, fresh, slice(None) if pick is None else slice(pick - 1, pick))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ChargenError, RecursionError) as error:
        raise ModelFileError(f"{path} is not a good {STATE_KIND} file: {truncate(error, 200)}") from error


def _expected_shapes(description: dict[str, Any], fresh: SamplerState, pick: int | None) -> tensor_file.Shapes:
    """The shapes of a file's arrays; an error where the file belongs to something else."""
    tensor_file.check_format(description, PICKED_FORMAT if description["format"] == PICKED_FORMAT else STATE_FORMAT)
    if description["weights"] != _digest(fresh.weights):
        raise ModelFileError("it was saved with another model")
    if description.get("direction", "forward") != fresh.direction:
        raise ModelFileError("it was saved by a sampler that writes in the other direction")
    num = description["num"]
    if pick is None and num != len(fresh.streams):
        held = truncate(num, 20)
        raise ModelFileError(
            f"its number of samples is {held}; ask for as many (`num={held}`), or for one of them (`pick=1`)"
        )
    if type(num) is not int or num < 1:
        raise ValueError(f"its number of samples is {repr_short(num)}")
    shapes = {f"state.{layer}": (num, *array.shape[1:]) for layer, array in enumerate(fresh.layers)}
    return shapes | {"logits": (num, *fresh.logits.shape[1:])}


def _take_over(arrays: Arrays, description: dict[str, Any], fresh: SamplerState, rows: slice) -> SamplerState:
    """The state of some rows, with the streams of `fresh`."""
    seed, described = description["seed"], description["streams"]
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {repr_short(seed)}")
    if type(described) is not list or len(described) != description["num"]:
        raise ValueError("as many streams as samples are needed")
    for row, stream in zip(range(len(described))[rows], fresh.streams, strict=True):
        stream.restore(described[row])
        stream.index = _read_index(described[row].get("index", row))
    layers = tuple(arrays[f"state.{layer}"][rows].copy() for layer in range(len(fresh.layers)))
    logits = arrays["logits"][rows]
    for array, dtype in ((logits, np.float64), *((layer, np.float32) for layer in layers)):
        with np.errstate(over="ignore"):  # logits are stored in float64, and were float32
            if array.dtype != dtype or not np.isfinite(array.astype(np.float32)).all():
                raise ValueError("numbers that are not finite, or of another type")
    return replace(fresh, seed=seed, logits=logits.astype(np.float32), layers=layers)


def _read_index(index: Any) -> int:
    if type(index) is not int or not 0 <= index <= MAX_INDEX:
        raise ValueError(f"sample {repr_short(index)}")
    return index


def _digest(weights: Mapping[str, NDArray[Any]]) -> str:
    """The SHA-256, in hexadecimal digits, of all weights and their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].tobytes())
    return digest.hexdigest()
