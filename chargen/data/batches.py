"""Ids -> minibatches. A batch is a pure function of its step: nothing is consumed, so nothing needs saving.

Letters: B rows, T characters per row, N characters of the text. A batch is defined over all B rows; a process that
takes only some of them (`rows`) sees exactly those rows of the same batch.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import check_array
from chargen.data.borders import as_targets, leave_out_labels
from chargen.errors import DataError, amount
from chargen.rng import Purpose, uniform
from chargen.settings import check_int

MAX_ROWS = 1_000_000
"""Rows of a batch, at most."""
MAX_STEP = 2**40
"""More than any run makes; positions stay in 64 bits."""


@dataclass(frozen=True)
class Batch:
    """The inputs and targets of a step.

    Args:
        inputs: ids (B, T), int64.
        targets: ids (B, T), int64; each is the character after its input.
        fresh: (B, T), True where the state is zero before an input; everywhere else it is carried, also from the
            same row of the step before.
        taught: (B', T, V), for the targets of the last B' rows the probabilities that are learned; None for none.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    fresh: NDArray[np.bool_]
    taught: NDArray[np.float16] | None = None


@dataclass(frozen=True)
class Resets:
    """Fresh states that rows get although their text goes on, so that a model learns how texts begin.

    A row's window has `share` of them on average. Where texts begin with a line end, so do they: each line end is drawn
    with the same probability. Otherwise a window starts fresh or not.

    Args:
        share: fresh states in a row's window, on average; 0 for none, and 1 for all windows, which carry no state.
        begin: the id with which a text begins; None where that may be any.
        frequency: the share of the text's ids that are `begin`.
        stream: whose draws they are, 0 of the forward stack and 1 of the backward one.
    """

    share: float = 0.0
    begin: int | None = None
    frequency: float = 0.0
    stream: int = 0

    def draw(self, seed: int, step: int, rows: NDArray[np.int64], inputs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Draw where the state is fresh.

        Args:
            seed: of the run.
            step: counted from 0.
            rows: (B,), their numbers among the rows of all processes.
            inputs: ids (B, T).

        Returns:
            (B, T).
        """
        places, index = np.arange(inputs.shape[1]), rows[:, None] + MAX_ROWS * self.stream
        if self.begin is None or self.share >= 1:
            fresh = (places == 0) & (uniform(seed, index, step, Purpose.RESET) < self.share)
        else:
            draws = uniform(seed, index, step * len(places) + places, Purpose.RESET)
            fresh = (inputs == self.begin) & (draws * len(places) * self.frequency < self.share)
        return np.asarray(fresh)


class Batches(Protocol):
    """The batches of a text: what a trainer needs of any way to cut them."""

    steps_per_epoch: float
    """How many steps have as many targets as the text has characters."""

    def batch(self, step: int) -> Batch:
        """Return the batch of a step.

        Args:
            step: counted from 0.
        """


class ConsecutiveBatches:
    """Batches in which every row reads its own part of the text in order, then continues into the next row's part.

    The text is a ring. Row i's j-th target in batch k is position (phase + floor(i N / B) + k T + j) mod N, the phase
    drawn once from the seed. So every character is used, and after any step the target counts of two positions differ
    by at most one.

    Args:
        ids: the text (N,), N >= 2.
        batch_size: B, over all processes.
        seq_length: T.
        seed: fixes the phase and the resets.
        rows: which rows this process takes; all by default.
        resets: fresh states that rows get although their text goes on; none by default.

    Raises:
        DataError: where the text is too short.
    """

    def __init__(
        self,
        ids: NDArray[Any],
        batch_size: int,
        seq_length: int,
        seed: int = 0,
        rows: range | None = None,
        resets: Resets = Resets(),
    ) -> None:
        ids = check_array("ids", ids, (None,), np.int64)
        batch_size, seq_length = check_int("batch_size", batch_size, 1), check_int("seq_length", seq_length, 1)
        if len(ids) < 2:
            raise DataError(
                f"training needs at least 2 characters, found {len(ids)}; give more text, or a smaller `valid_fraction`"
            )
        self.ids = ids
        self.seq_length = seq_length
        self.seed = seed
        self.resets = resets
        self.steps_per_epoch = len(ids) / (batch_size * seq_length)
        phase = int(uniform(seed, 0, 0, Purpose.PHASE) * len(ids))
        rows = range(batch_size) if rows is None else rows
        self.rows = np.array(rows, np.int64)
        # In Python's integers, so that a start is exact even where i N exceeds 64 bits.
        self.starts = np.array([phase + row * len(ids) // batch_size for row in rows], np.int64)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; rows start fresh at the first step, and where resets are drawn.

        Args:
            step: counted from 0.
        """
        step = check_int("step", step, 0, MAX_STEP)
        first = (self.starts + step * self.seq_length - 1)[:, None]
        window = _gather(self.ids, (first + np.arange(self.seq_length + 1)) % len(self.ids))
        batch = _batch(window, starts=step == 0)
        if self.resets.share:
            batch.fresh[:] |= self.resets.draw(self.seed, step, self.rows, batch.inputs)
        return batch


class RandomBatches:
    """Batches in which every row is a window of the text, drawn anew in each step.

    All N - T windows are equally likely, the first and the last included.

    Args:
        ids: the text (N,), N >= T + 1.
        batch_size: B, over all processes.
        seq_length: T.
        seed: fixes which windows are drawn.
        rows: which rows this process takes; all by default.
        purpose: what the windows are for; other purposes draw other windows.
        end_id: of records, the end symbol; a window may begin inside a record, without a begin symbol.

    Raises:
        DataError: where the text is too short.
    """

    def __init__(
        self,
        ids: NDArray[Any],
        batch_size: int,
        seq_length: int,
        seed: int = 0,
        rows: range | None = None,
        purpose: Purpose = Purpose.WINDOW,
        end_id: int | None = None,
    ) -> None:
        ids = check_array("ids", ids, (None,), np.int64)
        batch_size, seq_length = check_int("batch_size", batch_size, 1), check_int("seq_length", seq_length, 1)
        if len(ids) < seq_length + 1:
            advice = (
                f'choose `seq_length={len(ids) - 1}` or less, or `batching="consecutive"`'
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
        self.end_id = end_id
        self.steps_per_epoch = len(ids) / (batch_size * seq_length)
        self.rows = np.array(range(batch_size) if rows is None else rows, np.int64)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; every row starts fresh.

        Args:
            step: counted from 0.
        """
        return self.batch_of(self.windows(step), step)

    def batch_of(self, window: NDArray[np.int64], step: int) -> Batch:
        """Make the batch of windows of a step.

        Args:
            window: ids (B, T + 1), in the order of reading.
            step: counted from 0.
        """
        batch = _batch(window, starts=True)
        inputs = leave_out_labels(batch.inputs, self.end_id, self.seed, self.rows, step)
        return replace(batch, inputs=inputs, targets=as_targets(batch.targets, self.end_id))

    def windows(self, step: int) -> NDArray[np.int64]:
        """Return the windows of a step.

        Args:
            step: counted from 0.

        Returns:
            Ids (B, T + 1): the inputs of `batch` and, one position later, its targets.
        """
        step = check_int("step", step, 0, MAX_STEP)
        num_windows = len(self.ids) - self.seq_length
        first = (uniform(self.seed, self.rows, step, self.purpose) * num_windows).astype(np.int64)[:, None]
        return _gather(self.ids, first + np.arange(self.seq_length + 1))


def _batch(window: NDArray[np.int64], *, starts: bool) -> Batch:
    """The batch of windows (B, T + 1), all of which start fresh or none."""
    fresh = np.zeros((len(window), window.shape[1] - 1), bool)
    fresh[:, 0] = starts
    return Batch(window[:, :-1], window[:, 1:], fresh)


def _gather(ids: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    return ids[positions].astype(np.int64)
