"""Named arrays and a description in one safetensors file, with a checksum of the whole.

The file is written here and not by the safetensors library, so that equal content gives equal bytes with any version
of it, and bf16 needs no torch; the tests read it back with the library. Reading is stricter than the library's.

The description is canonical JSON in the one metadata key `chargen`. It holds a SHA-256 over the whole file with its
own digits taken as zeros. The checksum detects damage; it does not authenticate: whoever changes a file can sign it
anew. So everything is checked before it is believed, and nothing in a file is ever run.
"""

import codecs
import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from chargen.data.file_kind import PEEK_SIZE, describe_non_text
from chargen.durable import write_durably
from chargen.errors import ModelFileError, SettingError, WriteError, amount, repr_short, truncate
from chargen.suggestions import similar_path

KEY = "chargen"
ZEROS = "0" * 64
MAX_HEADER = 1_000_000
"""Bytes, enough for 30,000 characters: parsed, a hostile header takes up to 44 times as many."""
DTYPES = {"F64": "<f8", "F32": "<f4", "BF16": "<u2", "I8": "|i1"}
_NAMES = {np.dtype(code): name for name, code in DTYPES.items()}

Arrays = dict[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]


def canonical(description: Mapping[str, Any]) -> str:
    """The one JSON text of a description: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)


def pack(arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any], max_header: int = MAX_HEADER) -> bytes:
    """The bytes of a file; equal arrays and descriptions give equal bytes.

    The arrays are float64, float32, bf16 bits in uint16, or int8; they stand by falling size of their numbers, then by
    name, each aligned to its size. Raises ValueError for another type, or for a description that JSON cannot hold;
    SettingError for one that takes more than `max_header` bytes.
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    entries: dict[str, Any] = {}
    end = 0
    for name in order:
        array = arrays[name]
        if name == "__metadata__":
            raise ValueError("no array can be named __metadata__: that is where a file holds its description")
        if array.dtype not in _NAMES:
            raise ValueError(
                f"array {name} is {array.dtype}: a file holds float64, float32, bf16 bits in uint16, or int8"
            )
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    data = b"".join(arrays[name].tobytes() for name in order)
    unsigned = _head(entries, description, ZEROS)
    if (size := len(unsigned) - 8) > max_header:
        raise SettingError(f"its description takes {amount(size, 'byte')}, more than {max_header:,}")
    return _head(entries, description, hashlib.sha256(unsigned + data).hexdigest()) + data


def header_size(description: Mapping[str, Any]) -> int:
    """The bytes of a header without arrays that holds a description."""
    return len(_head({}, description, ZEROS)) - 8


