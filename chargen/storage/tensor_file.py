"""Named arrays and a description in one safetensors file, with a checksum of the whole file.

The file is written without the safetensors library, so that equal content gives equal bytes with any version of the
library, and bf16 needs no torch; the tests read it back with the library. Reading is stricter than the library's.

The description is canonical JSON in the one metadata key `chargen`. It holds a SHA-256 of the whole file, computed with
its own digits replaced by zeros. The checksum detects damage; it does not authenticate, since whoever changes a file
can compute it again. So everything in a file is checked before it is used, and nothing in a file is ever run.
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

from chargen.arguments import Arrays
from chargen.data.file_kind import PEEK_SIZE, describe_non_text
from chargen.durable import write_durably
from chargen.errors import ModelFileError, SettingError, WriteError, amount, repr_short, truncate
from chargen.suggestions import similar_path

KEY = "chargen"
ZEROS = "0" * 64
"""The place of the checksum's digits while the checksum is computed."""
MAX_HEADER = 1_000_000
"""Bytes, enough for 30,000 characters; parsing a hostile header takes up to 44 times as much memory."""
DTYPES = {"F64": "<f8", "F32": "<f4", "BF16": "<u2", "I8": "|i1", "U8": "|u1", "I16": "<i2", "I32": "<i4"}
_NAMES = {np.dtype(code): name for name, code in DTYPES.items()}

Shapes = Mapping[str, tuple[int, ...]]


def canonical_json(description: Mapping[str, Any]) -> str:
    """Write a description as its only JSON text: sorted keys, no spaces, ASCII, no NaN.

    Args:
        description: what JSON can hold.

    Raises:
        ValueError: it holds NaN or an infinity.
    """
    return json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)


def pack(arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any], max_header: int = MAX_HEADER) -> bytes:
    """Make the bytes of a file; equal arrays and descriptions give equal bytes.

    Arrays are ordered by falling size of their numbers, then by name, so that each is aligned to its numbers' size.

    Args:
        arrays: float64, float32, bf16 bits in uint16, int8, uint8, int16 or int32, by name.
        description: what JSON can hold.
        max_header: the most bytes that the header may take.

    Raises:
        ValueError: an array has another type, or JSON cannot hold the description.
        SettingError: the header takes more than `max_header` bytes.
    """
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    entries: dict[str, Any] = {}
    end = 0
    for name in names:
        array = arrays[name]
        if name == "__metadata__":
            raise ValueError("no array can be named __metadata__: that is where a file holds its description")
        if array.dtype not in _NAMES:
            raise ValueError(
                f"array {name} is {array.dtype}: a file holds float64, float32, bf16 bits in uint16, and whole "
                "numbers in int8, uint8, int16 or int32"
            )
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    data = b"".join(arrays[name].tobytes() for name in names)
    header = _make_header(entries, description, ZEROS)
    if (size := len(header) - 8) > max_header:
        raise SettingError(f"its description takes {amount(size, 'byte')}, more than {max_header:,}")
    return _make_header(entries, description, hashlib.sha256(header + data).hexdigest()) + data


def header_size(description: Mapping[str, Any]) -> int:
    """The size in bytes of a header that holds a description and no arrays.

    Args:
        description: what JSON can hold.
    """
    return len(_make_header({}, description, ZEROS)) - 8


