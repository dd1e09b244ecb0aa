"""The model in a page: what its worker reads, and the worker's script."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.tables import TABLES
from chargen.errors import SettingError
from chargen.evaluation.per_character import name_id
from chargen.model.config import parameter_count
from chargen.pages.render import join_scripts, write_json
from chargen.storage.model_file import ModelFile
from chargen.storage.quantize import as_float32, quantization_of, quantize

SCRIPTS = ("network", "drawing", "text", "worker")
"""The files of the worker's script, in their order; the last one holds the protocol between page and worker."""
LIMIT = 256 * 2**20
"""Parameters of a page's model at most: many more, in base64, would not fit into the longest text that browsers have,
some 2**29 characters."""


def worker_script() -> str:
    """The script of the worker that computes with the model."""
    return join_scripts(*(f"chargen.exporting.{name}" for name in SCRIPTS))


def write_model(file: ModelFile) -> str:
    """Write what the worker reads: the model's shape, its vocabulary, and its weights in int8 with scales.

    Args:
        file: the model; float32 and bf16 weights are quantized. A cloze layer is left out.

    Returns:
        JSON in ASCII, which no parser of HTML takes for markup.

    Raises:
        SettingError: the model writes raw bytes, which are no text, or is too large for a page.
    """
    vocabulary, config, reading = file.vocabulary, file.config, file.reading
    if vocabulary.raw:
        raise SettingError("a page writes text, and this model raw bytes: train one with `encoding` utf-8 for a page")
    parameters = parameter_count(config, len(vocabulary))
    if parameters > LIMIT:
        raise SettingError(f"the model has {parameters:,} parameters: a page holds {LIMIT:,} at most")
    size = len(vocabulary)
    return write_json({
        "cell": config.cell,
        "layers": config.num_layers,
        "hidden": config.hidden_size,
        "inputs": config.input_size,
        "tied": config.tie_weights,
        "directions": config.directions,
        "parameters": parameters,
        "size": size,
        "unit": vocabulary.unit,
        "characters": vocabulary.characters,
        "folded": vocabulary.folded,
        "begins": vocabulary.begin_symbols,
        "labels": vocabulary.labels,
        "names": [name_id(vocabulary, number) for number in range(size)],
        "banned": [*b"\r\n"] if vocabulary.byte_mode and reading.records == "line" else [],
        "begin": file.begin,
        "newline": file.begin if file.begin in ("\r\n", "\r") else "\n",
        "separator": _separator(file),
        "normalize": reading.normalize,
        "counts": None if file.begin or vocabulary.records else [int(count) for count in file.counts],
        "arrays": _pack_arrays(file),
    })  # fmt: skip


def _separator(file: ModelFile) -> str | None:
    """What stands between two records of a draft; None where there are none, or a draft is one."""
    kind = file.reading.records
    if not file.vocabulary.records or kind == "file":
        return None
    if kind is None or kind in TABLES:
        return "\n\n" if file.vocabulary.writes("\n") else "\n"
    return {"line": "\n", "blank-line": "\n\n"}.get(kind, kind.replace("\r\n", "\n").replace("\r", "\n"))


def _pack_arrays(file: ModelFile) -> dict[str, str]:
    """The arrays of both stacks in base64, in little-endian order."""
    arrays = {name: array for name, array in file.arrays.items() if not name.startswith("cloze.")}
    if quantization_of(arrays) != "int8":
        arrays = quantize({name: as_float32(arrays, name) for name in arrays}, "int8")
    return {name: _pack(array) for name, array in arrays.items()}


def _pack(array: NDArray[Any]) -> str:
    packed = array if array.dtype == np.int8 else array.astype("<f4")
    return base64.b64encode(packed.tobytes()).decode()
