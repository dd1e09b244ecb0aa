"""Checks of an engine's arguments: compiled code must not touch memory that is not its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import as_array, check_range
from chargen.decoding.choose import SampleConfig
from chargen.decoding.rules import Rules
from chargen.errors import ArgumentError


def check_state(widths: Sequence[int], state: Any, rows: int) -> tuple[NDArray[np.float32], ...]:
    """Check a model's state.

    Args:
        widths: S, of each of its arrays.
        state: arrays (R, S).
        rows: R.

    Returns:
        The state in float32.

    Raises:
        ArgumentError: it is not a state of this model.
    """
    shapes = [(rows, width) for width in widths]
    if not isinstance(state, (tuple, list)) or len(state) != len(shapes):
        what = f"state of {len(state)} parts" if isinstance(state, (tuple, list)) else "state that is no tuple"
        raise ArgumentError(f"{what}: needed are {len(shapes)}, of the shapes {', '.join(map(str, shapes))}")
    parts = enumerate(zip(state, shapes, strict=True))
    return tuple(as_array(f"state[{number}]", values, shape, np.float32) for number, (values, shape) in parts)


def check_ids(ids: Any, counts: Any, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Check ids that rows read.

    Args:
        ids: (R, T); behind the ids that a row reads anything may stand.
        counts: (R,), how many ids each row reads.
        size: V.

    Returns:
        Ids and counts as whole numbers.

    Raises:
        ArgumentError: the shapes do not fit, or an id is not one of the model's.
    """
    ids = as_array("ids", ids, (None, None), np.int64)
    counts = as_array("counts", counts, (len(ids),), np.int64)
    check_range("counts", counts, 0, ids.shape[1] + 1)
    check_range("ids", ids[np.arange(ids.shape[1]) < counts[:, None]], 0, size)
    return ids, counts


def check_rules(rules: Any, mask_index: Any, rows: int, length: int, size: int) -> tuple[Rules, NDArray[np.int64]]:
    """Check the rules for what rows write.

    Args:
        rules: the rules.
        mask_index: (R,), the number of the mask that holds for each row's first id.
        rows: R.
        length: T, ids that each row writes at most.
        size: V.

    Returns:
        The rules and the mask index.

    Raises:
        ArgumentError: shapes do not fit, or an index is that of no mask.
    """
    if not isinstance(rules, Rules):
        raise ArgumentError(f"rules of type {type(rules).__name__}: needed are Rules")
    masks = as_array("masks", rules.masks, (None, size), np.bool_)
    next_mask = as_array("next_mask", rules.next_mask, masks.shape, np.int64)
    stop_after = as_array("stop_after", rules.stop_after, (size,), np.bool_)
    mask_index = as_array("mask_index", mask_index, (rows,), np.int64)
    check_range("mask_index", mask_index, 0, len(masks))
    if length > 1:
        check_range("next_mask", next_mask, -np.inf, len(masks))
    return Rules(masks, next_mask, stop_after), mask_index


def check_uniforms(uniforms: Any, rows: int) -> NDArray[np.float64]:
    """Check the uniforms that rows draw with.

    Args:
        uniforms: (R, T).
        rows: R.

    Returns:
        The uniforms in float64.

    Raises:
        ArgumentError: the shape does not fit, or a number is not from 0 to below 1.
    """
    values = as_array("uniforms", uniforms, (rows, None), np.float64)
    check_range("uniforms", values, 0, 1)
    return values


def check_config(config: Any) -> None:
    """Check how ids are chosen.

    Args:
        config: must be a SampleConfig.

    Raises:
        ArgumentError: it is something else.
    """
    if not isinstance(config, SampleConfig):
        raise ArgumentError(f"config of type {type(config).__name__}: needed is a SampleConfig")