def _make_header(entries: Mapping[str, Any], description: Mapping[str, Any], digest: str) -> bytes:
    """The safetensors header: its length in eight bytes, then JSON, padded with spaces to a multiple of eight."""
    described = canonical_json({**description, "sha256": digest})
    header = json.dumps({"__metadata__": {KEY: described}, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def save(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    description: Mapping[str, Any],
    *,
    smaller: str = "describe less",
    max_header: int = MAX_HEADER,
) -> None:
    """Write arrays and a description to a file, durably.

    Args:
        path: the file.
        arrays: float64, float32, bf16 bits in uint16, int8, uint8, int16 or int32, by name.
        description: what JSON can hold; its "kind" names the kind of file.
        smaller: the advice of the message where the description is too large.
        max_header: the most bytes that the header may take.

    Raises:
        WriteError: the disk refuses the file, or the path is a link to a file of another kind.
        ValueError: an array has another type, or JSON cannot hold the description.
        SettingError: the header takes more than `max_header` bytes.
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
        path: the file.
        kind: what the file must say it is.
        expected_shapes: returns, for a description, the name and shape of every array that must be there.
        max_header: the most bytes that the header may take.

    Returns:
        The arrays (read-only views of the file's bytes; bf16 as uint16) and the description.

    Raises:
        ModelFileError: the file cannot be read or is not a good one, whatever it holds.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ModelFileError(f"cannot read {path}: it is {'a folder' if os.path.isdir(path) else 'no file'}")
        data = Path(path).read_bytes()
    except OSError as error:
        suggestion = similar_path(path) if isinstance(error, FileNotFoundError) else ""
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}{suggestion}") from error
    try:
        return unpack(data, kind, expected_shapes, max_header)
    except ModelFileError as error:
        reason = _describe_foreign_file(data[:PEEK_SIZE], kind) or error
        raise ModelFileError(f"{path} is not a good {kind} file: {reason}") from error


def _describe_foreign_file(start: bytes, kind: str) -> str:
    """What a file is that chargen did not write, and what to do; "" where it may be a damaged file of chargen's."""
    if start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, such as a server sends in place of a file; fetch the file itself"
    may_be_size = int.from_bytes(start[:8], "little") < 1 << 32  # of a safetensors header
    if len(start) < 8 or (may_be_size and start[8:9] == b"{"):
        return ""
    what, advice = describe_non_text(start, "latin-1") or ("", "")
    if what and not what.startswith("no text"):
        return f"it is {what}" + f"; {advice}" * bool(advice)
    if may_be_size:
        return ""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        what = "no text"
    return f"it is no {kind} file" if what else "it is a text" + "; training on it makes a model" * (kind == "model")


def is_kind(path: str | os.PathLike[str], kind: str, max_header: int = MAX_HEADER) -> bool:
    """Whether a file says that it is of this kind; nothing else in it is checked.

    Args:
        path: the file, which need not exist.
        kind: the kind.
        max_header: the most bytes that its header may take.
    """
    return bool(peek(path, max_header).get("kind") == kind)


def peek(path: str | os.PathLike[str], max_header: int = MAX_HEADER) -> dict[str, Any]:
    """Read the description of a file without its arrays. Nothing is checked: it may say anything.

    Args:
        path: the file, which need not exist.
        max_header: the most bytes that its header may take.

    Returns:
        The description; empty where there is none.
    """
    if not os.path.isfile(path):  # reading a pipe would block
        return {}
    try:
        with open(path, "rb") as file:
            data = file.read(8 + max_header)
        return _read_description(_read_header(data, max_header)[0])
    except (OSError, ModelFileError):
        return {}


def unpack(
    data: bytes, kind: str, expected_shapes: Callable[[Any], Shapes], max_header: int = MAX_HEADER
) -> tuple[Arrays, dict[str, Any]]:
    """Read and check the bytes of a file: header, checksum, description, then names, types, shapes and sizes.

    Args:
        data: all bytes of the file.
        kind: what the file must say it is.
        expected_shapes: returns, for a description, the name and shape of every array that must be there.
        max_header: the most bytes that the header may take.

    Returns:
        The arrays (read-only views of `data`; bf16 as uint16) and the description.

    Raises:
        ModelFileError: the bytes are not a good file of this kind, whatever they are.
    """
    header, start = _read_header(data, max_header)
    description = _read_description(header)
    _check_digest(data[:start], data, description)
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
    if names := sorted(entries.keys() ^ expected.keys()):
        raise ModelFileError(f"its arrays do not fit its settings ({truncate(names[0])}, {len(names)} in all)")
    for name, entry in sorted(entries.items(), key=lambda item: _read_offsets(item[1])):
        dtype, shape = _read_dtype(entry), tuple(expected[name])
        if entry.get("shape") != list(shape) or any(type(number) is not int for number in entry["shape"]):
            raise ModelFileError(f"array {name} has another shape than its settings say, {shape}")
        size = dtype.itemsize * math.prod(shape)
        if _read_offsets(entry) != (end, end + size) or start + end + size > len(data):
            raise ModelFileError(f"array {name} does not lie where {amount(size, 'byte')} of it must")
        arrays[name] = np.frombuffer(data, dtype, math.prod(shape), start + end).reshape(shape)
        end += size
    if start + end != len(data):
        raise ModelFileError(f"{amount(len(data) - start - end, 'byte')} behind the last array")
    return arrays, description


def check_format(description: Mapping[str, Any], known: int, consequence: str = "") -> None:
    """Check that a description has the format number that this version reads.

    Args:
        description: the description.
        known: the number.
        consequence: ends the message.

    Raises:
        ModelFileError: it has another number.
    """
    number = description["format"]
    if type(number) is not int or number != known:
        unknown = f"format {repr_short(number)} is not known to this version (it reads {known})"
        raise ModelFileError(f"{unknown}: another one wrote it{consequence}")


def _read_header(data: bytes, max_header: int) -> tuple[dict[str, Any], int]:
    """The parsed header and the offset at which the arrays begin."""
    if len(data) < 8:
        raise ModelFileError(f"it is too short: {amount(len(data), 'byte')}")
    (size,) = struct.unpack("<Q", data[:8])
    if size > min(len(data) - 8, max_header):
        limit = f", or the {max_header:,} that are read" * (size > max_header)
        raise ModelFileError(f"a header of {amount(size, 'byte')} does not fit its {amount(len(data), 'byte')}{limit}")
    try:
        header = _parse_json(data[8 : 8 + size].decode())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"its header is not JSON ({truncate(error)})") from error
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise ModelFileError("its header is not a table of arrays")
    return header, 8 + size


def _parse_json(text: str) -> Any:
    """Parse JSON, but refuse a name that occurs twice, NaN and infinities; ValueError or RecursionError."""
    return json.loads(text, object_pairs_hook=_to_table, parse_float=_parse_finite, parse_constant=_refuse_constant)


def _parse_finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{truncate(text)} is too large")
    return value


def _to_table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _read_description(header: dict[str, Any]) -> dict[str, Any]:
    try:
        description = _parse_json(header["__metadata__"][KEY])
    except KeyError as error:
        raise ModelFileError("chargen did not write it") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"its description is not JSON ({truncate(error)})") from error
    if not isinstance(description, dict):
        raise ModelFileError("its description is not a table")
    return description


