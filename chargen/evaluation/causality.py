"""The causality check: a prediction must not depend on what it may not see, and must depend on what it may.

A bidirectional model that is scored by a next-character loss may have read the answer; this check detects it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.cloze import NumpyCloze
from chargen.decoding.numpy_engine import Engine, NumpyEngine
from chargen.decoding.pick_engine import cpu_engine
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError, SettingError
from chargen.rng import Purpose, uniform
from chargen.settings import check_int
from chargen.storage.model_file import AnyModel, ModelFile, as_model_file, build_model, check_char_model

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

Predict = Callable[[NDArray[np.int64]], NDArray[Any]]
"""Ids (T,) -> logits (T, V), of which row t predicts ids[t]."""
SEEN = {
    "before": "the characters before it",
    "after": "the characters behind it",
    "both": "all characters but itself",
}
LENGTH = 16
"""Characters of the random text."""
BEGINS = 0.25
"""The share of begin symbols in the random text, where there are any."""
WINDOW = 5
"""Characters read at a time where a text is read in windows."""


@dataclass(frozen=True)
class Check:
    """The result of checking a prediction that was computed in some way.

    Args:
        prediction: "forward", "backward" or "cloze".
        path: the way it was computed.
        violations: a line for each; empty for a causal prediction.
    """

    prediction: str
    path: str
    violations: tuple[str, ...]


def check_causality(
    predict: Predict, vocabulary_size: int, sees: str, *, length: int = LENGTH, seed: int = 0, begin_symbols: int = 0
) -> list[str]:
    """Check that predictions depend on what they may see, and on nothing else.

    For each position t of a random text: changing all that the prediction of x[t] may not see must leave it equal, bit
    for bit; changing the nearest character that it may see must change it. Begin symbols, a quarter of a text that has
    any, change into each other: where a text is cut decides how sums are rounded.

    Args:
        predict: ids (T,) -> logits (T, V), of which row t predicts ids[t]; always called with the same T.
        vocabulary_size: V, at least 2.
        sees: "before" (a forward prediction: x[:t]), "after" (backward: x[t+1:]) or "both" (cloze: all but x[t]).
        length: T, at least 2.
        seed: fixes the random text.
        begin_symbols: how many ids, the last ones, begin a record; 0 to V - 2.

    Returns:
        A line for each violation.

    Raises:
        SettingError: an argument is out of range, or `predict` returns another shape.
        ChargenError: predictions are not finite.
    """
    if sees not in SEEN:
        raise SettingError(f"sees is {sees!r}: it must be one of {', '.join(SEEN)}", "sees")
    vocabulary_size = check_int("vocabulary_size", vocabulary_size, 0)
    if vocabulary_size < 2:
        raise SettingError("a model of a single character predicts nothing: there is nothing to check")
    length = check_int("length", length, 2, 1_000_000)
    characters = vocabulary_size - check_int("begin_symbols", begin_symbols, 0, vocabulary_size - 2)
    draws = uniform(seed, np.arange(3)[:, None], np.arange(length), Purpose.CHECK)
    text, changed = _draw_texts(draws[:2], characters)
    if begin_symbols:
        begins = draws[2] < BEGINS
        text, changed = np.where(begins, characters + _draw_texts(draws[:2], begin_symbols), (text, changed))
    expected = _check_logits(predict(text), (length, vocabulary_size))
    lines = []
    positions = np.arange(length)
    for t in range(length):
        hidden = {"before": positions >= t, "after": positions <= t, "both": positions == t}[sees]
        if not np.array_equal(_check_logits(predict(np.where(hidden, changed, text)), expected.shape)[t], expected[t]):
            lines.append(f"the prediction of character {t} moves with what it may not see: it sees {SEEN[sees]} only")
        for near in {"before": [t - 1], "after": [t + 1], "both": [t - 1, t + 1]}[sees]:
            if 0 <= near < length and text[near] != changed[near]:
                logits = _check_logits(predict(np.where(positions == near, changed, text)), expected.shape)
                if np.array_equal(logits[t], expected[t]):
                    lines.append(f"the prediction of character {t} does not move with character {near}, beside it")
    return lines


def _draw_texts(draws: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Two texts (2, T) of ids below a size, which differ everywhere where there are two ids."""
    text = (draws[0] * size).astype(np.int64)
    return np.stack([text, (text + 1 + (draws[1] * (size - 1)).astype(np.int64)) % size])


