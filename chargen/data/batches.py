"""Ids -> minibatches. A batch is a pure function of its step: nothing is consumed, so nothing needs saving.

Letters: B rows, T characters per row, N characters of the text. A batch is defined over all B rows; a process that
takes only some of them (`rows`) sees exactly those rows of the same batch.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import check_array
from chargen.errors import DataError, amount
from chargen.rng import Purpose, uniform
from chargen.settings import check_int

MAX_STEP = 2**40
"""So many no run makes, and positions stay in 64 bits."""


@dataclass(frozen=True)
class Batch:
    """One minibatch.

    Args:
        inputs: ids (B, T), int64.
        targets: ids (B, T), int64; each is the character after its input.
        continues: (B,), True where the row goes on where it stopped in the step before, so its state is carried.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    continues: NDArray[np.bool_]


class Batches(Protocol):
    """What a trainer needs: how many steps see every character once, and the batch of a step."""

    steps_per_epoch: float

    def batch(self, step: int) -> Batch:
        """The batch of `step`, counted from 0."""


class ConsecutiveBatches:
    """Every row reads its own stretch of the text in order, then runs on into the next row's, around the end.

    Row i's j-th target in batch k is position (phase + floor(i N / B) + k T + j) mod N, the phase drawn once from the
    seed. So no tail is lost, and after any step the target counts of two positions differ by at most one.

    Args:
        ids: the text (N,), N >= 2.
        batch_size: B, over all processes.
        seq_length: T.
        seed: fixes the phase.
        rows: which rows this process takes; all by default.

    Raises DataError where the text is too short.
    """

    def __init__(
        self, ids: NDArray[Any], batch_size: int, seq_length: int, seed: int = 0, rows: range | None = None
    ) -> None:
        ids = check_array("ids", ids, (None,), np.int64)
        batch_size, seq_length = check_int("batch_size", batch_size, 1), check_int("seq_length", seq_length, 1)
        if len(ids) < 2:
            raise DataError(
                f"training needs at least 2 characters, found {len(ids)}; give more text, or a smaller --valid-fraction"
            )
        self.ids = ids
        self.seq_length = seq_length
        self.steps_per_epoch = len(ids) / (batch_size * seq_length)
        phase = int(uniform(seed, 0, 0, Purpose.PHASE) * len(ids))
        wanted = range(batch_size) if rows is None else rows
        # Python's integers: i N may exceed 64 bits only for texts nobody has, but a row's start must be exact.
        self.starts = np.array([phase + row * len(ids) // batch_size for row in wanted], np.int64)

    def batch(self, step: int) -> Batch:
        """The batch of `step`, counted from 0; only the first one starts fresh."""
        step = check_int("step", step, 0, MAX_STEP)
        first = (self.starts + step * self.seq_length - 1)[:, None]
        window = _gather(self.ids, (first + np.arange(self.seq_length + 1)) % len(self.ids))
        return Batch(window[:, :-1], window[:, 1:], np.full(len(first), step > 0))


class RandomBatches:
    """Every row is a window drawn anew; all N - T windows are equally likely, the first and the last included.

    Args:
        ids: the text (N,), N >= T + 1.
        batch_size, seq_length, seed, rows: as for ConsecutiveBatches.
        purpose: what the windows are for; other purposes get other windows.

    Raises DataError where the text is too short.
    """

    def __init__(
        self,
        ids: NDArray[Any],
        batch_size: int,
        seq_length: int,
        seed: int = 0,
        rows: range | None = None,
        purpose: Purpose = Purpose.WINDOW,
    ) -> None:
        ids = check_array("ids", ids, (None,), np.int64)
        batch_size, seq_length = check_int("batch_size", batch_size, 1), check_int("seq_length", seq_length, 1)
        if len(ids) < seq_length + 1:
            advice = (
                f"choose --seq-length {len(ids) - 1} or less, or --batching consecutive"
                if len(ids) > 1
                else "give more text"
            )
            raise DataError(
                f"random windows of {seq_length} need at least {amount(seq_length + 1, 'character')} of training "
                f"text, found {len(ids)}; {advice}"
            )
        self.ids = ids
        self.seq_length = seq_length
        self.seed = seed
        self.purpose = purpose
        self.steps_per_epoch = len(ids) / (batch_size * seq_length)
        self.rows = np.array(range(batch_size) if rows is None else rows, np.int64)

    def batch(self, step: int) -> Batch:
        """The batch of `step`, counted from 0; every row starts fresh."""
        window = self.windows(step)
        return Batch(window[:, :-1], window[:, 1:], np.zeros(len(window), bool))

    def windows(self, step: int) -> NDArray[np.int64]:
        """The windows (B, T + 1) of `step`, of which `batch` makes inputs and targets."""
        step = check_int("step", step, 0, MAX_STEP)
        places = len(self.ids) - self.seq_length
        first = (uniform(self.seed, self.rows, step, self.purpose) * places).astype(np.int64)[:, None]
        return _gather(self.ids, first + np.arange(self.seq_length + 1))


def draw_resets(
    share: float, seed: int, step: int, rows: range, batch_size: int, direction: str = "forward"
) -> NDArray[np.bool_]:
    """Which rows start from a fresh state at a step although their text goes on: (len(rows),), a share of them.

    Args:
        share: 0 to 1.
        seed, step: of the run.
        rows: their numbers among the rows of all processes.
        batch_size: B, over all processes.
        direction: "backward" draws others.
    """
    index = np.array(rows, np.int64) + batch_size * (direction == "backward")
    return uniform(seed, index, step, Purpose.FRESH) < share


class BackwardBatches:
    """The windows of other batches, each read from its end: what random mode gives to a backward stack."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.steps_per_epoch = batches.steps_per_epoch

    def batch(self, step: int) -> Batch:
        """The batch of `step`; a target is the character before its input in the text."""
        batch = self.batches.batch(step)
        return Batch(batch.targets[:, ::-1].copy(), batch.inputs[:, ::-1].copy(), batch.continues)


def _gather(ids: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    return ids[positions].astype(np.int64)
