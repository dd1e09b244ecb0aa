"""Whether what a stepper is called with fits its model: compiled code must touch nothing that is not its own."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import as_array, check_range
from chargen.decoding.choose import SampleConfig
from chargen.decoding.rules import Rules
from chargen.errors import ArgumentError
from chargen.model.config import ModelConfig


def fitting_state(config: ModelConfig, state: Any, rows: int) -> tuple[NDArray[np.float32], ...]:
    """A state, one (R, S) a layer, in float32. Raises ArgumentError where it is not this model's."""
    if not isinstance(state, (tuple, list)) or len(state) != config.num_layers:
        found = f"state of {len(state)} parts" if isinstance(state, (tuple, list)) else "state that is no tuple"
        raise ArgumentError(
            f"{found}: needed are {config.num_layers}, one ({rows}, {config.state_size}) for each layer"
        )
    shape = rows, config.state_size
    return tuple(as_array(f"state[{layer}]", part, shape, np.float32) for layer, part in enumerate(state))


def fitting_reading(ids: Any, counts: Any, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids (R, T), and how many of them each row reads (R,). Raises ArgumentError for one that the model does not have.

    What stands behind the ids that a row reads is nobody's.
    """
    ids = as_array("ids", ids, (None, None), np.int64)
    counts = as_array("counts", counts, (len(ids),), np.int64)
    check_range("counts", counts, 0, ids.shape[1] + 1)
    check_range("ids", ids[np.arange(ids.shape[1]) < counts[:, None]], 0, size)
    return ids, counts


def fitting_rules(rules: Any, mask_index: Any, rows: int, turns: int, size: int) -> tuple[Rules, NDArray[np.int64]]:
    """Rules, and which mask holds for each row (R,). Raises ArgumentError where they do not fit."""
    if not isinstance(rules, Rules):
        raise ArgumentError(f"rules of type {type(rules).__name__}: needed are Rules")
    masks = as_array("masks", rules.masks, (None, size), np.bool_)
    next_mask = as_array("next_mask", rules.next_mask, masks.shape, np.int64)
    stop_after = as_array("stop_after", rules.stop_after, (size,), np.bool_)
    mask_index = as_array("mask_index", mask_index, (rows,), np.int64)
    check_range("mask_index", mask_index, 0, len(masks))
    if turns > 1:
        check_range("next_mask", next_mask, -np.inf, len(masks))
    return Rules(masks, next_mask, stop_after), mask_index


def fitting_uniforms(uniforms: Any, rows: int) -> NDArray[np.float64]:
    """Draws (R, T). Raises ArgumentError where they are not from 0 to below 1."""
    found = as_array("uniforms", uniforms, (rows, None), np.float64)
    check_range("uniforms", found, 0, 1)
    return found


def check_config(config: Any) -> None:
    """Raise ArgumentError where that is no SampleConfig."""
    if not isinstance(config, SampleConfig):
        raise ArgumentError(f"config of type {type(config).__name__}: needed is a SampleConfig")