def _check_logits(logits: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    logits = np.array(logits)
    if logits.shape != shape:
        raise SettingError(f"predict gives logits of shape {logits.shape}: it must be {shape}", "predict")
    if not np.isfinite(logits).all():
        raise ChargenError(NOT_FINITE_MESSAGE)
    return logits


def check(model: AnyModel) -> list[Check]:
    """Check all predictions of a model, computed at once, in windows with carried state, id by id and compiled.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.

    Returns:
        A result for each prediction and each way to compute it; none for a model of a single character.

    Raises:
        SettingError: it is no model.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        ChargenError: predictions are not finite.
    """
    if isinstance(model, (ModelFile, str, os.PathLike)):
        model = as_model_file(model)
        arrays, torch_model = model.arrays, build_model(model)
    else:
        from chargen.model.weights import weights_of

        check_char_model(model)
        arrays, torch_model = weights_of(model), model
    config, size = torch_model.config, torch_model.vocabulary_size
    if size - config.begin_symbols < 2:
        return []

    results = []
    for prediction, sees in (("forward", "before"), ("backward", "after"), ("cloze", "both")):
        if prediction != "forward" and not config.bidirectional:
            continue
        by_windows = partial(_predict_in_windows, torch_model, prediction)
        paths: dict[str, Predict] = {"whole sequence": partial(by_windows, LENGTH)}
        paths["in windows"] = partial(by_windows, WINDOW)
        if prediction == "cloze":
            forward, backward = (NumpyEngine(config, arrays, direction) for direction in config.directions)
            paths["step by step"] = partial(_predict_cloze, NumpyCloze(arrays), forward, backward)
        else:
            paths["step by step"] = partial(_predict_by_ids, NumpyEngine(config, arrays, prediction), prediction)
            paths["compiled"] = partial(_predict_by_ids, cpu_engine(config, arrays, prediction), prediction)
        results += [
            Check(prediction, path, tuple(check_causality(predict, size, sees, begin_symbols=config.begin_symbols)))
            for path, predict in paths.items()
        ]
    return results


def _predict_in_windows(model: "CharModel", prediction: str, window: int, ids: NDArray[np.int64]) -> NDArray[Any]:
    """Logits (T, V) for every character, read so many at a time."""
    from chargen.evaluation.rows import predict, read_rows

    first_logits = np.zeros(model.vocabulary_size)
    windows = read_rows(model, [ids], direction="both" if model.config.bidirectional else "forward", window=window)
    return np.concatenate([predict(model, part, prediction, first_logits).cpu().numpy() for part in windows])


def _predict_by_ids(engine: Engine, direction: str, ids: NDArray[np.int64]) -> NDArray[Any]:
    """Logits (T, V) for every character."""
    return _read_by_ids(engine, direction, ids)[0]


def _read_by_ids(engine: Engine, direction: str, ids: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits (T, V) for every character, and the outputs (T, H) before it; zeros for the first one read."""
    backward = direction == "backward"
    state = engine.start(1)
    size = engine.config.hidden_size
    logits, outputs = [np.zeros(engine.size, np.float32)], [np.zeros(size, np.float32)]
    for character_id in ids[:0:-1] if backward else ids[:-1]:
        next_logits, state = engine.step(np.full(1, character_id), state)
        logits.append(next_logits[0])
        outputs.append(state[-1][0, :size])
    order = slice(None, None, -1 if backward else 1)
    return np.array(logits)[order], np.array(outputs)[order]


def _predict_cloze(cloze: NumpyCloze, forward: Engine, backward: Engine, ids: NDArray[np.int64]) -> NDArray[Any]:
    """Logits (T, V) for every character from two engines that read id by id."""
    from_left, left = _read_by_ids(forward, "forward", ids)
    from_right, right = _read_by_ids(backward, "backward", ids)
    rows = [cloze.logits(left[t : t + 1], right[t : t + 1], from_left[t : t + 1], from_right[t : t + 1])[0, 0]
            for t in range(1, len(ids) - 1)]  # fmt: skip
    return np.array([from_right[0], *rows, from_left[-1]])
