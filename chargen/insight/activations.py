"""What is inside a model while it reads: the hidden states after every character, as arrays in memory and in a file."""

import io
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import CODE_POINTS, code_points, from_code_points
from chargen.durable import write_durably
from chargen.errors import ModelFileError, SettingError, amount, truncate
from chargen.model.config import DIRECTIONS, GATE_NUMBERS
from chargen.settings import check_int, check_path

Floats = NDArray[np.float16]
GATE = "gate_"
"""Begins the names of gates in a file."""
MAX_HEADER = 200
"""Bytes of the line that has the type and the shape of an array."""
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(<f2|<i8|<u4|<U\d\d?)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)


@dataclass(frozen=True, eq=False)
class Activations:
    """The hidden states of a model after each character of some texts, which it reads in one direction.

    Args:
        text: the N characters of all texts, one text behind the other.
        starts: (K + 1,), where each of K texts begins, and N.
        direction: "forward", or "backward": then a state has read its character and those behind it.
        hidden: (L, N, H), the hidden states of each layer, in float16.
        cells: (L, N, H), the cells of an LSTM; None where they were not asked for.
        gates: (L, N, H) by name, from 0 to 1: "input", "forget" and "output" of an LSTM, "reset" and "update" of a GRU;
            empty where they were not asked for.
    """

    text: str
    starts: NDArray[np.int64]
    direction: str
    hidden: Floats
    cells: Floats | None = None
    gates: dict[str, Floats] = field(default_factory=dict)

    def __repr__(self) -> str:
        layers, characters, size = self.hidden.shape
        parts = [amount(characters, "character"), *([amount(len(self), "text")] if len(self) != 1 else [])]
        parts += [f"{layers} x {size}", self.direction, *(["cells"] if self.cells is not None else []), *self.gates]
        return f"Activations({', '.join(parts)})"

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> "Activations":
        """The activations of one of the texts."""
        begin, end = (int(self.starts[range(len(self))[number] + side]) for side in range(2))
        return self.cut(begin, end)

    def cut(self, begin: int, end: int) -> "Activations":
        """Cut out some characters, as one text; arrays share their memory.

        Args:
            begin: the first of them.
            end: the one to stop before.
        """
        text = self.text[begin:end]
        arrays = {name: array[:, begin:end] for name, array in self.arrays().items()}
        return from_arrays(text, np.array([0, len(text)]), self.direction, arrays)

    def arrays(self) -> dict[str, Floats]:
        """The arrays (L, N, H) by name: "hidden", "cells" and "gate_" with the name of a gate."""
        cells = {} if self.cells is None else {"cells": self.cells}
        return {"hidden": self.hidden, **cells, **{GATE + name: array for name, array in self.gates.items()}}

    @property
    def last(self) -> NDArray[np.float32]:
        """The hidden states (L, K, H) once each of K texts is read: vectors of each layer. Zeros of an empty text."""
        begins, ends = self.starts[:-1], self.starts[1:]
        places = ends - 1 if self.direction == "forward" else begins
        last = np.zeros((self.hidden.shape[0], len(self), self.hidden.shape[2]), np.float32)
        full = ends > begins
        last[:, full] = self.hidden[:, places[full]]
        return last

    def unit(self, layer: int, unit: int) -> NDArray[np.float32]:
        """The values (N,) of a hidden unit.

        Args:
            layer: from 1.
            unit: from 0.

        Raises:
            SettingError: there is no such hidden unit.
        """
        layer, unit = check_neuron(layer, unit, self.hidden.shape[0], self.hidden.shape[2])
        return self.hidden[layer - 1, :, unit].astype(np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file, which `load_activations` reads, and `numpy.load`.

        Args:
            path: the file.

        Raises:
            WriteError: the disk refuses.
        """
        arrays: dict[str, NDArray[Any]] = {
            "text": code_points(self.text),
            "starts": self.starts,
            "direction": np.array(self.direction),
        }
        write_durably(check_path("path", path), _zip_arrays(arrays | self.arrays()))


def check_neuron(layer: Any, unit: Any, layers: int, size: int) -> tuple[int, int]:
    """Check that a model has a hidden unit, and return its layer and its number as ints.

    Args:
        layer: from 1.
        unit: from 0.
        layers: L.
        size: H.

    Raises:
        SettingError: it has none.
    """
    layer, unit = check_int("layer", layer, 0), check_int("unit", unit, 0)
    if not 1 <= layer <= layers:
        numbers = "layer 1 only" if layers == 1 else f"layers 1 to {layers}"
        raise SettingError(f"there is no layer {layer}: this model has {numbers}")
    if unit >= size:
        raise SettingError(f"there is no hidden unit {unit} in layer {layer}: its hidden units are 0 to {size - 1}")
    return layer, unit


def load_activations(path: str | os.PathLike[str]) -> Activations:
    """Read a file that `Activations.save` wrote. Nothing in it is ever run.

    Args:
        path: the file.

    Raises:
        SettingError: it is no path.
        ModelFileError: there is no such file, or it is damaged or holds something else.
    """
    try:
        with zipfile.ZipFile(check_path("path", path)) as archive:
            arrays = {entry.filename.removesuffix(".npy"): _read_array(archive, entry) for entry in archive.infolist()}
            if len(arrays) < len(archive.infolist()):
                raise ValueError("an array stands there twice")
        return _check_arrays(arrays)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, OverflowError, zipfile.BadZipFile, RuntimeError, EOFError) as error:
        raise ModelFileError(f"{path} is not a good file of activations: {truncate(error, 200)}") from error


def from_arrays(text: str, starts: NDArray[np.int64], direction: str, arrays: Mapping[str, Floats]) -> Activations:
    """Make activations of what `Activations.arrays` returns.

    Args:
        text: the N characters of all texts.
        starts: (K + 1,), where each text begins, and N.
        direction: "forward" or "backward".
        arrays: (L, N, H) by name.
    """
    gates = {name.removeprefix(GATE): array for name, array in arrays.items() if name.startswith(GATE)}
    return Activations(text, starts, direction, arrays["hidden"], arrays.get("cells"), gates)


def _check_arrays(arrays: dict[str, NDArray[Any]]) -> Activations:
    """The activations that a file holds; ValueError or KeyError where it holds something else."""
    codes, starts, words = (arrays.pop(name) for name in ("text", "starts", "direction"))
    gates = {GATE + name for names in GATE_NUMBERS.values() for name in names}
    if not {"hidden"} <= arrays.keys() <= {"hidden", "cells"} | gates:
        raise ValueError(f"its arrays are {', '.join(sorted(arrays))}")
    kinds = (codes, np.uint32, 1), (starts, np.int64, 1), *((array, np.float16, 3) for array in arrays.values())
    if any(array.dtype != kind or array.ndim != dimensions for array, kind, dimensions in kinds):
        raise ValueError("an array has another type or shape")
    shape = arrays["hidden"].shape
    if shape[1] != len(codes) or any(array.shape != shape for array in arrays.values()):
        raise ValueError(f"its arrays do not fit its {amount(len(codes), 'character')}")
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(codes) or (np.diff(starts) < 0).any():
        raise ValueError("its texts do not fit its characters")
    direction = next((name for name in DIRECTIONS if not words.ndim and (words == name).all()), "")
    if (codes >= CODE_POINTS).any() or not direction:
        raise ValueError("its text is none, or its direction")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("it holds numbers that are not finite")
    return from_arrays(from_code_points(codes), starts, direction, arrays)


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """An array of an .npz file, whose header is checked before memory is taken for it.

    The header is a Python literal, of which this reads the form that NumPy writes: literals are evaluated nowhere.
    """
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise ValueError(f"{truncate(entry.filename)} is packed")
    with archive.open(entry) as file:
        header = _HEADER.fullmatch(file.readline(MAX_HEADER))
        if not header:
            raise ValueError(f"{truncate(entry.filename)} is in another format")
        dtype, shape = np.dtype(header[1].decode()), tuple(map(int, re.findall(rb"\d+", header[2])))
        if header.end() + math.prod(shape) * dtype.itemsize != entry.file_size:
            raise ValueError(f"{truncate(entry.filename)} does not have the size that its header says")
        data = file.read()
    return np.frombuffer(data, dtype).reshape(shape)


class _Sink(io.RawIOBase):
    """Collects what is written, until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: list[bytes] = []

    def writable(self) -> bool:
        """Whether it can be written, as zipfile asks."""
        return True

    def write(self, data: Any) -> int:
        """Keep some bytes."""
        self._blocks.append(bytes(data))
        return len(self._blocks[-1])

    def take(self) -> list[bytes]:
        """Hand over what was written since the last call."""
        blocks, self._blocks = self._blocks, []
        return blocks


def _zip_arrays(arrays: Mapping[str, NDArray[Any]]) -> Iterator[bytes]:
    """The bytes of an .npz file, which `numpy.savez` would write to a file that a kill leaves half written."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
                np.lib.format.write_array_header_1_0(entry, header)
                for part in array if array.ndim > 1 else [array]:
                    entry.write(part.tobytes())
                    yield from sink.take()
    yield from sink.take()