def _digest_field(digest: str) -> bytes:
    """The bytes of the field that holds the digest: JSON inside JSON, so the quotes are escaped."""
    return rf"\"sha256\":\"{digest}\"".encode()


def _check_digest(header: bytes, data: bytes, description: dict[str, Any]) -> None:
    """Check the SHA-256 of the file; `header` is the first part of `data`."""
    digest = description.get("sha256")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ModelFileError("it carries no checksum")
    if header.count(field := _digest_field(digest)) != 1:
        raise ModelFileError("it carries no checksum")
    actual = hashlib.sha256(header.replace(field, _digest_field(ZEROS)))
    actual.update(memoryview(data)[len(header) :])
    if actual.hexdigest() != digest:
        raise ModelFileError("it is damaged: its checksum does not fit; take a fresh copy")


def _read_dtype(entry: dict[str, Any]) -> np.dtype[Any]:
    name = entry.get("dtype")
    if not isinstance(name, str) or name not in DTYPES:
        raise ModelFileError("an array has a type that chargen does not write")
    return np.dtype(DTYPES[name])


def _read_offsets(entry: dict[str, Any]) -> tuple[int, int]:
    """Where an array begins and ends, counted from the end of the header."""
    offsets = entry.get("data_offsets")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise ModelFileError("an array has no place in the file")
    return offsets[0], offsets[1]
