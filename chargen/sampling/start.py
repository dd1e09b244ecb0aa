"""Where samples start: behind a model's begin text, or behind the begin symbol of a record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.records import check_no_surrogate
from chargen.data.vocabulary import Ids, Vocabulary
from chargen.decoding.numpy_engine import Engine, State
from chargen.errors import SettingError, repr_short
from chargen.settings import check_text
from chargen.storage.model_file import ModelFile

Label = str | Mapping[str, float] | None
"""The label of a record, or several labels with their weights; None for no label."""
MAX_WEIGHT = 1e9


@dataclass(frozen=True, eq=False)
class Start:
    """What a fresh state has read, and where it stands.

    Args:
        ids: (N,), in the order of reading.
        logits: (1, V), for the next id.
        state: one (1, S) a layer.
    """

    ids: NDArray[np.int64]
    logits: NDArray[np.float32]
    state: State


def read_start(
    engine: Engine, model: ModelFile, label: Label = None, begin: str | None = None, *, backward: bool = False
) -> Start:
    """Read what stands before a text, or behind it.

    Several labels are mixed: logits and state are the weighted means of those behind each label's begin symbol. Logits
    are W h + b of the last layer's outputs h, and the weights sum to one: the mean of the logits is what the output
    layer makes of the mean of h, so that logits and state fit together.

    Args:
        engine: of the model, in the direction of reading.
        model: what `read_model` returned.
        label: of the record.
        begin: the text to read instead of the model's begin text or begin symbol.
        backward: whether the text is read from its end.

    Raises:
        SettingError: the model does not have the label, or has no records; or weights are no numbers above 0.
    """
    vocabulary = model.vocabulary
    if label is not None and begin is not None:
        raise SettingError(f"label is {repr_short(label)} and begin {repr_short(begin)}: give one", "label")
    if label is not None and not isinstance(label, Mapping):
        check_text("label", label)
    labels = label if isinstance(label, Mapping) else {label: 1.0}
    weights = _check_weights(labels)
    if label is not None or (vocabulary.records and begin is None):
        ids = np.array([[vocabulary.begin_id(name)] for name in labels], np.int64)
    else:
        ids = vocabulary.encode(model.begin if begin is None else begin).astype(np.int64)[None]
        ids = ids[:, ::-1] if backward else ids
    rows = len(ids)
    first_logits = np.repeat(model.first_logits[None].astype(np.float32), rows, axis=0)
    logits, state = first_logits, engine.start(rows)
    if ids.size:
        logits, state = engine.read(ids, np.full(rows, ids.shape[1]), logits, state)
    if rows > 1:
        logits, state = _mean(weights, logits), tuple(_mean(weights, layer) for layer in state)
    return Start(ids.ravel(), logits, state)


def encode_text(text: str, vocabulary: Vocabulary, unknown: str = "error") -> Ids:
    """Convert a text to ids that stands within a record, where the model has such: it holds no begin symbol.

    Args:
        text: any.
        vocabulary: the model's.
        unknown: what to do with characters that the model does not know: "error", "skip" or "replace".

    Returns:
        Ids (N,).

    Raises:
        DataError: the text holds a lone surrogate, which stands for a symbol, or the model does not know a character.
    """
    if vocabulary.records:
        check_no_surrogate(check_text("text", text))
    return vocabulary.encode(text, unknown)


def _mean(weights: NDArray[np.float64], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weighted mean (1, N) of rows (R, N)."""
    return (weights @ values)[None].astype(np.float32)


def _check_weights(labels: Mapping[Any, Any]) -> NDArray[np.float64]:
    """The weights of labels, which sum to one."""
    if not labels:
        raise SettingError("label is {}: it must be a label, or labels with their weights", "label")
    for name, weight in labels.items():
        if name is not None and not isinstance(name, str):
            raise SettingError(f"label is {repr_short(name)}: it must be the name of a label", "label")
        if isinstance(weight, bool) or not isinstance(weight, (int, float, np.number)) or not 0 < weight <= MAX_WEIGHT:
            problem = f"label gives {repr_short(name)} the weight {repr_short(weight)}"
            raise SettingError(f"{problem}: it must be more than 0 and at most {MAX_WEIGHT:,.0f}", "label")
    weights = np.array([*labels.values()], np.float64)
    return weights / math.fsum(weights)
