"""Logits processors: functions of a caller that change logits before an id is chosen from them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import as_array
from chargen.decoding.choose import SampleConfig, choose
from chargen.errors import ArgumentError, repr_short

LogitsProcessor = Callable[[NDArray[np.int64], NDArray[np.float32]], Any]
"""(ids (N,), logits (V,)) -> logits (V,)."""


def check_processors(processors: Any) -> tuple[LogitsProcessor, ...]:
    """Check that logits processors can be called.

    Args:
        processors: a list or tuple of functions.

    Returns:
        The functions.

    Raises:
        ArgumentError: it is something else.
    """
    if not isinstance(processors, (list, tuple)) or not all(map(callable, processors)):
        raise ArgumentError(f"logits_processors is {repr_short(processors)}: needed is a list of functions")
    return tuple(processors)


def choose_ids(
    processors: Sequence[LogitsProcessor], histories: Sequence[NDArray[np.int64]], logits: NDArray[np.float32],
    masks: NDArray[np.bool_], uniforms: NDArray[np.float64], config: SampleConfig,
) -> None:  # fmt: skip
    """Choose an id for each row from processed logits, and let its mask allow nothing else.

    So an engine writes that id, with the model's own log-probability. Rows that cannot write are left to it.

    Args:
        processors: the functions.
        histories: of each row, the ids (N,) that it has read and written.
        logits: (R, V), the model's.
        masks: (R, V), the ids that are allowed; changed in place.
        uniforms: (R,), from 0 to below 1.
        config: temperature and filters.

    Raises:
        ArgumentError: a processor returned something else than logits, or leaves no id.
    """
    for row, allowed in enumerate(masks):
        if not (np.isfinite(logits[row]).all() and allowed.any()):
            continue
        values = logits[row]
        for processor in processors:
            name = f"what logits processor {getattr(processor, '__name__', type(processor).__name__)} returned"
            values = as_array(name, processor(histories[row].copy(), values.copy()), values.shape, np.float32)
            if not (values < np.inf).all():
                raise ArgumentError(f"{name} holds {values[~(values < np.inf)][0]}: logits must be finite, or -inf")
        if not (values[allowed] > -np.inf).any():
            raise ArgumentError(f"{name} leaves no id that may be written: keep one of those that bans allow")
        chosen = choose(values, allowed, float(uniforms[row]), config)
        allowed[:] = False
        allowed[chosen] = True
