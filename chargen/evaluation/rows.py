"""Texts read side by side with carried state: what a model has read before each id, and what it has read behind it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from chargen.model.device import autocast
from chargen.model.language_model import CharModel
from chargen.model.layers import State

SIDE_BY_SIDE = 64
"""Rows that are read at a time, at most, where they are long."""
AT_A_TIME = 2**14
"""Ids of a window of short rows, of which more are read at a time: compiled layers compute blocks of 32 rows, and eight
threads want one each. The number of cores does not decide, since torch's products may round otherwise for few rows."""
WINDOW = 128
"""Ids of a row that are read at a time."""
STORED = 2**26
"""Outputs of the backward stack that are kept where texts are read from both sides."""

Ids = NDArray[Any]


Networks: TypeAlias = CharModel | Sequence[CharModel]
"""A network, or several of one shape, whose probabilities are averaged."""


class Window(NamedTuple):
    """Ids of rows that are read side by side, and the outputs from which each is predicted.

    Args:
        rows: (n,), the number of the row that each id is in.
        positions: (n,), its place in the row.
        ids: (n,), the ids.
        last: (n,), whether it is the row's last id.
        before: (n, H), the stack's output after the ids before it; zeros for a row's first id.
        behind: (n, H), the backward stack's output after the ids behind it, zeros for a row's last id; None where rows
            are read in one direction.
    """

    rows: Ids
    positions: Ids
    ids: Ids
    last: Ids
    before: Tensor
    behind: Tensor | None

    def take(self, index: Any) -> "Window":
        """Some of the ids.

        Args:
            index: a slice, or (n,) bool.
        """
        fields: Any = (field if field is None else field[index] for field in self)
        return Window(*fields)


def predict(model: CharModel, window: Window, judge: str, first_logits: Tensor | NDArray[Any]) -> Tensor:
    """The logits (n, V) in float32 for the ids of a window, none of which has seen what it predicts.

    The cloze prediction of a row's first id is the backward one, and that of its last id is the forward one, since they
    have one side only.

    Args:
        model: the model.
        window: what it has read.
        judge: "forward" from the ids before, "backward" from those behind, or "cloze" from all others.
        first_logits: (V,), for an id with an unknown context: forward a row's first, backward its last.
    """
    with torch.inference_mode():
        if judge == "cloze":
            assert window.behind is not None
            logits: Tensor = model.cloze_logits(window.before, window.behind).float()
            for edge, other in ((window.positions == 0, "backward"), (window.last, "forward")):
                if edge.any():
                    logits[edge] = predict(model, window.take(edge), other, first_logits)
            return logits
        outputs, edge = (window.before, window.positions == 0) if judge == "forward" else (window.behind, window.last)
        logits = model.output(outputs).float()
        logits[edge] = torch.as_tensor(first_logits, dtype=torch.float32, device=logits.device)
        return logits


def read_rows(
    model: CharModel,
    rows: Sequence[Ids],
    *,
    direction: str = "forward",
    counted: Sequence[tuple[int, int]] | None = None,
    behind: Sequence[Ids] | None = None,
    precision: str = "fp32",
    window: int = WINDOW,
) -> Iterator[Window]:
    """Read rows of similar length side by side; nothing is computed for what a shorter row lacks.

    Args:
        model: the model.
        rows: the ids of each, in the order of reading; for "both" in that of the text. Every row starts from an unknown
            context.
        direction: "forward", "backward", or "both" where the model is bidirectional.
        counted: for each row, the first id that the caller wants and the one to stop before; the others are context.
        behind: for "both", the rows as they are read backward, where those are not the same ids.
        precision: "fp32" or "bf16".
        window: ids of a row that are read at a time.

    Yields:
        The counted ids of a window of some rows.
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    wanted = np.stack([0 * lengths, lengths], 1) if counted is None else np.array(counted, np.int64).reshape(-1, 2)
    one_way, start = "forward" if direction == "both" else direction, 0
    order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    while start < len(order):
        longest = int(lengths[order[start]])
        alike = int(np.count_nonzero(8 * lengths[order[start:]] > 7 * longest))  # or much would be read for nothing
        most = max(SIDE_BY_SIDE, min(alike, AT_A_TIME // min(longest, window)))
        if direction == "both":
            most = min(most, max(1, STORED // (longest * model.config.hidden_size)))
        numbers = order[start : start + most]
        start += len(numbers)
        sizes, batch = lengths[numbers], [rows[number] for number in numbers]
        reversed_batch = batch if behind is None else [behind[number] for number in numbers]
        outputs = _read_behind(model, reversed_batch, precision, window) if direction == "both" else None
        ids = pad_rows(batch)
        for first, before in _read_before(model, ids, sizes, one_way, precision, window):
            columns = first + np.arange(before.shape[1])
            begins, ends = wanted[numbers[: len(before)]].T[:, :, None]
            mask = (columns >= begins) & (columns < ends)
            at, offset = np.nonzero(mask)
            places = columns[offset]
            last_places = sizes[at] - 1
            with torch.inference_mode():
                index = torch.from_numpy(at), torch.from_numpy(last_places - places)
                other = None if outputs is None else outputs[index]
                counted_before = before[torch.from_numpy(mask).to(before.device)]
            yield Window(numbers[at], places, ids[at, places], places == last_places, counted_before, other)


def read_together(networks: Networks, rows: Sequence[Ids], **options: Any) -> Iterator[list[tuple[CharModel, Window]]]:
    """Let networks read the same rows in step.

    Args:
        networks: one or more.
        rows: the ids of each.
        **options: of `read_rows`.

    Yields:
        Each network, and what it has read of the same ids.
    """
    several = [networks] if isinstance(networks, CharModel) else networks
    for windows in zip(*(read_rows(network, rows, **options) for network in several), strict=True):
        yield list(zip(several, windows, strict=True))


def pad_rows(rows: Sequence[Ids]) -> NDArray[np.int64]:
    """Put rows into one array.

    Args:
        rows: the ids of each, the longest first; others are padded behind their last.
    """
    ids = np.zeros((len(rows), len(rows[0])), np.int64)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    return ids


def _read_before(
    model: CharModel, ids: NDArray[np.int64], lengths: Ids, direction: str, precision: str, window: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield the first position of each window, and the outputs (B, T, H) before each of its ids, of rows not yet done.

    The longest rows come first.
    """
    state: State | None = None
    for first in range(0, ids.shape[1], window):
        count = int(np.count_nonzero(lengths > first))
        inputs = torch.from_numpy(ids[:count, max(first - 1, 0) : min(first + window, ids.shape[1]) - 1])
        with torch.inference_mode(), autocast(precision, model.device):
            state = state and tuple(layer[:count] for layer in state)
            values, state = model.read(inputs, state, direction=direction)
            if not first:
                values = functional.pad(values, (0, 0, 1, 0))
        yield first, values


def _read_behind(model: CharModel, rows: Sequence[Ids], precision: str, window: int) -> Tensor:
    """The backward stack's outputs (B, N, H) behind the ids of each row, for its last id first."""
    lengths = np.array([len(row) for row in rows], np.int64)
    outputs: Tensor | None = None
    for first, values in _read_before(
        model, pad_rows([row[::-1] for row in rows]), lengths, "backward", precision, window
    ):
        if outputs is None:
            outputs = values.new_zeros(len(rows), int(lengths[0]), values.shape[2])
        outputs[: len(values), first : first + values.shape[1]] = values
    assert outputs is not None
    return outputs
