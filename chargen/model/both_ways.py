"""What a bidirectional model says of every character of a text, from before, from behind and from both sides."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen.model.language_model import CharModel
from chargen.model.recurrent import State

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

    Memory stays flat: a first pass from the end keeps the backward state at the windows' borders only. The cloze
    prediction of the first character is the backward one and that of the last the forward one, since there is only one
    side to see.

    Args:
        ids: (N,), in the order of the text.
        first_logits: (V,), for the character that nothing is known about.
        window: characters read at a time.
    """
    borders = [*range(0, len(ids), window), len(ids)]
    both = model.config.bidirectional
    text = torch.from_numpy(ids.astype(np.int64))[None].to(model.device)
    unknown = torch.from_numpy(first_logits.astype(np.float32)).to(model.device)
    # State after all that stands behind a window: None behind the last one.
    behind: dict[int, State | None] = {len(ids): None}
    with torch.inference_mode():
        if both:
            for begin, end in zip(borders[-2:0:-1], borders[:1:-1], strict=True):
                behind[begin] = model.read(text[:, begin:end].flip(1), behind[end], direction="backward")[1]
        before: State | None = None
        for begin, end in pairwise(borders):
            part = text[:, begin:end]
            values, after = model.read(part, before)
            left = _shifted(before, values, model)
            forward = model.output(left)
            if before is None:
                forward[0] = unknown
            if not both:
                yield Window(begin, _numpy(forward), None, None)
                before = after
                continue
            values, _ = model.read(part.flip(1), behind[end], direction="backward")
            right = _shifted(behind[end], values, model).flip(0)
            backward = model.output(right)
            if behind[end] is None:
                backward[-1] = unknown
            cloze = model.between(left, right)
            if before is None:
                cloze[0] = backward[0]
            if behind[end] is None:
                cloze[-1] = forward[-1]
            yield Window(begin, _numpy(forward), _numpy(backward), _numpy(cloze))
            before = after


def _shifted(carried: State | None, values: Tensor, model: CharModel) -> Tensor:
    """What was known before each character: the carried output, then all of `values` (1, n, H) but the last; (n, H)."""
    size = model.config.hidden_size
    first = values.new_zeros(1, size) if carried is None else carried[-1][:, :size].to(values.dtype)
    return torch.cat([first, values[0, :-1]])


def _numpy(logits: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = logits.float().cpu().numpy()
    return found
