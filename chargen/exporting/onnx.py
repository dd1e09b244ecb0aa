"""A model as an ONNX file."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from chargen import __version__
from chargen.durable import write_durably
from chargen.errors import DataError, SettingError, format_size
from chargen.exporting.direction import check_reading
from chargen.exporting.tokenizer_file import tokenizer_json
from chargen.model.config import parameter_count
from chargen.storage.model_file import ModelFile

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8
"""Of 2022: every runtime in use reads them."""
MAX_SIZE = 2**31 - 2**24
"""Bytes of the weights: a file of protobuf ends at 2 GiB, and holds the vocabulary too."""
START = bytes([0x08, IR_VERSION, 0x12, 7]) + b"chargen"
"""The first bytes of such a file: its format, and who wrote it."""


def write_onnx(path: Path, file: ModelFile, direction: str = "forward") -> None:
    """Write a model as an ONNX file.

    Args:
        path: the file; an older one is replaced where chargen wrote it.
        file: the model.
        direction: "forward", "backward" or "both".

    Raises:
        SettingError: the model does not read in this direction, the package onnx is missing, or the weights are too
            large for such a file.
        DataError: there is a file that is no ONNX file of chargen's.
        WriteError: the disk refuses the file.
    """
    check_reading(file.config, direction)
    if os.path.exists(path) and not _is_own_file(path):
        raise DataError(f"{path} is no ONNX file that chargen wrote and is not overwritten; choose another name")
    if (size := 4 * parameter_count(file.config, len(file.vocabulary))) > MAX_SIZE:
        raise SettingError(f"{path} would take {format_size(size)}: ONNX files end at 2 GiB; export a folder instead")
    try:
        model = make_onnx(file, direction)
    except ImportError as error:
        raise SettingError("ONNX files need one more package: pip install 'chargen[onnx]'") from error
    write_durably(path, [model.SerializeToString()])


def _is_own_file(path: Path) -> bool:
    if not os.path.isfile(path):  # reading a pipe would block
        return False
    with open(path, "rb") as file:
        return file.read(len(START)) == START


def make_onnx(file: ModelFile, direction: str) -> "onnx.ModelProto":
    """Make a model as an ONNX file holds it, with weights in float32.

    In one direction, the graph has the inputs `ids` (B, T), int64 in the order of reading, and `state` (L, B, S), and
    the outputs `logits` (B, T, V) and `next_state`. In both, its input is `ids` (B, T) in the order of the text, and
    its outputs are `forward_logits`, `backward_logits` and `cloze_logits` (B, T - 2, V), what is expected in the place
    of each id but the first and the last. Properties are those of `describe`.

    Args:
        file: the model.
        direction: "forward", "backward" or "both".
    """
    from onnx import helper

    from chargen.exporting.onnx_graph import Graph

    graph = Graph(file)
    graph.read_both() if direction == "both" else graph.read(direction)
    made = helper.make_graph(graph.nodes, "chargen", graph.inputs, graph.outputs, graph.weights)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="chargen", producer_version=__version__
    )
    helper.set_model_props(model, describe(file, direction))
    return model


def describe(file: ModelFile, direction: str) -> dict[str, str]:
    """Describe what a program needs to know of a model beside its graph.

    Args:
        file: the model.
        direction: "forward", "backward" or "both".

    Returns:
        "direction"; "tokenizer", the content of a `tokenizers` file; and in JSON "begin", the ids that stand before a
        text, in the order of reading; "end", the id of the end symbol or null; "labels", the id that begins a record of
        each label; "never", ids that stand for no text.
    """
    vocabulary = file.vocabulary
    begin = [vocabulary.end_id] if vocabulary.records else vocabulary.encode(file.begin).tolist()
    labels = {label: vocabulary.begin_id(label) for label in vocabulary.labels}
    unknown = [] if vocabulary.unknown_id is None else [vocabulary.unknown_id]
    facts = {
        "begin": begin[::-1] if direction == "backward" else begin,
        "end": vocabulary.end_id,
        "labels": labels,
        "never": [*unknown, *labels.values()],
    }
    written = {name: json.dumps(value) for name, value in facts.items()}
    return {"direction": direction, "tokenizer": tokenizer_json(file), **written}
