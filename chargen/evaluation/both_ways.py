"""Predictions of every character of a text: forward and, with a bidirectional model, backward and from both sides."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen.arguments import as_array, check_range
from chargen.model.language_model import CharModel
from chargen.model.layers import State
from chargen.settings import check_int

WINDOW = 256


@dataclass(frozen=True, eq=False)
class Window:
    """Logits (n, V) for n characters of a text; each row predicts a character without having seen it.

    Args:
        start: the position of the first of them.
        forward: from the characters before.
        backward: from the characters behind; None where the model reads forward only.
        cloze: from all other characters; None where the model reads forward only.
    """

    start: int
    forward: NDArray[np.float32]
    backward: NDArray[np.float32] | None
    cloze: NDArray[np.float32] | None


def read_both_ways(
    model: CharModel, ids: NDArray[Any], first_logits: NDArray[Any], window: int = WINDOW
) -> Iterator[Window]:
    """Predict every character of a text with carried state, forward and, where the model can, backward and cloze.

    A first pass from the end stores the backward state at the borders of windows only. The cloze prediction of the
    first character is the backward one, and that of the last is the forward one, since they have one side only.

    Args:
        model: the model.
        ids: (N,), in the order of the text.
        first_logits: (V,), for a character with an unknown context: forward the first one, backward the last one.
        window: characters read at a time.

    Yields:
        The predictions of a window, in the order of the text.

    Raises:
        ArgumentError: ids or logits do not fit the model.
        SettingError: `window` is no whole number from 1.
    """
    ids = as_array("ids", ids, (None,), np.int64)
    check_range("ids", ids, 0, model.vocabulary_size)
    first_logits = as_array("first_logits", first_logits, (model.vocabulary_size,), np.float32)
    window = check_int("window", window, 1)
    borders = [*range(0, len(ids), window), len(ids)]
    first = torch.from_numpy(first_logits).to(model.device)
    bidirectional = model.config.bidirectional
    # The backward state at each border, after all characters behind it; None at the end of the text.
    backward_states: dict[int, State | None] = {len(ids): None}
    for begin, end in reversed(list(pairwise(borders[1:]))) if bidirectional else ():
        backward_states[begin] = _read_backward(model, ids[begin:end], backward_states[end])
    state: State | None = None
    for begin, end in pairwise(borders):
        if bidirectional:
            logits, state = _predict_both_ways(model, ids[begin:end], state, backward_states.pop(end), first)
        else:
            logits, state = _predict_forward(model, ids[begin:end], state, first)
        yield Window(begin, *logits)


@torch.inference_mode()
def _read_backward(model: CharModel, ids: NDArray[Any], state: State | None) -> State:
    """The backward state before a window, from the one behind it."""
    return model.read(_to_row(model, ids).flip(1), state, direction="backward")[1]


Logits = tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]
"""Forward, backward and cloze, (n, V) each."""


@torch.inference_mode()
def _predict_forward(model: CharModel, ids: NDArray[Any], state: State | None, first: Tensor) -> tuple[Logits, State]:
    """The logits for a window, and the state after it."""
    values, new_state = model.read(_to_row(model, ids), state)
    forward = model.output(_shift(state, values))
    if state is None:
        forward[0] = first
    return (_to_numpy(forward), None, None), new_state


@torch.inference_mode()
def _predict_both_ways(
    model: CharModel, ids: NDArray[Any], state: State | None, backward_state: State | None, first: Tensor
) -> tuple[Logits, State]:
    """The logits for a window, and the forward state after it."""
    row = _to_row(model, ids)
    values, new_state = model.read(row, state)
    left = _shift(state, values)
    values, _ = model.read(row.flip(1), backward_state, direction="backward")
    right = _shift(backward_state, values).flip(0)
    forward, backward, cloze = model.output(left), model.output(right), model.between(left, right)
    if state is None:
        forward[0], cloze[0] = first, backward[0]
    if backward_state is None:
        backward[-1], cloze[-1] = first, forward[-1]
        if state is None:
            cloze[0] = backward[0]
    return (_to_numpy(forward), _to_numpy(backward), _to_numpy(cloze)), new_state


def _to_row(model: CharModel, ids: NDArray[Any]) -> Tensor:
    return torch.from_numpy(ids)[None].to(model.device)


def _shift(state: State | None, values: Tensor) -> Tensor:
    """The outputs (n, H) before each character: that of the carried state, then `values` (1, n, H) without the last."""
    size = values.shape[2]
    first = values.new_zeros(1, size) if state is None else state[-1][:, :size].to(values.dtype)
    return torch.cat([first, values[0, :-1]])


def _to_numpy(logits: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = logits.float().cpu().numpy()
    return array
