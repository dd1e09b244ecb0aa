"""How the cloze layer learns: from windows drawn for it alone, on states that no gradient enters."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen.data.batches import RandomBatches
from chargen.data.borders import labels_before
from chargen.errors import DataError
from chargen.model.language_model import CharModel
from chargen.model.loss import cross_entropy
from chargen.rng import Purpose
from chargen.training.config import TrainConfig
from chargen.training.group import ALONE, Group

WINDOW = 128
MARGIN = 16
"""Positions nearer than this to a window's edge do not count: one of the two states there has read too little."""
CHARACTERS_SHARE = 0.15
"""Characters read for the cloze layer per character trained on: 3 to 9 % of the time, most for large vocabularies."""
ROWS = 32


class ClozeTask:
    """When the cloze layer learns, and from which windows: both are pure functions of the step.

    Args:
        ids: the text (N,).
        config: of the run; its batch_size is B over all processes, and so is the number of windows.
        group: the processes, each of which takes its share of a step's windows.

    Raises:
        DataError: where the text is too short for a single position.
    """

    def __init__(self, ids: NDArray[Any], config: TrainConfig, group: Group = ALONE) -> None:
        window = min(WINDOW, len(ids))
        if window < 2 * MARGIN + 1:
            raise DataError(
                f"a bidirectional model needs at least {2 * MARGIN + 1} characters of training text, found {len(ids)}; "
                "give more text, or train one way"
            )
        trained = config.batch_size * config.seq_length
        windows = max(1, trained // window)
        self.every = math.ceil(windows * window / (CHARACTERS_SHARE * trained))
        self.rows = group.share_of(windows)
        self.batches = RandomBatches(ids, windows, window - 1, config.seed, self.rows, Purpose.CLOZE)

    def due(self, step: int) -> bool:
        """True for the steps at which the layer learns."""
        return step % self.every == 0

    def loss(self, model: CharModel, step: int) -> tuple[Tensor, int]:
        """The mean loss of a step's windows, in nats per id (a character, or a byte), and of how many.

        Where there are more processes than windows, some have none: a loss of zero.
        """
        if not self.rows:
            return torch.stack([0 * weight.sum() for weight in model.cloze.parameters()]).sum(), 0
        return cloze_loss(model, self.batches.windows(step))


def cloze_loss(model: CharModel, windows: NDArray[np.int64]) -> tuple[Tensor, int]:
    """The mean cloze loss in nats per id on windows (B, W), both stacks starting fresh, and how many positions count.

    Its gradient reaches the cloze layer only. A position t counts where MARGIN <= t < W - MARGIN, from forward
    state t - 1 and backward state t + 1. Begin symbols do not count: on either side of one is another record.
    """
    ids = from_behind = torch.from_numpy(windows)
    if model.config.begin_symbols:
        from_behind = torch.from_numpy(np.stack([labels_before(window, model.first_begin) for window in windows]))
    width = ids.shape[1]
    with torch.no_grad():
        left, _ = model.read(ids)
        right, _ = model.read(from_behind.flip(1), direction="backward")
        left = left[:, MARGIN - 1 : width - MARGIN - 1]
        right = right.flip(1)[:, MARGIN + 1 : width - MARGIN + 1]
    targets = ids[:, MARGIN : width - MARGIN]
    if model.config.begin_symbols:
        counts = targets < model.first_begin
        counts |= ~counts.any()  # the one position of the shortest window may be a border
        targets = targets.clamp(max=model.first_begin)
        left, right, targets = (values[counts][None] for values in (left, right, targets))
    one_way = left + right, model.output.weight, 2 * model.output.bias  # the sum of the logits that the two make alone
    hidden = model.cloze.hidden(left, right)
    loss = cross_entropy(hidden, model.cloze.output, targets, one_way)
    return loss, targets.numel()


def even_windows(ids: NDArray[Any], size: int) -> Iterator[NDArray[np.int64]]:
    """Evenly spaced windows of about `size` characters in all, to validate on, some rows (B, W) at a time.

    There are none where ids are too few.
    """
    window = min(WINDOW, len(ids))
    if window < 2 * MARGIN + 1:
        return
    rows = max(1, min(size, len(ids)) // window)
    starts = np.arange(rows) * (len(ids) - window) // max(rows - 1, 1)
    for first in range(0, rows, ROWS):
        yield ids[starts[first : first + ROWS, None] + np.arange(window)].astype(np.int64)
