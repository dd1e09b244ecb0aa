"""What a model says of every character of a text: from before and, where it reads both ways, from behind too."""

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
    """Logits (n, V) for the characters from `start` on; each row speaks of one character and has not seen it.

    Args:
        start: the first character's position.
        forward, backward, cloze: from the characters before, from those behind, from all others. None where the model
            reads forward only.
    """

    start: int
    forward: NDArray[np.float32]
    backward: NDArray[np.float32] | None
    cloze: NDArray[np.float32] | None


def read_both_ways(
    model: CharModel, ids: NDArray[Any], first_logits: NDArray[Any], window: int = WINDOW
) -> Iterator[Window]:
    """Read a text with carried state, forward and, where the model can, backward.

    A first pass from the end keeps the backward state at the windows' borders only. The cloze prediction of the first
    character is the backward one and that of the last the forward one, since there is only one side to see.

    Args:
        ids: (N,), in the order of the text.
        first_logits: (V,), for the character that nothing is known about.
        window: characters read at a time.

    Raises ArgumentError where ids or logits do not fit the model.
    """
    ids = as_array("ids", ids, (None,), np.int64)
    check_range("ids", ids, 0, model.vocabulary_size)
    first_logits = as_array("first_logits", first_logits, (model.vocabulary_size,), np.float32)
    window = check_int("window", window, 1)
    borders = [*range(0, len(ids), window), len(ids)]
    unknown = torch.from_numpy(first_logits).to(model.device)
    both = model.config.bidirectional
    # The state after all that stands behind a window; None behind the last one.
    behind: dict[int, State | None] = {len(ids): None}
    for begin, end in reversed(list(pairwise(borders[1:]))) if both else ():
        behind[begin] = _carry_back(model, ids[begin:end], behind[end])
    before: State | None = None
    for begin, end in pairwise(borders):
        if both:
            logits, before = _from_both_sides(model, ids[begin:end], before, behind.pop(end), unknown)
        else:
            logits, before = _from_before(model, ids[begin:end], before, unknown)
        yield Window(begin, *logits)


@torch.inference_mode()
def _carry_back(model: CharModel, ids: NDArray[Any], behind: State | None) -> State:
    return model.read(_row(model, ids).flip(1), behind, direction="backward")[1]


Logits = tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]


@torch.inference_mode()
def _from_before(model: CharModel, ids: NDArray[Any], before: State | None, unknown: Tensor) -> tuple[Logits, State]:
    values, after = model.read(_row(model, ids), before)
    forward = model.output(_shifted(before, values))
    if before is None:
        forward[0] = unknown
    return (_numpy(forward), None, None), after


@torch.inference_mode()
def _from_both_sides(
    model: CharModel, ids: NDArray[Any], before: State | None, behind: State | None, unknown: Tensor
) -> tuple[Logits, State]:
    row = _row(model, ids)
    values, after = model.read(row, before)
    left = _shifted(before, values)
    values, _ = model.read(row.flip(1), behind, direction="backward")
    right = _shifted(behind, values).flip(0)
    forward, backward, cloze = model.output(left), model.output(right), model.between(left, right)
    if before is None:
        forward[0], cloze[0] = unknown, backward[0]
    if behind is None:
        backward[-1], cloze[-1] = unknown, forward[-1]
        if before is None:
            cloze[0] = backward[0]
    return (_numpy(forward), _numpy(backward), _numpy(cloze)), after


def _row(model: CharModel, ids: NDArray[Any]) -> Tensor:
    return torch.from_numpy(ids)[None].to(model.device)


def _shifted(carried: State | None, values: Tensor) -> Tensor:
    """What was known before each character: the carried output, then all of `values` (1, n, H) but the last; (n, H)."""
    size = values.shape[2]
    first = values.new_zeros(1, size) if carried is None else carried[-1][:, :size].to(values.dtype)
    return torch.cat([first, values[0, :-1]])


def _numpy(logits: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = logits.float().cpu().numpy()
    return found
