"""Is a prediction honest? It must not move with what it may not see, and must move with what it may.

A model that reads both ways and is scored by a next-character loss can read the answer; this is how that is caught.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.cloze import NumpyCloze
from chargen.decoding.numpy_engine import NumpyStepper, Stepper
from chargen.decoding.pick_engine import new_stepper
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError, SettingError
from chargen.model.config import ModelConfig
from chargen.rng import Purpose, uniform
from chargen.settings import check_int
from chargen.storage.model_file import ModelFile, as_model_file, build_model, check_char_model

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

Predict = Callable[[NDArray[np.int64]], NDArray[Any]]
"""Ids (T,) -> logits (T, V), of which row t predicts ids[t]."""
SEES = {
    "before": "the characters before it",
    "after": "the characters behind it",
    "both": "all characters but itself",
}
LENGTH = 16
WINDOW = 5


@dataclass(frozen=True)
class Check:
    """What the check of one way to predict found.

    Args:
        prediction: "forward", "backward" or "cloze".
        path: how it was computed.
        violations: one line each; empty where all is well.
    """

    prediction: str
    path: str
    violations: tuple[str, ...]


def check_causality(
    predict: Predict, vocabulary_size: int, sees: str, *, length: int = LENGTH, seed: int = 0
) -> list[str]:
    """Check that predictions see exactly what they may; return one line for each violation.

    For each position t of a random text: changing all that the prediction of x[t] may not see must leave it as it was,
    bit for bit; changing the nearest character that it may see must move it.

    Args:
        predict: ids (T,) -> logits (T, V), of which row t predicts ids[t]; always called with the same T.
        vocabulary_size: V, at least 2.
        sees: "before" (a forward prediction: x[:t]), "after" (backward: x[t+1:]) or "both" (cloze: all but x[t]).
        length: T.
        seed: fixes the texts.
    """
    if sees not in SEES:
        raise SettingError(f"sees is {sees!r}: it must be one of {', '.join(SEES)}", "sees")
    vocabulary_size = check_int("vocabulary_size", vocabulary_size, 0)
    if vocabulary_size < 2:
        raise SettingError("a model of a single character predicts nothing: there is nothing to check")
    length = check_int("length", length, 2, 1_000_000)
    draws = uniform(seed, np.arange(2)[:, None], np.arange(length), Purpose.CHECK)
    text = (draws[0] * vocabulary_size).astype(np.int64)
    # Another character at every position, however it is drawn.
    other = (text + 1 + (draws[1] * (vocabulary_size - 1)).astype(np.int64)) % vocabulary_size
    expected = _checked(predict(text), (length, vocabulary_size))
    found = []
    for at in range(length):
        places = np.arange(length)
        hidden = {"before": places >= at, "after": places <= at, "both": places == at}[sees]
        if not np.array_equal(_checked(predict(np.where(hidden, other, text)), expected.shape)[at], expected[at]):
            found.append(f"the prediction of character {at} moves with what it may not see: it sees {SEES[sees]} only")
        for near in {"before": [at - 1], "after": [at + 1], "both": [at - 1, at + 1]}[sees]:
            if 0 <= near < length:
                moved = _checked(predict(np.where(places == near, other, text)), expected.shape)
                if np.array_equal(moved[at], expected[at]):
                    found.append(f"the prediction of character {at} does not move with character {near}, beside it")
    return found


def _checked(logits: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    logits = np.array(logits)
    if logits.shape != shape:
        raise SettingError(f"predict gives logits of shape {logits.shape}: it must be {shape}", "predict")
    if not np.isfinite(logits).all():
        raise ChargenError(NOT_FINITE_MESSAGE)
    return logits


def check(model: "ModelFile | CharModel | str | os.PathLike[str]") -> list[Check]:
    """Check every prediction a model makes: in one go, in windows with carried state, step by step and compiled.

    A model of a single character has nothing to check.

    Args:
        model: the path of a model file or a run folder, what `read_model` returned, or a CharModel.

    Raises ChargenError where predictions are not finite.
    """
    if isinstance(model, (ModelFile, str, os.PathLike)):
        model = as_model_file(model)
        arrays, counts, torch_model = model.arrays, model.counts, build_model(model)
    else:
        from chargen.model.weights import weights_of

        check_char_model(model)
        arrays, counts, torch_model = weights_of(model), np.ones(model.vocabulary_size, np.int64), model
    config, size = model.config, len(counts)
    if size < 2:
        return []
    first = np.log(np.maximum(counts, 1e-9))

    def in_windows(prediction: str, window: int) -> Predict:
        from chargen.evaluation.both_ways import read_both_ways

        def predict(ids: NDArray[np.int64]) -> NDArray[Any]:
            parts = read_both_ways(torch_model, ids, first, window)
            return np.concatenate([getattr(part, prediction) for part in parts])

        return predict

    def stepped(stepper: Stepper, direction: str) -> Predict:
        return lambda ids: _step_through(stepper, ids, direction, first)[0]

    found = []
    for prediction, sees in (("forward", "before"), ("backward", "after"), ("cloze", "both")):
        if prediction != "forward" and not config.bidirectional:
            continue
        paths = {"whole sequence": in_windows(prediction, LENGTH), "in windows": in_windows(prediction, WINDOW)}
        if prediction == "cloze":
            paths["step by step"] = _cloze_by_steps(config, arrays, first)
        else:
            paths["step by step"] = stepped(NumpyStepper(config, arrays, prediction), prediction)
            paths["compiled"] = stepped(new_stepper(config, arrays, "cpu", prediction), prediction)
        found += [
            Check(prediction, path, tuple(check_causality(predict, size, sees))) for path, predict in paths.items()
        ]
    return found


def _step_through(
    stepper: Stepper, ids: NDArray[np.int64], direction: str, first: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Logits (T, V) for every character, and the outputs (T, H) they were made of; those of the first one are zero."""
    backward = direction == "backward"
    state = stepper.start(1)
    size = stepper.config.hidden_size
    logits, outputs = [first], [np.zeros(size, np.float32)]
    for one in ids[:0:-1] if backward else ids[:-1]:
        row, state = stepper.step(np.full(1, one), state)
        logits.append(row[0])
        outputs.append(state[-1][0, :size])
    order = slice(None, None, -1 if backward else 1)
    return np.array(logits)[order], np.array(outputs)[order]


def _cloze_by_steps(config: ModelConfig, arrays: dict[str, NDArray[Any]], first: NDArray[Any]) -> Predict:
    steppers = {name: NumpyStepper(config, arrays, name) for name in config.directions}
    cloze = NumpyCloze(arrays)

    def predict(ids: NDArray[np.int64]) -> NDArray[Any]:
        forward, left = _step_through(steppers["forward"], ids, "forward", first)
        backward, right = _step_through(steppers["backward"], ids, "backward", first)
        rows = [cloze.logits(left[t : t + 1], right[t : t + 1], forward[t : t + 1], backward[t : t + 1])[0, 0]
                for t in range(1, len(ids) - 1)]  # fmt: skip
        return np.array([backward[0], *rows, forward[-1]])

    return predict
