"""What each direction of a model reads."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from chargen.data.batches import Batch, Batches, ConsecutiveBatches, RandomBatches, Resets
from chargen.data.borders import labels_before
from chargen.data.record_batches import RecordBatches


class BackwardBatches:
    """Batches read from the end, for the backward stack where windows are drawn at random.

    Args:
        batches: of the same windows as the forward stack's, with labels where a reader from behind needs them.
    """

    def __init__(self, batches: RandomBatches) -> None:
        self.batches = batches
        self.steps_per_epoch = batches.steps_per_epoch

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; a target is the character before its input in the text.

        Args:
            step: counted from 0.
        """
        return self.batches.batch_of(self.batches.windows(step)[:, ::-1].copy(), step)


def make_batches(
    ids: NDArray[Any],
    directions: Sequence[str],
    batching: str,
    batch_size: int,
    seq_length: int,
    seed: int = 0,
    rows: range | None = None,
    resets: dict[str, Resets] | None = None,
    end_id: int | None = None,
    shuffle: bool = True,
) -> dict[str, Batches]:
    """What each direction reads: its own position in the text, or the same random windows from either end.

    Args:
        ids: the training part (N,).
        directions: of the model.
        batching: "consecutive" or "random".
        batch_size: B, over all processes.
        seq_length: T.
        seed: of the run.
        rows: those wanted here, by their numbers among the rows of all processes; all by default.
        resets: of each direction, where rows run on through the text; none by default.
        end_id: of records, the end symbol, from which on all ids are begin symbols.
        shuffle: of records, whether each epoch has an order of its own.
    """
    size = batch_size, seq_length, seed, rows
    # Read from behind, a record begins with the border that stands behind it.
    texts = {"forward": ids, "backward": labels_before(ids, end_id) if "backward" in directions else ids}
    by_direction: dict[str, Batches] = {}
    for direction in directions:
        text, ordered = texts[direction], texts[direction][:: -1 if direction == "backward" else 1]
        if batching == "random":
            windows = RandomBatches(text, *size, end_id=end_id)
            by_direction[direction] = windows if direction == "forward" else BackwardBatches(windows)
        elif end_id is not None:
            by_direction[direction] = RecordBatches(ordered, end_id, *size, shuffle)
        else:
            by_direction[direction] = ConsecutiveBatches(ordered, *size, (resets or {}).get(direction, Resets()))
    return by_direction
