"""Named arrays and a description in one file that anyone's safetensors can open, with a checksum of the whole.

The description is canonical JSON in the one metadata key `chargen`. It holds a SHA-256 over the whole file with its
own digits taken as zeros. The checksum detects damage; it does not authenticate: whoever changes a file can sign it
anew. So everything is checked before it is believed, and nothing in a file is ever run.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from chargen.durable import write_durably
from chargen.errors import ModelFileError, SettingError

KEY = "chargen"
ZEROS = "0" * 64
MAX_HEADER = 100_000_000
DTYPES: dict[str, str] = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "BF16": "<u2", "U8": "|u1"}

Arrays = dict[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]


def canonical(description: Mapping[str, Any]) -> str:
    """The one JSON text of a description: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)


def pack(arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any]) -> bytes:
    """The bytes of a file; equal arrays and descriptions give equal bytes."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = safetensors.numpy.save(contiguous, {KEY: canonical({**description, "sha256": ZEROS})})
    digest = hashlib.sha256(data).hexdigest()
    return data.replace(_signature(ZEROS), _signature(digest), 1)


def save(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any]) -> None:
    """Write arrays and description to `path` durably. Raises ChargenError where the disk refuses."""
    write_durably(path, [pack(arrays, description)])


def load(
    path: str | os.PathLike[str], kind: str, expected_shapes: Callable[[Any], Shapes]
) -> tuple[Arrays, dict[str, Any]]:
    """Read and check a file: header, checksum, description, then names, types, shapes and sizes, before any array.

    Args:
        kind: what the file must say it is.
        expected_shapes: from the description, the name and shape of every array that must be there.

    Returns the arrays (read-only views of the file's bytes; bf16 as uint16) and the description.
    Raises ModelFileError in one line, whatever the file holds.

    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return unpack(data, kind, expected_shapes)
    except ModelFileError as error:
        raise ModelFileError(f"{path} is not a good {kind} file: {error}") from error


def unpack(data: bytes, kind: str, expected_shapes: Callable[[Any], Shapes]) -> tuple[Arrays, dict[str, Any]]:
    """As `load`, from the bytes of a file."""
    header, start = _header(data)
    description = _description(header)
    _check_signature(data[:start], data, description)
    if description.get("kind") != kind:
        raise ModelFileError(f"it is a {description.get('kind')!r} file")
    try:
        expected = expected_shapes(description)
    except SettingError as error:
        raise ModelFileError(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelFileError(f"its description is incomplete: {type(error).__name__} {error}") from error
    arrays: Arrays = {}
    end = 0
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if entries.keys() != expected.keys():
        odd = sorted(entries.keys() ^ expected.keys())
        raise ModelFileError(f"its arrays do not fit its settings ({odd[0]!r}, {len(odd)} in all)")
    for name, entry in sorted(entries.items(), key=lambda item: _offsets(item[1])):
        dtype, shape = _type_and_shape(entry)
        begin, end_here = _offsets(entry)
        size = dtype.itemsize
        for side in shape:
            size *= side
        if shape != tuple(expected[name]) or begin != end or end_here - begin != size:
            raise ModelFileError(f"array {name} has shape {shape}; its settings say {tuple(expected[name])}")
        end = end_here
        if start + end > len(data):
            raise ModelFileError(f"array {name} ends beyond the file")
        arrays[name] = np.frombuffer(data, dtype, size // dtype.itemsize, start + begin).reshape(shape)
    if start + end != len(data):
        raise ModelFileError(f"{len(data) - start - end} bytes follow the last array")
    return arrays, description


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The parsed header and where the arrays begin."""
    if len(data) < 8:
        raise ModelFileError(f"{len(data)} bytes are too few")
    (size,) = struct.unpack("<Q", data[:8])
    if size > min(len(data) - 8, MAX_HEADER):
        raise ModelFileError(f"a header of {size} bytes does not fit its {len(data)} bytes")
    try:
        header = json.loads(data[8 : 8 + size].decode(), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"its header is not JSON ({error})") from error
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise ModelFileError("its header is not a table of arrays")
    return header, 8 + size


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _description(header: dict[str, Any]) -> dict[str, Any]:
    try:
        description = json.loads(header["__metadata__"][KEY], object_pairs_hook=_no_duplicates)
    except KeyError as error:
        raise ModelFileError("chargen did not write it") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"its description is not JSON ({error})") from error
    if not isinstance(description, dict):
        raise ModelFileError("its description is not a table")
    return description


def _signature(digest: str) -> bytes:
    """How the digest stands in the file: JSON inside JSON, so the quotes are escaped."""
    return rf"\"sha256\":\"{digest}\"".encode()


def _check_signature(head: bytes, data: bytes, description: dict[str, Any]) -> None:
    digest = description.get("sha256")
    if not isinstance(digest, str) or head.count(_signature(digest)) != 1:
        raise ModelFileError("it carries no checksum")
    at = head.index(_signature(digest))
    actual = hashlib.sha256(head[:at] + _signature(ZEROS) + head[at + len(_signature(digest)) :])
    actual.update(memoryview(data)[len(head) :])
    if actual.hexdigest() != digest:
        raise ModelFileError("it is damaged: its checksum does not fit; take a fresh copy")


def _type_and_shape(entry: dict[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    shape = entry.get("shape")
    if entry.get("dtype") not in DTYPES or not isinstance(shape, list) or not all(type(side) is int for side in shape):
        raise ModelFileError("an array has a type or shape that chargen does not write")
    return np.dtype(DTYPES[entry["dtype"]]), tuple(shape)


def _offsets(entry: dict[str, Any]) -> tuple[int, int]:
    offsets = entry.get("data_offsets")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(place) is int for place in offsets):
        raise ModelFileError("an array has no place in the file")
    return offsets[0], offsets[1]