def _head(entries: Mapping[str, Any], description: Mapping[str, Any], digest: str) -> bytes:
    """The safetensors header: its length in eight bytes, then JSON, padded with spaces to a multiple of eight."""
    signed = canonical({**description, "sha256": digest})
    text = json.dumps({"__metadata__": {KEY: signed}, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def save(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    description: Mapping[str, Any],
    *,
    smaller: str = "describe less",
    max_header: int = MAX_HEADER,
) -> None:
    """Write arrays and description to `path` durably.

    Args:
        smaller: advice where the description is too large.

    Raises WriteError where the disk refuses, and for a link to what is no file of this kind; else as `pack`.
    """
    try:
        data = pack(arrays, description, max_header)
    except SettingError as error:
        raise SettingError(f"cannot write {path}: {error}; {smaller}") from error
    if os.path.islink(path) and not is_kind(path, description["kind"], max_header):
        raise WriteError(f"cannot write {path}: it is a link to something that is no {description['kind']} file")
    write_durably(path, [data])


def load(
    path: str | os.PathLike[str], kind: str, expected_shapes: Callable[[Any], Shapes], max_header: int = MAX_HEADER
) -> tuple[Arrays, dict[str, Any]]:
    """Read and check a file: header, checksum, description, then names, types, shapes and sizes, before any array.

    Args:
        kind: what the file must say it is.
        expected_shapes: from the description, the name and shape of every array that must be there.

    Returns the arrays (read-only views of the file's bytes; bf16 as uint16) and the description.
    Raises ModelFileError in one line, whatever the file holds.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ModelFileError(f"cannot read {path}: it is {'a folder' if os.path.isdir(path) else 'no file'}")
        data = Path(path).read_bytes()
    except OSError as error:
        meant = similar_path(path) if isinstance(error, FileNotFoundError) else ""
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}{meant}") from error
    try:
        return unpack(data, kind, expected_shapes, max_header)
    except ModelFileError as error:
        what = _other_kind(data[:PEEK_SIZE], kind) or error
        raise ModelFileError(f"{path} is not a good {kind} file: {what}") from error


def _other_kind(start: bytes, kind: str) -> str:
    """What a file is that is none of this kind, and what to do; "" where it may be a damaged one."""
    if start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, such as a server sends in place of a file; fetch the file itself"
    small = int.from_bytes(start[:8], "little") < 1 << 32
    if len(start) < 8 or (small and start[8:9] == b"{"):
        return ""
    what, advice = describe_non_text(start, "latin-1") or ("", "")
    if what and not what.startswith("no text"):
        return f"it is {what}" + f"; {advice}" * bool(advice)
    if small or what:  # what is small may be a header's size
        return "" if small else "it is no model file"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return ""
    plain = all(character.isprintable() or character.isspace() for character in text[:1000])
    return ("it is a text" + "; chargen train makes a model of one" * (kind == "model")) if plain else ""


def is_kind(path: str | os.PathLike[str], kind: str, max_header: int = MAX_HEADER) -> bool:
    """True where a file says that it is of this kind; nothing else of it is checked."""
    if not os.path.isfile(path):  # a pipe would be waited for
        return False
    try:
        with open(path, "rb") as file:
            data = file.read(8 + max_header)
        return bool(_description(_header(data, max_header)[0]).get("kind") == kind)
    except (OSError, ModelFileError):
        return False


def unpack(
    data: bytes, kind: str, expected_shapes: Callable[[Any], Shapes], max_header: int = MAX_HEADER
) -> tuple[Arrays, dict[str, Any]]:
    """As `load`, from the bytes of a file."""
    header, start = _header(data, max_header)
    description = _description(header)
    _check_signature(data[:start], data, description)
    if description.get("kind") != kind:
        raise ModelFileError(f"it is a file of another kind, {truncate(description.get('kind'), write=repr)}")
    try:
        expected = expected_shapes(description)
    except SettingError as error:
        raise ModelFileError(truncate(error, 200)) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"its description is incomplete: {type(error).__name__} {truncate(error)}") from error
    arrays: Arrays = {}
    end = 0
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if entries.keys() != expected.keys():
        odd = sorted(entries.keys() ^ expected.keys())
        raise ModelFileError(f"its arrays do not fit its settings ({truncate(odd[0])}, {len(odd)} in all)")
    for name, entry in sorted(entries.items(), key=lambda item: _offsets(item[1])):
        dtype, shape = _type(entry), tuple(expected[name])
        if entry.get("shape") != list(shape) or any(type(side) is not int for side in entry["shape"]):
            raise ModelFileError(f"array {name} has another shape than its settings say, {shape}")
        size = dtype.itemsize * math.prod(shape)
        if _offsets(entry) != (end, end + size) or start + end + size > len(data):
            raise ModelFileError(f"array {name} does not lie where {amount(size, 'byte')} of it must")
        arrays[name] = np.frombuffer(data, dtype, math.prod(shape), start + end).reshape(shape)
        end += size
    if start + end != len(data):
        raise ModelFileError(f"{amount(len(data) - start - end, 'byte')} behind the last array")
    return arrays, description


def check_format(description: Mapping[str, Any], known: int, more: str = "") -> None:
    """Raise ModelFileError where a description has another format number than the one this version reads.

    Args:
        more: what follows from it, at the end of the line.
    """
    found = description["format"]
    if type(found) is not int or found != known:
        words = (
            f"format {repr_short(found)} is not known to this version (it reads {known}): another one wrote it{more}"
        )
        raise ModelFileError(words)


def _header(data: bytes, max_header: int) -> tuple[dict[str, Any], int]:
    """The parsed header and where the arrays begin."""
    if len(data) < 8:
        raise ModelFileError(f"it is too short: {amount(len(data), 'byte')}")
    (size,) = struct.unpack("<Q", data[:8])
    if size > min(len(data) - 8, max_header):
        most = f", or the {max_header:,} that are read" * (size > max_header)
        raise ModelFileError(f"a header of {amount(size, 'byte')} does not fit its {amount(len(data), 'byte')}{most}")
    try:
        header = _parse(data[8 : 8 + size].decode())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"its header is not JSON ({truncate(error)})") from error
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise ModelFileError("its header is not a table of arrays")
    return header, 8 + size


def _parse(text: str) -> Any:
    """JSON as `canonical` writes it: no name twice, no NaN, no Infinity. Raises ValueError or RecursionError."""
    return json.loads(text, object_pairs_hook=_no_duplicates, parse_float=_finite, parse_constant=_no_constant)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{truncate(text)} is too large")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _description(header: dict[str, Any]) -> dict[str, Any]:
    try:
        description = _parse(header["__metadata__"][KEY])
    except KeyError as error:
        raise ModelFileError("chargen did not write it") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"its description is not JSON ({truncate(error)})") from error
    if not isinstance(description, dict):
        raise ModelFileError("its description is not a table")
    return description


def _signature(digest: str) -> bytes:
    """How the digest stands in the file: JSON inside JSON, so the quotes are escaped."""
    return rf"\"sha256\":\"{digest}\"".encode()


def _check_signature(head: bytes, data: bytes, description: dict[str, Any]) -> None:
    digest = description.get("sha256")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest) or head.count(_signature(digest)) != 1:
        raise ModelFileError("it carries no checksum")
    at = head.index(_signature(digest))
    actual = hashlib.sha256(head[:at] + _signature(ZEROS) + head[at + len(_signature(digest)) :])
    actual.update(memoryview(data)[len(head) :])
    if actual.hexdigest() != digest:
        raise ModelFileError("it is damaged: its checksum does not fit; take a fresh copy")


def _type(entry: dict[str, Any]) -> np.dtype[Any]:
    name = entry.get("dtype")
    if not isinstance(name, str) or name not in DTYPES:
        raise ModelFileError("an array has a type that chargen does not write")
    return np.dtype(DTYPES[name])


def _offsets(entry: dict[str, Any]) -> tuple[int, int]:
    offsets = entry.get("data_offsets")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(place) is int for place in offsets):
        raise ModelFileError("an array has no place in the file")
    return offsets[0], offsets[1]
