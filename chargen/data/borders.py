"""Begin symbols in ids: what they are as targets, and read from behind. They are the last ids of a vocabulary.

A border between two records holds the begin symbol of the record behind it: the end symbol, or that of its label.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.rng import Purpose, uniform

UNLABELLED = 0.1
"""The share of labelled records that are read behind the end symbol instead, so that a model also writes without."""


def as_targets(ids: NDArray[Any], end_id: int | None) -> NDArray[Any]:
    """Ids as targets: a label is never predicted, only the end of a record.

    Args:
        ids: of any shape.
        end_id: the end symbol, the first of the begin symbols; None where there are none.
    """
    return ids if end_id is None else np.minimum(ids, end_id)


def labels_before(ids: NDArray[Any], end_id: int | None) -> NDArray[Any]:
    """Let each border carry the label of the record before it, which is the one that begins there read from behind.

    Args:
        ids: (N,), in the order of the text.
        end_id: the end symbol, which the first border gets; None where there are no borders.

    Returns:
        Ids (N,), still in the order of the text; the same array where there are no labels.
    """
    if end_id is None or not (ids > end_id).any():
        return ids
    borders = np.flatnonzero(ids >= end_id)
    changed = np.array(ids)
    changed[borders[0]], changed[borders[1:]] = end_id, ids[borders[:-1]]
    return changed


def leave_out_labels(
    inputs: NDArray[np.int64], end_id: int | None, seed: int, rows: NDArray[np.int64], step: int
) -> NDArray[np.int64]:
    """Put the end symbol in place of some labels' begin symbols.

    Args:
        inputs: ids (B, T).
        end_id: the end symbol; None where there are no records.
        seed: of the run.
        rows: (B,), their numbers among the rows of all processes.
        step: counted from 0.
    """
    if end_id is None or not (labelled := inputs > end_id).any():
        return inputs
    length = inputs.shape[1]
    draws = uniform(seed, rows[:, None], step * length + np.arange(length), Purpose.LABEL)
    return np.where(labelled & (draws < UNLABELLED), end_id, inputs)
