"""Rows read side by side for what is inside a model: hidden states of all layers, and cells and gates on request."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from chargen.errors import NOT_FINITE_MESSAGE, ChargenError
from chargen.evaluation.rows import SIDE_BY_SIDE, WINDOW, Ids, pad_rows
from chargen.model.config import GATE_NUMBERS, GATES
from chargen.model.device import autocast
from chargen.model.language_model import CharModel
from chargen.model.layers import State, zero_state

EXPONENT = np.uint16(0x7C00)
"""The bits of a number in float16 that are all set where it is not finite; NumPy's own test takes six times as long."""


class LayerWindow(NamedTuple):
    """What is inside a model after each of some ids, all in float16.

    Args:
        rows: (n,), the number of the row that each id is in.
        positions: (n,), its place in the row.
        values: (L, n, H) by name: "hidden", on request "cells", and "gate_" with the name of a gate.
    """

    rows: Ids
    positions: Ids
    values: dict[str, NDArray[np.float16]]


def read_layer_rows(
    model: CharModel,
    rows: Sequence[Ids],
    counted: Sequence[tuple[int, int]],
    *,
    direction: str = "forward",
    cells: bool = False,
    gates: bool = False,
    precision: str = "fp32",
    window: int = WINDOW,
) -> Iterator[LayerWindow]:
    """Read rows side by side, each from an unknown context.

    Args:
        model: the model.
        rows: the ids of each, in the order of reading.
        counted: for each row, the first id that the caller wants and the one to stop before; the others are context.
        direction: "forward" or "backward".
        cells: whether to give the cells of an LSTM.
        gates: whether to give the gates.
        precision: "fp32" or "bf16".
        window: ids of a row that are read at a time.

    Yields:
        The counted ids of a window of some rows, in no order of the text.

    Raises:
        ChargenError: hidden states are not finite.
    """
    lengths, wanted = np.array([len(row) for row in rows], np.int64), np.array(counted, np.int64).reshape(-1, 2)
    order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    for start in range(0, len(order), SIDE_BY_SIDE):
        numbers = order[start : start + SIDE_BY_SIDE]
        ids = pad_rows([rows[number] for number in numbers])
        state: State | None = None
        for first in range(0, ids.shape[1], window):
            numbers = numbers[lengths[numbers] > first]
            read = torch.from_numpy(ids[: len(numbers), first : first + window])
            columns = first + np.arange(read.shape[1])
            begins, ends = wanted[numbers].T[:, :, None]
            mask = (columns >= begins) & (columns < ends)
            before, inside = state and tuple(layer[: len(numbers)] for layer in state), None
            with torch.inference_mode(), autocast(precision, model.device):
                outputs, state = model.read_layers(read, before, direction)
                if mask.any() and (cells or gates):
                    inside = _Inside(model, read, before, outputs, direction)
            if not mask.any():
                continue
            layers: dict[str, Sequence[Tensor]] = {"hidden": outputs}
            with torch.inference_mode():
                layers |= {"cells": inside.cells()} if inside and cells else {}
                layers |= {f"gate_{name}": parts for name, parts in inside.gates.items()} if inside and gates else {}
                places = torch.from_numpy(mask).to(model.device)
                values = {name: _as_float16(parts, places) for name, parts in layers.items()}
            at, offset = np.nonzero(mask)
            yield LayerWindow(numbers[at], columns[offset], values)


def _as_float16(layers: Sequence[Tensor], mask: Tensor) -> NDArray[np.float16]:
    """The values (n, H) of each layer where a mask (B, T) is true, as (L, n, H)."""
    whole = bool(mask.all())
    chosen = [layer.flatten(0, 1) if whole else layer[mask] for layer in layers]
    values = np.empty((len(chosen), *chosen[0].shape), np.float16)
    for array, layer in zip(values, chosen, strict=True):
        torch.from_numpy(array).copy_(layer)
    if ((values.view(np.uint16) & EXPONENT) == EXPONENT).any():
        raise ChargenError(NOT_FINITE_MESSAGE)
    return values


class _Inside:
    """Gates and cells of all layers in a window, from the hidden states: two products over all of its ids at once.

    Args:
        model: the model.
        ids: (B, T), what was read.
        state: before the window; None for an unknown context.
        outputs: (B, T, H) of each layer.
        direction: "forward" or "backward".
    """

    def __init__(
        self, model: CharModel, ids: Tensor, state: State | None, outputs: Sequence[Tensor], direction: str
    ) -> None:
        size, cell = model.config.hidden_size, model.config.cell
        state = zero_state(model.config, len(ids), model.device) if state is None else state
        self._first_cells = [layer[:, size:] for layer in state]
        self._begins = (ids >= model.first_begin).to(model.device)
        self._added: list[Tensor] = []
        self.gates: dict[str, list[Tensor]] = {name: [] for name in GATE_NUMBERS[cell]}
        """Gates (B, T, H) of each layer, by name."""
        values = model.embedding(ids.to(model.device))
        for module, layer_state, output in zip(model.stack(direction), state, outputs, strict=True):
            weights: Any = module
            hidden = torch.cat([layer_state[:, None, :size].to(output.dtype), output[:, :-1]], 1)
            hidden = hidden.masked_fill(self._begins[:, :, None], 0)
            from_input = functional.linear(values, weights.weight_ih_l0, weights.bias_ih_l0).float()
            sums = from_input + functional.linear(hidden, weights.weight_hh_l0, weights.bias_hh_l0).float()
            parts = sums.chunk(GATES[cell], 2)
            for name, number in GATE_NUMBERS[cell].items():
                self.gates[name].append(parts[number].sigmoid())
            if cell == "lstm":
                self._added.append(self.gates["input"][-1] * parts[2].tanh())
            values = output

    def cells(self) -> list[Tensor]:
        """The cells (B, T, H) of each layer of an LSTM."""
        layers = []
        for cell, added, forget in zip(self._first_cells, self._added, self.gates["forget"], strict=True):
            kept, cells = forget.masked_fill(self._begins[:, :, None], 0), torch.empty_like(added)
            for time_step in range(added.shape[1]):
                cell = torch.addcmul(added[:, time_step], kept[:, time_step], cell, out=cells[:, time_step])
            layers.append(cells)
        return layers
