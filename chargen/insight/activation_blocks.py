"""Texts read for the activations of a model: many texts side by side, and long ones block by block."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.errors import SettingError
from chargen.evaluation.layout import lay_out
from chargen.insight.activations import GATE, Activations, Floats, from_arrays
from chargen.model.config import GATE_NUMBERS, check_direction
from chargen.settings import check_int
from chargen.storage.model_file import ModelFile

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

BLOCK = 2**17
"""Characters that are read together, at most."""
BLOCK_VALUES = 2**27
"""Numbers of a block, about; models of many hidden units read shorter blocks."""
MIN_BLOCK = 2**14


def read_activations(network: "CharModel", file: ModelFile, texts: Sequence[str], **settings: Any) -> Activations:
    """Read texts, and keep what is inside the model after each character.

    Args:
        network: the model.
        file: its vocabulary and its begin text.
        texts: cleaned as the text that it learned.
        **settings: of `read_blocks`.

    Raises:
        DataError: a text has unknown characters and `unknown` is "error", or it has a lone surrogate.
        SettingError: the model does not read in this direction, does not know a label, or has no cells.
        ChargenError: hidden states are not finite.
    """
    return join_activations(texts, read_blocks(network, file, texts, **settings))


def join_activations(texts: Sequence[str], blocks: Iterable[Activations]) -> Activations:
    """Put blocks together.

    Args:
        texts: what was read.
        blocks: as `read_blocks` yields them.
    """
    text, starts, done = "".join(texts), np.cumsum([0, *map(len, texts)]), 0
    whole: dict[str, Floats] = {}
    direction = "forward"
    for block in blocks:
        arrays, direction = block.arrays(), block.direction
        if len(block.text) == len(text):
            return from_arrays(text, starts, direction, arrays)
        for name, array in arrays.items():
            if not done:
                whole[name] = np.empty((array.shape[0], len(text), array.shape[2]), np.float16)
            whole[name][:, done : done + len(block.text)] = array
        done += len(block.text)
    return from_arrays(text, starts, direction, whole)


def read_blocks(
    network: "CharModel",
    file: ModelFile,
    texts: Sequence[str],
    *,
    labels: Sequence[str | None] | None = None,
    direction: str = "forward",
    cells: bool = False,
    gates: bool = False,
    unknown: str | None = None,
    precision: str = "fp32",
    size: int | None = None,
) -> Iterator[Activations]:
    """Read texts block by block in bounded memory: some whole texts, or a part of a long one, after 1,000 characters.

    Args:
        network: the model.
        file: its vocabulary and its begin text.
        texts: cleaned as the text that it learned.
        labels: of each text, where the model has records; none by default.
        direction: "forward" or "backward".
        cells: whether to give the cells of an LSTM.
        gates: whether to give the gates.
        unknown: what to do with characters that the model has never seen: "error", "skip" (the state stays) or
            "replace"; by default "replace" where there is an unknown symbol, else "skip".
        precision: "fp32" or "bf16".
        size: characters of a block; by default so many that they take some 300 MB.

    Returns:
        An iterator over the activations of one block after the other.

    Raises:
        DataError: a text has unknown characters and `unknown` is "error", or it has a lone surrogate.
        SettingError: there is no text, the model does not read in this direction, does not know a label, or has no
            cells.
        ChargenError: hidden states are not finite; while blocks are read.
    """
    if not texts:
        raise SettingError("there is no text to read: give one or more", "text")
    check_direction(network.config, direction)
    if cells and network.config.cell != "lstm":
        raise SettingError("cells are those of an LSTM: this model is a GRU, whose hidden states are all it carries")
    config, cells, gates = network.config, bool(cells), bool(gates)
    values = config.num_layers * config.hidden_size * (1 + cells + gates * len(GATE_NUMBERS[config.cell]))
    size = max(MIN_BLOCK, min(BLOCK, BLOCK_VALUES // values)) if size is None else check_int("size", size, 1)
    unknown = unknown or file.vocabulary.default_unknown
    if unknown == "error":
        for text in texts:
            file.vocabulary.encode(text)  # positions in the message are those of the whole text
    options = {"direction": direction, "cells": cells, "gates": gates, "precision": precision}
    return _read_blocks(network, file, texts, labels, unknown, size, options)


def _read_blocks(
    network: "CharModel", file: ModelFile, texts: Sequence[str], labels: Sequence[str | None] | None, unknown: str,
    size: int, options: dict[str, Any],
) -> Iterator[Activations]:  # fmt: skip
    from chargen.evaluation.layout import CONTEXT

    forward = options["direction"] == "forward"
    for numbers, begin, end in _cut_blocks([*map(len, texts)], size):
        parts, before, behind = [texts[number] for number in numbers], 0, 0
        if len(parts) == 1:
            before, behind = (min(begin, CONTEXT), 0) if forward else (0, min(len(parts[0]) - end, CONTEXT))
            parts = [parts[0][begin - before : end + behind]]
        of_parts = None if labels is None else [labels[number] for number in numbers]
        block = _read_block(network, file, parts, of_parts, unknown, options)
        yield block.cut(before, len(block.text) - behind) if before or behind else block


def _cut_blocks(sizes: Sequence[int], size: int) -> Iterator[tuple[range, int, int]]:
    """The numbers of the texts of each block, and which characters of it, where it is a single one."""
    first = 0
    while first < len(sizes):
        last, total = first + 1, sizes[first]
        while last < len(sizes) and total + sizes[last] <= size:
            total += sizes[last]
            last += 1
        for begin in range(0, max(total, 1), size):
            yield range(first, last), begin, min(begin + size, total)
        first = last


def _read_block(
    network: "CharModel", file: ModelFile, texts: list[str], labels: list[str | None] | None, unknown: str,
    options: dict[str, Any],
) -> Activations:  # fmt: skip
    """Read texts at once."""
    from chargen.evaluation.layer_rows import read_layer_rows

    text, config = "".join(texts), network.config
    layout = lay_out(file, texts, unknown, options["direction"], labels)
    gates = [GATE + name for name in GATE_NUMBERS[config.cell]]
    names = ["hidden", *["cells"] * options["cells"], *gates * options["gates"]]
    shape = config.num_layers, layout.size, config.hidden_size
    arrays = {name: np.zeros(shape, np.float16) for name in names}
    # A character has the state after the last of its ids; numbers behind those of the characters are begin symbols.
    final = np.append(layout.owner[1:] != layout.owner[:-1], True)
    for window in read_layer_rows(network, layout.rows, layout.counted, **options):
        places = layout.starts[window.rows] + window.positions
        kept = final[places]
        owner = layout.owner[places[kept]]
        for name, array in arrays.items():
            array[:, owner] = window.values[name][:, kept]
    starts = np.cumsum([0, *map(len, texts)])
    missing, source = _skipped(layout.owner, starts, options["direction"] == "forward")
    for array in arrays.values():
        array[:, missing] = array[:, source]
    cut = {name: array[:, : len(text)] for name, array in arrays.items()}
    return from_arrays(text, starts, options["direction"], cut)


def _skipped(
    owner: NDArray[np.int64], starts: NDArray[np.int64], forward: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Characters that have no id, and those whose states stay: the one read before, or what a text begins with."""
    size = int(starts[-1])
    has_id = np.zeros(size, bool)
    has_id[owner[owner < size]] = True
    missing = np.flatnonzero(~has_id)
    if not len(missing):
        return missing, missing
    text = np.searchsorted(starts, missing, "right") - 1
    known = np.concatenate([[-1], np.flatnonzero(has_id), [size]])
    source = known[np.searchsorted(known, missing) - forward]
    inside = (source >= starts[text]) & (source < starts[text + 1])
    return missing, np.where(inside, source, size + 2 * text)
